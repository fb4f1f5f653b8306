//! What befalls the nodes: their deaths and standstills, what becomes of their channels, and strangers.

use outlive_proxy::pair::heartbeat::Role;

use crate::{
    channel::{Item, Tail},
    machine::{Doubt, Process},
    network::NodeIndex,
    pair::Input,
    setup::Fault,
    situations,
    world::World,
};

impl World {
    pub(crate) fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(node) => self.die(node, Process::Dead, Tail::Random),
            Fault::PowerOff(node) => self.die(node, Process::Off, Tail::Random),
            Fault::Freeze(node) => {
                if self.running(node) {
                    let now = self.now;
                    let machine = self.machine(node);
                    (machine.process, machine.frozen_since) = (Process::Frozen, now);
                }
            }
            Fault::Resume(node) => self.resume(node),
            Fault::Restart(node) => {
                if matches!(self.process(node), Process::Dead | Process::Off) {
                    // What was left of an old connection is now refused.
                    if self.channel.close(node) {
                        self.state_under_way(1 - node);
                    }
                    self.start_node(node);
                }
            }
            Fault::BreakState => {
                self.situations.extend(self.channel.is_up(0).then_some("state connection broken"));
                for node in 0..2 {
                    if self.running(node) {
                        self.break_state(node);
                    }
                }
            }
            Fault::Wedge(node) if self.machines[node].is_some() => {
                self.machine(node).wedged = true;
                let standby = self.machine(node).node.beliefs().role == Role::Standby;
                self.situations.extend(standby.then_some("standby wedged"));
            }
            Fault::Unwedge(node) if self.machines[node].is_some() => self.unwedge(node),
            Fault::SlowState(node, delay) if self.machines[node].is_some() => {
                self.machine(node).state_delay = delay;
                let standby = self.machine(node).node.beliefs().role == Role::Standby;
                self.situations.extend((standby && !delay.is_zero()).then_some("standby slow"));
            }
            Fault::WallClock(node, jump_us) if self.machines[node].is_some() => {
                self.machine(node).clocks.wall_us += jump_us;
                self.situations.insert("a clock jumped");
            }
            Fault::Wedge(_) | Fault::Unwedge(_) | Fault::SlowState(..) | Fault::WallClock(..) => {}
            Fault::Forge(forgery) => self.forge(forgery),
            Fault::CutPath(from, path) => self.network.cut_path(from, path),
            Fault::Handover(node) if self.running(node) => self.hand_over(node),
            Fault::Handover(_) => {}
            Fault::Cut(from, to) => self.network.cut(from, to),
            Fault::Heal => self.network.heal(),
            Fault::Links(link) => self.network.link = link,
            Fault::Target(fault) => self.target_fault(fault),
        }
    }

    /// `node` is told to hand over.
    fn hand_over(&mut self, node: NodeIndex) {
        let now = self.clock(node);
        let outcome = self.machine(node).node.hand_over(now);
        self.trace(|| format!("node {node} is told to hand over: {outcome:?}"));
        self.turn(node, Input::Time);
    }

    /// `node` dies.
    pub(crate) fn die(&mut self, node: NodeIndex, how: Process, tail: Tail) {
        let Some(machine) = &mut self.machines[node] else { return };
        if matches!(machine.process, Process::Dead | Process::Off) {
            return;
        }
        let status = machine.node.status(machine.clock(self.now));
        situations::of_counters(&status, &mut self.situations);
        let role = machine.node.beliefs().role;
        machine.process = how;
        machine.claims = false;
        machine.held.clear();
        self.trace(|| format!("node {node} dies: {how:?}"));
        if role == Role::Active {
            // What it alone knew dies with it.
            self.exempt(|world, client| {
                world.is_served(client) && !world.known_to(1 - node, client)
            });
        }
        self.note_death_in_migration(node);
        self.lines_of_dead_node(node, how, tail);
        self.channel.lose_tail(1 - node, tail, &mut self.rng);
        // The kernel of a machine that lives says so; a dead machine says nothing.
        if how == Process::Dead && self.channel.close(node) {
            self.state_under_way(1 - node);
        }
    }

    /// The connection of `node` is reset under way; what it had not got is lost.
    fn break_state(&mut self, node: NodeIndex) {
        if self.channel.is_up(node) {
            self.channel.close(node);
            self.turn(node, Input::State(Item::Closed));
        }
    }

    fn unwedge(&mut self, node: NodeIndex) {
        let machine = self.machine(node);
        machine.wedged = false;
        if machine.process != Process::Running {
            return;
        }
        for _ in 0..std::mem::take(&mut machine.backlog.state) {
            self.state_arrives(node);
        }
    }

    fn resume(&mut self, node: NodeIndex) {
        if self.process(node) != Process::Frozen {
            return;
        }
        let now = self.now;
        let machine = self.machine(node);
        machine.process = Process::Running;
        machine.wake = None;
        let still = now.since(machine.frozen_since) >= machine.config.pair.detection_timeout;
        if still && machine.node.beliefs().role == Role::Active {
            machine.doubt = Some(Doubt { since: now, counter: machine.counter });
        }
        let backlog = std::mem::take(&mut machine.backlog);
        let incarnation = machine.incarnation;
        for (at, path, heartbeat) in backlog.heartbeats {
            self.machine(node).note_heard(at, &heartbeat);
            self.turn(node, Input::Heartbeat(at, path, heartbeat));
        }
        for _ in 0..backlog.state {
            self.state_arrives(node);
        }
        for packet in backlog.packets {
            self.node_gets_packet(node, packet);
        }
        if self.running(node) && self.machine(node).incarnation == incarnation {
            self.turn(node, Input::Time);
        }
    }
}
