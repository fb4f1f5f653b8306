//! Addresses of interfaces.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
};

use super::{LinkIndex, Netlink, NetlinkError, absent_is_fine};

/// An address that an interface has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub link: LinkIndex,
    /// The address and the length of its network's prefix.
    pub address: IpNet,
    /// Whether duplicate address detection (RFC 4862) is still under way, or has failed:
    /// packets cannot be sent from it.
    pub is_tentative: bool,
    /// Whether duplicate address detection has found another owner.
    pub is_duplicate: bool,
}

/// How an address is added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressOptions {
    /// IPv6: usable at once, without duplicate address detection. No effect on IPv4.
    pub no_dad: bool,
    /// Without a route for the address's network.
    pub no_prefix_route: bool,
    /// IPv4: valid on this machine only, so never chosen as the source of a packet by itself; where `arp_ignore`
    /// is 3, not told to neighbours that ask. No effect on IPv6.
    pub host_scope: bool,
}

impl Netlink {
    /// Gives an interface an address. `EEXIST` if it has it already.
    pub fn add_address(
        &self,
        dev: &str,
        address: IpNet,
        options: AddressOptions,
    ) -> Result<(), NetlinkError> {
        self.new_address(dev, address, options, NLM_F_EXCL)
    }

    /// Gives an interface an address, or changes the one it has.
    pub fn replace_address(
        &self,
        dev: &str,
        address: IpNet,
        options: AddressOptions,
    ) -> Result<(), NetlinkError> {
        self.new_address(dev, address, options, NLM_F_REPLACE)
    }

    /// Takes an address from an interface.
    pub fn delete_address(&self, dev: &str, address: IpNet) -> Result<(), NetlinkError> {
        let message = self.address_message(dev, address)?;
        self.request(RouteNetlinkMessage::DelAddress(message), 0, || {
            format!("removing address {address} dev {dev}")
        })
    }

    /// Takes an address from an interface if it has it.
    pub fn delete_address_if_present(&self, dev: &str, address: IpNet) -> Result<(), NetlinkError> {
        absent_is_fine(self.delete_address(dev, address))
    }

    /// All addresses of all interfaces.
    pub fn addresses(&self) -> Result<Vec<Address>, NetlinkError> {
        let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.dump(message, || "listing addresses".to_owned(), address_of)
    }

    fn new_address(
        &self,
        dev: &str,
        address: IpNet,
        options: AddressOptions,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        let mut message = self.address_message(dev, address)?;
        if let IpNet::V4(net) = address
            && net.prefix_len() < 31
        {
            message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
        }
        if options.host_scope && address.addr().is_ipv4() {
            message.header.scope = AddressScope::Host;
        }
        let mut bits = AddressFlags::empty();
        bits.set(AddressFlags::Nodad, options.no_dad && address.addr().is_ipv6());
        bits.set(AddressFlags::Noprefixroute, options.no_prefix_route);
        message.attributes.push(AddressAttribute::Flags(bits));
        let message = RouteNetlinkMessage::NewAddress(message);
        self.request(message, NLM_F_CREATE | flags, || {
            format!("adding address {address} dev {dev}")
        })
    }

    fn address_message(&self, dev: &str, address: IpNet) -> Result<AddressMessage, NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.family = family_of(address.addr());
        message.header.prefix_len = address.prefix_len();
        message.header.index = self.index_of(dev)?.0;
        message.header.scope = AddressScope::Universe;
        message.attributes.push(AddressAttribute::Local(address.addr()));
        message.attributes.push(AddressAttribute::Address(address.addr()));
        Ok(message)
    }
}

/// The netlink address family of an address.
pub(super) fn family_of(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn address_of(message: RouteNetlinkMessage) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    // Of a point-to-point link, `Address` is the other end; `Local` is always ours, but IPv6
    // omits it where both are the same.
    let mut local = None;
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(found) => local = Some(*found),
            AddressAttribute::Address(found) => address = Some(*found),
            _ => {}
        }
    }
    let flags = message.header.flags;
    let unusable = AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed;
    Some(Address {
        link: LinkIndex(message.header.index),
        address: IpNet::new(local.or(address)?, message.header.prefix_len).ok()?,
        is_tentative: flags.intersects(unusable),
        is_duplicate: flags.contains(AddressHeaderFlags::Dadfailed),
    })
}
