//! The book of all connections: who they are, how far they are, and how each of them ended.
//!
//! One book serves all clients and servers of a lab, so that both ends of a connection meet in it:
//! a download counts as whole only if neither end found anything wrong.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed},
};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::series::Series;
use super::waits::Wait;

/// The end of a connection that a record speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The end that connected.
    Client,
    /// The end that accepted.
    Server,
}

/// Why a connection counts as lost.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, thiserror::Error,
)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The connection attempt was answered with RST.
    #[error("refused")]
    Refused,
    /// RST in an established connection.
    #[error("reset")]
    Reset,
    /// The kernel gave up retransmitting.
    #[error("timed out")]
    TimedOut,
    /// The kernel learnt that there is no way to the other end.
    #[error("unreachable")]
    Unreachable,
    /// The stream ended before everything had come.
    #[error("ended too early")]
    EarlyEnd,
    /// A byte was not the one that was sent, or one too many came.
    #[error("wrong data")]
    WrongData,
    /// Still open when the traffic had to be over.
    #[error("not finished")]
    Unfinished,
    /// An error of this machine, not of the connection: no port, no memory, no file descriptor.
    #[error("local error")]
    Local,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind;
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
                Self::Reset
            }
            ErrorKind::TimedOut => Self::TimedOut,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Self::Unreachable,
            _ => Self::Local,
        }
    }
}

/// How one end of a connection went.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The connection's number; both ends have the same.
    pub id: u64,
    /// The label of its group.
    pub group: Arc<str>,
    /// Which end speaks.
    pub side: Side,
    /// When the connection was asked for, or accepted.
    pub opened: Duration,
    /// When the handshake was over.
    pub established: Option<Duration>,
    /// When this end was done with it.
    pub ended: Duration,
    /// Nothing if all went as planned.
    pub failure: Option<Failure>,
    /// Bytes written by this end.
    pub sent: u64,
    /// Bytes that arrived here and were compared with what was sent.
    pub verified: u64,
    /// How many of these were wrong.
    pub wrong: u64,
    /// The longest spans in which this end waited for the other.
    pub waits: Vec<Wait>,
}

impl Record {
    /// The longest wait inside the window.
    pub fn longest_wait(&self, start: Duration, end: Duration) -> Duration {
        self.waits.iter().map(|wait| wait.within(start, end)).max().unwrap_or_default()
    }
}

/// Connections of one kind, with counters that can be watched while they run.
#[derive(Debug)]
pub struct Group {
    /// Its number in the book.
    pub(crate) number: u32,
    /// What it is called in reports.
    pub label: Arc<str>,
    /// Connections asked for.
    pub opened: AtomicU64,
    /// Connections whose handshake succeeded.
    pub established: AtomicU64,
    /// Connections whose client end is over, well or badly.
    pub ended: AtomicU64,
    /// Connections whose client end failed.
    pub failed: AtomicU64,
    /// Bytes that arrived at servers.
    pub up: AtomicU64,
    /// Bytes that arrived at clients.
    pub down: AtomicU64,
    /// Bytes that arrived at servers, over time.
    pub up_series: Series,
    /// Bytes that arrived at clients, over time.
    pub down_series: Series,
    /// Microseconds from a request, a key, or the final echo to its answer.
    pub latency: Mutex<Histogram<u64>>,
}

impl Group {
    fn new(number: u32, label: &str) -> Self {
        Self {
            number,
            label: label.into(),
            opened: AtomicU64::new(0),
            established: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            up_series: Series::default(),
            down_series: Series::default(),
            latency: Mutex::new(new_histogram()),
        }
    }

    /// Bytes arrived at the end that speaks for `side`.
    pub(crate) fn arrived(&self, side: Side, now: Duration, bytes: u64) {
        let (counter, series) = match side {
            Side::Client => (&self.down, &self.down_series),
            Side::Server => (&self.up, &self.up_series),
        };
        counter.fetch_add(bytes, Relaxed);
        series.add(now, bytes);
    }

    pub(crate) fn answered_after(&self, latency: Duration) {
        let micros = latency.as_micros() as u64;
        self.latency.lock().expect("no holder panics").saturating_record(micros);
    }

    /// Connections asked for whose client end is not over.
    pub fn open(&self) -> u64 {
        self.opened.load(Relaxed).saturating_sub(self.ended.load(Acquire))
    }
}

/// Microseconds up to an hour, to three digits.
pub(crate) fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("the bounds are in order")
}

/// All connections of a lab.
#[derive(Debug, Default)]
pub struct Book {
    groups: Mutex<Vec<Arc<Group>>>,
    records: Mutex<Vec<Record>>,
    next_id: AtomicU64,
}

impl Book {
    /// An empty book that counts its connections from `first_id` on, with these groups.
    pub(crate) fn with_groups(first_id: u64, labels: &[String]) -> Self {
        let book = Self { next_id: AtomicU64::new(first_id), ..Self::default() };
        for label in labels {
            book.group(label);
        }
        book
    }

    /// The group of that label; made if it is new.
    pub fn group(&self, label: &str) -> Arc<Group> {
        let mut groups = self.groups.lock().expect("no holder panics");
        if let Some(group) = groups.iter().find(|group| &*group.label == label) {
            return group.clone();
        }
        let group = Arc::new(Group::new(groups.len() as u32, label));
        groups.push(group.clone());
        group
    }

    /// The groups in the order of their making.
    pub fn groups(&self) -> Vec<Arc<Group>> {
        self.groups.lock().expect("no holder panics").clone()
    }

    /// The group of that number, as an opening names it.
    pub(crate) fn group_by_number(&self, number: u32) -> Option<Arc<Group>> {
        self.groups.lock().expect("no holder panics").get(number as usize).cloned()
    }

    /// Where connections are counted that have not said who they are. Not one of the groups: it
    /// is nobody's loss if one of them fails.
    pub(crate) fn strangers(&self) -> Arc<Group> {
        Arc::new(Group::new(u32::MAX, "strangers"))
    }

    pub(crate) fn fresh_id(&self) -> u64 {
        self.next_id.fetch_add(1, Relaxed)
    }

    pub(crate) fn close(&self, record: Record) {
        self.records.lock().expect("no holder panics").push(record);
    }

    /// Everything that has ended so far, taken out of the book.
    pub(crate) fn take_records(&self) -> Vec<Record> {
        std::mem::take(&mut self.records.lock().expect("no holder panics"))
    }

    /// Everything that has ended so far.
    pub fn records(&self) -> Vec<Record> {
        self.records.lock().expect("no holder panics").clone()
    }

    /// The verdict on everything that was asked for.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        let mut failures = BTreeMap::<u64, Lost>::new();
        for record in self.records.lock().expect("no holder panics").iter() {
            totals.bytes_verified += record.verified;
            totals.bytes_wrong += record.wrong;
            if let Some(reason) = record.failure {
                // The end that noticed first knows the cause.
                let (at, side, group) = (record.ended, record.side, record.group.clone());
                let lost = Lost { connection: record.id, group, side, reason, at };
                let first = failures.entry(record.id).or_insert_with(|| lost.clone());
                if lost.at < first.at {
                    *first = lost;
                }
            }
        }
        let unfinished: u64 = self.groups().iter().map(|group| group.open()).sum();
        totals.connections = self.groups().iter().map(|group| group.opened.load(Relaxed)).sum();
        totals.connections_lost = failures.len() as u64 + unfinished;
        totals.lost = failures.into_values().collect();
        totals
    }
}

/// Sums over a whole book.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// Connections asked for.
    pub connections: u64,
    /// Connections that failed at either end or are not over.
    pub connections_lost: u64,
    /// Bytes that arrived and were compared.
    pub bytes_verified: u64,
    /// How many of these were wrong.
    pub bytes_wrong: u64,
    /// The connections that failed, and why.
    pub lost: Vec<Lost>,
}

impl Totals {
    /// How many connections were lost for which reason.
    pub fn failures(&self) -> BTreeMap<String, u64> {
        let mut failures = BTreeMap::new();
        for lost in &self.lost {
            *failures.entry(lost.reason.to_string()).or_default() += 1;
        }
        failures
    }
}

/// A lost connection.
#[derive(Debug, Clone, Serialize)]
pub struct Lost {
    /// Its number.
    pub connection: u64,
    /// Its group.
    pub group: Arc<str>,
    /// The end that noticed first.
    pub side: Side,
    /// What it noticed.
    pub reason: Failure,
    /// When.
    #[serde(serialize_with = "crate::report::as_seconds")]
    pub at: Duration,
}
