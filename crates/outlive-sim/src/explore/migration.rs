//! Random worlds in which connections are migrated: targets, and what befalls them.

use std::time::Duration;

use outlive_proxy::config::Route;

use super::UNSAFE;
use crate::{
    network::Place, rng::Rng, scenario::Scenario, setup::Fault, stack::StackSetup,
    targets::TargetFault,
};

/// The same world, in which everything that is understood is migrated, and may go wrong.
pub(super) fn moved(mut scenario: Scenario, rng: &mut Rng) -> Scenario {
    let accepting = *rng.pick(&[[true, true], [false, true]]);
    scenario = scenario.migrate(Route::default(), &accepting);
    if rng.chance(500) {
        scenario = scenario.kept();
    }
    let receive_buffer = *rng.pick(&[3_000, 16_000, 65_535, 300_000, 4 << 20]);
    let mtu = *rng.pick(&[1_500, 1_500, 1_280]);
    scenario = scenario.target_stack(StackSetup { receive_buffer, mtu, ..StackSetup::default() });
    for _ in 0..rng.below(4) {
        let at = rng.duration(Duration::from_millis(1_800));
        let lasts = Duration::from_millis(10) + rng.duration(Duration::from_millis(900));
        scenario = misfortune(scenario, rng, at, lasts);
    }
    mended(scenario)
}

fn misfortune(scenario: Scenario, rng: &mut Rng, at: Duration, lasts: Duration) -> Scenario {
    let target = rng.below(2) as usize;
    let ends = at + lasts;
    match rng.below(9) {
        0 | 1 => scenario
            .target_fault(at, TargetFault::Kill(target))
            .target_fault(ends, TargetFault::Restart(target)),
        2 => scenario
            .target_fault(at, TargetFault::Freeze(target))
            .target_fault(ends, TargetFault::Resume(target)),
        3 => scenario
            .target_fault(at, TargetFault::Refuse(target, true))
            .target_fault(ends, TargetFault::Refuse(target, false)),
        4 => scenario
            .target_fault(at, TargetFault::Drain(target, true))
            .target_fault(ends, TargetFault::Drain(target, false)),
        5 => (0..4).fold(scenario, |s, i| {
            s.target_fault(at + lasts / 4 * i, TargetFault::BreakLines(target))
        }),
        6 => scenario.target_fault(at, TargetFault::ForgeTunnel(target)),
        7 => {
            let mtu = *rng.pick(&[1_300, 1_400]);
            scenario.target_fault(at, TargetFault::PathMtu(mtu))
        }
        _ => {
            let (node, target) = (Place::Node(rng.below(2) as usize), Place::Target(target));
            scenario
                .fault(at, Fault::Cut(node, target))
                .fault(at, Fault::Cut(target, node))
                .fault(ends, Fault::Heal)
        }
    }
}

/// Targets are well again when the nodes are.
fn mended(scenario: Scenario) -> Scenario {
    (0..2).fold(scenario, |s, target| {
        s.target_fault(UNSAFE, TargetFault::Restart(target))
            .target_fault(UNSAFE, TargetFault::Resume(target))
            .target_fault(UNSAFE, TargetFault::Refuse(target, false))
            .target_fault(UNSAFE, TargetFault::Drain(target, false))
    })
}
