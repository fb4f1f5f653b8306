//! Packets at a node that hands over, or has handed over a moment ago.
//!
//! Neighbours need a moment to learn where the addresses are now, and packets are under way. A segment with data
//! of an established session is translated as ever: the record is a constant and the peer has the same, so it
//! makes no difference which node does it, in whichever epoch. Whatever might change or end anything is not this
//! node's to handle any more: it is kept, and goes to the peer over the state connection. The kernel is not asked to
//! relay: it would need the peer on the same link, send redirects, and ask the firewall.

use outlive_tcp::{
    time::Time,
    wire::{Flags, Offload, TcpPacket},
};

use super::{Proxy, Verdict};
use crate::{
    counters::Counter,
    flows::{Flow, Side},
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
        if let Ok(packet) = TcpPacket::parse(buffer, start, end, offload)
            && packet.checksum_ok()
            && let Some(Flow::Session(slot, side)) = self.find(&packet.tuple())
            && self.is_constant(slot, side, &packet)
        {
            return self.pass_late(now, slot, side, packet);
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
