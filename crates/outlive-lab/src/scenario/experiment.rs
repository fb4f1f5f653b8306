//! Traffic of all kinds through a pair of nodes, and harm done to whichever is active.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::course::{Course, Nobody, Observer};
use super::fault::Fault;
use super::ordeal::Ordeal;
use super::rig::{PORT, Rig};
use super::{ListenerMode, Settings, mix};
use crate::error::LabError;
use crate::impairment::Impairment;
use crate::link::LinkKind;
use crate::picture::Picture;
use crate::report::Report;
use crate::subject::outlive::{FORMING, Pair, PairOptions};
use crate::traffic::{Group, Plan, Transfer};

/// An experiment with a pair.
#[derive(Debug, Clone)]
pub struct Experiment {
    /// What the report is called.
    pub name: String,
    /// Done one after the other, each to the node that is active then.
    pub faults: Vec<Fault>,
    /// The cables of all hosts.
    pub links: LinkKind,
    /// Bytes of the upload and of the download.
    pub bulk: u64,
    /// Bytes per second at which they are sent, so that they last through all the faults.
    pub pace: u64,
    /// How long everything runs undisturbed before a fault, and before it is made good.
    pub steady: Duration,
    /// Idle connections.
    pub idle: u64,
    /// The IP versions: false for 4, true for 6.
    pub ipv6: Vec<bool>,
    /// What the pair is told.
    pub pair: PairOptions,
    /// Whether each connection begins with an HTTP request head, as a listener that inspects
    /// wants to see.
    pub http: bool,
}

impl Experiment {
    /// Traffic of all kinds over both IP versions, through direct listeners.
    pub fn new(name: &str, faults: &[Fault]) -> Self {
        Self {
            name: name.to_owned(),
            faults: faults.to_vec(),
            links: LinkKind::Plain,
            bulk: 256 << 20,
            pace: 32 << 20,
            steady: Duration::from_millis(500),
            idle: 200,
            ipv6: vec![false, true],
            pair: PairOptions::direct(&[PORT]),
            http: false,
        }
    }

    /// Runs it with `program`, telling `observer` as it goes.
    pub fn run(
        &self,
        program: &Path,
        seed: u64,
        observer: &mut dyn Observer,
    ) -> Result<(Report, Picture), LabError> {
        let mut rig = Rig::new(program, seed, &self.links, &self.pair)?;
        let mut course = Course::with_book(&rig.lab, &rig.book, observer);
        course.event("the pair is formed");
        if self.http {
            rig.client.name_host("lab.example");
        }
        let streams = self.open_connections(&rig);
        course.wait_established(Duration::from_secs(30))?;
        course.event("all connections are established");
        let mut in_mid_transfer = true;
        for &fault in &self.faults {
            course.wait_progress(&streams, self.pace / 32, Duration::from_secs(60))?;
            course.run_for(self.steady);
            in_mid_transfer &= streams.iter().all(|group| group.open() > 0);
            self.harm(fault, &mut rig.pair, &streams, &mut course)?;
        }
        let longest = Duration::from_secs(60 + self.bulk / self.pace.max(1));
        course.wait_over(&streams, longest);
        course.event("the streams are over");
        rig.close(&mut course, Duration::from_secs(60));

        let mut report = course.report(&self.name, &rig.lab);
        report.require(in_mid_transfer, || "a stream was over before the last fault".to_owned());
        let status = rig.pair.by_role()?.0.status()?;
        report.measure("epoch", &status.epoch);
        report.measure("counters", status.counters());
        report.add_logs(&mut rig.pair);
        let picture = course.picture(&format!("{}: throughput", self.name));
        Ok((report, picture))
    }

    fn open_connections(&self, rig: &Rig) -> Vec<Arc<Group>> {
        let client = &rig.client;
        let mut streams = Vec::new();
        for &ipv6 in &self.ipv6 {
            let to = rig.service(ipv6);
            let paced = Transfer {
                up_pace: Some(self.pace),
                down_pace: Some(self.pace),
                ..Transfer::default()
            };
            let up = Plan::Transfer(Transfer { up: self.bulk, ..paced });
            let down = Plan::Transfer(Transfer { down: self.bulk, ..paced });
            streams.push(client.open("paced upload", 1, to, &up));
            streams.push(client.open("paced download", 1, to, &down));
            client.open("idle", self.idle, to, &Plan::Idle);
            let every = Duration::from_millis(20);
            client.open("interactive", 10, to, &Plan::Interactive { every });
            // There are many of the other kinds: each has a small part of the load.
            let part = 16;
            streams.extend(mix::lasting(client, to, self.bulk / part, self.pace / part));
        }
        streams
    }

    /// Does the harm, waits until the other node has taken over and the streams go on, makes the
    /// harm good, and waits until the pair is whole again.
    fn harm(
        &self,
        fault: Fault,
        pair: &mut Pair,
        streams: &[Arc<Group>],
        course: &mut Course<'_>,
    ) -> Result<(), LabError> {
        let ordeal = Ordeal::begin(fault, pair, course, || ())?;
        course.wait_progress(streams, self.pace / 64, Duration::from_secs(60))?;
        course.run_for(self.steady);
        ordeal.end(course, FORMING)
    }
}

fn run(settings: &Settings, mut experiment: Experiment) -> Result<Report, LabError> {
    experiment.pair.terminate = settings.mode == ListenerMode::Terminate;
    let (report, picture) = experiment.run(settings.program()?, settings.seed, &mut Nobody)?;
    settings.save(&picture)?;
    Ok(report)
}

pub(super) fn kill(settings: &Settings) -> Result<Report, LabError> {
    run(settings, Experiment::new("failover-kill", &[Fault::Kill]))
}

pub(super) fn cut(settings: &Settings) -> Result<Report, LabError> {
    run(settings, Experiment::new("failover-cut", &[Fault::Cut]))
}

pub(super) fn freeze(settings: &Settings) -> Result<Report, LabError> {
    run(settings, Experiment::new("failover-freeze", &[Fault::Freeze]))
}

pub(super) fn series(settings: &Settings) -> Result<Report, LabError> {
    let faults = [Fault::Kill, Fault::Cut, Fault::Freeze, Fault::Kill];
    let name = "failover-series";
    run(settings, Experiment { bulk: 1 << 30, ..Experiment::new(name, &faults) })
}

pub(super) fn inspect(settings: &Settings) -> Result<Report, LabError> {
    let pair = PairOptions { inspected_ports: vec![PORT], ..PairOptions::direct(&[]) };
    let faults = [Fault::Kill, Fault::Cut];
    let experiment =
        Experiment { pair, http: true, ..Experiment::new("failover-inspect", &faults) };
    run(settings, experiment)
}

pub(super) fn bad_links(settings: &Settings) -> Result<Report, LabError> {
    let experiment = Experiment {
        links: LinkKind::impaired(Impairment::bad()),
        bulk: 4 << 20,
        pace: 128 << 10,
        ..Experiment::new("failover-bad", &[Fault::Kill, Fault::Cut])
    };
    run(settings, experiment)
}
