//! What tests share: packets built byte by byte, strategies for them, and a plain checksum to judge
//! them by. None of it uses the code under test for what it checks.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Range,
};

use proptest::{collection::vec, prelude::*};

use crate::wire::{Checksum, Endpoint, FourTuple, Malformed, Offload, TcpPacket};

/// Bytes before a packet in the buffers of tests.
pub(crate) const HEADROOM: usize = 16;

/// A TCP packet as its parts. Lengths and checksums come with [`build`](Self::build).
#[derive(Clone, Debug)]
pub(crate) struct Raw {
    pub(crate) tuple: FourTuple,
    /// IPv4 options (a multiple of 4) or IPv6 extension headers (a multiple of 8).
    pub(crate) extensions: Vec<u8>,
    /// The `next header` of an IPv6 header with extensions.
    pub(crate) next_header: u8,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u16,
    pub(crate) window: u16,
    /// A multiple of 4.
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Raw {
    /// A segment with ACK and nothing special.
    pub(crate) fn plain(tuple: FourTuple) -> Self {
        Raw {
            tuple,
            extensions: vec![],
            next_header: 6,
            seq: 1000,
            ack: 2000,
            flags: 0x10,
            window: 500,
            options: vec![],
            payload: b"payload".to_vec(),
        }
    }

    /// The packet, with its TCP checksum complete, or the sum of the pseudo-header for `Partial`.
    pub(crate) fn build(&self, checksum: Checksum) -> Vec<u8> {
        let tcp_len = 20 + self.options.len() + self.payload.len();
        let mut packet = self.ip_header(tcp_len);
        let tcp = packet.len();
        packet.extend(self.tuple.source.port.to_be_bytes());
        packet.extend(self.tuple.destination.port.to_be_bytes());
        packet.extend(self.seq.to_be_bytes());
        packet.extend(self.ack.to_be_bytes());
        let data_offset = (5 + self.options.len() as u16 / 4) << 12;
        packet.extend((data_offset | self.flags).to_be_bytes());
        packet.extend(self.window.to_be_bytes());
        packet.extend([0, 0, 0x12, 0x34]);
        packet.extend(&self.options);
        packet.extend(&self.payload);
        let pseudo = pseudo_header(&packet, 6, tcp_len);
        let field = match checksum {
            Checksum::Partial => plain_sum(&pseudo),
            _ => !plain_sum(&[&pseudo[..], &packet[tcp..]].concat()),
        };
        packet[tcp + 16..tcp + 18].copy_from_slice(&field.to_be_bytes());
        packet
    }

    fn ip_header(&self, tcp_len: usize) -> Vec<u8> {
        let mut header = vec![];
        match (self.tuple.source.addr, self.tuple.destination.addr) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header_len = 20 + self.extensions.len();
                header.extend([0x40 | (header_len / 4) as u8, 0x03]);
                header.extend(((header_len + tcp_len) as u16).to_be_bytes());
                header.extend([0xab, 0xcd, 0x40, 0, 61, 6, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header.extend(&self.extensions);
                let checksum = !plain_sum(&header);
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                header.extend([0x60, 0x31, 0x23, 0x45]);
                header.extend(((self.extensions.len() + tcp_len) as u16).to_be_bytes());
                header.extend([self.next_header, 61]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header.extend(&self.extensions);
            }
            _ => panic!("ends of different IP versions"),
        }
        header
    }
}

/// An endpoint from its usual notation.
pub(crate) fn end(text: &str) -> Endpoint {
    text.parse::<SocketAddr>().unwrap().into()
}

/// A four-tuple from the usual notation of its ends.
pub(crate) fn tuple(source: &str, destination: &str) -> FourTuple {
    FourTuple::new(end(source), end(destination))
}

/// Bytes from hexadecimal digits; white space does not count.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// A buffer with `packet` behind [`HEADROOM`].
pub(crate) fn buffer(packet: &[u8]) -> Vec<u8> {
    [&[0xee; HEADROOM], packet].concat()
}

/// Parses what [`buffer`] made.
pub(crate) fn parse(buffer: &mut [u8], checksum: Checksum) -> Result<TcpPacket<'_>, Malformed> {
    let end = buffer.len();
    TcpPacket::parse(buffer, HEADROOM, end, Offload { checksum, ..Offload::default() })
}

/// The ones' complement sum, as RFC 1071 describes it and no faster.
pub(crate) fn plain_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The pseudo-header of an IP packet's payload of `len` bytes.
pub(crate) fn pseudo_header(packet: &[u8], protocol: u8, len: usize) -> Vec<u8> {
    let mut pseudo = packet[addresses(packet)].to_vec();
    if packet[0] >> 4 == 4 {
        pseudo.extend([0, protocol]);
        pseudo.extend((len as u16).to_be_bytes());
    } else {
        pseudo.extend((len as u32).to_be_bytes());
        pseudo.extend([0, 0, 0, protocol]);
    }
    pseudo
}

/// Asserts that the lengths and checksums of a TCP packet are what a receiver wants, or what a
/// device that is to complete the checksum wants. `ip_header_len` is given, since it is not what is
/// tested.
pub(crate) fn assert_sound(packet: &[u8], ip_header_len: usize, checksum: Checksum) {
    if packet[0] >> 4 == 4 {
        assert_eq!(plain_sum(&packet[..ip_header_len]), 0xffff, "IPv4 header checksum");
        assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
    } else {
        assert_eq!(40 + usize::from(u16::from_be_bytes([packet[4], packet[5]])), packet.len());
    }
    let segment = &packet[ip_header_len..];
    let pseudo = pseudo_header(packet, 6, segment.len());
    if checksum == Checksum::Partial {
        let field = u16::from_be_bytes([segment[16], segment[17]]);
        assert_eq!(field, plain_sum(&pseudo), "partial checksum");
    } else {
        assert_eq!(plain_sum(&[&pseudo, segment].concat()), 0xffff, "TCP checksum");
    }
}

fn addresses(packet: &[u8]) -> Range<usize> {
    if packet[0] >> 4 == 4 { 12..20 } else { 8..40 }
}

/// Four-tuples of either IP version.
pub(crate) fn any_tuple() -> impl Strategy<Value = FourTuple> {
    any::<bool>().prop_flat_map(tuple_of)
}

/// Four-tuples of IPv4 or IPv6.
pub(crate) fn tuple_of(v4: bool) -> impl Strategy<Value = FourTuple> {
    any::<([u8; 16], [u8; 16], u16, u16)>().prop_map(move |(a, b, source_port, port)| {
        let addr = |octets: [u8; 16]| -> IpAddr {
            if v4 { <[u8; 4]>::try_from(&octets[..4]).unwrap().into() } else { octets.into() }
        };
        FourTuple::new(Endpoint::new(addr(a), source_port), Endpoint::new(addr(b), port))
    })
}

/// Options regions that parse: timestamps and SACK blocks at most once, at any offset, among NOPs
/// and options that mean nothing.
pub(crate) fn any_options() -> impl Strategy<Value = Vec<u8>> {
    let number = || prop_oneof![any::<u32>(), Just(0u32), Just(u32::MAX), Just(0xffff_0000u32)];
    let option = |kind: u8, data: Vec<u8>| [&[kind, data.len() as u8 + 2], &data[..]].concat();
    let words = |words: Vec<u32>| words.iter().flat_map(|word| word.to_be_bytes()).collect();
    let timestamps = vec(number(), 2).prop_map(move |numbers| option(8, words(numbers)));
    let sack = (1usize..=4)
        .prop_flat_map(move |blocks| vec(number(), 2 * blocks))
        .prop_map(move |edges| option(5, words(edges)));
    let unknown = (prop_oneof![Just(8u8), Just(5), 60u8..], vec(any::<u8>(), 0..6))
        .prop_map(move |(kind, data)| option(kind, data));
    let nops = || (0usize..4).prop_map(|count| vec![1u8; count]);
    let layout = (nops(), timestamps, nops(), sack, nops(), unknown, any::<[bool; 4]>());
    layout.prop_map(|(a, timestamps, b, sack, c, unknown, [with_ts, with_sack, odd, end])| {
        let mut region = vec![];
        let mut append = |piece: &[u8]| {
            if region.len() + piece.len() <= 40 {
                region.extend(piece);
            }
        };
        append(&a);
        if with_ts {
            append(&timestamps);
        }
        append(&b);
        if odd {
            append(&unknown);
        }
        if with_sack {
            append(&sack);
        }
        append(&c);
        let padding = if end { 0 } else { 1 };
        region.resize(region.len().next_multiple_of(4), padding);
        region
    })
}

/// Sound packets of either IP version, IPv4 with options and IPv6 with extension headers among
/// them.
pub(crate) fn any_packet() -> impl Strategy<Value = Raw> {
    let numbers = (any::<u32>(), any::<u32>(), 0u16..0x1000, any::<u16>());
    (any_tuple(), 0usize..3, numbers, any_options(), vec(any::<u8>(), 0..50)).prop_map(
        |(tuple, extensions, (seq, ack, flags, window), options, payload)| {
            let mut raw = Raw { seq, ack, flags, window, options, payload, ..Raw::plain(tuple) };
            if tuple.source.addr.is_ipv4() {
                raw.extensions = vec![1; 4 * extensions]; // NOPs
            } else if extensions > 0 {
                // Destination options, each of them one PadN; TCP after the last.
                raw.next_header = 60;
                for left in (0..extensions).rev() {
                    let next = if left > 0 { 60 } else { 6 };
                    raw.extensions.extend([next, 0, 1, 4, 0, 0, 0, 0]);
                }
            }
            raw
        },
    )
}
