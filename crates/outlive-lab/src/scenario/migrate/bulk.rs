//! Long answers: migrated, spliced, through HAProxy and without anything between, in turn on one site.
//!
//! The balancer's processor time is counted twice, each way with a blind spot of its own. Its process's time misses what the kernel does
//! for it in nobody's name (the fast path). The whole machine's time less that of the run without a balancer has all of that in it, and
//! all that clients and server pay for segments that come by another way.

use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::{add_logs, add_outcome, counted, require_all, require_once, while_asking};
use crate::error::LabError;
use crate::host::Host;
use crate::link::LinkKind;
use crate::migration::asking::{Asking, Outcome};
use crate::migration::site::{MIGRATED_PORT, SERVER_PORT, SPLICED_PORT, Site, SiteOptions};
use crate::processor;
use crate::report::Report;
use crate::scenario::Settings;
use crate::scenario::arena::median;
use crate::subject::Subject as _;
use crate::subject::haproxy::HaProxy;

/// The host of HAProxy.
const HAPROXY: u8 = 5;

const PATIENCE: Duration = Duration::from_secs(60);

/// Before each measurement.
const WARM_UP: Duration = Duration::from_millis(200);

/// A way from the client to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Migrated,
    Spliced,
    Haproxy,
    Direct,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Migrated => "migrated",
            Self::Spliced => "spliced",
            Self::Haproxy => "haproxy",
            Self::Direct => "direct",
        }
    }
}

/// The medians of one way.
#[derive(Debug, Serialize)]
struct Row {
    way: &'static str,
    gigabits_per_second: f64,
    /// Milliseconds of processor time for each gigabyte: of what stands between, as a process.
    process_ms_per_gigabyte: f64,
    /// Of the whole machine, less what it takes without anything between.
    beyond_direct_ms_per_gigabyte: f64,
}

/// One measurement.
struct Sample {
    bits_per_second: f64,
    process: f64,
    machine: f64,
}

pub(crate) fn run(settings: &Settings) -> Result<Report, LabError> {
    let targets = [settings.migration.mode.server()];
    let sizes = [settings.migration.response];
    let options = SiteOptions { targets: &targets, link: LinkKind::Plain, sizes: &sizes };
    let mut site = Site::new(settings.program()?, settings.seed, &options)?;
    let haproxy_host = site.lab.host("haproxy", HAPROXY, LinkKind::Plain)?;
    let server = &site.targets[0].host;
    let haproxy = match super::haproxy_is_there() {
        true => Some(HaProxy::start(&haproxy_host, server, 1, &[SERVER_PORT])?),
        false => None,
    };
    let mut ways = vec![Way::Migrated, Way::Spliced, Way::Haproxy, Way::Direct];
    ways.retain(|way| *way != Way::Haproxy || haproxy.is_some());
    let mut report = Report::new("migrate-bulk", &site.lab);
    let mut all = Outcome::default();
    let mut samples: Vec<Vec<Sample>> = ways.iter().map(|_| Vec::new()).collect();
    for round in 0..settings.rounds.max(1) {
        for turn in 0..ways.len() {
            let index = (round + turn) % ways.len();
            samples[index].push(measure(
                &mut site,
                settings,
                (ways[index], haproxy.as_ref()),
                &mut all,
            )?);
        }
    }
    add_outcome(&mut report, &all);
    require_all(&mut report, "long answers", &all);
    require_once(&mut report, &site, &all.asked);
    let migrated = counted(&site, "migrations_completed")?;
    report.measure("mode", settings.migration.mode.name());
    report.measure("migrated", migrated);
    report.require(migrated > 0, || "nothing was migrated".to_owned());
    let by_process = counted(&site, "packets_tunnelled")? as f64 / migrated.max(1) as f64;
    report.measure("packets_by_the_process", by_process);
    let of = |index: usize, value: fn(&Sample) -> f64| {
        median(&samples[index].iter().map(value).collect::<Vec<_>>())
    };
    let direct = ways.iter().position(|way| *way == Way::Direct).unwrap_or_default();
    let row = |(index, way): (usize, &Way)| Row {
        way: way.name(),
        gigabits_per_second: of(index, |it| it.bits_per_second) * 1e-9,
        process_ms_per_gigabyte: of(index, |it| it.process),
        beyond_direct_ms_per_gigabyte: of(index, |it| it.machine) - of(direct, |it| it.machine),
    };
    let rows: Vec<Row> = ways.iter().enumerate().map(row).collect();
    let named = |way: Way| rows.iter().find(|row| row.way == way.name());
    for other in [Way::Spliced, Way::Haproxy] {
        let (Some(migrated), Some(row)) = (named(Way::Migrated), named(other)) else { continue };
        report.measure(
            &format!("vs_{}", row.way),
            Ratios {
                throughput: migrated.gigabits_per_second / row.gigabits_per_second,
                process: migrated.process_ms_per_gigabyte / row.process_ms_per_gigabyte,
                beyond_direct: migrated.beyond_direct_ms_per_gigabyte
                    / row.beyond_direct_ms_per_gigabyte,
            },
        );
    }
    report.measure("response_bytes", settings.migration.response);
    report.measure("rounds", settings.rounds);
    report.measure("rows", rows);
    add_logs(&mut report, &mut site);
    drop(haproxy);
    Ok(report)
}

/// Migrated, divided by the other.
#[derive(Debug, Serialize)]
struct Ratios {
    throughput: f64,
    process: f64,
    beyond_direct: f64,
}

fn measure(
    site: &mut Site,
    settings: &Settings,
    (way, haproxy): (Way, Option<&HaProxy>),
    all: &mut Outcome,
) -> Result<Sample, LabError> {
    let to = match (way, haproxy) {
        (Way::Migrated, _) => site.address(false, MIGRATED_PORT),
        (Way::Spliced, _) => site.address(false, SPLICED_PORT),
        (Way::Haproxy, Some(haproxy)) => haproxy.address(false, SERVER_PORT),
        (Way::Haproxy | Way::Direct, _) => site.targets[0].host.socket(false, SERVER_PORT),
    };
    let id = match way {
        Way::Migrated | Way::Spliced => site.pair.by_role()?.0.process_id(),
        Way::Haproxy => haproxy.map(HaProxy::process_id),
        Way::Direct => None,
    };
    let at_once = settings.migration.at_once;
    let asking =
        Asking { to, len: settings.migration.response, at_once, slow: false, patience: PATIENCE };
    *all += run_for(asking, &site.client, WARM_UP)?;
    let process = || id.map(processor::of_process).unwrap_or_default();
    let (before, machine) = (process(), processor::of_machine());
    let outcome = run_for(asking, &site.client, Duration::from_secs_f64(settings.seconds))?;
    let machine = processor::of_machine() - machine;
    let gigabytes = (outcome.bytes as f64 * 1e-9).max(1e-9);
    let each = |time: Duration| time.as_secs_f64() * 1e3 / gigabytes;
    let sample = Sample {
        bits_per_second: outcome.bytes as f64 * 8.0 / outcome.took.as_secs_f64(),
        process: each(process().saturating_sub(before)),
        machine: each(machine),
    };
    *all += outcome;
    Ok(sample)
}

/// Asks again and again for that long.
fn run_for(asking: Asking, client: &Host, length: Duration) -> Result<Outcome, LabError> {
    let (outcome, ()) = while_asking(client, &[asking], || {
        // The measurement's length.
        thread::sleep(length);
        Ok(())
    })?;
    Ok(outcome)
}
