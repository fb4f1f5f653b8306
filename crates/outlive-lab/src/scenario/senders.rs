//! What the kernels of busy senders say during an outage: how long each would wait by itself.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::Serialize;

use super::summary::Distribution;
use crate::clock::Clock;
use crate::traffic::engine::Sender;

/// Looks at the senders that are kept; the last one before the takeover is what counts.
const KEPT: usize = 64;

/// Looks at all senders of a crowd, one after the other.
pub(super) struct Watch {
    clock: Clock,
    looks: VecDeque<(Duration, BTreeMap<u64, Sender>)>,
}

/// What the senders were about to do when the other machine took over.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    /// Streams with data on the way.
    streams: usize,
    /// Their retransmission timers' spans, with what they had backed off.
    backed_off_rto_ms: Distribution,
    /// How often the timers had run out in a row.
    most_backed_off: u8,
    /// Detection, three round trips, and the timer's span: what a stream may stall at most.
    bound_ms: Distribution,
    /// Streams that stalled for longer than that.
    beyond_bound: usize,
}

impl Watch {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, looks: VecDeque::new() }
    }

    /// One look: what clients and servers tell now. Of a connection that sends both ways, the end
    /// that would wait longer counts.
    pub(super) fn note(&mut self, senders: [Vec<Sender>; 2]) {
        let mut look = BTreeMap::<u64, Sender>::new();
        for sender in senders.into_iter().flatten() {
            let known = look.entry(sender.id).or_insert(sender);
            if known.retransmission_timeout < sender.retransmission_timeout {
                *known = sender;
            }
        }
        if self.looks.len() == KEPT {
            self.looks.pop_front();
        }
        self.looks.push_back((self.clock.now(), look));
    }

    /// What it was at the takeover, for the connections in `stalls`, which says how long each of them
    /// stalled.
    pub(super) fn verdict(
        &self,
        detection: Duration,
        took_over_at: Duration,
        stalls: &BTreeMap<u64, Duration>,
    ) -> Option<Verdict> {
        let before = self.looks.iter().rev().find(|(at, _)| *at <= took_over_at);
        let (_, look) = before.or_else(|| self.looks.front())?;
        let senders: Vec<(&Sender, Duration)> =
            stalls.iter().filter_map(|(id, stall)| Some((look.get(id)?, *stall))).collect();
        let bound = |it: &Sender| detection + 3 * it.round_trip + it.retransmission_timeout;
        Some(Verdict {
            streams: senders.len(),
            backed_off_rto_ms: Distribution::of(
                senders.iter().map(|(sender, _)| sender.retransmission_timeout),
            ),
            most_backed_off: senders.iter().map(|(sender, _)| sender.backoff).max().unwrap_or(0),
            bound_ms: Distribution::of(senders.iter().map(|(sender, _)| bound(sender))),
            beyond_bound: senders.iter().filter(|(sender, stall)| *stall > bound(sender)).count(),
        })
    }
}
