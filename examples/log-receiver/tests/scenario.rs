//! The lab's scenario with this receiver, made small: `docs/lab.md`, `log-receiver`.

use outlive_lab::{
    privilege,
    report::Report,
    scenario::{Scenario, Settings},
};

fn settings() -> Settings {
    let receiver = Some(env!("CARGO_BIN_EXE_log-receiver").into());
    Settings { receiver, cycles: 3, senders: 8, ..Settings::default() }
}

/// Runs it; nothing where it cannot run.
fn run(settings: &Settings) -> Option<Report> {
    if let Some(missing) = privilege::missing() {
        eprintln!("SKIPPED: {missing}");
        return None;
    }
    let scenario = Scenario::named("log-receiver").expect("there is such a scenario");
    let report = scenario.run(settings).expect("it can run");
    assert!(report.ok, "{report}");
    Some(report)
}

/// Every record of every sender is there, once, in order, whole.
fn assert_complete(report: &Report, settings: &Settings) {
    let connections = settings.senders as u64;
    assert_eq!((report.connections, report.connections_lost), (connections, 0), "{report}");
    assert!(report.measured["records_sent"].as_u64() > Some(0), "{report}");
    for name in ["missing", "duplicates", "out_of_order", "torn"] {
        assert_eq!(report.measured[name], 0, "{report}");
    }
}

/// What would survive a power cut is recorded by a library, which Cargo puts beside the tests.
fn with_power_cut_library() -> Settings {
    let test = std::env::current_exe().expect("it runs");
    let powercut = Some(test.with_file_name("liboutlive_powercut.so"));
    Settings { powercut, ..settings() }
}

#[test]
fn every_record_of_unmodified_senders_is_there_once_whoever_dies() {
    let settings = settings();
    let Some(report) = run(&settings) else { return };
    assert_complete(&report, &settings);
}

#[test]
fn a_power_cut_takes_nothing_that_was_acknowledged() {
    let settings = Settings { power_cut: true, ..with_power_cut_library() };
    let Some(report) = run(&settings) else { return };
    assert_complete(&report, &settings);
    assert_eq!(report.measured["power_cuts"], settings.cycles, "{report}");
}

#[test]
fn no_acknowledgment_on_the_wire_comes_before_its_fsync() {
    let settings = Settings { wire: true, ..with_power_cut_library() };
    let Some(report) = run(&settings) else { return };
    assert_complete(&report, &settings);
    assert_eq!(report.measured["violations"], 0, "{report}");
    assert!(report.measured["acknowledgments"].as_u64() > Some(100), "{report}");
}

#[test]
fn its_speed_is_compared_with_that_of_the_kernels_sockets() {
    let settings = Settings { compare: true, rounds: 1, seconds: 0.02, ..settings() };
    let Some(report) = run(&settings) else { return };
    let rows = report.measured["rows"].as_array().expect("a list");
    let subjects: Vec<_> = rows.iter().map(|row| row["subject"].as_str().unwrap_or("")).collect();
    assert_eq!(subjects, ["pair", "alone", "plain"], "{report}");
    assert!(rows.iter().all(|row| row["mbyte_s"].as_f64() > Some(0.0)), "{report}");
}
