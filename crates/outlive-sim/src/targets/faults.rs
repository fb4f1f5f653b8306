//! What befalls targets, and migrations.

use outlive_migration::id::Epoch;
use outlive_tcp::wire::Flags;

use super::{TargetFault, new_mappings, new_stack, new_target};
use crate::{channel::Tail, forge, machine::Process, packet::Seen, setup::Fault, world::World};

impl Fault {
    /// After it nothing is left that would not be left without it.
    pub(super) fn is_harmless_to_mappings(&self) -> bool {
        match self {
            Fault::Links(_) | Fault::Handover(_) | Fault::BreakState => true,
            Fault::Target(fault) => !matches!(fault, TargetFault::Kill(_)),
            _ => false,
        }
    }
}

impl World {
    pub(crate) fn target_fault(&mut self, fault: TargetFault) {
        match fault {
            TargetFault::Kill(target) => self.agent_dies(target, Tail::Random, true),
            TargetFault::Restart(target) => self.agent_starts(target),
            TargetFault::Freeze(target) if self.targets[target].is_running() => {
                self.targets[target].process = Process::Frozen;
                self.situations.insert("a target was silent");
            }
            TargetFault::Resume(target) if self.targets[target].process == Process::Frozen => {
                self.targets[target].process = Process::Running;
                self.agent_wakes(target);
                self.look_for_ends(target);
            }
            TargetFault::Freeze(_) | TargetFault::Resume(_) => {}
            TargetFault::Refuse(target, refuses) => self.targets[target].refuses = refuses,
            TargetFault::Drain(target, drains) => self.targets[target].target.drain(drains),
            TargetFault::BreakLines(target) => self.break_lines(target),
            TargetFault::ForgeTunnel(target) => self.forge_tunnel(target),
            TargetFault::ClientsReset => self.clients_reset(),
            TargetFault::PathMtu(mtu) => self.book.path_mtu = Some(mtu),
        }
    }

    /// The agent's process dies, and with it what has not spoken; what speaks only if it lives there, or if nobody will lead packets to it
    /// any more.
    pub(super) fn agent_dies(&mut self, target: usize, tail: Tail, comes_back: bool) {
        let host = &mut self.targets[target];
        if host.is_dead() {
            return;
        }
        host.process = Process::Dead;
        host.infused.clear();
        self.trace(|| format!("target {target}: its agent dies"));
        let keeps = self.targets[target].setup.keeps;
        let lost = self.book.decided().filter(|(_, it)| it.target == target);
        let lost: Vec<_> = lost
            .filter(|(_, it)| !keeps || !comes_back || it.spoken.is_none())
            .map(|(id, it)| (*id, it.ends))
            .collect();
        if self.book.undecided().any(|it| it.target == target) {
            self.situations.insert("a target died before commit");
        }
        if self.book.decided().any(|(_, it)| it.target == target) {
            self.situations.insert("a target died after commit");
        }
        for (_, ends) in lost {
            self.exempt(|_, client| client == ends);
        }
        if !keeps {
            let seed = self.rng.number();
            let host = &mut self.targets[target];
            host.host = new_stack(&host.setup, seed);
        }
        self.lines_of_dead_agent(target, tail);
    }

    fn agent_starts(&mut self, target: usize) {
        if self.targets[target].process != Process::Dead {
            return;
        }
        let seed = self.rng.number();
        let host = &mut self.targets[target];
        host.process = Process::Running;
        host.incarnation += 1;
        host.target = new_target(seed, &host.setup);
        host.mappings = new_mappings(&host.setup);
        host.epoch = Epoch::default();
        host.agent_wake = None;
        self.trace(|| format!("target {target}: another agent starts"));
    }

    /// The programs of all clients that live die, and their kernels say so.
    fn clients_reset(&mut self) {
        let clients: Vec<_> = self
            .wire
            .living(&self.ledger)
            .into_iter()
            .filter_map(|(tuple, next)| {
                let host = self.hosts.iter().position(|h| h.address == tuple.source.addr)?;
                let is_client = self.setup.hosts[host].services.is_empty();
                is_client.then_some((host, tuple, next))
            })
            .collect();
        for (host, tuple, next) in clients {
            self.hosts[host].forget(&tuple);
            // Neither end wants anything more of it.
            if let Some(flow) = self.wire.flow_of_client(tuple) {
                let flow = &mut self.ledger.flows[flow.0];
                (flow.client_done, flow.server_done) = (true, true);
            }
            let mut packet = forge::made(tuple, next, Flags::RST);
            if self.book_is_moving(tuple) {
                self.situations.insert("a client gave up while it was moved");
            }
            if Seen::of(&mut packet).is_some() {
                self.host_sends(host, packet);
            }
        }
    }

    fn book_is_moving(&self, client: outlive_tcp::wire::FourTuple) -> bool {
        self.book.undecided().any(|it| it.is_of(client))
    }
}
