//! What a virtual address says for itself: that it is there, and that nobody listens.

use std::net::{IpAddr, Ipv4Addr};

use super::{
    ICMP_HEADER, IcmpMessage, V4_ECHO_REPLY, V4_PORT, V4_UNREACHABLE, V6_ECHO_REPLY, V6_PORT,
    V6_UNREACHABLE, parse_icmp,
};
use crate::{
    checksum,
    segment::DEFAULT_HOP_LIMIT,
    wire::{Fragmentation, IpHeader, IpLayout, IpVersion, put_u16},
};

/// Type of service of IPv4 errors: precedence "internetwork control" (RFC 1812, section 4.3.2.5).
const INTERNETWORK_CONTROL: u8 = 0xc0;

/// An IPv4 error is not longer than this (RFC 1812, section 4.3.2.3), an IPv6 error not longer than
/// the minimum MTU (RFC 4443, section 2.4 c).
const V4_MAX_ERROR: usize = 576;
const V6_MAX_ERROR: usize = 1280;

/// Appends the reply to an echo request. False, and nothing is appended, if `packet` is none, or
/// none that may be answered.
pub fn echo_reply(packet: &[u8], out: &mut Vec<u8>) -> bool {
    let (Ok(IcmpMessage::EchoRequest), Ok(ip)) = (parse_icmp(packet), IpLayout::of(packet)) else {
        return false;
    };
    let Some(header) = reply_header(packet, &ip) else { return false };
    let kind = match ip.version {
        IpVersion::V4 => V4_ECHO_REPLY,
        IpVersion::V6 => V6_ECHO_REPLY,
    };
    let message = &packet[ip.header_len..ip.total_len];
    emit(&header, [kind, 0], &[&message[4..]], out);
    true
}

/// Appends a port-unreachable error in answer to `packet`, which may be of any protocol but ICMP.
/// False, and nothing is appended, where RFC 1812, section 4.3.2.7 and RFC 4443, section 2.4 e
/// forbid it: in answer to what went to many or comes from nobody, and to fragments but the first.
///
/// How often is up to the caller: errors must be limited in their rate.
pub fn port_unreachable(packet: &[u8], out: &mut Vec<u8>) -> bool {
    let Ok(ip) = IpLayout::of(packet) else { return false };
    if ip.fragmentation == Fragmentation::Later || ip.protocol == ip.version.icmp() {
        return false;
    }
    let Some(mut header) = reply_header(packet, &ip) else { return false };
    let (kind, longest) = match ip.version {
        IpVersion::V4 => {
            header.traffic_class = INTERNETWORK_CONTROL;
            ([V4_UNREACHABLE, V4_PORT], V4_MAX_ERROR)
        }
        IpVersion::V6 => ([V6_UNREACHABLE, V6_PORT], V6_MAX_ERROR),
    };
    let room = longest - header.len() - ICMP_HEADER;
    let quote = &packet[..ip.total_len.min(room)];
    emit(&header, kind, &[&[0; 4], quote], out);
    true
}

/// The IP header of an answer to `packet`; `None` if its ends are not both single hosts.
fn reply_header(packet: &[u8], ip: &IpLayout) -> Option<IpHeader> {
    let (source, destination) = ip.version.addresses_in(packet);
    (is_one_host(source) && is_one_host(destination)).then_some(IpHeader {
        source: destination,
        destination: source,
        protocol: ip.version.icmp(),
        hop_limit: DEFAULT_HOP_LIMIT,
        traffic_class: 0,
    })
}

fn is_one_host(addr: IpAddr) -> bool {
    let broadcast = addr == IpAddr::V4(Ipv4Addr::BROADCAST);
    !addr.is_multicast() && !addr.is_unspecified() && !broadcast
}

/// Appends an ICMP message: type and code, the checksum, `parts`, which together are not longer
/// than the packet that is answered.
fn emit(header: &IpHeader, kind_and_code: [u8; 2], parts: &[&[u8]], out: &mut Vec<u8>) {
    let len = 4 + parts.iter().map(|part| part.len()).sum::<usize>();
    let pseudo = header.emit(len as u16, out);
    let start = out.len();
    out.extend_from_slice(&kind_and_code);
    out.extend_from_slice(&[0; 2]);
    for part in parts {
        out.extend_from_slice(part);
    }
    let pseudo = match IpVersion::of(header.source) {
        IpVersion::V4 => 0,
        IpVersion::V6 => u64::from(pseudo),
    };
    let sum = pseudo + u64::from(checksum::sum(&out[start..]));
    put_u16(out, start + 2, !checksum::fold(sum));
}
