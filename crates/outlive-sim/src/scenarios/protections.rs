//! Scenarios of listeners that promise more, or less, than the default.

use outlive_proxy::config::{Protection, Replication, WithoutStandby};

use super::*;

const ASYNC: Protection =
    Protection { replication: Replication::Async, without_standby: WithoutStandby::Serve };
const REFUSE: Protection =
    Protection { replication: Replication::Sync, without_standby: WithoutStandby::Refuse };

pub(super) fn all() -> Vec<(&'static str, Scenario)> {
    vec![
        ("async-requests", requests(Scenario::direct, &PLAIN).protection(ASYNC)),
        ("async-server-first", server_first().protection(ASYNC)),
        ("async-inspect", requests(Scenario::inspect, &HTTP).protection(ASYNC)),
        ("async-proxy", proxied(Scenario::inspect, &TLS, ProxyProtocol::V2).protection(ASYNC)),
        ("async-same-port", same_port(Scenario::direct, &PLAIN).protection(ASYNC)),
        ("async-same-port-inspect", same_port(Scenario::inspect, &HTTP).protection(ASYNC)),
        ("refuse-requests", requests(Scenario::direct, &PLAIN).protection(REFUSE)),
        ("refuse-inspect", requests(Scenario::inspect, &HTTP).protection(REFUSE)),
        ("refuse-standby-lost", standby_lost(idle()).protection(REFUSE)),
        ("serve-standby-lost", standby_lost(idle())),
        ("refuse-standby-lost-inspect", standby_lost(slow_server()).protection(REFUSE)),
        ("async-several", several().protection(ASYNC)),
    ]
}

/// The standby dies while sessions live, and comes back.
fn standby_lost(scenario: Scenario) -> Scenario {
    scenario.fault(ms(6), Fault::Kill(1)).fault(ms(250), Fault::Restart(1))
}
