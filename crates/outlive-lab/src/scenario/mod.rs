//! The scenarios that the command can run.

pub mod compare;
mod links;
pub mod mix;
mod routing;
pub mod summary;

use std::path::{Path, PathBuf};

use crate::error::LabError;
use crate::report::Report;

/// What a scenario is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// The Outlive program, for scenarios with nodes.
    pub program: Option<PathBuf>,
    /// What is compared, for `compare`; each of these once.
    pub subjects: Vec<SubjectKind>,
    /// How often each measurement is repeated, for `compare`.
    pub rounds: usize,
    /// How long each measurement counts, for `compare`.
    pub seconds: f64,
}

/// A thing that can stand between clients and servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectKind {
    /// A pair of Outlive nodes.
    Outlive,
    /// HAProxy in TCP mode, with one and with two threads.
    Haproxy,
    /// No proxy: the kernel forwards.
    Routing,
}

impl Default for Settings {
    fn default() -> Self {
        let subjects = vec![SubjectKind::Outlive, SubjectKind::Haproxy, SubjectKind::Routing];
        Self { seed: 1, program: None, subjects, rounds: 5, seconds: 1.0 }
    }
}

impl Settings {
    /// The program, or the error that says how to get it.
    pub fn program(&self) -> Result<&Path, LabError> {
        self.program.as_deref().ok_or(LabError::NoProgram)
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
