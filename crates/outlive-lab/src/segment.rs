//! Cutting a super-segment into the segments that a wire would carry.
//!
//! The kernel hands over up to 64 KiB behind one header. A link that loses, doubles or reorders
//! must do so to single segments, or one stroke of chance would take 45 of them.

use outlive_net::tun::{GsoType, HeaderFlags, VirtioNetHeader};

const ETHERNET_LEN: usize = 14;
const TCP_FIN_PSH: u8 = 0x09;
const TCP_CWR: u8 = 0x80;

/// The frames that a wire would carry for `packet` (virtio header, then Ethernet frame). One that
/// is no super-segment, or none that is understood, comes back as it is.
pub(crate) fn split(packet: Vec<u8>) -> Vec<Vec<u8>> {
    match plan(&packet) {
        Some(plan) => plan.segments(&packet).collect(),
        None => vec![packet],
    }
}

/// Bytes that `packet` occupies on a wire, the headers of each segment included.
pub(crate) fn wire_len(packet: &[u8]) -> usize {
    let whole = packet.len().saturating_sub(VirtioNetHeader::LEN);
    plan(packet).map_or(whole, |plan| whole + (plan.count() - 1) * plan.headers)
}

/// Where things are in a super-segment, counted from the start of the Ethernet frame.
struct Plan {
    ipv6: bool,
    tcp: usize,
    headers: usize,
    mss: usize,
    payload: usize,
}

fn plan(packet: &[u8]) -> Option<Plan> {
    let header = VirtioNetHeader::parse(packet.first_chunk()?);
    let ipv6 = match header.gso_type.base() {
        GsoType::TCP_V4 => false,
        GsoType::TCP_V6 => true,
        _ => return None,
    };
    let frame = &packet[VirtioNetHeader::LEN..];
    let (tcp, mss) = (usize::from(header.csum_start), usize::from(header.gso_size));
    let data_offset = usize::from(frame.get(tcp + 12)? >> 4) * 4;
    let headers = tcp + data_offset;
    let ip_len = if ipv6 { 40 } else { 20 };
    let payload = frame.len().checked_sub(headers)?;
    let sane = header.flags.contains(HeaderFlags::NEEDS_CSUM)
        && tcp >= ETHERNET_LEN + ip_len
        && data_offset >= 20
        && mss > 0
        && payload > mss;
    sane.then_some(Plan { ipv6, tcp, headers, mss, payload })
}

impl Plan {
    fn count(&self) -> usize {
        self.payload.div_ceil(self.mss)
    }

    fn segments<'a>(&'a self, packet: &'a [u8]) -> impl Iterator<Item = Vec<u8>> + 'a {
        let (headers, data) = packet[VirtioNetHeader::LEN..].split_at(self.headers);
        data.chunks(self.mss).enumerate().map(move |(index, data)| {
            let mut segment = Vec::with_capacity(VirtioNetHeader::LEN + headers.len() + data.len());
            segment.extend_from_slice(&self.virtio_header());
            segment.extend_from_slice(headers);
            segment.extend_from_slice(data);
            let frame = &mut segment[VirtioNetHeader::LEN..];
            self.adjust_ip(index, frame);
            self.adjust_tcp(index, frame);
            segment
        })
    }

    /// The checksum stays partial: the kernel at the far end completes it if need be.
    fn virtio_header(&self) -> [u8; VirtioNetHeader::LEN] {
        VirtioNetHeader {
            flags: HeaderFlags::NEEDS_CSUM,
            gso_type: GsoType::NONE,
            hdr_len: 0,
            gso_size: 0,
            csum_start: self.tcp as u16,
            csum_offset: 16,
        }
        .emit()
    }

    fn adjust_ip(&self, index: usize, frame: &mut [u8]) {
        let len = frame.len() - ETHERNET_LEN;
        let tcp_len = frame.len() - self.tcp;
        if self.ipv6 {
            put16(frame, ETHERNET_LEN + 4, (len - 40) as u16);
        } else {
            put16(frame, ETHERNET_LEN + 2, len as u16);
            let id = get16(frame, ETHERNET_LEN + 4).wrapping_add(index as u16);
            put16(frame, ETHERNET_LEN + 4, id);
            put16(frame, ETHERNET_LEN + 10, 0);
            let checksum = !fold(sum(&frame[ETHERNET_LEN..self.tcp]));
            put16(frame, ETHERNET_LEN + 10, checksum);
        }
        let addresses = if self.ipv6 { 8..40 } else { 12..20 };
        let addresses = &frame[ETHERNET_LEN + addresses.start..ETHERNET_LEN + addresses.end];
        let pseudo_header = fold(sum(addresses) + 6 + tcp_len as u64);
        put16(frame, self.tcp + 16, pseudo_header);
    }

    fn adjust_tcp(&self, index: usize, frame: &mut [u8]) {
        let first: [u8; 4] = frame[self.tcp + 4..self.tcp + 8].try_into().expect("4 bytes");
        let sequence = u32::from_be_bytes(first).wrapping_add((index * self.mss) as u32);
        frame[self.tcp + 4..self.tcp + 8].copy_from_slice(&sequence.to_be_bytes());
        let flags = &mut frame[self.tcp + 13];
        if index + 1 < self.count() {
            *flags &= !TCP_FIN_PSH;
        }
        if index > 0 {
            *flags &= !TCP_CWR;
        }
    }
}

fn get16(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

fn put16(frame: &mut [u8], at: usize, value: u16) {
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// The sum of RFC 1071 over an even number of bytes, not folded.
fn sum(data: &[u8]) -> u64 {
    data.chunks_exact(2).map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A super-segment of three and a half segments of 1000 bytes over IPv4.
    fn super_segment() -> Vec<u8> {
        let header = VirtioNetHeader {
            flags: HeaderFlags::NEEDS_CSUM,
            gso_type: GsoType(GsoType::TCP_V4.0 | GsoType::ECN),
            hdr_len: 54,
            gso_size: 1000,
            csum_start: 34,
            csum_offset: 16,
        };
        let mut packet = header.emit().to_vec();
        packet.extend_from_slice(&[0xee; 12]);
        packet.extend_from_slice(&[0x08, 0x00]);
        packet.extend_from_slice(&[0x45, 0, 0x0d, 0xd4, 0xff, 0xff, 0x40, 0, 64, 6, 0, 0]);
        packet.extend_from_slice(&[10, 77, 0, 1, 10, 77, 0, 2]);
        packet.extend_from_slice(&[0x30, 0x39, 0, 80, 0xff, 0xff, 0xff, 0xf0, 0, 0, 0, 9]);
        packet.extend_from_slice(&[0x50, 0x99, 1, 0, 0, 0, 0, 0]);
        packet.extend((0..3500u32).map(|at| at as u8));
        packet
    }

    #[test]
    fn segments_carry_the_same_bytes_under_their_own_numbers() {
        let packet = super_segment();
        let segments = split(packet.clone());
        assert_eq!(segments.len(), 4);
        let mut data = Vec::new();
        for (index, segment) in segments.iter().enumerate() {
            let frame = &segment[VirtioNetHeader::LEN..];
            let length = if index == 3 { 500 } else { 1000 };
            assert_eq!(frame.len(), 54 + length);
            assert_eq!(get16(frame, 16) as usize, 40 + length, "total length");
            assert_eq!(get16(frame, 18), 0xffffu16.wrapping_add(index as u16), "identification");
            assert_eq!(fold(sum(&frame[14..34])), 0xffff, "header checksum");
            let sequence = u32::from_be_bytes(frame[38..42].try_into().unwrap());
            assert_eq!(sequence, 0xffff_fff0u32.wrapping_add(index as u32 * 1000));
            assert_eq!(frame[47] & TCP_FIN_PSH, if index == 3 { TCP_FIN_PSH } else { 0 });
            assert_eq!(frame[47] & TCP_CWR, if index == 0 { TCP_CWR } else { 0 });
            assert_eq!(fold(sum(&frame[26..34]) + 6 + (20 + length as u64)), get16(frame, 50));
            data.extend_from_slice(&frame[54..]);
        }
        assert_eq!(data, packet[VirtioNetHeader::LEN + 54..]);
    }

    #[test]
    fn the_length_on_the_wire_counts_every_header() {
        assert_eq!(wire_len(&super_segment()), 3500 + 4 * 54);
        assert_eq!(wire_len(&[0; 10 + 60]), 60);
    }

    #[test]
    fn what_is_no_super_segment_stays_as_it_is() {
        for packet in [vec![], vec![0; 10], vec![0; 70], super_segment()[..80].to_vec()] {
            assert_eq!(split(packet.clone()), [packet]);
        }
    }
}
