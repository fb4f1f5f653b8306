//! What the machine lacks for a configuration, found without changing anything.
//!
//! `outlive check` tells all of it; `outlive run` refuses to begin with any of it. What is learnt on
//! the way is what the edge is then [set up](crate::edge) from: the [`Plan`].

use std::net::{IpAddr, SocketAddr};

use outlive_net::{
    edge::BLACKHOLE_METRIC,
    netlink::{Address, Link, Netlink, RouteTarget, TABLE_MAIN},
    privilege,
    sysctl::{self, Requirement},
};

use crate::{
    key::PairKey,
    settings::{EdgeKind, Placed, Problem, Settings},
};

/// Super-segments beyond this cannot pass a TUN device: they are dropped, and the flow stalls.
const LARGEST_SEGMENT: u32 = 65_536;

/// What a node needs to know about the machine.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The pair's key; `None` without a peer and without targets.
    pub key: Option<PairKey>,
    /// MTU of the TUN device and bound of the MSS, in bytes.
    pub mtu: u16,
    /// The virtual addresses that are answered for on each interface.
    pub claims: Vec<Claim>,
    /// System settings that must have a value.
    pub requirements: Vec<Requirement>,
}

/// Addresses answered for on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The interface.
    pub interface: String,
    /// The virtual addresses that its networks contain.
    pub addresses: Vec<IpAddr>,
}

/// Looks at the machine.
///
/// # Errors
/// Everything that is missing or in the way.
pub fn inspect(settings: &Settings) -> Result<Plan, Vec<Problem>> {
    let mut problems = Vec::new();
    for missing in privilege::missing() {
        problems.push(general(
            settings,
            missing.to_string(),
            "run as root, or give the program CAP_NET_ADMIN and CAP_NET_RAW (examples/outlive.service does)",
        ));
    }
    let of_targets = settings.target_key_file.as_ref().filter(|_| !settings.targets.is_empty());
    let key_file = settings.peer.as_ref().map(|peer| &peer.key_file).or(of_targets);
    let key = key_file.and_then(|file| {
        let path = &file.value;
        PairKey::load(path)
            .map_err(|error| {
                let message = format!("{}: {error}", path.display());
                problems.push(settings.problem(file, message, error.help(path)));
            })
            .ok()
    });
    let machine = match Machine::look() {
        Ok(machine) => machine,
        Err(error) => {
            problems.push(general(
                settings,
                format!("the machine's interfaces cannot be listed: {error}"),
                "run it where netlink sockets may be opened",
            ));
            return Err(problems);
        }
    };
    machine.check_interfaces(settings, &mut problems);
    machine.check_virtual_addresses(settings, &mut problems);
    if let Some(metrics) = &settings.metrics {
        machine.check_local(settings, metrics, &mut problems);
    }
    if let Some(peer) = &settings.peer {
        let paths = peer.heartbeat.iter().chain([&peer.state]).map(|path| &path.local);
        for local in paths.chain(&settings.watch) {
            machine.check_local(settings, local, &mut problems);
        }
    }
    let requirements = requirements(settings);
    check_requirements(settings, &requirements, &mut problems);
    if !problems.is_empty() {
        // In the order of the file; what is not about a place in it comes first.
        problems.sort_by_key(|problem| problem.place.as_ref().map(|at| (at.line, at.column)));
        return Err(problems);
    }
    Ok(Plan {
        key,
        mtu: settings.mtu.unwrap_or_else(|| machine.smallest_mtu(settings)),
        claims: machine.claims(settings),
        requirements,
    })
}

fn general(settings: &Settings, message: String, help: &str) -> Problem {
    Problem { file: settings.file.clone(), place: None, message, help: help.to_owned() }
}

/// The kernel must pass packets on between the interfaces and the TUN device.
fn requirements(settings: &Settings) -> Vec<Requirement> {
    let addresses = settings.proxy.virtual_addresses();
    let v4 = addresses.iter().any(IpAddr::is_ipv4).then_some("net/ipv4/ip_forward");
    let v6 = addresses.iter().any(IpAddr::is_ipv6).then_some("net/ipv6/conf/all/forwarding");
    v4.into_iter().chain(v6).map(|key| Requirement::new(key, "1")).collect()
}

fn check_requirements(
    settings: &Settings,
    requirements: &[Requirement],
    problems: &mut Vec<Problem>,
) {
    if settings.set_sysctls {
        // They are set when the node starts, and put back when it ends.
        return;
    }
    match sysctl::unmet(requirements) {
        Ok(unmet) => problems.extend(unmet.iter().map(|unmet| {
            let help = "set it with that command (and in /etc/sysctl.d), or write set_sysctls = true in [node]";
            general(settings, unmet.to_string(), help)
        })),
        Err(error) => problems.push(general(
            settings,
            error.to_string(),
            "run it on a Linux kernel with this IP version switched on",
        )),
    }
}

/// The machine's network, as it was when looked at.
struct Machine {
    links: Vec<Link>,
    addresses: Vec<Address>,
    /// Devices that the main table leads single hosts to, with the host.
    taken: Vec<(IpAddr, String)>,
}

impl Machine {
    fn look() -> Result<Self, outlive_net::netlink::NetlinkError> {
        let netlink = Netlink::open()?;
        let taken = netlink.routes()?.into_iter().filter_map(|route| {
            let net = route.destination;
            let is_host = net.prefix_len() == net.max_prefix_len();
            match route.target {
                RouteTarget::Device(device)
                    if is_host && route.table == TABLE_MAIN && route.metric < BLACKHOLE_METRIC =>
                {
                    Some((net.addr(), device))
                }
                _ => None,
            }
        });
        let taken = taken.collect();
        Ok(Machine { links: netlink.links()?, addresses: netlink.addresses()?, taken })
    }

    fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    fn check_interfaces(&self, settings: &Settings, problems: &mut Vec<Problem>) {
        for placed in &settings.interfaces {
            let name = &placed.value;
            let Some(link) = self.link(name) else {
                let there: Vec<&str> = (self.links.iter())
                    .filter(|link| link.is_ethernet)
                    .map(|link| link.name.as_str())
                    .collect();
                problems.push(settings.problem(
                    placed,
                    format!("there is no interface {name}"),
                    format!("name one that there is: {}", there.join(", ")),
                ));
                continue;
            };
            if !link.is_ethernet && settings.edge == EdgeKind::Neighbours {
                problems.push(settings.problem(
                    placed,
                    format!(
                        "{name} is not an Ethernet interface, so addresses cannot be claimed there"
                    ),
                    "name the interface at which clients and servers reach this machine",
                ));
            }
            let sizes = [("gro", link.gro_max_size), ("gso", link.gso_max_size)];
            for (what, _) in
                sizes.iter().filter(|(_, size)| size.is_some_and(|n| n > LARGEST_SEGMENT))
            {
                problems.push(settings.problem(
                    placed,
                    format!("{name} makes packets (BIG TCP) that no TUN device can carry"),
                    format!("ip link set dev {name} {what}_max_size {LARGEST_SEGMENT}"),
                ));
            }
        }
    }

    fn check_virtual_addresses(&self, settings: &Settings, problems: &mut Vec<Problem>) {
        for address in settings.proxy.virtual_addresses() {
            if let Some(own) = self.addresses.iter().find(|own| own.address.addr() == address) {
                let link = self.links.iter().find(|link| link.index == own.link);
                let name = link.map_or("?", |link| link.name.as_str());
                problems.push(general(
                    settings,
                    format!("{address} is an address of interface {name}, but a virtual address must not be the kernel's"),
                    &format!("ip address del {} dev {name}", own.address),
                ));
            }
            let elsewhere = |(taken, device): &&(IpAddr, String)| {
                *taken == address && *device != settings.tun.value
            };
            if let Some((_, device)) = self.taken.iter().find(elsewhere) {
                problems.push(general(
                    settings,
                    format!("{address} is led to {device} by a route that is not this node's"),
                    "stop what put it there, or remove the route with `ip route del`",
                ));
            }
        }
    }

    fn check_local(
        &self,
        settings: &Settings,
        local: &Placed<SocketAddr>,
        problems: &mut Vec<Problem>,
    ) {
        let wanted = local.value.ip();
        let is_loopback = wanted.is_loopback();
        if !is_loopback && !self.addresses.iter().any(|own| own.address.addr() == wanted) {
            problems.push(settings.problem(
                local,
                format!("{wanted} is not an address of this machine"),
                "name an address of this node's own; the peer's one belongs behind \"peer\"",
            ));
        }
    }

    fn smallest_mtu(&self, settings: &Settings) -> u16 {
        let links = settings
            .interfaces
            .iter()
            .filter_map(|placed: &Placed<String>| self.link(&placed.value));
        let smallest = links.map(|link| link.mtu).min().unwrap_or(Settings::DEFAULT_MTU.into());
        u16::try_from(smallest).unwrap_or(u16::MAX)
    }

    /// Each address is answered for where a network contains it; one that none contains, on every
    /// interface: whoever asks for it there has been told to.
    fn claims(&self, settings: &Settings) -> Vec<Claim> {
        if settings.edge == EdgeKind::Routed {
            return Vec::new();
        }
        let all = settings.proxy.virtual_addresses();
        let contains = |interface: &str, address: &IpAddr| {
            let Some(link) = self.link(interface) else { return false };
            let of_link = self.addresses.iter().filter(|own| own.link == link.index);
            of_link.into_iter().any(|own| own.address.contains(address))
        };
        let nowhere = |address: &IpAddr| {
            !settings.interfaces.iter().any(|placed| contains(&placed.value, address))
        };
        let claim = |placed: &Placed<String>| Claim {
            interface: placed.value.clone(),
            addresses: (all.iter().copied())
                .filter(|address| contains(&placed.value, address) || nowhere(address))
                .collect(),
        };
        settings.interfaces.iter().map(claim).collect()
    }
}
