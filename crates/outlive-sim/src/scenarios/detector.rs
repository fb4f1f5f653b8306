//! Scenarios in which an external detector decides who serves.

use super::*;

pub(super) fn all() -> Vec<(&'static str, Scenario)> {
    vec![
        ("detector-requests", requests(Scenario::direct, &PLAIN).detector()),
        ("detector-inspect", requests(Scenario::inspect, &HTTP).detector()),
        ("detector-proxy", proxied(Scenario::inspect, &TLS, ProxyProtocol::V2).detector()),
        ("detector-several", several().detector()),
        ("detector-idle", idle().detector()),
        ("detector-loss", download(Scenario::direct, &PLAIN).link(lossy()).detector()),
        ("detector-cut-off", cut_off(several())),
        ("detector-pair-cut", pair_cut(idle())),
        (
            "detector-standstill",
            idle().fault(ms(20), Fault::Freeze(0)).fault(ms(400), Fault::Resume(0)).detector(),
        ),
        ("detector-standby-joins", slow_server().standby_joins(ms(3)).detector()),
    ]
}

/// The detector does not reach the active node for a while, and the standby does.
fn cut_off(scenario: Scenario) -> Scenario {
    scenario
        .fault(ms(10), Fault::Cut(Place::Detector, Place::Node(0)))
        .fault(ms(400), Fault::Heal)
        .detector()
}

/// The nodes do not hear each other: nobody takes over.
fn pair_cut(scenario: Scenario) -> Scenario {
    scenario
        .fault(ms(10), Fault::Cut(Place::Node(0), Place::Node(1)))
        .fault(ms(10), Fault::Cut(Place::Node(1), Place::Node(0)))
        .fault(ms(400), Fault::Heal)
        .detector()
}
