//! Traffic of all kinds through a pair of nodes, and harm done to whichever is active.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::course::{Course, Nobody, Observer};
use super::{Settings, mix};
use crate::error::LabError;
use crate::impairment::Impairment;
use crate::link::{Cut, LinkKind};
use crate::node::Node;
use crate::picture::Picture;
use crate::report::Report;
use crate::subject::Subject;
use crate::subject::outlive::{Pair, PairOptions};
use crate::topology::Lab;
use crate::traffic::{Client, Group, Plan, Server, Transfer};

const PORT: u16 = 7000;

/// How long the other node may take to become active. Generous: what counts is how long the
/// connections waited, and that is measured.
const TAKE_OVER: Duration = Duration::from_secs(15);

/// Harm to the active node. It is made good afterwards, and the node must come back as standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The program is killed (`SIGKILL`), and later started again.
    Kill,
    /// The cable is cut: frames dropped both ways, carrier kept.
    Cut,
    /// The program is frozen (`SIGSTOP`): it does nothing, but keeps its sockets and devices.
    Freeze,
}

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
    /// Idle connections.
    pub idle: u64,
    /// Whether connections of all the other kinds are added.
    pub all_kinds: bool,
    /// The IP versions: false for 4, true for 6.
    pub ipv6: Vec<bool>,
    /// What the pair is told.
    pub pair: PairOptions,
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
            idle: 200,
            all_kinds: true,
            ipv6: vec![false, true],
            pair: PairOptions::direct(&[PORT]),
        }
    }

    /// Runs it with `program`, telling `observer` as it goes.
    pub fn run(
        &self,
        program: &Path,
        seed: u64,
        observer: &mut dyn Observer,
    ) -> Result<(Report, Picture), LabError> {
        let lab = Lab::new(seed)?;
        let client_host = lab.host("client", 10, self.links.clone())?;
        let server_hosts = [
            lab.host("server-1", 20, self.links.clone())?,
            lab.host("server-2", 21, self.links.clone())?,
        ];
        let nodes = (
            lab.host("node-a", 2, self.links.clone())?,
            lab.host("node-b", 3, self.links.clone())?,
        );
        let mut course = Course::new(&lab, observer);
        let servers = server_hosts
            .iter()
            .map(|host| Server::start(host, course.book(), &[PORT]))
            .collect::<Result<Vec<_>, _>>()?;
        let mut pair = Pair::start(program, nodes, &server_hosts.each_ref(), &self.pair)?;
        course.event("the pair is formed");

        let client = Client::start(&client_host, course.book(), seed)?;
        let streams = self.open_connections(&client, &pair);
        course.wait_established(Duration::from_secs(30))?;
        course.event("all connections are established");
        for &fault in &self.faults {
            course.wait_progress(&streams, self.pace / 2, Duration::from_secs(60))?;
            self.harm(fault, &mut pair, &streams, &mut course)?;
        }
        let longest = Duration::from_secs(60 + self.bulk / self.pace.max(1));
        course.wait_over(&streams, longest);
        course.event("the streams are over");
        client.finish(Duration::from_secs(60));
        servers.iter().for_each(|server| server.finish(Duration::from_secs(10)));
        course.event("all connections are closed");

        let mut report = course.report(&self.name, &lab);
        let epoch = pair.by_role()?.0.status()?.epoch;
        report.measure("epoch", epoch);
        let picture = course.picture(&format!("{}: throughput", self.name));
        Ok((report, picture))
    }

    fn open_connections(&self, client: &Client, pair: &Pair) -> Vec<Arc<Group>> {
        let mut streams = Vec::new();
        for &ipv6 in &self.ipv6 {
            let to = pair.address(ipv6, PORT);
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
            if self.all_kinds {
                // There are many of them: each has a small part of the load.
                let part = 16;
                streams.extend(mix::lasting(client, to, self.bulk / part, self.pace / part));
            }
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
        {
            let (active, standby) = pair.by_role()?;
            let (name, other) = (active.host().name().to_owned(), standby.host().name().to_owned());
            course.fault(fault.inflict(active)?.replace("NODE", &name));
            standby.wait_for("active", TAKE_OVER, |status| status.role == "active")?;
            course.event(format!("{other} is active"));
            course.wait_progress(streams, self.pace / 4, Duration::from_secs(60))?;
            course.event(fault.heal(active)?.replace("NODE", &name));
        }
        pair.wait_until_paired()?;
        course.event("the pair is whole again");
        Ok(())
    }
}

impl Fault {
    fn inflict(self, node: &mut Node) -> Result<&'static str, LabError> {
        match self {
            Self::Kill => node.kill().map(|()| "NODE's program is killed"),
            Self::Cut => node.host().link().cut(Cut::Both).map(|()| "NODE's cable is cut"),
            Self::Freeze => node.freeze().map(|()| "NODE's program is frozen"),
        }
    }

    fn heal(self, node: &mut Node) -> Result<&'static str, LabError> {
        match self {
            Self::Kill => node.start().map(|()| "NODE's program is started again"),
            Self::Cut => node.host().link().restore().map(|()| "NODE's cable is whole again"),
            Self::Freeze => node.thaw().map(|()| "NODE's program goes on"),
        }
    }
}

fn run(settings: &Settings, experiment: &Experiment) -> Result<Report, LabError> {
    let (report, picture) = experiment.run(settings.program()?, settings.seed, &mut Nobody)?;
    settings.save(&picture)?;
    Ok(report)
}

pub(super) fn kill(settings: &Settings) -> Result<Report, LabError> {
    run(settings, &Experiment::new("failover-kill", &[Fault::Kill]))
}

pub(super) fn cut(settings: &Settings) -> Result<Report, LabError> {
    run(settings, &Experiment::new("failover-cut", &[Fault::Cut]))
}

pub(super) fn freeze(settings: &Settings) -> Result<Report, LabError> {
    run(settings, &Experiment::new("failover-freeze", &[Fault::Freeze]))
}

pub(super) fn series(settings: &Settings) -> Result<Report, LabError> {
    let faults = [Fault::Kill, Fault::Cut, Fault::Freeze, Fault::Kill];
    let name = "failover-series";
    run(settings, &Experiment { bulk: 1 << 30, ..Experiment::new(name, &faults) })
}

pub(super) fn bad_links(settings: &Settings) -> Result<Report, LabError> {
    let experiment = Experiment {
        links: LinkKind::impaired(Impairment::bad()),
        bulk: 4 << 20,
        pace: 128 << 10,
        ..Experiment::new("failover-bad", &[Fault::Kill, Fault::Cut])
    };
    run(settings, &experiment)
}
