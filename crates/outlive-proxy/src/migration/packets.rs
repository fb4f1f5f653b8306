//! What becomes of the packets of a connection that moves, or has moved.

use outlive_migration::{flow::FlowId, tunnel::Tunnel};
use outlive_tcp::{
    time::Time,
    wire::{
        Endpoint, Flags, FourTuple, TcpPacket,
        icmp::{self, IcmpError, IcmpErrorKind, IcmpReaddress},
    },
};

use super::{Phase, Place, QUEUE_BYTES, QUEUE_PACKETS, Queue};
use crate::{
    counters::Counter,
    opening::{FIRST_WINDOW, Meeting},
    proxy::{Proxy, Verdict},
    session::Seconds,
};

impl Queue {
    /// Keeps a packet, unless there is no room; `queued` is what is kept for all connections.
    fn keep(&mut self, packet: &TcpPacket<'_>, queued: &mut usize) -> bool {
        let bytes = packet.bytes();
        let room = self.packets.len() < QUEUE_PACKETS && *queued + bytes.len() <= QUEUE_BYTES;
        if room {
            *queued += bytes.len();
            self.packets.push_back((bytes.to_vec(), packet.offload()));
        }
        room
    }
}

impl Proxy {
    /// A packet of a client whose connection is being prepared at a target. It is kept, if it brings anything new.
    pub(crate) fn keep_moving(&mut self, slot: usize, packet: &TcpPacket<'_>) -> Verdict {
        let opening = &mut self.openings[slot];
        let Meeting::Answered { data, .. } = &opening.meeting else { return Verdict::Done };
        let known = (opening.irs + 1 + data.len() as u32).distance(packet.seq());
        let nothing_new = packet.segment_len() <= known && known <= u32::from(FIRST_WINDOW);
        let Some(transfer) = &mut opening.transfer else { return Verdict::Done };
        if nothing_new && packet.segment_len() > 0 {
            return Verdict::Done;
        }
        if transfer.queue.keep(packet, &mut self.migrations.queued) {
            Verdict::Done
        } else {
            self.drop(Counter::DropMigrating)
        }
    }

    /// A packet of a client whose connection lives at a target, or is about to.
    pub(crate) fn migrated_packet(
        &mut self,
        now: Time,
        slot: usize,
        packet: TcpPacket<'_>,
    ) -> Verdict {
        let flags = packet.flags();
        let is_lost = self.migrations.mappings[slot].phase == Phase::Lost;
        if flags.contains(Flags::SYN) && !is_lost {
            // Of a new connection from the same port: it waits for the end of this one.
            return self.drop(Counter::DropMigrating);
        }
        let decides = self.decides();
        let mapping = &mut self.migrations.mappings[slot];
        mapping.last_seen = Seconds::of(now);
        match mapping.phase {
            Phase::Migrated => self.tunnel(now, slot, packet),
            Phase::Deciding if flags.contains(Flags::RST) && decides => {
                let irs = self.migrations.mappings[slot].record.irs;
                if packet.seq().distance(irs + 1) > u32::from(FIRST_WINDOW) {
                    return self.drop(Counter::ResetOutside);
                }
                self.undo(now, slot);
                Verdict::Done
            }
            Phase::Lost => self.lost_packet(now, slot, &packet),
            Phase::Deciding | Phase::Committing => {
                let kept = mapping.queue.keep(&packet, &mut self.migrations.queued);
                if kept { Verdict::Done } else { self.drop(Counter::DropMigrating) }
            }
        }
    }

    /// The slot of the mapping of these ends, if the target speaks: then every node does the same with a packet.
    pub(crate) fn migrated(&self, ends: &FourTuple) -> Option<usize> {
        let slot = self.migrations.find(ends)?;
        (self.migrations.mappings[slot].phase == Phase::Migrated).then_some(slot)
    }

    fn tunnel(&mut self, now: Time, slot: usize, mut packet: TcpPacket<'_>) -> Verdict {
        let record = &self.migrations.mappings[slot].record;
        let (flow, target) = (record.flow, record.tunnel);
        let entered = self.tunnel_to(target).map(|tunnel| tunnel.enter(flow, &mut packet));
        if !matches!(entered, Some(Ok(()))) {
            return self.drop(Counter::DropMigrating);
        }
        let begin = packet.seq();
        let range = (begin, begin + packet.segment_len());
        self.delegate_mapping(now, slot, range, packet.tuple());
        self.counters.count(Counter::Tunnelled);
        self.forward(&packet)
    }

    /// An ICMP error that is about no session: about what a target has sent, or about a packet in the tunnel. `None` if it is
    /// neither.
    pub(crate) fn migration_error(&mut self, packet: &[u8], error: &IcmpError) -> Option<Verdict> {
        let how = match self.migrations.find(&error.quoted.reversed()) {
            Some(slot) => {
                let record = &self.migrations.mappings[slot].record;
                self.tunnel_to(record.tunnel)?.error_for_target(record.flow)
            }
            None => self.tunnel_error(error)?,
        };
        let mut result = Ok(());
        self.outbox.append(|out| result = icmp::readdress_error(packet, &how, out));
        Some(match result {
            Ok(()) => {
                self.counters.count(Counter::IcmpTranslated);
                Verdict::Done
            }
            Err(_) => self.drop(Counter::DropMalformed),
        })
    }

    fn tunnel_error(&self, error: &IcmpError) -> Option<IcmpReaddress> {
        let FourTuple { source, destination } = error.quoted;
        let flow = FlowId::from_ports(source.port, destination.port)?;
        let Some(Place::Mapping(slot)) = self.migrations.by_flow.get(&flow) else { return None };
        let record = &self.migrations.mappings[*slot].record;
        let tunnel = self.tunnel_to(record.tunnel)?;
        let ours = tunnel.ends(flow)
            == FourTuple::new(Endpoint::new(source.addr, source.port), destination);
        let told = ours && matches!(error.what, IcmpErrorKind::TooBig { .. });
        told.then(|| Tunnel::error_for_client(record.ends))
    }
}
