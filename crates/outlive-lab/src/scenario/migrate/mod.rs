//! Connections that are handed to the machine that should have them.

mod bulk;
mod content;
mod faults;
mod latency;
mod reload;

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

pub(super) use self::bulk::run as bulk;
pub(super) use self::content::run as content;
pub(super) use self::faults::run as faults;
pub(super) use self::latency::run as latency;
pub(super) use self::reload::run as reload;

use super::Settings;
use crate::error::LabError;
use crate::host::Host;
use crate::migration::asking::{Asking, LostAnswer, Outcome, Until};
use crate::migration::site::{MIGRATED_PORT, Site};
use crate::migration::target::Target;
use crate::migration::{MigrationMode, Victim};
use crate::report::Report;

/// What scenarios with migrations are told.
#[derive(Debug, Clone)]
pub struct MigrationSettings {
    /// How connections are migrated.
    pub mode: MigrationMode,
    /// How many, for `migrate`.
    pub count: u64,
    /// Connections at a time.
    pub at_once: usize,
    /// Bytes of each answer, for `migrate-bulk`.
    pub response: usize,
    /// What is harmed, for `migrate-faults`.
    pub victim: Victim,
    /// Share of the segments that every link loses, and of those that are overtaken; 0: plain links.
    pub loss: f64,
}

impl Default for MigrationSettings {
    fn default() -> Self {
        Self {
            mode: MigrationMode::Kernel,
            count: 10_000,
            at_once: 8,
            response: 1 << 20,
            victim: Victim::Balancer,
            loss: 0.0,
        }
    }
}

/// Microseconds.
#[derive(Debug, Serialize)]
struct Latency {
    p50: u64,
    p99: u64,
    max: u64,
}

impl Latency {
    fn of(outcome: &Outcome) -> Self {
        let latency = &outcome.latency;
        let quantile = |q| if latency.is_empty() { 0 } else { latency.value_at_quantile(q) };
        Self { p50: quantile(0.5), p99: quantile(0.99), max: quantile(1.0) }
    }
}

/// Lengths of answers under the [mixed load](mixed_load).
const SMALL: usize = 2_000;
const LONG: usize = 512 << 10;
/// Long answers at a time, for each IP version.
const SLOW_AT_ONCE: usize = 4;
/// Far longer than any end of a connection takes that the other end is told of.
const PATIENCE: Duration = Duration::from_secs(90);

/// Whether there is a HAProxy to compare with.
fn haproxy_is_there() -> bool {
    Command::new("haproxy").arg("-v").stdout(Stdio::null()).status().is_ok()
}

/// Lost answers that are listed one by one.
const MOST_LISTED: usize = 20;

/// Counts what clients have seen.
fn add_outcome(report: &mut Report, outcome: &Outcome) {
    report.connections += outcome.asked.len() as u64;
    report.connections_lost += outcome.lost.len() as u64;
    report.bytes_verified += outcome.bytes;
    report.bytes_wrong += outcome.wrong;
    report.require(outcome.wrong == 0, || format!("{} bytes were wrong", outcome.wrong));
}

/// Nothing may be lost.
fn require_all(report: &mut Report, what: &str, outcome: &Outcome) {
    let lost: Vec<&LostAnswer> = outcome.lost.iter().take(MOST_LISTED).collect();
    report.require(lost.is_empty(), || format!("{what}: {} answers were lost", outcome.lost.len()));
    if !lost.is_empty() {
        report.measure("lost_answers", lost);
    }
}

/// Small answers as fast as they go, and long ones to clients that read slowly, for each IP version.
fn mixed_load(site: &Site, settings: &Settings) -> Vec<Asking> {
    let of = |ipv6: &bool| {
        let small = Asking {
            to: site.address(*ipv6, MIGRATED_PORT),
            len: SMALL,
            at_once: settings.migration.at_once,
            slow: false,
            patience: PATIENCE,
        };
        [small, Asking { len: LONG, at_once: SLOW_AT_ONCE, slow: true, ..small }]
    };
    settings.ipv6.iter().flat_map(of).collect()
}

/// Asks in all these ways until `meanwhile` is done, and everything that is under way then has come to its end.
fn while_asking<T>(
    client: &Host,
    loads: &[Asking],
    meanwhile: impl FnOnce() -> Result<T, LabError>,
) -> Result<(Outcome, T), LabError> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let ask = |asking: &Asking| {
            let (asking, stop) = (*asking, &stop);
            scope.spawn(move || asking.run(client, Until::Stopped(stop)))
        };
        let running: Vec<_> = loads.iter().map(ask).collect();
        let done = meanwhile();
        stop.store(true, Relaxed);
        let mut all = Outcome::default();
        for load in running {
            all += load.join().expect("asking does not panic")?;
        }
        Ok((all, done?))
    })
}

/// No request may have been answered twice. Gives how many were answered for somebody who is not the client: those that the node has
/// translated.
fn require_once(report: &mut Report, site: &Site, asked: &[u64]) -> u64 {
    let clients = [false, true].map(|ipv6| site.client.socket(ipv6, 0).ip());
    let all: Vec<_> = site.targets.iter().map(Target::answered).collect();
    let (mut twice, mut strange) = (0_u64, 0_u64);
    for id in asked {
        let times: u32 = all.iter().filter_map(|of| of.get(id)).map(|(times, _)| times).sum();
        twice += u64::from(times > 1);
        let known = |of: &crate::migration::origin::Answered| {
            of.get(id).is_none_or(|(_, client)| clients.contains(client))
        };
        strange += u64::from(!all.iter().all(known));
    }
    report.measure("answered_twice", twice);
    report.require(twice == 0, || format!("{twice} requests were answered twice"));
    report.measure("seen_under_the_pairs_address", strange);
    strange
}

/// The sum of what both nodes have counted under that name.
fn counted(site: &Site, name: &str) -> Result<u64, LabError> {
    Ok(site.pair.a.status()?.counter(name) + site.pair.b.status()?.counter(name))
}

/// A number that a target's agent tells, such as `migrations`, `committed`; summed over all targets.
fn told(site: &Site, group: &str, name: &str) -> u64 {
    let of = |status: Value| status[group][name].as_u64().unwrap_or(0);
    site.targets.iter().map(|target| of(target.status())).sum()
}

/// Adds what nodes and agents have logged, and the nodes have counted, if something is wrong.
fn add_logs(report: &mut Report, site: &mut Site) {
    report.add_logs(&mut site.pair);
    if report.ok {
        return;
    }
    let counters = [&site.pair.a, &site.pair.b]
        .map(|node| node.status().map(|status| status.counters()).unwrap_or_default());
    report.measure("counters", counters);
    let Some(Value::Object(logs)) = report.measured.get_mut("logs") else { return };
    for target in &site.targets {
        let log = target.log();
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(40)..];
        logs.insert(target.host.name().to_owned(), last.into());
    }
}
