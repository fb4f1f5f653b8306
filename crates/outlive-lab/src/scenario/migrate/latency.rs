//! Many connections, one migration each: how long until the target answers, and what it costs whom.

use std::time::Duration;

use serde::Serialize;

use super::{Latency, add_logs, add_outcome, counted, require_all, require_once, told};
use crate::error::LabError;
use crate::link::LinkKind;
use crate::migration::MigrationMode;
use crate::migration::asking::{Asking, Outcome, Until};
use crate::migration::site::{MIGRATED_PORT, SERVER_PORT, SPLICED_PORT, Site, SiteOptions};
use crate::processor;
use crate::report::Report;
use crate::scenario::Settings;

/// Bytes of each answer.
const LEN: usize = 1_000;

/// Asked before anything is measured.
const WARM_UP: u64 = 50;

/// Longer than anything but a lost connection takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Microseconds of processor time for each connection.
#[derive(Debug, Serialize)]
struct Cost {
    /// The active node's process.
    balancer: f64,
    standby: f64,
    /// The agent's process.
    agent: f64,
    /// Everything, clients and servers as well.
    machine: f64,
}

pub(crate) fn run(settings: &Settings) -> Result<Report, LabError> {
    let migration = &settings.migration;
    let mode = migration.mode;
    let targets = [mode.server()];
    let options = SiteOptions { targets: &targets, link: LinkKind::Plain, sizes: &[LEN] };
    let mut site = Site::new(settings.program()?, settings.seed, &options)?;
    let mut report = Report::new("migrate", &site.lab);
    let port = if mode == MigrationMode::Splice { SPLICED_PORT } else { MIGRATED_PORT };
    let through = |site: &Site, ipv6| site.address(ipv6, port);
    let past = |site: &Site, ipv6| site.targets[0].host.socket(ipv6, SERVER_PORT);

    let (warm_up, _) = measure(&mut site, settings, WARM_UP, through)?;
    add_outcome(&mut report, &warm_up);
    let (before, states) = (counted(&site, "migrations_completed")?, States::told(&site));
    let (outcome, cost) = measure(&mut site, settings, migration.count, through)?;
    let migrated = counted(&site, "migrations_completed")? - before;
    let blob_bytes = States::told(&site).mean_since(&states);
    let (direct, direct_cost) = measure(&mut site, settings, migration.count, past)?;

    add_outcome(&mut report, &outcome);
    require_all(&mut report, mode.name(), &outcome);
    let others = require_once(&mut report, &site, &outcome.asked);
    let translated = migration.count.saturating_sub(migrated);
    report.require(others <= translated, || {
        format!("{others} clients were seen under another address, {translated} were translated")
    });
    report.measure("mode", mode.name());
    report.measure("migrated", migrated);
    let expected = mode != MigrationMode::Splice;
    report.require((migrated > 0) == expected, || format!("{migrated} connections were migrated"));
    report.measure("latency_us", Latency::of(&outcome));
    let per_second = outcome.answered as f64 / outcome.took.as_secs_f64();
    report.measure("connections_per_second", per_second.round());
    if migrated > 0 {
        report.measure("blob_bytes", blob_bytes);
    }
    report.measure("processor_us", cost);
    report.measure(
        "without_balancer",
        WithoutBalancer { latency_us: Latency::of(&direct), processor_us: direct_cost.machine },
    );
    add_logs(&mut report, &mut site);
    Ok(report)
}

/// The same requests to the server's own address.
#[derive(Debug, Serialize)]
struct WithoutBalancer {
    latency_us: Latency,
    /// Of the whole machine.
    processor_us: f64,
}

/// Asks `count` times, over all IP versions.
fn measure(
    site: &mut Site,
    settings: &Settings,
    count: u64,
    to: impl Fn(&Site, bool) -> std::net::SocketAddr,
) -> Result<(Outcome, Cost), LabError> {
    let (active, standby) = site.pair.by_role()?;
    let ids = [active.process_id(), standby.process_id(), site.targets[0].agent_id()];
    let times = || ids.map(|id| id.map(processor::of_process).unwrap_or_default());
    let (before, machine) = (times(), processor::of_machine());
    let mut outcome = Outcome::default();
    let versions = settings.ipv6.len().max(1) as u64;
    for (number, ipv6) in settings.ipv6.iter().enumerate() {
        // What does not divide evenly is the first one's.
        let rest = if number == 0 { count % versions } else { 0 };
        let asking = Asking {
            to: to(site, *ipv6),
            len: LEN,
            at_once: settings.migration.at_once,
            slow: false,
            patience: PATIENCE,
        };
        let taken = outcome.took;
        let more = asking.run(&site.client, Until::Count(count / versions + rest))?;
        let took = taken + more.took;
        outcome += more;
        outcome.took = took;
    }
    let machine = processor::of_machine() - machine;
    let each = |time: Duration| time.as_secs_f64() * 1e6 / outcome.asked.len().max(1) as f64;
    let [balancer, standby, agent] = times();
    let cost = Cost {
        balancer: each(balancer.saturating_sub(before[0])),
        standby: each(standby.saturating_sub(before[1])),
        agent: each(agent.saturating_sub(before[2])),
        machine: each(machine),
    };
    Ok((outcome, cost))
}

/// The states of connections that came to be infused so far, as the agents count them.
struct States {
    number: u64,
    bytes: u64,
}

impl States {
    fn told(site: &Site) -> Self {
        let of = |name| told(site, "migrations", name);
        Self { number: of("prepared"), bytes: of("blob_bytes") }
    }

    fn mean_since(&self, earlier: &Self) -> f64 {
        (self.bytes - earlier.bytes) as f64 / (self.number - earlier.number).max(1) as f64
    }
}
