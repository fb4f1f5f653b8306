//! The scenarios that the command can run.

mod links;
pub mod mix;
mod routing;
pub mod summary;

use crate::error::LabError;
use crate::report::Report;

/// What a scenario is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Decides everything that is left to chance.
    pub seed: u64,
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
