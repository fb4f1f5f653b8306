//! The host's place in the network: its TUN device, the routes of its addresses, who answers for them.
//! Everything set up here is removed when it is dropped.

use std::{net::IpAddr, os::fd::AsRawFd};

use mio::{Interest, Registry, Token, unix::SourceFd};
use outlive_net::{
    edge::VirtualAddresses,
    neighbour::{NeighbourResponder, Queue},
    netlink::Netlink,
    sysctl::Requirement,
    tun::{Layer, Offload, Tun},
};
use tracing::warn;

use crate::{config::HostConfig, error::StartError};

/// A burst from a fast link beyond the kernel's default of 500 packets would be dropped.
const TUN_QUEUE_LEN: u32 = 5_000;

pub(crate) struct Edge {
    pub(crate) tun: Tun,
    addresses: VirtualAddresses,
    /// Those of migrated connections and of the tunnel: led here, and not told to neighbours.
    _migrated: Option<VirtualAddresses>,
    responders: Vec<(NeighbourResponder, bool)>,
    first_token: usize,
}

impl Edge {
    /// Sets everything up in the network namespace of the calling thread; claims nothing yet. Uses one
    /// token of `registry` from `first_token` on, and one more for each interface.
    pub(crate) fn set_up(
        config: &HostConfig,
        registry: &Registry,
        first_token: usize,
    ) -> Result<Self, StartError> {
        let tun = Tun::open(Layer::Ip, &config.device, Offload::TCP)?;
        let name = tun.name();
        let netlink = Netlink::open()?;
        netlink.set_mtu(name, config.tcp.mtu.into())?;
        netlink.set_tx_queue_len(name, TUN_QUEUE_LEN)?;
        netlink.set_up(name, true)?;
        forward(config, name)?;
        let (addresses, leftovers) = VirtualAddresses::install(name, &config.addresses)?;
        for route in leftovers.stray.iter().filter(|_| config.migration.is_none()) {
            warn!(%route, "a route of another configuration is still there");
        }
        let migrated = config.migration.as_ref().map(|migration| {
            let all = [&migration.addresses[..], &migration.tunnel].concat();
            let (migrated, _) = VirtualAddresses::install(name, &all)?;
            migrated.activate()?;
            Ok::<_, StartError>(migrated)
        });
        let migrated = migrated.transpose()?;
        let mut responders = Vec::new();
        for interface in &config.interfaces {
            responders.push((NeighbourResponder::open(interface)?, true));
        }
        let read = Interest::READABLE;
        let register = |fd, token| registry.register(&mut SourceFd(&fd), Token(token), read);
        register(tun.as_raw_fd(), first_token).map_err(StartError::System)?;
        for (number, (responder, _)) in responders.iter().enumerate() {
            for descriptor in responder.descriptors() {
                register(descriptor.as_raw_fd(), first_token + 1 + number)
                    .map_err(StartError::System)?;
            }
        }
        Ok(Edge { tun, addresses, _migrated: migrated, responders, first_token })
    }

    /// Takes the addresses, and tells the neighbours.
    pub(crate) fn activate(&mut self) {
        if let Err(error) = self.addresses.activate() {
            warn!(%error, "an address could not be led to the host");
        }
        let addresses = self.addresses.addresses().to_vec();
        for (responder, _) in &mut self.responders {
            if let Err(error) = responder.set_addresses(&addresses) {
                warn!(%error, "an address may not be found by its neighbours");
            }
        }
        self.announce();
    }

    /// Gives the addresses up.
    pub(crate) fn deactivate(&mut self) {
        for (responder, _) in &mut self.responders {
            // Leaving a multicast group cannot fail in a way that matters.
            let _ = responder.set_addresses(&[]);
        }
        if let Err(error) = self.addresses.deactivate() {
            warn!(%error, "a route of an address could not be removed");
        }
    }

    /// Tells the neighbours where the addresses are.
    pub(crate) fn announce(&mut self) {
        self.responders.iter_mut().for_each(|(responder, _)| responder.announce());
    }

    /// Whether the token is the device's; remembers if it is a responder's.
    pub(crate) fn handle_ready(&mut self, token: Token) -> bool {
        let Some(number) = token.0.checked_sub(self.first_token) else { return false };
        if let Some((_, readable)) =
            number.checked_sub(1).and_then(|number| self.responders.get_mut(number))
        {
            *readable = true;
        }
        number == 0
    }

    /// Answers neighbours. Returns whether more of them wait.
    pub(crate) fn answer_neighbours(&mut self) -> bool {
        let mut more = false;
        for (responder, readable) in self.responders.iter_mut().filter(|(_, readable)| *readable) {
            *readable = responder.on_readable() == Queue::MoreToCome;
            more |= *readable;
            // The peer, in the moments of a takeover.
            responder.take_conflicts();
        }
        more
    }
}

/// The kernel must pass packets on between the interfaces and the device.
fn forward(config: &HostConfig, device: &str) -> Result<(), StartError> {
    for (present, version, all) in [
        (config.routed().iter().any(IpAddr::is_ipv4), "ipv4", "net/ipv4/ip_forward"),
        (config.routed().iter().any(IpAddr::is_ipv6), "ipv6", "net/ipv6/conf/all/forwarding"),
    ] {
        if !present {
            continue;
        }
        let machine = Requirement::new(all, "1");
        match machine.check()? {
            Some(_) if config.enable_forwarding => {
                machine.enforce()?;
            }
            Some(unmet) => return Err(StartError::Forwarding(unmet.to_string())),
            None => {}
        }
        // The device is this host's own.
        Requirement::new(format!("net/{version}/conf/{device}/forwarding"), "1").enforce()?;
    }
    Ok(())
}
