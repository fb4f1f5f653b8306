//! What an agent sets up on its machine, and removes when it ends.
//!
//! * A TUN device, into which the tunnel addresses are led. They belong to no interface, so the machine's own TCP never answers for them.
//! * The virtual addresses, on the loopback interface: so connections from them are this machine's own, and yet no neighbour is told
//!   of them. For IPv4 that takes two system settings; IPv6 needs none.
//! * For replayed services: what the local server sends from its port of the virtual address is led into the device, by a rule
//!   and a table of their own. Behind that route lies a blackhole: when the agent is dead, its device is gone, and nothing that was
//!   not translated leaves the machine, neither data nor a reset.
//!
//! The rules, the blackholes and the virtual addresses outlive a killed agent; the next one takes them over.

use std::net::IpAddr;

use ipnet::IpNet;
use outlive_net::{
    edge::{BLACKHOLE_METRIC, EdgeError, VirtualAddresses},
    netlink::{AddressOptions, Netlink, NetlinkError, Route, RouteTarget, Rule},
    sysctl::{self, Requirement, SysctlError, Unmet},
    tun::{Layer, Offload, Tun, TunError},
};
use tracing::{info, warn};

use crate::settings::{Settings, Taker};

const LOOPBACK: &str = "lo";
/// As many packets as a burst of a few milliseconds brings.
const TUN_QUEUE_LEN: u32 = 5_000;
/// Before the main table, behind what an administrator may have put first.
const RULE_PRIORITY: u32 = 7_410;
/// Nobody is told of addresses whose scope is this machine.
const ARP_IGNORE: &str = "net/ipv4/conf/all/arp_ignore";
/// Values under which an address of host scope on another interface is not told.
const ARP_IGNORE_FINE: [&str; 4] = ["1", "2", "3", "8"];

/// What was set up. Dropping it removes it.
pub struct Edge {
    /// The device.
    pub tun: Tun,
    /// Routes of the tunnel addresses.
    tunnel: VirtualAddresses,
    netlink: Netlink,
    addresses: Vec<IpNet>,
    rules: Vec<Rule>,
    routes: Vec<Route>,
    changed: Vec<Unmet>,
}

/// Why it could not be set up. Everything done before has been undone.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// The device.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// Links, addresses, routes or rules.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The tunnel addresses.
    #[error(transparent)]
    Tunnel(#[from] EdgeError),
    /// A system setting.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// A virtual address is on an interface that tells its neighbours.
    #[error(
        "the virtual address {address} is on the interface {interface}, which tells its neighbours so: ip address del {address} dev {interface}"
    )]
    Told {
        /// The address.
        address: IpAddr,
        /// The interface.
        interface: String,
    },
}

/// System settings that the machine needs and does not have, in words.
///
/// # Errors
/// They cannot be read.
pub fn unmet(settings: &Settings) -> Result<Vec<Unmet>, SysctlError> {
    let mut unmet = Vec::new();
    for requirement in requirements(settings)? {
        unmet.extend(requirement.check()?);
    }
    Ok(unmet)
}

/// Packets must be passed on between the interfaces and the device, and neighbours not be told of the virtual addresses.
fn requirements(settings: &Settings) -> Result<Vec<Requirement>, SysctlError> {
    let mut wanted = Vec::new();
    if settings.uses(true) {
        wanted.push(Requirement::new("net/ipv4/ip_forward", "1"));
        wanted.push(Requirement::new("net/ipv4/conf/all/arp_announce", "2"));
        if !ARP_IGNORE_FINE.contains(&sysctl::read(ARP_IGNORE)?.as_str()) {
            wanted.push(Requirement::new(ARP_IGNORE, "3"));
        }
    }
    if settings.uses(false) {
        wanted.push(Requirement::new("net/ipv6/conf/all/forwarding", "1"));
    }
    Ok(wanted)
}

impl Edge {
    /// Sets everything up, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// What is in the way.
    pub fn set_up(settings: &Settings) -> Result<Self, SetUpError> {
        let name = settings.tun.value.as_str();
        let netlink = Netlink::open()?;
        check_virtual_addresses(&netlink, settings)?;
        let mut changed = Changed(Vec::new());
        if settings.set_sysctls {
            for requirement in requirements(settings)? {
                changed.0.extend(requirement.enforce()?);
            }
        }
        let tun = Tun::open(Layer::Ip, name, Offload::TCP)?;
        netlink.set_mtu(name, settings.mtu.into())?;
        netlink.set_tx_queue_len(name, TUN_QUEUE_LEN)?;
        configure_device(settings, name)?;
        netlink.set_up(name, true)?;
        let (tunnel, leftovers) = VirtualAddresses::install(name, &settings.tunnel)?;
        for route in &leftovers.stray {
            warn!(%route, "a route of another configuration is still there");
        }
        let mut edge = Edge {
            tun,
            tunnel,
            netlink,
            addresses: Vec::new(),
            rules: Vec::new(),
            routes: Vec::new(),
            changed: std::mem::take(&mut changed.0),
        };
        // From here on, an error drops `edge`, which removes what was put.
        edge.lead_out(settings)?;
        edge.take_virtual_addresses(settings)?;
        edge.tunnel.activate()?;
        Ok(edge)
    }

    /// Leads what replayed servers send into the device; before their addresses are here, so that nothing gets past it.
    fn lead_out(&mut self, settings: &Settings) -> Result<(), SetUpError> {
        for left in self.netlink.own_rules()?.iter().filter(|rule| rule.table == settings.table) {
            self.netlink.delete_rule_if_present(left)?;
        }
        for everything in ["0.0.0.0/0", "::/0"] {
            let Ok(everything) = everything.parse::<IpNet>() else { continue };
            if !settings.uses(everything.addr().is_ipv4()) {
                continue;
            }
            let device = RouteTarget::Device(settings.tun.value.clone());
            let blackhole = Route::new(everything, RouteTarget::Blackhole);
            for route in [
                blackhole.with_metric(BLACKHOLE_METRIC).in_table(settings.table),
                Route::new(everything, device).with_metric(1).in_table(settings.table),
            ] {
                self.netlink.replace_route(&route)?;
                self.routes.push(route);
            }
        }
        for service in &settings.services {
            let Taker::Replay { port } = service.taker else { continue };
            let rule = Rule {
                priority: RULE_PRIORITY,
                from: service.address.ip().into(),
                // What this machine sends itself, not what it passes on.
                incoming: Some(LOOPBACK.to_owned()),
                tcp_source_port: Some(port),
                table: settings.table,
            };
            if self.rules.contains(&rule) {
                continue;
            }
            self.netlink.add_rule(&rule)?;
            self.rules.push(rule);
        }
        Ok(())
    }

    fn take_virtual_addresses(&mut self, settings: &Settings) -> Result<(), SetUpError> {
        let options = AddressOptions { no_dad: true, no_prefix_route: true, host_scope: true };
        for address in settings.virtual_addresses() {
            let net = IpNet::from(address);
            self.netlink.replace_address(LOOPBACK, net, options)?;
            self.addresses.push(net);
            if address.is_ipv4() {
                // A device without any address passes no reverse-path filter, not even a loose one. It goes with
                // the device; the other stays.
                self.netlink.replace_address(&settings.tun.value, net, options)?;
            }
        }
        Ok(())
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let told = |result: Result<(), NetlinkError>| {
            if let Err(error) = result {
                warn!(%error, "something could not be removed");
            }
        };
        // Addresses first: without them nothing is sent that the rules would have to catch.
        for net in &self.addresses {
            told(self.netlink.delete_address_if_present(LOOPBACK, *net));
        }
        for rule in &self.rules {
            told(self.netlink.delete_rule_if_present(rule));
        }
        for route in &self.routes {
            told(self.netlink.delete_route_if_present(route));
        }
        restore(&self.changed);
    }
}

/// System settings that were changed; put back if setting up fails half-way.
struct Changed(Vec<Unmet>);

impl Drop for Changed {
    fn drop(&mut self) {
        restore(&self.0);
    }
}

fn restore(changed: &[Unmet]) {
    for unmet in changed.iter().rev() {
        match unmet.restore() {
            Ok(()) => info!(key = unmet.key, to = unmet.found, "a system setting was put back"),
            Err(error) => warn!(%error, "a system setting could not be put back"),
        }
    }
}

/// On any interface but the loopback the kernel would tell neighbours of it.
fn check_virtual_addresses(netlink: &Netlink, settings: &Settings) -> Result<(), SetUpError> {
    let wanted = settings.virtual_addresses();
    for found in netlink.addresses()?.iter().filter(|it| wanted.contains(&it.address.addr())) {
        let interface = netlink.link_by_index(found.link)?.name;
        if interface != LOOPBACK {
            return Err(SetUpError::Told { address: found.address.addr(), interface });
        }
    }
    Ok(())
}

/// The device is the agent's own, so its settings may always be set.
fn configure_device(settings: &Settings, name: &str) -> Result<(), SysctlError> {
    let set = |version: &str, key: &str, value: &str| {
        let key = format!("net/{version}/conf/{name}/{key}");
        Requirement::new(key, value).enforce().map(drop)
    };
    if settings.uses(true) {
        set("ipv4", "forwarding", "1")?;
        // Packets to the client come out of the device with an address that is this machine's own.
        set("ipv4", "accept_local", "1")?;
        // The larger of this and the setting for all interfaces counts: strict (1) becomes loose (2).
        let all = sysctl::read("net/ipv4/conf/all/rp_filter")?;
        set("ipv4", "rp_filter", if all == "0" { "0" } else { "2" })?;
    }
    if settings.uses(false) {
        // Nobody lives behind it: no address of its own, no questions for routers.
        set("ipv6", "addr_gen_mode", "1")?;
        set("ipv6", "accept_ra", "0")?;
        set("ipv6", "forwarding", "1")?;
    }
    Ok(())
}
