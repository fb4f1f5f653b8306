//! Packets on their way to a target and from it.

use std::{net::IpAddr, time::Duration};

use outlive_migration::tunnel::Stray;
use outlive_tcp::wire::{
    Flags, Offload, TcpPacket, addresses,
    icmp::{IcmpMessage, parse_icmp},
};

use super::{Stands, TargetHappening};
use crate::{
    forge,
    ledger::Rule,
    network::{NodeIndex, Place},
    packet::Seen,
    world::{Happening, World},
};

impl World {
    /// Whether a packet of a node goes through a tunnel; if so, it is on its way.
    pub(crate) fn enters_tunnel(&mut self, node: NodeIndex, packet: &[u8]) -> bool {
        let Ok((source, destination)) = addresses(packet) else { return false };
        let is_there = |target: &super::TargetHost| target.setup.tunnel.contains(&destination);
        let Some(target) = self.targets.iter().position(is_there) else { return false };
        self.check_tunnelled(node, target, source, packet);
        self.capture(packet);
        self.travel(Place::Node(node), Place::Target(target), packet.to_vec());
        true
    }

    /// What a packet between these places will be when it arrives.
    pub(crate) fn to_or_from_target(
        &self,
        from: Place,
        to: Place,
        packet: Vec<u8>,
    ) -> TargetHappening {
        match (from, to) {
            (Place::Node(node), Place::Target(target)) => {
                let incarnation = self.machines[node].as_ref().map_or(0, |m| m.incarnation);
                let sender = Some((node, incarnation));
                TargetHappening::Packet { target, packet, sender }
            }
            (_, Place::Target(target)) => TargetHappening::Packet { target, packet, sender: None },
            (_, Place::Host(host)) => TargetHappening::ToHost { host, packet },
            (_, Place::Node(_) | Place::Detector) => unreachable!("targets speak with clients"),
        }
    }

    /// A packet comes out of the tunnel, of a node or of a stranger.
    pub(super) fn leaves_tunnel(&mut self, target: usize, mut packet: Vec<u8>, forged: bool) {
        let now = self.now;
        let host = &mut self.targets[target];
        if !host.is_running() {
            return;
        }
        let len = packet.len();
        let Ok(mut parsed) = TcpPacket::parse(&mut packet, 0, len, Offload::default()) else {
            return self.error_leaves_tunnel(target, &packet, forged);
        };
        let flow = match host.mappings.flow_of(&parsed) {
            Ok(flow) => flow,
            Err(stray) => return self.note_stray(stray),
        };
        if host.mappings.get(flow).is_none() && host.target.probe_arrived(flow, len as u16) {
            return self.agent_acts(target, false);
        }
        match host.mappings.leave(&mut parsed) {
            Ok(_) if forged => {
                let detail = format!("a stranger's packet is led to {}", parsed.tuple());
                self.ledger.violate(Rule::Tunnel, detail);
            }
            Ok(flow) => {
                let speaks = |it: &&super::Infused| {
                    it.flow == flow && !matches!(it.stands, Stands::Mute(..))
                };
                if host.infused.values().any(|it| speaks(&it)) {
                    let bytes = parsed.bytes().to_vec();
                    host.host.receive(now, bytes, &mut self.ledger, &self.wire);
                    self.stack_acts(target);
                    self.target_step(target);
                }
            }
            Err(stray) => self.note_stray(stray),
        }
    }

    fn error_leaves_tunnel(&mut self, target: usize, packet: &[u8], forged: bool) {
        let now = self.now;
        let host = &mut self.targets[target];
        let mut about_client = Vec::new();
        match host.mappings.leave_error(packet, &mut about_client) {
            Ok(_) if forged => {
                let detail = format!("target {target} believes a stranger's ICMP error");
                self.ledger.violate(Rule::Tunnel, detail);
            }
            Ok(_) => {
                if let Ok(IcmpMessage::Error(error)) = parse_icmp(&about_client) {
                    host.host.receive_error(now, &error);
                    self.situations.insert("icmp led to a target");
                    self.stack_acts(target);
                }
            }
            Err(stray) => self.note_stray(stray),
        }
    }

    fn note_stray(&mut self, stray: Stray) {
        match stray {
            Stray::Stranger => self.situations.insert("strangers in a tunnel"),
            Stray::UnknownFlow => self.situations.insert("unknown flow in a tunnel"),
            _ => false,
        };
    }

    // ── towards clients

    /// Lets the TCP and the programs behind a target do what there is to do.
    pub(super) fn stack_acts(&mut self, target: usize) {
        let host = &mut self.targets[target];
        host.host.poll(self.now, &mut self.ledger, &self.wire);
        while let Some(packet) = self.targets[target].host.transmit() {
            self.target_sends(target, packet);
        }
        self.look_for_ends(target);
        let host = &mut self.targets[target];
        if let Some(at) = host.host.deadline(self.now) {
            let at = at.max(self.now + Duration::from_micros(1));
            if host.stack_wake.is_none_or(|wake| wake > at || wake <= self.now) {
                host.stack_wake = Some(at);
                let wakes = TargetHappening::StackWakes { target, at };
                self.at(at, Happening::Target(wakes));
            }
        }
    }

    fn target_sends(&mut self, target: usize, mut packet: Vec<u8>) {
        let Some(seen) = Seen::of(&mut packet) else { return };
        self.trace(|| format!("target {target} -> {seen}"));
        self.capture(&packet);
        self.check_target_sends(target, &seen);
        let mtu = self.book.path_mtu;
        if mtu.is_some_and(|mtu| packet.len() > usize::from(mtu)) {
            return self.too_big(&packet, mtu.unwrap_or_default());
        }
        let address = seen.tuple.destination.addr;
        if let Some(host) = self.hosts.iter().position(|host| host.address == address) {
            self.travel(Place::Target(target), Place::Host(host), packet);
        }
    }

    /// A router on the way to a client says that a packet was too long. It says so to the virtual address.
    fn too_big(&mut self, packet: &[u8], mtu: u16) {
        self.situations.insert("path mtu fell under a migrated connection");
        let error = forge::too_big(packet, mtu);
        for node in 0..2 {
            let answers = self.machines[node].as_ref().is_some_and(|m| m.answers());
            if let Some(packet) = error.clone().filter(|_| answers) {
                let delay = self.network.link.delay;
                self.after(delay, Happening::ToNode { node, packet });
            }
        }
    }

    // ── strangers

    /// Packets of strangers, and of nobody's flow.
    pub(super) fn forge_tunnel(&mut self, target: usize) {
        let setup = &self.targets[target].setup;
        let (balancers, tunnel) = (setup.balancers.clone(), setup.tunnel.clone());
        let stranger: IpAddr = match tunnel[0] {
            IpAddr::V4(_) => [10, 66, 6, 6].into(),
            IpAddr::V6(_) => [0xfd66, 0, 0, 0, 0, 0, 0, 6].into(),
        };
        let living: Vec<_> = self.targets[target].infused.values().map(|it| it.flow).collect();
        for flow in living {
            let next = self.book.next_of(flow);
            for flags in [Flags::RST, Flags::PSH] {
                let packet = forge::through_tunnel(stranger, tunnel[0], flow.ports(), next, flags);
                self.stranger_sends(target, packet);
            }
        }
        for (upper, lower) in [(0, 5), (5, 0), (0x7abc, 0xdef0), (0xfabc, 0xdef0)] {
            let packet =
                forge::through_tunnel(balancers[0], tunnel[0], (upper, lower), 77, Flags::RST);
            self.stranger_sends(target, packet);
        }
    }

    fn stranger_sends(&mut self, target: usize, packet: Vec<u8>) {
        let happening = TargetHappening::Packet { target, packet, sender: None };
        self.target_soon(self.network.link.delay, happening);
    }
}
