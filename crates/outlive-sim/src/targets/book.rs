//! What was said about each migration, and the rules.
//!
//! What nodes and agents say to each other is read here; nobody is asked what they believe.

use std::{collections::BTreeMap, net::IpAddr};

use outlive_migration::{
    blob::Blob,
    flow::FlowId,
    id::MigrationId,
    message::{Message, Refusal},
};
use outlive_tcp::{
    seq::Seq,
    wire::{Flags, FourTuple},
};

use crate::{
    content, ledger::Rule, network::NodeIndex, packet::Seen, pair::sender_of,
    records::ConnectionName, world::World,
};

/// Everything known.
#[derive(Debug, Default)]
pub(crate) struct Book {
    migrations: BTreeMap<MigrationId, Migration>,
    /// By the client's connection: which migration was told to speak.
    decided: BTreeMap<ConnectionName, MigrationId>,
    /// Longer packets do not come through from targets to clients.
    pub(super) path_mtu: Option<u16>,
}

/// A migration.
#[derive(Debug)]
pub(super) struct Migration {
    flow: FlowId,
    pub(super) ends: FourTuple,
    irs: Seq,
    pub(super) target: usize,
    /// Whichever process of its agent's has it.
    infused_by: Option<u32>,
    asked_by: (NodeIndex, u32),
    /// Whoever was the first to say COMMIT.
    decided_by: Option<(NodeIndex, u32)>,
    /// Whichever process of the agent's let it speak.
    pub(super) spoken: Option<u32>,
    /// It was refused, taken back, or has ended.
    over: bool,
    /// The right edge that the client was shown, the scale in which it is, and the latest timestamp.
    edge: Seq,
    scale: u8,
    stamp: Option<u32>,
}

impl Migration {
    pub(super) fn is_of(&self, client: FourTuple) -> bool {
        self.ends == client
    }

    fn name(&self) -> ConnectionName {
        (self.ends, self.irs.0)
    }
}

impl Book {
    /// About what a client says next in this flow.
    pub(super) fn next_of(&self, flow: FlowId) -> u32 {
        let mut of_flow = self.migrations.values().filter(|it| it.flow == flow);
        of_flow.next().map_or(0, |it| it.irs.0.wrapping_add(200))
    }

    pub(super) fn decided(&self) -> impl Iterator<Item = (&MigrationId, &Migration)> {
        self.migrations.iter().filter(|(_, it)| it.decided_by.is_some() && !it.over)
    }

    /// Prepared or being prepared, and nobody has said COMMIT.
    pub(super) fn undecided(&self) -> impl Iterator<Item = &Migration> {
        self.migrations.values().filter(|it| it.decided_by.is_none() && !it.over)
    }

    fn decision(&self, name: &ConnectionName) -> Option<&Migration> {
        self.migrations.get(self.decided.get(name)?)
    }
}

impl World {
    /// Something that the client of this tuple said has had an effect.
    pub(crate) fn is_served(&self, client: FourTuple) -> bool {
        let decided = self.wire.session_of(client);
        self.wire.server_of(client).is_some()
            || decided.is_some_and(|name| self.book.decided.contains_key(&name))
    }

    /// Whether this process of `node` has told a target to go on with the connection of that client.
    pub(crate) fn decided(&self, node: NodeIndex, client: FourTuple) -> bool {
        let process = self.machines[node].as_ref().map(|m| (node, m.incarnation));
        let decision = self.wire.session_of(client).and_then(|name| self.book.decision(&name));
        process.is_some() && decision.is_some_and(|it| it.decided_by == process)
    }

    /// Whether an earlier connection from this client's port is with a target that is dead: as long as nobody says that it has ended, a new one
    /// has to wait. Or whether a node was succeeded between the decision and COMMIT, and the target is dead: the next node has to believe that
    /// it was told.
    pub(crate) fn waits_for_dead_target(&self, client: FourTuple) -> bool {
        let waits = |it: &Migration| it.ends == client && self.targets[it.target].is_dead();
        let succeeded = self.takeovers > 1 && self.book.undecided().any(waits);
        succeeded || self.book.decided().any(|(_, it)| waits(it))
    }

    // ── what nodes say

    /// A node says something to an agent.
    pub(super) fn check_said(&mut self, node: NodeIndex, target: usize, message: &Message) {
        match message {
            Message::Prepare { id, blob, .. } => match Blob::decode(blob) {
                Ok(blob) => self.check_prepare(node, target, *id, &blob),
                Err(why) => {
                    let detail = format!("node {node} sends a state that cannot be read: {why}");
                    self.ledger.violate(Rule::StateConnection, detail);
                }
            },
            Message::Commit { id, flow, ends, .. } => {
                self.check_commit(node, target, *id, *flow, *ends);
            }
            Message::Abort { id, .. } => {
                let Some(migration) = self.book.migrations.get_mut(id) else { return };
                migration.over = true;
                if migration.decided_by.is_some() {
                    let detail = format!("node {node} takes {id:?} back, which may speak");
                    self.ledger.violate(Rule::Mute, detail);
                }
            }
            _ => {}
        }
    }

    fn check_prepare(&mut self, node: NodeIndex, target: usize, id: MigrationId, blob: &Blob) {
        let (ends, irs, flow) = (blob.ends, blob.tcp.irs, blob.mapping.flow);
        if let Some(of) = self.wire.flow_at(ends, irs) {
            let preamble = &self.ledger.flows[of.0].preamble;
            let said = |at| content::client_byte(of, preamble, at);
            let wrong = (0..blob.data.len()).find(|at| blob.data[*at] != said(*at));
            if wrong.is_some() || blob.data.len() as i64 > self.wire.said_by(ends) {
                let detail = format!("node {node} moves what {ends} has not said, at {wrong:?}");
                self.ledger.violate(Rule::Payload, detail);
            }
        }
        let alive = |it: &&Migration| it.flow == flow && !it.over && it.name() != (ends, irs.0);
        if let Some(other) = self.book.migrations.values().find(|it| alive(it)) {
            let detail = format!("{flow} is of {} and of {ends}", other.ends);
            self.ledger.violate(Rule::Tunnel, detail);
        }
        if self.retries_after_refusal(ends, irs) {
            self.situations.insert("migrated elsewhere after a refusal");
        }
        let incarnation = self.machine(node).incarnation;
        self.book.migrations.entry(id).or_insert(Migration {
            flow,
            ends,
            irs,
            target,
            infused_by: None,
            asked_by: (node, incarnation),
            decided_by: None,
            spoken: None,
            over: false,
            edge: blob.tcp.rcv_acked + blob.tcp.rcv_wnd,
            scale: blob.tcp.scales.map_or(0, |scales| scales.rcv),
            stamp: blob.tcp.timestamps.map(|it| it.echoed),
        });
    }

    fn retries_after_refusal(&self, ends: FourTuple, irs: Seq) -> bool {
        let refused = |it: &Migration| it.over && it.name() == (ends, irs.0);
        self.book.migrations.values().any(refused)
    }

    fn check_commit(
        &mut self,
        node: NodeIndex,
        target: usize,
        id: MigrationId,
        flow: FlowId,
        ends: FourTuple,
    ) {
        let Some(migration) = self.book.migrations.get(&id) else {
            let detail = format!("node {node} commits {id:?}, which nobody has prepared");
            return self.ledger.violate(Rule::Mute, detail);
        };
        if (migration.target, migration.flow, migration.ends) != (target, flow, ends) {
            let detail = format!("node {node} commits {id:?} at target {target}: {migration:?}");
            self.ledger.violate(Rule::AtMostOnce, detail);
            return;
        }
        let name = migration.name();
        let again = migration.decided_by.is_some();
        let sender = sender_of(&self.machines, self.now, node, false);
        let (held, own) = (sender.held.is_none_or(|held| held.contains(&name)), sender.own);
        let (incarnation, apart, told) = (sender.incarnation, sender.apart, own.contains(&name));
        if !held {
            let detail = format!("{id:?} is to speak, and the standby knows nothing");
            self.ledger.violate(Rule::RecordBeforeEffect, detail);
        }
        if again && migration.decided_by != Some((node, incarnation)) {
            self.situations.insert("asked again by another node");
        }
        let other = self.book.decision(&name).filter(|_| self.book.decided[&name] != id);
        let by_other = other.and_then(|it| it.decided_by).is_some_and(|(by, _)| by != node);
        let elsewhere = other.is_some();
        self.book.decided.entry(name).or_insert(id);
        let migration = self.book.migrations.get_mut(&id).expect("it was looked up above");
        migration.decided_by.get_or_insert((node, incarnation));
        let migration_spoke = migration.spoken.is_some();
        let (infused_by, incarnation) = (migration.infused_by, self.targets[target].incarnation);
        let lives = self.targets[target].setup.keeps && migration_spoke;
        let gone = infused_by != Some(incarnation) || self.targets[target].is_dead();
        if gone && !lives {
            // Nobody knows yet that the target has lost it; from now on only this one is asked.
            self.exempt(|_, client| client == ends);
        }
        let Some(of) = self.wire.flow_at(ends, Seq(name.1)) else { return };
        let spliced = self.wire.was_told(of);
        let by_one_apart =
            self.wire.migrated.get(&of).is_some_and(|(by, apart)| *by != node && *apart);
        let could_not_know = apart || by_one_apart || self.wire.was_told_apart(of, node);
        self.wire.migrated.entry(of).or_insert((node, apart));
        let flow = &mut self.ledger.flows[of.0];
        if !elsewhere && !spliced || flow.exempt && self.wire.both_acted {
            return;
        }
        if could_not_know && !told && (by_other || spliced) {
            // Neither can know of the other; see `Wire::could_not_know`.
            (flow.exempt, flow.opened_twice) = (true, true);
            self.situations.insert("opened by both nodes");
            return;
        }
        let how = if spliced { "spliced" } else { "migrated" };
        let detail = format!("flow {} was {how}, and target {target} is to answer it", of.0);
        self.ledger.violate(Rule::AtMostOnce, detail);
    }

    /// A node sends a packet into a tunnel.
    pub(super) fn check_tunnelled(
        &mut self,
        node: NodeIndex,
        target: usize,
        source: IpAddr,
        packet: &[u8],
    ) {
        let own = &self.setup.configs[node].migration.tunnel;
        if !own.contains(&source) {
            let detail = format!("node {node} sends through a tunnel as {source}");
            self.ledger.violate(Rule::Tunnel, detail);
        }
        let Some(seen) = Seen::of(&mut packet.to_vec()) else { return };
        self.trace(|| format!("node {node} -> target {target}: {seen}"));
        self.check_doubt(node, &seen);
        if !seen.checksum_ok {
            self.ledger.violate(Rule::WellFormed, format!("wrong checksum: {seen}"));
        }
        let (upper, lower) = (seen.tuple.source.port, seen.tuple.destination.port);
        let flow = FlowId::from_ports(upper, lower);
        let speaks = |it: &Migration| {
            Some(it.flow) == flow && it.target == target && it.decided_by.is_some()
        };
        // A probe says nothing to anybody but the agent.
        let is_probe = seen.seq == Seq(1) && seen.window == 1;
        let known = is_probe || self.book.migrations.values().any(speaks);
        if !known {
            let detail = format!("node {node} leads {seen} to target {target}, which has no such");
            self.ledger.violate(Rule::Tunnel, detail);
        }
    }

    // ── what agents say

    /// A node hears an answer.
    pub(super) fn note_answer(&mut self, node: NodeIndex, message: &Message) {
        match message {
            Message::Refused { id, reason, .. } => {
                let Some(migration) = self.book.migrations.get_mut(id) else { return };
                if migration.decided_by.is_none() && *reason != Refusal::StaleEpoch {
                    migration.over = true;
                }
            }
            Message::Ended { id, .. } => {
                self.note_over(*id);
                self.situations.insert("a migrated connection has ended");
            }
            Message::Prepared { id, .. } => {
                let known = self.book.migrations.get(id);
                let own = known.is_some_and(|it| it.asked_by.0 == node);
                self.situations.extend((!own).then_some("prepared for another node"));
            }
            _ => {}
        }
    }

    pub(super) fn note_infused(&mut self, target: usize, id: MigrationId) {
        let incarnation = self.targets[target].incarnation;
        if let Some(migration) = self.book.migrations.get_mut(&id) {
            migration.infused_by = Some(incarnation);
        }
    }

    pub(super) fn note_over(&mut self, id: MigrationId) {
        if let Some(migration) = self.book.migrations.get_mut(&id) {
            migration.over = true;
        }
    }

    /// An agent lets a connection speak.
    pub(super) fn check_speaks(&mut self, target: usize, id: MigrationId) {
        self.situations.insert("migrated");
        let incarnation = self.targets[target].incarnation;
        let Some(migration) = self.book.migrations.get_mut(&id) else { return };
        let before = migration.spoken.replace(incarnation);
        if migration.decided_by.is_none() {
            let detail = format!("target {target} lets {id:?} speak, and nobody has said COMMIT");
            self.ledger.violate(Rule::Mute, detail);
        } else if before.is_some() {
            let detail = format!("target {target} lets {id:?} speak once more");
            self.ledger.violate(Rule::AtMostOnce, detail);
        }
    }

    /// A target sends a packet to a client: what it was promised holds.
    pub(super) fn check_target_sends(&mut self, target: usize, seen: &Seen) {
        let client = seen.tuple.reversed();
        if !seen.checksum_ok {
            self.ledger.violate(Rule::WellFormed, format!("wrong checksum: {seen}"));
        }
        if let Some(limit) = self.wire.takes(client)
            && seen.len() > 0
        {
            let stamps = if seen.options.timestamps.is_some() { 12 } else { 0 };
            if seen.len() + stamps > usize::from(limit) {
                let detail = format!("{} bytes for a client that takes {limit}", seen.len());
                self.ledger.violate(Rule::SegmentSize, format!("{detail}: {seen}"));
            }
        }
        let speaks =
            |it: &&mut Migration| it.target == target && it.ends == client && it.spoken.is_some();
        let latest = self.book.migrations.values_mut().filter(|it| speaks(it)).last();
        let Some(migration) = latest else {
            let detail = format!("target {target} speaks without having been told to: {seen}");
            return self.ledger.violate(Rule::Mute, detail);
        };
        if seen.has(Flags::RST) {
            return;
        }
        if let Some(stamps) = seen.options.timestamps {
            let last = migration.stamp.replace(stamps.value).unwrap_or(stamps.value);
            if (stamps.value.wrapping_sub(last) as i32) < 0 {
                let detail = format!("timestamp {} after {last}: {seen}", stamps.value);
                self.ledger.violate(Rule::Clock, detail);
            }
        }
        let Some(ack) = seen.ack else { return };
        let edge = ack + (u32::from(seen.window) << migration.scale);
        let step = 1 << migration.scale;
        if edge.before(migration.edge) && migration.edge.distance(edge) >= step {
            let detail = format!("the right edge goes back by {}", migration.edge.distance(edge));
            self.ledger.violate(Rule::Window, format!("{detail}: {seen}"));
        }
        migration.edge = migration.edge.later(edge);
    }

    /// A node dies.
    pub(crate) fn note_death_in_migration(&mut self, node: NodeIndex) {
        let alive = |it: &&Migration| !it.over && it.asked_by.0 == node;
        let mut alive = self.book.migrations.values().filter(alive).peekable();
        let met = alive.peek().is_some();
        let undecided = alive.any(|it| it.spoken.is_none());
        self.situations.extend(undecided.then_some("a node died in the middle of a migration"));
        self.situations.extend(met.then_some("a node died that had migrated"));
    }

    /// Flows that were to be migrated, and went to a server.
    pub(crate) fn note_splices(&mut self) {
        let spliced = |it: &&Migration| {
            let flow = self.wire.flow_at(it.ends, it.irs);
            it.over && it.decided_by.is_none() && flow.is_some_and(|of| self.wire.was_told(of))
        };
        if self.book.migrations.values().any(|it| spliced(&it)) {
            self.situations.insert("spliced after a refusal");
        }
    }

    // ── in the end

    /// When every flow is finished and nothing was lost, nothing of them is left.
    pub(crate) fn check_target_leftovers(&mut self) {
        let lasting = |(_, fault): &(_, crate::setup::Fault)| !fault.is_harmless_to_mappings();
        let disturbed = self.crashed || self.setup.faults.iter().any(lasting);
        let done = |f: &crate::ledger::Flow| f.is_finished() || f.exempt;
        if self.targets.is_empty() || disturbed || !self.ledger.flows.iter().all(done) {
            return;
        }
        let nodes = self.machines.iter().flatten().map(|m| m.node.migrated()).sum::<usize>();
        let live = self.targets.iter().map(|t| t.target.committed() + t.target.waiting());
        let (live, mapped) = (live.sum::<usize>(), self.targets.iter().map(|t| t.mappings.len()));
        let mapped = mapped.sum::<usize>();
        if nodes + live + mapped > 0 {
            let detail = format!(
                "left: {nodes} mappings at nodes, {live} connections and {mapped} mappings at targets"
            );
            self.ledger.violate(Rule::Memory, detail);
        }
    }
}
