//! The driver for a Linux router: routes of this machine, changed through netlink.

use std::net::IpAddr;

use ipnet::IpNet;
use outlive_net::netlink::{Netlink, NetlinkError, Route, RouteTarget};
use outlive_proxy::config::NodeId;

/// Leads destinations to one of two nodes. The routes stay when it is dropped: packets go on flowing while no detector
/// runs.
#[derive(Debug)]
pub struct RouteSwitch {
    netlink: Netlink,
    /// To node a, and to node b.
    routes: [Vec<Route>; 2],
}

impl RouteSwitch {
    /// For the network namespace of the calling thread. Changes nothing yet.
    ///
    /// `via`: the addresses of node a and of node b at which this router reaches them. A destination goes via the first
    /// of its own IP version; one for which there is none is left out.
    ///
    /// # Errors
    /// There can be no netlink socket.
    pub fn new(
        destinations: &[IpNet],
        via: &[Vec<IpAddr>; 2],
        table: u32,
        metric: u32,
    ) -> Result<Self, NetlinkError> {
        let to = |node: &[IpAddr]| {
            let route = |destination: &IpNet| {
                let is_v4 = destination.addr().is_ipv4();
                let address = *node.iter().find(|address| address.is_ipv4() == is_v4)?;
                let target = RouteTarget::Gateway { address, device: None };
                Some(Route::new(*destination, target).in_table(table).with_metric(metric))
            };
            destinations.iter().filter_map(route).collect()
        };
        let [a, b] = via;
        Ok(RouteSwitch { netlink: Netlink::open()?, routes: [to(a), to(b)] })
    }

    /// Leads all destinations to this node, each in one step: a packet never finds none. Repeating it is harmless.
    ///
    /// # Errors
    /// The first route that the kernel refuses; the others are tried, too.
    pub fn redirect(&self, to: NodeId) -> Result<(), NetlinkError> {
        let routes = &self.routes[usize::from(to == NodeId::B)];
        let mut first = Ok(());
        for route in routes {
            first = first.and(self.netlink.replace_route(route));
        }
        first
    }
}
