//! Packets at a node that hands over, or has handed over a moment ago.
//!
//! Neighbours need a moment to learn where the addresses are now, and packets are under way. A segment with data
//! of an established session is translated as ever: the record is a constant and the peer has the same, so it
//! makes no difference which node does it, in whichever epoch. Whatever might change or end anything is not this
//! node's to handle any more: it is kept, and goes to the peer over the state connection. The kernel is not asked to
//! relay: it would need the peer on the same link, send redirects, and ask the firewall.

use outlive_tcp::{
    segment::{DEFAULT_HOP_LIMIT, Segment},
    time::Time,
    wire::{Flags, Offload, Options, TcpPacket, Timestamps},
};

use super::{Proxy, Verdict};
use crate::{
    counters::Counter,
    flows::{Flow, Side},
    opening::{Meeting, Opening},
    session::Phase,
};

impl Proxy {
    /// A packet that was read while another node is becoming, or has become, the active one.
    pub(super) fn handle_late(
        &mut self,
        now: Time,
        buffer: &mut [u8],
        start: usize,
        end: usize,
        offload: Offload,
    ) -> Verdict {
        self.late_at = now;
        if let Ok(packet) = TcpPacket::parse(buffer, start, end, offload)
            && packet.checksum_ok()
            && let Some(Flow::Session(slot, side)) = self.find(&packet.tuple())
            && self.is_constant(slot, side, &packet)
        {
            return self.pass_late(now, slot, side, packet);
        }
        // What is led to a target is so by either node.
        if let Ok(packet) = TcpPacket::parse(buffer, start, end, offload)
            && packet.checksum_ok()
            && !packet.flags().contains(Flags::SYN)
            && let Some(slot) = self.migrated(&packet.tuple())
        {
            self.counters.count(Counter::LatePassed);
            return self.migrated_packet(now, slot, packet);
        }
        self.keep(now, buffer.get(start..end).unwrap_or_default(), offload)
    }

    /// Keeps a packet until it is known which node has to handle it.
    pub(super) fn keep(&mut self, now: Time, packet: &[u8], offload: Offload) -> Verdict {
        if !self.to_relay.push(now, packet.to_vec(), offload) {
            return self.drop(Counter::DropRelayFull);
        }
        Verdict::Done
    }

    /// Whether passing this segment changes nothing that the active node has to know.
    fn is_constant(&self, slot: usize, side: Side, packet: &TcpPacket<'_>) -> bool {
        // A segment without data may be the acknowledgment of a FIN.
        packet.payload_len() > 0
            && [Flags::SYN, Flags::FIN, Flags::RST].iter().all(|f| !packet.flags().contains(*f))
            && self.sessions[slot].phase == Phase::Open
            && !(side == Side::Server && self.prefixes.contains_key(&slot))
    }

    fn pass_late(
        &mut self,
        now: Time,
        slot: usize,
        side: Side,
        mut packet: TcpPacket<'_>,
    ) -> Verdict {
        let timestamp = self.clock.timestamp(now);
        let session = &self.sessions[slot];
        let translation = session.record.translation(side, timestamp, session.client_timestamp);
        let limit = session.record.segment_limit(side.other());
        let answered = session.record.answered;
        if packet.translate(&translation).is_err() {
            return self.drop(Counter::DropMalformed);
        }
        if answered {
            packet.limit_segments(limit);
        }
        self.counters.count(Counter::LatePassed);
        self.forward(&packet)
    }

    /// Connections that are still being opened are the peer's to open now. What their clients have said so far goes to it
    /// as they said it, before what they said since: nothing of it has been acknowledged, and none of it had an effect.
    pub(crate) fn relay_openings(&mut self, now: Time) {
        let mut later = std::mem::take(&mut self.to_relay);
        for slot in self.openings.slots() {
            let mut packet = Vec::new();
            said_so_far(&self.openings[slot]).emit(&mut packet);
            self.keep(now, &packet, Offload::default());
        }
        while let Some((packet, offload)) = later.pop(now) {
            self.keep(now, &packet, offload);
        }
    }

    /// The peer has relayed a packet: it waits for the shell to hand it in like one of its own device.
    pub(crate) fn relayed(&mut self, now: Time, packet: Vec<u8>, offload: Offload) {
        if self.arrived.push(now, packet, offload) {
            self.counters.count(Counter::RelayedIn);
        } else {
            self.counters.count(Counter::DropRelayFull);
        }
    }

    /// This node serves (again): what it has kept is its own to handle.
    pub(crate) fn readmit(&mut self, now: Time) {
        while let Some((packet, offload)) = self.to_relay.pop(now) {
            if !self.arrived.push(now, packet, offload) {
                self.counters.count(Counter::DropRelayFull);
            }
        }
    }
}

/// The SYN of a client that was not answered yet, or all that one has said that was.
fn said_so_far(opening: &Opening) -> Segment<'_> {
    let window = |shift: u8| u16::try_from(opening.window >> shift).unwrap_or(u16::MAX);
    let with_echo =
        |echo| opening.options.timestamps.map(|_| Timestamps { value: opening.timestamp, echo });
    let syn = Segment {
        tuple: opening.tuple,
        seq: opening.irs,
        ack: None,
        flags: Flags::SYN,
        window: window(0),
        options: Options { timestamps: with_echo(0), ..opening.options },
        payload: &[],
        hop_limit: DEFAULT_HOP_LIMIT,
    };
    match &opening.meeting {
        Meeting::Held { ecn: false } => syn,
        Meeting::Held { ecn: true } => {
            Segment { flags: Flags::SYN | Flags::ECE | Flags::CWR, ..syn }
        }
        Meeting::Answered { iss, timestamp, data, fin } => Segment {
            seq: opening.irs + 1,
            ack: Some(*iss + 1),
            flags: if *fin { Flags::FIN } else { Flags(0) },
            window: window(opening.options.window_scale.unwrap_or(0)),
            options: Options { timestamps: with_echo(*timestamp), ..Options::default() },
            payload: data,
            ..syn
        },
    }
}
