//! Protection against wrapped sequence numbers (RFC 7323, section 5).

use std::time::Duration;

use super::super::negotiation::timestamp_before;
use crate::{seq::Seq, time::Time, wire::Timestamps};

/// After so long the other end's clock may have come round (RFC 7323, section 5.5).
const VALID_FOR: Duration = Duration::from_secs(24 * 86_400);

/// The other end's clock, as far as it was seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(in crate::endpoint) struct Paws {
    /// TS.Recent.
    pub(in crate::endpoint) recent: u32,
    /// When it was set.
    at: Time,
}

impl Paws {
    pub(in crate::endpoint) fn start(recent: u32, now: Time) -> Self {
        Paws { recent, at: now }
    }

    /// Whether a segment is from before one that was seen.
    pub(in crate::endpoint) fn is_old(&self, now: Time, timestamps: Timestamps) -> bool {
        timestamp_before(timestamps.value, self.recent) && now.since(self.at) < VALID_FOR
    }

    /// Takes over the timestamp of a segment that is not old, if it is the one whose
    /// acknowledgment is due (RFC 7323, section 4.3): so the other end measures what its oldest
    /// unacknowledged segment had to wait for.
    pub(in crate::endpoint) fn update(
        &mut self,
        now: Time,
        timestamps: Timestamps,
        seq: Seq,
        last_ack_sent: Seq,
    ) {
        if seq.at_or_before(last_ack_sent) {
            *self = Paws { recent: timestamps.value, at: now };
        }
    }
}
