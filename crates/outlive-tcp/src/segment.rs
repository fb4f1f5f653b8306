//! Segments that a node makes itself: handshakes, resets, probes, inserted data.

use crate::{
    checksum,
    seq::Seq,
    wire::{FIXED_HEADER, Flags, FourTuple, IpHeader, Options, PROTOCOL_TCP, TcpPacket, put_u16},
};

/// The hop limit of segments that stand for no other packet: the default of RFC 1700 and of Linux.
pub const DEFAULT_HOP_LIMIT: u8 = 64;

/// A segment to be sent, as values.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// From whom to whom. Both of one IP version; an odd pair is written as IPv6 with the IPv4 end
    /// mapped.
    pub tuple: FourTuple,
    /// SEG.SEQ.
    pub seq: Seq,
    /// SEG.ACK; the ACK flag is set if there is one.
    pub ack: Option<Seq>,
    /// The other flags. An ACK flag here does not count.
    pub flags: Flags,
    /// The window field, already scaled.
    pub window: u16,
    /// The options; as many SACK blocks are written as have room.
    pub options: Options,
    /// The payload. What goes beyond an IP length of 65,535 bytes is not written.
    pub payload: &'a [u8],
    /// TTL or hop limit.
    pub hop_limit: u8,
}

impl Segment<'_> {
    /// Appends one whole IP packet: checksums complete, on IPv4 DF set and the identification zero.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let payload = self.fitting_payload();
        let (start, pseudo) = self.header().emit(payload.len(), out);
        out.extend_from_slice(payload);
        let sum = u64::from(pseudo) + u64::from(checksum::sum(&out[start..]));
        put_u16(out, start + 16, !checksum::fold(sum));
    }

    /// Length of the whole IP packet that [`emit`](Self::emit) appends, in bytes.
    #[allow(clippy::len_without_is_empty, reason = "no packet is empty")]
    pub fn len(&self) -> usize {
        self.headers_len() + self.fitting_payload().len()
    }

    fn headers_len(&self) -> usize {
        self.header().len()
    }

    fn header(&self) -> Header {
        Header {
            tuple: self.tuple,
            seq: self.seq,
            ack: self.ack,
            flags: self.flags,
            window: self.window,
            options: self.options,
            hop_limit: self.hop_limit,
            traffic_class: 0,
            urgent: 0,
        }
    }

    fn fitting_payload(&self) -> &[u8] {
        let room = usize::from(u16::MAX) - self.headers_len();
        &self.payload[..self.payload.len().min(room)]
    }
}

/// The IP and the TCP header of a segment, without what is behind them.
pub(crate) struct Header {
    pub(crate) tuple: FourTuple,
    pub(crate) seq: Seq,
    pub(crate) ack: Option<Seq>,
    pub(crate) flags: Flags,
    pub(crate) window: u16,
    pub(crate) options: Options,
    pub(crate) hop_limit: u8,
    pub(crate) traffic_class: u8,
    /// The urgent pointer; means something with the URG flag only.
    pub(crate) urgent: u16,
}

impl Header {
    /// Appends both, the TCP checksum zero. Gives where the TCP header begins, and the sum of the
    /// pseudo-header. The IP length must be at most 65,535.
    pub(crate) fn emit(&self, payload_len: usize, out: &mut Vec<u8>) -> (usize, u16) {
        let mut ip = IpHeader::new(self.tuple, PROTOCOL_TCP, self.hop_limit);
        ip.traffic_class = self.traffic_class;
        let header_len = FIXED_HEADER + self.options.len();
        let pseudo = ip.emit((header_len + payload_len) as u16, out);

        let start = out.len();
        let ack_flag = if self.ack.is_some() { Flags::ACK } else { Flags::NONE };
        let flags = (self.flags & !Flags::ACK) | ack_flag;
        let offset_and_flags = (header_len as u16 / 4) << 12 | flags.0 & Flags::ALL;
        out.extend_from_slice(&self.tuple.source.port.to_be_bytes());
        out.extend_from_slice(&self.tuple.destination.port.to_be_bytes());
        out.extend_from_slice(&self.seq.0.to_be_bytes());
        out.extend_from_slice(&self.ack.unwrap_or_default().0.to_be_bytes());
        out.extend_from_slice(&offset_and_flags.to_be_bytes());
        out.extend_from_slice(&self.window.to_be_bytes());
        out.extend_from_slice(&[0; 2]); // Checksum.
        out.extend_from_slice(&self.urgent.to_be_bytes());
        self.options.emit(out);
        (start, pseudo)
    }

    /// Length of what [`emit`](Self::emit) appends.
    pub(crate) fn len(&self) -> usize {
        let ip = IpHeader::new(self.tuple, PROTOCOL_TCP, self.hop_limit);
        ip.len() + FIXED_HEADER + self.options.len()
    }
}

/// The reset that answers a segment for which there is no connection (RFC 9293, section 3.10.7.1).
/// A reset is not answered.
///
/// Whether this node is entitled to send it is the caller's decision.
pub fn reset_for(packet: &TcpPacket<'_>) -> Option<Segment<'static>> {
    let flags = packet.flags();
    if flags.contains(Flags::RST) {
        return None;
    }
    let (seq, ack) = if flags.contains(Flags::ACK) {
        (packet.ack(), None)
    } else {
        (Seq(0), Some(packet.seq() + packet.segment_len()))
    };
    Some(Segment {
        tuple: packet.tuple().reversed(),
        seq,
        ack,
        flags: Flags::RST,
        window: 0,
        options: Options::default(),
        payload: &[],
        hop_limit: DEFAULT_HOP_LIMIT,
    })
}

#[cfg(test)]
mod tests;
