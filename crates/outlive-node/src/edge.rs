//! The node's place in the network: its TUN device, the routes of its virtual addresses, and who answers
//! for them. Everything set up here is removed when it is dropped.

use std::{
    io,
    net::IpAddr,
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use mio::{Interest, Registry, Token, unix::SourceFd};
use outlive_net::{
    edge::{EdgeError, VirtualAddresses},
    neighbour::{NeighbourError, NeighbourResponder, Queue},
    netlink::{Netlink, NetlinkError, Route, RouteTarget},
    sysctl::{Requirement, SysctlError, Unmet},
    tun::{Layer, Offload, Tun, TunError},
};
use tracing::{debug, info, warn};

use crate::{
    preflight::{Claim, Plan},
    settings::Settings,
};

/// A burst from a fast link beyond the kernel's default of 500 packets would be dropped.
const TUN_QUEUE_LEN: u32 = 5_000;

/// What a killed node's keeper may take to end, beyond the time for which it keeps the device.
const KEEPER_PATIENCE: Duration = Duration::from_secs(1);
/// Until the device is tried again.
const KEEPER_POLL: Duration = Duration::from_millis(5);

/// The node's place in the network.
pub struct Edge {
    /// The TUN device.
    pub tun: Tun,
    addresses: VirtualAddresses,
    responders: Vec<Responder>,
    /// The token of the TUN device; those of the responders follow.
    first_token: usize,
    changed: Vec<Unmet>,
    /// What comes for the addresses is led to the device.
    led: bool,
    /// Neighbours are answered.
    answering: bool,
}

struct Responder {
    socket: NeighbourResponder,
    claim: Claim,
    readable: bool,
}

/// Why the place could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// The TUN device.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// Its interface.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The routes.
    #[error(transparent)]
    Edge(#[from] EdgeError),
    /// The packet sockets.
    #[error(transparent)]
    Neighbour(#[from] NeighbourError),
    /// A system setting.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The event loop.
    #[error("registering with the event loop: {0}")]
    Registry(#[from] io::Error),
}

impl Edge {
    /// Makes the device and the blackhole routes, in the network namespace of the calling thread. Uses
    /// tokens of `registry` from `first_token` on: one, and one for each interface.
    ///
    /// # Errors
    /// What failed; everything done before has been undone.
    pub fn set_up(
        settings: &Settings,
        plan: &Plan,
        registry: &Registry,
        first_token: usize,
    ) -> Result<Self, SetUpError> {
        let mut changed = Changed(Vec::new());
        if settings.set_sysctls {
            for requirement in &plan.requirements {
                changed.enforce(requirement)?;
            }
        }
        let name = &settings.tun.value;
        let tun = open_device(settings)?;
        let netlink = Netlink::open()?;
        netlink.set_mtu(name, plan.mtu.into())?;
        netlink.set_tx_queue_len(name, TUN_QUEUE_LEN)?;
        netlink.set_up(name, true)?;
        forward_from_device(settings, plan)?;
        let (addresses, leftovers) =
            VirtualAddresses::install(name, &settings.proxy.virtual_addresses())?;
        // Theirs whether this node is active or not: each node has its own. They vanish with the device.
        for address in &settings.proxy.migration.tunnel {
            let device = RouteTarget::Device(name.clone());
            netlink.replace_route(&Route::new((*address).into(), device))?;
        }
        for route in &leftovers.replaced {
            info!(%route, "a route that a killed node left behind was replaced");
        }
        for route in &leftovers.stray {
            warn!(%route, "a route of another configuration is still there");
        }
        let mut responders = Vec::new();
        for claim in plan.claims.iter().filter(|claim| !claim.addresses.is_empty()) {
            let socket = NeighbourResponder::open(&claim.interface)?;
            responders.push(Responder { socket, claim: claim.clone(), readable: true });
        }
        let read = Interest::READABLE;
        registry.register(&mut SourceFd(&tun.as_raw_fd()), Token(first_token), read)?;
        for (number, responder) in responders.iter().enumerate() {
            for descriptor in responder.socket.descriptors() {
                let token = Token(first_token + 1 + number);
                registry.register(&mut SourceFd(&descriptor.as_raw_fd()), token, read)?;
            }
        }
        let changed = std::mem::take(&mut changed.0);
        let (led, answering) = (false, false);
        Ok(Edge { tun, addresses, responders, first_token, changed, led, answering })
    }

    /// Sets the system settings that another configuration needs, if it allows that.
    ///
    /// # Errors
    /// The system refuses one.
    pub fn require(&mut self, settings: &Settings, plan: &Plan) -> Result<(), SetUpError> {
        for requirement in plan.requirements.iter().filter(|_| settings.set_sysctls) {
            if let Some(unmet) = requirement.enforce()? {
                info!(key = unmet.key, to = unmet.wanted, "a system setting was changed");
                self.changed.push(unmet);
            }
        }
        Ok(forward_from_device(settings, plan)?)
    }

    /// Takes the virtual addresses: routes first, so that no packet comes that is not wanted yet.
    /// Repeating it is harmless.
    pub fn activate(&mut self) {
        (self.led, self.answering) = (true, true);
        if let Err(error) = self.addresses.activate() {
            warn!(%error, "a virtual address could not be led to the node");
        }
        for responder in &mut self.responders {
            if let Err(error) = responder.socket.set_addresses(&responder.claim.addresses) {
                warn!(%error, "a virtual address may not be found by its neighbours");
            }
        }
        self.announce();
    }

    /// Has these virtual addresses from now on, and no others. New ones are answered for as `claims` says; those that
    /// were there before and are not in it, where they were.
    ///
    /// # Errors
    /// Something is in the way of a new address; nothing was changed.
    pub fn set_addresses(
        &mut self,
        addresses: &[IpAddr],
        claims: &[Claim],
        registry: &Registry,
    ) -> Result<(), SetUpError> {
        let wanted = |claim: &Claim| claim.addresses.iter().any(|a| addresses.contains(a));
        for claim in claims.iter().filter(|claim| wanted(claim)) {
            if !self.responders.iter().any(|r| r.claim.interface == claim.interface) {
                self.open_responder(&claim.interface, registry)?;
            }
        }
        self.addresses.set_addresses(addresses, self.led)?;
        for responder in &mut self.responders {
            let old = &mut responder.claim;
            let new = claims.iter().find(|claim| claim.interface == old.interface);
            let new = new.map_or(&[][..], |claim| &claim.addresses);
            let told = |address: &IpAddr| claims.iter().any(|c| c.addresses.contains(address));
            old.addresses.retain(|address| !told(address));
            old.addresses.extend(new);
            old.addresses.retain(|address| addresses.contains(address));
            if self.answering {
                if let Err(error) = responder.socket.set_addresses(&old.addresses) {
                    warn!(%error, "a virtual address may not be found by its neighbours");
                }
                responder.socket.announce();
            }
        }
        Ok(())
    }

    fn open_responder(&mut self, interface: &str, registry: &Registry) -> Result<(), SetUpError> {
        let socket = NeighbourResponder::open(interface)?;
        let token = Token(self.first_token + 1 + self.responders.len());
        for descriptor in socket.descriptors() {
            registry.register(&mut SourceFd(&descriptor.as_raw_fd()), token, Interest::READABLE)?;
        }
        let claim = Claim { interface: interface.to_owned(), addresses: Vec::new() };
        self.responders.push(Responder { socket, claim, readable: true });
        Ok(())
    }

    /// Answers for them no more, but goes on leading to the device what still comes for them.
    pub fn stop_answering(&mut self) {
        self.answering = false;
        for responder in &mut self.responders {
            // Leaving a multicast group cannot fail in a way that matters.
            let _ = responder.socket.set_addresses(&[]);
        }
    }

    /// Gives them up. Repeating it is harmless.
    pub fn deactivate(&mut self) {
        self.stop_answering();
        self.led = false;
        if let Err(error) = self.addresses.deactivate() {
            warn!(%error, "a route of a virtual address could not be removed");
        }
    }

    /// Tells the neighbours where the addresses are.
    pub fn announce(&mut self) {
        self.responders.iter_mut().for_each(|responder| responder.socket.announce());
    }

    /// Whether `token` is the TUN device's; if it is a responder's, remembers that it has something
    /// to read.
    pub fn handle_ready(&mut self, token: Token) -> bool {
        let Some(number) = token.0.checked_sub(self.first_token) else { return false };
        match number.checked_sub(1) {
            None => true,
            Some(number) => {
                if let Some(responder) = self.responders.get_mut(number) {
                    responder.readable = true;
                }
                false
            }
        }
    }

    /// Answers neighbours. Returns whether more of them wait.
    pub fn answer_neighbours(&mut self) -> bool {
        let mut more = false;
        for responder in self.responders.iter_mut().filter(|responder| responder.readable) {
            responder.readable = responder.socket.on_readable() == Queue::MoreToCome;
            more |= responder.readable;
            for conflict in responder.socket.take_conflicts() {
                // The peer, in the moments of a takeover; or somebody who should not.
                debug!(address = %conflict.address, mac = %conflict.mac, "another station claims a virtual address");
            }
        }
        more
    }

    /// Tokens that an edge of this plan uses.
    pub fn tokens(plan: &Plan) -> usize {
        1 + plan.claims.len()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.deactivate();
        // Routes and device go with the fields.
        restore(&self.changed);
    }
}

/// Opens the TUN device. Of a killed node a [keeper](outlive_net::keeper) may still have it.
fn open_device(settings: &Settings) -> Result<Tun, TunError> {
    let began = Instant::now();
    let kept = match settings.peer {
        Some(_) => settings.proxy.pair.detection_timeout + KEEPER_PATIENCE,
        None => Duration::ZERO,
    };
    loop {
        match Tun::open(Layer::Ip, &settings.tun.value, Offload::TCP) {
            Err(TunError::Held { .. }) if began.elapsed() < kept => thread::sleep(KEEPER_POLL),
            other => return other,
        }
    }
}

/// The device is this node's own, so its settings may always be set.
fn forward_from_device(settings: &Settings, plan: &Plan) -> Result<(), SysctlError> {
    let name = &settings.tun.value;
    for requirement in &plan.requirements {
        let version = if requirement.key.contains("ipv6") { "ipv6" } else { "ipv4" };
        let key = format!("net/{version}/conf/{name}/forwarding");
        Requirement::new(key, "1").enforce()?;
    }
    Ok(())
}

/// System settings that were changed; put back if setting up fails half-way.
struct Changed(Vec<Unmet>);

impl Changed {
    fn enforce(&mut self, requirement: &Requirement) -> Result<(), SysctlError> {
        if let Some(unmet) = requirement.enforce()? {
            info!(
                key = unmet.key,
                from = unmet.found,
                to = unmet.wanted,
                "a system setting was changed"
            );
            self.0.push(unmet);
        }
        Ok(())
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        restore(&self.0);
    }
}

fn restore(changed: &[Unmet]) {
    for unmet in changed.iter().rev() {
        if let Err(error) = unmet.restore() {
            warn!(%error, "a system setting could not be put back");
        }
    }
}
