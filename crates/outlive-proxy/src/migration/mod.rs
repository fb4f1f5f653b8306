//! The balancer's side of migrations: connections of which the client's end is handed to a target.
//!
//! An inspecting listener's route says so. The connection is captured from its opening, with its data unacknowledged ([`capture`]);
//! [`transfer`] moves it in two phases, with the record of the decision at the standby between them; from then on there is a
//! [`Mapping`], by which [`packets`] leads what the client sends to the target. [`agents`] keeps the conversations, [`replica`] is
//! what the standby does. Formats and messages are `outlive-migration`'s.
//!
//! Mappings are apart from sessions, with an index of their own that is looked at only for packets that belong to no session: whoever
//! migrates nothing pays nothing.

mod agents;
mod capture;
mod farewell;
mod fast_path;
mod packets;
mod record;
mod replica;
mod transfer;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

use outlive_migration::{
    flow::{FlowCounter, FlowId},
    id::{Balancer, Epoch, MigrationId},
    message::MessageError,
    tunnel::Tunnel,
};
use outlive_tcp::{
    time::Time,
    wire::{Endpoint, FourTuple, IpVersion, Offload},
};
use slab::Slab;

pub(crate) use self::fast_path::MIGRATED;
pub(crate) use self::record::{MAPPING_LEN, MappingRecord};
use self::{agents::Agents, fast_path::Delegated};
use crate::{
    balance::ServerId,
    config::NodeId,
    flows::{Flow, FlowTable, Side},
    proxy::Proxy,
    session::Seconds,
    timer::TimerWheel,
};

/// How long a target is asked again to let a connection speak. Its client has given up by then, or is told.
const COMMIT_PATIENCE: Duration = Duration::from_secs(120);
/// How long a target that has a connection, and could not be told to let it speak, is waited for before the decision is taken back.
const UNTOLD_PATIENCE: Duration = Duration::from_secs(1);
/// Packets of one connection that are kept while it is on its way.
const QUEUE_PACKETS: usize = 64;
/// Bytes that are kept for all of them together.
const QUEUE_BYTES: usize = 32 << 20;

/// Something that went wrong in the conversation with an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// It does not parse, or is of another version.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// It is not an agent that speaks.
    #[error("whoever speaks there is not the agent of a target")]
    NotAnAgent,
    /// It did not say who it is.
    #[error("a message before the greeting")]
    NotGreeted,
}

/// A connection that is being prepared at a target: a part of its opening.
#[derive(Clone, Debug)]
pub(crate) struct Transfer {
    id: MigrationId,
    flow: FlowId,
    server: ServerId,
    agent: Endpoint,
    tunnel: Tunnel,
    queue: Queue,
}

/// What a client sends while its connection is on its way.
#[derive(Clone, Debug, Default)]
struct Queue {
    packets: VecDeque<(Vec<u8>, Offload)>,
}

/// Where a mapping stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The standby has not confirmed the decision: COMMIT may not be sent, and everything can be undone.
    Deciding,
    /// COMMIT may be sent, and was not answered: only this target is asked, again and again. If it is certain that it has not heard
    /// COMMIT everything can still be undone.
    Committing,
    /// The target speaks.
    Migrated,
    /// The target has lost it: its client is to be told ([`farewell`]), and nothing else.
    Lost,
}

/// A connection that lives at a target, or will.
#[derive(Clone, Debug)]
struct Mapping {
    record: MappingRecord,
    phase: Phase,
    server: ServerId,
    /// When its client last sent something.
    last_seen: Seconds,
    /// Since when the target is to speak.
    since: Time,
    queue: Queue,
    delegated: Delegated,
    /// Which synchronisation it was last part of (standby).
    picture: u8,
}

/// What a migration's number leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Opening(usize),
    Mapping(usize),
}

/// Everything that a node knows of migrations.
#[derive(Debug)]
pub(crate) struct Migrations {
    agents: Agents,
    mappings: Slab<Mapping>,
    /// By the client's four-tuple. The flows in it are [`Flow::Session`]s whose slots are those of the mappings.
    by_ends: FlowTable,
    /// Of mappings and of transfers: the live ones.
    by_flow: BTreeMap<FlowId, Place>,
    by_id: BTreeMap<MigrationId, Place>,
    /// How many of both each agent has; none is not in it.
    of_agent: BTreeMap<Endpoint, usize>,
    timers: TimerWheel,
    flows: FlowCounter,
    last: Option<MigrationId>,
    /// The change that has to be confirmed before COMMIT, and the mapping.
    awaiting: VecDeque<(u64, Time, MigrationId)>,
    /// Of those in the two phases before [`Phase::Migrated`]: whose target has certainly not heard COMMIT.
    untold: BTreeSet<MigrationId>,
    /// The change that has to be confirmed before the target may forget how a connection has ended, the agent, and the connection.
    ending: VecDeque<(u64, Endpoint, MigrationId)>,
    queued: usize,
    /// Mappings that are [`Phase::Lost`].
    lost: usize,
    limit: usize,
    /// Of the pair.
    epoch: Epoch,
    /// The standby understands what it is told of mappings.
    standby_understands: bool,
    /// The same for what is undone.
    standby_undoes: bool,
}

impl Migrations {
    pub(crate) fn new(node: NodeId, key: [u8; 16], limit: u32, now: Time) -> Self {
        let [a, b, c, d, ..] = key;
        Migrations {
            agents: Agents::default(),
            mappings: Slab::new(),
            // Grows as it is used: most nodes have no use for it.
            by_ends: FlowTable::new(key, 0),
            by_flow: BTreeMap::new(),
            by_id: BTreeMap::new(),
            of_agent: BTreeMap::new(),
            timers: TimerWheel::new(now),
            flows: FlowCounter::new(balancer(node), u32::from_be_bytes([a, b, c, d])),
            last: None,
            awaiting: VecDeque::new(),
            untold: BTreeSet::new(),
            ending: VecDeque::new(),
            queued: 0,
            lost: 0,
            limit: limit as usize,
            epoch: Epoch::default(),
            standby_understands: true,
            standby_undoes: true,
        }
    }

    /// The mapping of a client's packets.
    pub(crate) fn find(&self, ends: &FourTuple) -> Option<usize> {
        if self.mappings.is_empty() {
            return None;
        }
        match self.by_ends.find(ends, |flow| self.ends_of(flow)) {
            Some(Flow::Session(slot, _)) => Some(slot),
            _ => None,
        }
    }

    /// Connections that live at targets, or will.
    pub(crate) fn len(&self) -> usize {
        self.mappings.len() - self.lost
    }

    /// The address that each client talks to, as often as there are clients.
    pub(crate) fn virtual_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.mappings.iter().map(|(_, mapping)| mapping.record.ends.destination.addr)
    }

    /// When the oldest decision began to wait for the standby.
    pub(crate) fn waiting_since(&self) -> Option<Time> {
        self.awaiting.front().map(|(_, since, _)| *since)
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.timers.next_deadline().into_iter().chain(self.agents.next_deadline()).min()
    }

    /// Whether the standby can be told of mappings.
    pub(crate) fn peer_understands(&mut self, understands: bool, undoes: bool) {
        (self.standby_understands, self.standby_undoes) = (understands, undoes);
    }

    fn ends_of(&self, flow: Flow) -> FourTuple {
        match flow {
            Flow::Session(slot, _) | Flow::Opening(slot, _) | Flow::Terminated(slot, _) => {
                self.mappings[slot].record.ends
            }
        }
    }

    fn insert(&mut self, mapping: Mapping) -> usize {
        let record = mapping.record;
        let slot = self.mappings.insert(mapping);
        let mappings = &self.mappings;
        self.by_ends.insert(&record.ends, Flow::Session(slot, Side::Client), |flow| match flow {
            Flow::Session(slot, _) | Flow::Opening(slot, _) | Flow::Terminated(slot, _) => {
                mappings[slot].record.ends
            }
        });
        self.enter(record.id, record.flow, record.agent, Place::Mapping(slot));
        slot
    }

    /// Notes what a migration's number, and its flow's, lead to.
    fn enter(&mut self, id: MigrationId, flow: FlowId, agent: Endpoint, place: Place) {
        self.by_flow.insert(flow, place);
        self.by_id.insert(id, place);
        *self.of_agent.entry(agent).or_default() += 1;
    }

    /// Forgets that.
    fn leave(&mut self, id: MigrationId, flow: FlowId, agent: Endpoint) {
        self.by_flow.remove(&flow);
        self.by_id.remove(&id);
        if let Some(count) = self.of_agent.get_mut(&agent) {
            *count -= 1;
            if *count == 0 {
                self.of_agent.remove(&agent);
            }
        }
    }

    fn remove(&mut self, slot: usize) -> Mapping {
        self.timers.cancel(slot);
        let mapping = self.mappings.remove(slot);
        self.by_ends.remove(&mapping.record.ends, Flow::Session(slot, Side::Client));
        self.untold.remove(&mapping.record.id);
        let MappingRecord { id, flow, agent, .. } = mapping.record;
        self.leave(id, flow, agent);
        self.queued -= mapping.queue.bytes();
        mapping
    }

    fn mapping_of(&self, id: MigrationId) -> Option<usize> {
        match self.by_id.get(&id) {
            Some(Place::Mapping(slot)) => Some(*slot),
            _ => None,
        }
    }

    /// The next number, at `clock_us` on the pair's clock.
    fn next_id(&mut self, node: NodeId, clock_us: u64) -> MigrationId {
        let id = MigrationId::next(balancer(node), self.last, clock_us);
        self.last = Some(id);
        id
    }

    pub(crate) fn check_invariants(&self) {
        assert_eq!(self.by_ends.len(), self.mappings.len(), "every mapping is in the index once");
        let transfers = self.by_id.values().filter(|p| matches!(p, Place::Opening(_))).count();
        assert_eq!(self.by_id.len(), self.mappings.len() + transfers);
        assert_eq!(self.by_flow.len(), self.by_id.len());
        assert_eq!(self.of_agent.values().sum::<usize>(), self.by_id.len());
        for (slot, mapping) in &self.mappings {
            assert_eq!(self.find(&mapping.record.ends), Some(slot));
            assert_eq!(self.by_flow.get(&mapping.record.flow), Some(&Place::Mapping(slot)));
        }
        let lost = self.mappings.iter().filter(|(_, mapping)| mapping.phase == Phase::Lost);
        assert_eq!(lost.count(), self.lost);
        assert!(self.untold.iter().all(|id| self.mapping_of(*id).is_some()));
        assert!(self.mappings.len() <= self.limit);
        assert!(self.queued <= QUEUE_BYTES);
    }
}

impl Queue {
    fn bytes(&self) -> usize {
        self.packets.iter().map(|(packet, _)| packet.len()).sum()
    }
}

impl Proxy {
    /// The tunnel to a target of this node's, for connections of that IP version.
    fn tunnel_to(&self, target: IpAddr) -> Option<Tunnel> {
        let balancer = self.config.migration.tunnel_of(IpVersion::of(target))?;
        Some(Tunnel { balancer, target })
    }

    /// What is due.
    pub(crate) fn expire_migrations(&mut self, now: Time) {
        let mut slots = Vec::new();
        self.migrations.timers.expire(now, &mut slots);
        for slot in slots {
            self.mapping_expired(now, slot);
        }
        self.probe_agents(now);
    }
}

fn balancer(node: NodeId) -> Balancer {
    match node {
        NodeId::A => Balancer::A,
        NodeId::B => Balancer::B,
    }
}
