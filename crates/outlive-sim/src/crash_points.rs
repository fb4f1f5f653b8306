//! The death of the active node after each of its steps.
//!
//! A scenario is run once to count the steps of the active node (each output, and the end of each event),
//! and then once more for each of them, with the node dying there; where the other node becomes active, the same for
//! that one. How it dies alternates: what is under way on the state connection arrives, or not, or in
//! part; the process dies, or the machine; what it has sent is lost with it, or not; it comes back, or does not.
//!
//! Where connections are migrated, the same is done to the agent of each target.
//!
//! Short scenarios are also run with each pair of deaths: after the first one, the node that took over dies
//! after each of its steps, while the other one comes back.

use std::{panic::AssertUnwindSafe, time::Duration};

use serde::Serialize;

use crate::{
    channel::Tail,
    ledger::{Rule, Violation},
    network::NodeIndex,
    programs::{self, Load},
    scenario::Scenario,
    setup::{CrashPoint, Setup},
    targets::FIRST_TARGET,
    world::{Outcome, World},
};

/// Ways to die at one point: what becomes of the messages under way, times who dies and who comes back.
pub const WAYS: u64 = 12;

/// Ways for an agent to die: its messages under way are lost, or not, or in part; it comes back soon, or later, or never.
pub const AGENT_WAYS: u64 = 6;

/// Scenarios of at most so many steps are run with pairs of deaths.
const SHORT: u64 = 72;

/// How the first node dies in a pair of deaths: everything that it said arrives, or nothing. It comes back soon.
const PAIR_WAYS: [u64; 2] = [3, 4];

/// The crash point of that number at `node`; `way` is below [`WAYS`].
pub fn crash_point(node: NodeIndex, point: u64, way: u64) -> CrashPoint {
    let tail = [Tail::Kept, Tail::Lost, Tail::Random][way as usize % 3];
    if node >= FIRST_TARGET {
        let after = if way < 3 { 10 } else { 700 };
        let restart = (way != 5).then_some(Duration::from_millis(after));
        return CrashPoint {
            node,
            point,
            tail,
            off: false,
            restart,
            queues_lost: false,
            then: None,
        };
    }
    let (off, restart) = match way / 3 {
        0 => (false, None),
        1 => (false, Some(Duration::from_millis(10))),
        _ => (true, Some(Duration::from_millis(300))),
    };
    CrashPoint { node, point, tail, off, restart, queues_lost: way / 3 == 3, then: None }
}

/// Runs a world. A panic in it is a broken rule.
pub fn run(setup: Setup) -> Outcome {
    let flows = setup.flows.len();
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| World::new(setup).run()));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        let violation = Violation {
            at: outlive_tcp::time::Time::NEVER,
            rule: Rule::Invariant,
            detail: text.unwrap_or_default(),
        };
        Outcome {
            violations: vec![violation],
            steps: 0,
            later_steps: 0,
            flows,
            exempt: 0,
            events: 0,
            lasted: Duration::ZERO,
            takeovers: 0,
            situations: Default::default(),
        }
    })
}

/// What became of the crash points of one scenario.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Its name.
    pub scenario: String,
    /// Worlds in which the active node died.
    pub crash_points: u64,
    /// Those of them in which the other one died, too.
    pub pairs: u64,
    /// Worlds in which a rule was broken.
    pub violations: u64,
    /// Flows, in all worlds, for which nothing was promised.
    pub exempt_flows: u64,
    /// Events in all worlds.
    pub events: u64,
    /// The first few violations, each with the command that shows it.
    pub examples: Vec<String>,
}

/// What begins the command that shows a world.
pub(crate) const COMMAND: &str = "cargo run --release -p outlive-sim --";

/// Examples that are kept.
const EXAMPLES: usize = 5;

/// Runs a world of some kind, with somebody's death in it or without.
type Runs<'a> = &'a dyn Fn(Option<CrashPoint>) -> Outcome;

/// Tries the crash points of a scenario, every `stride`-th.
pub fn explore(name: &str, scenario: &Scenario, seed: u64, stride: u64) -> Report {
    let runs = |crash| run(Setup { crash, ..scenario.setup(seed) });
    let mut report = explore_nodes(name, seed, stride, scenario.dies_twice(), &runs);
    for target in 0..scenario.target_count() {
        report.explore_node(FIRST_TARGET + target, AGENT_WAYS, seed, stride, false, &runs);
    }
    report
}

/// Those of a pair of hosts whose programs end connections themselves.
pub fn explore_programs(name: &str, load: &Load, seed: u64, stride: u64) -> Report {
    let runs = |crash| programs::run(programs::Setup { crash, ..load.setup(seed) });
    explore_nodes(name, seed, stride, true, &runs)
}

/// With `twice`, in a short world the other node dies, too.
fn explore_nodes(name: &str, seed: u64, stride: u64, twice: bool, runs: Runs<'_>) -> Report {
    let mut report = Report { scenario: name.to_owned(), ..Report::default() };
    // Where both nodes act, one after the other, both have steps to die after.
    for node in 0..actors(&runs(None)) {
        report.explore_node(node, WAYS, seed, stride, twice, runs);
    }
    report
}

/// How many nodes, of those of a world in which nothing died by surprise, were active at some time.
pub(crate) fn actors(calm: &Outcome) -> usize {
    1 + usize::from(calm.takeovers > 1)
}

impl Report {
    fn explore_node(
        &mut self,
        node: NodeIndex,
        ways: u64,
        seed: u64,
        stride: u64,
        twice: bool,
        runs: Runs<'_>,
    ) {
        // A point that is never reached counts the steps.
        let calm = runs(Some(crash_point(node, u64::MAX, 0)));
        let name = self.scenario.clone();
        self.events += calm.events;
        self.note(&calm, || format!("run --scenario {name} --seed {seed} --trace"));
        if !calm.violations.is_empty() {
            return;
        }
        for point in (1..=calm.steps).step_by(stride.max(1) as usize) {
            for way in 0..ways {
                self.try_point(seed, crash_point(node, point, way), way, runs);
            }
            if calm.steps <= SHORT && twice {
                self.try_pairs(seed, crash_point(node, point, 0), stride, runs);
            }
        }
    }

    fn try_point(&mut self, seed: u64, crash: CrashPoint, way: u64, runs: Runs<'_>) {
        let outcome = runs(Some(crash));
        self.crash_points += 1;
        self.events += outcome.events;
        self.exempt_flows += outcome.exempt as u64;
        let (name, node, point) = (self.scenario.clone(), crash.node, crash.point);
        let then = crash.then.map_or(String::new(), |then| format!(" --then {then}"));
        self.note(&outcome, || {
            format!("crash-points --scenario {name} --seed {seed} --node {node} --point {point} --way {way}{then} --trace")
        });
    }

    /// The node dies where `at` says and comes back soon; the other one dies after each of its steps since.
    fn try_pairs(&mut self, seed: u64, at: CrashPoint, stride: u64, runs: Runs<'_>) {
        for way in PAIR_WAYS {
            let crash = CrashPoint { then: Some(u64::MAX), ..crash_point(at.node, at.point, way) };
            let once = runs(Some(crash));
            for then in (1..=once.later_steps).step_by(stride.max(1) as usize) {
                let crash = CrashPoint { then: Some(then), ..crash };
                self.try_point(seed, crash, way, runs);
                self.pairs += 1;
            }
        }
    }

    fn note(&mut self, outcome: &Outcome, command: impl Fn() -> String) {
        let Some(violation) = outcome.violations.first() else { return };
        self.violations += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(format!("{violation}: {COMMAND} {}", command()));
        }
    }
}
