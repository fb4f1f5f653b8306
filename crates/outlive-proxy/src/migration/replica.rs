//! What the standby does, and the walk over all mappings for a new one.

use outlive_tcp::{time::Time, wire::FourTuple};

use super::{Mapping, MappingRecord, Phase, Queue, fast_path::Delegated};
use crate::{
    counters::Counter, flows::Flow, proxy::Proxy, replication::change::Change, session::Seconds,
};

impl Proxy {
    /// Appends mappings from `slot` on until `out` is longer than `end`; returns where to go on, or `None` at the end.
    pub(crate) fn snapshot_mappings(
        &self,
        slot: usize,
        end: usize,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        for slot in slot..self.migrations.mappings.capacity() {
            let Some(mapping) = self.migrations.mappings.get(slot) else { continue };
            if mapping.phase == Phase::Lost {
                continue;
            }
            if out.len() > end {
                return Some(slot);
            }
            Change::Migrated { record: &mapping.record }.encode(out);
            if mapping.phase == Phase::Migrated {
                Change::MigrationCommitted { client: mapping.record.ends }.encode(out);
            }
        }
        None
    }

    /// The active node has decided to move a connection. Whether it has told the target is not known.
    pub(crate) fn adopt_migrated(&mut self, now: Time, record: &MappingRecord, picture: u8) {
        let record = *record;
        // Whatever stands in its way is a session of which the end was not told.
        if let Some(Flow::Session(slot, _)) = self.find(&record.ends) {
            self.forget_session(now, slot);
        }
        let same = [
            self.migrations.find(&record.ends),
            self.migrations.mapping_of(record.id),
            match self.migrations.by_flow.get(&record.flow) {
                Some(super::Place::Mapping(slot)) => Some(*slot),
                _ => None,
            },
        ];
        for slot in same.into_iter().flatten() {
            if self.migrations.mappings.contains(slot) {
                self.remove_mapping(now, slot);
            }
        }
        if self.migrations.by_id.len() >= self.migrations.limit {
            self.counters.count(Counter::DropTableFull);
            return;
        }
        let server = self.pools.intern(record.server);
        self.pools.session_began(server);
        let slot = self.migrations.insert(Mapping {
            record,
            phase: Phase::Committing,
            server,
            last_seen: Seconds::of(now),
            since: now,
            queue: Queue::default(),
            delegated: Delegated::default(),
            picture,
        });
        self.arm_mapping(now, slot);
    }

    /// The target speaks.
    pub(crate) fn adopt_committed(&mut self, client: &FourTuple) {
        if let Some(slot) = self.migrations.find(client) {
            self.migrations.mappings[slot].phase = Phase::Migrated;
        }
    }

    /// It is over.
    pub(crate) fn adopt_migration_end(&mut self, now: Time, client: &FourTuple) {
        if let Some(slot) = self.migrations.find(client) {
            self.drop_mapping(now, slot);
        }
    }

    /// It does not migrate after all. Its client's cookie is as good as before.
    pub(crate) fn adopt_migration_undone(&mut self, now: Time, client: &FourTuple) {
        if let Some(slot) = self.migrations.find(client) {
            self.remove_mapping(now, slot);
        }
    }

    /// A synchronisation is complete: what it did not contain does not exist any more.
    pub(crate) fn complete_mappings(&mut self, now: Time, picture: u8) {
        let gone: Vec<usize> = (self.migrations.mappings.iter())
            .filter(|(_, mapping)| mapping.picture != picture)
            .map(|(slot, _)| slot)
            .collect();
        for slot in gone {
            self.drop_mapping(now, slot);
        }
    }
}
