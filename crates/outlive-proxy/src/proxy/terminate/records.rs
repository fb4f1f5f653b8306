//! What the standby is told of terminated sessions, and what it holds.
//!
//! A record when one is opened; the end of each stream, before it is passed on; that the inserted bytes are acknowledged;
//! a position every 32 MiB; the end. Nothing for a byte: see `docs/terminate.md`.

use outlive_tcp::{
    fault::{self, Fault},
    seq::Seq,
    time::Time,
    wire::FourTuple,
};

use super::table::{Awaited, Awaiting, Entry, Stage};
use crate::{
    fast_path::PROGRESS_SHIFT,
    flows::{Flow, Side},
    proxy::{Proxy, Release},
    replication::change::{Change, ReceivedChange},
    session::{Phase, Seconds, Session, record::Record},
};

impl Proxy {
    // ── active node

    /// Tells the standby of a new session. Gives the number of the change.
    pub(super) fn tell_of_terminated(&mut self, slot: usize) -> u64 {
        if !self.terminated.understood {
            return self.journal.last();
        }
        let entry = &mut self.terminated[slot];
        entry.told = true;
        let change = Change::Joined { record: &entry.record, prefix: &entry.prefix };
        self.journal.append(&change)
    }

    pub(super) fn report_terminated(
        &mut self,
        slot: usize,
        change: impl FnOnce(FourTuple) -> Change<'static>,
    ) -> u64 {
        let entry = &self.terminated[slot];
        if entry.told {
            return self.journal.append(&change(entry.tuple(Side::Client)));
        }
        self.journal.last()
    }

    /// What comes of `change`, now or when the standby has confirmed it.
    pub(super) fn await_terminated(&mut self, now: Time, slot: usize, change: u64, what: Awaited) {
        let serial = self.terminated[slot].serial;
        let awaiting = Awaiting { change, slot, serial, since: now, what };
        if self.passes_at_once(slot) {
            self.terminated_released(now, awaiting);
        } else {
            self.terminated.awaiting.push_back(awaiting);
        }
    }

    /// Whether what the standby is told of that session need not be confirmed.
    pub(super) fn passes_at_once(&self, slot: usize) -> bool {
        let entry = &self.terminated[slot];
        let reused = |side| self.given_way.contains(&entry.tuple(side));
        let waits =
            self.protection(entry.listener).waits() || reused(Side::Client) || reused(Side::Server);
        let early = fault::on(Fault::TerminatedBeforeRecord);
        !entry.told || !waits || early || self.posture.release == Release::Now
    }

    fn terminated_released(&mut self, now: Time, awaiting: Awaiting) {
        let Awaiting { slot, serial, what, .. } = awaiting;
        let Some(entry) = self.terminated.get_mut(slot).filter(|e| e.serial == serial) else {
            return;
        };
        match what {
            Awaited::Opening => {
                entry.stage = match std::mem::replace(&mut entry.stage, Stage::Held) {
                    Stage::Unconfirmed(joined) => Stage::Live(joined),
                    stage => stage,
                };
            }
            Awaited::Ending(side) => {
                if let Some(joined) = entry.joined_mut() {
                    joined.pass_end(side);
                }
            }
        }
        self.advance_terminated(now, slot);
    }

    /// The standby holds everything up to change `number`.
    pub(crate) fn confirm_terminated(&mut self, now: Time, number: u64) {
        while let Some(awaiting) = self.terminated.awaiting.pop_front_if(|a| a.change <= number) {
            self.terminated_released(now, awaiting);
        }
    }

    /// There is no standby any more, and this node may go on without.
    pub(crate) fn release_all_terminated(&mut self, now: Time) {
        for awaiting in std::mem::take(&mut self.terminated.awaiting) {
            self.terminated_released(now, awaiting);
        }
    }

    /// This node serves no longer. What is unconfirmed had no effect; of the rest the other node knows.
    pub(crate) fn stop_terminating(&mut self, now: Time) {
        self.terminated.awaiting.clear();
        self.terminated.next_resumed = None;
        let slots: Vec<usize> = self.terminated.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            if matches!(self.terminated[slot].stage, Stage::Unconfirmed(_)) {
                self.report_terminated(slot, |client| Change::Forgotten { client });
                self.forget_terminated(now, slot);
            } else if !self.terminated[slot].is_over() {
                self.set_down(slot);
            }
        }
    }

    /// The two connections are no longer here.
    pub(super) fn set_down(&mut self, slot: usize) {
        let entry = &mut self.terminated[slot];
        entry.positions = entry.acknowledged();
        entry.stage = Stage::Held;
        self.terminated.is_complete(slot);
        self.terminated.note_held(slot);
    }

    /// Tells the standby where the streams stand, if that is far from what it was told.
    pub(super) fn report_terminated_progress(&mut self, slot: usize) {
        let entry = &mut self.terminated[slot];
        let positions = entry.acknowledged();
        let far = |(new, old): (&Seq, &Seq)| new.distance(*old) >> PROGRESS_SHIFT != 0;
        if positions.iter().zip(&entry.positions).any(far) {
            entry.positions = positions;
            self.report_terminated(slot, |client| Change::Progress { client, positions });
        }
    }

    /// Appends sessions from `slot` on until `out` is longer than `end`; returns where to go on, or `None` at the end.
    pub(crate) fn snapshot_terminated(
        &self,
        mut slot: usize,
        end: usize,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        if !self.terminated.understood {
            return None;
        }
        while let Some((found, entry)) = self.terminated.next_from(slot) {
            if out.len() > end {
                return Some(found);
            }
            slot = found + 1;
            describe(entry, out);
        }
        None
    }

    /// From now on the standby understands what it is told of terminated sessions, or does not.
    pub(crate) fn terminated_understood(&mut self, understood: bool) {
        self.terminated.understood = understood;
    }

    /// Everything that there is was, or will be, told.
    pub(crate) fn tell_all_terminated(&mut self) {
        let slots: Vec<usize> = self.terminated.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.terminated[slot].told = self.terminated.understood;
        }
    }

    // ── standby

    /// Applies a change if it is about a terminated session; gives it back if not.
    pub(crate) fn apply_terminated(
        &mut self,
        now: Time,
        change: ReceivedChange,
    ) -> Option<ReceivedChange> {
        let about = match &change {
            ReceivedChange::Joined { record, prefix } => {
                self.adopt_terminated(now, record, prefix);
                return None;
            }
            ReceivedChange::PrefixDone { client }
            | ReceivedChange::Ended { client, .. }
            | ReceivedChange::HalfClosed { client, .. }
            | ReceivedChange::Forgotten { client }
            | ReceivedChange::Progress { client, .. }
            | ReceivedChange::Ending { client, .. } => *client,
            ReceivedChange::Opened { .. }
            | ReceivedChange::Migrated { .. }
            | ReceivedChange::MigrationCommitted { .. }
            | ReceivedChange::MigrationEnded { .. }
            | ReceivedChange::MigrationUndone { .. }
            | ReceivedChange::Nothing => return Some(change),
        };
        let Some(Flow::Terminated(slot, Side::Client)) = self.find(&about) else {
            // The end of a session that is not here any more means nothing.
            return (!matches!(change, ReceivedChange::Ending { .. })).then_some(change);
        };
        match change {
            ReceivedChange::PrefixDone { .. } => self.terminated[slot].prefix.clear(),
            ReceivedChange::Ended { phase, .. } => self.apply_ended(now, slot, phase),
            ReceivedChange::Forgotten { .. } => self.forget_terminated(now, slot),
            ReceivedChange::Progress { positions, .. } => {
                self.terminated[slot].positions = positions
            }
            ReceivedChange::Ending { side, at, .. } => {
                self.terminated[slot].endings[side as usize] = Some(at)
            }
            _ => {}
        }
        None
    }

    fn apply_ended(&mut self, now: Time, slot: usize, phase: Phase) {
        let known = self.terminated[slot].endings.iter().all(Option::is_some);
        if phase == Phase::TimeWait && known {
            self.set_terminated_over(now, slot);
        } else {
            self.forget_terminated(now, slot);
        }
    }

    fn adopt_terminated(&mut self, now: Time, record: &Record, prefix: &[u8]) {
        for tuple in [record.client.tuple(), record.server.tuple()] {
            self.clear_way(now, &tuple);
        }
        if !self.make_room_to_terminate(now) {
            self.counters.count(crate::counters::Counter::DropTableFull);
            return;
        }
        let server = self.pools.intern(record.server.end());
        self.connection_began(server, record.server.own());
        let slot = self.insert_terminated(Entry {
            positions: [record.client.end_isn + 1, record.server.end_isn + 1],
            record: *record,
            prefix: prefix.to_vec(),
            server,
            listener: self.listener_at(record.client.own()).unwrap_or(Session::NO_LISTENER),
            serial: 0,
            since: Seconds::of(now),
            last_seen: Seconds::of(now),
            picture: self.picture.max(1),
            half_open: false,
            told: true,
            endings: [None; 2],
            stage: Stage::Held,
            held: 0,
            due: Time::NEVER,
        });
        self.arm_terminated(now, slot);
    }

    /// Forgets whatever session stands in the way of a new one with that tuple.
    pub(crate) fn clear_way(&mut self, now: Time, tuple: &FourTuple) {
        match self.find(tuple) {
            Some(Flow::Session(slot, _)) => self.forget_session(now, slot),
            Some(Flow::Terminated(slot, _)) => self.forget_terminated(now, slot),
            _ => {}
        }
    }

    /// Removes those that the last complete picture did not contain.
    pub(crate) fn sweep_terminated(&mut self, now: Time) {
        let picture = self.picture;
        let gone: Vec<usize> = self
            .terminated
            .iter()
            .filter(|(_, e)| e.picture != picture)
            .map(|(slot, _)| slot)
            .collect();
        for slot in gone {
            self.forget_terminated(now, slot);
        }
    }
}

fn describe(entry: &Entry, out: &mut Vec<u8>) {
    let client = entry.tuple(Side::Client);
    Change::Joined { record: &entry.record, prefix: &entry.prefix }.encode(out);
    for side in [Side::Client, Side::Server] {
        if let Some(at) = entry.endings[side as usize] {
            Change::Ending { client, side, at }.encode(out);
        }
    }
    if entry.is_over() {
        Change::Ended { client, phase: Phase::TimeWait }.encode(out);
    } else {
        Change::Progress { client, positions: entry.acknowledged() }.encode(out);
    }
}
