//! What a demo came to, for readers and for programs.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::{Map, json};

use super::board::{Fault, Reason, Snapshot};
use super::{Demo, summary, svg};
use crate::error::LabError;
use crate::report::Report;
use crate::scenario::course::{Event, Stalls};
use crate::traffic::book::Lost;
use crate::traffic::{Failure, Group};

/// What it was about: each of these must have happened, and been survived.
const FAULTS: usize = 2;

/// What the play leaves behind.
pub(super) struct Played {
    pub(super) report: Report,
    pub(super) stalls: Vec<Stalls>,
    pub(super) lost: Vec<Lost>,
    /// Why it did not come to its end.
    pub(super) failure: Option<LabError>,
}

/// The outcome of a demo.
pub struct Verdict {
    report: Report,
    pub(super) faults: Vec<Fault>,
    pub(super) events: Vec<Event>,
    snapshot: Snapshot,
    ended: Duration,
}

impl Verdict {
    pub(super) fn new(demo: &Demo, snapshot: &Snapshot, played: Played) -> Self {
        let Played { mut report, stalls, lost, failure } = played;
        let interrupted = snapshot.told_to_end == Some(Reason::Interrupted);
        let mut faults = snapshot.faults.clone();
        for index in 0..faults.len() {
            let (from, to) =
                (faults[index].at, faults.get(index + 1).map_or(Duration::MAX, |next| next.at));
            let fault = &mut faults[index];
            let meanwhile = lost.iter().filter(|lost| lost.at >= from && lost.at < to);
            let meanwhile =
                meanwhile.filter(|lost| !interrupted || lost.reason != Failure::Unfinished);
            fault.connections_lost = meanwhile.count() as u64;
            fault.survived =
                fault.takeover.is_some() && fault.transfers_went_on && fault.connections_lost == 0;
            fault.stalls =
                stalls.iter().filter(|stall| stall.after == fault.what).cloned().collect();
        }
        match (snapshot.told_to_end, failure) {
            (Some(Reason::Interrupted), _) => forgive_unfinished(&mut report, &lost),
            (Some(Reason::TimeIsUp), _) => report.require(false, || {
                format!("it did not come to its end in time; it was at: {}", snapshot.step)
            }),
            (None, Some(failure)) => report.require(false, || failure.to_string()),
            (None, None) => {}
        }
        Self::finish(demo, snapshot, report, faults)
    }

    /// The verdict on a play that does not come to its end, or came to a bad one.
    pub(super) fn of_a_hanging_play(demo: &Demo, snapshot: &Snapshot) -> Self {
        let opened = |group: &Arc<Group>| group.opened.load(Relaxed);
        let report = Report {
            scenario: "demo".to_owned(),
            ok: false,
            problems: vec![format!("the demo hung while: {}", snapshot.step)],
            connections: snapshot.groups.iter().map(opened).sum(),
            // Nobody can vouch for any of them.
            connections_lost: snapshot.groups.iter().map(opened).sum(),
            bytes_verified: 0,
            bytes_wrong: 0,
            seed: demo.seed,
            congestion_control: String::new(),
            lost: Vec::new(),
            measured: Map::new(),
        };
        Self::finish(demo, snapshot, report, snapshot.faults.clone())
    }

    fn finish(demo: &Demo, snapshot: &Snapshot, mut report: Report, faults: Vec<Fault>) -> Self {
        let survived = faults.iter().filter(|fault| fault.survived).count();
        report.require(survived == FAULTS, || {
            format!("{survived} of {FAULTS} failures survived, {} of them tried", faults.len())
        });
        for told_with_the_faults in ["events", "stalls"] {
            report.measured.shift_remove(told_with_the_faults);
        }
        report.measure("size", demo.size);
        report.measure("faults", &faults);
        report.measure("faults_survived", survived);
        report.measure("timeline", &snapshot.events);
        // What is long stands last.
        let throughput = report.measured.shift_remove("throughput");
        report.measure("throughput", throughput.unwrap_or_else(|| json!([])));
        Self {
            report,
            faults,
            events: snapshot.events.clone(),
            snapshot: snapshot.clone(),
            ended: snapshot.now(),
        }
    }

    /// Whether nothing was lost, nothing wrong, and both failures were survived.
    pub fn ok(&self) -> bool {
        self.report.ok
    }

    /// Whether somebody ended it early, so that there was not everything to see.
    pub fn interrupted(&self) -> bool {
        self.snapshot.told_to_end == Some(Reason::Interrupted)
    }

    /// Everything as one JSON object on one line.
    pub fn to_json(&self) -> String {
        self.report.to_json()
    }

    /// The throughput over time as an SVG document.
    pub fn to_svg(&self) -> String {
        let report = &self.report;
        let survived = self.faults.iter().filter(|fault| fault.survived).count();
        let outcome = format!(
            "{} of {} connections lost, {} of {} bytes wrong, {survived} of {FAULTS} failures survived",
            report.connections_lost, report.connections, report.bytes_wrong, report.bytes_verified,
        );
        svg::document(&self.snapshot, self.ended(), &outcome)
    }

    /// When the last thing happened.
    pub(super) fn ended(&self) -> Duration {
        self.events.last().map_or(self.ended, |event| event.at)
    }

    /// Everything for a reader, `width` columns wide, coloured if wanted.
    pub fn to_text(&self, width: u16, colour: bool) -> String {
        summary::text(self, &self.report, &self.snapshot, width, colour)
    }
}

/// What is open when somebody interrupts the demo is not lost.
fn forgive_unfinished(report: &mut Report, lost: &[Lost]) {
    let unfinished = lost.iter().filter(|lost| lost.reason == Failure::Unfinished).count();
    report.lost.retain(|lost| lost.reason != Failure::Unfinished);
    report.connections_lost -= unfinished as u64;
    report.problems = vec![format!("interrupted while {unfinished} connections were open")];
}
