//! Segments of connections that the node does not know.

use outlive_tcp::{
    segment::reset_for,
    time::Time,
    wire::{Flags, FourTuple, TcpPacket},
};

use super::{Admission, Proxy, Verdict};
use crate::{config::OpeningMode, counters::Counter};

impl Proxy {
    pub(crate) fn stranger(&mut self, now: Time, packet: &TcpPacket<'_>) -> Verdict {
        let destination = packet.tuple().destination;
        if !self.is_ours(destination.addr) {
            return self.drop(Counter::DropForeign);
        }
        let flags = packet.flags();
        let kind =
            (flags.contains(Flags::SYN), flags.contains(Flags::ACK), flags.contains(Flags::RST));
        match (self.listener_at(destination), kind) {
            (Some(listener), (true, false, false)) => self.syn(now, listener, packet),
            (Some(listener), (false, true, false)) => self.stray_ack(now, listener, packet),
            _ => self.reset_stranger(now, packet),
        }
    }

    fn syn(&mut self, now: Time, listener: u16, packet: &TcpPacket<'_>) -> Verdict {
        let options = packet.options();
        if options.authenticated {
            return self.drop(Counter::DropAuthenticated);
        }
        match self.admission(listener) {
            Admission::Given => {}
            Admission::Undecided => return self.drop(Counter::DropUnconfirmed),
            Admission::Refused => {
                self.counters.count(Counter::NoStandby);
                self.refuse(packet.tuple(), packet.seq());
                return Verdict::Done;
            }
        }
        let mode = self.listener(listener).map(|l| l.opening);
        let challenge =
            self.openings.must_challenge(self.sessions.half_open() + self.terminated.half_open());
        if mode == Some(OpeningMode::Direct) && !challenge {
            self.hold(now, listener, packet, options);
        } else {
            self.answer_with_cookie(now, packet, &options, listener);
        }
        Verdict::Done
    }

    /// An ACK at a listener: the end of a cookie handshake, or a segment of a connection that is gone.
    fn stray_ack(&mut self, now: Time, listener: u16, packet: &TcpPacket<'_>) -> Verdict {
        if let Some(verdict) = self.accept_cookie(now, listener, packet) {
            return verdict;
        }
        // It may be the second segment of a client whose ACK and first segment were lost.
        let answers = self.listener(listener).is_some_and(|l| l.opening != OpeningMode::Direct);
        let cookies = answers || self.cookies_may_come(now);
        if cookies && !self.suspects.persists(now, &packet.tuple()) {
            return self.drop(Counter::DropCookie);
        }
        self.reset_stranger(now, packet)
    }

    /// After a takeover, a client whose connection is reset is most likely one whose session this node was
    /// never told of. Each is counted once.
    fn note_lost(&mut self, now: Time, tuple: &FourTuple) {
        let to_listener = self.listener_at(tuple.destination).is_some();
        if to_listener && self.cookies_may_be_the_others(now) && self.lost.is_news(now, tuple) {
            self.counters.count(Counter::SessionsLost);
        }
    }

    /// Tells a stranger that its connection does not exist, unless it might exist elsewhere (invariant 5).
    pub(crate) fn reset_stranger(&mut self, now: Time, packet: &TcpPacket<'_>) -> Verdict {
        if now < self.posture.silent_until {
            return self.drop(Counter::DropSilent);
        }
        if let Some(reset) = reset_for(packet) {
            self.counters.count(Counter::ResetsSent);
            self.note_lost(now, &packet.tuple());
            self.outbox.send(&reset);
        }
        Verdict::Done
    }
}
