//! What has happened in a world, so that a run can tell what it has shown.

use std::collections::BTreeSet;

use outlive_proxy::{
    counters::Counter,
    event::{LogEvent, TakeoverCause},
    status::Status,
};

/// Situations that were met.
pub(crate) type Situations = BTreeSet<&'static str>;

/// What an event of a node means.
pub(crate) fn of_event(event: &LogEvent, met: &mut Situations) {
    if let LogEvent::TookOver { complete: false, .. } = event {
        met.insert("taken over: without everything");
    }
    met.insert(match event {
        LogEvent::TookOver { cause: TakeoverCause::Silence(_), .. } => "taken over: silent",
        LogEvent::TookOver { cause: TakeoverCause::Refused(_), .. } => "taken over: process gone",
        LogEvent::TookOver { cause: TakeoverCause::Restarted, .. } => "taken over: restarted",
        LogEvent::TookOver { cause: TakeoverCause::BothPassive, .. } => "taken over: both passive",
        LogEvent::TookOver { cause: TakeoverCause::Ordered, .. } => "taken over: ordered",
        LogEvent::TookOver { cause: TakeoverCause::Handover, .. } => "taken over: as planned",
        LogEvent::HandedOver { .. } => "handed over",
        LogEvent::HandoverFailed => "handover failed",
        LogEvent::WentAlone { .. } => "went alone",
        LogEvent::SteppedDown { .. } => "stepped down",
        LogEvent::Synchronised { sessions: 1.., .. } => "standby synchronised with sessions",
        LogEvent::StoodStill { .. } => "stood still",
        LogEvent::SureAgain => "still active after a standstill",
        LogEvent::ServerFailed { .. } => "server failed",
        _ => return,
    });
}

/// What a node has counted.
pub(crate) fn of_counters(status: &Status, met: &mut Situations) {
    let counted = Counter::ALL.iter().filter(|c| status.counters.value(**c) > 0);
    met.extend(counted.map(|c| c.name()));
}
