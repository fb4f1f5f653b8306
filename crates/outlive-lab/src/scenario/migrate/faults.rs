//! Connections are migrated all the time, and somebody dies at random instants: a balancer, an agent, or a target's whole machine.
//!
//! Two loads for each IP version: small answers as fast as they go, so that migrations are in each of their steps at every instant; and
//! long answers to clients that read slowly, so that the fault strikes in mid-response. In every other round the agents stand still for
//! a moment before the fault: then everything that was under way waits for PREPARED or for COMMITTED.
//!
//! What is required: no wrong byte, no request answered twice, nobody left without an answer or a reset. Balancers die without any loss. With
//! a target die at most the connections that had been handed to it for good, as the balancer counts them.

use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::{
    LONG, SMALL, add_logs, add_outcome, counted, mixed_load, require_all, require_once, told,
    while_asking,
};
use crate::clock::retry_until;
use crate::error::LabError;
use crate::impairment::Impairment;
use crate::link::LinkKind;
use crate::migration::Victim;
use crate::migration::site::{Site, SiteOptions};
use crate::report::{Report, as_seconds};
use crate::scenario::Settings;
use crate::traffic::Failure;

/// How long a takeover may take.
const TAKE_OVER: Duration = Duration::from_secs(30);

/// A death.
#[derive(Debug, Serialize)]
struct Death {
    #[serde(serialize_with = "as_seconds")]
    at: Duration,
    of: String,
    /// The agents had stood still for so long.
    frozen_ms: u64,
}

pub(crate) fn run(settings: &Settings) -> Result<Report, LabError> {
    let migration = &settings.migration;
    let targets = [migration.mode.server(); 2];
    let loss = migration.loss;
    let link = match loss > 0.0 {
        true => LinkKind::impaired(Impairment {
            delay: Duration::from_millis(1),
            jitter: Duration::from_millis(1),
            loss,
            reorder: loss,
            ..Impairment::default()
        }),
        false => LinkKind::Plain,
    };
    let options = SiteOptions { targets: &targets, link, sizes: &[SMALL, LONG] };
    let mut site = Site::new(settings.program()?, settings.seed, &options)?;
    let mut report = Report::new("migrate-faults", &site.lab);
    let client = site.client.clone();
    let loads = mixed_load(&site, settings);
    let (outcome, deaths) = while_asking(&client, &loads, || rounds(&mut site, settings))?;

    add_outcome(&mut report, &outcome);
    require_once(&mut report, &site, &outcome.asked);
    let count = |name| counted(&site, name);
    // Who is started again counts anew.
    let completed = count("migrations_completed")?.max(told(&site, "migrations", "committed"));
    let told_lost = count("migrations_lost")?;
    report.measure("mode", migration.mode.name());
    report.measure("deaths", &deaths);
    report.measure("migrated", completed);
    report.measure("gone_elsewhere", count("migrations_refused")? + count("migrations_timeout")?);
    report.measure("lost_with_their_target", told_lost);
    report.require(completed > 0, || "nothing was migrated".to_owned());
    let unended = outcome.lost.iter().filter(|lost| lost.why == Failure::Unfinished).count();
    report.measure("without_an_end", unended);
    if migration.victim == Victim::Balancer {
        require_all(&mut report, "the balancers died", &outcome);
    } else {
        // What is lost is lost with a target, and the client is told.
        report.connections_lost = outcome.lost.len() as u64;
        let others = outcome.lost.iter().filter(|lost| !is_told(lost.why)).count();
        report.require(others == 0, || format!("{others} clients were not told of their loss"));
        let most = told_lost;
        report.require(report.connections_lost <= most, || {
            format!("{} answers were lost, {most} with a target", outcome.lost.len())
        });
        if !report.ok {
            report.measure("lost_answers", outcome.lost.iter().take(20).collect::<Vec<_>>());
        }
    }
    add_logs(&mut report, &mut site);
    Ok(report)
}

/// By a reset; or by the end of a server that ended properly.
fn is_told(why: Failure) -> bool {
    matches!(why, Failure::Reset | Failure::EarlyEnd)
}

fn rounds(site: &mut Site, settings: &Settings) -> Result<Vec<Death>, LabError> {
    let mut random = fastrand::Rng::with_seed(settings.seed);
    let mut deaths = Vec::new();
    for round in 0..settings.rounds {
        // The instant of the fault, which is left to chance.
        thread::sleep(Duration::from_millis(random.u64(100..600)));
        let frozen_ms = if round % 2 == 1 { random.u64(1..40) } else { 0 };
        if frozen_ms > 0 {
            site.targets.iter().try_for_each(|target| target.freeze(true))?;
            thread::sleep(Duration::from_millis(frozen_ms));
        }
        let at = site.lab.clock().now();
        let of = match settings.migration.victim {
            Victim::Balancer => kill_balancer(site)?,
            Victim::Agent | Victim::Machine => {
                let index = random.usize(0..site.targets.len());
                kill_target(site, index, settings.migration.victim, &mut random)?
            }
        };
        deaths.push(Death { at, of, frozen_ms });
        site.wait_ready()?;
    }
    // What was under way at the last fault goes on for a while.
    thread::sleep(Duration::from_millis(300));
    Ok(deaths)
}

fn thaw(site: &Site) -> Result<(), LabError> {
    site.targets.iter().try_for_each(|target| target.freeze(false))
}

fn kill_balancer(site: &mut Site) -> Result<String, LabError> {
    let (active, _) = site.pair.by_role()?;
    active.kill()?;
    let name = active.host().name().to_owned();
    thaw(site)?;
    retry_until(TAKE_OVER, "the other node to be active", || {
        Ok([&mut site.pair.a, &mut site.pair.b].into_iter().any(|node| {
            node.is_running() && node.is(|status| status.role == "active").unwrap_or(false)
        }))
    })?;
    site.pair.a.start()?;
    site.pair.b.start()?;
    Ok(name)
}

fn kill_target(
    site: &mut Site,
    index: usize,
    victim: Victim,
    random: &mut fastrand::Rng,
) -> Result<String, LabError> {
    let target = &mut site.targets[index];
    let name = target.host.name().to_owned();
    let away = Duration::from_millis(random.u64(1..800));
    if victim == Victim::Agent {
        target.kill_agent()?;
        thaw(site)?;
        // How long it is away.
        thread::sleep(away);
        site.targets[index].start_agent()?;
    } else {
        target.power_off()?;
        thaw(site)?;
        thread::sleep(away);
        site.revive(index)?;
    }
    Ok(name)
}
