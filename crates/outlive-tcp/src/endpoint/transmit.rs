//! A segment to be sent: its header as values, its payload as references.

use bytes::Bytes;

use crate::{
    checksum,
    segment::Header,
    seq::Seq,
    wire::{Checksum, Flags, FourTuple, Offload, Options, Segmentation, put_u16},
};

/// A segment, or a super-segment, that the connection wants sent.
///
/// [`emit_headers`](Self::emit_headers) and [`payload`](Self::payload) are for a gathering write
/// to a device that computes checksums and cuts super-segments; [`emit`](Self::emit) makes one
/// contiguous packet; [`segments`](Self::segments) cuts for a device that cannot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// From whom to whom.
    pub tuple: FourTuple,
    /// SEG.SEQ.
    pub seq: Seq,
    /// SEG.ACK; the ACK flag goes with it.
    pub ack: Option<Seq>,
    /// The other flags.
    pub flags: Flags,
    /// The window field, already scaled.
    pub window: u16,
    /// The urgent pointer; the URG flag goes with it.
    pub urgent: Option<u16>,
    /// The options.
    pub options: Options,
    /// The payload, to be joined.
    pub payload: Vec<Bytes>,
    /// Payload bytes of each segment but the last.
    pub segment_size: u16,
    /// The packet is to be marked ECT(0) (RFC 3168, section 5).
    pub ecn_capable: bool,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// Differentiated services code point, 6 bits.
    pub dscp: u8,
}

impl Transmit {
    /// Payload bytes.
    pub fn payload_len(&self) -> usize {
        self.payload.iter().map(Bytes::len).sum()
    }

    /// SEG.LEN: the payload's length, and one each for SYN and FIN.
    pub fn segment_len(&self) -> u32 {
        self.payload_len() as u32
            + u32::from(self.flags.contains(Flags::SYN))
            + u32::from(self.flags.contains(Flags::FIN))
    }

    /// Whether a device must cut it.
    pub fn is_super_segment(&self) -> bool {
        self.payload_len() > usize::from(self.segment_size)
    }

    /// Appends the IP and the TCP header, for the payload to follow. The checksum is partial: the
    /// device is to do what is returned.
    pub fn emit_headers(&self, out: &mut Vec<u8>) -> Offload {
        let (tcp, pseudo) = self.header().emit(self.payload_len(), out);
        put_u16(out, tcp + 16, pseudo);
        let segmentation = if self.is_super_segment() {
            Segmentation::Tcp { size: self.segment_size, ecn: self.flags.contains(Flags::CWR) }
        } else {
            Segmentation::None
        };
        Offload { checksum: Checksum::Partial, segmentation }
    }

    /// Appends the whole packet. A super-segment still has to be cut by the device that gets it, so
    /// its checksum is partial; any other has a full one, and nothing is left to do.
    pub fn emit(&self, out: &mut Vec<u8>) -> Offload {
        if self.is_super_segment() {
            let offload = self.emit_headers(out);
            self.payload.iter().for_each(|piece| out.extend_from_slice(piece));
            return offload;
        }
        let (tcp, pseudo) = self.header().emit(self.payload_len(), out);
        self.payload.iter().for_each(|piece| out.extend_from_slice(piece));
        let sum = u64::from(pseudo) + u64::from(checksum::sum(&out[tcp..]));
        put_u16(out, tcp + 16, !checksum::fold(sum));
        Offload::default()
    }

    /// The segments that a device would cut it into: FIN and PSH go to the last, CWR to the first
    /// (RFC 3168, section 6.1.2).
    pub fn segments(&self) -> impl Iterator<Item = Transmit> + '_ {
        let len = self.payload_len();
        let size = usize::from(self.segment_size).max(1);
        (0..len.div_ceil(size).max(1)).map(move |i| {
            let range = i * size..len.min((i + 1) * size);
            let mut flags = self.flags;
            if range.end < len {
                flags = flags & !(Flags::FIN | Flags::PSH);
            }
            if i > 0 {
                flags = flags & !Flags::CWR;
            }
            Transmit {
                seq: self.seq + range.start as u32,
                flags,
                payload: slices(&self.payload, range.start, range.len()),
                ..self.clone_without_payload()
            }
        })
    }

    fn clone_without_payload(&self) -> Transmit {
        Transmit { payload: Vec::new(), ..*self }
    }

    fn header(&self) -> Header {
        Header {
            tuple: self.tuple,
            seq: self.seq,
            ack: self.ack,
            flags: match self.urgent {
                Some(_) => self.flags | Flags::URG,
                None => self.flags & !Flags::URG,
            },
            window: self.window,
            options: self.options,
            hop_limit: self.hop_limit,
            traffic_class: self.dscp << 2 | if self.ecn_capable { 2 } else { 0 },
            urgent: self.urgent.unwrap_or(0),
        }
    }
}

fn slices(pieces: &[Bytes], mut skip: usize, mut take: usize) -> Vec<Bytes> {
    let mut slices = Vec::new();
    for piece in pieces {
        let start = skip.min(piece.len());
        let end = piece.len().min(start + take);
        if start < end {
            slices.push(piece.slice(start..end));
        }
        skip -= start;
        take -= end - start;
    }
    slices
}
