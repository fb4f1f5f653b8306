//! Targets are added to the file of a running pair, and taken out of it, while connections are migrated to them all the time.
//!
//! Whoever lives at a target that is not configured any more goes on there; nothing new comes to it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{
    LONG, SMALL, add_logs, add_outcome, mixed_load, require_all, require_once, while_asking,
};
use crate::clock::retry_until;
use crate::error::LabError;
use crate::link::LinkKind;
use crate::migration::site::{Site, SiteOptions};
use crate::report::Report;
use crate::scenario::Settings;

/// Requests that a target answers before the next change.
const BEFORE_NEXT: usize = 50;

const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn run(settings: &Settings) -> Result<Report, LabError> {
    let targets = [settings.migration.mode.server(); 2];
    let options = SiteOptions { targets: &targets, link: LinkKind::Plain, sizes: &[SMALL, LONG] };
    let mut site = Site::new(settings.program()?, settings.seed, &options)?;
    let mut report = Report::new("migrate-reload", &site.lab);
    let client = site.client.clone();
    let loads = mixed_load(&site, settings);
    let (outcome, late) = while_asking(&client, &loads, || changes(&mut site, settings))?;
    add_outcome(&mut report, &outcome);
    require_all(&mut report, "targets came and went", &outcome);
    require_once(&mut report, &site, &outcome.asked);
    let answered: Vec<usize> = site.targets.iter().map(|target| target.answered().len()).collect();
    report.measure("mode", settings.migration.mode.name());
    report.measure("changes", settings.rounds.max(1) * 4);
    report.measure("answered_by", answered);
    report.measure("begun_after_the_end", late);
    report.require(late == 0, || format!("{late} requests came to a target that was taken out"));
    add_logs(&mut report, &mut site);
    Ok(report)
}

/// One target, both, the other one, and both again, as often as there are rounds. Gives how many requests came to one that had been
/// taken out, after its last connection had ended.
fn changes(site: &mut Site, settings: &Settings) -> Result<usize, LabError> {
    let mut late = 0;
    for _ in 0..settings.rounds.max(1) {
        for (left, out) in [(0, 1), (1, 0)] {
            site.lead_to(&[left])?;
            // Both nodes have left its agent: its last connection is over.
            retry_until(LIMIT, "a target that was taken out to be left", || {
                let status = site.targets[out].status();
                Ok(status["nodes"]["a"] == false && status["nodes"]["b"] == false)
            })?;
            let before = requests(site, out);
            more(site, left)?;
            late += requests(site, out).difference(&before).count();
            site.lead_to(&[0, 1])?;
            more(site, out)?;
        }
    }
    Ok(late)
}

/// The requests that a target has answered.
fn requests(site: &Site, target: usize) -> BTreeSet<u64> {
    site.targets[target].answered().into_keys().collect()
}

/// Waits until a target has answered some more.
fn more(site: &Site, target: usize) -> Result<(), LabError> {
    let before = site.targets[target].answered().len();
    retry_until(LIMIT, "a target to answer", || {
        Ok(site.targets[target].answered().len() >= before + BEFORE_NEXT)
    })
}
