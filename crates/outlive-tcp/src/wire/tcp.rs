//! A TCP packet (RFC 9293) over the buffer that it was read into.

use std::{
    fmt,
    ops::{BitAnd, BitOr, BitOrAssign, Not, Range},
};

use super::{
    Checksum, Endpoint, FourTuple, Fragmentation, IpLayout, IpVersion, Malformed, Offload,
    OptionPlaces, Options, PROTOCOL_TCP, Segmentation, Timestamps, u16_at, u32_at,
};
use crate::{checksum, seq::Seq};

/// Length of a TCP header without options.
pub(crate) const FIXED_HEADER: usize = 20;

/// A whole IPv4 or IPv6 packet with TCP in it, possibly a super-segment of up to 65,535 bytes.
///
/// The lengths of its headers and the layout of its options are checked once, by
/// [`parse`](Self::parse). After that no accessor panics. Its numbers are whatever the sender put
/// there: whether they fit a connection is not decided here.
pub struct TcpPacket<'a> {
    pub(crate) buffer: &'a mut [u8],
    /// Where in `buffer` the packet, its TCP header, its payload begin, and where it ends.
    pub(crate) start: usize,
    pub(crate) tcp: usize,
    pub(crate) payload: usize,
    pub(crate) end: usize,
    pub(crate) version: IpVersion,
    pub(crate) places: OptionPlaces,
    offload: Offload,
}

impl<'a> TcpPacket<'a> {
    /// Takes `buffer[start..end]` as a packet. What is before `start` is headroom, into which
    /// [`translate`](Self::translate) may have headers grow. Bytes after the end that the IP header
    /// tells are not part of the packet.
    ///
    /// The TCP checksum is not verified: see [`checksum_ok`](Self::checksum_ok).
    pub fn parse(
        buffer: &'a mut [u8],
        start: usize,
        end: usize,
        offload: Offload,
    ) -> Result<Self, Malformed> {
        let packet = buffer.get(start..end).ok_or(Malformed::Truncated)?;
        let ip = IpLayout::of(packet)?;
        if ip.fragmentation != Fragmentation::Whole {
            return Err(Malformed::Fragment);
        }
        if ip.protocol != PROTOCOL_TCP {
            return Err(Malformed::NotTcp);
        }
        let segment = &packet[ip.header_len..ip.total_len];
        let data_offset = segment.get(12).ok_or(Malformed::Truncated)? >> 4;
        let header_len = usize::from(data_offset) * 4;
        if header_len < FIXED_HEADER {
            return Err(Malformed::HeaderLength);
        }
        let header = segment.get(..header_len).ok_or(Malformed::Truncated)?;
        let places = OptionPlaces::find(header)?;
        let tcp = start + ip.header_len;
        let end = start + ip.total_len;
        let version = ip.version;
        Ok(Self { buffer, start, tcp, payload: tcp + header_len, end, version, places, offload })
    }

    /// Source and destination.
    pub fn tuple(&self) -> FourTuple {
        let (source, destination) = self.version.addresses_in(self.bytes());
        let header = self.header();
        FourTuple {
            source: Endpoint::new(source, u16_at(header, 0)),
            destination: Endpoint::new(destination, u16_at(header, 2)),
        }
    }

    /// SEG.SEQ.
    pub fn seq(&self) -> Seq {
        Seq(u32_at(self.header(), 4))
    }

    /// SEG.ACK: meaningful only with [`Flags::ACK`].
    pub fn ack(&self) -> Seq {
        Seq(u32_at(self.header(), 8))
    }

    /// The control bits.
    pub fn flags(&self) -> Flags {
        Flags(u16_at(self.header(), 12) & Flags::ALL)
    }

    /// The window field, not scaled.
    pub fn window(&self) -> u16 {
        u16_at(self.header(), 14)
    }

    /// The urgent pointer, if the URG flag is set: where urgent data ends, counted from SEG.SEQ.
    pub fn urgent(&self) -> Option<u16> {
        self.flags().contains(Flags::URG).then(|| u16_at(self.header(), 18))
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        &self.buffer[self.payload..self.end]
    }

    /// Length of the payload in bytes.
    pub fn payload_len(&self) -> u32 {
        (self.end - self.payload) as u32
    }

    /// SEG.LEN: the payload's length, and one each for SYN and FIN.
    pub fn segment_len(&self) -> u32 {
        let flags = self.flags();
        self.payload_len()
            + u32::from(flags.contains(Flags::SYN))
            + u32::from(flags.contains(Flags::FIN))
    }

    /// The options. Reads them anew at each call.
    pub fn options(&self) -> Options {
        // `parse` has walked over the same bytes without an error.
        Options::parse(&self.header()[FIXED_HEADER..]).unwrap_or_default()
    }

    /// The timestamps option: found by `parse`, so this costs next to nothing.
    pub fn timestamps(&self) -> Option<Timestamps> {
        let at = usize::from(self.places.timestamps?);
        let header = self.header();
        Some(Timestamps { value: u32_at(header, at + 2), echo: u32_at(header, at + 6) })
    }

    /// Whether the TCP checksum is right. Costs a pass over the packet if it is in the packet and
    /// nobody has verified it; one that a device is still to complete is right.
    pub fn checksum_ok(&self) -> bool {
        match self.offload.checksum {
            Checksum::Verified | Checksum::Partial => true,
            Checksum::Full => {
                let segment = &self.buffer[self.tcp..self.end];
                let addresses = &self.bytes()[self.version.address_range()];
                let pseudo = checksum::pseudo_header(addresses, PROTOCOL_TCP, segment.len());
                let total = u64::from(pseudo) + u64::from(checksum::sum(segment));
                checksum::fold(total) == 0xffff
            }
        }
    }

    /// What the device said of it.
    pub fn offload(&self) -> Offload {
        self.offload
    }

    /// The version of IP.
    pub fn version(&self) -> IpVersion {
        self.version
    }

    /// The packet.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Where the packet is in the buffer. A translation may move its start.
    pub fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    /// Length of the IP header with its options or extensions, in bytes: where the TCP header
    /// begins, and where a device starts to sum if the checksum is partial.
    pub fn ip_header_len(&self) -> usize {
        self.tcp - self.start
    }

    /// Length of the IP and the TCP header together, in bytes: where the payload begins.
    pub fn headers_len(&self) -> usize {
        self.payload - self.start
    }

    /// Has the device cut the payload into segments of at most `size` bytes, for a receiver that
    /// announced a smaller MSS than the sender was shown. Nothing changes if it is not longer than
    /// that, or is cut into such segments anyway. A checksum that is in the packet becomes a partial
    /// one, for that is what devices need in order to cut.
    pub fn limit_segments(&mut self, size: u16) {
        let cut = match self.offload.segmentation {
            Segmentation::Tcp { size: present, .. } => present > size,
            Segmentation::None => self.payload_len() > u32::from(size),
        };
        if !cut || size == 0 {
            return;
        }
        let ecn = match self.offload.segmentation {
            Segmentation::Tcp { ecn, .. } => ecn,
            Segmentation::None => self.flags().contains(Flags::CWR),
        };
        if self.offload.checksum != Checksum::Partial {
            let addresses = &self.bytes()[self.version.address_range()];
            let sum = checksum::pseudo_header(addresses, PROTOCOL_TCP, self.end - self.tcp);
            self.header_mut()[16..18].copy_from_slice(&sum.to_be_bytes());
        }
        let segmentation = Segmentation::Tcp { size, ecn };
        self.offload = Offload { checksum: Checksum::Partial, segmentation };
    }

    /// The TCP header with its options.
    pub(crate) fn header(&self) -> &[u8] {
        &self.buffer[self.tcp..self.payload]
    }

    /// The TCP header with its options, to be changed.
    pub(crate) fn header_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.tcp..self.payload]
    }
}

impl fmt::Debug for TcpPacket<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpPacket")
            .field("tuple", &self.tuple())
            .field("flags", &self.flags())
            .field("seq", &self.seq())
            .field("ack", &self.ack())
            .field("window", &self.window())
            .field("options", &self.options())
            .field("payload_len", &self.payload_len())
            .field("offload", &self.offload)
            .finish()
    }
}

/// Control bits of a TCP header (RFC 9293, section 3.1), a set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u16);

impl Flags {
    /// None.
    pub const NONE: Flags = Flags(0);
    /// No more data from the sender.
    pub const FIN: Flags = Flags(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Flags = Flags(0x02);
    /// Reset the connection.
    pub const RST: Flags = Flags(0x04);
    /// Push.
    pub const PSH: Flags = Flags(0x08);
    /// The acknowledgment number means something.
    pub const ACK: Flags = Flags(0x10);
    /// The urgent pointer means something.
    pub const URG: Flags = Flags(0x20);
    /// ECN echo (RFC 3168).
    pub const ECE: Flags = Flags(0x40);
    /// Congestion window reduced (RFC 3168).
    pub const CWR: Flags = Flags(0x80);

    /// The twelve bits beside the data offset: those with a name and the reserved ones.
    pub(crate) const ALL: u16 = 0x0fff;

    /// Whether all of `other` are in it.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether some of `other` is in it.
    pub const fn intersects(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    const NAMES: [(Flags, &'static str); 8] = [
        (Flags::SYN, "SYN"),
        (Flags::FIN, "FIN"),
        (Flags::RST, "RST"),
        (Flags::PSH, "PSH"),
        (Flags::ACK, "ACK"),
        (Flags::URG, "URG"),
        (Flags::ECE, "ECE"),
        (Flags::CWR, "CWR"),
    ];
}

impl BitOr for Flags {
    type Output = Flags;

    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Flags) {
        self.0 |= other.0;
    }
}

impl BitAnd for Flags {
    type Output = Flags;

    fn bitand(self, other: Flags) -> Flags {
        Flags(self.0 & other.0)
    }
}

impl Not for Flags {
    type Output = Flags;

    fn not(self) -> Flags {
        Flags(!self.0 & Flags::ALL)
    }
}

/// `SYN|ACK`; bits without a name as a number.
impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = *self;
        let mut separator = "";
        for (flag, name) in Self::NAMES {
            if self.contains(flag) {
                write!(f, "{separator}{name}")?;
                (rest, separator) = (rest & !flag, "|");
            }
        }
        if rest != Flags::NONE || separator.is_empty() {
            write!(f, "{separator}{:#x}", rest.0)?;
        }
        Ok(())
    }
}
