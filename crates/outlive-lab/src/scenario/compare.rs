//! How fast: Outlive, HAProxy and plain routing, in turn, on the same topology.
//!
//! Every subject has a lab of its own, built alike, so that nothing of one is in the way of
//! another; all of them live through the whole run, idle while another is measured. The order of
//! the subjects changes from round to round.

use std::time::Duration;

use serde::Serialize;

use super::{Settings, SubjectKind};
use crate::error::LabError;
use crate::host::Host;
use crate::impairment::Impairment;
use crate::link::LinkKind;
use crate::load::{BulkServer, Direction, HttpLoad, HttpServer, Window, measure_bulk};
use crate::report::Report;
use crate::subject::Subject;
use crate::subject::haproxy::HaProxy;
use crate::subject::outlive::{Pair, PairOptions};
use crate::subject::routing::Router;
use crate::topology::Lab;

const HTTP_PORT: u16 = 8000;
const BULK_PORT: u16 = 8001;
const PORTS: [u16; 2] = [HTTP_PORT, BULK_PORT];

/// One way to the far client and back: 100 ms together.
const FAR: Duration = Duration::from_millis(50);

/// What the far client can send.
const FAR_UPLOAD_BITS: u64 = 200_000_000;

/// Bytes that wait for their turn there: more than the 2.5 MB that fit on the way, so that the
/// rate is the limit and not the recovery from the first overflow.
const FAR_QUEUE: usize = 4 << 20;

/// One line of the comparison.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was done.
    pub workload: &'static str,
    /// What the figures count.
    pub unit: &'static str,
    /// The median of the rounds with Outlive.
    pub outlive: Option<f64>,
    /// The same with HAProxy, with the better number of threads.
    pub haproxy: Option<f64>,
    /// How many threads that were.
    pub haproxy_threads: Option<usize>,
    /// The same without a proxy.
    pub routing: Option<f64>,
    /// Outlive divided by HAProxy.
    pub vs_haproxy: Option<f64>,
    /// Outlive divided by routing.
    pub vs_routing: Option<f64>,
}

pub(super) fn run(settings: &Settings) -> Result<Report, LabError> {
    let mut arenas = Vec::new();
    for &kind in &settings.subjects {
        match kind {
            SubjectKind::Haproxy => {
                arenas.push(Arena::new(settings, kind, 1)?);
                arenas.push(Arena::new(settings, kind, 2)?);
            }
            _ => arenas.push(Arena::new(settings, kind, 0)?),
        }
    }
    let lab = &arenas.first().ok_or(LabError::NothingToCompare)?.lab;
    let mut report = Report::new("compare", lab);
    let chosen = |w: &&Workload| w.name.contains(&settings.workload);
    let workloads: Vec<&Workload> = WORKLOADS.iter().filter(chosen).collect();
    let mut samples = vec![vec![Vec::new(); arenas.len()]; workloads.len()];
    for round in 0..settings.rounds {
        for (workload, samples) in workloads.iter().zip(&mut samples) {
            for turn in 0..arenas.len() {
                let index = (round + turn) % arenas.len();
                let sample = arenas[index].measure(workload, settings, &mut report)?;
                samples[index].push(sample);
            }
        }
    }
    let rows: Vec<Row> = workloads
        .iter()
        .zip(&samples)
        .map(|(workload, samples)| row(workload, &arenas, samples))
        .collect();
    report.measure("rounds", settings.rounds);
    report.measure("rows", rows);
    report.measure("samples", all_samples(&workloads, &arenas, &samples));
    Ok(report)
}

/// Something to measure.
struct Workload {
    name: &'static str,
    unit: &'static str,
    load: Load,
}

enum Load {
    Bulk { far: bool, direction: Direction },
    Http(HttpLoad),
}

const WORKLOADS: [Workload; 6] = [
    bulk("bulk download", "Gbit/s", false, Direction::Download),
    bulk("bulk upload", "Gbit/s", false, Direction::Upload),
    bulk("bulk download, 100 ms", "Gbit/s", true, Direction::Download),
    bulk("bulk upload, 100 ms, 200 Mbit/s", "Gbit/s", true, Direction::Upload),
    http("small requests, 64 connections", "requests/s", false),
    http("new connections", "connections/s", true),
];

const fn bulk(name: &'static str, unit: &'static str, far: bool, direction: Direction) -> Workload {
    Workload { name, unit, load: Load::Bulk { far, direction } }
}

const fn http(name: &'static str, unit: &'static str, close: bool) -> Workload {
    Workload { name, unit, load: Load::Http(HttpLoad { connections: 64, close }) }
}

/// A lab with one subject in it.
struct Arena {
    kind: SubjectKind,
    threads: usize,
    subject: Box<dyn Subject>,
    bulk: BulkServer,
    _http: HttpServer,
    _nodes: Vec<Host>,
    client: Host,
    far: Host,
    _server: Host,
    lab: Lab,
}

impl Arena {
    fn new(settings: &Settings, kind: SubjectKind, threads: usize) -> Result<Self, LabError> {
        let lab = Lab::new(settings.seed)?;
        let client = lab.host("client", 10, LinkKind::Plain)?;
        let far_link = LinkKind::Impaired {
            out: Impairment {
                rate: Some(FAR_UPLOAD_BITS),
                queue: FAR_QUEUE,
                ..Impairment::delayed(FAR)
            },
            back: Impairment::delayed(FAR),
        };
        let far = lab.host("far", 11, far_link)?;
        let server = lab.host("server", 20, LinkKind::Plain)?;
        let node_a = lab.host("node-a", 2, LinkKind::Plain)?;
        let node_b = lab.host("node-b", 3, LinkKind::Plain)?;
        let http = HttpServer::start(&server, HTTP_PORT)?;
        let bulk = BulkServer::start(&server, BULK_PORT)?;
        let mut nodes = Vec::new();
        let subject: Box<dyn Subject> = match kind {
            SubjectKind::Outlive => {
                let options = PairOptions::direct(&PORTS);
                let hosts = (node_a, node_b);
                Box::new(Pair::start(settings.program()?, hosts, &[&server], &options)?)
            }
            SubjectKind::Haproxy => {
                let subject = HaProxy::start(&node_a, &server, threads, &PORTS)?;
                nodes.extend([node_a, node_b]);
                Box::new(subject)
            }
            SubjectKind::Routing => {
                let subject = Router::between(&node_a, &[&client, &far], &server)?;
                nodes.extend([node_a, node_b]);
                Box::new(subject)
            }
        };
        let (_http, _nodes, _server) = (http, nodes, server);
        Ok(Self { kind, threads, subject, bulk, _http, _nodes, client, far, _server, lab })
    }

    fn measure(
        &self,
        workload: &Workload,
        settings: &Settings,
        report: &mut Report,
    ) -> Result<f64, LabError> {
        let length = Duration::from_secs_f64(settings.seconds);
        match workload.load {
            Load::Bulk { far, direction } => {
                // A far sender needs many round trips until it knows what it may send.
                let (host, warm_up) = if far { (&self.far, 3000) } else { (&self.client, 300) };
                let window = Window { warm_up: Duration::from_millis(warm_up), length };
                let to = self.subject.address(false, BULK_PORT);
                let bits = measure_bulk(host, &self.bulk, to, direction, window)?;
                report.connections += 1;
                report.require(bits > 0.0, || {
                    format!("{}: {} moved nothing", workload.name, self.subject.name())
                });
                Ok(bits * 1e-9)
            }
            Load::Http(load) => {
                let window = Window { warm_up: Duration::from_millis(300), length };
                let to = self.subject.address(false, HTTP_PORT);
                let result = load.run(&self.client, to, window)?;
                report.connections += result.connections;
                report.connections_lost += result.failed;
                report.bytes_verified += result.bytes;
                report.bytes_wrong += result.wrong;
                report.require(result.failed + result.wrong == 0, || {
                    let (name, subject) = (workload.name, self.subject.name());
                    format!("{name}: {subject} broke {} connections", result.failed)
                });
                Ok(result.per_second)
            }
        }
    }
}

fn row(workload: &Workload, arenas: &[Arena], samples: &[Vec<f64>]) -> Row {
    let medians = || arenas.iter().zip(samples).map(|(arena, samples)| (arena, median(samples)));
    let best = |kind| {
        let mine = medians().filter(|(arena, _)| arena.kind == kind);
        mine.max_by(|one, other| one.1.total_cmp(&other.1))
    };
    let value = |kind| best(kind).map(|(_, median)| median);
    let outlive = value(SubjectKind::Outlive);
    let (haproxy, routing) = (value(SubjectKind::Haproxy), value(SubjectKind::Routing));
    let ratio = |other: Option<f64>| Some(outlive? / other?);
    Row {
        workload: workload.name,
        unit: workload.unit,
        outlive,
        haproxy,
        haproxy_threads: best(SubjectKind::Haproxy).map(|(arena, _)| arena.threads),
        routing,
        vs_haproxy: ratio(haproxy),
        vs_routing: ratio(routing),
    }
}

/// Every single figure, for whoever doubts a median.
#[derive(Serialize)]
struct Samples<'a> {
    workload: &'static str,
    subject: String,
    values: &'a [f64],
}

fn all_samples<'a>(
    workloads: &[&Workload],
    arenas: &[Arena],
    samples: &'a [Vec<Vec<f64>>],
) -> Vec<Samples<'a>> {
    let mut all = Vec::new();
    for (workload, samples) in workloads.iter().zip(samples) {
        for (arena, values) in arenas.iter().zip(samples) {
            let subject = arena.subject.name().to_owned();
            all.push(Samples { workload: workload.name, subject, values });
        }
    }
    all
}

/// The middle value, or the mean of the two middle ones; 0 of nothing.
fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        len if len % 2 == 1 => sorted[len / 2],
        len => f64::midpoint(sorted[len / 2 - 1], sorted[len / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }
}
