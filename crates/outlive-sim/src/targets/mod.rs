//! Migration targets: machines to which connections are moved.
//!
//! An agent decides with `outlive-migration`'s [`Target`], and Outlive's own endpoint goes on with what it is told to infuse; the
//! programs behind it are those of any other host. What a connection has to survive depends on where it lives: in the agent's own
//! process ([`TargetSetup::keeps`] is false), or outside of it, as in a kernel.
//!
//! | module | owns |
//! |---|---|
//! | `agent` | doing what the target's state machine wants done |
//! | `lines` | the connections between nodes and agents |
//! | `packets` | tunnels, and what a target sends to clients |
//! | `book` | what was said about each migration, and the rules |
//! | `faults` | what befalls targets |

mod agent;
mod book;
mod faults;
mod lines;
mod packets;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use outlive_migration::{
    id::{Epoch, MigrationId},
    message::HowEnded,
    target::{Limits, Target},
    tunnel::Mappings,
};
use outlive_tcp::{
    endpoint::Connection,
    seq::Seq,
    time::Time,
    wire::{Endpoint, FourTuple},
};

pub(crate) use self::book::Book;
use crate::{
    channel::Channel,
    content::FlowId,
    host::{Host, Service},
    machine::Process,
    network::{NodeIndex, Place},
    stack::{Kind, StackSetup},
    world::{Happening, World},
};

/// Crash points of targets are numbered behind those of the nodes.
pub const FIRST_TARGET: usize = 2;

/// How long an infusion takes.
const INFUSION: Duration = Duration::from_micros(200);
/// What is repeated of a connection's end is still led to it for so long.
const LINGER: Duration = Duration::from_millis(300);
const LIMITS: Limits =
    Limits { connections: 200, remembered: 100, patience: Duration::from_secs(60) };

/// A target.
#[derive(Clone, Debug)]
pub struct TargetSetup {
    /// Where its agent listens for the nodes.
    pub control: Endpoint,
    /// Its addresses in the tunnel.
    pub tunnel: Vec<IpAddr>,
    /// The nodes' addresses in the tunnel.
    pub balancers: Vec<IpAddr>,
    /// The virtual address, which its connections answer from.
    pub address: IpAddr,
    /// The TCP that goes on with connections; always Outlive's own.
    pub stack: StackSetup,
    /// What its programs do.
    pub service: Service,
    /// Connections that speak outlive the agent, and are acknowledged on receipt, as in a kernel. Otherwise they live in the agent's
    /// process, and its program acknowledges.
    pub keeps: bool,
}

/// Something that befalls a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetFault {
    /// The agent's process dies.
    Kill(usize),
    /// A new one starts.
    Restart(usize),
    /// The agent says and hears nothing.
    Freeze(usize),
    /// It does again.
    Resume(usize),
    /// The target's server takes no connections (true), or does again.
    Refuse(usize, bool),
    /// The target drains (true), or does no longer.
    Drain(usize, bool),
    /// The connections between both nodes and the agent are reset.
    BreakLines(usize),
    /// Strangers send packets into the tunnel, with the identifiers of living flows and with others.
    ForgeTunnel(usize),
    /// Clients' programs die: their connections are reset.
    ClientsReset,
    /// From now on longer packets than this do not come through from targets to clients; a router says so.
    PathMtu(u16),
}

/// Something that will happen to a target.
#[derive(Debug)]
pub(crate) enum TargetHappening {
    /// A packet comes out of the tunnel. `sender` is the node's process, if it is one's.
    Packet { target: usize, packet: Vec<u8>, sender: Option<(NodeIndex, u32)> },
    /// A packet that a target has sent arrives.
    ToHost { host: usize, packet: Vec<u8> },
    /// Something arrives on the connection of a node with an agent.
    Line { target: usize, node: NodeIndex, to_target: bool },
    /// An attempt to make those connections.
    Dial,
    /// An infusion is over.
    Infused { target: usize, incarnation: u32, id: MigrationId },
    /// Something of the TCP behind is due.
    StackWakes { target: usize, at: Time },
    /// Something of the agent is due.
    AgentWakes { target: usize, incarnation: u32, at: Time },
}

/// A connection at a target, as its agent has it.
#[derive(Debug)]
pub(crate) struct Infused {
    flow: outlive_migration::flow::FlowId,
    /// As the client's packets have them.
    ends: FourTuple,
    stands: Stands,
}

#[derive(Debug)]
enum Stands {
    /// It has not been told to speak. With the client's initial sequence number.
    Mute(Box<Connection>, Seq),
    Speaks,
    Ended(HowEnded, Time),
}

/// A target at work.
pub(crate) struct TargetHost {
    setup: TargetSetup,
    process: Process,
    /// Numbers the agent's processes.
    incarnation: u32,
    target: Target,
    mappings: Mappings,
    /// With each node, which is end 0 of it.
    lines: [Channel; 2],
    /// The TCP and the programs behind.
    host: Host,
    infused: BTreeMap<MigrationId, Infused>,
    refuses: bool,
    /// The highest that this process has heard.
    epoch: Epoch,
    stack_wake: Option<Time>,
    agent_wake: Option<Time>,
}

impl TargetHost {
    fn new(setup: TargetSetup, incarnation: u32, seed: u64) -> Self {
        TargetHost {
            process: Process::Running,
            incarnation,
            target: new_target(seed, &setup),
            mappings: new_mappings(&setup),
            lines: Default::default(),
            host: new_stack(&setup, seed),
            infused: BTreeMap::new(),
            refuses: false,
            epoch: Epoch::default(),
            stack_wake: None,
            agent_wake: None,
            setup,
        }
    }

    fn is_dead(&self) -> bool {
        matches!(self.process, Process::Dead | Process::Off)
    }

    fn is_running(&self) -> bool {
        self.process == Process::Running
    }
}

fn new_target(seed: u64, setup: &TargetSetup) -> Target {
    Target::new(LIMITS, seed | 1, setup.keeps)
}

fn new_mappings(setup: &TargetSetup) -> Mappings {
    let (balancers, own) = (setup.balancers.iter().copied(), setup.tunnel.iter().copied());
    Mappings::new(balancers, own, LIMITS.connections)
}

fn new_stack(setup: &TargetSetup, seed: u64) -> Host {
    let stack = StackSetup { kind: Kind::Outlive, ..setup.stack };
    let mut host = Host::new(setup.address, stack, seed);
    host.serve(setup.service.clone());
    host
}

impl World {
    /// Targets are there from the beginning.
    pub(crate) fn begin_targets(&mut self) {
        for setup in self.setup.targets.clone() {
            let seed = self.rng.number();
            self.targets.push(TargetHost::new(setup, 0, seed));
        }
        if !self.targets.is_empty() {
            self.target_soon(Duration::ZERO, TargetHappening::Dial);
        }
    }

    fn target_soon(&mut self, after: Duration, happening: TargetHappening) {
        self.after(after, Happening::Target(happening));
    }

    pub(crate) fn target_happens(&mut self, happening: TargetHappening) {
        match happening {
            TargetHappening::Packet { target, packet, sender } => {
                if !sender.is_some_and(|sender| self.is_lost(sender)) {
                    self.leaves_tunnel(target, packet, sender.is_none());
                }
            }
            TargetHappening::ToHost { host, packet } => {
                self.hosts[host].receive(self.now, packet, &mut self.ledger, &self.wire);
                self.host_acts(host);
            }
            TargetHappening::Line { target, node, to_target: true } => {
                self.agent_hears(target, node);
            }
            TargetHappening::Line { target, node, to_target: false } => {
                self.node_hears_agent(target, node);
            }
            TargetHappening::Dial => self.dial_agents(),
            TargetHappening::Infused { target, incarnation, id } => {
                self.infusion_is_over(target, incarnation, id);
            }
            TargetHappening::StackWakes { target, at } => {
                if self.targets[target].stack_wake == Some(at) {
                    self.targets[target].stack_wake = None;
                    self.stack_acts(target);
                }
            }
            TargetHappening::AgentWakes { target, incarnation, at } => {
                let host = &mut self.targets[target];
                if host.incarnation == incarnation && host.agent_wake == Some(at) {
                    host.agent_wake = None;
                    self.agent_wakes(target);
                }
            }
        }
    }

    /// What that process has sent was lost with it.
    fn is_lost(&self, (node, incarnation): (NodeIndex, u32)) -> bool {
        let sender = self.machines[node].as_ref();
        sender.is_some_and(|machine| machine.lost_outputs_of == Some(incarnation))
    }

    /// Both can reach each other.
    fn are_connected(&self, node: NodeIndex, target: usize) -> bool {
        let (node, target) = (Place::Node(node), Place::Target(target));
        !self.network.is_cut(node, target) && !self.network.is_cut(target, node)
    }

    /// The end of one turn of an agent, or an output of it: true if it was its last.
    fn target_step(&mut self, target: usize) -> bool {
        let Some(crash) = self.setup.crash else { return false };
        let counts = crash.node == FIRST_TARGET + target && !self.crashed;
        if !counts || self.now < crate::world::LOAD || !self.targets[target].is_running() {
            return false;
        }
        self.steps += 1;
        if self.steps < crash.point {
            return false;
        }
        self.crashed = true;
        self.note_fault();
        self.agent_dies(target, crash.tail, crash.restart.is_some());
        if let Some(after) = crash.restart {
            let restart = TargetFault::Restart(target);
            self.one_more_fault(after, crate::setup::Fault::Target(restart));
        }
        true
    }

    /// The flow of the client's connection that began with `isn`.
    fn flow_of_client(&self, ends: FourTuple, isn: Seq) -> Option<FlowId> {
        self.wire.flow_at(ends, isn)
    }
}
