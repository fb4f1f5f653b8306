//! Packets: checked views over their bytes, and small values for what they mean.
//!
//! A view is made by a function that checks once (`parse`, `of`), and fails with [`Malformed`];
//! after that no accessor panics or fails. Nothing here trusts a length field, and nothing copies a
//! payload. What a packet means for a connection is not decided here.

mod bytes;
mod endpoint;
pub mod icmp;
mod ip;
mod offload;
mod options;
mod tcp;
#[cfg(test)]
mod tests;

pub(crate) use bytes::{put_u16, put_u32, u16_at, u32_at};
pub(crate) use endpoint::mapped;
pub use endpoint::{Endpoint, FourTuple};
pub use icmp::{IcmpError, IcmpErrorKind};
pub use ip::{Fragmentation, IpLayout, IpVersion, addresses};
pub(crate) use ip::{IpHeader, PROTOCOL_TCP};
pub use offload::{Checksum, Offload, Segmentation};
pub use options::{MAX_WINDOW_SCALE, Options, SackBlock, SackBlocks, Timestamps};
pub(crate) use options::{NOP, OptionPlaces, TIMESTAMPS};
pub(crate) use tcp::FIXED_HEADER;
pub use tcp::{Flags, TcpPacket};

/// What is wrong with a packet. Each is a reason to drop it, and worth a counter of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Malformed {
    /// The packet ends before its headers do, or before its own length says.
    #[error("packet cut short")]
    Truncated,
    /// Neither IPv4 nor IPv6, or not the version it has to be.
    #[error("wrong IP version")]
    Version,
    /// A header length below the minimum, or beyond the packet's total length.
    #[error("impossible header length")]
    HeaderLength,
    /// A part of a packet. Flows are never reassembled.
    #[error("IP fragment")]
    Fragment,
    /// An IPv6 extension header out of its place, cut short, or with a route still to follow.
    #[error("IPv6 extension header not acceptable")]
    ExtensionHeader,
    /// The protocol is not TCP.
    #[error("not TCP")]
    NotTcp,
    /// The protocol is not the ICMP of this IP version, or its message not the kind asked for.
    #[error("not the ICMP message expected")]
    NotIcmp,
    /// A TCP option's length is below 2 or goes beyond the header, or timestamps or SACK blocks
    /// occur twice (RFC 9293, section 3.1, MUST-7).
    #[error("TCP options do not parse")]
    OptionLayout,
    /// The checksum is wrong. Only ICMP is verified while parsing.
    #[error("wrong checksum")]
    Checksum,
}

/// What a packet is, at a first look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Whole, and TCP: for [`TcpPacket::parse`].
    Tcp,
    /// Whole, and ICMP or ICMPv6, whichever belongs to its IP version: for [`icmp::parse_icmp`].
    Icmp,
    /// A fragment, of whatever protocol.
    Fragment,
    /// Whole, of this other protocol.
    Other(u8),
}

/// Says what the IP packet in `packet` is. Bytes after its end are ignored.
pub fn classify(packet: &[u8]) -> Result<Kind, Malformed> {
    let ip = IpLayout::of(packet)?;
    Ok(if ip.fragmentation != Fragmentation::Whole {
        Kind::Fragment
    } else if ip.protocol == PROTOCOL_TCP {
        Kind::Tcp
    } else if ip.protocol == ip.version.icmp() {
        Kind::Icmp
    } else {
        Kind::Other(ip.protocol)
    })
}
