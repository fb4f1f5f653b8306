//! What is not TCP: ICMP errors for either end of a session, pings, and the rest.

use std::time::Duration;

use outlive_tcp::{
    fault::{self, Fault},
    time::Time,
    wire::{
        self, FourTuple, Kind,
        icmp::{self, IcmpError, IcmpErrorKind, IcmpMessage, IcmpReaddress},
    },
};

use super::{Proxy, Verdict};
use crate::{
    counters::Counter,
    flows::{Flow, Side},
};

/// Port unreachables in a second (RFC 1812, 4.3.2.8 asks for a limit).
const UNREACHABLES_PER_SECOND: u32 = 100;
/// What an inserted timestamps option adds to a packet.
const INSERTED: u16 = 12;

impl Proxy {
    pub(crate) fn handle_other(&mut self, now: Time, packet: &[u8]) -> Verdict {
        match wire::classify(packet) {
            Ok(Kind::Icmp) => self.handle_icmp(now, packet),
            Ok(Kind::Other(_)) => self.unreachable(now, packet),
            Ok(Kind::Fragment) => self.drop(Counter::DropFragment),
            Ok(Kind::Tcp) | Err(_) => self.drop(Counter::DropMalformed),
        }
    }

    fn handle_icmp(&mut self, now: Time, packet: &[u8]) -> Verdict {
        let ours = wire::addresses(packet).is_ok_and(|(_, destination)| self.is_ours(destination));
        match icmp::parse_icmp(packet) {
            Ok(IcmpMessage::EchoRequest) if ours => {
                let mut answered = false;
                self.outbox.append(|out| answered = icmp::echo_reply(packet, out));
                self.counters.add(Counter::EchoReplies, u64::from(answered));
                Verdict::Done
            }
            Ok(IcmpMessage::Error(error)) => self.icmp_error(now, packet, &error),
            Ok(_) => self.drop(Counter::DropForeign),
            Err(_) => self.drop(Counter::DropMalformed),
        }
    }

    /// An error about a packet that this node sent: it concerns whoever had sent the packet from which that
    /// one was translated.
    fn icmp_error(&mut self, now: Time, packet: &[u8], error: &IcmpError) -> Verdict {
        match self.find(&error.quoted.reversed()) {
            Some(Flow::Session(slot, side)) => {
                let session = &self.sessions[slot];
                let sender = session.record.leg(side.other());
                let translation = session.record.translation(side.other(), 0, 0);
                let inserts = side == Side::Client && session.record.synthesises_timestamps();
                let how = IcmpReaddress {
                    source: sender.own().addr,
                    destination: sender.end().addr,
                    quoted: FourTuple { source: sender.end(), destination: sender.own() },
                    seq_delta: if fault::on(Fault::IcmpNotReaddressed) {
                        0
                    } else {
                        translation.seq_delta.wrapping_neg()
                    },
                    mtu_reduction: if inserts { INSERTED } else { 0 },
                };
                let mut result = Ok(());
                self.outbox.append(|out| result = icmp::readdress_error(packet, &how, out));
                match result {
                    Ok(()) => self.counters.count(Counter::IcmpTranslated),
                    Err(_) => self.counters.count(Counter::DropMalformed),
                }
                Verdict::Done
            }
            Some(Flow::Terminated(slot, side)) => self.terminated_icmp(now, slot, side, error),
            Some(Flow::Opening(slot, Side::Server)) => {
                let attempt = self.openings[slot].attempt.as_ref();
                let ours = attempt.is_some_and(|a| a.iss == error.quoted_seq);
                if ours && error.what == IcmpErrorKind::Unreachable {
                    self.attempt_failed(now, slot, Counter::ServerRefused);
                }
                Verdict::Done
            }
            Some(Flow::Opening(..)) => self.drop(Counter::DropForeign),
            None => self
                .migration_error(packet, error)
                .unwrap_or_else(|| self.drop(Counter::DropForeign)),
        }
    }

    /// Tells the sender of something that is neither TCP nor ICMP that nobody takes it.
    fn unreachable(&mut self, now: Time, packet: &[u8]) -> Verdict {
        let ours = wire::addresses(packet).is_ok_and(|(_, destination)| self.is_ours(destination));
        let (since, sent) = &mut self.unreachables;
        if now.since(*since) >= Duration::from_secs(1) {
            (*since, *sent) = (now, 0);
        }
        if !ours || *sent >= UNREACHABLES_PER_SECOND || now < self.posture.silent_until {
            return self.drop(Counter::DropForeign);
        }
        *sent += 1;
        let mut answered = false;
        self.outbox.append(|out| answered = icmp::port_unreachable(packet, out));
        self.counters.add(Counter::Unreachables, u64::from(answered));
        Verdict::Done
    }
}
