//! A received segment, as the endpoint wants it: the header's values, and the payload as shared
//! bytes.

use bytes::Bytes;

use crate::{
    seq::Seq,
    wire::{Flags, FourTuple, IpVersion, Options, Segmentation, TcpPacket},
};

/// A segment that arrived; possibly a super-segment.
///
/// The caller has verified the checksum ([`TcpPacket::checksum_ok`]). The payload is kept as long
/// as it is out of order or unread, and with it the buffer it is part of: whoever reads packets
/// into large buffers copies short payloads out of them first.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// From whom to whom, as the packet has it.
    pub tuple: FourTuple,
    /// SEG.SEQ.
    pub seq: Seq,
    /// SEG.ACK, if the ACK flag is set.
    pub ack: Option<Seq>,
    /// The control bits.
    pub flags: Flags,
    /// The window field, not scaled.
    pub window: u16,
    /// The urgent pointer, if the URG flag is set.
    pub urgent: Option<u16>,
    /// The options.
    pub options: Options,
    /// The IP header says Congestion Experienced (RFC 3168).
    pub congestion_experienced: bool,
    /// Payload bytes of each segment that a super-segment was joined from; for a single segment its
    /// payload's length.
    pub segment_size: u16,
    /// The payload.
    pub payload: Bytes,
}

impl Arrival {
    /// The header of `packet`, with `payload`: the packet's own, as bytes that share its buffer.
    pub fn new(packet: &TcpPacket<'_>, payload: Bytes) -> Self {
        let ip = packet.bytes();
        let traffic_class = match packet.version() {
            IpVersion::V4 => ip[1],
            IpVersion::V6 => ip[1] >> 4,
        };
        let size = match packet.offload().segmentation {
            Segmentation::Tcp { size, .. } => size,
            Segmentation::None => payload.len().min(u16::MAX.into()) as u16,
        };
        let flags = packet.flags();
        Arrival {
            tuple: packet.tuple(),
            seq: packet.seq(),
            ack: flags.contains(Flags::ACK).then(|| packet.ack()),
            flags,
            window: packet.window(),
            urgent: packet.urgent(),
            options: packet.options(),
            congestion_experienced: traffic_class & 3 == 3,
            segment_size: size,
            payload,
        }
    }

    /// The header of `packet`, and a copy of its payload.
    pub fn copied(packet: &TcpPacket<'_>) -> Self {
        Self::new(packet, Bytes::copy_from_slice(packet.payload()))
    }

    /// Whether all of `flags` are set.
    pub(super) fn has(&self, flags: Flags) -> bool {
        self.flags.contains(flags)
    }

    /// SEG.LEN.
    pub(super) fn len(&self) -> u32 {
        self.payload.len() as u32
            + u32::from(self.has(Flags::SYN))
            + u32::from(self.has(Flags::FIN))
    }

    /// The sequence number behind the segment.
    pub(super) fn end(&self) -> Seq {
        self.seq + self.len()
    }

    /// TSecr, if there is one that means something.
    pub(super) fn echo(&self) -> Option<u32> {
        self.ack.and(self.options.timestamps).map(|timestamps| timestamps.echo)
    }
}
