//! The lab's scenarios with many connections, with few of them: none lost, no byte wrong, and every
//! figure there that the command is to give.

use std::{env, path::Path};

use outlive_lab::{
    crowd::{self, WorkerProgram},
    privilege,
    report::Report,
    scenario::{Contender, ListenerMode, Scenario, Settings, fault::Fault},
};
use serde_json::Value;

/// Not a test: the traffic processes of the others are this program again, with this as its only test.
#[test]
fn traffic_process() {
    crowd::serve_if_asked();
}

fn settings() -> Settings {
    Settings {
        program: Some(env!("CARGO_BIN_EXE_outlive").into()),
        worker: WorkerProgram::this(&["--exact", "traffic_process", "--nocapture"]),
        connections: 60,
        ..Settings::default()
    }
}

/// Runs the scenario and gives its report; nothing where it cannot run.
fn run(name: &str, settings: &Settings) -> Option<Report> {
    if let Some(missing) = privilege::missing() {
        eprintln!("SKIPPED: {missing}");
        return None;
    }
    let scenario = Scenario::named(name).expect("there is such a scenario");
    Some(scenario.run(settings).expect("it can run"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

fn survives(fault: Fault) {
    let Some(report) = run("failover", &Settings { fault, ..settings() }) else { return };
    assert!(report.ok, "{report}");
    assert_eq!((report.connections, report.connections_lost), (60, 0), "{report}");
    assert!(report.bytes_verified > 0, "{report}");
    assert_eq!(report.measured["processes"], serde_json::json!([6, 6]));
    assert!(number(&report.measured["detection_ms"]) > 0.0, "{report}");
    let stalls = ["p50", "p99", "max"].map(|name| number(&report.measured["stall_ms"][name]));
    assert!(0.0 < stalls[0] && stalls.is_sorted(), "{report}");
}

#[test]
fn nothing_is_lost_when_the_program_is_killed() {
    survives(Fault::Kill);
}

#[test]
fn nothing_is_lost_when_the_cable_is_cut() {
    survives(Fault::Cut);
}

#[test]
fn a_frozen_node_that_goes_on_does_no_harm() {
    survives(Fault::Freeze);
}

#[test]
fn a_frozen_and_cut_node_that_goes_on_does_no_harm() {
    survives(Fault::FreezeCut);
}

#[test]
fn two_active_nodes_that_do_not_hear_each_other_do_no_harm() {
    survives(Fault::Partition);
}

#[test]
fn a_node_that_returns_empty_joins() {
    survives(Fault::Reboot);
}

#[test]
fn connections_that_end_at_the_node_survive_a_kill_and_a_cut() {
    for fault in [Fault::Kill, Fault::Cut] {
        let settings = Settings { mode: ListenerMode::Terminate, fault, ..settings() };
        let Some(report) = run("failover", &settings) else { return };
        assert!(report.ok, "{report}");
        assert_eq!((report.connections, report.connections_lost), (60, 0), "{report}");
        assert!(report.bytes_verified > 0 && report.bytes_wrong == 0, "{report}");
    }
}

#[test]
fn what_clients_of_keepalived_and_haproxy_see_is_measured() {
    if !["haproxy", "keepalived"].iter().all(|program| is_installed(program)) {
        return;
    }
    let contender = Contender::Haproxy;
    let settings = Settings { contender, fault: Fault::Cut, ..settings() };
    let Some(report) = run("failover", &settings) else { return };
    assert!(report.ok, "{report}");
    // What was established at the cut has ended in a proxy that is no longer there; but for those that say nothing
    // until that one has its address back.
    assert_eq!(report.connections, 60, "{report}");
    assert!(report.connections_lost > 0, "{report}");
    assert!(report.bytes_verified > 0 && report.bytes_wrong == 0, "{report}");
}

#[test]
fn sessions_of_synthetic_peers_are_served_after_a_takeover() {
    let settings = Settings { synthetic: true, connections: 2_000, ..settings() };
    let Some(report) = run("failover", &settings) else { return };
    assert!(report.ok, "{report}");
    assert_eq!((report.connections, report.connections_lost), (2_000, 0), "{report}");
    // A question before the takeover and one after it.
    assert_eq!((report.bytes_verified, report.bytes_wrong), (2 * 2_000 * 16, 0), "{report}");
    assert!(number(&report.measured["takeover_to_last_served_ms"]) > 0.0, "{report}");
    assert_eq!(report.measured["memory_bytes_per_session"].as_array().unwrap().len(), 2);
}

#[test]
fn random_faults_cost_nothing() {
    let settings = Settings { minutes: 0.15, seed: 3, ..settings() };
    let Some(report) = run("chaos", &settings) else { return };
    assert!(report.ok, "{report}");
    assert_eq!((report.seed, report.connections_lost, report.bytes_wrong), (3, 0, 0), "{report}");
    assert!(!report.measured["steps"].as_array().unwrap().is_empty(), "{report}");
}

#[test]
fn nothing_adds_up_over_many_changes_of_the_active_node() {
    let settings = Settings { cycles: 4, ..settings() };
    let Some(report) = run("endurance", &settings) else { return };
    assert!(report.ok, "{report}");
    assert_eq!((report.connections_lost, report.bytes_wrong), (0, 0), "{report}");
    // After each cycle but the first.
    assert_eq!(report.measured["memory_kb"].as_array().unwrap().len(), 3);
}

#[test]
fn a_busy_machine_costs_no_connection() {
    let settings = Settings { minutes: 0.05, ..settings() };
    let Some(report) = run("false-alarms", &settings) else { return };
    assert!(report.ok, "{report}");
    assert_eq!((report.connections_lost, report.bytes_wrong), (0, 0), "{report}");
    let alarms = report.measured["alarms"].as_array().unwrap();
    let timeouts: Vec<&Value> = alarms.iter().map(|row| &row["detection_timeout_ms"]).collect();
    assert_eq!(timeouts, [100, 20]);
}

#[test]
fn what_a_standby_costs_is_measured() {
    let settings = Settings { rounds: 1, seconds: 0.3, ..settings() };
    let Some(report) = run("overhead", &settings) else { return };
    assert!(report.ok, "{report}");
    for row in report.measured["rows"].as_array().unwrap() {
        for name in ["pair_off", "async", "sync"] {
            assert!(number(&row[name]) > 0.0, "{report}");
        }
    }
    assert!(number(&report.measured["state_bytes_per_session"]) > 0.0, "{report}");
    assert!(report.measured["state_bytes_per_gigabyte"].is_number(), "{report}");
}

#[test]
fn a_planned_handover_costs_nothing() {
    let settings = Settings { rounds: 1, ..settings() };
    let Some(report) = run("handover", &settings) else { return };
    assert!(report.ok, "{report}");
    assert_eq!((report.connections_lost, report.bytes_wrong), (0, 0), "{report}");
    for name in ["retransmissions_control", "retransmissions_handover"] {
        assert!(report.measured[name].is_u64(), "{report}");
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
