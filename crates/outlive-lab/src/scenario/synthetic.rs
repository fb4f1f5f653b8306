//! A takeover with more sessions than kernel sockets would allow: the peers are made by the lab, packet
//! by packet. Each session is opened and used; then the active node is harmed, and each session is
//! used again, as soon as the other node serves.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use super::Settings;
use super::course::{Course, Nobody};
use super::ordeal::Ordeal;
use crate::error::LabError;
use crate::link::LinkKind;
use crate::node::Node;
use crate::report::{Report, milliseconds};
use crate::subject::Subject;
use crate::subject::outlive::{Pair, PairOptions};
use crate::synthetic::{CLIENTS, Clients, Gate, Peers, SERVERS, Servers};
use crate::topology::Lab;

const PORT: u16 = 7000;

/// Sessions of one server address. A pair has some 32,000 source ports towards each, for each of its
/// nodes.
const PER_SERVER: u64 = 25_000;

/// How long one turn of the peers takes when there is nothing to do.
const NAP: Duration = Duration::from_micros(200);

/// Turns of the peers between two questions to a node.
const TURNS: usize = 16;

/// At least so many sessions must be opened, or served, in a second.
const SLOWEST_PER_SECOND: u64 = 1_000;

pub(super) fn run(settings: &Settings) -> Result<Report, LabError> {
    let lab = Lab::new(settings.seed)?;
    let sessions = settings.connections;
    let client_host = lab.host("clients", 10, LinkKind::Plain)?;
    let server_host = lab.host("servers", 20, LinkKind::Plain)?;
    let nodes = (lab.host("node-a", 2, LinkKind::Plain)?, lab.host("node-b", 3, LinkKind::Plain)?);
    for node in [&nodes.0, &nodes.1] {
        CLIENTS.route(node, client_host.number())?;
        SERVERS.route(node, server_host.number())?;
    }
    let gates = [Gate::open(&client_host, CLIENTS)?, Gate::open(&server_host, SERVERS)?];
    let options = PairOptions {
        far_servers: server_addresses(sessions, &settings.ipv6),
        more_tables: format!("[limits]\nsessions = {}\n", sessions + sessions / 16 + 1024),
        ..PairOptions::direct(&[PORT])
    };
    let observer = &mut Nobody;
    let mut course = Course::new(&lab, observer);
    let mut pair = Pair::start(settings.program()?, nodes, &[], &options)?;
    course.event("the pair is formed");
    let empty = [memory(&pair.a), memory(&pair.b)];

    let targets = settings.ipv6.iter().map(|&ipv6| pair.address(ipv6, PORT)).collect();
    let clients = Clients::new(sessions as usize, targets, settings.seed);
    let [client_gate, server_gate] = gates;
    let servers = Servers::new(settings.seed);
    let mut peers = Peers::new((clients, client_gate), (servers, server_gate));
    let limit = Duration::from_secs(60 + sessions / SLOWEST_PER_SECOND);
    let begun = lab.clock().now();
    serve_all(&mut peers, &lab, limit);
    let opened_at = course.event("every session has been opened and used");
    let standby_holds = |pair: &mut Pair| -> Result<bool, LabError> {
        let (_, standby) = pair.by_role()?;
        Ok(held_sessions(standby)? >= peers.clients.tally().established)
    };
    course.wait("the standby to hold every session", limit, || standby_holds(&mut pair))?;
    course.wait("the pair to be whole", limit, || pair.is_whole())?;
    let full = [memory(&pair.a), memory(&pair.b)];
    let before = peers.clients.tally();
    // A node gives up connections to servers whose clients did not complete theirs in time.
    let given_up = peers.servers.resets();

    let ordeal = Ordeal::begin(settings.fault, &mut pair, &mut course, || {
        let busy = || peers.turn(lab.clock().now());
        let _ = std::iter::repeat_with(busy).take(TURNS).all(|busy| busy);
    })?;
    let (fault_at, took_over_at) = (ordeal.fault_at, ordeal.took_over_at);
    serve_all(&mut peers, &lab, limit);
    course.event("every session has been used again");

    let after = peers.clients.tally();
    let served = after.answers - before.answers;
    let mut report = course.report("failover", &lab);
    report.connections = sessions;
    report.connections_lost = sessions - served.min(sessions);
    report.bytes_verified = after.verified;
    report.bytes_wrong = after.wrong;
    let lost = report.connections_lost;
    report.require(lost == 0, || format!("{lost} of {sessions} sessions were not served again"));
    report.require(after.wrong == 0, || format!("{} bytes wrong", after.wrong));
    let resets = peers.servers.resets() - given_up + after.reset;
    report.require(resets == 0, || format!("{resets} resets"));
    report.measure("subject", "outlive, synthetic peers");
    report.measure("fault", settings.fault);
    report.measure("detection_ms", milliseconds(took_over_at - fault_at));
    let last = peers.clients.last_served();
    report.measure("takeover_to_last_served_ms", milliseconds(last.saturating_sub(took_over_at)));
    let opening = opened_at.saturating_sub(begun).as_secs_f64();
    report.measure("opened_per_second", (before.established as f64 / opening).round());
    report.measure("refused", after.refused);
    report.measure("repeated", [before.repeated, after.repeated - before.repeated]);
    let grown = |index: usize| {
        let grown = full[index].saturating_sub(empty[index]) * 1024;
        (grown as f64 / sessions.max(1) as f64).round()
    };
    report.measure("memory_bytes_per_session", [grown(0), grown(1)]);
    report.measure("memory_kb", [empty, full]);
    report.add_logs(&mut pair);
    Ok(report)
}

/// Enough addresses for as many sessions, half of them for each IP version in use.
fn server_addresses(sessions: u64, ipv6: &[bool]) -> Vec<IpAddr> {
    let each = sessions.div_ceil(ipv6.len() as u64).div_ceil(PER_SERVER).max(1);
    let addresses = |&ipv6: &bool| (0..each as u16).map(move |n| SERVERS.address(n, ipv6));
    ipv6.iter().flat_map(addresses).collect()
}

/// Lets every session be used once, at most for `limit`. What is not served then shows in the tally.
fn serve_all(peers: &mut Peers, lab: &Lab, limit: Duration) {
    let clock = lab.clock();
    let end = clock.now() + limit;
    peers.clients.ask_all();
    while !peers.clients.are_served() && clock.now() < end {
        if !peers.turn(clock.now()) {
            thread::sleep(NAP);
        }
    }
}

/// Resident memory in kB.
fn memory(node: &Node) -> u64 {
    node.memory_kb().unwrap_or(0)
}

/// Sessions that a node says it holds. A standby does not know yet whether they carry data.
fn held_sessions(node: &Node) -> Result<u64, LabError> {
    let status = node.status()?;
    Ok(["establishing", "open"].iter().filter_map(|name| status.core(name)).sum())
}
