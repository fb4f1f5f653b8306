//! The lab's scenarios with migrations, with few of them: none lost, no request answered twice, and every figure there that the
//! command is to give.

use std::{env, path::Path};

use outlive_lab::{
    migration::{MigrationMode, Victim},
    privilege,
    report::Report,
    scenario::{Scenario, Settings, migrate::MigrationSettings},
};
use serde_json::Value;

/// Runs the scenario and gives its report; nothing where it cannot run.
fn run(name: &str, settings: MigrationSettings, rounds: usize) -> Option<Report> {
    if let Some(missing) = privilege::missing() {
        eprintln!("SKIPPED: {missing}");
        return None;
    }
    let settings = Settings {
        program: Some(env!("CARGO_BIN_EXE_outlive").into()),
        migration: settings,
        rounds,
        seconds: 0.3,
        ..Settings::default()
    };
    let scenario = Scenario::named(name).expect("there is such a scenario");
    let report = scenario.run(&settings).expect("it can run");
    assert!(report.ok, "{report}");
    assert!(report.connections > 0 && report.bytes_wrong == 0, "{report}");
    Some(report)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

#[test]
fn what_a_migration_takes_is_measured() {
    for mode in [MigrationMode::Kernel, MigrationMode::Replay, MigrationMode::Splice] {
        if mode == MigrationMode::Replay && !is_installed("nginx") {
            continue;
        }
        let settings = MigrationSettings { mode, count: 200, ..MigrationSettings::default() };
        let Some(report) = run("migrate", settings, 1) else { return };
        assert_eq!(report.connections_lost, 0, "{report}");
        let quantiles = ["p50", "p99"].map(|name| number(&report.measured["latency_us"][name]));
        assert!(0.0 < quantiles[0] && quantiles.is_sorted(), "{report}");
        assert!(number(&report.measured["processor_us"]["balancer"]) > 0.0, "{report}");
        if mode != MigrationMode::Splice {
            assert!(number(&report.measured["blob_bytes"]) > 148.0, "{report}");
        }
    }
}

#[test]
fn host_name_and_path_tell_the_target_and_the_nodes_carry_no_answer() {
    if !["nginx", "curl", "python3"].iter().all(|program| is_installed(program)) {
        return;
    }
    let Some(report) = run("migrate-content", MigrationSettings::default(), 1) else { return };
    assert_eq!((report.connections, report.connections_lost), (6, 0), "{report}");
}

#[test]
fn long_answers_are_compared_with_what_passes_through_a_proxy() {
    let settings = MigrationSettings { at_once: 2, ..MigrationSettings::default() };
    let Some(report) = run("migrate-bulk", settings, 1) else { return };
    for row in report.measured["rows"].as_array().unwrap() {
        assert!(number(&row["gigabits_per_second"]) > 0.0, "{report}");
    }
    assert!(report.measured["vs_spliced"]["process"].is_number(), "{report}");
}

#[test]
fn no_answer_is_lost_or_given_twice_when_balancers_die() {
    for mode in [MigrationMode::Kernel, MigrationMode::Replay] {
        if mode == MigrationMode::Replay && !is_installed("nginx") {
            continue;
        }
        let settings = MigrationSettings { mode, at_once: 4, ..MigrationSettings::default() };
        let Some(report) = run("migrate-faults", settings, 2) else { return };
        assert_eq!(report.connections_lost, 0, "{report}");
    }
}

#[test]
fn targets_come_and_go_without_any_loss() {
    let settings = MigrationSettings { at_once: 2, ..MigrationSettings::default() };
    let Some(report) = run("migrate-reload", settings, 1) else { return };
    assert_eq!(report.connections_lost, 0, "{report}");
}

#[test]
fn whoever_loses_an_answer_with_its_target_is_told() {
    for (mode, victim) in
        [(MigrationMode::Replay, Victim::Agent), (MigrationMode::Kernel, Victim::Machine)]
    {
        if mode == MigrationMode::Replay && !is_installed("nginx") {
            continue;
        }
        let settings =
            MigrationSettings { mode, victim, at_once: 4, ..MigrationSettings::default() };
        run("migrate-faults", settings, 2);
    }
}

/// Whether there is such a program; if not, a line says so, and it is a failure where everything
/// must be there.
fn is_installed(program: &str) -> bool {
    let directories = ["/usr/sbin", "/usr/bin", "/sbin", "/usr/local/sbin", "/usr/local/bin"];
    let found = directories.iter().any(|directory| Path::new(directory).join(program).is_file());
    let required = ["OUTLIVE_E2E_REQUIRE", "CI"].iter().any(|name| env::var_os(name).is_some());
    assert!(found || !required, "{program} is not installed");
    if !found {
        eprintln!("SKIPPED: {program} is not installed");
    }
    found
}
