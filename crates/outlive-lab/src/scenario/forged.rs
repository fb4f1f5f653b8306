//! Forged segments that do not fit a connection must not harm it, whoever they claim to be from.
//!
//! The forger is on the same network and even overhears the real sequence numbers, so it can miss
//! the window exactly as it likes. That its segments arrive at all is proved by one connection
//! that it does end, with the one RST that fits.

use std::sync::Arc;
use std::time::Duration;

use super::Settings;
use crate::attack::{ACK, Ear, FIN, Flow, Injector, PSH, RST, SYN, Segment};
use crate::clock::wait_until;
use crate::error::LabError;
use crate::host::Host;
use crate::impairment::Impairment;
use crate::link::LinkKind;
use crate::report::Report;
use crate::subject::Subject;
use crate::subject::outlive::Pair;
use crate::subject::routing::Router;
use crate::topology::Lab;
use crate::traffic::{Book, Client, Plan, Server, Transfer};

const PORT: u16 = 7000;
const IDLE: u64 = 20;

/// Outside every window that Linux opens, on either side of it, near and far.
const OUTSIDE: [u32; 4] = [64 << 20, 1 << 30, (64u32 << 20).wrapping_neg(), 3 << 30];

/// A lab with cables that can be overheard.
struct Scene {
    injector: Injector,
    client: Host,
    server: Host,
    lab: Lab,
}

impl Scene {
    fn new(settings: &Settings) -> Result<Self, LabError> {
        let lab = Lab::new(settings.seed)?;
        let audible = LinkKind::impaired(Impairment::default());
        let client = lab.host("client", 10, audible.clone())?;
        let server = lab.host("server", 20, audible)?;
        let injector = Injector::new(&lab)?;
        Ok(Self { injector, client, server, lab })
    }
}

/// No proxy: the kernels at both ends know what does not fit.
pub(super) fn through_router(settings: &Settings) -> Result<Report, LabError> {
    let scene = Scene::new(settings)?;
    let node = scene.lab.host("node-a", 2, LinkKind::Plain)?;
    let router = Router::between(&node, &[&scene.client], &scene.server)?;
    attack("forged-routing", &scene, &router, &node)
}

/// Through a pair.
pub(super) fn through_pair(settings: &Settings) -> Result<Report, LabError> {
    let scene = Scene::new(settings)?;
    let nodes = (
        scene.lab.host("node-a", 2, LinkKind::Plain)?,
        scene.lab.host("node-b", 3, LinkKind::Plain)?,
    );
    let options = settings.pair_options(&[PORT]);
    let mut pair = Pair::start(settings.program()?, nodes, &[&scene.server], &options)?;
    let a_is_active = pair.a.is(|status| status.role == "active")?;
    let active = if a_is_active { &pair.a } else { &pair.b };
    attack("forged", &scene, &pair, active.host())
}

fn attack(
    name: &str,
    scene: &Scene,
    subject: &dyn Subject,
    middle: &Host,
) -> Result<Report, LabError> {
    let mut report = Report::new(name, &scene.lab);
    let book = Arc::new(Book::default());
    let mut ears = [Ear::on(&scene.client)?, Ear::on(&scene.server)?];
    let server = Server::start(&scene.server, &book, &[PORT])?;
    let client = Client::start(&scene.client, &book, scene.lab.seed())?;
    for ipv6 in [false, true] {
        let to = subject.address(ipv6, PORT);
        let every = Duration::from_millis(20);
        let pace = Some(1 << 20);
        let stream = Transfer {
            up: 3 << 20,
            down: 3 << 20,
            up_pace: pace,
            down_pace: pace,
            ..Transfer::default()
        };
        client.open("idle", IDLE, to, &Plan::Idle);
        client.open("interactive", 5, to, &Plan::Interactive { every });
        client.open("stream", 2, to, &Plan::Transfer(stream));
    }
    let expected: usize = 2 * (IDLE as usize + 5 + 2);
    // Each end of each connection has been heard, and what is idle is idle.
    let heard = |ears: &mut [Ear; 2]| ears.iter_mut().all(|ear| ear.flows().len() >= expected);
    let all = wait_until(Duration::from_secs(10), || heard(&mut ears));
    report.require(all, || "not every connection was overheard".to_owned());

    let mut sent = 0;
    for ear in &mut ears {
        for flow in ear.flows() {
            for segment in forgeries(flow) {
                sent += u64::from(scene.injector.send(&segment, middle));
            }
        }
    }
    report.measure("forged_segments", sent);
    report.require(sent > 0, || "nothing could be forged".to_owned());
    let streams = book.group("stream");
    wait_until(Duration::from_secs(20), || streams.open() == 0);
    client.finish(Duration::from_secs(10));
    server.finish(Duration::from_secs(10));
    report.add_book(&book);
    control(scene, subject, middle, &mut report)?;
    Ok(report)
}

/// Everything that could end or spoil the connection if its place in the sequence space were not
/// looked at.
fn forgeries(flow: Flow) -> Vec<Segment> {
    let kinds: [(u8, usize); 6] =
        [(RST, 0), (RST | ACK, 0), (FIN | ACK, 0), (PSH | ACK, 100), (SYN, 0), (SYN | ACK, 0)];
    let mut all = Vec::new();
    for offset in OUTSIDE {
        for (flags, payload) in kinds {
            all.push(forge(flow, flow.next_seq.wrapping_add(offset), flags, payload));
        }
    }
    // Inside the window, but not the next byte: to be challenged, not obeyed (RFC 5961, section
    // 3). Keys come in eights and pieces of streams in more, so one byte ahead is never next.
    all.push(forge(flow, flow.next_seq.wrapping_add(1), RST, 0));
    all
}

fn forge(flow: Flow, seq: u32, flags: u8, payload: usize) -> Segment {
    let Flow { from, to, ack, .. } = flow;
    Segment { from, to, seq, ack, flags, payload: vec![0x5a; payload] }
}

/// The one RST that fits does end a connection, so the others did arrive.
fn control(
    scene: &Scene,
    subject: &dyn Subject,
    middle: &Host,
    report: &mut Report,
) -> Result<(), LabError> {
    let book = Arc::new(Book::default());
    let mut ear = Ear::on(&scene.client)?;
    let server = Server::start(&scene.server, &book, &[PORT])?;
    let client = Client::start(&scene.client, &book, scene.lab.seed())?;
    let to = subject.address(false, PORT);
    // One request, and then silence: after its answer nothing is on the way.
    let every = Duration::from_secs(3600);
    let plan = Plan::Requests { every, request: 1, response: 1 };
    let victim = client.open("control", 1, to, &plan);
    let answered = wait_until(Duration::from_secs(5), || {
        !victim.latency.lock().expect("no holder panics").is_empty()
    });
    report.require(answered, || "the control connection got no answer".to_owned());
    let sent = ear
        .flows()
        .into_iter()
        .find(|flow| flow.to == to)
        .is_some_and(|flow| scene.injector.send(&forge(flow, flow.next_seq, RST, 0), middle));
    report.require(sent, || "the control connection was not overheard".to_owned());
    let ended = wait_until(Duration::from_secs(5), || server.open() == 0);
    report.require(ended, || "the RST that fits did not end the control connection".to_owned());
    Ok(())
}
