//! ICMP (RFC 792) and ICMPv6 (RFC 4443): what reaches a virtual address, and what is said in reply.
//!
//! Errors about a spliced connection quote a packet that a node wrote; [`readdress_error`] makes
//! them into errors about the packet that it was made from. Which connection that is, whether the
//! quoted sequence number is believable, and how many replies are too many, the caller decides.
//!
//! ICMP never comes with a checksum that a device is to complete, so it is verified here: nobody
//! else does for packets that a kernel forwards.

mod answer;
mod readdress;
#[cfg(test)]
mod tests;

pub use answer::{echo_reply, port_unreachable};
pub use readdress::{IcmpReaddress, readdress_error};

use super::{
    Endpoint, FourTuple, Fragmentation, IpLayout, IpVersion, Malformed, PROTOCOL_TCP, u16_at,
    u32_at,
};
use crate::{checksum, seq::Seq};

/// Length of the part that all messages here have in common.
const ICMP_HEADER: usize = 8;

const V4_ECHO_REPLY: u8 = 0;
const V4_UNREACHABLE: u8 = 3;
const V4_ECHO: u8 = 8;
const V4_TIME_EXCEEDED: u8 = 11;
const V4_PARAMETER_PROBLEM: u8 = 12;

const V6_UNREACHABLE: u8 = 1;
const V6_TOO_BIG: u8 = 2;
const V6_TIME_EXCEEDED: u8 = 3;
const V6_PARAMETER_PROBLEM: u8 = 4;
const V6_ECHO: u8 = 128;
const V6_ECHO_REPLY: u8 = 129;

/// Codes of an unreachable destination.
const V4_FRAGMENTATION_NEEDED: u8 = 4;
const V4_PROTOCOL: u8 = 2;
const V4_PORT: u8 = 3;
const V6_PORT: u8 = 4;

/// What an ICMP message is to a proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IcmpMessage {
    /// A ping: for [`echo_reply`].
    EchoRequest,
    /// An error about a TCP packet: for [`readdress_error`].
    Error(IcmpError),
    /// Anything else: an error about another protocol or a later fragment, a redirect, a query.
    Other,
}

/// An ICMP error about a TCP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IcmpError {
    /// The ends of the packet, as quoted: `source` is who sent it, and is told now.
    pub quoted: FourTuple,
    /// SEG.SEQ of the packet. An error is believable if it lies in what is in flight (RFC 5927).
    pub quoted_seq: Seq,
    /// What happened to it.
    pub what: IcmpErrorKind,
    /// The ICMP code, which says it more precisely and in terms of the IP version.
    pub code: u8,
}

impl IcmpError {
    /// Whether nobody is there at all, as the destination's address tells for protocol and port: a
    /// "hard error" of RFC 9293, section 3.9.2.2.
    pub fn is_hard(&self) -> bool {
        let unreachable = match self.quoted.version() {
            Some(IpVersion::V4) => matches!(self.code, V4_PROTOCOL | V4_PORT),
            _ => self.code == V6_PORT,
        };
        self.what == IcmpErrorKind::Unreachable && unreachable
    }
}

/// What happened to a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IcmpErrorKind {
    /// It did not fit (RFC 1191, RFC 8201).
    TooBig {
        /// What would have, in bytes of IP packet; 0 if an old router did not say (IPv4 only).
        mtu: u32,
    },
    /// No way to its destination, or nobody there.
    Unreachable,
    /// Its hop limit was used up.
    TimeExceeded,
    /// A header field was not understood.
    ParameterProblem,
}

/// Reads a whole ICMP packet, IP header first.
pub fn parse_icmp(packet: &[u8]) -> Result<IcmpMessage, Malformed> {
    let view = IcmpView::of(packet)?;
    if (view.ip.version, view.kind()) == (IpVersion::V4, V4_ECHO)
        || (view.ip.version, view.kind()) == (IpVersion::V6, V6_ECHO)
    {
        return Ok(IcmpMessage::EchoRequest);
    }
    let Some(what) = view.error_kind() else { return Ok(IcmpMessage::Other) };
    let Some(quote) = view.tcp_quote()? else { return Ok(IcmpMessage::Other) };
    let (source, destination) = view.ip.version.addresses_in(view.quote());
    let header = &view.quote()[quote.header_len..];
    Ok(IcmpMessage::Error(IcmpError {
        quoted: FourTuple {
            source: Endpoint::new(source, u16_at(header, 0)),
            destination: Endpoint::new(destination, u16_at(header, 2)),
        },
        quoted_seq: Seq(u32_at(header, 4)),
        what,
        code: view.message[1],
    }))
}

/// A whole ICMP packet with a right checksum.
struct IcmpView<'a> {
    ip: IpLayout,
    /// The packet without what may follow it in its buffer.
    packet: &'a [u8],
    /// At least [`ICMP_HEADER`] bytes.
    message: &'a [u8],
}

impl<'a> IcmpView<'a> {
    fn of(packet: &'a [u8]) -> Result<Self, Malformed> {
        let ip = IpLayout::of(packet)?;
        if ip.fragmentation != Fragmentation::Whole {
            return Err(Malformed::Fragment);
        }
        if ip.protocol != ip.version.icmp() {
            return Err(Malformed::NotIcmp);
        }
        let packet = &packet[..ip.total_len];
        let message = &packet[ip.header_len..];
        if message.len() < ICMP_HEADER {
            return Err(Malformed::Truncated);
        }
        if icmp_sum(&ip, packet) != 0xffff {
            return Err(Malformed::Checksum);
        }
        Ok(IcmpView { ip, packet, message })
    }

    fn kind(&self) -> u8 {
        self.message[0]
    }

    /// What an error about some packet says; `None` for messages that are not such errors.
    fn error_kind(&self) -> Option<IcmpErrorKind> {
        match (self.ip.version, self.kind(), self.message[1]) {
            (IpVersion::V4, V4_UNREACHABLE, V4_FRAGMENTATION_NEEDED) => {
                Some(IcmpErrorKind::TooBig { mtu: u16_at(self.message, 6).into() })
            }
            (IpVersion::V6, V6_TOO_BIG, _) => {
                Some(IcmpErrorKind::TooBig { mtu: u32_at(self.message, 4) })
            }
            (IpVersion::V4, V4_UNREACHABLE, _) | (IpVersion::V6, V6_UNREACHABLE, _) => {
                Some(IcmpErrorKind::Unreachable)
            }
            (IpVersion::V4, V4_TIME_EXCEEDED, _) | (IpVersion::V6, V6_TIME_EXCEEDED, _) => {
                Some(IcmpErrorKind::TimeExceeded)
            }
            (IpVersion::V4, V4_PARAMETER_PROBLEM, _) | (IpVersion::V6, V6_PARAMETER_PROBLEM, _) => {
                Some(IcmpErrorKind::ParameterProblem)
            }
            _ => None,
        }
    }

    /// What an error quotes: the beginning of a packet.
    fn quote(&self) -> &'a [u8] {
        &self.message[ICMP_HEADER..]
    }

    /// The layout of the quoted packet; `None` if it is not TCP or has no TCP header. The first 8
    /// bytes of the TCP header, which every router quotes, are there.
    fn tcp_quote(&self) -> Result<Option<IpLayout>, Malformed> {
        let quote = IpLayout::of_quote(self.quote())?;
        if quote.version != self.ip.version {
            return Err(Malformed::Version);
        }
        if quote.protocol != PROTOCOL_TCP || quote.fragmentation == Fragmentation::Later {
            return Ok(None);
        }
        if self.quote().len() < quote.header_len + 8 {
            return Err(Malformed::Truncated);
        }
        Ok(Some(quote))
    }
}

/// The folded sum over an ICMP message: with the pseudo-header in ICMPv6 (RFC 4443, section 2.3),
/// without one in ICMP. 0xffff if its checksum is right.
fn icmp_sum(ip: &IpLayout, packet: &[u8]) -> u16 {
    let message = &packet[ip.header_len..];
    let pseudo = match ip.version {
        IpVersion::V4 => 0,
        IpVersion::V6 => {
            let addresses = &packet[ip.version.address_range()];
            checksum::pseudo_header(addresses, ip.protocol, message.len())
        }
    };
    checksum::fold(u64::from(pseudo) + u64::from(checksum::sum(message)))
}
