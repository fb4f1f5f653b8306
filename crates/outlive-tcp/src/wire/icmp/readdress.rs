//! An error about a packet that a translation made becomes one about the packet it was made from.

use std::net::IpAddr;

use super::{ICMP_HEADER, IcmpErrorKind, IcmpView, icmp_sum};
use crate::{
    checksum::Delta,
    wire::{FourTuple, IpLayout, IpVersion, Malformed, put_u16, put_u32, u16_at, u32_at},
};

/// How an ICMP error is to be changed. All addresses are of the packet's IP version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IcmpReaddress {
    /// Who says it: the new source address.
    pub source: IpAddr,
    /// Who is told: the new destination address, that of the sender of the original packet.
    pub destination: IpAddr,
    /// The ends of the quoted packet become these: as its sender wrote it.
    pub quoted: FourTuple,
    /// Added to the quoted sequence number, modulo 2^32: what undoes the translation.
    pub seq_delta: u32,
    /// What a translation in this direction adds to a packet's length, in bytes: a reported MTU is
    /// lowered by it, though not below the minimum of its IP version.
    pub mtu_reduction: u16,
}

/// Appends the ICMP error in `packet`, changed as `how` says, to `out`.
///
/// The checksums of the IPv4 header and of ICMP are right afterwards, and that of a quoted IPv4
/// header if it was. The rest of the quoted TCP header stays: its acknowledgment number, timestamps
/// and checksum are of the other connection. Receivers look at ports and sequence number only.
///
/// Fails without a change to `out`: `Version` if `how` has addresses of the other IP version,
/// `NotIcmp` for a message that is no error about a TCP packet, and whatever
/// [`parse_icmp`](super::parse_icmp) fails with.
pub fn readdress_error(
    packet: &[u8],
    how: &IcmpReaddress,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    let view = IcmpView::of(packet)?;
    let what = view.error_kind().ok_or(Malformed::NotIcmp)?;
    let quote = view.tcp_quote()?.ok_or(Malformed::NotIcmp)?;
    let version = view.ip.version;
    let versions = [how.source, how.destination].map(IpVersion::of);
    if versions != [version; 2] || how.quoted.version() != Some(version) {
        return Err(Malformed::Version);
    }

    let start = out.len();
    out.extend_from_slice(view.packet);
    let packet = &mut out[start..];
    replace_addresses(packet, version, how.source, how.destination);
    let message = &mut packet[view.ip.header_len..];
    if let IcmpErrorKind::TooBig { mtu } = what {
        lower_mtu(message, version, mtu, how.mtu_reduction);
    }
    readdress_quote(&mut message[ICMP_HEADER..], &quote, how);
    put_u16(message, 2, 0);
    let checksum = !icmp_sum(&view.ip, packet);
    put_u16(packet, view.ip.header_len + 2, checksum);
    Ok(())
}

/// Changes both addresses of an IP header, and the checksum of an IPv4 header incrementally.
fn replace_addresses(packet: &mut [u8], version: IpVersion, source: IpAddr, destination: IpAddr) {
    let field = version.address_range();
    let mut delta = Delta::default();
    delta.remove(&packet[field.clone()], field.start);
    let (first, second) = packet[field.clone()].split_at_mut(field.len() / 2);
    for (half, addr) in [(first, source), (second, destination)] {
        match addr {
            IpAddr::V4(v4) => half.copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => half.copy_from_slice(&v6.octets()),
        }
    }
    if version == IpVersion::V4 {
        delta.insert(&packet[field.clone()], field.start);
        put_u16(packet, 10, delta.apply_to_checksum(u16_at(packet, 10)));
    }
}

/// An MTU of 0, of a router that does not know it, stays.
fn lower_mtu(message: &mut [u8], version: IpVersion, mtu: u32, reduction: u16) {
    let lowered = |minimum: u32| mtu.saturating_sub(reduction.into()).max(minimum).min(mtu);
    match version {
        // RFC 791, section 3.2 and RFC 8200, section 5. IPv4 has 16 bits for it.
        IpVersion::V4 => put_u16(message, 6, lowered(68) as u16),
        IpVersion::V6 => put_u32(message, 4, lowered(1280)),
    }
}

fn readdress_quote(quote: &mut [u8], layout: &IpLayout, how: &IcmpReaddress) {
    let FourTuple { source, destination } = how.quoted;
    replace_addresses(quote, layout.version, source.addr, destination.addr);
    let header = &mut quote[layout.header_len..];
    put_u16(header, 0, source.port);
    put_u16(header, 2, destination.port);
    let seq = u32_at(header, 4).wrapping_add(how.seq_delta);
    put_u32(header, 4, seq);
}
