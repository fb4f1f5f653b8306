//! The list of scenarios whose every crash point is tried.

mod detector;
mod migration;
mod protections;
mod terminated;

use std::time::Duration;

use Step::{Await, AwaitEnd, Close, Leave, Send, Sleep};
use outlive_proxy::config::{Limits, NamePattern, ProxyProtocol, Route, Timeouts};

use crate::{
    content::{BANNER, Preamble},
    network::{Link, Place},
    scenario::{Scenario, len},
    script::{Pace, Step},
    setup::{Fault, Forgery, Start},
    stack::{Kind, StackSetup},
};

const NOW: Start = Start::At(Duration::ZERO);
const PLAIN: Preamble = Preamble::Plain;
const HTTP: Preamble = Preamble::Http { host: "www.example.org", path: "/a" };
const TLS: Preamble = Preamble::Tls { server_name: "www.example.org" };
const BULK: usize = 60_000;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Every scenario, by name.
pub fn all() -> Vec<(&'static str, Scenario)> {
    let mut all = vec![
        ("download", download(Scenario::direct, &PLAIN)),
        ("upload", upload(Scenario::direct, &PLAIN)),
        ("request-response", requests(Scenario::direct, &PLAIN)),
        ("server-first", server_first()),
        ("half-close-client", download(Scenario::direct, &PLAIN)),
        ("half-close-server", half_close_server()),
        ("simultaneous-close", simultaneous_close()),
        ("slow-reader", slow_reader()),
        ("slow-server", slow_server()),
        ("idle", idle()),
        ("both-ways", both_ways()),
        ("inspect-http", requests(Scenario::inspect, &HTTP)),
        ("inspect-tls", download(Scenario::inspect, &TLS)),
        ("inspect-upload", upload(Scenario::inspect, &HTTP)),
        ("inspect-default", requests(Scenario::inspect, &PLAIN)),
        ("route-tls", route(&TLS, Route { server_name: name(), ..Route::default() })),
        ("route-http", route(&HTTP, Route { host: name(), ..Route::default() })),
        ("proxy-v1", proxied(Scenario::direct, &PLAIN, ProxyProtocol::V1)),
        ("proxy-v2", proxied(Scenario::direct, &PLAIN, ProxyProtocol::V2)),
        ("proxy-v1-inspect", proxied(Scenario::inspect, &HTTP, ProxyProtocol::V1)),
        ("proxy-v2-inspect", proxied(Scenario::inspect, &TLS, ProxyProtocol::V2)),
        ("proxy-v1-server-first", proxied_server_first()),
        ("server-refuses", requests(Scenario::direct, &PLAIN).servers(&[false, true])),
        ("server-refuses-inspect", requests(Scenario::inspect, &HTTP).servers(&[false, true])),
        ("loss", download(Scenario::direct, &PLAIN).link(lossy())),
        ("loss-upload", upload(Scenario::direct, &PLAIN).link(lossy())),
        ("loss-inspect", requests(Scenario::inspect, &HTTP).link(lossy())),
        ("loss-proxy", proxied(Scenario::direct, &PLAIN, ProxyProtocol::V2).link(lossy())),
        ("narrow", download(Scenario::direct, &PLAIN).link(narrow_link())),
        ("narrow-upload", upload(Scenario::inspect, &HTTP).link(narrow_link())),
        ("v6", download(Scenario::direct, &PLAIN).v6()),
        ("v6-inspect", requests(Scenario::inspect, &TLS).v6()),
        ("no-timestamps", upload(Scenario::direct, &PLAIN).stacks(plain(), StackSetup::default())),
        ("no-timestamps-server", requests(Scenario::inspect, &HTTP).stacks(big(), plain())),
        ("big-windows", download(Scenario::inspect, &HTTP).stacks(big(), big())),
        ("small-windows", download(Scenario::inspect, &HTTP).stacks(small(), small())),
        ("smoltcp-download", download(Scenario::direct, &PLAIN).stacks(other(), other())),
        ("smoltcp-requests", requests(Scenario::inspect, &HTTP).stacks(other(), other())),
        (
            "smoltcp-proxy",
            proxied(Scenario::inspect, &TLS, ProxyProtocol::V1).stacks(other(), other()),
        ),
        ("smoltcp-to-linux", upload(Scenario::direct, &PLAIN).stacks(other(), big())),
        ("linux-to-smoltcp", requests(Scenario::direct, &PLAIN).stacks(big(), other())),
        ("endpoint-download", download(Scenario::direct, &PLAIN).stacks(own(), own())),
        (
            "endpoint-upload-loss",
            upload(Scenario::inspect, &HTTP).stacks(own(), own()).link(lossy()),
        ),
        ("endpoint-server", requests(Scenario::inspect, &HTTP).stacks(big(), own())),
        ("endpoint-server-first", server_first().stacks(own(), big())),
        (
            "endpoint-proxy",
            proxied(Scenario::inspect, &TLS, ProxyProtocol::V2).stacks(other(), own()),
        ),
        ("endpoint-both-ways", both_ways().stacks(own(), big())),
        ("no-sack", download(Scenario::inspect, &HTTP).stacks(without_sack(), big())),
        ("no-sack-server", upload(Scenario::inspect, &HTTP).stacks(big(), without_sack())),
        ("small-mtu", download(Scenario::inspect, &HTTP).stacks(narrow(), big())),
        ("small-mtu-server", upload(Scenario::inspect, &HTTP).stacks(big(), narrow())),
        ("same-port", same_port(Scenario::direct, &PLAIN)),
        ("same-port-inspect", same_port(Scenario::inspect, &HTTP)),
        ("same-port-upload", same_port_upload()),
        ("several", several()),
        ("fast-download", download(Scenario::direct, &PLAIN).fast_path(9)),
        ("fast-upload-loss", upload(Scenario::direct, &PLAIN).link(lossy()).fast_path(9)),
        ("fast-server-first", server_first().fast_path(9)),
        ("fast-half-close", half_close_server().fast_path(9)),
        ("fast-simultaneous-close", simultaneous_close().fast_path(9)),
        ("fast-slow-reader", slow_reader().fast_path(9)),
        ("fast-inspect-http", requests(Scenario::inspect, &HTTP).fast_path(9)),
        ("fast-v6-inspect", requests(Scenario::inspect, &TLS).v6().fast_path(9)),
        ("fast-proxy-inspect", proxied(Scenario::inspect, &TLS, ProxyProtocol::V2).fast_path(9)),
        ("fast-same-port", same_port(Scenario::direct, &PLAIN).fast_path(9)),
        ("fast-several-full", several().fast_path(1)),
        ("fast-standby-joins", several().standby_joins(ms(30)).fast_path(9)),
        ("handover", handed_over(download(Scenario::direct, &PLAIN))),
        ("handover-upload", handed_over(upload(Scenario::direct, &PLAIN))),
        ("handover-requests", handed_over(requests(Scenario::inspect, &HTTP))),
        ("handover-proxy", handed_over(proxied(Scenario::inspect, &TLS, ProxyProtocol::V2))),
        ("handover-several", handed_over(several())),
        ("handover-loss", handed_over(both_ways().link(lossy()))),
        ("handover-back", handed_over(several()).fault(ms(60), Fault::Handover(1))),
        ("handover-late-words", handed_over(late_words()).fault(ms(30), Fault::Handover(1))),
        ("handover-v6", handed_over(server_first().v6())),
        ("standby-joins", idle().standby_joins(ms(3))),
        ("standby-joins-slow", slow_server().standby_joins(ms(3))),
        ("standby-joins-several", several().standby_joins(ms(30))),
        ("wrap", both_ways().wraps()),
        ("wrap-inspect", upload(Scenario::inspect, &HTTP).wraps()),
        ("wrap-proxy", proxied(Scenario::direct, &PLAIN, ProxyProtocol::V2).wraps()),
        ("wrap-synthesised", requests(Scenario::inspect, &HTTP).stacks(big(), plain()).wraps()),
        ("idle-timeout", forgotten()),
        ("slow-talk", slow_talk()),
        ("paths", paths()),
        ("forged", forged()),
        ("old-duplicates", old_duplicates()),
        ("flood", flood(Scenario::direct)),
        ("flood-inspect", flood(Scenario::inspect)),
        ("state-breaks", state_breaks()),
        ("standby-slow", several().fault(ms(1), Fault::SlowState(1, ms(30)))),
        ("standby-wedged", several().fault(ms(1), Fault::Wedge(1)).aftermath(ms(4_500))),
        ("state-breaks-slow", state_breaks_slow()),
        ("standstill", standstill()),
        ("first-words-lost", first_words_lost()),
        ("begins-cut-off", begins_cut_off()),
    ];
    all.extend(protections::all());
    all.extend(detector::all());
    all.extend(terminated::all());
    all.extend(migration::all());
    all
}

/// A client that has been answered, and takes its time.
fn late_words() -> Scenario {
    let asked = len(&HTTP);
    let server = [Await(asked), Send(4_000), AwaitEnd, Close];
    let client = [Sleep(ms(50)), Send(asked), Await(4_000), Close, AwaitEnd];
    Scenario::inspect(&server).client(NOW, HTTP, &client)
}

/// The active node hands over in the midst of it, not long after the beginning.
fn handed_over(scenario: Scenario) -> Scenario {
    scenario.fault(ms(4), Fault::Handover(0))
}

/// The scenario of that name.
pub fn named(name: &str) -> Option<Scenario> {
    all().into_iter().find(|(n, _)| *n == name).map(|(_, scenario)| scenario)
}

fn name() -> Option<NamePattern> {
    NamePattern::parse("*.example.org")
}

fn lossy() -> Link {
    Link {
        loss: 50,
        duplication: 20,
        reordering: 50,
        jitter: Duration::from_micros(200),
        ..Link::default()
    }
}

/// 8 Mbit/s: a window is longer than its queue.
fn narrow_link() -> Link {
    Link { rate: 1_000, ..Link::default() }
}

fn plain() -> StackSetup {
    StackSetup { timestamps: false, ..StackSetup::default() }
}

fn big() -> StackSetup {
    StackSetup { receive_buffer: 1 << 20, ..StackSetup::default() }
}

fn other() -> StackSetup {
    StackSetup { kind: Kind::Smoltcp, ..StackSetup::default() }
}

fn own() -> StackSetup {
    StackSetup { kind: Kind::Outlive, ..StackSetup::default() }
}

fn without_sack() -> StackSetup {
    StackSetup { sack: false, ..StackSetup::default() }
}

fn narrow() -> StackSetup {
    StackSetup { mtu: 1_280, ..StackSetup::default() }
}

fn small() -> StackSetup {
    StackSetup { receive_buffer: 5_000, ..StackSetup::default() }
}

type Make = fn(&[Step]) -> Scenario;

/// The client asks, closes its side, and gets a long answer.
fn download(make: Make, preamble: &Preamble) -> Scenario {
    let asked = len(preamble);
    let script = [Await(asked), Send(BULK), AwaitEnd, Close];
    make(&script).client(NOW, preamble.clone(), &[Send(asked), Close, AwaitEnd])
}

/// The client says much, and the server says that it got it.
fn upload(make: Make, preamble: &Preamble) -> Scenario {
    let said = len(preamble) + BULK;
    let script = [Await(said), Send(100), AwaitEnd, Close];
    make(&script).client(NOW, preamble.clone(), &[Send(said), Await(100), Close, AwaitEnd])
}

/// Several questions and answers, one after the other.
fn requests(make: Make, preamble: &Preamble) -> Scenario {
    let (client, server) = questions(preamble);
    make(&server).client(NOW, preamble.clone(), &client)
}

/// What the client does, and what the server does.
fn questions(preamble: &Preamble) -> (Vec<Step>, Vec<Step>) {
    let (asked, answer) = (len(preamble), 3_000);
    let mut client = vec![Send(asked)];
    let mut server = Vec::new();
    for i in 1..=6 {
        client.extend([Await(i * answer), Send(asked)]);
        server.extend([Await(i * asked), Send(answer)]);
    }
    client.extend([Close, AwaitEnd]);
    server.extend([AwaitEnd, Close]);
    (client, server)
}

fn server_first() -> Scenario {
    let asked = len(&PLAIN);
    let server =
        [Send(200), Await(asked), Send(5_000), Await(2 * asked), Send(400), Close, AwaitEnd];
    let client =
        [Await(200), Send(asked), Await(5_200), Send(asked), Await(5_600), AwaitEnd, Close];
    Scenario::direct(&server).client(NOW, PLAIN, &client)
}

/// The server closes first, and still reads.
fn half_close_server() -> Scenario {
    let asked = len(&PLAIN);
    let server = [Await(asked), Send(5_000), Close, AwaitEnd];
    let client = [Send(asked), AwaitEnd, Send(40_000), Close];
    Scenario::direct(&server).client(NOW, PLAIN, &client)
}

fn simultaneous_close() -> Scenario {
    let asked = len(&PLAIN);
    let server = [Send(BANNER), Await(asked), Sleep(ms(10)), Send(100), Close, AwaitEnd];
    let client = [Send(asked), Sleep(ms(12)), Send(100), Close, AwaitEnd];
    Scenario::direct(&server).client(NOW, PLAIN, &client)
}

/// Windows close and open.
fn slow_reader() -> Scenario {
    let slow = Pace::Slow { bytes: 4_000, every: ms(8) };
    download(Scenario::direct, &PLAIN)
        .stacks(
            StackSetup { receive_buffer: 8_000, ..StackSetup::default() },
            StackSetup::default(),
        )
        .paces(slow, Pace::Eager)
}

fn slow_server() -> Scenario {
    let slow = Pace::Slow { bytes: 4_000, every: ms(8) };
    upload(Scenario::inspect, &HTTP)
        .stacks(
            StackSetup::default(),
            StackSetup { receive_buffer: 8_000, ..StackSetup::default() },
        )
        .paces(Pace::Eager, slow)
}

fn idle() -> Scenario {
    let (client, server) = silences();
    Scenario::direct(&server).client(NOW, PLAIN, &client)
}

fn silences() -> (Vec<Step>, Vec<Step>) {
    let asked = len(&PLAIN);
    let server = [Await(asked), Send(1_000), Await(2 * asked), Send(1_000), AwaitEnd, Close];
    let client =
        [Send(asked), Await(1_000), Sleep(ms(700)), Send(asked), Await(2_000), Close, AwaitEnd];
    (client.to_vec(), server.to_vec())
}

fn both_ways() -> Scenario {
    let server = [Send(30_000), Await(30_000), Close, AwaitEnd];
    let client = [Send(30_000), Await(30_000), Close, AwaitEnd];
    Scenario::direct(&server).client(NOW, PLAIN, &client)
}

fn route(preamble: &Preamble, route: Route) -> Scenario {
    // The default pool refuses: only the route leads anywhere.
    requests(Scenario::inspect, preamble).servers(&[false]).route(route)
}

fn proxied(make: Make, preamble: &Preamble, version: ProxyProtocol) -> Scenario {
    requests(make, preamble).proxy_protocol(version)
}

fn proxied_server_first() -> Scenario {
    server_first().proxy_protocol(ProxyProtocol::V1)
}

/// A second connection from the same port when the first one is over. The server closes first, so that it is
/// not the client who has to wait.
fn same_port(make: Make, preamble: &Preamble) -> Scenario {
    let asked = len(preamble);
    let server = [Await(asked), Send(2_000), Close, AwaitEnd];
    let client = [Send(asked), AwaitEnd, Close];
    make(&server)
        .client(NOW, preamble.clone(), &client)
        .client_on_first_port(Start::After(0), preamble.clone(), &client)
        .client_on_first_port(Start::After(1), preamble.clone(), &client)
}

/// Both ends say nothing for longer than the node remembers them, and want nothing any more.
fn forgotten() -> Scenario {
    let asked = len(&PLAIN);
    let server = [Await(asked), Send(1_000), Sleep(ms(5_000)), Leave];
    let client = [Send(asked), Await(1_000), Sleep(ms(5_000)), Leave];
    Scenario::direct(&server).client(NOW, PLAIN, &client).idle_timeout(ms(2_000))
}

/// A session that lives longer than one in which nothing is said, and is never silent for long.
fn slow_talk() -> Scenario {
    let asked = len(&PLAIN);
    let (mut server, mut client) = (vec![Await(asked), Send(100)], vec![Send(asked), Await(100)]);
    for i in 2..=6 {
        client.extend([Sleep(ms(900)), Send(asked), Await(i * 100)]);
        server.extend([Await(i * asked), Send(100)]);
    }
    server.extend([AwaitEnd, Close]);
    client.extend([Close, AwaitEnd]);
    Scenario::direct(&server).client(NOW, PLAIN, &client).idle_timeout(ms(2_000))
}

/// Of three heartbeat paths, one fails in either direction, and another in one.
fn paths() -> Scenario {
    requests(Scenario::direct, &PLAIN)
        .client(Start::At(ms(400)), PLAIN, &questions(&PLAIN).0)
        .paths(3)
        .fault(ms(5), Fault::CutPath(0, 0))
        .fault(ms(5), Fault::CutPath(1, 0))
        .fault(ms(20), Fault::CutPath(0, 2))
}

/// A session in the midst of forgeries, with pauses long enough for a node to forget what it believes.
fn forged() -> Scenario {
    let asked = len(&PLAIN);
    let server = [Await(asked), Send(20_000), Await(2 * asked), Send(20_000), AwaitEnd, Close];
    let client =
        [Send(asked), Await(20_000), Sleep(ms(2_500)), Send(asked), Await(40_000), Close, AwaitEnd];
    let timeouts = Timeouts { reset_linger: ms(400), ..Timeouts::default() };
    let mut scenario = Scenario::direct(&server).client(NOW, PLAIN, &client).timeouts(timeouts);
    let all = [
        Forgery::ResetInside,
        Forgery::ResetOutside,
        Forgery::Syn,
        Forgery::Stray,
        Forgery::Unreachable,
    ];
    for (i, forgery) in all.into_iter().enumerate() {
        let i = i as u64;
        scenario = scenario.fault(ms(6 + i), Fault::Forge(forgery));
        scenario = scenario.fault(ms(300 + 40 * i), Fault::Forge(forgery));
    }
    scenario
}

/// First words come again when their sessions have given way to others.
fn old_duplicates() -> Scenario {
    let scenario = several().limits(Limits { sessions: 4, ..small_limits() });
    (1..12).fold(scenario, |s, i| s.fault(ms(30 * i), Fault::Forge(Forgery::FirstWords)))
}

fn small_limits() -> Limits {
    Limits { sessions: 200, openings: 24, half_open: 8, ..Limits::default() }
}

/// A client uses its port again and says much at once.
fn same_port_upload() -> Scenario {
    let said = len(&HTTP) + 12_000;
    let server = [Await(said), Send(100), Close, AwaitEnd];
    let client = [Send(said), AwaitEnd, Close];
    Scenario::inspect(&server).client(NOW, HTTP, &client).client_on_first_port(
        Start::After(0),
        HTTP,
        &client,
    )
}

/// Somebody floods the listener with SYNs.
fn flood(make: Make) -> Scenario {
    let scenario = requests(make, &HTTP).limits(small_limits());
    let scenario = scenario.client(Start::At(ms(12)), HTTP, &questions(&HTTP).0);
    (0..6).fold(scenario, |s, i| s.fault(ms(3 * i), Fault::Forge(Forgery::Flood(30))))
}

/// The state connection breaks again and again.
fn state_breaks() -> Scenario {
    (0..5).fold(several(), |s, i| s.fault(ms(2 + 17 * i), Fault::BreakState))
}

/// Likewise, while nothing else happens to sessions that live long.
fn state_breaks_slow() -> Scenario {
    let (client, server) = silences();
    let scenario = Scenario::direct(&server).client(NOW, PLAIN, &client);
    let scenario = scenario.client(Start::At(ms(3)), PLAIN, &client);
    (1..4).fold(scenario, |s, i| s.fault(ms(100 * i), Fault::BreakState))
}

/// A node that starts cut off from everybody serves nobody; when it can hear the other one again, that one goes on. Its
/// wall clock is ahead.
fn begins_cut_off() -> Scenario {
    let asked = len(&PLAIN);
    let (mut server, mut client) = (vec![Await(asked), Send(100)], vec![Send(asked), Await(100)]);
    for i in 2..=8 {
        client.extend([Sleep(ms(900)), Send(asked), Await(i * 100)]);
        server.extend([Await(i * asked), Send(100)]);
    }
    server.extend([AwaitEnd, Close]);
    client.extend([Close, AwaitEnd]);
    let scenario = Scenario::direct(&server)
        .client(NOW, PLAIN, &client)
        .fault(ms(5), Fault::Kill(1))
        .fault(ms(10), Fault::WallClock(1, 60_000_000));
    let others = [Place::Node(0), Place::Host(0), Place::Host(1)];
    let cut = others.iter().fold(scenario, |scenario, other| {
        scenario
            .fault(ms(15), Fault::Cut(*other, Place::Node(1)))
            .fault(ms(15), Fault::Cut(Place::Node(1), *other))
    });
    cut.fault(ms(20), Fault::Restart(1)).fault(ms(4_500), Fault::Heal)
}

/// The active node stands still while it waits for a server that is cut off, and the other takes over.
fn standstill() -> Scenario {
    let away = (Place::Host(1), Place::Node(0));
    requests(Scenario::inspect, &HTTP)
        .fault(Duration::ZERO, Fault::Cut(away.0, away.1))
        .fault(ms(30), Fault::Freeze(0))
        .fault(ms(700), Fault::Resume(0))
        .fault(ms(800), Fault::Heal)
        .aftermath(ms(4_500))
}

/// A client whose first words are lost, and the end of its handshake with them, goes on speaking to a node that
/// is no longer silent about what it does not know.
fn first_words_lost() -> Scenario {
    let asked = len(&HTTP);
    let server = [Await(2 * asked), Send(1_000), AwaitEnd, Close];
    let client = [Send(asked), Sleep(ms(5)), Send(asked), Await(1_000), Close, AwaitEnd];
    let way = (Place::Host(0), Place::Node(0));
    Scenario::inspect(&server)
        .client(NOW, HTTP, &client)
        .quiet_time(ms(100))
        .fault(Duration::from_micros(800), Fault::Cut(way.0, way.1))
        .fault(ms(3), Fault::Heal)
}

/// Many connections, begun one after the other.
fn several() -> Scenario {
    let asked = len(&HTTP);
    let server = [Await(asked), Send(4_000), AwaitEnd, Close];
    let client = [Send(asked), Await(4_000), Close, AwaitEnd];
    let scenario = Scenario::inspect(&server).servers(&[true, true]);
    (0..8).fold(scenario, |s, i| s.client(Start::At(ms(9 * i)), HTTP, &client))
}
