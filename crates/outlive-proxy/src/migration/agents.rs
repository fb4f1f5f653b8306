//! The conversations with the targets' agents, and the probes of the ways to them.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use outlive_migration::{
    flow::FlowId,
    id::{Epoch, MigrationId},
    message::{Hello, Message, Speaker},
    tunnel::Tunnel,
};
use outlive_tcp::{
    fault::{self, Fault},
    segment::{DEFAULT_HOP_LIMIT, Segment},
    seq::Seq,
    time::Time,
    wire::{Endpoint, Flags, IpVersion, Options},
};

use super::{AgentError, Phase, Place, balancer};
use crate::{config::Agent, counters::Counter, proxy::Proxy};

/// Until the first packet through a tunnel: what announces it goes another way, and must be there first.
const PROBE_DELAY: Duration = Duration::from_millis(20);
/// Time between two packets through a tunnel through which none has come.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);

/// All of them, by where the agents listen.
#[derive(Debug, Default)]
pub(super) struct Agents {
    conversations: BTreeMap<Endpoint, Conversation>,
    outgoing: VecDeque<(Endpoint, Vec<u8>)>,
    /// Of this process.
    incarnation: u64,
    /// When probes are sent again.
    probe_at: Option<Time>,
}

/// A connection with an agent.
#[derive(Debug, Default)]
struct Conversation {
    connected: bool,
    greeted: bool,
    /// Of the agent's process, when it was last heard.
    incarnation: u64,
    probes: Vec<Probe>,
}

/// One way to a target.
#[derive(Debug)]
struct Probe {
    id: MigrationId,
    flow: FlowId,
    tunnel: Tunnel,
    answered: bool,
}

impl Agents {
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.probe_at
    }

    /// Whether connections can be migrated to that address in the tunnel: the agent has been heard, and so were the probes.
    pub(super) fn is_ready(&self, control: Endpoint, target: IpAddr) -> bool {
        self.conversations.get(&control).is_some_and(|conversation| {
            let arrives = |probe: &Probe| probe.tunnel.target == target && probe.answered;
            conversation.greeted && conversation.probes.iter().any(arrives)
        })
    }

    /// Says something, if there is a connection. Whether there is.
    pub(super) fn say(&mut self, control: Endpoint, message: &Message) -> bool {
        let greeted = self.conversations.get(&control).is_some_and(|it| it.greeted);
        if greeted {
            self.outgoing.push_back((control, message.encode()));
        }
        greeted
    }

    fn greeted(&self) -> Vec<Endpoint> {
        let greeted = self.conversations.iter().filter(|(_, conversation)| conversation.greeted);
        greeted.map(|(control, _)| *control).collect()
    }
}

impl Proxy {
    /// The node's process, to agents. A random number; flow identifiers are counted from it.
    pub(crate) fn identify(&mut self, incarnation: u64) {
        self.migrations.agents.incarnation = incarnation;
        self.migrations.flows = outlive_migration::flow::FlowCounter::new(
            balancer(self.config.node),
            (incarnation >> 32) as u32,
        );
    }

    /// There is a connection with the agent at `control`.
    pub(crate) fn agent_connected(&mut self, control: Endpoint) {
        let agents = &mut self.migrations.agents;
        let hello = Message::Hello(Hello {
            speaker: Speaker::Balancer(balancer(self.config.node)),
            incarnation: agents.incarnation,
            epoch: self.migrations.epoch,
        });
        let conversation = agents.conversations.entry(control).or_default();
        let incarnation = conversation.incarnation;
        *conversation = Conversation { connected: true, incarnation, ..Conversation::default() };
        agents.outgoing.retain(|(to, _)| *to != control);
        agents.outgoing.push_back((control, hello.encode()));
    }

    /// It is gone. What was to be prepared over it goes elsewhere; what is decided waits for the next.
    pub(crate) fn agent_closed(&mut self, now: Time, control: Endpoint) {
        let migrations = &mut self.migrations;
        let Some(conversation) = migrations.agents.conversations.get_mut(&control) else { return };
        (conversation.connected, conversation.greeted) = (false, false);
        for probe in std::mem::take(&mut conversation.probes) {
            migrations.agents.outgoing.retain(|(to, _)| *to != control);
            debug_assert!(!migrations.by_id.contains_key(&probe.id));
        }
        let moving: Vec<usize> = (migrations.by_id.values())
            .filter_map(|place| match place {
                Place::Opening(slot) => Some(*slot),
                Place::Mapping(_) => None,
            })
            .filter(|slot| {
                self.openings[*slot].transfer.as_ref().is_some_and(|t| t.agent == control)
            })
            .collect();
        for slot in moving {
            self.transfer_failed(now, slot, Counter::MigrationTimeout);
        }
        if fault::on(Fault::SecondTargetAfterCommit) {
            let asked = |(slot, mapping): (usize, &super::Mapping)| {
                let asked = mapping.record.agent == control && mapping.phase == Phase::Committing;
                asked.then_some(slot)
            };
            let asked: Vec<_> = self.migrations.mappings.iter().filter_map(asked).collect();
            asked.into_iter().for_each(|slot| self.undo(now, slot));
        }
    }

    /// Agents that have been heard, and to which packets have come through every tunnel.
    pub(crate) fn ready_agents(&self) -> Vec<Endpoint> {
        let ready = self.migrations.agents.conversations.iter().filter(|(_, conversation)| {
            let proved = conversation.probes.iter().all(|probe| probe.answered);
            conversation.greeted && proved && !conversation.probes.is_empty()
        });
        ready.map(|(control, _)| *control).collect()
    }

    /// The next message for an agent.
    pub(crate) fn poll_agent_message(&mut self) -> Option<(Endpoint, Vec<u8>)> {
        self.migrations.agents.outgoing.pop_front()
    }

    /// An agent says something.
    pub(crate) fn agent_message(
        &mut self,
        now: Time,
        control: Endpoint,
        bytes: &[u8],
    ) -> Result<(), AgentError> {
        let message = Message::decode(bytes)?;
        let Some(conversation) = self.migrations.agents.conversations.get_mut(&control) else {
            return Ok(());
        };
        if !conversation.connected {
            return Ok(());
        }
        if let Message::Hello(hello) = message {
            if hello.speaker != Speaker::Target {
                return Err(AgentError::NotAnAgent);
            }
            let before = std::mem::replace(&mut conversation.incarnation, hello.incarnation);
            conversation.greeted = true;
            let restarted = before != 0 && before != hello.incarnation;
            self.agent_greeted(now, control, restarted);
            return Ok(());
        }
        if !conversation.greeted {
            return Err(AgentError::NotGreeted);
        }
        match message {
            Message::Prepared { id, .. } => self.prepared(now, id),
            Message::Committed { id, .. } => self.committed(now, id),
            Message::Refused { epoch, id, reason } => self.refused(now, epoch, id, reason),
            Message::Ended { id, how, .. } => self.migrated_ended(now, control, id, how),
            Message::Probed { id, .. } => {
                if let Some(probe) = conversation.probes.iter_mut().find(|probe| probe.id == id) {
                    probe.answered = true;
                }
            }
            // A balancer's own.
            _ => return Err(AgentError::NotAnAgent),
        }
        Ok(())
    }

    /// The pair's epoch, under which everything is said from now on.
    pub(crate) fn migrations_epoch(&mut self, epoch: crate::pair::Epoch) {
        self.migrations.epoch = self.migrations.epoch.max(Epoch(epoch.0));
    }

    /// This node serves from now on, in the epoch that it was told last.
    pub(crate) fn migrations_serve(&mut self) {
        for control in self.migrations.agents.greeted() {
            self.say_serve(control, false);
        }
    }

    /// This node serves no longer: what it was about to ask for is not its own to ask.
    pub(crate) fn migrations_yield(&mut self) {
        let stays = |bytes: &[u8]| {
            matches!(Message::decode(bytes), Ok(Message::Hello(_) | Message::Probe { .. }))
        };
        self.migrations.agents.outgoing.retain(|(_, bytes)| stays(bytes));
    }

    fn agent_greeted(&mut self, now: Time, control: Endpoint, restarted: bool) {
        if self.posture.active {
            if restarted && self.decides() {
                self.undo_untold(now, Some(control));
            }
            self.say_serve(control, restarted);
        }
        self.probe_tunnels(now, control);
    }

    /// Begins to probe the tunnels to a target that were not probed since its agent was reached, and gives up probes of those that
    /// are not configured any more.
    fn probe_tunnels(&mut self, now: Time, control: Endpoint) {
        let targets: Vec<IpAddr> = (self.config.migration.agents.iter())
            .filter(|agent| agent.control == control)
            .flat_map(|agent| agent.tunnel.clone())
            .collect();
        let mut tunnels: Vec<_> = targets.iter().filter_map(|t| self.tunnel_to(*t)).collect();
        tunnels.sort();
        tunnels.dedup();
        let Some(conversation) = self.migrations.agents.conversations.get_mut(&control) else {
            return;
        };
        conversation.probes.retain(|probe| tunnels.contains(&probe.tunnel));
        tunnels.retain(|tunnel| conversation.probes.iter().all(|probe| probe.tunnel != *tunnel));
        for tunnel in tunnels {
            let clock_us = self.clock.micros(now);
            let id = self.migrations.next_id(self.config.node, clock_us);
            let migrations = &mut self.migrations;
            let by_flow = &migrations.by_flow;
            let Some(flow) = migrations.flows.next(|flow| by_flow.contains_key(&flow)) else {
                continue;
            };
            let epoch = migrations.epoch;
            migrations.agents.say(control, &Message::Probe { epoch, id, flow });
            if let Some(conversation) = migrations.agents.conversations.get_mut(&control) {
                conversation.probes.push(Probe { id, flow, tunnel, answered: false });
            }
            migrations.agents.probe_at = Some(now + PROBE_DELAY);
        }
    }

    /// The configuration has changed: targets may have other tunnels.
    pub(crate) fn probe_new_tunnels(&mut self, now: Time) {
        for control in self.migrations.agents.greeted() {
            self.probe_tunnels(now, control);
        }
    }

    /// Whether the agent at `control` is configured, or connections live there, or are on their way.
    pub(crate) fn needs_agent(&self, control: Endpoint) -> bool {
        let configured = |agent: &Agent| agent.control == control;
        self.migrations.of_agent.contains_key(&control)
            || self.config.migration.agents.iter().any(configured)
    }

    /// There will be no connection with it any more.
    pub(crate) fn forget_agent(&mut self, control: Endpoint) {
        self.migrations.agents.conversations.remove(&control);
    }

    /// Says that this node is active, and asks again for everything of which the answer is not known. An agent that was started
    /// again may know nothing of what it has had before.
    fn say_serve(&mut self, control: Endpoint, restarted: bool) {
        let epoch = self.migrations.epoch;
        self.migrations.agents.say(control, &Message::Serve { epoch });
        let asked: Vec<usize> = (self.migrations.mappings.iter())
            .filter(|(_, mapping)| mapping.record.agent == control)
            .filter(|(_, mapping)| match mapping.phase {
                Phase::Deciding | Phase::Lost => false,
                Phase::Committing => !fault::on(Fault::CommitNotRepeated),
                Phase::Migrated => restarted,
            })
            .map(|(slot, _)| slot)
            .collect();
        for slot in asked {
            self.say_commit(slot);
        }
    }

    /// Sends a packet through every tunnel through which none has come, if it is time for that. It is announced each time: an
    /// agent of an earlier version has not listened if it had heard a later epoch than this node.
    pub(super) fn probe_agents(&mut self, now: Time) {
        let agents = &mut self.migrations.agents;
        if agents.probe_at.take_if(|at| *at <= now).is_none() {
            return;
        }
        let epoch = self.migrations.epoch;
        let mut unanswered = false;
        for (control, conversation) in &agents.conversations {
            for probe in conversation.probes.iter().filter(|probe| !probe.answered) {
                unanswered = true;
                let announcement = Message::Probe { epoch, id: probe.id, flow: probe.flow };
                agents.outgoing.push_back((*control, announcement.encode()));
                let headers = match IpVersion::of(probe.tunnel.target) {
                    IpVersion::V4 => 40,
                    IpVersion::V6 => 60,
                };
                let payload = vec![0; usize::from(self.config.mtu) - headers];
                self.outbox.send(&Segment {
                    tuple: probe.tunnel.ends(probe.flow),
                    seq: Seq(1),
                    ack: Some(Seq(1)),
                    flags: Flags::PSH,
                    window: 1,
                    options: Options::default(),
                    payload: &payload,
                    hop_limit: DEFAULT_HOP_LIMIT,
                });
            }
        }
        agents.probe_at = unanswered.then_some(now + PROBE_INTERVAL);
    }
}
