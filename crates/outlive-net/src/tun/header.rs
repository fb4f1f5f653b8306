//! The header in front of each packet of the TUN device (`struct virtio_net_hdr`).
//!
//! It says whether the packet is a super-segment, and whether its checksum is complete. All
//! fields are in the machine's byte order (the device is not switched to little-endian).

bitflags::bitflags! {
    /// What is known about the checksum (`VIRTIO_NET_HDR_F_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct HeaderFlags: u8 {
        /// The checksum field holds only the pseudo-header's part: what stands from
        /// `csum_start` on must be summed up and put at `csum_start + csum_offset`.
        const NEEDS_CSUM = 1;
        /// The checksum was verified by the hardware or by GRO. Valid in reads only.
        const DATA_VALID = 2;
        /// Keeps bits of later kernels as they are.
        const _ = !0;
    }
}

/// What kind of super-segment a packet is (`VIRTIO_NET_HDR_GSO_*`).
///
/// A newtype and not an enum, so that every byte from the kernel has a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GsoType(pub u8);

impl GsoType {
    /// An ordinary packet.
    pub const NONE: GsoType = GsoType(0);
    /// TCP over IPv4.
    pub const TCP_V4: GsoType = GsoType(1);
    /// TCP over IPv6.
    pub const TCP_V6: GsoType = GsoType(4);
    /// Added to a TCP type: the super-segment carries CWR (RFC 3168), which belongs on its
    /// first segment only.
    pub const ECN: u8 = 0x80;

    /// The type without the ECN bit.
    pub fn base(self) -> GsoType {
        GsoType(self.0 & !Self::ECN)
    }

    /// Whether the ECN bit is set.
    pub fn has_ecn(self) -> bool {
        self.0 & Self::ECN != 0
    }
}

/// `struct virtio_net_hdr`: 10 bytes in front of each packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VirtioNetHeader {
    /// What is known about the checksum.
    pub flags: HeaderFlags,
    /// What kind of super-segment this is.
    pub gso_type: GsoType,
    /// Length of all headers (link, network and transport) in bytes; a hint.
    pub hdr_len: u16,
    /// Payload bytes of each segment (the MSS) if `gso_type` is not `NONE`.
    pub gso_size: u16,
    /// Where the summed part starts: offset of the transport header in bytes.
    pub csum_start: u16,
    /// Where the checksum field stands, in bytes from `csum_start`: 16 for TCP.
    pub csum_offset: u16,
}

impl VirtioNetHeader {
    /// Bytes that the header occupies.
    pub const LEN: usize = 10;

    /// Reads a header.
    pub fn parse(bytes: &[u8; Self::LEN]) -> VirtioNetHeader {
        let &[flags, gso_type, l0, l1, g0, g1, s0, s1, o0, o1] = bytes;
        VirtioNetHeader {
            flags: HeaderFlags::from_bits_retain(flags),
            gso_type: GsoType(gso_type),
            hdr_len: u16::from_ne_bytes([l0, l1]),
            gso_size: u16::from_ne_bytes([g0, g1]),
            csum_start: u16::from_ne_bytes([s0, s1]),
            csum_offset: u16::from_ne_bytes([o0, o1]),
        }
    }

    /// Writes a header.
    pub fn emit(&self) -> [u8; Self::LEN] {
        let [l0, l1] = self.hdr_len.to_ne_bytes();
        let [g0, g1] = self.gso_size.to_ne_bytes();
        let [s0, s1] = self.csum_start.to_ne_bytes();
        let [o0, o1] = self.csum_offset.to_ne_bytes();
        [self.flags.bits(), self.gso_type.0, l0, l1, g0, g1, s0, s1, o0, o1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_survives_the_round_trip() {
        let header = VirtioNetHeader {
            flags: HeaderFlags::NEEDS_CSUM,
            gso_type: GsoType(GsoType::TCP_V6.0 | GsoType::ECN),
            hdr_len: 0x0102,
            gso_size: 0x0304,
            csum_start: 0x0506,
            csum_offset: 0x0708,
        };
        let bytes = header.emit();
        assert_eq!(&bytes[..2], [1, 0x84]);
        assert_eq!(bytes[4..6], 0x0304_u16.to_ne_bytes());
        assert_eq!(VirtioNetHeader::parse(&bytes), header);
        assert!(header.gso_type.has_ecn());
        assert_eq!(header.gso_type.base(), GsoType::TCP_V6);
    }

    #[test]
    fn unknown_bits_are_kept() {
        let bytes = [0xff; VirtioNetHeader::LEN];
        assert_eq!(VirtioNetHeader::parse(&bytes).emit(), bytes);
    }
}
