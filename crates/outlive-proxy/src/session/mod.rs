//! Sessions: established splices, and what is known of each.

mod chunks;
pub(crate) mod record;
mod table;
pub(crate) mod track;

pub(crate) use table::Sessions;

use outlive_tcp::{seq::Seq, time::Time, wire::FourTuple};

use self::{record::Record, track::Streams};
use crate::{balance::ServerId, flows::Side};

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The standby has not confirmed the record: nothing may leave yet.
    Unconfirmed,
    /// The client of a direct listener has been answered, and has not said so yet.
    Answering,
    /// Both handshakes are complete, there was no data yet, and the standby has not been told.
    Quiet,
    /// Data flows.
    Open,
    /// Both ends have closed: kept for late segments.
    TimeWait,
    /// A valid reset passed: kept for late segments. A forged one may have fooled the node, but not the end;
    /// so if segments still come when the time is over, the session is open again.
    Reset(Side),
}

impl Phase {
    /// Neither end expects anything any more; the tuples may be used again.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Phase::TimeWait | Phase::Reset(_))
    }
}

/// Packets of an inherited session that are looked at here before the fast path gets it: what was learnt from the
/// first may be a stranger's lie, and is corrected here only.
pub(crate) const UNTIL_CERTAIN: u8 = 32;

/// An established splice.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) record: Record,
    pub(crate) streams: Streams,
    /// When a segment last passed.
    pub(crate) last_seen: Seconds,
    /// When it was established here, or heard of.
    pub(crate) since: Seconds,
    /// Distinguishes it from earlier holders of its slot.
    pub(crate) serial: u32,
    /// The client's latest timestamp.
    pub(crate) client_timestamp: u32,
    pub(crate) server: ServerId,
    /// Index of the listener, or [`NO_LISTENER`](Self::NO_LISTENER).
    pub(crate) listener: u16,
    pub(crate) phase: Phase,
    /// This node has answered the client, which has not shown yet that it exists.
    pub(crate) half_open: bool,
    /// The standby is or was told of it, if there is one. False only before the first data.
    pub(crate) told: bool,
    /// Which synchronisation it was last part of (standby).
    pub(crate) picture: u8,
    /// The fast path has it.
    pub(crate) delegated: bool,
    /// Packets until it is (again) tried to hand it over.
    pub(crate) until_delegated: u8,
}

impl Session {
    /// The listener is not in this node's configuration.
    pub(crate) const NO_LISTENER: u16 = u16::MAX;

    /// It was established by the other node: how far it is has to be learnt from its segments.
    pub(crate) fn is_inherited(&self) -> bool {
        self.picture != 0
    }

    /// Another node may have had to do with it: it is as one that was established there.
    pub(crate) fn is_doubted(&mut self, picture: u8) {
        self.picture = picture;
        self.streams.doubt();
        self.until_delegated = UNTIL_CERTAIN;
    }

    /// The tuple of the packets that `side` sends.
    pub(crate) fn tuple(&self, side: Side) -> FourTuple {
        self.record.leg(side).tuple()
    }

    /// TSval of the server's SYN-ACK.
    pub(crate) fn server_timestamp(&self) -> u32 {
        self.record.syn_ack.timestamp.wrapping_sub(self.record.server_timestamp_delta)
    }

    /// The first sequence number of the inserted prefix, as the server counts.
    pub(crate) fn prefix_start(&self) -> Seq {
        self.record.server.own_isn + 1
    }

    /// What the window towards `end` was last seen to be, as a window field.
    pub(crate) fn window_towards(&self, end: Side) -> u16 {
        let stream = self.streams.sent_by(end);
        let window = if stream.is_known() { stream.edge.distance(stream.acked) } else { 1 << 14 };
        u16::try_from(window >> self.record.leg(end).own_scale).unwrap_or(u16::MAX)
    }
}

/// Coarse time, half the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Seconds(u32);

impl Seconds {
    pub(crate) fn of(time: Time) -> Self {
        Seconds((time.as_micros() / 1_000_000) as u32)
    }

    pub(crate) fn time(self) -> Time {
        Time::from_micros(u64::from(self.0) * 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A standby holds a million of them: what is added here is added a million times.
    #[test]
    fn a_session_is_small() {
        assert!(size_of::<Session>() <= 212, "{} bytes", size_of::<Session>());
    }
}
