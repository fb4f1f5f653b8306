//! What a seed decides: one step after the other, without end.

use std::time::Duration;

use fastrand::Rng;
use serde::Serialize;

use crate::scenario::fault::Fault;

/// Something that is done to somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Strike {
    /// To whoever is active.
    Fault(Fault),
    /// The standby's program is killed, and started again.
    Standby,
    /// A host loses all frames for a moment shorter than the detection timeout: the client, a server,
    /// or a node.
    Burst(usize),
}

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    pub(super) strike: Strike,
    /// How long everything runs undisturbed before it.
    pub(super) steady: Duration,
    /// How long it lasts, once the other node serves.
    pub(super) outage: Duration,
    /// How long a burst lasts.
    pub(super) burst: Duration,
    /// Whether the next step waits until the pair is whole again.
    pub(super) patient: bool,
}

/// Hosts that a burst can strike.
const HOSTS: usize = 5;

const FAULTS: [Fault; 8] = [
    Fault::Kill,
    Fault::Freeze,
    Fault::FreezeCut,
    Fault::Cut,
    Fault::Partition,
    Fault::Reboot,
    Fault::Restart,
    Fault::Handover,
];

/// All steps of a seed.
pub(super) struct Steps {
    random: Rng,
    /// The pair is not known to be whole: only what the remaining node survives by itself may follow.
    in_a_hurry: bool,
}

impl Steps {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: Rng::with_seed(seed), in_a_hurry: false }
    }
}

impl Iterator for Steps {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let random = &mut self.random;
        // Always as many draws, so that one step's outcome does not change what the next one is.
        let (kind, fault, host) =
            (random.u8(..100), random.usize(..FAULTS.len()), random.usize(..HOSTS));
        let (steady, outage, burst) =
            (random.u64(100..1500), random.u64(100..1000), random.u64(5..60));
        let hurries = random.u8(..100) < 20;
        let strike = match kind {
            _ if self.in_a_hurry => Strike::Fault(Fault::Kill),
            0..30 => Strike::Burst(host),
            30..40 => Strike::Standby,
            _ => Strike::Fault(FAULTS[fault]),
        };
        // Only after these is there surely a node that serves, and one that is back.
        let may_hurry =
            matches!(strike, Strike::Fault(Fault::Kill | Fault::Restart)) && !self.in_a_hurry;
        let steady = if self.in_a_hurry { steady / 4 } else { steady };
        self.in_a_hurry = may_hurry && hurries;
        Some(Step {
            strike,
            steady: Duration::from_millis(steady),
            outage: Duration::from_millis(outage),
            burst: Duration::from_millis(burst),
            patient: !self.in_a_hurry,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_everything() {
        let steps = |seed| Steps::new(seed).take(200).collect::<Vec<_>>();
        assert_eq!(steps(3), steps(3));
        assert_ne!(steps(3), steps(4));
    }

    #[test]
    fn everything_comes_up_and_hurry_is_followed_by_a_kill() {
        let steps: Vec<Step> = Steps::new(1).take(500).collect();
        for fault in FAULTS {
            assert!(steps.iter().any(|step| step.strike == Strike::Fault(fault)), "{fault:?}");
        }
        assert!(steps.iter().any(|step| step.strike == Strike::Standby));
        for host in 0..HOSTS {
            assert!(steps.iter().any(|step| step.strike == Strike::Burst(host)));
        }
        assert!(steps.iter().any(|step| !step.patient));
        for pair in steps.windows(2).filter(|pair| !pair[0].patient) {
            assert_eq!(pair[1].strike, Strike::Fault(Fault::Kill));
        }
    }
}
