//! IPv4 (RFC 791) and IPv6 (RFC 8200) headers: where their parts are, and how new ones are written.
//!
//! The checksum of an IPv4 header is not verified: the kernel that routed the packet here has done
//! so, and an incremental update leaves a wrong one wrong.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
};

use super::{FourTuple, Malformed, endpoint::mapped, u16_at};
use crate::checksum;

pub(crate) const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_ICMPV6: u8 = 58;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// More than RFC 8200, section 4.1 has a use for. Each costs a step of the walk.
const MAX_EXTENSION_HEADERS: usize = 6;

/// The version of IP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpVersion {
    /// The version of `addr`.
    pub const fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => IpVersion::V4,
            IpAddr::V6(_) => IpVersion::V6,
        }
    }

    /// Length of a header without options or extensions, in bytes.
    pub const fn header_len(self) -> usize {
        match self {
            IpVersion::V4 => 20,
            IpVersion::V6 => 40,
        }
    }

    /// Where a header has source and destination address, one after the other.
    pub(crate) const fn address_range(self) -> Range<usize> {
        match self {
            IpVersion::V4 => 12..20,
            IpVersion::V6 => 8..40,
        }
    }

    /// The protocol number of the ICMP that belongs to it.
    pub(crate) const fn icmp(self) -> u8 {
        match self {
            IpVersion::V4 => PROTOCOL_ICMP,
            IpVersion::V6 => PROTOCOL_ICMPV6,
        }
    }

    /// Source and destination of a packet that is at least as long as a header.
    pub(crate) fn addresses_in(self, packet: &[u8]) -> (IpAddr, IpAddr) {
        match self {
            IpVersion::V4 => {
                let at = |i: usize| Ipv4Addr::from(super::u32_at(packet, i));
                (at(12).into(), at(16).into())
            }
            IpVersion::V6 => {
                let at = |i: usize| {
                    let mut octets = [0; 16];
                    octets.copy_from_slice(&packet[i..i + 16]);
                    Ipv6Addr::from(octets)
                };
                (at(8).into(), at(24).into())
            }
        }
    }
}

/// Whether a packet is whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fragmentation {
    /// It is. (So is an IPv6 packet with a fragment header that says so, RFC 6946.)
    Whole,
    /// The first fragment: it has a transport header, or at least its beginning.
    First,
    /// A later one: it has no transport header.
    Later,
}

/// Where the parts of an IP packet are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IpLayout {
    /// The version.
    pub version: IpVersion,
    /// The protocol behind the header and all its extensions.
    pub protocol: u8,
    /// Length of the header with its options or extensions, in bytes: where the protocol begins.
    pub header_len: usize,
    /// Length of the packet as its header has it, in bytes: never below `header_len`.
    pub total_len: usize,
    /// Whether it is whole.
    pub fragmentation: Fragmentation,
}

impl IpLayout {
    /// The layout of the packet in `packet`, of which all `total_len` bytes must be there. Bytes
    /// after them are ignored.
    pub fn of(packet: &[u8]) -> Result<Self, Malformed> {
        let layout = Self::of_quote(packet)?;
        if layout.total_len > packet.len() { Err(Malformed::Truncated) } else { Ok(layout) }
    }

    /// The layout of a packet as ICMP errors quote it: the header is there, the rest may be cut.
    pub fn of_quote(packet: &[u8]) -> Result<Self, Malformed> {
        match packet.first().ok_or(Malformed::Truncated)? >> 4 {
            4 => Self::of_v4(packet),
            6 => Self::of_v6(packet),
            _ => Err(Malformed::Version),
        }
    }

    fn of_v4(packet: &[u8]) -> Result<Self, Malformed> {
        let fixed = packet.first_chunk::<20>().ok_or(Malformed::Truncated)?;
        let header_len = usize::from(fixed[0] & 0x0f) * 4;
        let total_len = usize::from(u16_at(fixed, 2));
        if header_len < 20 || total_len < header_len {
            return Err(Malformed::HeaderLength);
        }
        if packet.len() < header_len {
            return Err(Malformed::Truncated);
        }
        let fragment = u16_at(fixed, 6);
        let (more, offset) = (fragment & 0x2000 != 0, fragment & 0x1fff);
        let fragmentation = fragmentation(offset, more);
        Ok(Self {
            version: IpVersion::V4,
            protocol: fixed[9],
            header_len,
            total_len,
            fragmentation,
        })
    }

    /// Walks the extension headers (RFC 8200, section 4). Hop-by-hop options, destination options
    /// and a routing header that has come to its end are passed over; their contents are none of
    /// ours.
    fn of_v6(packet: &[u8]) -> Result<Self, Malformed> {
        let fixed = packet.first_chunk::<40>().ok_or(Malformed::Truncated)?;
        let mut layout = Self {
            version: IpVersion::V6,
            protocol: fixed[6],
            header_len: 40,
            total_len: 40 + usize::from(u16_at(fixed, 4)),
            fragmentation: Fragmentation::Whole,
        };
        for _ in 0..=MAX_EXTENSION_HEADERS {
            match layout.protocol {
                // Only first: routers look nowhere else.
                HOP_BY_HOP if layout.header_len != 40 => return Err(Malformed::ExtensionHeader),
                HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS => {}
                _ => return Ok(layout),
            }
            let extension =
                packet.get(layout.header_len..).and_then(|rest| rest.first_chunk::<8>());
            layout.pass_extension(extension.ok_or(Malformed::Truncated)?)?;
            if layout.header_len > layout.total_len {
                return Err(Malformed::ExtensionHeader);
            }
            if layout.header_len > packet.len() {
                return Err(Malformed::Truncated);
            }
            if layout.fragmentation == Fragmentation::Later {
                return Ok(layout);
            }
        }
        Err(Malformed::ExtensionHeader)
    }

    /// Goes on behind the extension header that begins with `extension`.
    fn pass_extension(&mut self, extension: &[u8; 8]) -> Result<(), Malformed> {
        let mut len = 8 + 8 * usize::from(extension[1]);
        if self.protocol == ROUTING && extension[3] != 0 {
            return Err(Malformed::ExtensionHeader);
        }
        if self.protocol == FRAGMENT {
            let field = u16_at(extension, 2);
            self.fragmentation = fragmentation(field >> 3, field & 1 != 0);
            len = 8; // The second byte is reserved here.
        }
        self.header_len += len;
        self.protocol = extension[0];
        Ok(())
    }
}

fn fragmentation(offset: u16, more: bool) -> Fragmentation {
    match (offset, more) {
        (0, false) => Fragmentation::Whole,
        (0, true) => Fragmentation::First,
        _ => Fragmentation::Later,
    }
}

/// Source and destination address of any IP packet.
pub fn addresses(packet: &[u8]) -> Result<(IpAddr, IpAddr), Malformed> {
    let layout = IpLayout::of(packet)?;
    Ok(layout.version.addresses_in(packet))
}

/// The header of a packet that this node makes itself.
pub(crate) struct IpHeader {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) hop_limit: u8,
    /// Type of service, or traffic class.
    pub(crate) traffic_class: u8,
}

impl IpHeader {
    pub(crate) fn new(tuple: FourTuple, protocol: u8, hop_limit: u8) -> Self {
        let (source, destination) = (tuple.source.addr, tuple.destination.addr);
        IpHeader { source, destination, protocol, hop_limit, traffic_class: 0 }
    }

    /// Length of what [`emit`](Self::emit) appends.
    pub(crate) fn len(&self) -> usize {
        match (self.source, self.destination) {
            (IpAddr::V4(_), IpAddr::V4(_)) => IpVersion::V4.header_len(),
            _ => IpVersion::V6.header_len(),
        }
    }

    /// Appends the header for `payload_len` bytes behind it. On IPv4, DF is set and the
    /// identification zero (RFC 6864). Ends of different versions are written as IPv6, the IPv4 one
    /// mapped. Gives the sum of the pseudo-header.
    pub(crate) fn emit(&self, payload_len: u16, out: &mut Vec<u8>) -> u16 {
        let start = out.len();
        let addresses = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let total_len = payload_len.saturating_add(20);
                out.extend_from_slice(&[0x45, self.traffic_class]);
                out.extend_from_slice(&total_len.to_be_bytes());
                out.extend_from_slice(&[0, 0, 0x40, 0, self.hop_limit, self.protocol, 0, 0]);
                out.extend_from_slice(&source.octets());
                out.extend_from_slice(&destination.octets());
                let sum = checksum::sum(&out[start..]);
                super::put_u16(out, start + 10, !sum);
                &out[start + 12..]
            }
            (source, destination) => {
                let class = self.traffic_class;
                out.extend_from_slice(&[0x60 | class >> 4, class << 4, 0, 0]);
                out.extend_from_slice(&payload_len.to_be_bytes());
                out.extend_from_slice(&[self.protocol, self.hop_limit]);
                out.extend_from_slice(&mapped(source).octets());
                out.extend_from_slice(&mapped(destination).octets());
                &out[start + 8..]
            }
        };
        checksum::pseudo_header(addresses, self.protocol, payload_len.into())
    }
}
