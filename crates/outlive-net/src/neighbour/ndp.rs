//! Neighbour solicitations and advertisements (RFC 4861, sections 4.3 and 4.4) over Ethernet.
//!
//! Parsing is as strict as sections 7.1.1 and 7.1.2 demand, checksum and hop limit included.

use std::net::Ipv6Addr;

use crate::MacAddress;

/// Bytes of an advertisement as written here: Ethernet, IPv6, message, one option.
pub const ADVERTISEMENT_LEN: usize = ETHERNET + IPV6 + MESSAGE + OPTION;

/// Where messages of this kind begin, for filters: the IPv6 next header, hop limit, and the
/// ICMPv6 type, as offsets into the frame.
pub const NEXT_HEADER_AT: usize = ETHERNET + 6;
/// See [`NEXT_HEADER_AT`].
pub const HOP_LIMIT_AT: usize = ETHERNET + 7;
/// See [`NEXT_HEADER_AT`].
pub const TYPE_AT: usize = ETHERNET + IPV6;

/// The IPv6 next header of ICMPv6.
pub const ICMPV6: u8 = 58;
/// The only hop limit with which these messages are valid: no router has passed them on.
pub const HOP_LIMIT: u8 = 255;
/// ICMPv6 type of a neighbour solicitation.
pub const SOLICITATION: u8 = 135;
/// ICMPv6 type of a neighbour advertisement.
pub const ADVERTISEMENT: u8 = 136;

const ETHERNET: usize = 14;
const IPV6: usize = 40;
/// Type, code, checksum, flags, target address: both kinds alike.
const MESSAGE: usize = 24;
/// A link-layer address option for Ethernet.
const OPTION: usize = 8;
const ETHERTYPE: [u8; 2] = [0x86, 0xdd];
const SOURCE_LINK_ADDRESS: u8 = 1;
const TARGET_LINK_ADDRESS: u8 = 2;
const ROUTER_FLAG: u8 = 0x80;
const SOLICITED_FLAG: u8 = 0x40;
const OVERRIDE_FLAG: u8 = 0x20;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ndp {
    /// "Who has the target address?"
    Solicitation {
        /// Who asks; unspecified while it makes sure that nobody has the address that it wants
        /// itself (duplicate address detection, RFC 4862).
        source: Ipv6Addr,
        /// Where to send the answer.
        link_address: MacAddress,
        /// The address asked for.
        target: Ipv6Addr,
    },
    /// "The target address is at this link-layer address."
    Advertisement {
        /// Where the target is said to be.
        link_address: MacAddress,
        /// The address that is claimed.
        target: Ipv6Addr,
    },
}

impl Ndp {
    /// Reads a frame. `None` if it is not a valid solicitation or advertisement.
    pub fn parse(frame: &[u8]) -> Option<Ndp> {
        let (ethernet, packet) = frame.split_first_chunk::<ETHERNET>()?;
        let frame_source = MacAddress(*ethernet[6..].first_chunk()?);
        if ethernet[12..] != ETHERTYPE || frame_source.is_group() {
            return None;
        }
        let (ip, rest) = packet.split_first_chunk::<IPV6>()?;
        if ip[0] >> 4 != 6 || ip[6] != ICMPV6 || ip[7] != HOP_LIMIT {
            return None;
        }
        let source = Ipv6Addr::from(*ip[8..].first_chunk::<16>()?);
        let destination = Ipv6Addr::from(*ip[24..].first_chunk::<16>()?);
        let message = rest.get(..usize::from(u16::from_be_bytes([ip[4], ip[5]])))?;
        if checksum(source, destination, message) != 0 {
            return None;
        }
        let (fixed, options) = message.split_first_chunk::<MESSAGE>()?;
        let target = Ipv6Addr::from(*fixed[8..].first_chunk::<16>()?);
        if fixed[1] != 0 || target.is_multicast() || source.is_multicast() {
            return None;
        }
        match fixed[0] {
            SOLICITATION => {
                let given = link_address_option(options, SOURCE_LINK_ADDRESS)?;
                let detects_duplicates = source.is_unspecified();
                let is_valid = destination == solicited_node_group(target) && given.is_none();
                if detects_duplicates && !is_valid {
                    return None;
                }
                let link_address = given.unwrap_or(frame_source);
                Some(Ndp::Solicitation { source, link_address, target })
            }
            ADVERTISEMENT => {
                let given = link_address_option(options, TARGET_LINK_ADDRESS)?;
                if destination.is_multicast() && fixed[4] & SOLICITED_FLAG != 0 {
                    return None;
                }
                let link_address = given.unwrap_or(frame_source);
                Some(Ndp::Advertisement { link_address, target })
            }
            _ => None,
        }
    }
}

/// The group in which the owner of `address` is asked for (RFC 4291, section 2.7.1).
pub fn solicited_node_group(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    let last = u16::from_be_bytes([b, c]);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), last)
}

/// The frame that tells every node on the link that `mac` has `address`, unasked.
pub fn announcement(mac: MacAddress, address: Ipv6Addr) -> [u8; ADVERTISEMENT_LEN] {
    advertisement(mac, address, MacAddress::of_ipv6_multicast(ALL_NODES), ALL_NODES, 0)
}

/// The frame that answers a solicitation in the name of `mac`.
///
/// `source` and `link_address`: of the solicitation. One from the unspecified address is
/// answered to all nodes and without the Solicited flag (RFC 4861, section 7.2.4).
pub fn answer(
    mac: MacAddress,
    target: Ipv6Addr,
    source: Ipv6Addr,
    link_address: MacAddress,
) -> [u8; ADVERTISEMENT_LEN] {
    if source.is_unspecified() {
        announcement(mac, target)
    } else {
        advertisement(mac, target, link_address, source, SOLICITED_FLAG)
    }
}

/// Router, because a node passes packets on; Override, because what others had in their tables
/// before a takeover must go.
fn advertisement(
    mac: MacAddress,
    address: Ipv6Addr,
    to: MacAddress,
    destination: Ipv6Addr,
    solicited: u8,
) -> [u8; ADVERTISEMENT_LEN] {
    let mut frame = [0; ADVERTISEMENT_LEN];
    let (ethernet, packet) = frame.split_at_mut(ETHERNET);
    ethernet[..6].copy_from_slice(&to.0);
    ethernet[6..12].copy_from_slice(&mac.0);
    ethernet[12..].copy_from_slice(&ETHERTYPE);
    let (ip, message) = packet.split_at_mut(IPV6);
    ip[0] = 6 << 4;
    ip[5] = (MESSAGE + OPTION) as u8;
    ip[6] = ICMPV6;
    ip[7] = HOP_LIMIT;
    ip[8..24].copy_from_slice(&address.octets());
    ip[24..].copy_from_slice(&destination.octets());
    message[0] = ADVERTISEMENT;
    message[4] = ROUTER_FLAG | OVERRIDE_FLAG | solicited;
    message[8..24].copy_from_slice(&address.octets());
    message[24] = TARGET_LINK_ADDRESS;
    message[25] = 1;
    message[26..].copy_from_slice(&mac.0);
    let sum = checksum(address, destination, message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// The Ethernet address in the option of that kind, `Some(None)` if there is no such option.
/// `None` if the options are malformed (RFC 4861, section 4.6: lengths count 8 bytes, and 0 is
/// not allowed).
fn link_address_option(mut options: &[u8], wanted: u8) -> Option<Option<MacAddress>> {
    let mut found = None;
    while let [kind, units, ..] = *options {
        let len = usize::from(units) * 8;
        if len == 0 {
            return None;
        }
        let (option, rest) = options.split_at_checked(len)?;
        if kind == wanted && found.is_none() {
            let mac = MacAddress(option.get(2..)?.try_into().ok()?);
            if mac.is_group() {
                return None;
            }
            found = Some(mac);
        }
        options = rest;
    }
    options.is_empty().then_some(found)
}

/// The checksum of an ICMPv6 message (RFC 4443, section 2.3); 0 over one that carries a right
/// checksum.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u64 {
        let pairs = bytes.chunks(2);
        pairs.map(|pair| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |&b| b.into())).sum()
    };
    let mut sum = words(&source.octets()) + words(&destination.octets()) + words(message);
    sum += message.len() as u64 + u64::from(ICMPV6);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
#[path = "ndp_tests.rs"]
mod tests;
