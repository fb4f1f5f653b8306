//! The packet path: from the TUN device through the core and back, in one buffer.
//!
//! ```text
//! | headroom | virtio header | packet ...                          |   as read
//!       | virtio header | packet, perhaps longer at the front ...  |   as written
//! ```
//!
//! A translation may move the start of the packet into the headroom (an option is inserted); the device's
//! header is then written anew right before it. Nothing is allocated or copied for a packet that is
//! passed on.

use std::io;

use outlive_net::tun::{BUFFER_LEN, GsoType, HeaderFlags, Tun, VirtioNetHeader};
use outlive_proxy::{Node, Verdict};
use outlive_tcp::{
    time::Time,
    wire::{Checksum, IpLayout, IpVersion, Offload, Segmentation},
};

/// Free bytes before the device's header; a multiple of a cache line.
const HEADROOM: usize = 64;
/// Where a packet starts when read.
const START: usize = HEADROOM + VirtioNetHeader::LEN;
/// Offset of the checksum in a TCP header.
const TCP_CHECKSUM: u16 = 16;
/// Packets handled before others get their turn.
const BUDGET: usize = 64;

/// What has passed the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketCounters {
    /// Packets (super-segments count once) read.
    pub read: u64,
    /// Bytes of those, without the device's header.
    pub read_bytes: u64,
    /// Packets written.
    pub written: u64,
    /// Bytes of those.
    pub written_bytes: u64,
    /// Packets that the kernel did not take.
    pub write_failures: u64,
    /// Reads that failed: the interface is down.
    pub read_failures: u64,
}

/// The buffers of the packet path.
pub struct PacketPath {
    buffer: Box<[u8]>,
    /// For packets that the core made itself.
    made: Vec<u8>,
    /// For packets that the core gives back, or has from its peer.
    arrived: Vec<u8>,
    readable: bool,
    counters: PacketCounters,
}

impl PacketPath {
    /// An empty one. The device may have something to read.
    pub fn new() -> Self {
        PacketPath {
            buffer: vec![0; HEADROOM + BUFFER_LEN].into_boxed_slice(),
            made: Vec::with_capacity(2_048),
            arrived: Vec::new(),
            readable: true,
            counters: PacketCounters::default(),
        }
    }

    /// The device has something to read.
    pub fn handle_ready(&mut self) {
        self.readable = true;
    }

    /// Whether there may be more to read.
    pub fn is_readable(&self) -> bool {
        self.readable
    }

    /// What has passed.
    pub fn counters(&self) -> PacketCounters {
        self.counters
    }

    /// Takes packets off the device, up to a bound, and passes them through `node`.
    pub fn turn(&mut self, now: Time, tun: &Tun, node: &mut Node) {
        for _ in 0..BUDGET {
            if !self.readable {
                break;
            }
            match tun.recv(&mut self.buffer[HEADROOM..]) {
                Ok(len) if len > VirtioNetHeader::LEN => {
                    self.counters.read += 1;
                    self.counters.read_bytes += (len - VirtioNetHeader::LEN) as u64;
                    self.packet(now, HEADROOM + len, tun, node);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.counters.read_failures += 1;
                    self.readable = false;
                }
            }
        }
    }

    /// Passes packets through `node` that the device did not give just now: the core has kept them, or the peer has
    /// relayed them.
    pub fn hand_in(&mut self, now: Time, tun: &Tun, node: &mut Node) {
        while let Some(offload) = node.poll_arrived(now, &mut self.arrived) {
            let end = START + self.arrived.len();
            if let Some(place) = self.buffer.get_mut(START..end) {
                place.copy_from_slice(&self.arrived);
                self.handle(now, end, offload, tun, node);
            }
            self.arrived.clear();
        }
    }

    /// Writes what the core has made itself.
    pub fn transmit(&mut self, tun: &Tun, node: &mut Node) {
        while let Some((packet, offload)) = node.poll_transmit_offloaded() {
            self.made.clear();
            self.made.extend_from_slice(&header_for(packet, offload).emit());
            self.made.extend_from_slice(packet);
            write(tun, &self.made, &mut self.counters);
        }
    }

    fn packet(&mut self, now: Time, end: usize, tun: &Tun, node: &mut Node) {
        let Some(header) = self.buffer[HEADROOM..].first_chunk() else { return };
        let offload = offload_of(VirtioNetHeader::parse(header));
        self.handle(now, end, offload, tun, node);
    }

    fn handle(&mut self, now: Time, end: usize, offload: Offload, tun: &Tun, node: &mut Node) {
        let verdict = node.handle_packet(now, &mut self.buffer, START, end, offload);
        // What the core says itself about a packet goes before it.
        self.transmit(tun, node);
        let Verdict::Forward { range, offload } = verdict else { return };
        let Some(start) = range.start.checked_sub(VirtioNetHeader::LEN) else { return };
        let header = header_for(&self.buffer[range.clone()], offload).emit();
        self.buffer[start..range.start].copy_from_slice(&header);
        write(tun, &self.buffer[start..range.end], &mut self.counters);
    }
}

impl Default for PacketPath {
    fn default() -> Self {
        Self::new()
    }
}

fn write(tun: &Tun, packet: &[u8], counters: &mut PacketCounters) {
    match tun.send(packet) {
        Ok(_) => {
            counters.written += 1;
            counters.written_bytes += (packet.len() - VirtioNetHeader::LEN) as u64;
        }
        // Its sender repeats it.
        Err(_) => counters.write_failures += 1,
    }
}

/// What the device says of a packet, as the core understands it.
pub fn offload_of(header: VirtioNetHeader) -> Offload {
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

/// What the device is told of a packet.
pub fn header_for(packet: &[u8], offload: Offload) -> VirtioNetHeader {
    let mut header = VirtioNetHeader::default();
    if offload == Offload::default() {
        return header;
    }
    // The core passes on only what it has parsed.
    let Ok(ip) = IpLayout::of(packet) else { return header };
    let transport = ip.header_len as u16;
    let tcp_len = packet.get(ip.header_len + 12).map_or(0, |byte| u16::from(byte >> 4) * 4);
    // A verified checksum is in the packet, too; that it was verified is said in reads only.
    if offload.checksum == Checksum::Partial {
        header.flags = HeaderFlags::NEEDS_CSUM;
        header.csum_start = transport;
        header.csum_offset = TCP_CHECKSUM;
    }
    if let Segmentation::Tcp { size, ecn } = offload.segmentation {
        let kind = if ip.version == IpVersion::V4 { GsoType::TCP_V4 } else { GsoType::TCP_V6 };
        header.gso_type = GsoType(kind.0 | if ecn { GsoType::ECN } else { 0 });
        header.gso_size = size;
        header.hdr_len = transport + tcp_len;
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp_v4() -> Vec<u8> {
        let mut packet = vec![0; 24 + 32];
        packet[0] = 0x46;
        packet[2..4].copy_from_slice(&56_u16.to_be_bytes());
        packet[9] = 6;
        packet[24 + 12] = 0x80;
        packet
    }

    #[test]
    fn what_the_device_said_is_what_it_is_told() {
        for (flags, gso_type) in [
            (HeaderFlags::NEEDS_CSUM, GsoType::TCP_V4),
            (HeaderFlags::NEEDS_CSUM, GsoType(GsoType::TCP_V4.0 | GsoType::ECN)),
            (HeaderFlags::NEEDS_CSUM, GsoType::NONE),
            (HeaderFlags::DATA_VALID, GsoType::NONE),
            (HeaderFlags::empty(), GsoType::NONE),
        ] {
            let partial = flags.contains(HeaderFlags::NEEDS_CSUM);
            let segmented = gso_type != GsoType::NONE;
            let header = VirtioNetHeader {
                flags,
                gso_type,
                // IPv4 header with a word of options, TCP header with three.
                hdr_len: if segmented { 56 } else { 0 },
                gso_size: if segmented { 1_448 } else { 0 },
                csum_start: if partial { 24 } else { 0 },
                csum_offset: if partial { TCP_CHECKSUM } else { 0 },
            };
            let told = VirtioNetHeader { flags: flags & HeaderFlags::NEEDS_CSUM, ..header };
            assert_eq!(header_for(&tcp_v4(), offload_of(header)), told);
        }
    }
}
