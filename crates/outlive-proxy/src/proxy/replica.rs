//! The other end of replication: sessions that wait for the standby, the walk over all of them for a new
//! standby, and, on the standby, what the active node tells.

use std::time::Duration;

use outlive_tcp::{
    fault::{self, Fault},
    seq::Seq,
    time::Time,
    wire::FourTuple,
};

use super::{Admission, Awaiting, FirstData, Prefix, Proxy, Release};
use crate::{
    counters::Counter,
    flows::{Flow, Side},
    replication::change::{Change, ReceivedChange},
    session::{Phase, Seconds, Session, UNTIL_CERTAIN, record::Record, track::Streams},
};

/// Bytes of first data that all sessions hold together while they wait for the standby.
const AWAITING_LIMIT: usize = 64 << 20;

/// Sessions looked at in one go after a synchronisation, and the time until the next: a million in 60 ms.
const SWEEP: usize = 16_384;
const SWEEP_PAUSE: Duration = Duration::from_millis(1);

/// How far the walk over everything that a new standby is told has come: what it goes on with, from this slot on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SnapshotCursor {
    Sessions(usize),
    /// Of migrated connections.
    Mappings(usize),
    /// Sessions of listeners that terminate.
    Terminated(usize),
}

impl Proxy {
    // ── active node

    /// A new session, whose record is change number `change`: it may have effects now, or when the standby
    /// says so.
    pub(crate) fn await_release(&mut self, now: Time, slot: usize, change: u64, first: FirstData) {
        if !self.waits(slot) || fault::on(Fault::RecordAfterEffect) {
            self.release(now, slot, first);
        } else {
            let serial = self.sessions[slot].serial;
            let first = self.bounded(first);
            self.awaiting_bytes += first.data.len();
            self.awaiting.push_back(Awaiting { change, slot, serial, since: now, first });
        }
    }

    /// What is held while a session waits. Beyond the limit it is not: nothing of it was acknowledged, so its client
    /// says it again.
    fn bounded(&mut self, first: FirstData) -> FirstData {
        if self.awaiting_bytes + first.data.len() <= AWAITING_LIMIT {
            return first;
        }
        self.counters.count(Counter::DropFirstData);
        FirstData::default()
    }

    /// The session waits no longer.
    fn waits_no_longer(&mut self, awaiting: &Awaiting) {
        self.awaiting_bytes -= awaiting.first.data.len();
    }

    /// Whether a new session has to wait for the standby, if there is one. That of an asynchronous listener does
    /// only if the standby may still hold an older session with one of its tuples, with which it would go on.
    pub(crate) fn waits(&self, slot: usize) -> bool {
        if self.posture.release == Release::Now {
            return false;
        }
        let session = &self.sessions[slot];
        let reused = |side| self.given_way.contains(&session.tuple(side));
        self.protection(session.listener).waits() || reused(Side::Client) || reused(Side::Server)
    }

    /// The standby holds everything up to change `number`.
    pub(crate) fn confirmed(&mut self, now: Time, number: u64) {
        self.given_way.confirmed(number);
        self.decisions_confirmed(now, Some(number));
        self.confirm_terminated(now, number);
        while let Some(awaiting) = self
            .awaiting
            .pop_front_if(|a| a.change <= number || fault::on(Fault::ConfirmationNotCompared))
        {
            self.release_awaiting(now, awaiting);
        }
    }

    /// There is no standby any more, and this node may go on without.
    pub(crate) fn release_all(&mut self, now: Time) {
        self.decisions_confirmed(now, None);
        self.release_all_terminated(now);
        for awaiting in std::mem::take(&mut self.awaiting) {
            let session = self.sessions.get(awaiting.slot);
            let refused = session.is_some_and(|s| {
                let met = s.record.answered || self.withheld.contains(awaiting.slot);
                !met && self.admission(s.listener) == Admission::Refused
            });
            if refused {
                // The client has heard nothing: it says its SYN again, and is refused then.
                self.abandon(now, &awaiting);
            } else {
                self.release_awaiting(now, awaiting);
            }
        }
    }

    fn release_awaiting(&mut self, now: Time, awaiting: Awaiting) {
        self.waits_no_longer(&awaiting);
        let Awaiting { slot, serial, first, .. } = awaiting;
        let waiting = |s: &mut Session| s.phase == Phase::Unconfirmed;
        if self.sessions.with_serial(slot, serial).is_some_and(waiting) {
            self.release(now, slot, first);
        }
    }

    /// How many sessions wait for the standby's confirmation.
    pub(crate) fn unconfirmed(&self) -> usize {
        self.awaiting.len() + self.terminated.unconfirmed()
    }

    /// Since when the oldest of them has been waiting.
    pub(crate) fn waiting_since(&self) -> Option<Time> {
        let session = self.awaiting.front().map(|a| a.since);
        let others = [self.migrations.waiting_since(), self.terminated.waiting_since()];
        session.into_iter().chain(others.into_iter().flatten()).min()
    }

    /// This node serves no longer: what is unconfirmed had no effect, and is the client's to say again.
    pub(crate) fn abandon_unconfirmed(&mut self, now: Time) {
        self.abandon_decisions(now);
        self.stop_terminating(now);
        for awaiting in std::mem::take(&mut self.awaiting) {
            self.abandon(now, &awaiting);
        }
    }

    fn abandon(&mut self, now: Time, awaiting: &Awaiting) {
        self.waits_no_longer(awaiting);
        if let Some(session) = self.sessions.with_serial(awaiting.slot, awaiting.serial) {
            let client = session.tuple(Side::Client);
            self.journal.append(&Change::Forgotten { client });
            self.forget_session(now, awaiting.slot);
        }
    }

    /// The peer may have taken over, and may have met these clients: what they said is not repeated here
    /// from memory, but only if they come and say it again. Their sessions stay: where the peer holds the
    /// same record, it does the same with it.
    pub(crate) fn forget_first_data(&mut self) {
        for awaiting in &mut self.awaiting {
            awaiting.first = FirstData::default();
        }
        self.awaiting_bytes = 0;
        self.withheld.forget_data();
        self.remove_answered_openings();
    }

    /// Appends what a new standby has to know from `cursor` on, as far as `room` bytes go; returns where to go on, or
    /// `None` at the end.
    pub(crate) fn snapshot(
        &self,
        mut cursor: SnapshotCursor,
        room: usize,
        out: &mut Vec<u8>,
    ) -> Option<SnapshotCursor> {
        use SnapshotCursor::{Mappings, Sessions, Terminated};
        // A record, a prefix, an end, a position: never more for one entry.
        const MOST: usize = 512;
        let end = out.len() + room.saturating_sub(MOST);
        loop {
            let (more, then) = match cursor {
                Sessions(slot) => {
                    (self.snapshot_sessions(slot, end, out).map(Sessions), Some(Mappings(0)))
                }
                Mappings(slot) => {
                    (self.snapshot_mappings(slot, end, out).map(Mappings), Some(Terminated(0)))
                }
                Terminated(slot) => {
                    (self.snapshot_terminated(slot, end, out).map(Terminated), None)
                }
            };
            if more.is_some() {
                return more;
            }
            cursor = then?;
        }
    }

    /// Appends sessions from `slot` on until `out` is longer than `end`; returns where to go on, or `None` at the end.
    fn snapshot_sessions(&self, mut slot: usize, end: usize, out: &mut Vec<u8>) -> Option<usize> {
        while let Some((found, session)) = self.sessions.next_from(slot) {
            if out.len() > end {
                return Some(found);
            }
            slot = found + 1;
            if session.phase == Phase::Unconfirmed && fault::on(Fault::RecordLostOnReconnect) {
                continue;
            }
            if session.told {
                self.describe(found, session, out);
            }
        }
        None
    }

    fn describe(&self, slot: usize, session: &Session, out: &mut Vec<u8>) {
        let prefix = self.prefixes.get(&slot).map_or(&[][..], |p| &p.bytes);
        let client = session.tuple(Side::Client);
        Change::Opened { record: &session.record, prefix }.encode(out);
        if session.phase.is_over() {
            Change::Ended { client, phase: session.phase }.encode(out);
        } else {
            let streams = self.up_to_date(slot, session);
            let positions = [Side::Client, Side::Server].map(|s| streams.sent_by(s).acked);
            Change::Progress { client, positions }.encode(out);
            for side in [Side::Client, Side::Server] {
                if streams.sent_by(side).finished() {
                    Change::HalfClosed { client, side }.encode(out);
                }
            }
        }
    }

    // ── standby

    /// A synchronisation begins: what is not told again by its end will be removed.
    pub(crate) fn begin_picture(&mut self, now: Time) {
        self.picture = self.picture.checked_add(1).unwrap_or(1);
        // What an earlier one left over will not be in this one either.
        self.sweep = None;
        if fault::on(Fault::PictureReplacedEarly) {
            self.complete_picture(now);
        }
    }

    /// The picture is complete: what it does not contain does not exist any more.
    pub(crate) fn complete_picture(&mut self, now: Time) {
        self.sweep = Some((0, now));
        self.sweep_terminated(now);
        self.sweep_some(now);
        self.complete_mappings(now, self.picture.max(1));
    }

    /// Removes the rest of them, before this node makes sessions of its own.
    pub(crate) fn finish_sweep(&mut self, now: Time) {
        while let Some((slot, _)) = self.sweep {
            self.sweep = Some((slot, now));
            self.sweep_some(now);
        }
    }

    /// Removes some of the sessions that the last complete picture did not contain.
    pub(crate) fn sweep_some(&mut self, now: Time) {
        let Some((slot, _)) = self.sweep.take_if(|(_, at)| *at <= now) else { return };
        let end = slot + SWEEP;
        let mut next = slot;
        while let Some((found, session)) = self.sessions.next_from(next) {
            if found >= end {
                self.sweep = Some((found, now + SWEEP_PAUSE));
                return;
            }
            if session.picture != self.picture {
                self.forget_session(now, found);
            }
            next = found + 1;
        }
    }

    /// Applies a change that the active node reports.
    pub(crate) fn apply(&mut self, now: Time, change: ReceivedChange) {
        let Some(change) = self.apply_terminated(now, change) else { return };
        match change {
            // The last two were about terminated sessions.
            ReceivedChange::Nothing
            | ReceivedChange::Joined { .. }
            | ReceivedChange::Ending { .. } => {}
            ReceivedChange::Migrated { record } => {
                self.adopt_migrated(now, &record, self.picture.max(1));
            }
            ReceivedChange::MigrationCommitted { client } => self.adopt_committed(&client),
            ReceivedChange::MigrationEnded { client } => self.adopt_migration_end(now, &client),
            ReceivedChange::MigrationUndone { client } => self.adopt_migration_undone(now, &client),
            ReceivedChange::Opened { record, prefix } => self.adopt(now, &record, prefix),
            ReceivedChange::PrefixDone { client } => {
                if let Some(slot) = self.session_of(&client) {
                    self.prefixes.remove(&slot);
                    self.arm_idle(now, slot);
                }
            }
            ReceivedChange::Ended { client, phase } => {
                if let Some(slot) = self.session_of(&client) {
                    self.set_over(now, slot, phase);
                }
            }
            ReceivedChange::HalfClosed { client, side } => {
                if let Some(slot) = self.session_of(&client) {
                    self.sessions[slot].streams.sent_by_mut(side).finish();
                }
            }
            ReceivedChange::Forgotten { client } => {
                if let Some(slot) = self.session_of(&client) {
                    self.forget_session(now, slot);
                }
            }
            ReceivedChange::Progress { client, positions } => {
                self.adopt_progress(now, &client, positions);
            }
        }
    }

    fn session_of(&self, client: &FourTuple) -> Option<usize> {
        match self.find(client) {
            Some(Flow::Session(slot, Side::Client)) => Some(slot),
            _ => None,
        }
    }

    fn adopt(&mut self, now: Time, record: &Record, prefix: Vec<u8>) {
        // Whatever stands in its way is a session of which the end was not told.
        for tuple in [record.client.tuple(), record.server.tuple()] {
            self.clear_way(now, &tuple);
        }
        if !self.make_room(now) {
            self.counters.count(Counter::DropTableFull);
            return;
        }
        let server = self.pools.intern(record.server.end());
        self.connection_began(server, record.server.own());
        let listener = self.listener_at(record.client.own()).unwrap_or(Session::NO_LISTENER);
        let mut record = *record;
        if fault::on(Fault::TimestampNotCarriedOver) {
            (record.client_timestamp_delta, record.server_timestamp_delta) = (0, 0);
        }
        let slot = self.insert_session(Session {
            record,
            streams: Streams::new(record.client.end_isn, record.server.end_isn),
            last_seen: Seconds::of(now),
            since: Seconds::of(now),
            serial: 0,
            client_timestamp: record.syn_ack.echo,
            server,
            listener,
            phase: if record.answered { Phase::Open } else { Phase::Answering },
            half_open: false,
            told: true,
            picture: self.picture.max(1),
            delegated: false,
            until_delegated: UNTIL_CERTAIN,
        });
        if !prefix.is_empty() && !fault::on(Fault::PrefixNotReplicated) {
            self.prefixes.insert(slot, Prefix { bytes: prefix, repeated: 0, sent: false });
        }
        self.arm_idle(now, slot);
    }

    fn adopt_progress(&mut self, now: Time, client: &FourTuple, positions: [Seq; 2]) {
        let Some(slot) = self.session_of(client) else { return };
        let session = &mut self.sessions[slot];
        // Later than when it was heard of: it is busy (see `wake`).
        session.last_seen = Seconds::of(now);
        let streams = &mut session.streams;
        for (side, position) in [Side::Client, Side::Server].into_iter().zip(positions) {
            streams.sent_by_mut(side).move_to(position);
        }
    }
}
