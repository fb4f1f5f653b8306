//! What a standby costs: how fast a node is without one and with one, and what the nodes tell each
//! other.
//!
//! All subjects live through the whole run in labs of their own, idle while another is measured, and
//! take turns. What goes from the active node to the standby is what the standby's kernel receives:
//! nothing else is sent there. Heartbeats are taken off, as counted in a quiet time.

use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::Settings;
use super::arena::{Arena, PORTS, Site, Workload, bulk, http, median};
use crate::error::LabError;
use crate::load::Direction;
use crate::report::Report;
use crate::subject::outlive::{Alone, Pair, PairOptions};

const BULK: Workload = bulk("bulk upload", "Gbit/s", false, Direction::Upload);
const REQUESTS: Workload = http("small requests, 64 connections", "requests/s", false);
const CONNECTIONS: Workload = http("new connections", "connections/s", true);
const WORKLOADS: [Workload; 3] = [BULK, REQUESTS, CONNECTIONS];

/// How long a quiet time is that tells what heartbeats take.
const QUIET: Duration = Duration::from_millis(500);

/// What a connection that is being made, or has just ended, may still cost after the measurement.
const SETTLE: Duration = Duration::from_millis(200);

/// The medians of a workload.
#[derive(Debug, Serialize)]
struct Row {
    workload: &'static str,
    unit: &'static str,
    pair_off: f64,
    #[serde(rename = "async")]
    asynchronous: f64,
    sync: f64,
    async_vs_off: f64,
    sync_vs_off: f64,
}

pub(super) fn run(settings: &Settings) -> Result<Report, LabError> {
    let program = settings.program()?;
    let options = settings.pair_options(&PORTS);
    let off: Arena<Alone> = Arena::new(settings.seed, |Site { nodes, server, .. }| {
        Ok((Box::new(Alone::start(program, nodes, &[server], &options)?), Vec::new()))
    })?;
    let pair = |replication: &str| -> Result<Arena<Pair>, LabError> {
        let listener_lines = format!("replication = \"{replication}\"\n");
        let options = PairOptions { listener_lines, ..settings.pair_options(&PORTS) };
        Arena::new(settings.seed, |Site { nodes, server, .. }| {
            Ok((Box::new(Pair::start(program, nodes, &[server], &options)?), Vec::new()))
        })
    };
    let (asynchronous, mut sync) = (pair("async")?, pair("sync")?);
    let mut report = Report::new("overhead", &off.lab);
    let length = Duration::from_secs_f64(settings.seconds);
    let mut rows = Vec::new();
    let (mut per_session, mut per_gigabyte) = (Vec::new(), Vec::new());
    for workload in &WORKLOADS {
        let mut samples = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..settings.rounds {
            samples[0].push(off.measure(workload, length, &mut report)?);
            samples[1].push(asynchronous.measure(workload, length, &mut report)?);
            let told = Told::begin(&mut sync)?;
            let connections = report.connections;
            samples[2].push(sync.measure(workload, length, &mut report)?);
            let bytes = told.end(&mut sync)?;
            let opened = (report.connections - connections) as f64;
            if workload.name == CONNECTIONS.name {
                per_session.push(bytes.state / opened);
            } else if workload.name == BULK.name {
                // The connection itself is not what a gigabyte costs.
                per_gigabyte.push(bytes.state * 1e9 / bytes.payload);
            }
        }
        let [pair_off, asynchronous, sync] = samples.each_ref().map(|samples| median(samples));
        rows.push(Row {
            workload: workload.name,
            unit: workload.unit,
            pair_off,
            asynchronous,
            sync,
            async_vs_off: asynchronous / pair_off,
            sync_vs_off: sync / pair_off,
        });
    }
    report.measure("rounds", settings.rounds);
    report.measure("rows", rows);
    report.measure("state_bytes_per_session", median(&per_session).round());
    report.measure("state_bytes_per_gigabyte", median(&per_gigabyte).round());
    Ok(report)
}

/// What the nodes have told each other, and what has passed through, up to a moment.
struct Told {
    at: Duration,
    received: u64,
    passed: u64,
    heartbeats_per_second: f64,
}

/// The same between two moments, in bytes.
struct Bytes {
    state: f64,
    payload: f64,
}

impl Told {
    fn begin(arena: &mut Arena<Pair>) -> Result<Self, LabError> {
        let before = Self::now(arena)?;
        thread::sleep(QUIET);
        let quiet = Self::now(arena)?;
        let seconds = (quiet.at - before.at).as_secs_f64();
        Ok(Self {
            heartbeats_per_second: (quiet.received - before.received) as f64 / seconds,
            ..quiet
        })
    }

    fn end(&self, arena: &mut Arena<Pair>) -> Result<Bytes, LabError> {
        thread::sleep(SETTLE);
        let end = Self::now(arena)?;
        let seconds = (end.at - self.at).as_secs_f64();
        let received = (end.received - self.received) as f64;
        Ok(Bytes {
            state: (received - seconds * self.heartbeats_per_second).max(0.0),
            payload: ((end.passed - self.passed) as f64).max(1.0),
        })
    }

    /// What the standby's kernel has received in all, and what has been uploaded.
    fn now(arena: &mut Arena<Pair>) -> Result<Self, LabError> {
        let at = arena.lab.clock().now();
        let (_, standby) = arena.subject.by_role()?;
        let received = standby.host().counter("InOctets")?.unwrap_or(0);
        let passed = arena.bulk.received();
        Ok(Self { at, received, passed, heartbeats_per_second: 0.0 })
    }
}
