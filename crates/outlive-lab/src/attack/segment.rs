//! A TCP segment in an Ethernet frame, written and read by hand: a forger's tools must be able to
//! write what no proper library would.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use outlive_net::MacAddress;

/// Flags of the TCP header (RFC 9293, section 3.1).
pub const FIN: u8 = 0x01;
/// See [`FIN`].
pub const SYN: u8 = 0x02;
/// See [`FIN`].
pub const RST: u8 = 0x04;
/// See [`FIN`].
pub const PSH: u8 = 0x08;
/// See [`FIN`].
pub const ACK: u8 = 0x10;

const ETHERNET_LEN: usize = 14;
const TCP_LEN: usize = 20;

/// What a forger decides about a segment. It has no options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Where it claims to come from.
    pub from: SocketAddr,
    /// Where it goes; of the same IP version.
    pub to: SocketAddr,
    /// SEG.SEQ.
    pub seq: u32,
    /// SEG.ACK; without meaning if `flags` has no [`ACK`].
    pub ack: u32,
    /// The flags.
    pub flags: u8,
    /// Payload bytes.
    pub payload: Vec<u8>,
}

impl Segment {
    /// The frame that carries it between these stations, checksums included. Nothing if the two
    /// addresses are not of the same IP version.
    pub fn to_frame(&self, from: MacAddress, to: MacAddress) -> Option<Vec<u8>> {
        let ethertype: u16 = if self.from.is_ipv4() { 0x0800 } else { 0x86dd };
        let packet = self.to_packet()?;
        Some([&to.0[..], &from.0, &ethertype.to_be_bytes(), &packet].concat())
    }

    /// The IP packet that carries it, checksums included; nothing likewise.
    pub fn to_packet(&self) -> Option<Vec<u8>> {
        let tcp_len = (TCP_LEN + self.payload.len()) as u16;
        let (mut ip, addresses) = match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0];
                ip[2..4].copy_from_slice(&(20 + tcp_len).to_be_bytes());
                let addresses = [from.octets(), to.octets()].concat();
                ip.extend_from_slice(&addresses);
                let checksum = checksum(0, &ip);
                ip[10..12].copy_from_slice(&checksum.to_be_bytes());
                (ip, addresses)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut ip = vec![0x60, 0, 0, 0, 0, 0, 6, 64];
                ip[4..6].copy_from_slice(&tcp_len.to_be_bytes());
                let addresses = [from.octets(), to.octets()].concat();
                ip.extend_from_slice(&addresses);
                (ip, addresses)
            }
            _ => return None,
        };
        let mut tcp = Vec::with_capacity(usize::from(tcp_len));
        tcp.extend_from_slice(&self.from.port().to_be_bytes());
        tcp.extend_from_slice(&self.to.port().to_be_bytes());
        tcp.extend_from_slice(&self.seq.to_be_bytes());
        tcp.extend_from_slice(&self.ack.to_be_bytes());
        tcp.extend_from_slice(&[0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend_from_slice(&self.payload);
        let pseudo_header = sum(&addresses) + 6 + u64::from(tcp_len);
        let checksum = checksum(pseudo_header, &tcp);
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
        ip.extend_from_slice(&tcp);
        Some(ip)
    }

    /// What a frame carries, if it is TCP over IP without extension headers; and the sequence
    /// number after it. Only the headers need be there: the payload is left out.
    pub fn parse(frame: &[u8]) -> Option<(Self, u32)> {
        let (segment, payload) = Self::parse_headers(frame.get(ETHERNET_LEN..)?)?;
        let flags = u32::from(segment.flags & SYN != 0) + u32::from(segment.flags & FIN != 0);
        let next = segment.seq.wrapping_add(payload.len() as u32).wrapping_add(flags);
        Some((segment, next))
    }

    /// The same with as much of the payload as the frame still has.
    pub fn captured(frame: &[u8]) -> Option<(Self, u32)> {
        let (segment, next) = Self::parse(frame)?;
        let packet = &frame[ETHERNET_LEN..];
        let payload = Self::parse_headers(packet)?.1;
        let there = packet.get(payload.start..payload.end.min(packet.len())).unwrap_or_default();
        Some((Self { payload: there.to_vec(), ..segment }, next))
    }

    /// What a whole packet carries, its payload included.
    pub fn parse_packet(packet: &[u8]) -> Option<Self> {
        let (segment, payload) = Self::parse_headers(packet)?;
        Some(Self { payload: packet.get(payload)?.to_vec(), ..segment })
    }

    /// The same without the payload, and where in the packet that is, or would be.
    fn parse_headers(packet: &[u8]) -> Option<(Self, Range<usize>)> {
        let version = packet.first()? >> 4;
        let (from, to, ip_len, packet_len): (IpAddr, IpAddr, usize, usize) = match version {
            4 if packet.len() >= 20 && packet[9] == 6 => (
                <[u8; 4]>::try_from(&packet[12..16]).ok()?.into(),
                <[u8; 4]>::try_from(&packet[16..20]).ok()?.into(),
                usize::from(packet[0] & 15) * 4,
                usize::from(u16::from_be_bytes([packet[2], packet[3]])),
            ),
            6 if packet.len() >= 40 && packet[6] == 6 => (
                <[u8; 16]>::try_from(&packet[8..24]).ok()?.into(),
                <[u8; 16]>::try_from(&packet[24..40]).ok()?.into(),
                40,
                40 + usize::from(u16::from_be_bytes([packet[4], packet[5]])),
            ),
            _ => return None,
        };
        let tcp = packet.get(ip_len..ip_len + TCP_LEN)?;
        let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        let long = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
        let segment = Self {
            from: SocketAddr::new(from, port(0)),
            to: SocketAddr::new(to, port(2)),
            seq: long(4),
            ack: long(8),
            flags: tcp[13],
            payload: Vec::new(),
        };
        let start = ip_len + usize::from(tcp[12] >> 4) * 4;
        (start <= packet_len).then_some((segment, start..packet_len))
    }
}

/// The checksum of RFC 1071 over `data`, on top of an unfolded sum.
fn checksum(start: u64, data: &[u8]) -> u16 {
    let mut sum = start + sum(data);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn sum(data: &[u8]) -> u64 {
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    data.chunks(2).map(word).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (from, to) in [("10.0.0.1:1", "10.0.0.2:65535"), ("[fd00::1]:1", "[fd00::2]:2")] {
            let segment = Segment {
                from: from.parse().unwrap(),
                to: to.parse().unwrap(),
                seq: u32::MAX - 1,
                ack: 77,
                flags: FIN | ACK,
                payload: vec![1, 2, 3],
            };
            let mac = MacAddress([2, 0, 0, 0, 0, 1]);
            let frame = segment.to_frame(mac, mac).unwrap();
            let (read, next) = Segment::parse(&frame).unwrap();
            assert_eq!(Segment::parse_packet(&frame[ETHERNET_LEN..]), Some(segment.clone()));
            let cut = &frame[..frame.len() - 2];
            let beginning = Segment { payload: vec![1], ..segment.clone() };
            assert_eq!(Segment::captured(cut), Some((beginning, 2)));
            assert_eq!(read, Segment { payload: vec![], ..segment });
            assert_eq!(next, 2, "three bytes and FIN, over the end of the sequence space");
        }
    }
}
