//! What every packet that leaves a node must be, computed slowly and without the code under test.

use std::net::IpAddr;

use outlive_tcp::wire::{Checksum, Endpoint, FourTuple, Offload, Segmentation};

/// The ones' complement sum (RFC 1071).
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The pseudo-header of what `packet` carries behind `header_len` bytes of IP header.
pub(crate) fn pseudo_header(packet: &[u8], header_len: usize, protocol: u8) -> Vec<u8> {
    let len = packet.len() - header_len;
    if packet[0] >> 4 == 4 {
        let mut pseudo = packet[12..20].to_vec();
        pseudo.extend([0, protocol]);
        pseudo.extend((len as u16).to_be_bytes());
        pseudo
    } else {
        let mut pseudo = packet[8..40].to_vec();
        pseudo.extend((len as u32).to_be_bytes());
        pseudo.extend([0, 0, 0, protocol]);
        pseudo
    }
}

/// Where the payload of an IP packet begins, and its protocol; `None` for IPv6 with extension headers that are
/// not hop-by-hop, destination or routing options.
pub(crate) fn payload_of(packet: &[u8]) -> Option<(usize, u8)> {
    if packet[0] >> 4 == 4 {
        return Some((usize::from(packet[0] & 15) * 4, packet[9]));
    }
    let (mut at, mut protocol) = (40, packet[6]);
    while matches!(protocol, 0 | 43 | 60) {
        let (next, len) = (*packet.get(at)?, *packet.get(at + 1)?);
        protocol = next;
        at += 8 + usize::from(len) * 8;
    }
    Some((at, protocol))
}

/// Panics if a packet's lengths or checksums are not what its receiver, or the device on the way, wants.
pub(crate) fn assert_sound(packet: &[u8], offload: Offload) {
    let version = packet[0] >> 4;
    if version == 4 {
        assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
    } else {
        assert_eq!(version, 6, "an IP packet");
        assert_eq!(40 + usize::from(u16::from_be_bytes([packet[4], packet[5]])), packet.len());
    }
    let (header_len, protocol) = payload_of(packet).expect("headers as they came in");
    let payload = &packet[header_len..];
    match protocol {
        6 => assert_sound_tcp(packet, header_len, offload),
        1 => assert_eq!(sum(payload), 0xffff, "ICMP checksum"),
        58 => {
            let pseudo = pseudo_header(packet, header_len, 58);
            assert_eq!(sum(&[&pseudo, payload].concat()), 0xffff, "ICMPv6 checksum");
        }
        other => panic!("a packet of protocol {other}"),
    }
}

fn assert_sound_tcp(packet: &[u8], header_len: usize, offload: Offload) {
    let segment = &packet[header_len..];
    let data_offset = usize::from(segment[12] >> 4) * 4;
    assert!((20..=segment.len()).contains(&data_offset), "data offset");
    let pseudo = pseudo_header(packet, header_len, 6);
    if offload.checksum == Checksum::Partial {
        let field = u16::from_be_bytes([segment[16], segment[17]]);
        assert_eq!(field, sum(&pseudo), "partial checksum");
    } else {
        assert_eq!(sum(&[&pseudo, segment].concat()), 0xffff, "TCP checksum");
    }
    if let Segmentation::Tcp { size, .. } = offload.segmentation {
        assert_eq!(offload.checksum, Checksum::Partial, "devices cut only what they sum");
        assert!(size > 0, "segments of nothing");
    }
}

/// The sum over an IPv4 header; 0xffff if its checksum is right, and for IPv6, which has none.
pub(crate) fn header_sum(packet: &[u8]) -> u16 {
    let len = usize::from(packet[0] & 15) * 4;
    if packet[0] >> 4 == 4 { sum(&packet[..len]) } else { 0xffff }
}

/// A TCP packet with right lengths and checksums around a TCP header without its ends and checksum.
pub(crate) fn tcp(tuple: FourTuple, numbers: Numbers, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let options = &options[..options.len().min(40) / 4 * 4];
    let mut segment = Vec::with_capacity(60 + payload.len());
    segment.extend(tuple.source.port.to_be_bytes());
    segment.extend(tuple.destination.port.to_be_bytes());
    segment.extend(numbers.seq.to_be_bytes());
    segment.extend(numbers.ack.to_be_bytes());
    let offset = (5 + options.len() as u16 / 4) << 12;
    segment.extend((offset | numbers.flags & 0xfff).to_be_bytes());
    segment.extend(numbers.window.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend(options);
    segment.extend(payload);
    let mut packet = ip(tuple.source, tuple.destination, 6, &segment);
    fix_checksums(&mut packet, Checksum::Full);
    packet
}

/// What a TCP header says besides its ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u16,
    pub(crate) window: u16,
}

/// An IP packet, checksum of its own header right.
pub(crate) fn ip(source: Endpoint, destination: Endpoint, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(40 + payload.len());
    match (source.addr, destination.addr) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            packet.extend([0x45, 0]);
            packet.extend((20 + payload.len() as u16).to_be_bytes());
            packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            let checksum = !sum(&packet);
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend((payload.len() as u16).to_be_bytes());
            packet.extend([protocol, 64]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
        }
        _ => unreachable!("both ends of a packet are of one version"),
    }
    packet.extend(payload);
    packet
}

/// Makes the checksums of a packet right, as far as it is a packet at all.
pub(crate) fn fix_checksums(packet: &mut [u8], checksum: Checksum) {
    let version = packet.first().map_or(0, |b| b >> 4);
    if !(version == 4 && packet.len() >= 20 || version == 6 && packet.len() >= 40) {
        return;
    }
    if version == 4 {
        let len = (usize::from(packet[0] & 15) * 4).clamp(20, packet.len());
        packet[10..12].fill(0);
        let checksum = !sum(&packet[..len]);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    let Some((at, protocol)) = payload_of(packet).filter(|(at, _)| *at <= packet.len()) else {
        return;
    };
    let offset = match protocol {
        6 => 16,
        1 | 58 => 2,
        _ => return,
    };
    if packet.len() < at + offset + 2 {
        return;
    }
    let pseudo = if protocol == 1 { Vec::new() } else { pseudo_header(packet, at, protocol) };
    let field = at + offset..at + offset + 2;
    packet[field.clone()].fill(0);
    let value = match checksum {
        Checksum::Partial if protocol == 6 => sum(&pseudo),
        _ => !sum(&[&pseudo, &packet[at..]].concat()),
    };
    packet[field].copy_from_slice(&value.to_be_bytes());
}
