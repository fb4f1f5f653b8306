//! Packets between the TUN device and the endpoint. Super-segments pass whole, checksums partial.

use std::os::fd::AsRawFd;

use bytes::Bytes;
use outlive_net::tun::{BUFFER_LEN, GsoType, HeaderFlags, Tun, VirtioNetHeader};
use outlive_tcp::endpoint::{Arrival, Transmit};
use outlive_tcp::segment::Segment;
use outlive_tcp::wire::{
    Checksum, IpLayout, IpVersion, Kind, Offload, Segmentation, TcpPacket, classify,
    icmp::{IcmpError, IcmpMessage, parse_icmp},
};

/// Where the checksum is in a TCP header.
const TCP_CHECKSUM: u16 = 16;

/// The device with its buffers.
pub(super) struct Device {
    tun: Tun,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// What has come out of the device.
pub(super) enum Input {
    Segment(Arrival),
    Icmp(IcmpError),
    /// Something else, or a damaged packet.
    Other,
}

impl Device {
    pub(super) fn new(tun: Tun) -> Self {
        Self { tun, input: vec![0; BUFFER_LEN], output: Vec::new() }
    }

    pub(super) fn raw_fd(&self) -> i32 {
        self.tun.as_raw_fd()
    }

    /// The next packet, if there is one.
    pub(super) fn receive(&mut self) -> Option<Input> {
        let len = self.tun.recv(&mut self.input).ok()?;
        Some(self.read(len).unwrap_or(Input::Other))
    }

    fn read(&mut self, len: usize) -> Option<Input> {
        let header = VirtioNetHeader::parse(self.input.first_chunk()?);
        let packet = self.input.get_mut(VirtioNetHeader::LEN..len)?;
        match classify(packet).ok()? {
            Kind::Tcp => {
                let end = packet.len();
                let packet = TcpPacket::parse(packet, 0, end, offload_of(header)).ok()?;
                let sound = packet.checksum_ok();
                sound.then(|| {
                    let payload = Bytes::copy_from_slice(packet.payload());
                    Input::Segment(Arrival::new(&packet, payload))
                })
            }
            Kind::Icmp => match parse_icmp(packet).ok()? {
                IcmpMessage::Error(error) => Some(Input::Icmp(error)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Sends what the endpoint wants sent. What the kernel does not take is lost, as on any cable.
    pub(super) fn send(&mut self, transmit: &Transmit) {
        self.output.clear();
        self.output.resize(VirtioNetHeader::LEN, 0);
        let offload = transmit.emit_headers(&mut self.output);
        transmit.payload.iter().for_each(|piece| self.output.extend_from_slice(piece));
        let (room, packet) = self.output.split_at_mut(VirtioNetHeader::LEN);
        room.copy_from_slice(&header_of(packet, offload).emit());
        let _ = self.tun.send(&self.output);
    }

    /// Sends a segment that belongs to no connection.
    pub(super) fn send_segment(&mut self, segment: &Segment<'_>) {
        self.output.clear();
        self.output.resize(VirtioNetHeader::LEN, 0);
        segment.emit(&mut self.output);
        let _ = self.tun.send(&self.output);
    }
}

fn offload_of(header: VirtioNetHeader) -> Offload {
    let checksum = if header.flags.contains(HeaderFlags::NEEDS_CSUM) {
        Checksum::Partial
    } else if header.flags.contains(HeaderFlags::DATA_VALID) {
        Checksum::Verified
    } else {
        Checksum::Full
    };
    let segmentation = match header.gso_type.base() {
        GsoType::TCP_V4 | GsoType::TCP_V6 => {
            Segmentation::Tcp { size: header.gso_size, ecn: header.gso_type.has_ecn() }
        }
        _ => Segmentation::None,
    };
    Offload { checksum, segmentation }
}

/// The device completes the checksum, and cuts what is a super-segment.
fn header_of(packet: &[u8], offload: Offload) -> VirtioNetHeader {
    let mut header = VirtioNetHeader::default();
    let Ok(ip) = IpLayout::of(packet) else { return header };
    header.csum_start = ip.header_len as u16;
    header.csum_offset = TCP_CHECKSUM;
    header.flags = HeaderFlags::NEEDS_CSUM;
    if let Segmentation::Tcp { size, ecn } = offload.segmentation {
        let kind = if ip.version == IpVersion::V4 { GsoType::TCP_V4 } else { GsoType::TCP_V6 };
        header.gso_type = GsoType(kind.0 | if ecn { GsoType::ECN } else { 0 });
        header.gso_size = size;
        let tcp_len = packet.get(ip.header_len + 12).map_or(0, |byte| u16::from(byte >> 4) * 4);
        header.hdr_len = header.csum_start + tcp_len;
    }
    header
}
