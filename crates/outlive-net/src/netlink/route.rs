//! Routes.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
};

use super::{LinkIndex, Netlink, NetlinkError, absent_is_fine, address::family_of};

/// The protocol number (`rtm_protocol`) that marks the routes and rules that this program made,
/// so that what a killed process left behind is recognised. Not among the numbers that
/// `/etc/iproute2/rt_protos` assigns.
pub const ROUTE_PROTOCOL: u8 = 111;

/// The table in which ordinary routes are.
pub const TABLE_MAIN: u32 = 254;

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which destinations it is for; bits beyond the prefix are ignored.
    pub destination: IpNet,
    /// Where they go.
    pub target: RouteTarget,
    /// The lower, the better. 0: the kernel's default, which is 0 for IPv4 and 1024 for IPv6.
    pub metric: u32,
    /// The routing table.
    pub table: u32,
    /// Who made it: [`ROUTE_PROTOCOL`] for ours.
    pub protocol: u8,
}

/// Where packets of a route go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    /// Directly to the neighbour, or into the device, that the interface leads to.
    Device(String),
    /// To a router.
    Gateway {
        /// The router.
        address: IpAddr,
        /// The interface that leads to it; needed only if the address is link-local.
        device: Option<String>,
    },
    /// Nowhere, silently.
    Blackhole,
    /// Something that this client does not make: local, unreachable, several next hops. Seen
    /// in lists only; `EOPNOTSUPP` when it is to be added.
    Other,
}

impl Route {
    /// A route of ours in the main table, with the kernel's default metric.
    pub fn new(destination: IpNet, target: RouteTarget) -> Route {
        Route { destination, target, metric: 0, table: TABLE_MAIN, protocol: ROUTE_PROTOCOL }
    }

    /// A route of ours that swallows packets for one address.
    pub fn blackhole(address: IpAddr, metric: u32) -> Route {
        Route { metric, ..Route::new(address.into(), RouteTarget::Blackhole) }
    }

    /// The same route with another metric.
    pub fn with_metric(self, metric: u32) -> Route {
        Route { metric, ..self }
    }

    /// The same route in another table.
    pub fn in_table(self, table: u32) -> Route {
        Route { table, ..self }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            RouteTarget::Device(device) => write!(f, "{} dev {device}", self.destination)?,
            RouteTarget::Gateway { address, device: None } => {
                write!(f, "{} via {address}", self.destination)?;
            }
            RouteTarget::Gateway { address, device: Some(device) } => {
                write!(f, "{} via {address} dev {device}", self.destination)?;
            }
            RouteTarget::Blackhole => write!(f, "blackhole {}", self.destination)?,
            RouteTarget::Other => write!(f, "{} (of another kind)", self.destination)?,
        }
        if self.metric != 0 {
            write!(f, " metric {}", self.metric)?;
        }
        if self.table != TABLE_MAIN {
            write!(f, " table {}", self.table)?;
        }
        Ok(())
    }
}

impl Netlink {
    /// Adds a route. `EEXIST` if there is one of the same destination, metric and table.
    pub fn add_route(&self, route: &Route) -> Result<(), NetlinkError> {
        self.new_route(route, NLM_F_EXCL)
    }

    /// Adds a route in place of the one of the same destination, metric and table, if any.
    pub fn replace_route(&self, route: &Route) -> Result<(), NetlinkError> {
        self.new_route(route, NLM_F_REPLACE)
    }

    /// Removes a route; target, metric and protocol must match.
    pub fn delete_route(&self, route: &Route) -> Result<(), NetlinkError> {
        let operation = || format!("removing route {route}");
        let message = self.route_message(route, &operation)?;
        self.request(RouteNetlinkMessage::DelRoute(message), 0, operation)
    }

    /// Removes a route if it is there.
    pub fn delete_route_if_present(&self, route: &Route) -> Result<(), NetlinkError> {
        absent_is_fine(self.delete_route(route))
    }

    /// All routes of all tables, both address families; not the kernel's cached ones.
    pub fn routes(&self) -> Result<Vec<Route>, NetlinkError> {
        let names: Vec<_> = self.links()?.into_iter().map(|link| (link.index, link.name)).collect();
        let name_of = |index: u32| {
            names.iter().find(|(known, _)| known.0 == index).map(|(_, name)| name.clone())
        };
        let message = RouteNetlinkMessage::GetRoute(RouteMessage::default());
        self.dump(message, || "listing routes".to_owned(), |message| route_of(message, name_of))
    }

    fn new_route(&self, route: &Route, flags: u16) -> Result<(), NetlinkError> {
        let operation = || format!("adding route {route}");
        let message = self.route_message(route, &operation)?;
        self.request(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | flags, operation)
    }

    fn route_message(
        &self,
        route: &Route,
        operation: &dyn Fn() -> String,
    ) -> Result<RouteMessage, NetlinkError> {
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.address_family = family_of(route.destination.addr());
        header.destination_prefix_length = route.destination.prefix_len();
        // The 8-bit field cannot hold every table; the attribute below can.
        header.table = u8::try_from(route.table).unwrap_or(0);
        header.protocol = RouteProtocol::from(route.protocol);
        header.kind = RouteType::Unicast;
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Destination(route.destination.network().into()));
        attributes.push(RouteAttribute::Table(route.table));
        if route.metric != 0 {
            attributes.push(RouteAttribute::Priority(route.metric));
        }
        let device = match &route.target {
            RouteTarget::Device(device) => {
                header.scope = RouteScope::Link;
                Some(device)
            }
            RouteTarget::Gateway { address, device } => {
                attributes.push(RouteAttribute::Gateway((*address).into()));
                device.as_ref()
            }
            RouteTarget::Blackhole => {
                header.kind = RouteType::BlackHole;
                None
            }
            RouteTarget::Other => {
                let errno = crate::Errno(libc::EOPNOTSUPP);
                let cause = super::Cause::Refused { errno, hint: None };
                return Err(NetlinkError { operation: operation(), cause });
            }
        };
        if let Some(device) = device {
            let LinkIndex(index) = self
                .index_of(device)
                .map_err(|error| NetlinkError { operation: operation(), ..error })?;
            attributes.push(RouteAttribute::Oif(index));
        }
        Ok(message)
    }
}

fn route_of(
    message: RouteNetlinkMessage,
    name_of: impl Fn(u32) -> Option<String>,
) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let header = &message.header;
    if header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let mut destination = None;
    let mut gateway = None;
    let mut device = None;
    let mut metric = 0;
    let mut table = u32::from(header.table);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip_of(address),
            RouteAttribute::Gateway(address) => gateway = ip_of(address),
            RouteAttribute::Oif(index) => device = name_of(*index),
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    let unspecified = match u8::from(header.address_family) as i32 {
        libc::AF_INET => IpAddr::from([0; 4]),
        libc::AF_INET6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    let destination =
        IpNet::new(destination.unwrap_or(unspecified), header.destination_prefix_length).ok()?;
    let target = match (header.kind, gateway, device) {
        (RouteType::Unicast, Some(address), device) => RouteTarget::Gateway { address, device },
        (RouteType::Unicast, None, Some(device)) => RouteTarget::Device(device),
        (RouteType::BlackHole, ..) => RouteTarget::Blackhole,
        _ => RouteTarget::Other,
    };
    Some(Route { destination, target, metric, table, protocol: header.protocol.into() })
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_in_the_ip_command() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let device = Route::new(net("10.0.0.100/32"), RouteTarget::Device("outl0".to_owned()));
        assert_eq!(device.to_string(), "10.0.0.100/32 dev outl0");
        let blackhole = Route::blackhole("2001:db8::1".parse().unwrap(), 4096);
        assert_eq!(blackhole.to_string(), "blackhole 2001:db8::1/128 metric 4096");
        let gateway = RouteTarget::Gateway { address: [10, 0, 0, 1].into(), device: None };
        let default = Route::new(net("0.0.0.0/0"), gateway).in_table(100);
        assert_eq!(default.to_string(), "0.0.0.0/0 via 10.0.0.1 table 100");
    }
}
