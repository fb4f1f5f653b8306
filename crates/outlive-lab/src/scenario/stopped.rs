//! Readers that stop for half a minute, while the sender's kernel would give up after five
//! retransmissions: a proxy must neither take the data for itself nor let the sender time out.

use std::time::Duration;

use super::Settings;
use super::course::{Course, Nobody};
use crate::error::LabError;
use crate::host::Host;
use crate::link::LinkKind;
use crate::report::Report;
use crate::subject::Subject;
use crate::subject::outlive::Pair;
use crate::topology::Lab;
use crate::traffic::{Client, Plan, Reader, Server, Transfer};

const PORT: u16 = 7000;
const BYTES: u64 = 64 << 20;
const STOP_FOR: Duration = Duration::from_secs(30);

/// What the kernel counts when it retransmits by timer, and when it gives up.
const COUNTERS: [&str; 2] = ["TCPTimeouts", "TCPAbortOnTimeout"];

pub(super) fn run(settings: &Settings) -> Result<Report, LabError> {
    let lab = Lab::new(settings.seed)?;
    let client_host = lab.host("client", 10, LinkKind::Plain)?;
    let server_host = lab.host("server", 20, LinkKind::Plain)?;
    let nodes = (lab.host("node-a", 2, LinkKind::Plain)?, lab.host("node-b", 3, LinkKind::Plain)?);
    for host in [&client_host, &server_host] {
        host.sysctl("net/ipv4/tcp_retries2", "5")?;
    }
    let observer = &mut Nobody;
    let mut course = Course::new(&lab, observer);
    let server = Server::start(&server_host, course.book(), &[PORT])?;
    let options = settings.pair_options(&[PORT]);
    let pair = Pair::start(settings.program()?, nodes, &[&server_host], &options)?;
    let client = Client::start(&client_host, course.book(), settings.seed)?;

    let stopping = Reader { stop_after: 1 << 20, stop_for: STOP_FOR, pace: None };
    let upload = Transfer { up: BYTES, server_reader: stopping, ..Transfer::default() };
    let download = Transfer { down: BYTES, reader: stopping, ..Transfer::default() };
    let mut streams = Vec::new();
    for ipv6 in [false, true] {
        let to = pair.address(ipv6, PORT);
        streams.push(client.open("server stops reading", 4, to, &Plan::Transfer(upload)));
        streams.push(client.open("client stops reading", 4, to, &Plan::Transfer(download)));
    }
    course.wait_established(Duration::from_secs(10))?;
    course.event("all connections are established");
    // Filling the windows may cost a retransmission; holding them full may not.
    course.run_for(STOP_FOR / 10);
    let before = [counters(&client_host)?, counters(&server_host)?];
    course.event("all readers have stopped");
    course.run_for(STOP_FOR / 10 * 8);
    let after = [counters(&client_host)?, counters(&server_host)?];
    course.event("all readers are about to go on");
    course.wait_over(&streams, 2 * STOP_FOR);
    course.event("the streams are over");
    client.finish(Duration::from_secs(10));
    server.finish(Duration::from_secs(10));

    let mut report = course.report("stopped-readers", &lab);
    for (index, name) in COUNTERS.into_iter().enumerate() {
        let counted = [0, 1].map(|end: usize| after[end][index] - before[end][index]);
        report.measure(name, counted);
        report.require(counted == [0, 0], || {
            format!("{name}: {} at the client, {} at the server", counted[0], counted[1])
        });
    }
    Ok(report)
}

fn counters(host: &Host) -> Result<[u64; 2], LabError> {
    let [timeouts, aborts] = COUNTERS.map(|name| host.counter(name));
    Ok([timeouts?.unwrap_or(0), aborts?.unwrap_or(0)])
}
