//! A flood of SYNs from forged addresses, beside real clients: those are served, and the memory of
//! the node stays bounded.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::course::{Course, Nobody};
use super::{Settings, mix};
use crate::attack::{Injector, SYN, Segment};
use crate::error::LabError;
use crate::host::Host;
use crate::link::LinkKind;
use crate::load::{HttpLoad, HttpServer, Window};
use crate::report::{Report, milliseconds};
use crate::subject::Subject;
use crate::subject::outlive::{Pair, PairOptions};
use crate::topology::Lab;
use crate::traffic::{Client, Failure, Server};

const PORT: u16 = 7000;
const DIRECT_HTTP: u16 = 8000;
const INSPECTED_HTTP: u16 = 8001;

/// SYNs per second. More than all tables of a node hold within the flood, and as much as leaves
/// real clients some of the two cores that the lab may have.
const RATE: u32 = 20_000;

/// What the node's memory may grow by. Its tables are bounded, but empty at first.
const MOST_GROWTH_KB: u64 = 512 << 10;

/// One flood in the report.
#[derive(Serialize)]
struct Flood {
    listener: &'static str,
    syns: u64,
    new_connections_per_second: f64,
    new_connections_failed: u64,
    failures: BTreeMap<Failure, u64>,
    connection_p99_ms: f64,
}

pub(super) fn run(settings: &Settings) -> Result<Report, LabError> {
    let lab = Lab::new(settings.seed)?;
    let client_host = lab.host("client", 10, LinkKind::Plain)?;
    let server_host = lab.host("server", 20, LinkKind::Plain)?;
    let nodes = (lab.host("node-a", 2, LinkKind::Plain)?, lab.host("node-b", 3, LinkKind::Plain)?);
    let injector = Injector::new(&lab)?;
    let observer = &mut Nobody;
    let mut course = Course::new(&lab, observer);
    let server = Server::start(&server_host, course.book(), &[PORT])?;
    let _http = [DIRECT_HTTP, INSPECTED_HTTP]
        .map(|port| HttpServer::start(&server_host, port))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let options = PairOptions {
        inspected_ports: vec![INSPECTED_HTTP],
        ..PairOptions::direct(&[PORT, DIRECT_HTTP])
    };
    let mut pair = Pair::start(settings.program()?, nodes, &[&server_host], &options)?;
    let client = Client::start(&client_host, course.book(), settings.seed)?;
    for ipv6 in [false, true] {
        mix::endless(&client, pair.address(ipv6, PORT));
    }
    course.wait_established(Duration::from_secs(10))?;
    let memory_before = pair.by_role()?.0.memory_kb();

    let mut floods = Vec::new();
    for (listener, port) in [("direct", DIRECT_HTTP), ("inspect", INSPECTED_HTTP)] {
        let to = pair.address(false, port);
        course.event(format!("the {listener} listener is flooded"));
        let active = pair.by_role()?.0;
        floods.push(flood(listener, &injector, active.host(), &client_host, to)?);
    }
    course.event("the floods are over");
    let active = pair.by_role()?.0;
    let (memory_after, counters) = (active.memory_kb(), active.status()?.counters());
    client.finish(Duration::from_secs(20));
    server.finish(Duration::from_secs(10));

    let mut report = course.report("syn-flood", &lab);
    for flood in &floods {
        let listener = flood.listener;
        report.require(flood.new_connections_per_second > 0.0, || {
            format!("nobody could connect to the {listener} listener")
        });
        report.require(flood.new_connections_failed == 0, || {
            format!("{} connections to the {listener} listener broke", flood.new_connections_failed)
        });
    }
    report.measure("floods", floods);
    report.measure("counters", counters);
    report.measure("memory_before_kb", memory_before);
    report.measure("memory_after_kb", memory_after);
    let growth = memory_after.unwrap_or(u64::MAX).saturating_sub(memory_before.unwrap_or(0));
    report.require(growth <= MOST_GROWTH_KB, || format!("memory grew by {growth} kB"));
    Ok(report)
}

/// Floods `to` at `victim` while real clients open connections through it one after the other.
fn flood(
    listener: &'static str,
    injector: &Injector,
    victim: &Host,
    client: &Host,
    to: SocketAddr,
) -> Result<Flood, LabError> {
    let stop = Arc::new(AtomicBool::new(false));
    let syns = AtomicU64::new(0);
    let window = Window { warm_up: Duration::from_millis(500), length: Duration::from_secs(3) };
    let result = thread::scope(|scope| {
        scope.spawn(|| {
            let start = Instant::now();
            while !stop.load(Relaxed) {
                let due = (start.elapsed().as_secs_f64() * f64::from(RATE)) as u64;
                while syns.load(Relaxed) < due {
                    let number = syns.fetch_add(1, Relaxed);
                    injector.send(&forged_syn(number as u32, to), victim);
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        let load = HttpLoad { connections: 16, close: true };
        let result = load.run(client, to, window);
        stop.store(true, Relaxed);
        result
    })?;
    let p99 = Duration::from_micros(result.latency.value_at_quantile(0.99));
    Ok(Flood {
        listener,
        syns: syns.into_inner(),
        new_connections_per_second: result.per_second,
        new_connections_failed: result.failed,
        failures: result.failures,
        connection_p99_ms: milliseconds(p99),
    })
}

/// Every SYN from another address of 10.79.0.0/16 and another port.
fn forged_syn(number: u32, to: SocketAddr) -> Segment {
    let mixed = number.wrapping_mul(0x9e37_79b1);
    let [a, b, c, d] = mixed.to_be_bytes();
    let from: IpAddr = Ipv4Addr::new(10, 79, a, b).into();
    let port = u16::from_be_bytes([c, d]).max(1024);
    Segment {
        from: SocketAddr::new(from, port),
        to,
        seq: mixed.rotate_left(7),
        ack: 0,
        flags: SYN,
        payload: Vec::new(),
    }
}
