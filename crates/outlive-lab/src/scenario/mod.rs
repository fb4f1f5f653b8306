//! The scenarios that the command can run.

mod arena;
mod chaos;
pub mod compare;
pub mod course;
mod endpoint;
mod endurance;
pub mod experiment;
mod failover;
mod false_alarms;
pub mod fault;
mod flood;
mod forged;
mod handover;
mod healing;
mod links;
mod log_receiver;
pub mod migrate;
pub mod mix;
pub mod ordeal;
mod overhead;
mod rig;
mod routing;
mod senders;
mod stage;
mod stopped;
pub mod summary;
mod synthetic;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;

use self::fault::Fault;
use self::migrate::MigrationSettings;
use crate::crowd::WorkerProgram;
use crate::error::LabError;
use crate::picture::Picture;
use crate::report::Report;
use crate::subject::outlive::PairOptions;

/// What a scenario is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// Where to save a picture of the throughput over time, for scenarios with faults.
    pub svg: Option<PathBuf>,
    /// The Outlive program, for scenarios with nodes.
    pub program: Option<PathBuf>,
    /// The log receiver of the examples, for `log-receiver`.
    pub receiver: Option<PathBuf>,
    /// The library that records what is durable, for `log-receiver`.
    pub powercut: Option<PathBuf>,
    /// What is compared, for `compare`; each of these once.
    pub subjects: Vec<SubjectKind>,
    /// Only workloads with this in their name, for `compare`.
    pub workload: String,
    /// How often each measurement is repeated, for `compare` and others that compare.
    pub rounds: usize,
    /// How long each measurement counts, for `compare`.
    pub seconds: f64,
    /// The program of traffic processes.
    pub worker: WorkerProgram,
    /// What is harmed, for `failover`.
    pub contender: Contender,
    /// The harm, for `failover`.
    pub fault: Fault,
    /// How many connections, for `failover`.
    pub connections: u64,
    /// How long it goes on, for `chaos` and `false-alarms`.
    pub minutes: f64,
    /// How many changes, for `endurance` and `log-receiver`.
    pub cycles: u32,
    /// How many senders, for `log-receiver`.
    pub senders: usize,
    /// Whether who dies loses what was not synchronised, too, for `log-receiver`.
    pub power_cut: bool,
    /// Whether acknowledgments are held against synchronisations, for `log-receiver`.
    pub wire: bool,
    /// Whether its speed is compared with that of one on the kernel's sockets, for `log-receiver`.
    pub compare: bool,
    /// What the listeners of a pair do, for most scenarios with one.
    pub mode: ListenerMode,
    /// Whether the peers are made by the lab, packet by packet, for `failover`.
    pub synthetic: bool,
    /// The IP versions, for `failover` and migrations: false for 4, true for 6.
    pub ipv6: Vec<bool>,
    /// For the scenarios with migrations.
    pub migration: MigrationSettings,
}

/// A cluster of two machines, of which one stands by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Contender {
    /// A pair of Outlive nodes.
    Outlive,
    /// HAProxy with keepalived, which moves the addresses.
    Haproxy,
}

/// What a listener makes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ListenerMode {
    /// A splice: the node translates.
    Direct,
    /// Two connections that end at the node.
    Terminate,
}

/// A thing that can stand between clients and servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectKind {
    /// A pair of Outlive nodes.
    Outlive,
    /// The same with listeners that terminate.
    Terminating,
    /// HAProxy in TCP mode, with one and with two threads.
    Haproxy,
    /// No proxy: the kernel forwards.
    Routing,
}

impl Default for Settings {
    fn default() -> Self {
        let subjects = vec![SubjectKind::Outlive, SubjectKind::Haproxy, SubjectKind::Routing];
        Self {
            seed: 1,
            svg: None,
            program: None,
            receiver: None,
            powercut: None,
            subjects,
            workload: String::new(),
            rounds: 5,
            seconds: 1.0,
            worker: WorkerProgram::this(&[]),
            contender: Contender::Outlive,
            fault: Fault::Kill,
            connections: 10_000,
            minutes: 5.0,
            cycles: 50,
            senders: 50,
            power_cut: false,
            wire: false,
            compare: false,
            mode: ListenerMode::Direct,
            synthetic: false,
            ipv6: vec![false, true],
            migration: MigrationSettings::default(),
        }
    }
}

impl Settings {
    /// The program, or the error that says how to get it.
    pub fn program(&self) -> Result<&Path, LabError> {
        self.program.as_deref().ok_or(LabError::NoProgram)
    }

    /// The log receiver, or the error that says how to get it.
    pub fn receiver(&self) -> Result<&Path, LabError> {
        self.receiver.as_deref().ok_or(LabError::NoReceiver)
    }

    /// A pair with listeners at these ports that are of the mode wanted.
    fn pair_options(&self, ports: &[u16]) -> PairOptions {
        let terminate = self.mode == ListenerMode::Terminate;
        PairOptions { terminate, ..PairOptions::direct(ports) }
    }

    /// How long it goes on, for scenarios that are told in minutes.
    fn time(&self) -> Duration {
        Duration::try_from_secs_f64(self.minutes * 60.0).unwrap_or_default()
    }

    /// Saves a picture if one is wanted.
    fn save(&self, picture: &Picture) -> Result<(), LabError> {
        let Some(path) = &self.svg else { return Ok(()) };
        std::fs::write(path, picture.to_svg())
            .map_err(|source| LabError::Picture { path: path.clone(), source })
    }
}

/// A scenario: what the command calls it, what it does, and the function that does it.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// One line for the list.
    pub about: &'static str,
    run: fn(&Settings) -> Result<Report, LabError>,
}

/// All scenarios, in the order in which they are listed.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "routing",
        about: "no proxy: traffic of all kinds through a routing kernel; proves the lab itself",
        run: routing::run,
    },
    Scenario {
        name: "routing-bad",
        about: "the same over links with loss, jitter, reordering and duplication",
        run: routing::run_over_bad_links,
    },
    Scenario {
        name: "links",
        about: "no proxy: bad links do what they say, and a cut keeps the carrier",
        run: links::run,
    },
    Scenario {
        name: "healing",
        about: "no proxy: a cut that heals; every connection is seen to wait for it",
        run: healing::run,
    },
    Scenario {
        name: "failover",
        about: "many connections from many processes, and one fault: what do they see of it",
        run: failover::run,
    },
    Scenario {
        name: "failover-kill",
        about: "traffic of all kinds; the active node's program is killed, later started again",
        run: experiment::kill,
    },
    Scenario {
        name: "failover-cut",
        about: "the same; the active node's cable is cut, later whole again",
        run: experiment::cut,
    },
    Scenario {
        name: "failover-freeze",
        about: "the same; the active node's program is frozen, later goes on",
        run: experiment::freeze,
    },
    Scenario {
        name: "failover-series",
        about: "kill, cut, freeze, kill, one after the other, each to the active node",
        run: experiment::series,
    },
    Scenario {
        name: "failover-inspect",
        about: "kill and cut; the listener looks at the first data before it chooses a server",
        run: experiment::inspect,
    },
    Scenario {
        name: "failover-bad",
        about: "kill and cut over links with loss, jitter, reordering and duplication",
        run: experiment::bad_links,
    },
    Scenario {
        name: "chaos",
        about: "random faults for some minutes under a mixed load; the seed decides which",
        run: chaos::run,
    },
    Scenario {
        name: "endurance",
        about: "one change of the active node after the other; memory at the end as at the beginning",
        run: endurance::run,
    },
    Scenario {
        name: "endpoint",
        about: "no proxy: Outlive's own TCP against the kernel's; goodput with loss, fairness",
        run: endpoint::run,
    },
    Scenario {
        name: "endpoint-streams",
        about: "the same over bad links, in every role; no byte wrong, nothing stalls",
        run: endpoint::streams,
    },
    Scenario {
        name: "log-receiver",
        about: "no proxy: log receivers that die again and again; every record is there once",
        run: log_receiver::run,
    },
    Scenario {
        name: "handover",
        about: "planned handovers under full load: retransmissions against a control run",
        run: handover::run,
    },
    Scenario {
        name: "overhead",
        about: "what a standby costs: speed without one, and bytes between the nodes",
        run: overhead::run,
    },
    Scenario {
        name: "false-alarms",
        about: "all processors fully loaded, and no fault: how often does a node take over",
        run: false_alarms::run,
    },
    Scenario {
        name: "forged-routing",
        about: "no proxy: forged RST, FIN, SYN and data outside the window, without effect",
        run: forged::through_router,
    },
    Scenario { name: "forged", about: "the same through a pair", run: forged::through_pair },
    Scenario {
        name: "stopped-readers",
        about: "readers that stop for 30 s; senders that give up early must not time out",
        run: stopped::run,
    },
    Scenario {
        name: "syn-flood",
        about: "a flood of forged SYNs through a pair, beside real clients; memory bounded",
        run: flood::run,
    },
    Scenario {
        name: "migrate",
        about: "many connections, each handed to a target: latency, size of the state, processor time",
        run: migrate::latency,
    },
    Scenario {
        name: "migrate-content",
        about: "curl to three targets by host name and path: nginx and both example servers",
        run: migrate::content,
    },
    Scenario {
        name: "migrate-bulk",
        about: "long answers, migrated, spliced and through HAProxy: processor time, throughput",
        run: migrate::bulk,
    },
    Scenario {
        name: "migrate-reload",
        about: "targets are added, and taken out of the file, while connections are migrated to them",
        run: migrate::reload,
    },
    Scenario {
        name: "migrate-faults",
        about: "a balancer, an agent or a target's machine dies, again and again, under migrations",
        run: migrate::faults,
    },
    Scenario {
        name: "compare",
        about: "how fast: Outlive, HAProxy and plain routing in turn, medians and ratios",
        run: compare::run,
    },
];

impl Scenario {
    /// The scenario of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    /// Runs it. An error means that it could not run, not that it found something wrong.
    pub fn run(&self, settings: &Settings) -> Result<Report, LabError> {
        (self.run)(settings)
    }
}
