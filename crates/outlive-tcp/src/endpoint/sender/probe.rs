//! The tail loss probe (RFC 8985, section 7): the end of a flight that is lost makes no
//! acknowledgments, so the last segment is sent again before the retransmission timer fires.

use std::time::Duration;

use crate::seq::Seq;

/// What a lone segment's acknowledgment may wait for at the other end (section 7.2).
const MAX_ACK_DELAY: Duration = Duration::from_millis(200);
/// Before anything was measured.
const INITIAL: Duration = Duration::from_secs(1);

/// A probe that is out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::endpoint) struct TailProbe {
    /// SND.NXT after it.
    pub(in crate::endpoint) end: Seq,
    /// It repeated something.
    pub(in crate::endpoint) repeated: bool,
}

/// What an acknowledgment says about a probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::endpoint) enum ProbeOutcome {
    /// Nothing yet.
    Open,
    /// Nothing was lost, or it is dealt with otherwise.
    Done,
    /// The probe has repaired a loss: there was congestion.
    LossRepaired,
}

impl TailProbe {
    /// How long after the last transmission a probe is due.
    pub(in crate::endpoint) fn timeout(smoothed: Option<Duration>, lone_segment: bool) -> Duration {
        match smoothed {
            None => INITIAL,
            Some(smoothed) if lone_segment => 2 * smoothed + MAX_ACK_DELAY,
            Some(smoothed) => 2 * smoothed,
        }
    }

    /// `duplicate` says that the acknowledgment reports a duplicate; `pure` that it carries neither
    /// data nor SACK blocks nor news of the window.
    pub(in crate::endpoint) fn judge(&self, ack: Seq, duplicate: bool, pure: bool) -> ProbeOutcome {
        if ack.before(self.end) {
            return ProbeOutcome::Open;
        }
        if !self.repeated || duplicate {
            ProbeOutcome::Done
        } else if ack.after(self.end) {
            ProbeOutcome::LossRepaired
        } else if pure {
            // The original and the probe were acknowledged, each.
            ProbeOutcome::Done
        } else {
            ProbeOutcome::Open
        }
    }
}
