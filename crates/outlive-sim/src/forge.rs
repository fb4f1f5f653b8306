//! What comes from strangers, or comes again: packets that no host of the world sends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use outlive_tcp::{
    segment::{DEFAULT_HOP_LIMIT, Segment},
    seq::Seq,
    wire::{Endpoint, Flags, FourTuple, Options, Timestamps},
};

use crate::{
    network::Place,
    setup::Forgery,
    world::{Happening, World},
};

impl World {
    /// Sends what is forged to whichever node answers.
    pub(crate) fn forge(&mut self, forgery: Forgery) {
        for packet in self.forged(forgery) {
            for node in 0..2 {
                let answers = self.machines[node].as_ref().is_some_and(|m| m.answers());
                if answers && !self.network.is_cut(Place::Host(0), Place::Node(node)) {
                    let packet = packet.clone();
                    self.capture(&packet);
                    self.after(self.network.link.delay, Happening::ToNode { node, packet });
                }
            }
        }
    }

    fn forged(&mut self, forgery: Forgery) -> Vec<Vec<u8>> {
        let ends = self.wire.living(&self.ledger);
        match forgery {
            Forgery::ResetInside | Forgery::ResetOutside => {
                let distance = if forgery == Forgery::ResetInside { 300 } else { 1 << 30 };
                self.situations.extend((!ends.is_empty()).then_some("forged reset"));
                for (from, _) in &ends {
                    self.wire.forged_reset(*from);
                }
                ends.iter().map(|(from, next)| made(*from, *next + distance, Flags::RST)).collect()
            }
            Forgery::Syn => {
                let is_client = |from: &FourTuple| self.hosts[0].address == from.source.addr;
                let clients: Vec<_> = ends.iter().filter(|(from, _)| is_client(from)).collect();
                self.situations.extend((!clients.is_empty()).then_some("forged syn"));
                let syn = |from| made(from, Seq(self.rng.number() as u32), Flags::SYN);
                clients.into_iter().map(|(from, _)| *from).map(syn).collect()
            }
            Forgery::Stray => (0..8).map(|i| self.stray(i, Flags::ACK)).collect(),
            Forgery::Flood(count) => {
                self.situations.insert("flooded with syns");
                (0..count).map(|i| self.stray(i, Flags::SYN)).collect()
            }
            Forgery::Unreachable => {
                let recent = self.last_sent.values().filter(|packet| self.wire.is_recent(packet));
                recent.filter_map(|packet| unreachable(packet)).collect()
            }
            Forgery::FirstWords => {
                self.situations.extend((!self.first_words.is_empty()).then_some("old duplicates"));
                // Against those of an earlier connection from the same port only timestamps would help.
                let current =
                    |(tuple, seq): &(FourTuple, u32)| self.wire.is_first_byte(*tuple, Seq(*seq));
                let words = self.first_words.iter().filter(|(key, _)| current(key));
                words.map(|(_, packet)| packet.clone()).collect()
            }
        }
    }

    /// A segment of a client that does not exist.
    fn stray(&mut self, number: u16, flags: Flags) -> Vec<u8> {
        let listener = self.setup.configs[0].listeners[0].address;
        let [high, low] = number.to_be_bytes();
        let address: IpAddr = match listener.addr {
            IpAddr::V4(_) => Ipv4Addr::new(10, 9, high, low).into(),
            IpAddr::V6(_) => Ipv6Addr::new(0xfd00, 0, 0, 9, 0, 0, 0, number).into(),
        };
        let port = 1_024 + self.rng.below(60_000) as u16;
        let from = FourTuple::new(Endpoint::new(address, port), listener);
        made(from, Seq(self.rng.number() as u32), flags)
    }
}

/// A bare segment.
pub(crate) fn made(tuple: FourTuple, seq: Seq, flags: Flags) -> Vec<u8> {
    let syn = flags.contains(Flags::SYN);
    let timestamps = syn.then_some(Timestamps { value: 77, echo: 0 });
    let segment = Segment {
        tuple,
        seq,
        ack: flags.contains(Flags::ACK).then_some(Seq(!seq.0)),
        flags,
        window: 1_000,
        options: Options { mss: syn.then_some(1_460), timestamps, ..Options::default() },
        payload: &[],
        hop_limit: DEFAULT_HOP_LIMIT,
    };
    let mut packet = Vec::new();
    segment.emit(&mut packet);
    packet
}

/// What a router says that has no way for `packet` (RFC 792; RFC 4443, section 3.1).
fn unreachable(packet: &[u8]) -> Option<Vec<u8>> {
    let v4 = packet[0] >> 4 == 4;
    error(packet, if v4 { [3, 1] } else { [1, 0] }, 0)
}

/// What a router says for which `packet` is too long (RFC 1191; RFC 8201).
pub(crate) fn too_big(packet: &[u8], mtu: u16) -> Option<Vec<u8>> {
    let v4 = packet[0] >> 4 == 4;
    error(packet, if v4 { [3, 4] } else { [2, 0] }, mtu)
}

/// A packet between tunnel addresses.
pub(crate) fn through_tunnel(
    from: IpAddr,
    to: IpAddr,
    (upper, lower): (u16, u16),
    seq: u32,
    flags: Flags,
) -> Vec<u8> {
    made(FourTuple::new(Endpoint::new(from, upper), Endpoint::new(to, lower)), Seq(seq), flags)
}

/// An ICMP error about `packet`.
fn error(packet: &[u8], [kind, code]: [u8; 2], mtu: u16) -> Option<Vec<u8>> {
    let v4 = packet[0] >> 4 == 4;
    let (headers, field) = if v4 { (20, 12..20) } else { (40, 8..40) };
    let quote = &packet[..packet.len().min(headers + 40)];
    let [high, low] = mtu.to_be_bytes();
    let mut message = vec![kind, code, 0, 0, 0, 0, high, low];
    message.extend_from_slice(quote);
    let addresses = packet.get(field.clone())?;
    let source = &addresses[..addresses.len() / 2];

    let mut out = vec![0; headers];
    let total = (headers + message.len()) as u16;
    if v4 {
        out[0] = 0x45;
        out[2..4].copy_from_slice(&total.to_be_bytes());
        (out[8], out[9]) = (64, 1);
    } else {
        out[0] = 0x60;
        out[4..6].copy_from_slice(&(message.len() as u16).to_be_bytes());
        (out[6], out[7]) = (58, 64);
    }
    // A router in between: it has the last address of the receiver's network.
    let half = field.len() / 2;
    out[field.start..field.start + half].copy_from_slice(source);
    out[field.start + half - 1] = 254;
    out[field.start + half..field.end].copy_from_slice(source);
    let pseudo = if v4 {
        let sum = crate::device::checksum(&out, 0);
        out[10..12].copy_from_slice(&sum.to_be_bytes());
        0
    } else {
        let mut pseudo = out[field].to_vec();
        pseudo.extend((message.len() as u32).to_be_bytes());
        pseudo.extend([0, 0, 0, 58]);
        u64::from(!crate::device::checksum(&pseudo, 0))
    };
    let sum = crate::device::checksum(&message, pseudo);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    out.extend(message);
    Some(out)
}
