//! A connection moves: PREPARE, the decision at the standby, COMMIT; and how it ends.

use std::time::Duration;

use outlive_migration::{
    id::{Epoch, MigrationId},
    message::{HowEnded, Message, Refusal},
};
use outlive_tcp::{
    fault::{self, Fault},
    time::Time,
    wire::{Endpoint, IpVersion, Offload, TcpPacket},
};

use super::{
    COMMIT_PATIENCE, Mapping, MappingRecord, Phase, Place, Queue, Transfer, UNTOLD_PATIENCE,
    capture, fast_path::Delegated,
};
use crate::{
    balance::ServerId,
    counters::Counter,
    opening::Meeting,
    proxy::{Leaving, Proxy, Release},
    replication::change::Change,
    session::Seconds,
};

impl Proxy {
    // ── before the decision

    /// Begins to move the connection in `slot` to `server`. False if that has no agent that can be reached: it may still be proxied
    /// there.
    pub(crate) fn begin_transfer(&mut self, now: Time, slot: usize, server: ServerId) -> bool {
        let opening = &self.openings[slot];
        let version = IpVersion::of(opening.tuple.source.addr);
        let address = self.pools.address(server);
        let Some(agent) = self.config.migration.agent_of(address) else { return false };
        let control = agent.control;
        let Some(target) = agent.tunnel_of(version) else { return false };
        let Some(tunnel) = self.tunnel_to(target) else { return false };
        let migrations = &mut self.migrations;
        let tellable = migrations.standby_understands || self.posture.release == Release::Now;
        let room = migrations.by_id.len() < migrations.limit;
        let settled = self.posture.leaving != Leaving::No;
        if !migrations.agents.is_ready(control, target) || !tellable || !room || settled {
            return false;
        }
        let by_flow = &migrations.by_flow;
        let Some(flow) = migrations.flows.next(|flow| by_flow.contains_key(&flow)) else {
            return false;
        };
        let clock_us = self.clock.micros(now);
        let id = migrations.next_id(self.config.node, clock_us);
        let queue = Queue::default();
        let transfer = Transfer { id, flow, server, agent: control, tunnel, queue };
        let Some(blob) = self.capture(now, slot, &transfer) else { return false };
        let patience = self.openings[slot]
            .pool
            .map_or(Duration::ZERO, |p| self.pools.config(p).connect_timeout);
        let migrations = &mut self.migrations;
        migrations.enter(id, flow, control, Place::Opening(slot));
        let epoch = migrations.epoch;
        migrations.agents.say(control, &Message::Prepare { epoch, id, blob });
        self.pools.session_began(server);
        self.openings[slot].transfer = Some(Box::new(transfer));
        self.openings.set_timer(slot, now + patience);
        self.counters.count(Counter::MigrationsBegun);
        true
    }

    /// The opening does not go to that target: nothing will have happened there.
    pub(crate) fn give_up_transfer(&mut self, transfer: &Transfer) {
        let migrations = &mut self.migrations;
        let (epoch, id) = (migrations.epoch, transfer.id);
        migrations.agents.say(transfer.agent, &Message::Abort { epoch, id });
        self.transfer_over(transfer);
    }

    fn transfer_over(&mut self, transfer: &Transfer) {
        let migrations = &mut self.migrations;
        migrations.leave(transfer.id, transfer.flow, transfer.agent);
        migrations.queued -= transfer.queue.bytes();
        self.pools.session_ended(transfer.server);
    }

    /// The target refuses, or does not answer: the next one, or a splice. Whatever the client has said meanwhile goes along.
    pub(crate) fn transfer_failed(&mut self, now: Time, slot: usize, why: Counter) {
        let Some(transfer) = self.openings[slot].transfer.take() else { return };
        self.counters.count(why);
        if why == Counter::MigrationTimeout
            && let Some(pool) = self.openings[slot].pool
        {
            self.pools.failed(transfer.server, pool, now);
        }
        self.give_up_transfer(&transfer);
        for (mut bytes, offload) in transfer.queue.packets {
            let end = bytes.len();
            if let Ok(packet) = TcpPacket::parse(&mut bytes, 0, end, offload) {
                self.take_data(slot, &packet);
            }
        }
        self.try_server(now, slot);
    }

    /// The target has the connection, mute. From here on it is decided, as soon as the standby knows.
    pub(super) fn prepared(&mut self, now: Time, id: MigrationId) {
        let Some(Place::Opening(slot)) = self.migrations.by_id.get(&id).copied() else { return };
        if !self.decides() {
            return;
        }
        let Some(mut transfer) = self.openings[slot].transfer.take() else { return };
        let (server, agent) = (transfer.server, transfer.agent);
        let mut queue = std::mem::take(&mut transfer.queue);
        self.transfer_over(&transfer);
        let Some(opening) = self.remove_opening(slot) else { return };
        let Meeting::Answered { iss, .. } = &opening.meeting else { return };
        let record = MappingRecord {
            ends: opening.tuple,
            server: self.pools.address(server),
            agent,
            tunnel: transfer.tunnel.target,
            flow: transfer.flow,
            id,
            irs: opening.irs,
            iss: *iss,
        };
        if let Some(fin) = capture::fin_of(&opening) {
            queue.packets.push_front((fin, Offload::default()));
        }
        self.pools.session_began(server);
        self.pools.is_up(server);
        self.migrations.queued += queue.bytes();
        let slot = self.migrations.insert(Mapping {
            record,
            phase: Phase::Deciding,
            server,
            last_seen: Seconds::of(now),
            since: now,
            queue,
            delegated: Delegated::default(),
            picture: 0,
        });
        self.migrations.untold.insert(id);
        let replicated = !fault::on(Fault::MappingNotReplicated);
        let migrated = Change::Migrated { record: &record };
        let change = self.journal.append(if replicated { &migrated } else { &Change::Nothing });
        let at_once = fault::on(Fault::CommitBeforeConfirmation);
        if self.posture.release == Release::Now || at_once {
            self.commit(now, slot);
        } else {
            self.migrations.awaiting.push_back((change, now, id));
        }
    }

    // ── the decision

    /// The standby holds everything up to change `number`; or, without a number, there is none, and this node may go on.
    pub(crate) fn decisions_confirmed(&mut self, now: Time, number: Option<u64>) {
        let known = |change: u64| number.is_none_or(|number| change <= number);
        while let Some((_, _, id)) =
            self.migrations.awaiting.pop_front_if(|(change, ..)| known(*change))
        {
            if let Some(slot) = self.migrations.mapping_of(id) {
                self.commit(now, slot);
            }
        }
        while let Some((_, control, id)) =
            self.migrations.ending.pop_front_if(|(change, ..)| known(*change))
        {
            self.say_gone(control, id);
        }
    }

    /// This node serves no longer. What it has decided and nobody has confirmed is the other node's to decide.
    pub(crate) fn abandon_decisions(&mut self, now: Time) {
        // Whoever serves next is told of these ends again.
        self.migrations.ending.clear();
        for (_, _, id) in std::mem::take(&mut self.migrations.awaiting) {
            if let Some(slot) = self.migrations.mapping_of(id) {
                // No word to the target: the other node may know the decision, and carry it out.
                self.remove_mapping(now, slot);
            }
        }
    }

    /// The target was not told to speak, and is not to be any more: the client has given up, or the target has lost the connection. If the
    /// client lives it says again what it has said, for nobody has acknowledged it.
    pub(super) fn undo(&mut self, now: Time, slot: usize) {
        let MappingRecord { id, agent, ends, .. } = self.remove_mapping(now, slot).record;
        let migrations = &mut self.migrations;
        migrations.awaiting.retain(|(_, _, awaiting)| *awaiting != id);
        let epoch = migrations.epoch;
        migrations.agents.say(agent, &Message::Abort { epoch, id });
        let client = ends;
        self.journal.append(&if self.migrations.standby_undoes {
            Change::MigrationUndone { client }
        } else {
            Change::MigrationEnded { client }
        });
    }

    // ── after the decision

    fn commit(&mut self, now: Time, slot: usize) {
        let mapping = &mut self.migrations.mappings[slot];
        if mapping.phase != Phase::Deciding {
            return;
        }
        (mapping.phase, mapping.since) = (Phase::Committing, now);
        self.say_commit(slot);
        let untold = self.is_untold(slot);
        let patience = if untold { UNTOLD_PATIENCE } else { COMMIT_PATIENCE };
        self.migrations.timers.set(slot, now + patience);
    }

    /// The target has certainly not been told to speak.
    fn is_untold(&self, slot: usize) -> bool {
        self.migrations.untold.contains(&self.migrations.mappings[slot].record.id)
    }

    /// A decision was made, and its target is not told.
    pub(crate) fn has_untold_targets(&self) -> bool {
        !self.migrations.untold.is_empty()
    }

    /// Takes back what no target was told: it can go elsewhere. Only what an agent has, if one is named: another process of it answers than
    /// that which has prepared the connections.
    pub(crate) fn undo_untold(&mut self, now: Time, control: Option<Endpoint>) {
        if fault::on(Fault::UntoldNotUndone) {
            return;
        }
        for id in self.migrations.untold.clone() {
            let Some(slot) = self.migrations.mapping_of(id) else { continue };
            let agent = self.migrations.mappings[slot].record.agent;
            if control.is_none_or(|control| control == agent) {
                self.counters.count(Counter::MigrationTimeout);
                self.undo(now, slot);
            }
        }
    }

    pub(super) fn say_commit(&mut self, slot: usize) {
        let record = &self.migrations.mappings[slot].record;
        let (epoch, agent) = (self.migrations.epoch, record.agent);
        let message =
            Message::Commit { epoch, id: record.id, flow: record.flow, ends: record.ends };
        let id = record.id;
        if self.migrations.agents.say(agent, &message) {
            self.migrations.untold.remove(&id);
        }
    }

    /// The target speaks. What has waited goes to it as if it came now.
    pub(super) fn committed(&mut self, now: Time, id: MigrationId) {
        let Some(slot) = self.migrations.mapping_of(id) else { return };
        if !self.decides() || self.migrations.mappings[slot].phase != Phase::Committing {
            return;
        }
        let mapping = &mut self.migrations.mappings[slot];
        mapping.phase = Phase::Migrated;
        let (client, queue) = (mapping.record.ends, std::mem::take(&mut mapping.queue));
        self.migrations.queued -= queue.bytes();
        self.journal.append(&Change::MigrationCommitted { client });
        self.counters.count(Counter::MigrationsCompleted);
        for (packet, offload) in queue.packets {
            if !self.arrived.push(now, packet, offload) {
                self.counters.count(Counter::DropMigrating);
            }
        }
        self.arm_mapping(now, slot);
    }

    /// A target says no.
    pub(super) fn refused(&mut self, now: Time, epoch: Epoch, id: MigrationId, reason: Refusal) {
        if !self.decides() {
            return;
        }
        match self.migrations.by_id.get(&id).copied() {
            Some(Place::Opening(slot)) => {
                self.transfer_failed(now, slot, Counter::MigrationRefused);
            }
            Some(Place::Mapping(slot)) if reason != Refusal::StaleEpoch => {
                self.mapping_lost(now, slot);
            }
            // Asked before the present epoch began.
            Some(Place::Mapping(slot)) if epoch < self.migrations.epoch => self.say_commit(slot),
            // This node was succeeded, and whoever succeeded it asks.
            Some(Place::Mapping(_)) | None => {}
        }
    }

    /// A target says that a connection is over.
    pub(super) fn migrated_ended(
        &mut self,
        now: Time,
        control: Endpoint,
        id: MigrationId,
        how: HowEnded,
    ) {
        if !self.decides() {
            return;
        }
        let slot = self.migrations.mapping_of(id);
        if let Some(slot) = slot.filter(|_| !fault::on(Fault::MappingLeaked)) {
            let how = match how {
                HowEnded::Closed => Some(Counter::MigratedFinished),
                HowEnded::Reset => Some(Counter::MigratedReset),
                HowEnded::Idle => Some(Counter::MigratedIdle),
                HowEnded::Lost => None,
            };
            let change = match how {
                Some(how) => {
                    self.counters.count(how);
                    Some(self.forget_mapping(now, slot))
                }
                None => self.mapping_lost(now, slot),
            };
            let waits = self.posture.release != Release::Now;
            if let Some(change) = change.filter(|_| waits) {
                // A standby that does not know of it would keep the mapping, and nobody would tell it.
                self.migrations.ending.push_back((change, control, id));
            }
        }
        if !self.migrations.ending.iter().rev().any(|(.., ending)| *ending == id) {
            self.say_gone(control, id);
        }
    }

    fn say_gone(&mut self, control: Endpoint, id: MigrationId) {
        let epoch = self.migrations.epoch;
        self.migrations.agents.say(control, &Message::Gone { epoch, id });
    }

    /// Gives the change that tells the standby.
    fn forget_mapping(&mut self, now: Time, slot: usize) -> u64 {
        let client = self.migrations.mappings[slot].record.ends;
        let change = self.journal.append(&Change::MigrationEnded { client });
        self.drop_mapping(now, slot);
        change
    }

    /// Removes a mapping; its client's cookie is spent.
    pub(super) fn drop_mapping(&mut self, now: Time, slot: usize) {
        let mapping = self.remove_mapping(now, slot);
        self.spent.insert(now, &mapping.record.ends, mapping.record.irs);
    }

    pub(super) fn arm_mapping(&mut self, now: Time, slot: usize) {
        let mapping = &self.migrations.mappings[slot];
        let idle = mapping.last_seen.time() + self.idle_of(mapping.record.ends.destination);
        self.migrations.timers.set(slot, idle.max(now + Duration::from_secs(1)));
    }

    fn idle_of(&self, listener: Endpoint) -> Duration {
        const DEFAULT: Duration = Duration::from_secs(3 * 3_600);
        let listener = self.listener_at(listener).and_then(|index| self.listener(index));
        listener.map_or(DEFAULT, |listener| listener.idle_timeout)
    }

    pub(super) fn mapping_expired(&mut self, now: Time, slot: usize) {
        if !self.migrations.mappings.contains(slot) {
            return;
        }
        let untold = self.is_untold(slot);
        let heard = self.mapping_heard(now, slot);
        let mapping = &self.migrations.mappings[slot];
        let idle = heard + self.idle_of(mapping.record.ends.destination);
        match mapping.phase {
            Phase::Lost => self.ask_lost_client(now, slot),
            // The active node decides how long a mapping lives.
            _ if !self.decides() => self.arm_mapping(now, slot),
            Phase::Committing if now >= mapping.since + COMMIT_PATIENCE => {
                self.mapping_lost(now, slot);
            }
            Phase::Committing
                if untold
                    && !fault::on(Fault::UntoldNotUndone)
                    && now >= mapping.since + UNTOLD_PATIENCE =>
            {
                self.counters.count(Counter::MigrationTimeout);
                self.undo(now, slot);
            }
            Phase::Migrated if now >= idle => {
                self.counters.count(Counter::MigratedIdle);
                self.forget_mapping(now, slot);
            }
            Phase::Committing => {
                let until = mapping.since + COMMIT_PATIENCE;
                self.migrations.timers.set(slot, until);
            }
            Phase::Deciding | Phase::Migrated => self.arm_mapping(now, slot),
        }
    }
}
