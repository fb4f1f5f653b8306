//! What a snapshot shows: rates, silences, pictures. Shared by the displays and the summary.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ratatui::style::{Color, Style};

use super::board::{Fault, Snapshot};
use super::graph::{Graph, Mark};
use crate::traffic::Group;
use crate::traffic::series::{BUCKET, Series};

/// A stream that is silent for longer than this has stalled.
const STALLED: Duration = Duration::from_millis(50);

/// What a picture of a fault shows: this long before it, ...
const BEFORE: Duration = Duration::from_millis(150);
/// ... and this long after.
const AFTER: Duration = Duration::from_millis(750);

/// Room above the pace of the transfers.
const HEADROOM: f64 = 1.35;

/// A transfer as it is now.
pub(super) struct Progress {
    /// From 0 to 1.
    pub(super) part: f64,
    /// Bytes per second, lately.
    pub(super) rate: f64,
    /// No byte has come for that long, though some should.
    pub(super) stalled: Option<Duration>,
    /// It is over, ...
    pub(super) over: bool,
    /// ... badly.
    pub(super) failed: bool,
}

/// The direction of a group in which its bytes matter.
fn series(group: &Group) -> &Series {
    if group.label.starts_with("upload") { &group.up_series } else { &group.down_series }
}

/// How far a transfer of `size` bytes is.
pub(super) fn progress(group: &Group, size: u64, now: Duration) -> Progress {
    let counter = if group.label.starts_with("upload") { &group.up } else { &group.down };
    let over = group.open() == 0;
    Progress {
        part: (counter.load(Relaxed) as f64 / size.max(1) as f64).min(1.0),
        rate: series(group).sum(now.saturating_sub(Duration::from_millis(500)), now) as f64 * 2.0,
        stalled: silence(group, now).filter(|&silence| silence > STALLED && !over),
        over,
        failed: group.failed.load(Relaxed) > 0,
    }
}

/// For how long nothing has come; nothing if nothing ever came.
pub(super) fn silence(group: &Group, now: Duration) -> Option<Duration> {
    let buckets = series(group).buckets();
    let last = buckets.iter().rposition(|&bytes| bytes > 0)?;
    Some(now.saturating_sub(BUCKET * (last as u32 + 1)))
}

/// The longest time without a byte after a fault, of all transfers that are under way.
pub(super) fn gap(snapshot: &Snapshot, fault: &Fault, now: Duration) -> Duration {
    let end = now.min(fault.at + Duration::from_secs(5));
    let (from, to) = (fault.at.as_millis() / 10, end.as_millis() / 10);
    let transfers = snapshot.groups.iter().filter(|group| is_transfer(group));
    let longest = transfers.map(|group| {
        let buckets = series(group).buckets();
        let (mut longest, mut run) = (0, 0);
        // What has not come yet is not there; once it is over, nothing more is owed.
        let known = if group.open() > 0 { to as usize } else { buckets.len().min(to as usize) };
        for at in from as usize..known {
            // A gap that begins later has another reason.
            if at > from as usize + 100 && run == 0 {
                break;
            }
            run = if buckets.get(at).is_some_and(|&bytes| bytes > 0) { 0 } else { run + 1 };
            longest = longest.max(run);
        }
        BUCKET * longest
    });
    longest.max().unwrap_or_default()
}

pub(super) fn is_transfer(group: &Arc<Group>) -> bool {
    group.label.starts_with("upload") || group.label.starts_with("download")
}

/// The whole of the transfers.
pub(super) fn overview(snapshot: &Snapshot, now: Duration) -> Graph {
    let style = Style::new().fg(Color::Red);
    let marks = snapshot
        .faults
        .iter()
        .map(|fault| Mark { at: fault.at, label: fault.what.clone(), style })
        .collect();
    Graph { marks, ..graph(snapshot, Duration::ZERO, snapshot.horizon(now)) }
}

/// A second around a fault.
pub(super) fn zoom(snapshot: &Snapshot, fault: &Fault) -> Graph {
    // What it is, the title says: here is only room for the other one.
    let fault_mark =
        Mark { at: fault.at, label: String::new(), style: Style::new().fg(Color::Red) };
    let takeover = fault.takeover.map(|takeover| Mark {
        at: fault.at + takeover,
        label: "taken over".to_owned(),
        style: Style::new().fg(Color::Green),
    });
    let marks = [fault_mark].into_iter().chain(takeover).collect();
    let (from, to) = (fault.at.saturating_sub(BEFORE), fault.at + AFTER);
    Graph { marks, zero: Some(fault.at), ..graph(snapshot, from, to) }
}

fn graph(snapshot: &Snapshot, from: Duration, to: Duration) -> Graph {
    let sum = |prefix: &str| {
        let mut sum = Vec::new();
        for group in snapshot.groups.iter().filter(|group| group.label.starts_with(prefix)) {
            let buckets = series(group).buckets();
            sum.resize(sum.len().max(buckets.len()), 0);
            sum.iter_mut().zip(buckets).for_each(|(sum, bytes)| *sum += bytes);
        }
        sum
    };
    let pace = snapshot.size as f64 / snapshot.planned.as_secs_f64().max(1e-3);
    Graph {
        down: sum("download"),
        up: sum("upload"),
        from,
        to,
        most: (pace * HEADROOM).max(1.0),
        zero: None,
        marks: Vec::new(),
    }
}
