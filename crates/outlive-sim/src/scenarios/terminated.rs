//! Scenarios of listeners that terminate their sessions.

use super::*;

pub(super) fn all() -> Vec<(&'static str, Scenario)> {
    let make = [
        ("terminate-download", download(Scenario::direct, &PLAIN)),
        ("terminate-upload", upload(Scenario::direct, &PLAIN)),
        ("terminate-requests", requests(Scenario::direct, &PLAIN)),
        ("terminate-server-first", server_first()),
        ("terminate-half-close-server", half_close_server()),
        ("terminate-simultaneous-close", simultaneous_close()),
        ("terminate-slow-reader", slow_reader()),
        ("terminate-slow-server", slow_server()),
        ("terminate-both-ways", both_ways()),
        ("terminate-inspect", requests(Scenario::inspect, &HTTP)),
        ("terminate-inspect-upload", upload(Scenario::inspect, &HTTP)),
        ("terminate-proxy", proxied(Scenario::direct, &PLAIN, ProxyProtocol::V2)),
        ("terminate-proxy-inspect", proxied(Scenario::inspect, &TLS, ProxyProtocol::V1)),
        ("terminate-loss", both_ways().link(lossy())),
        ("terminate-no-timestamps", both_ways().stacks(plain(), plain())),
        ("terminate-mixed", both_ways().stacks(plain(), big())),
        ("terminate-small-windows", both_ways().stacks(small(), small())),
        ("terminate-smoltcp", both_ways().stacks(other(), other())),
        ("terminate-wrap", both_ways().wraps()),
        ("terminate-v6", requests(Scenario::inspect, &TLS).v6()),
        ("terminate-handover", handed_over(both_ways())),
        ("terminate-handover-back", handed_over(several()).fault(ms(60), Fault::Handover(1))),
        ("terminate-several", several()),
        ("terminate-standby-joins", several().standby_joins(ms(30))),
        ("terminate-same-port", same_port(Scenario::direct, &PLAIN)),
        ("terminate-refuses", requests(Scenario::direct, &PLAIN).servers(&[false, true])),
    ];
    make.into_iter().map(|(name, scenario)| (name, scenario.terminate())).collect()
}
