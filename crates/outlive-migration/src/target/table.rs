//! The migrations that a target knows: live ones, and those that are over and are remembered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use outlive_tcp::{time::Time, wire::FourTuple};

use crate::{
    flow::FlowId,
    id::{Balancer, Epoch, MigrationId},
    message::{HowEnded, Refusal},
};

/// A migration.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) flow: FlowId,
    pub(super) ends: FourTuple,
    pub(super) phase: Phase,
}

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// The agent is at it.
    Infusing {
        asked_by: Balancer,
        asked_in: Epoch,
        /// COMMIT has come already.
        commit: Option<(Balancer, Epoch)>,
    },
    /// Infused and mute, until then.
    Waiting { deadline: Time },
    /// The agent looks whether it lives.
    Adopting { asked_by: Balancer, asked_in: Epoch },
    /// It speaks.
    Committed,
    /// It is not there any more.
    Over(Over),
}

/// How it came to be over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Over {
    Aborted,
    Expired,
    Refused(Refusal),
    Ended(HowEnded),
}

impl Phase {
    /// It has not spoken, and can be removed without a trace.
    pub(super) fn is_mute(self) -> bool {
        matches!(self, Phase::Infusing { commit: None, .. } | Phase::Waiting { .. })
    }
}

/// All of them, bounded.
///
/// Live are those that have a connection here, and those that ended without a confirmation. The others are remembered as long as there
/// is room; what was forgotten is known to be old by its number.
#[derive(Debug)]
pub(super) struct Table {
    entries: BTreeMap<MigrationId, Entry>,
    flows: BTreeMap<FlowId, MigrationId>,
    ends: BTreeMap<FourTuple, MigrationId>,
    deadlines: BTreeSet<(Time, MigrationId)>,
    /// Ended, and nobody has said GONE.
    unconfirmed: BTreeSet<MigrationId>,
    /// Over, in the order in which they came to be; the others are not in it.
    remembered: VecDeque<MigrationId>,
    /// Of each node: the highest number that was forgotten.
    floor: [Option<MigrationId>; 2],
    committed: usize,
    live_limit: usize,
    remembered_limit: usize,
}

impl Table {
    pub(super) fn new(live_limit: usize, remembered_limit: usize) -> Self {
        Table {
            entries: BTreeMap::new(),
            flows: BTreeMap::new(),
            ends: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            unconfirmed: BTreeSet::new(),
            remembered: VecDeque::new(),
            floor: [None; 2],
            committed: 0,
            live_limit,
            remembered_limit,
        }
    }

    pub(super) fn get(&self, id: MigrationId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    /// For changes within a phase; others go through the methods below.
    pub(super) fn get_mut(&mut self, id: MigrationId) -> Option<&mut Entry> {
        self.entries.get_mut(&id)
    }

    /// The live connection with these ends.
    pub(super) fn by_ends(&self, ends: &FourTuple) -> Option<MigrationId> {
        self.ends.get(ends).copied()
    }

    /// The live connection with this flow identifier, or the one that had it and whose end is not confirmed.
    pub(super) fn by_flow(&self, flow: FlowId) -> Option<MigrationId> {
        self.flows.get(&flow).copied()
    }

    pub(super) fn is_live(&self, id: MigrationId) -> bool {
        self.get(id).is_some_and(|entry| !matches!(entry.phase, Phase::Over(_)))
    }

    /// Whether nothing more is known of `id` because it is too old.
    pub(super) fn forgot(&self, id: MigrationId) -> bool {
        self.floor[id.maker().index()].is_some_and(|floor| id <= floor)
    }

    pub(super) fn is_full(&self) -> bool {
        self.flows.len() >= self.live_limit
    }

    pub(super) fn committed(&self) -> usize {
        self.committed
    }

    /// Being infused, waiting, or being looked for.
    pub(super) fn waiting(&self) -> usize {
        self.ends.len() - self.committed
    }

    /// Enters a migration whose flow and ends are free.
    pub(super) fn insert(&mut self, id: MigrationId, entry: Entry) {
        let flow = self.flows.insert(entry.flow, id);
        let ends = self.ends.insert(entry.ends, id);
        let before = self.entries.insert(id, entry);
        debug_assert!(flow.is_none() && ends.is_none() && before.is_none());
        self.check();
    }

    /// It is infused, and waits for COMMIT until `deadline`.
    pub(super) fn wait(&mut self, id: MigrationId, deadline: Time) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if let Phase::Waiting { deadline } = entry.phase {
            self.deadlines.remove(&(deadline, id));
        }
        entry.phase = Phase::Waiting { deadline };
        self.deadlines.insert((deadline, id));
        self.check();
    }

    /// It speaks.
    pub(super) fn commit(&mut self, id: MigrationId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if let Phase::Waiting { deadline } = entry.phase {
            self.deadlines.remove(&(deadline, id));
        }
        entry.phase = Phase::Committed;
        self.committed += 1;
        self.check();
    }

    /// It is not there any more.
    pub(super) fn over(&mut self, id: MigrationId, how: Over) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        match entry.phase {
            Phase::Waiting { deadline } => {
                self.deadlines.remove(&(deadline, id));
            }
            Phase::Committed => self.committed -= 1,
            _ => {}
        }
        entry.phase = Phase::Over(how);
        self.ends.remove(&entry.ends);
        if matches!(how, Over::Ended(_)) {
            // The balancer may still send packets of it.
            self.unconfirmed.insert(id);
        } else {
            self.flows.remove(&entry.flow);
            self.keep(id);
        }
        self.check();
    }

    /// Remembers that a migration that was never heard of is over.
    pub(super) fn remember(&mut self, id: MigrationId, how: Over) {
        const ANY: FlowId = FlowId::new(0x0001_0001).expect("neither half is zero");
        let nobody = outlive_tcp::wire::Endpoint::new(std::net::Ipv4Addr::UNSPECIFIED.into(), 0);
        let ends = FourTuple::new(nobody, nobody);
        self.entries.insert(id, Entry { flow: ANY, ends, phase: Phase::Over(how) });
        self.keep(id);
        self.check();
    }

    /// The balancer knows that it has ended.
    pub(super) fn gone(&mut self, id: MigrationId) {
        if self.unconfirmed.remove(&id) {
            if let Some(entry) = self.entries.get(&id) {
                self.flows.remove(&entry.flow);
            }
            self.keep(id);
            self.check();
        }
    }

    /// Those that ended and nobody has confirmed.
    pub(super) fn unconfirmed(&self) -> Vec<MigrationId> {
        self.unconfirmed.iter().copied().collect()
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// One that has waited for too long.
    pub(super) fn expired(&self, now: Time) -> Option<MigrationId> {
        self.deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, id)| *id)
    }

    /// Keeps one that is over in memory, at the expense of the oldest.
    fn keep(&mut self, id: MigrationId) {
        self.remembered.push_back(id);
        while self.remembered.len() > self.remembered_limit {
            let Some(oldest) = self.remembered.pop_front() else { return };
            self.entries.remove(&oldest);
            let floor = &mut self.floor[oldest.maker().index()];
            *floor = (*floor).max(Some(oldest));
        }
    }

    fn check(&self) {
        debug_assert_eq!(self.flows.len(), self.ends.len() + self.unconfirmed.len());
        debug_assert_eq!(self.entries.len(), self.flows.len() + self.remembered.len());
        debug_assert!(self.remembered.len() <= self.remembered_limit);
        debug_assert!(self.deadlines.len() + self.committed <= self.ends.len());
    }
}
