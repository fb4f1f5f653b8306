//! What a scenario found out: one JSON object, or a few lines for a reader.

use std::fmt::{self, Write as _};
use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::subject::Cluster;
use crate::topology::Lab;
use crate::traffic::Book;
use crate::traffic::book::{Lost, Totals};

/// Lost connections that are listed one by one; the rest is only counted.
const MOST_LISTED: usize = 20;

/// Under which name logs are noted.
const LOGS: &str = "logs";

/// The outcome of a scenario.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// Whether everything was as it must be.
    pub ok: bool,
    /// Why not, one sentence each.
    pub problems: Vec<String>,
    /// Connections asked for.
    pub connections: u64,
    /// Connections that failed at either end.
    pub connections_lost: u64,
    /// Bytes that arrived and were compared with what was sent.
    pub bytes_verified: u64,
    /// How many of these were wrong.
    pub bytes_wrong: u64,
    /// The seed of everything that chance decided.
    pub seed: u64,
    /// The congestion control of the hosts.
    pub congestion_control: String,
    /// The first of the lost connections.
    pub lost: Vec<Lost>,
    /// What else was measured; its fields stand beside the others in the JSON object.
    #[serde(flatten)]
    pub measured: Map<String, Value>,
}

impl Report {
    /// An empty report of `scenario` in that lab, with which nothing is wrong yet.
    pub fn new(scenario: &str, lab: &Lab) -> Self {
        Self {
            scenario: scenario.to_owned(),
            ok: true,
            problems: Vec::new(),
            connections: 0,
            connections_lost: 0,
            bytes_verified: 0,
            bytes_wrong: 0,
            seed: lab.seed(),
            congestion_control: lab.congestion_control().to_owned(),
            lost: Vec::new(),
            measured: Map::new(),
        }
    }

    /// Adds the connections of a book: each lost one and each wrong byte is a problem.
    pub fn add_book(&mut self, book: &Book) {
        let totals = self.count_book(book);
        self.require(totals.connections_lost == 0, || {
            format!("{} of {} connections lost", totals.connections_lost, totals.connections)
        });
    }

    /// Adds the connections of a book, of which some may be lost: only wrong bytes are a problem.
    pub fn count_book(&mut self, book: &Book) -> Totals {
        let totals = book.totals();
        self.connections += totals.connections;
        self.connections_lost += totals.connections_lost;
        self.bytes_verified += totals.bytes_verified;
        self.bytes_wrong += totals.bytes_wrong;
        self.require(totals.bytes_wrong == 0, || format!("{} bytes wrong", totals.bytes_wrong));
        let room = MOST_LISTED.saturating_sub(self.lost.len());
        self.lost.extend(totals.lost.iter().take(room).cloned());
        totals
    }

    /// Several reports as one: sums, all problems, and of what else was measured only the logs.
    pub fn sum(scenario: &str, mut reports: Vec<Report>) -> Self {
        let mut sum = reports.remove(0);
        sum.scenario = scenario.to_owned();
        sum.measured.retain(|name, _| name == LOGS);
        for mut report in reports {
            if let Some(logs) = report.measured.remove(LOGS) {
                sum.measured.insert(LOGS.to_owned(), logs);
            }
            sum.ok &= report.ok;
            sum.problems.extend(report.problems);
            sum.connections += report.connections;
            sum.connections_lost += report.connections_lost;
            sum.bytes_verified += report.bytes_verified;
            sum.bytes_wrong += report.bytes_wrong;
            sum.lost.extend(report.lost);
        }
        sum.lost.truncate(MOST_LISTED);
        sum
    }

    /// Notes a value under `name`.
    pub fn measure(&mut self, name: &str, value: impl Serialize) {
        let value = serde_json::to_value(value).unwrap_or_else(|error| json!(error.to_string()));
        self.measured.insert(name.to_owned(), value);
    }

    /// Notes all fields of a structure under their names.
    pub fn measure_all(&mut self, fields: &impl Serialize) {
        if let Ok(Value::Object(fields)) = serde_json::to_value(fields) {
            self.measured.extend(fields);
        }
    }

    /// Unless `holds`, something is wrong, and `problem` says what.
    pub fn require(&mut self, holds: bool, problem: impl FnOnce() -> String) {
        if !holds {
            self.ok = false;
            self.problems.push(problem());
        }
    }

    /// Adds what the machines of a cluster have logged, if something is wrong.
    pub fn add_logs(&mut self, cluster: &mut dyn Cluster) {
        if !self.ok {
            self.measure(LOGS, cluster.last_words());
        }
    }

    /// The one JSON object.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("string keys, no fallible serialisers")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.ok { "ok" } else { "FAILED" };
        writeln!(
            f,
            "{}: {verdict} (seed {}, {})",
            self.scenario, self.seed, self.congestion_control
        )?;
        writeln!(f, "  connections      {:>14}, lost {}", self.connections, self.connections_lost)?;
        writeln!(f, "  bytes verified   {:>14}, wrong {}", self.bytes_verified, self.bytes_wrong)?;
        for (name, value) in &self.measured {
            write_value(f, name, value)?;
        }
        for lost in &self.lost {
            let Lost { connection, group, side, reason, at } = lost;
            let at = at.as_secs_f64();
            writeln!(f, "  lost: {group} {connection}, {side:?} at {at:.3} s: {reason}")?;
        }
        for problem in &self.problems {
            writeln!(f, "  wrong: {problem}")?;
        }
        Ok(())
    }
}

/// Lists become one line for each element; pictures' worth of numbers are only counted.
fn write_value(f: &mut fmt::Formatter<'_>, name: &str, value: &Value) -> fmt::Result {
    match value {
        Value::Array(rows) if rows.iter().all(Value::is_object) => {
            writeln!(f, "  {name}:")?;
            rows.iter().try_for_each(|row| writeln!(f, "    {}", one_line(row)))
        }
        Value::Array(values) if values.len() > 16 => {
            writeln!(f, "  {name:<16} {} values", values.len())
        }
        Value::Object(_) => writeln!(f, "  {name:<16} {}", one_line(value)),
        value => writeln!(f, "  {name:<16} {:>14}", plain(value)),
    }
}

fn one_line(value: &Value) -> String {
    let Value::Object(fields) = value else { return plain(value) };
    let mut line = String::new();
    for (name, value) in fields {
        let separator = if line.is_empty() { "" } else { "  " };
        let _ = write!(line, "{separator}{name} {}", plain(value));
    }
    line
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) if values.len() > 16 => format!("[{} values]", values.len()),
        Value::Number(number) if number.is_f64() => {
            format!("{:.3}", number.as_f64().unwrap_or_default())
        }
        value => value.to_string(),
    }
}

/// A duration in seconds, to the millisecond's thousandth.
pub(crate) fn as_seconds<S: Serializer>(at: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((at.as_secs_f64() * 1e6).round() / 1e6)
}

/// A duration in milliseconds, rounded to microseconds.
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}
