//! A reduced form of what the commands `crash-points` and `explore` do at length. (`./test` runs `mutants` as it is.)

use outlive_sim::{
    crash_points, explore, programs, scenarios,
    setup::{Fault, Setup},
};

/// Violations, one per line, with the commands that show them.
fn lines(examples: &[String]) -> String {
    examples.join("\n")
}

#[test]
fn nothing_goes_wrong_while_nothing_dies() {
    for (name, scenario) in scenarios::all() {
        for seed in 1..=5 {
            let setup = scenario.setup(seed);
            let is_handover = |fault: &&(_, Fault)| matches!(fault.1, Fault::Handover(_));
            let handovers = setup.faults.iter().filter(is_handover).count();
            let as_planned = setup.faults.len() == handovers;
            let outcome = crash_points::run(setup);
            assert!(outcome.violations.is_empty(), "{name} {seed}: {:?}", outcome.violations);
            // In one, both nodes serve and do not hear each other: what only one of them knows is not promised.
            let promised = name != "migrate-succeeded";
            assert!(!promised || outcome.exempt == 0, "{name}: everything is promised");
            let starts = outcome.takeovers as usize - 1;
            assert!(
                !as_planned || starts == handovers,
                "{name}: who starts first stays, unless it is told to go"
            );
        }
    }
}

#[test]
fn sessions_outlive_the_active_node_wherever_it_dies() {
    for (i, (name, scenario)) in scenarios::all().into_iter().enumerate() {
        let report = crash_points::explore(name, &scenario, 1 + i as u64, 37);
        assert!(report.crash_points > 0, "{name}");
        assert_eq!(report.violations, 0, "{name}:\n{}", lines(&report.examples));
    }
}

#[test]
fn connections_of_programs_outlive_their_host() {
    for (name, load) in programs::all() {
        let report = crash_points::explore_programs(name, &load, 1, 29);
        assert!(report.crash_points > 0, "{name}");
        assert_eq!(report.violations, 0, "{name}:\n{}", lines(&report.examples));
    }
}

#[test]
fn random_worlds_keep_the_rules() {
    let mut report = explore::Report::default();
    (1..=1_500).for_each(|seed| report.add(seed));
    report.close();
    assert_eq!(report.violations, 0, "{}", lines(&report.examples));
    assert!(report.situations_missing.is_empty(), "never met: {:?}", report.situations_missing);
}

/// Worlds in which something was wrong, with the nodes or with the rules.
#[test]
fn what_was_wrong_once_is_right() {
    let seeds = [
        10378, 11013, 13006, 15024, 18679, 19408, 20324, 26576, 28138, 32123, 33182, 34950, 38865,
        45973, 53035, 57895, 62889, 64167, 69717, 78332,
    ];
    let mut report = explore::Report::default();
    seeds.into_iter().for_each(|seed| report.add(seed));
    assert_eq!(report.violations, 0, "{}", lines(&report.examples));
}

#[test]
fn a_seed_decides_everything() {
    let scenario = scenarios::named("loss").expect("it is in the list");
    let crash = Some(crash_points::crash_point(0, 40, 2));
    let run = || crash_points::run(Setup { crash, ..scenario.setup(9) });
    assert_eq!(run(), run());
}
