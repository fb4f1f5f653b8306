//! The scenarios that need no proxy: they must find nothing wrong with the lab itself.
//!
//! As root, or in a user namespace where `/dev/net/tun` may be opened.

use outlive_lab::privilege;
use outlive_lab::scenario::{Scenario, Settings};

fn run(name: &str) {
    if let Some(missing) = privilege::missing() {
        eprintln!("not run: {missing}");
        return;
    }
    let scenario = Scenario::named(name).expect("there is such a scenario");
    let report = scenario.run(&Settings::default()).expect("it can run");
    assert!(report.ok, "{report}");
    assert!(report.connections > 0 && report.bytes_verified > 0, "{report}");
}

#[test]
fn nothing_is_lost_through_a_routing_kernel() {
    run("routing");
}

#[test]
fn nothing_is_lost_over_bad_links() {
    run("routing-bad");
}

#[test]
fn links_do_what_they_say() {
    run("links");
}

#[test]
fn every_stall_is_seen() {
    run("healing");
}

#[test]
fn forged_segments_have_no_effect() {
    run("forged-routing");
}

#[test]
fn the_endpoint_and_the_kernel_understand_each_other() {
    run("endpoint-streams");
}
