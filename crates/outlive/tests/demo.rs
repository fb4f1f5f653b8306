//! The demo, as a newcomer runs it: both failures happen and are survived, and the verdict says so
//! in one JSON object.

use std::process::{Command, Stdio};

use outlive_net::{netns::Namespace, tun};
use serde_json::Value;

/// Whether this user may make what the demo needs; if not, a line says so.
fn may() -> bool {
    let namespace = Namespace::create().map(drop).map_err(|error| error.to_string());
    let reason = tun::check_driver().map_err(|error| error.to_string()).and(namespace);
    if let Err(reason) = &reason {
        eprintln!("SKIPPED: this test needs a privileged user: {reason}");
    }
    reason.is_ok()
}

fn demo(arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlive"));
    command.arg("demo").args(arguments).stdin(Stdio::null());
    command.output().unwrap()
}

#[test]
fn the_demo_survives_both_failures_and_says_so() {
    if !may() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let picture = directory.path().join("demo.svg");
    let picture = picture.to_str().unwrap();
    let options =
        ["--json", "--size", "48MiB", "--idle", "40", "--seconds", "6", "--seed", "7", "--svg"];
    let output = demo(&[&options[..], &[picture]].concat());
    let told = String::from_utf8_lossy(&output.stderr);
    // Exactly one object, on one line.
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}\n{told}");
    let verdict: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(output.status.code(), Some(0), "{verdict}\n{told}");

    assert_eq!(verdict["ok"], true);
    assert_eq!(verdict["seed"], 7);
    // A download, an upload, one who types, and the idle ones.
    assert_eq!(verdict["connections"], 43);
    assert_eq!(verdict["connections_lost"], 0);
    assert_eq!(verdict["bytes_wrong"], 0);
    assert!(verdict["bytes_verified"].as_u64().unwrap() >= 2 * (48 << 20), "{verdict}");
    let faults = verdict["faults"].as_array().unwrap();
    let kinds: Vec<&Value> = faults.iter().map(|fault| &fault["kind"]).collect();
    assert_eq!(kinds, ["kill", "cut"]);
    for fault in faults {
        assert_eq!(fault["survived"], true, "{fault}");
        assert_ne!(fault["node"], fault["taken_over_by"]);
        assert!(fault["takeover_ms"].as_f64().unwrap() > 0.0);
        let groups: Vec<&str> = fault["stalls"]
            .as_array()
            .unwrap()
            .iter()
            .map(|stall| stall["group"].as_str().unwrap())
            .collect();
        for group in ["download, IPv4", "upload, IPv6", "typing, IPv4", "idle, IPv4", "idle, IPv6"]
        {
            assert!(groups.contains(&group), "{group} is missing in {groups:?}");
        }
    }
    let timeline = verdict["timeline"].as_array().unwrap();
    assert_eq!(timeline.iter().filter(|event| event["fault"] == true).count(), 2);
    let svg = std::fs::read_to_string(picture).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("0 of 43 connections lost"), "{svg}");
}

#[test]
fn what_cannot_be_written_is_said_before_anything_runs() {
    if !may() {
        return;
    }
    let output = demo(&["--svg", "/nonexistent/demo.svg"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("/nonexistent/demo.svg cannot be written"), "{said}");
}
