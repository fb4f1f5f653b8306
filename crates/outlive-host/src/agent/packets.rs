//! What becomes of each packet that comes out of the device: tunnelled ones of clients, and those of replayed servers.

use std::io;

use outlive_migration::{id::MigrationId, tunnel::Stray};
use outlive_net::tun::{BUFFER_LEN, Tun, VirtioNetHeader};
use outlive_node::packets::{header_for, offload_of};
use outlive_tcp::{
    time::Time,
    wire::{
        IcmpErrorKind, Kind as PacketKind, Offload, TcpPacket, addresses, classify,
        icmp::{self, IcmpMessage},
    },
};

use super::{
    Agent,
    connections::{Connection, Kind},
};
use crate::replay::{Dropped, Opened, Verdict};

/// Free bytes before the device's header, for options that are inserted.
const HEADROOM: usize = 64;
/// Where a packet starts when read.
const START: usize = HEADROOM + VirtioNetHeader::LEN;
/// Packets handled before others get their turn.
const BUDGET: usize = 128;

/// What has passed, and what was dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets of clients that were led to their connections.
    pub from_tunnel: u64,
    /// Bytes of those.
    pub from_tunnel_bytes: u64,
    /// Packets of replayed servers that were sent on to clients.
    pub to_clients: u64,
    /// Bytes of those.
    pub to_clients_bytes: u64,
    /// ICMP errors that were led to their connections.
    pub errors: u64,
    /// Probes of the path.
    pub probes: u64,
    /// Dropped: not from a balancer.
    pub strangers: u64,
    /// Dropped: unknown flow identifiers, forged or late.
    pub unknown_flows: u64,
    /// Dropped: the connection may not speak yet, or has not been answered by its server.
    pub mute: u64,
    /// Dropped: of a local server, and no connection of clients.
    pub unknown_servers: u64,
    /// Dropped: malformed, or of no use to anybody.
    pub other: u64,
    /// Packets that the kernel did not take.
    pub write_failures: u64,
}

/// The buffer, and what was counted.
#[derive(Debug)]
pub(super) struct PacketPath {
    buffer: Vec<u8>,
    made: Vec<u8>,
    readable: bool,
    counts: Counts,
}

impl Default for PacketPath {
    fn default() -> Self {
        PacketPath {
            buffer: vec![0; HEADROOM + BUFFER_LEN],
            made: Vec::new(),
            readable: true,
            counts: Counts::default(),
        }
    }
}

impl PacketPath {
    pub(super) fn handle_ready(&mut self) {
        self.readable = true;
    }

    pub(super) fn is_readable(&self) -> bool {
        self.readable
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Writes a packet with complete checksums; nothing if it is empty.
    pub(super) fn transmit(&mut self, tun: &Tun, packet: &[u8]) {
        if packet.is_empty() {
            return;
        }
        self.made.clear();
        self.made.resize(VirtioNetHeader::LEN, 0);
        self.made.extend_from_slice(packet);
        if tun.send(&self.made).is_err() {
            self.counts.write_failures += 1;
        }
    }
}

/// Whose packet it was.
enum Sender {
    Client,
    Server,
}

impl Agent {
    /// Takes packets off the device, up to a bound.
    pub(super) fn handle_packets(&mut self) {
        let mut buffer = std::mem::take(&mut self.packets.buffer);
        let now = self.clock.now();
        for _ in 0..BUDGET {
            if !self.packets.readable {
                break;
            }
            match self.edge.tun.recv(&mut buffer[HEADROOM..]) {
                Ok(len) if len > VirtioNetHeader::LEN => {
                    let end = HEADROOM + len;
                    let header = buffer[HEADROOM..].first_chunk().map(VirtioNetHeader::parse);
                    let offload = offload_of(header.unwrap_or_default());
                    self.packet(now, &mut buffer, end, offload);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.packets.readable = false,
            }
        }
        self.packets.buffer = buffer;
    }

    fn packet(&mut self, now: Time, buffer: &mut [u8], end: usize, offload: Offload) {
        match classify(&buffer[START..end]) {
            Ok(PacketKind::Tcp) => {}
            Ok(PacketKind::Icmp) => return self.icmp(&buffer[START..end]),
            _ => {
                self.packets.counts.other += 1;
                return;
            }
        }
        let Ok(mut packet) = TcpPacket::parse(buffer, START, end, offload) else {
            self.packets.counts.other += 1;
            return;
        };
        let forward = if self.settings.tunnel.contains(&packet.tuple().destination.addr) {
            self.tunnelled(now, &mut packet).then_some(Sender::Client)
        } else {
            self.served(now, &mut packet).then_some(Sender::Server)
        };
        let Some(sender) = forward else { return };
        let (range, offload) = (packet.range(), packet.offload());
        let len = range.len() as u64;
        let header = header_for(&buffer[range.clone()], offload).emit();
        let start = range.start - VirtioNetHeader::LEN;
        buffer[start..range.start].copy_from_slice(&header);
        let counts = &mut self.packets.counts;
        if self.edge.tun.send(&buffer[start..range.end]).is_err() {
            counts.write_failures += 1;
            return;
        }
        match sender {
            Sender::Client => {
                counts.from_tunnel += 1;
                counts.from_tunnel_bytes += len;
            }
            Sender::Server => {
                counts.to_clients += 1;
                counts.to_clients_bytes += len;
            }
        }
    }

    /// A packet out of the tunnel. Whether it goes on.
    fn tunnelled(&mut self, now: Time, packet: &mut TcpPacket<'_>) -> bool {
        let len = packet.bytes().len();
        let flow = match self.mappings.flow_of(packet) {
            Ok(flow) => flow,
            Err(stray) => {
                self.stray(stray);
                return false;
            }
        };
        let Some((id, connection)) = self.connections.of_flow(flow) else {
            if self.target.probe_arrived(flow, u16::try_from(len).unwrap_or(u16::MAX)) {
                self.packets.counts.probes += 1;
            } else {
                self.packets.counts.unknown_flows += 1;
            }
            return false;
        };
        if let Err(stray) = self.mappings.leave(packet) {
            self.stray(stray);
            return false;
        }
        connection.heard = now;
        match &mut connection.kind {
            Kind::Kernel => true,
            Kind::Mute { .. } => {
                self.packets.counts.mute += 1;
                false
            }
            Kind::Replay { replay, .. } => {
                let verdict = replay.client_packet(now, packet);
                self.obey(id, verdict)
            }
        }
    }

    /// A packet of a local server. Whether it goes on.
    fn served(&mut self, now: Time, packet: &mut TcpPacket<'_>) -> bool {
        let Some((id, Connection { kind: Kind::Replay { replay, .. }, .. })) =
            self.connections.of_inner(&packet.tuple().reversed())
        else {
            self.packets.counts.unknown_servers += 1;
            return false;
        };
        if replay.is_open() {
            let verdict = replay.server_packet(now, packet);
            return self.obey(id, verdict);
        }
        match replay.open(packet) {
            Opened::Ready => {
                self.connections.look_at(id, now + self.settings.idle_timeout);
                self.target.infused(now, id, Ok(()));
            }
            Opened::Refused(reason) => {
                self.remove(id);
                self.target.infused(now, id, Err(reason));
            }
            Opened::NotYet => self.packets.counts.mute += 1,
        }
        false
    }

    fn obey(&mut self, id: MigrationId, verdict: Verdict) -> bool {
        let Some(Connection { kind: Kind::Replay { replay, .. }, .. }) =
            self.connections.get_mut(id)
        else {
            return false;
        };
        match verdict {
            Verdict::Forward => {
                if let Some((how, _)) = replay.ended() {
                    self.end(id, how);
                }
                true
            }
            Verdict::Drop(Dropped::Mute) => {
                self.packets.counts.mute += 1;
                false
            }
            Verdict::Drop(Dropped::Untranslatable(_)) => {
                self.packets.counts.other += 1;
                false
            }
            Verdict::IntroduceAgain => {
                let packets = replay.introduction();
                packets.iter().for_each(|packet| self.packets.transmit(&self.edge.tun, packet));
                false
            }
        }
    }

    /// An ICMP error that a balancer has led here, about a packet that this machine has sent to a client.
    fn icmp(&mut self, packet: &[u8]) {
        let mut about_client = Vec::new();
        let flow = match self.mappings.leave_error(packet, &mut about_client) {
            Ok(flow) => flow,
            Err(stray) => return self.stray(stray),
        };
        let Ok(IcmpMessage::Error(error)) = icmp::parse_icmp(&about_client) else { return };
        let mut out = Vec::new();
        match self.connections.of_flow(flow) {
            Some((_, Connection { kind: Kind::Kernel, .. })) => out = about_client,
            Some((_, Connection { kind: Kind::Replay { replay, .. }, .. })) => {
                if let IcmpErrorKind::TooBig { mtu } = error.what {
                    let believed = replay.too_big(error.quoted_seq, mtu);
                    let counts = &mut self.packets.counts;
                    *(if believed { &mut counts.errors } else { &mut counts.other }) += 1;
                    return;
                }
                let source = addresses(packet).map(|(source, _)| source).ok();
                let Some(how) = source.and_then(|source| replay.error_for_server(source)) else {
                    return self.packets.counts.mute += 1;
                };
                if icmp::readdress_error(&about_client, &how, &mut out).is_err() {
                    return self.packets.counts.other += 1;
                }
            }
            _ => return self.packets.counts.mute += 1,
        }
        self.packets.counts.errors += 1;
        self.packets.transmit(&self.edge.tun, &out);
    }

    fn stray(&mut self, stray: Stray) {
        let counts = &mut self.packets.counts;
        match stray {
            Stray::Stranger => counts.strangers += 1,
            Stray::UnknownFlow | Stray::Version => counts.unknown_flows += 1,
            Stray::Elsewhere | Stray::NotAnError | Stray::Malformed(_) => counts.other += 1,
        }
    }
}
