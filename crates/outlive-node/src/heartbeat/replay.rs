//! Which heartbeats are news, and which somebody has recorded and sent again.
//!
//! Within a process of the peer (an incarnation) its counters only rise, on each path. Another
//! incarnation must prove that it is not a recording before it takes the place of one that is
//! known to be real: it proves it by naming a counter of ours. Our counters start at a random
//! number, so only who hears us now can. Until one has proved itself, any is believed: nobody is
//! there whom it could harm, and a peer that cannot hear us must still be heard.

use std::collections::VecDeque;

use outlive_proxy::pair::heartbeat::Heartbeat;

/// Former incarnations that are remembered, so that their recordings are known for what they are.
const RETIRED: usize = 16;

/// What the peer's heartbeats are measured against.
#[derive(Debug)]
pub(super) struct Freshness {
    paths: usize,
    /// The first counter that this process has used.
    first_sent: u64,
    current: Option<Incarnation>,
    retired: VecDeque<u64>,
}

#[derive(Debug)]
struct Incarnation {
    number: u64,
    /// It named a counter of ours.
    proven: bool,
    highest: u64,
    last_of_path: Vec<u64>,
}

/// What to make of a heartbeat whose tag is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is from the peer, now.
    Fresh,
    /// Perhaps: answer it at once, with its counter, so that the next one can prove it.
    Unproven,
    /// Sent before, or overtaken.
    Replayed,
}

impl Freshness {
    /// `first_sent`: the first counter that this process will use, a random number.
    pub(super) fn new(paths: usize, first_sent: u64) -> Self {
        Freshness { paths, first_sent, current: None, retired: VecDeque::new() }
    }

    /// The highest counter heard from the peer's present incarnation; zero for none.
    pub(super) fn heard(&self) -> u64 {
        self.current.as_ref().map_or(0, |current| current.highest)
    }

    /// Judges what arrived on `path`. `last_sent`: the last counter that this process has used.
    pub(super) fn judge(&mut self, path: usize, heartbeat: &Heartbeat, last_sent: u64) -> Verdict {
        let number = heartbeat.beliefs.incarnation;
        if self.retired.contains(&number) {
            return Verdict::Replayed;
        }
        let proof = (self.first_sent..=last_sent).contains(&heartbeat.heard);
        match &mut self.current {
            Some(current) if current.number == number => {
                let Some(last) = current.last_of_path.get_mut(path) else {
                    return Verdict::Replayed;
                };
                if heartbeat.counter <= *last {
                    return Verdict::Replayed;
                }
                *last = heartbeat.counter;
                current.highest = current.highest.max(heartbeat.counter);
                current.proven |= proof;
                Verdict::Fresh
            }
            Some(current) if current.proven && !proof => Verdict::Unproven,
            current => {
                let mut last_of_path = vec![0; self.paths];
                let Some(last) = last_of_path.get_mut(path) else { return Verdict::Replayed };
                *last = heartbeat.counter;
                let next =
                    Incarnation { number, proven: proof, highest: heartbeat.counter, last_of_path };
                if let Some(former) = current.replace(next)
                    && proof
                {
                    self.retired.truncate(RETIRED - 1);
                    self.retired.push_front(former.number);
                }
                Verdict::Fresh
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use outlive_proxy::{
        config::NodeId,
        pair::{
            Epoch,
            heartbeat::{Beliefs, Role},
        },
    };

    use super::*;

    const FIRST: u64 = 1_000;
    const SENT: u64 = 1_010;

    fn heartbeat(incarnation: u64, counter: u64, heard: u64) -> Heartbeat {
        let beliefs = Beliefs {
            node: NodeId::B,
            incarnation,
            epoch: Epoch(4),
            role: Role::Standby,
            synchronised: false,
        };
        Heartbeat { beliefs, asks: false, clock_us: 0, counter, heard }
    }

    #[test]
    fn counters_rise_on_each_path() {
        let mut freshness = Freshness::new(2, FIRST);
        let mut judge = |path, counter| freshness.judge(path, &heartbeat(1, counter, 0), SENT);
        assert_eq!(judge(0, 5), Verdict::Fresh);
        assert_eq!(judge(0, 5), Verdict::Replayed);
        assert_eq!(judge(0, 4), Verdict::Replayed);
        // The other path is slower: what comes late there is news about that path.
        assert_eq!(judge(1, 4), Verdict::Fresh);
        assert_eq!(judge(0, 6), Verdict::Fresh);
        assert_eq!(judge(2, 9), Verdict::Replayed);
        assert_eq!(freshness.heard(), 6);
    }

    #[test]
    fn a_recording_does_not_replace_a_living_peer() {
        let mut freshness = Freshness::new(1, FIRST);
        assert_eq!(freshness.judge(0, &heartbeat(2, 5, FIRST), SENT), Verdict::Fresh);
        // Recorded before this process began, or of a time when its counters were others.
        for heard in [0, 7, FIRST - 1, SENT + 1] {
            assert_eq!(freshness.judge(0, &heartbeat(1, 900, heard), SENT), Verdict::Unproven);
        }
        assert_eq!(freshness.judge(0, &heartbeat(2, 6, FIRST), SENT), Verdict::Fresh);
    }

    #[test]
    fn a_restarted_peer_proves_itself_and_retires_its_predecessor() {
        let mut freshness = Freshness::new(1, FIRST);
        assert_eq!(freshness.judge(0, &heartbeat(1, 500, FIRST), SENT), Verdict::Fresh);
        assert_eq!(freshness.judge(0, &heartbeat(2, 40, 0), SENT), Verdict::Unproven);
        assert_eq!(freshness.judge(0, &heartbeat(2, 41, SENT), SENT), Verdict::Fresh);
        assert_eq!(freshness.heard(), 41);
        assert_eq!(freshness.judge(0, &heartbeat(1, 501, SENT), SENT), Verdict::Replayed);
    }

    #[test]
    fn a_peer_that_cannot_hear_is_heard() {
        let mut freshness = Freshness::new(1, FIRST);
        assert_eq!(freshness.judge(0, &heartbeat(1, 5, 0), SENT), Verdict::Fresh);
        assert_eq!(freshness.judge(0, &heartbeat(1, 6, 0), SENT), Verdict::Fresh);
        // Started again, still without hearing us: nobody proven is in its way.
        assert_eq!(freshness.judge(0, &heartbeat(2, 5, 0), SENT), Verdict::Fresh);
    }
}
