//! The lab: a switch in a namespace of its own, and the hosts on it.
//!
//! Everything is held by descriptors of this process, so nothing is left behind when it ends,
//! however it ends. Addresses are fixed, because the namespaces are ours: host `n` has
//! `10.77.0.n` and `fd77::n`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use outlive_net::netlink::{BridgeOptions, Netlink};
use outlive_net::netns::Namespace;

use crate::clock::Clock;
use crate::congestion;
use crate::error::LabError;
use crate::host::{Host, write_sysctl};
use crate::link::LinkKind;
use crate::steering;

/// The bridge's name in the switch's namespace.
const BRIDGE: &str = "lab";

/// A switch to which hosts are attached.
pub struct Lab {
    clock: Clock,
    seed: u64,
    congestion_control: String,
    switch: Arc<Switch>,
}

impl Lab {
    /// An empty lab. `seed` decides what impaired links do to which frame.
    pub fn new(seed: u64) -> Result<Self, LabError> {
        congestion::allow();
        let switch = Switch::new()?;
        let congestion_control = switch.namespace.run(congestion::choose)?;
        Ok(Self { clock: Clock::start(), seed, congestion_control, switch: Arc::new(switch) })
    }

    /// The congestion control of its hosts: cubic, or the machine's default where that is
    /// forbidden.
    pub fn congestion_control(&self) -> &str {
        &self.congestion_control
    }

    /// The lab's clock.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// The lab's seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) fn switch(&self) -> &Switch {
        &self.switch
    }

    /// A new host called `name` (at most 10 letters) with the addresses of `number`, attached by a
    /// link of that kind.
    pub fn host(&self, name: &str, number: u8, kind: LinkKind) -> Result<Host, LabError> {
        let seed = self.seed ^ u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Host::new(name, number, kind, &self.switch, seed, self.clock)
    }
}

/// The IPv4 address of that number in the lab's network, 10.77.0.0/24.
pub fn ipv4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number)
}

/// The IPv6 address of that number in the lab's network, fd77::/64. The last group looks like the
/// number: 100 has fd77::100.
pub fn ipv6(number: u8) -> Ipv6Addr {
    let digits = [number / 100, number / 10 % 10, number % 10];
    let looks_alike = digits.iter().fold(0, |sum, &digit| (sum << 4) | u16::from(digit));
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, looks_alike)
}

/// Both addresses of that number.
pub fn addresses(number: u8) -> [IpAddr; 2] {
    [ipv4(number).into(), ipv6(number).into()]
}

/// Both addresses of that number in the tunnel of migrations: 10.79.0.n and fd79::n. They are no host's own.
pub fn tunnel_addresses(number: u8) -> [IpAddr; 2] {
    let mut groups = ipv6(number).segments();
    groups[0] = 0xfd79;
    [Ipv4Addr::new(10, 79, 0, number).into(), Ipv6Addr::from(groups).into()]
}

/// The namespace with the bridge.
pub(crate) struct Switch {
    pub(crate) namespace: Namespace,
    netlink: Mutex<Netlink>,
}

/// Where the kernel has it so, bridges show every frame to the firewall. A switch does not.
fn bypass_firewall() -> Result<(), LabError> {
    for family in ["iptables", "ip6tables", "arptables"] {
        let name = format!("net/bridge/bridge-nf-call-{family}");
        if Path::new("/proc/sys").join(&name).exists() {
            write_sysctl(&name, "0")?;
        }
    }
    Ok(())
}

impl Switch {
    fn new() -> Result<Self, LabError> {
        let namespace = Namespace::create()?;
        namespace.run(steering::by_flow)?;
        // The switch itself has nothing to say to its hosts.
        namespace.run(|| write_sysctl("net/ipv6/conf/default/disable_ipv6", "1"))??;
        namespace.run(bypass_firewall)??;
        let netlink = namespace.netlink()?;
        netlink.add_bridge(BRIDGE, BridgeOptions { multicast_snooping: false })?;
        netlink.set_up(BRIDGE, true)?;
        Ok(Self { namespace, netlink: Mutex::new(netlink) })
    }

    pub(crate) fn netlink(&self) -> MutexGuard<'_, Netlink> {
        self.netlink.lock().expect("no holder panics")
    }

    /// Makes the interface a port of the bridge and sets it up.
    pub(crate) fn add_port(&self, name: &str) -> Result<(), LabError> {
        let netlink = self.netlink();
        netlink.set_master(name, Some(BRIDGE))?;
        netlink.set_up(name, true)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_addresses_of_a_number_look_alike() {
        assert_eq!(addresses(100).map(|address| address.to_string()), ["10.77.0.100", "fd77::100"]);
        assert_eq!(addresses(21).map(|address| address.to_string()), ["10.77.0.21", "fd77::21"]);
        assert_eq!(tunnel_addresses(31).map(|it| it.to_string()), ["10.79.0.31", "fd79::31"]);
    }
}
