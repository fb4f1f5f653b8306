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

#[test]
fn every_record_of_unmodified_senders_is_there_once_whoever_dies() {
    let settings = settings();
    let Some(report) = run(&settings) else { return };
    assert_complete(&report, &settings);
}
