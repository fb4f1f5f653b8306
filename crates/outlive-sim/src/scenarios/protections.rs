//! Scenarios of listeners that promise more, or less, than the default.

use outlive_proxy::config::{Protection, Replication};

use super::*;

const ASYNC: Protection = Protection { replication: Replication::Async };

pub(super) fn all() -> Vec<(&'static str, Scenario)> {
    vec![
        ("async-requests", requests(Scenario::direct, &PLAIN).protection(ASYNC)),
        ("async-server-first", server_first().protection(ASYNC)),
        ("async-inspect", requests(Scenario::inspect, &HTTP).protection(ASYNC)),
        ("async-proxy", proxied(Scenario::inspect, &TLS, ProxyProtocol::V2).protection(ASYNC)),
        ("async-same-port", same_port(Scenario::direct, &PLAIN).protection(ASYNC)),
        ("async-same-port-inspect", same_port(Scenario::inspect, &HTTP).protection(ASYNC)),
        ("async-several", several().protection(ASYNC)),
    ]
}
