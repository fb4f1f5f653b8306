//! The neighbour table: which Ethernet address an IP address on a link has.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    RouteNetlinkMessage,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState as WireState,
    },
};

use super::{LinkIndex, Netlink, NetlinkError, address::family_of};
use crate::MacAddress;

/// An entry of the neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface that the neighbour is reached by.
    pub link: LinkIndex,
    /// Its address.
    pub address: IpAddr,
    /// Its Ethernet address, where known.
    pub mac: Option<MacAddress>,
    /// How certain that is.
    pub state: NeighbourState,
}

/// How certain an entry of the neighbour table is (RFC 4861, section 7.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// Confirmed recently.
    Reachable,
    /// Known, but not confirmed recently: usable, and in part being verified.
    Stale,
    /// Set by an administrator; never verified.
    Permanent,
    /// Being asked for, or not answering.
    Unresolved,
}

impl Netlink {
    /// Sets an entry that is never verified, whatever was there before.
    pub fn replace_permanent_neighbour(
        &self,
        dev: &str,
        address: IpAddr,
        mac: MacAddress,
    ) -> Result<(), NetlinkError> {
        let mut message = self.neighbour_message(dev, address)?;
        message.header.state = WireState::Permanent;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        let message = RouteNetlinkMessage::NewNeighbour(message);
        self.request(message, NLM_F_CREATE | NLM_F_REPLACE, || {
            format!("adding neighbour {address} at {mac} dev {dev}")
        })
    }

    /// Forgets an entry. `ENOENT` if there is none.
    pub fn delete_neighbour(&self, dev: &str, address: IpAddr) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::DelNeighbour(self.neighbour_message(dev, address)?);
        self.request(message, 0, || format!("removing neighbour {address} dev {dev}"))
    }

    /// All entries of all interfaces, both address families, groups left out.
    pub fn neighbours(&self) -> Result<Vec<Neighbour>, NetlinkError> {
        let message = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        self.dump(message, || "listing neighbours".to_owned(), neighbour_of)
    }

    fn neighbour_message(
        &self,
        dev: &str,
        address: IpAddr,
    ) -> Result<NeighbourMessage, NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = family_of(address);
        message.header.ifindex = self.index_of(dev)?.0;
        message.attributes.push(NeighbourAttribute::Destination(match address {
            IpAddr::V4(address) => NeighbourAddress::Inet(address),
            IpAddr::V6(address) => NeighbourAddress::Inet6(address),
        }));
        Ok(message)
    }
}

fn neighbour_of(message: RouteNetlinkMessage) -> Option<Neighbour> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    let state = match message.header.state {
        WireState::Reachable => NeighbourState::Reachable,
        WireState::Stale | WireState::Delay | WireState::Probe => NeighbourState::Stale,
        WireState::Permanent => NeighbourState::Permanent,
        WireState::Incomplete | WireState::Failed | WireState::None => NeighbourState::Unresolved,
        _ => return None,
    };
    let mut address = None;
    let mut mac = None;
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => {
                address = Some(found.into());
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => {
                address = Some(found.into());
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = bytes.try_into().ok().map(MacAddress);
            }
            _ => {}
        }
    }
    Some(Neighbour { link: LinkIndex(message.header.ifindex), address: address?, mac, state })
}
