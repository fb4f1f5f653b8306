//! Packets as the simulator looks at them: read once, copied out, easy to print.

use std::{fmt, ops::Range};

use outlive_tcp::{
    seq::Seq,
    wire::{Flags, FourTuple, Offload, Options, TcpPacket},
};

/// What a TCP packet says.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) tuple: FourTuple,
    pub(crate) seq: Seq,
    pub(crate) ack: Option<Seq>,
    pub(crate) flags: Flags,
    pub(crate) window: u16,
    pub(crate) options: Options,
    /// Where in the packet the payload is.
    pub(crate) payload: Range<usize>,
    pub(crate) checksum_ok: bool,
}

impl Seen {
    /// Reads a packet; `None` if it is not TCP, or malformed.
    pub(crate) fn of(bytes: &mut [u8]) -> Option<Seen> {
        let end = bytes.len();
        let packet = TcpPacket::parse(bytes, 0, end, Offload::default()).ok()?;
        let headers = packet.headers_len();
        Some(Seen {
            tuple: packet.tuple(),
            seq: packet.seq(),
            ack: packet.flags().contains(Flags::ACK).then(|| packet.ack()),
            flags: packet.flags(),
            window: packet.window(),
            options: packet.options(),
            payload: headers..packet.range().end,
            checksum_ok: packet.checksum_ok(),
        })
    }

    pub(crate) fn has(&self, flags: Flags) -> bool {
        self.flags.contains(flags)
    }

    pub(crate) fn len(&self) -> usize {
        self.payload.len()
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} seq {} len {}", self.tuple, self.flags, self.seq.0, self.len())?;
        if let Some(ack) = self.ack {
            write!(f, " ack {}", ack.0)?;
        }
        write!(f, " win {}", self.window)?;
        let options = &self.options;
        if let Some(mss) = options.mss {
            write!(f, " mss {mss}")?;
        }
        if let Some(scale) = options.window_scale {
            write!(f, " scale {scale}")?;
        }
        if options.sack_permitted {
            f.write_str(" sackok")?;
        }
        if let Some(timestamps) = options.timestamps {
            write!(f, " ts {}/{}", timestamps.value, timestamps.echo)?;
        }
        for block in options.sack.as_slice() {
            write!(f, " sack {}-{}", block.start.0, block.end.0)?;
        }
        Ok(())
    }
}
