//! The routes of the virtual addresses: the composition that a node uses.
//!
//! A node that is up has, for each address, a blackhole route of a bad metric, so that a dead
//! or passive node never answers with "network unreachable" (which aborts connections that are
//! being opened) nor bounces packets along its default route. While it is active, it also has
//! a host route of a good metric into its TUN device. The latter vanishes with the device when
//! the process dies, the former stays: the next start recognises it by
//! [`ROUTE_PROTOCOL`] and takes it over.
//!
//! This module owns those routes and nothing else. Who answers for the addresses on the links
//! is [`neighbour`](crate::neighbour)'s.

use std::net::IpAddr;

use crate::netlink::{Netlink, NetlinkError, ROUTE_PROTOCOL, Route, RouteTarget, TABLE_MAIN};

/// The metric of the blackhole routes; worse than any that a system's own tools give by
/// default.
pub const BLACKHOLE_METRIC: u32 = 4096;

/// The routes of a node's virtual addresses, removed when dropped.
#[derive(Debug)]
pub struct VirtualAddresses {
    netlink: Netlink,
    device: String,
    addresses: Vec<IpAddr>,
    installed: bool,
}

/// What an earlier process that was killed has left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Routes for this node's addresses: replaced.
    pub replaced: Vec<Route>,
    /// Routes marked as ours, but for other addresses: of another node in this namespace, or of
    /// an earlier configuration. Left alone, because nobody can tell; an administrator may
    /// remove them.
    pub stray: Vec<Route>,
}

impl VirtualAddresses {
    /// Puts the blackhole routes for `addresses`, in the network namespace of the calling
    /// thread. Nothing is changed if that is refused.
    ///
    /// `device`: the TUN device of this node, which exists already.
    pub fn install(
        device: &str,
        addresses: &[IpAddr],
    ) -> Result<(VirtualAddresses, Leftovers), EdgeError> {
        let netlink = Netlink::open()?;
        netlink.index_of(device)?;
        check_unicast(addresses)?;
        check_not_local(&netlink, addresses)?;
        let leftovers = find_leftovers(&netlink, device, addresses)?;

        let mut ours = VirtualAddresses {
            netlink,
            device: device.to_owned(),
            addresses: addresses.to_vec(),
            installed: true,
        };
        ours.addresses.sort_unstable();
        ours.addresses.dedup();
        // From here on, an error drops `ours`, which removes what was put.
        for route in &leftovers.replaced {
            ours.netlink.delete_route_if_present(route)?;
        }
        for &address in &ours.addresses {
            ours.netlink.replace_route(&Route::blackhole(address, BLACKHOLE_METRIC))?;
        }
        Ok((ours, leftovers))
    }

    /// The addresses, sorted.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Owns these addresses from now on, and no others: as [`install`](Self::install) does for new ones, and dropping
    /// for those that are none any more. `active`: they are to be led into the device.
    ///
    /// An error about a new address changes nothing.
    pub fn set_addresses(&mut self, addresses: &[IpAddr], active: bool) -> Result<(), EdgeError> {
        let mut wanted = addresses.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        let new: Vec<IpAddr> =
            wanted.iter().copied().filter(|a| !self.addresses.contains(a)).collect();
        check_unicast(&new)?;
        check_not_local(&self.netlink, &new)?;
        let leftovers = find_leftovers(&self.netlink, &self.device, &new)?;
        for route in &leftovers.replaced {
            self.netlink.delete_route_if_present(route)?;
        }
        for &address in &new {
            self.netlink.replace_route(&Route::blackhole(address, BLACKHOLE_METRIC))?;
            if active {
                self.netlink.replace_route(&self.device_route(address))?;
            }
        }
        let old = std::mem::replace(&mut self.addresses, wanted);
        let mut first = Ok(());
        for address in old.into_iter().filter(|a| !self.addresses.contains(a)) {
            let blackhole = Route::blackhole(address, BLACKHOLE_METRIC);
            for route in [self.device_route(address), blackhole] {
                first = first.and(self.netlink.delete_route_if_present(&route));
            }
        }
        Ok(first?)
    }

    /// Leads the addresses into the TUN device, which must be up. Repeating it is harmless.
    ///
    /// After an error, some may be led there already: repeat it, or [`deactivate`].
    ///
    /// [`deactivate`]: VirtualAddresses::deactivate
    pub fn activate(&self) -> Result<(), EdgeError> {
        for &address in &self.addresses {
            self.netlink.replace_route(&self.device_route(address))?;
        }
        Ok(())
    }

    /// Leaves the addresses to the blackhole routes again. Repeating it is harmless.
    ///
    /// Goes on after an error, and returns the first.
    pub fn deactivate(&self) -> Result<(), EdgeError> {
        self.for_each(|address| self.netlink.delete_route_if_present(&self.device_route(address)))
    }

    /// Removes all routes, and says if that failed; dropping does the same, silently.
    pub fn cleanup(mut self) -> Result<(), EdgeError> {
        self.remove()
    }

    fn remove(&mut self) -> Result<(), EdgeError> {
        self.installed = false;
        let deactivated = self.deactivate();
        let removed = self.for_each(|address| {
            self.netlink.delete_route_if_present(&Route::blackhole(address, BLACKHOLE_METRIC))
        });
        deactivated.and(removed)
    }

    fn device_route(&self, address: IpAddr) -> Route {
        Route::new(address.into(), RouteTarget::Device(self.device.clone()))
    }

    fn for_each(
        &self,
        action: impl Fn(IpAddr) -> Result<(), NetlinkError>,
    ) -> Result<(), EdgeError> {
        let mut first = Ok(());
        for &address in &self.addresses {
            first = first.and(action(address));
        }
        Ok(first?)
    }
}

impl Drop for VirtualAddresses {
    fn drop(&mut self) {
        if self.installed {
            // Nobody is left to tell.
            let _ = self.remove();
        }
    }
}

/// Why the addresses cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EdgeError {
    /// The configuration names an address that no host can have.
    #[error("{0} cannot be a virtual address: it is not a unicast address of a host")]
    NotUnicast(IpAddr),
    /// An interface has the address, so the kernel itself would answer its packets.
    #[error(
        "{address} is an address of interface {interface}: a virtual address must not be \
         (ip address del {address} dev {interface})"
    )]
    Local {
        /// The virtual address.
        address: IpAddr,
        /// The interface that has it.
        interface: String,
    },
    /// Another process on this machine serves the address now.
    #[error("{address} is served by another process, through its device {device}")]
    Served {
        /// The virtual address.
        address: IpAddr,
        /// The other process's TUN device.
        device: String,
    },
    /// Somebody else's route leads the address elsewhere.
    #[error("a route that is not ours stands in the way: {0}")]
    Routed(Route),
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

fn check_unicast(addresses: &[IpAddr]) -> Result<(), EdgeError> {
    let impossible = |address: &&IpAddr| {
        address.is_unspecified()
            || address.is_multicast()
            || address.is_loopback()
            || matches!(address, IpAddr::V4(v4) if v4.is_broadcast())
            || matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
    };
    match addresses.iter().find(impossible) {
        Some(&address) => Err(EdgeError::NotUnicast(address)),
        None => Ok(()),
    }
}

fn check_not_local(netlink: &Netlink, addresses: &[IpAddr]) -> Result<(), EdgeError> {
    let local = netlink.addresses()?.into_iter().find(|it| addresses.contains(&it.address.addr()));
    let Some(local) = local else { return Ok(()) };
    let interface = netlink.link_by_index(local.link)?.name;
    Err(EdgeError::Local { address: local.address.addr(), interface })
}

/// Sorts the routes of the main table that concern us; those that forbid to go on are errors.
fn find_leftovers(
    netlink: &Netlink,
    device: &str,
    addresses: &[IpAddr],
) -> Result<Leftovers, EdgeError> {
    let mut leftovers = Leftovers::default();
    for route in netlink.routes()?.into_iter().filter(|route| route.table == TABLE_MAIN) {
        let net = route.destination;
        let is_host = net.prefix_len() == net.max_prefix_len();
        let concerns_us = is_host && addresses.contains(&net.addr());
        match (&route.target, concerns_us, route.protocol == ROUTE_PROTOCOL) {
            (RouteTarget::Device(other), true, true) if other != device => {
                // Such a route does not outlive its device, so somebody holds that.
                let device = other.clone();
                return Err(EdgeError::Served { address: net.addr(), device });
            }
            (_, true, true) => leftovers.replaced.push(route),
            (RouteTarget::Blackhole, false, true) => leftovers.stray.push(route),
            (_, true, false) if route.metric <= BLACKHOLE_METRIC => {
                return Err(EdgeError::Routed(route));
            }
            _ => {}
        }
    }
    Ok(leftovers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_no_host_can_have_are_refused() {
        for address in [
            "0.0.0.0",
            "224.0.0.5",
            "127.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "ff02::1",
            "::ffff:10.0.0.1",
        ] {
            let address = address.parse().unwrap();
            assert_eq!(check_unicast(&[address]), Err(EdgeError::NotUnicast(address)));
        }
        let fine = ["10.0.0.100", "fd00::100", "fe80::100"].map(|text| text.parse().unwrap());
        assert_eq!(check_unicast(&fine), Ok(()));
    }
}
