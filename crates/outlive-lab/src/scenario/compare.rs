//! How fast: Outlive, HAProxy and plain routing, in turn, on the same topology.
//!
//! Every subject has a lab of its own, built alike, so that nothing of one is in the way of
//! another; all of them live through the whole run, idle while another is measured. The order of
//! the subjects changes from round to round.

use std::time::Duration;

use serde::Serialize;

use super::arena::{Arena, PORTS, Site, Workload, bulk, http, median};
use super::{Settings, SubjectKind};
use crate::error::LabError;
use crate::load::Direction;
use crate::report::Report;
use crate::subject::Subject;
use crate::subject::haproxy::HaProxy;
use crate::subject::outlive::{Pair, PairOptions};
use crate::subject::routing::Router;

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
    /// The same with Outlive when its listeners terminate.
    pub terminating: Option<f64>,
    /// Outlive divided by HAProxy.
    pub vs_haproxy: Option<f64>,
    /// Outlive divided by routing.
    pub vs_routing: Option<f64>,
    /// Outlive that terminates divided by Outlive that splices.
    pub terminating_vs_splice: Option<f64>,
    /// Outlive that terminates divided by HAProxy.
    pub terminating_vs_haproxy: Option<f64>,
}

pub(super) fn run(settings: &Settings) -> Result<Report, LabError> {
    let length = Duration::from_secs_f64(settings.seconds);
    let mut entrants = Vec::new();
    for &kind in &settings.subjects {
        match kind {
            SubjectKind::Haproxy => {
                entrants.push(Entrant::new(settings, kind, 1)?);
                entrants.push(Entrant::new(settings, kind, 2)?);
            }
            _ => entrants.push(Entrant::new(settings, kind, 0)?),
        }
    }
    let lab = &entrants.first().ok_or(LabError::NothingToCompare)?.arena.lab;
    let mut report = Report::new("compare", lab);
    let chosen = |w: &&Workload| w.name.contains(&settings.workload);
    let workloads: Vec<&Workload> = WORKLOADS.iter().filter(chosen).collect();
    let mut samples = vec![vec![Vec::new(); entrants.len()]; workloads.len()];
    for round in 0..settings.rounds {
        for (workload, samples) in workloads.iter().zip(&mut samples) {
            for turn in 0..entrants.len() {
                let index = (round + turn) % entrants.len();
                let sample = entrants[index].arena.measure(workload, length, &mut report)?;
                samples[index].push(sample);
            }
        }
    }
    let rows: Vec<Row> = workloads
        .iter()
        .zip(&samples)
        .map(|(workload, samples)| row(workload, &entrants, samples))
        .collect();
    report.measure("rounds", settings.rounds);
    report.measure("rows", rows);
    report.measure("samples", all_samples(&workloads, &entrants, &samples));
    Ok(report)
}

const WORKLOADS: [Workload; 6] = [
    bulk("bulk download", "Gbit/s", false, Direction::Download),
    bulk("bulk upload", "Gbit/s", false, Direction::Upload),
    bulk("bulk download, 100 ms", "Gbit/s", true, Direction::Download),
    bulk("bulk upload, 100 ms, 200 Mbit/s", "Gbit/s", true, Direction::Upload),
    http("small requests, 64 connections", "requests/s", false),
    http("new connections", "connections/s", true),
];

/// Something that is compared, in a lab of its own.
struct Entrant {
    kind: SubjectKind,
    threads: usize,
    arena: Arena<dyn Subject>,
}

impl Entrant {
    fn new(settings: &Settings, kind: SubjectKind, threads: usize) -> Result<Self, LabError> {
        let arena = Arena::new(settings.seed, |site| {
            let Site { nodes: (a, b), clients, server } = site;
            Ok(match kind {
                SubjectKind::Outlive | SubjectKind::Terminating => {
                    let terminate = kind == SubjectKind::Terminating;
                    let options = PairOptions { terminate, ..PairOptions::direct(&PORTS) };
                    let pair = Pair::start(settings.program()?, (a, b), &[server], &options)?;
                    (Box::new(pair) as Box<dyn Subject>, Vec::new())
                }
                SubjectKind::Haproxy => {
                    (Box::new(HaProxy::start(&a, server, threads, &PORTS)?), vec![a, b])
                }
                SubjectKind::Routing => {
                    (Box::new(Router::between(&a, &clients, server)?), vec![a, b])
                }
            })
        })?;
        Ok(Self { kind, threads, arena })
    }
}

fn row(workload: &Workload, entrants: &[Entrant], samples: &[Vec<f64>]) -> Row {
    let medians =
        || entrants.iter().zip(samples).map(|(entrant, samples)| (entrant, median(samples)));
    let best = |kind| {
        let mine = medians().filter(|(entrant, _)| entrant.kind == kind);
        mine.max_by(|one, other| one.1.total_cmp(&other.1))
    };
    let value = |kind| best(kind).map(|(_, median)| median);
    let outlive = value(SubjectKind::Outlive);
    let (haproxy, routing) = (value(SubjectKind::Haproxy), value(SubjectKind::Routing));
    let terminating = value(SubjectKind::Terminating);
    let ratio = |one: Option<f64>, other: Option<f64>| Some(one? / other?);
    Row {
        workload: workload.name,
        unit: workload.unit,
        outlive,
        haproxy,
        haproxy_threads: best(SubjectKind::Haproxy).map(|(entrant, _)| entrant.threads),
        routing,
        terminating,
        vs_haproxy: ratio(outlive, haproxy),
        vs_routing: ratio(outlive, routing),
        terminating_vs_splice: ratio(terminating, outlive),
        terminating_vs_haproxy: ratio(terminating, haproxy),
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
    entrants: &[Entrant],
    samples: &'a [Vec<Vec<f64>>],
) -> Vec<Samples<'a>> {
    let mut all = Vec::new();
    for (workload, samples) in workloads.iter().zip(samples) {
        for (entrant, values) in entrants.iter().zip(samples) {
            let name = entrant.arena.subject.name();
            let subject = match entrant.kind {
                SubjectKind::Terminating => format!("{name}, terminating"),
                _ => name.to_owned(),
            };
            all.push(Samples { workload: workload.name, subject, values });
        }
    }
    all
}
