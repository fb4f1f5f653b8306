//! Scenarios of migrations: the balancer chooses by content, and one of two targets answers the client.

use super::*;
use crate::targets::TargetFault;

/// Bytes of a response in the midst of which something happens.
const RESPONSE: usize = 30_000;

pub(super) fn all() -> Vec<(&'static str, Scenario)> {
    let once = || moved(response(&HTTP, RESPONSE));
    let talk = || moved(requests(Scenario::inspect, &HTTP));
    vec![
        ("migrate", talk()),
        ("migrate-short", moved(response(&HTTP, 1_000)).pairs()),
        ("migrate-kernel", moved(response(&HTTP, 1_000)).kept().pairs()),
        ("migrate-response", once()),
        ("migrate-kernel-response", once().kept()),
        ("migrate-upload", moved(upload(Scenario::inspect, &HTTP))),
        ("migrate-tls", by_name(requests(Scenario::inspect, &TLS))),
        ("migrate-v6", talk().v6()),
        ("migrate-v6-kernel-loss", talk().v6().kept().link(lossy())),
        ("migrate-loss", talk().link(lossy())),
        ("migrate-loss-response", once().link(lossy())),
        ("migrate-several", moved(several()).aftermath(ms(4_500))),
        ("migrate-kernel-several", moved(several()).kept()),
        ("migrate-same-port", moved(same_port(Scenario::inspect, &HTTP))),
        ("migrate-more-words", moved(more_words())),
        ("migrate-refused", once().target_fault(NOON, TargetFault::Refuse(0, true))),
        ("migrate-refused-spliced", refused_by_all(talk())),
        ("migrate-refused-words", refused_by_all(moved(more_words()))),
        ("migrate-silent", once().target_fault(NOON, TargetFault::Freeze(0))),
        ("migrate-silent-later", silent_later(talk())),
        ("migrate-drain", drained(moved(several()))),
        ("migrate-lines-break", lines_break(moved(several()))),
        ("migrate-client-resets", client_resets(moved(response(&HTTP, RESPONSE)))),
        ("migrate-strangers", strangers(talk())),
        ("migrate-handover", handed_over(moved(several()))),
        ("migrate-standby-joins", moved(several()).standby_joins(ms(30))),
        ("migrate-cut-off", cut_off(once())),
        ("migrate-succeeded", succeeded(moved(response(&HTTP, 1_000)))),
        ("migrate-wrap", talk().wraps()),
        ("migrate-wrap-upload", moved(upload(Scenario::inspect, &HTTP)).wraps()),
        ("migrate-big-windows", once().stacks(huge(), big()).target_stack(huge())),
        ("migrate-small-windows", once().stacks(small(), small()).target_stack(small())),
        ("migrate-plain", once().stacks(bare(), big())),
        ("migrate-plain-kernel", talk().stacks(bare(), big()).kept()),
        ("migrate-no-timestamps", talk().stacks(plain(), big()).link(lossy())),
        ("migrate-no-sack", once().stacks(without_sack(), big()).link(lossy())),
        ("migrate-mss-536", once().stacks(StackSetup { mtu: 576, ..big() }, big())),
        ("migrate-path-mtu", once().target_fault(ms(5), TargetFault::PathMtu(1_000))),
        ("migrate-path-mtu-v6", once().v6().target_fault(ms(5), TargetFault::PathMtu(1_300))),
        ("migrate-smoltcp", talk().stacks(other(), big())),
    ]
}

/// Before anything else.
const NOON: Duration = Duration::ZERO;

/// Every request is migrated, to one of two targets.
fn moved(scenario: Scenario) -> Scenario {
    let route = Route { path_prefix: Some("/a".into()), ..Route::default() };
    scenario.migrate(route, &[true, true])
}

fn by_name(scenario: Scenario) -> Scenario {
    scenario.migrate(Route { server_name: name(), ..Route::default() }, &[true, true])
}

/// A request, and a response.
fn response(preamble: &Preamble, bytes: usize) -> Scenario {
    let asked = len(preamble);
    let server = [Await(asked), Send(bytes), AwaitEnd, Close];
    let client = [Send(asked), Await(bytes), Close, AwaitEnd];
    Scenario::inspect(&server).client(NOW, preamble.clone(), &client)
}

/// The client goes on speaking while its connection moves.
fn more_words() -> Scenario {
    let asked = len(&HTTP);
    let (mut client, mut server) = (vec![Send(asked)], vec![Await(asked + 400)]);
    client.extend((0..4).flat_map(|_| [Sleep(Duration::from_micros(600)), Send(100)]));
    client.extend([Await(2_000), Close, AwaitEnd]);
    server.extend([Send(2_000), AwaitEnd, Close]);
    Scenario::inspect(&server).client(NOW, HTTP, &client)
}

fn refused_by_all(scenario: Scenario) -> Scenario {
    scenario
        .target_fault(NOON, TargetFault::Refuse(0, true))
        .target_fault(NOON, TargetFault::Refuse(1, true))
}

/// Both targets stand still when they have been told to speak.
fn silent_later(scenario: Scenario) -> Scenario {
    let (at, until) = (Duration::from_micros(4_300), ms(300));
    scenario
        .target_fault(at, TargetFault::Freeze(0))
        .target_fault(at, TargetFault::Freeze(1))
        .target_fault(until, TargetFault::Resume(0))
        .target_fault(until, TargetFault::Resume(1))
}

fn drained(scenario: Scenario) -> Scenario {
    scenario
        .target_fault(ms(10), TargetFault::Drain(0, true))
        .target_fault(ms(30), TargetFault::Drain(1, true))
        .target_fault(ms(50), TargetFault::Drain(0, false))
}

fn lines_break(scenario: Scenario) -> Scenario {
    (0..12).fold(scenario, |s, i| {
        s.target_fault(Duration::from_micros(900 + 4_700 * i), TargetFault::BreakLines(0))
            .target_fault(Duration::from_micros(2_300 + 5_100 * i), TargetFault::BreakLines(1))
    })
}

/// The client's program dies while its connection is being prepared.
fn client_resets(scenario: Scenario) -> Scenario {
    scenario.target_fault(Duration::from_micros(1_800), TargetFault::ClientsReset)
}

/// Strangers and forgers, before and while the target speaks.
fn strangers(scenario: Scenario) -> Scenario {
    (0..6).fold(scenario, |s, i| {
        s.target_fault(Duration::from_micros(1_900 + 1_700 * i), TargetFault::ForgeTunnel(0))
    })
}

/// The active node does not reach the agents while it decides.
fn cut_off(scenario: Scenario) -> Scenario {
    let at = Duration::from_micros(3_100);
    let ways = [0, 1].map(|target| (Place::Node(0), Place::Target(target)));
    let cut = ways.into_iter().fold(scenario, |s, (node, target)| {
        s.fault(at, Fault::Cut(node, target)).fault(at, Fault::Cut(target, node))
    });
    cut.fault(ms(250), Fault::Heal)
}

/// The standby takes over from a node that lives, and that the client still talks to: targets do not listen to that one any more.
fn succeeded(scenario: Scenario) -> Scenario {
    let asked = len(&HTTP);
    let client = [Send(asked), Await(1_000), Close, AwaitEnd];
    let ways = [
        (Place::Node(0), Place::Node(1)),
        (Place::Node(1), Place::Node(0)),
        (Place::Node(1), Place::Host(0)),
    ];
    let cut =
        ways.into_iter().fold(scenario, |s, (from, to)| s.fault(ms(50), Fault::Cut(from, to)));
    cut.client(Start::At(ms(1_500)), HTTP, &client).fault(ms(3_000), Fault::Heal)
}

fn huge() -> StackSetup {
    StackSetup { receive_buffer: 64 << 20, ..StackSetup::default() }
}

/// Neither timestamps nor SACK nor window scaling.
fn bare() -> StackSetup {
    StackSetup { timestamps: false, sack: false, ..StackSetup::default() }
}
