//! What a TUN device with offloads does to the packets that a node writes: it completes partial checksums
//! and cuts super-segments.

use outlive_tcp::wire::{Checksum, Flags, Offload, Segmentation};

use crate::packet::Seen;

/// The packets that go onto the wire.
pub(crate) fn transmit(mut packet: Vec<u8>, offload: Offload) -> Vec<Vec<u8>> {
    let Some(seen) = Seen::of(&mut packet) else { return vec![packet] };
    let size = match offload.segmentation {
        Segmentation::Tcp { size, .. } => usize::from(size).max(1),
        Segmentation::None => {
            if offload.checksum == Checksum::Partial {
                complete(&mut packet, &seen);
            }
            return vec![packet];
        }
    };
    let (headers, payload) = packet.split_at(seen.payload.start);
    let count = payload.len().div_ceil(size);
    let cut = |(i, chunk): (usize, &[u8])| {
        let mut out = headers.to_vec();
        out.extend_from_slice(chunk);
        let tcp = tcp_offset(&out);
        let seq = seen.seq + (i * size) as u32;
        out[tcp + 4..tcp + 8].copy_from_slice(&seq.0.to_be_bytes());
        let last = Flags::FIN | Flags::PSH;
        if i + 1 < count {
            out[tcp + 13] &= !(last.0 as u8);
        }
        if i > 0 {
            out[tcp + 13] &= !(Flags::CWR.0 as u8);
        }
        set_length(&mut out);
        complete(&mut out, &seen);
        out
    };
    payload[..seen.len()].chunks(size).enumerate().map(cut).collect()
}

fn is_v4(packet: &[u8]) -> bool {
    packet[0] >> 4 == 4
}

fn tcp_offset(packet: &[u8]) -> usize {
    if is_v4(packet) { usize::from(packet[0] & 15) * 4 } else { 40 }
}

fn set_length(packet: &mut [u8]) {
    if is_v4(packet) {
        let length = packet.len() as u16;
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet[10..12].fill(0);
        let sum = checksum(&packet[..tcp_offset(packet)], 0);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        let length = packet.len() as u16 - 40;
        packet[4..6].copy_from_slice(&length.to_be_bytes());
    }
}

/// Writes the TCP checksum.
fn complete(packet: &mut [u8], seen: &Seen) {
    let tcp = tcp_offset(packet);
    packet[tcp + 16..tcp + 18].fill(0);
    let addresses = if is_v4(packet) { &packet[12..20] } else { &packet[8..40] };
    let mut pseudo = addresses.to_vec();
    pseudo.extend((packet.len() as u32 - tcp as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, 6]);
    debug_assert_eq!(seen.tuple.source.addr.is_ipv4(), is_v4(packet));
    let sum = checksum(&packet[tcp..], u64::from(!checksum(&pseudo, 0)));
    packet[tcp + 16..tcp + 18].copy_from_slice(&sum.to_be_bytes());
}

/// RFC 1071.
pub(crate) fn checksum(bytes: &[u8], start: u64) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    let mut sum = start + words.sum::<u64>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
