//! The course of a scenario with faults: what happened when, who waited how long, and how fast
//! bytes arrived meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::summary;
use crate::clock::{Clock, retry_until};
use crate::error::LabError;
use crate::picture::{Line, Mark, Picture};
use crate::report::{Report, as_seconds, milliseconds};
use crate::topology::Lab;
use crate::traffic::series::BUCKET;
use crate::traffic::{Book, Group, Record};

/// How often an observer is told how far the traffic is.
const TICK: Duration = Duration::from_millis(50);

/// Something that happened.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// When, in seconds since the lab was built.
    #[serde(serialize_with = "as_seconds")]
    pub at: Duration,
    /// What, in words.
    pub what: String,
    /// Whether it is a fault, after which somebody may have to wait.
    pub fault: bool,
}

/// Watches a scenario while it runs, for live displays. The default watches nothing.
pub trait Observer {
    /// Something has just happened.
    fn event(&mut self, _event: &Event) {}

    /// How far the traffic is, several times a second: the groups' counters.
    fn progress(&mut self, _now: Duration, _groups: &[Arc<Group>]) {}

    /// Whether the scenario is to give up: then it waits for nothing any more.
    fn gives_up(&self) -> bool {
        false
    }
}

/// Watches nothing.
pub struct Nobody;

impl Observer for Nobody {}

/// What happened so far.
pub struct Course<'a> {
    clock: Clock,
    book: Arc<Book>,
    events: Vec<Event>,
    observer: &'a mut dyn Observer,
}

impl<'a> Course<'a> {
    /// A course in which nothing has happened.
    pub fn new(lab: &Lab, observer: &'a mut dyn Observer) -> Self {
        Self::with_book(lab, &Arc::default(), observer)
    }

    /// The same for connections that are counted in this book.
    pub fn with_book(lab: &Lab, book: &Arc<Book>, observer: &'a mut dyn Observer) -> Self {
        Self { clock: lab.clock(), book: book.clone(), events: Vec::new(), observer }
    }

    /// The book of its connections.
    pub fn book(&self) -> &Arc<Book> {
        &self.book
    }

    /// Notes that something happened just now; when that is.
    pub fn event(&mut self, what: impl Into<String>) -> Duration {
        let at = self.clock.now();
        self.note(Event { at, what: what.into(), fault: false });
        at
    }

    /// Does harm. Its time is when it begins: the kernel needs a while to bury a process, and
    /// nobody is served meanwhile. Says when that was.
    pub fn fault(
        &mut self,
        what: impl Into<String>,
        inflict: impl FnOnce() -> Result<(), LabError>,
    ) -> Result<Duration, LabError> {
        let at = self.clock.now();
        inflict()?;
        self.note(Event { at, what: what.into(), fault: true });
        Ok(at)
    }

    /// Waits until `done`, at most for `limit`; `what` names it if it does not come. An error
    /// also if the observer wants the scenario to give up.
    pub fn wait(
        &mut self,
        what: &str,
        limit: Duration,
        mut done: impl FnMut() -> Result<bool, LabError>,
    ) -> Result<(), LabError> {
        let mut next_tick = Instant::now();
        retry_until(limit, what, || {
            let now = Instant::now();
            if now >= next_tick {
                next_tick = now + TICK;
                self.observer.progress(self.clock.now(), &self.book.groups());
                if self.observer.gives_up() {
                    return Err(LabError::GivenUp);
                }
            }
            done()
        })
    }

    /// Lets everything run undisturbed for that long, or until the observer wants to give up.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.clock.now() + time;
        let clock = self.clock;
        // The limit is never reached, and whoever gives up is told so by the next wait.
        let _ = self.wait("time to pass", time * 2, || Ok(clock.now() >= end));
    }

    /// Waits until every connection asked for is established.
    pub fn wait_established(&mut self, limit: Duration) -> Result<(), LabError> {
        let book = self.book.clone();
        let done = move || {
            let waiting = |group: &Arc<Group>| {
                group.established.load(Relaxed) + group.failed.load(Relaxed)
                    < group.opened.load(Relaxed)
            };
            Ok(!book.groups().iter().any(waiting))
        };
        self.wait("all connections to be established", limit, done)
    }

    /// Waits until each of the groups has moved `bytes` more than now, or is over.
    pub fn wait_progress(
        &mut self,
        groups: &[Arc<Group>],
        bytes: u64,
        limit: Duration,
    ) -> Result<(), LabError> {
        let moved = |group: &Group| group.up.load(Relaxed) + group.down.load(Relaxed);
        let goals: Vec<u64> = groups.iter().map(|group| moved(group) + bytes).collect();
        let done = || {
            let mut pairs = groups.iter().zip(&goals);
            Ok(pairs.all(|(group, goal)| moved(group) >= *goal || group.open() == 0))
        };
        self.wait("the streams to go on", limit, done)
    }

    /// Waits until all connections of the groups are over. What is not over after `limit` shows
    /// in the book, and is no error here.
    pub fn wait_over(&mut self, groups: &[Arc<Group>], limit: Duration) {
        let over = || Ok(groups.iter().all(|group| group.open() == 0));
        let _ = self.wait("the streams to end", limit, over);
    }

    /// How long the groups waited before the first fault, and after each one up to the next.
    pub fn stalls(&self) -> Vec<Stalls> {
        let records = self.book.records();
        let faults = self.events.iter().filter(|event| event.fault);
        let mut starts = vec![(UNDISTURBED, Duration::ZERO)];
        starts.extend(faults.map(|fault| (fault.what.as_str(), fault.at)));
        let ends = starts.iter().skip(1).map(|&(_, at)| at).chain([Duration::MAX]);
        let mut stalls = Vec::new();
        for (&(after, start), end) in starts.iter().zip(ends) {
            for group in self.book.groups() {
                let mine = records.iter().filter(|record| record.group == group.label);
                stalls.extend(Stalls::of(after, &group.label, mine, start, end));
            }
        }
        stalls
    }

    /// How long each connection of these groups waited at most, by its number, of all waits that
    /// reach into the window; what lies before it is not counted, what lies behind it is.
    pub fn stalls_around(
        &self,
        start: Duration,
        end: Duration,
        labels: &[&str],
    ) -> BTreeMap<u64, Duration> {
        let mut stalls = BTreeMap::<u64, Duration>::new();
        for record in self.book.records() {
            if !labels.contains(&&*record.group) {
                continue;
            }
            let reaching = record.waits.iter().filter(|wait| wait.from < end);
            let longest = reaching.map(|wait| wait.within(start, Duration::MAX)).max();
            let stall = stalls.entry(record.id).or_default();
            *stall = longest.unwrap_or_default().max(*stall);
        }
        stalls
    }

    /// The report with everything that was noted and measured: nothing may be lost, or wrong.
    pub fn report(&self, name: &str, lab: &Lab) -> Report {
        let mut report = Report::new(name, lab);
        report.add_book(&self.book);
        self.measure_all(&mut report);
        report
    }

    /// The same where lost connections are a finding, and not a fault. Wrong bytes are one anyway.
    pub fn findings(&self, name: &str, lab: &Lab) -> Report {
        let mut report = Report::new(name, lab);
        report.count_book(&self.book);
        self.measure_all(&mut report);
        report
    }

    fn measure_all(&self, report: &mut Report) {
        let stalls = self.stalls();
        let after_faults = stalls.iter().filter(|stall| stall.after != UNDISTURBED);
        let longest = after_faults.map(|stall| stall.longest_ms).fold(0.0, f64::max);
        report.measure("longest_stall_ms", longest);
        report.measure("events", &self.events);
        report.measure("stalls", stalls);
        report.measure("groups", summary::groups(&self.book));
        report.measure("throughput", self.throughput());
    }

    /// Throughput of all groups that moved much, with the events.
    pub fn picture(&self, title: &str) -> Picture {
        let lines = self.throughput().into_iter().map(|series| Line {
            label: series.stream,
            step: BUCKET,
            values: series.bytes.iter().map(|&bytes| bits_per_second(bytes)).collect(),
        });
        let marks = self.events.iter().map(|event| Mark {
            at: event.at,
            label: event.what.clone(),
            strong: event.fault,
        });
        Picture {
            title: title.to_owned(),
            unit: "bit/s".to_owned(),
            lines: lines.collect(),
            marks: marks.collect(),
        }
    }

    fn note(&mut self, event: Event) {
        self.observer.event(&event);
        self.events.push(event);
    }

    fn throughput(&self) -> Vec<Throughput> {
        let mut all = Vec::new();
        for group in self.book.groups() {
            let directions = [("up", &group.up_series), ("down", &group.down_series)];
            for (direction, series) in directions {
                let bytes = series.buckets();
                if bytes.iter().sum::<u64>() >= MUCH {
                    all.push(Throughput { stream: format!("{} {direction}", group.label), bytes });
                }
            }
        }
        all
    }
}

/// Groups that moved less than this are not worth a line in a picture.
const MUCH: u64 = 16 << 20;

/// Stands for a fault in what was measured before the first one.
const UNDISTURBED: &str = "nothing yet";

/// How long the connections of a group waited after a fault.
#[derive(Debug, Clone, Serialize)]
pub struct Stalls {
    /// The fault, or `nothing yet`.
    pub after: String,
    /// The group.
    pub group: String,
    /// Its connections.
    pub connections: usize,
    /// Of the longest waits of its connections, the median, in milliseconds.
    pub median_ms: f64,
    /// The longest of them.
    pub longest_ms: f64,
    /// When that one began.
    #[serde(serialize_with = "as_seconds")]
    pub longest_at: Duration,
}

impl Stalls {
    /// Nothing of an empty group.
    fn of<'r>(
        after: &str,
        group: &str,
        records: impl Iterator<Item = &'r Record>,
        start: Duration,
        end: Duration,
    ) -> Option<Self> {
        let longest = longest_waits(records, start, end);
        let mut longest: Vec<(Duration, Duration)> = longest.into_values().collect();
        longest.sort_unstable();
        let &(worst, at) = longest.last()?;
        let &(median, _) = longest.get(longest.len() / 2)?;
        Some(Self {
            after: after.to_owned(),
            group: group.to_owned(),
            connections: longest.len(),
            median_ms: milliseconds(median),
            longest_ms: milliseconds(worst),
            longest_at: at,
        })
    }
}

/// The longest wait of each connection within the window, and when it began, by the connection's
/// number. Both ends of a connection are asked: an upload's reader is the server.
fn longest_waits<'r>(
    records: impl Iterator<Item = &'r Record>,
    start: Duration,
    end: Duration,
) -> BTreeMap<u64, (Duration, Duration)> {
    let mut longest = BTreeMap::<u64, (Duration, Duration)>::new();
    for record in records {
        let waits = record.waits.iter().map(|wait| (wait.within(start, end), wait.from));
        let connection = longest.entry(record.id).or_default();
        *connection = waits.max().unwrap_or_default().max(*connection);
    }
    longest
}

/// Bytes that arrived in each 10 ms since the lab was built.
#[derive(Debug, Clone, Serialize)]
struct Throughput {
    stream: String,
    bytes: Vec<u64>,
}

fn bits_per_second(bytes_in_bucket: u64) -> f64 {
    bytes_in_bucket as f64 * 8.0 / BUCKET.as_secs_f64()
}
