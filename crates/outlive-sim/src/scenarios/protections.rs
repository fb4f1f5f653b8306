//! Scenarios of listeners that promise more, or less, than the default.

use outlive_proxy::config::{Protection, Replication, Synchronise, WithoutStandby};

use super::*;

const DEFAULT: Protection = Protection {
    replication: Replication::Sync,
    without_standby: WithoutStandby::Serve,
    synchronise: Synchronise::Establishment,
};
const ASYNC: Protection = Protection { replication: Replication::Async, ..DEFAULT };
const REFUSE: Protection = Protection { without_standby: WithoutStandby::Refuse, ..DEFAULT };
const FIRST_DATA: Protection = Protection { synchronise: Synchronise::FirstData, ..DEFAULT };
const ASYNC_FIRST_DATA: Protection = Protection { replication: Replication::Async, ..FIRST_DATA };

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
        ("first-data", requests(Scenario::direct, &PLAIN).protection(FIRST_DATA)),
        ("first-data-upload", upload(Scenario::direct, &PLAIN).protection(FIRST_DATA)),
        ("first-data-server-first", server_first().protection(FIRST_DATA)),
        ("first-data-both-ways", both_ways().protection(FIRST_DATA)),
        (
            "first-data-proxy",
            proxied(Scenario::direct, &PLAIN, ProxyProtocol::V1).protection(FIRST_DATA),
        ),
        ("first-data-proxy-server-first", proxied_server_first().protection(FIRST_DATA)),
        (
            "first-data-loss",
            download(Scenario::direct, &PLAIN).link(lossy()).protection(FIRST_DATA),
        ),
        ("first-data-no-timestamps", both_ways().stacks(plain(), plain()).protection(FIRST_DATA)),
        ("first-data-small-windows", both_ways().stacks(small(), small()).protection(FIRST_DATA)),
        ("first-data-inspect", requests(Scenario::inspect, &HTTP).protection(FIRST_DATA)),
        ("first-data-late", late(Scenario::direct).protection(FIRST_DATA)),
        ("first-data-standby-lost", standby_lost(late(Scenario::direct)).protection(FIRST_DATA)),
        (
            "first-data-standby-joins",
            late(Scenario::direct).standby_joins(ms(3)).protection(FIRST_DATA),
        ),
        ("first-data-async", both_ways().protection(ASYNC_FIRST_DATA)),
        ("first-data-smoltcp", both_ways().stacks(other(), other()).protection(FIRST_DATA)),
        ("state-breaks", state_breaks(idle())),
        ("state-breaks-upload", state_breaks(slow_server())),
        ("state-breaks-several", state_breaks(several())),
        ("state-breaks-same-port", state_breaks(same_port(Scenario::inspect, &HTTP))),
        ("state-breaks-async", state_breaks(several()).protection(ASYNC)),
        ("state-breaks-first-data", state_breaks(late(Scenario::direct)).protection(FIRST_DATA)),
        ("state-breaks-refuse", state_breaks(slow_server()).protection(REFUSE)),
        ("alternating", alternating(patient())),
        ("alternating-inspect", alternating(several())),
        ("twice-in-a-row", twice(patient())),
        ("standby-replaced", standby_replaced(Scenario::direct, &PLAIN)),
        ("standby-replaced-inspect", standby_replaced(Scenario::inspect, &HTTP)),
        ("old-active-returns", old_active_returns(idle())),
        ("old-active-returns-inspect", old_active_returns(slow_server())),
        ("async-several", several().protection(ASYNC)),
    ]
}

/// The standby dies while sessions live, and comes back.
fn standby_lost(scenario: Scenario) -> Scenario {
    scenario.fault(ms(6), Fault::Kill(1)).fault(ms(250), Fault::Restart(1))
}

/// Nothing is said for a while.
fn late(make: Make) -> Scenario {
    let asked = len(&PLAIN);
    let server = [Await(asked), Send(5_000), AwaitEnd, Close];
    let client = [Sleep(ms(400)), Send(asked), Await(5_000), Close, AwaitEnd];
    make(&server).client(NOW, PLAIN, &client)
}

/// The state connection breaks, more than once, and is made again.
fn state_breaks(scenario: Scenario) -> Scenario {
    [2, 30, 110, 150].into_iter().fold(scenario, |s, at| s.fault(ms(at), Fault::BreakState))
}

/// A conversation with long pauses.
fn patient() -> Scenario {
    let (asked, answer) = (len(&PLAIN), 3_000);
    let (mut client, mut server) = (vec![Send(asked)], Vec::new());
    for i in 1..=6 {
        client.extend([Await(i * answer), Sleep(ms(500)), Send(asked)]);
        server.extend([Await(i * asked), Send(answer)]);
    }
    client.extend([Close, AwaitEnd]);
    server.extend([AwaitEnd, Close]);
    Scenario::direct(&server).client(NOW, PLAIN, &client)
}

/// The active node dies, again and again; whoever died comes back as standby.
fn alternating(scenario: Scenario) -> Scenario {
    (0..6).fold(scenario, |s, i: usize| {
        let at = 40 + 600 * i as u64;
        s.fault(ms(at), Fault::Kill(i % 2)).fault(ms(at + 150), Fault::Restart(i % 2))
    })
}

/// The node that has just taken over dies, too, as soon as the other one is back and holds everything.
fn twice(scenario: Scenario) -> Scenario {
    scenario
        .fault(ms(300), Fault::Kill(0))
        .fault(ms(320), Fault::Restart(0))
        .fault(ms(600), Fault::Kill(1))
        .fault(ms(900), Fault::Restart(1))
}

/// Another process stands in for the standby at once, and only the state connection tells the active node so: heartbeats
/// do not arrive for a while. Clients begin all the time; some of their sessions wait for a confirmation meanwhile.
fn standby_replaced(make: Make, preamble: &Preamble) -> Scenario {
    let asked = len(preamble);
    let server = [Await(asked), Send(1_000), AwaitEnd, Close];
    let client = [Send(asked), Await(1_000), Close, AwaitEnd];
    let scenario = make(&server)
        .fault(ms(10), Fault::CutPath(1, 0))
        .fault(ms(20), Fault::Kill(1))
        .fault(Duration::from_micros(20_100), Fault::Restart(1))
        .fault(ms(90), Fault::Heal);
    (4..16).fold(scenario, |s, i| s.client(Start::At(ms(4 * i)), preamble.clone(), &client))
}

/// The active node stands still, is replaced, and comes back as a standby that holds what it held.
fn old_active_returns(scenario: Scenario) -> Scenario {
    scenario.fault(ms(20), Fault::Freeze(0)).fault(ms(300), Fault::Resume(0))
}
