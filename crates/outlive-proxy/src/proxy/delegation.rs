//! Established sessions are left to the [fast path](crate::fast_path), if there is one, and looked after: what it
//! has learnt of them is fetched before anything is decided here, and they are taken back when they are over.

use std::{collections::VecDeque, time::Duration};

use outlive_tcp::time::Time;

use super::Proxy;
use crate::{
    counters::Counter,
    fast_path::{Direction, FastPath, Splice, StreamProgress},
    flows::Side,
    migration::MIGRATED,
    session::{Phase, Seconds, Session, track::Streams},
};

/// Sessions that were idle for longer make room for busy ones.
const IDLE: Duration = Duration::from_secs(1);
/// Packets of a session before it is tried again, if there was no room, or it had to give way.
const PATIENCE: u8 = 255;
/// Sessions looked at to find an idle one.
const CANDIDATES: usize = 4;

/// The fast path, and which sessions it has.
#[derive(Debug, Default)]
pub(super) struct Delegation {
    path: Option<Box<dyn FastPath>>,
    /// Slots and serials in the order in which they were handed over; some may be back already. Those that are not sessions have
    /// numbers beyond all slots.
    order: VecDeque<(u32, u32)>,
    count: usize,
}

impl Delegation {
    /// Notes that a session was handed over.
    fn note(&mut self, slot: usize, serial: u32) {
        self.count += 1;
        self.order.push_back((slot as u32, serial));
    }
}

impl Proxy {
    pub(crate) fn use_fast_path(&mut self, path: Box<dyn FastPath>) {
        self.delegation.path = Some(path);
    }

    pub(crate) fn has_fast_path(&self) -> bool {
        self.delegation.path.is_some()
    }

    /// Sessions that the fast path has.
    pub(crate) fn delegated(&self) -> usize {
        self.delegation.count
    }

    /// Leaves the packets of a session to the fast path, if it is one of which everything is known.
    pub(crate) fn delegate(&mut self, now: Time, slot: usize) {
        let Some(path) = &mut self.delegation.path else { return };
        let session = &mut self.sessions[slot];
        if session.delegated {
            // This packet came here nevertheless.
            let Some(streams) = session.streams.progress() else { return };
            path.learn(slot as u32, &streams);
            if streams.iter().any(|stream| stream.fin.is_some()) {
                // Its acknowledgment may have passed there before it was known there.
                self.catch_up(now, slot);
            }
            return;
        }
        let ready = match session.phase {
            Phase::Open => true,
            Phase::Answering => !session.is_inherited(),
            _ => false,
        };
        // Data must not pass before the standby has been told.
        if !ready || !session.told || self.prefixes.contains_key(&slot) {
            return;
        }
        if session.until_delegated > 0 {
            session.until_delegated -= 1;
            return;
        }
        let Some(splice) = splice(session) else { return };
        if path.install(slot as u32, &splice) {
            session.delegated = true;
            let serial = session.serial;
            self.counters.count(Counter::FastPathInstalled);
            self.delegation.note(slot, serial);
            self.prune_delegated();
        } else {
            session.until_delegated = PATIENCE;
            self.counters.count(Counter::FastPathFull);
            self.make_room_in_fast_path(now);
        }
    }

    /// Fetches what the fast path has learnt of a session since.
    pub(crate) fn catch_up(&mut self, now: Time, slot: usize) {
        let session = &mut self.sessions[slot];
        let Some(path) = self.delegation.path.as_ref().filter(|_| session.delegated) else {
            return;
        };
        let (streams, idle) = path.progress(slot as u32);
        let mut opened = false;
        if let Some(idle) = idle {
            session.last_seen = session.last_seen.max(Seconds::of(now - idle));
            // Nothing passes there before the client's handshake is complete.
            opened = session.phase == Phase::Answering;
        }
        let news = [(Side::Client, &streams[0]), (Side::Server, &streams[1])]
            .map(|(side, progress)| (side, session.streams.sent_by_mut(side).follow(progress)));
        if opened {
            self.client_is_there(now, slot);
        }
        for (side, news) in news {
            self.tell(now, slot, side, news);
        }
    }

    /// Leaves what is no session to the fast path, under a number beyond all slots. False if it has no room.
    pub(crate) fn lend(&mut self, now: Time, number: u32, splice: &Splice) -> bool {
        let path = self.delegation.path.as_mut();
        let lent = path.is_some_and(|path| path.install(number, splice));
        if lent {
            self.counters.count(Counter::FastPathInstalled);
            self.delegation.note(number as usize, splice.serial);
            self.prune_delegated();
        } else {
            self.counters.count(Counter::FastPathFull);
            self.make_room_in_fast_path(now);
        }
        lent
    }

    /// A packet of what was lent came here nevertheless, and the streams are this far.
    pub(crate) fn learn_of_lent(&mut self, number: u32, streams: &[StreamProgress; 2]) {
        if let Some(path) = &mut self.delegation.path {
            path.learn(number, streams);
        }
    }

    /// How long ago a packet of what was lent passed, if one has.
    pub(crate) fn idle_of_lent(&self, number: u32) -> Option<Duration> {
        self.delegation.path.as_ref().and_then(|path| path.progress(number).1)
    }

    /// Takes what was lent back.
    pub(crate) fn reclaim(&mut self, number: u32) {
        self.delegation.count -= 1;
        if let Some(path) = &mut self.delegation.path {
            path.withdraw(number);
        }
    }

    /// Whether the fast path has what it was given under that number.
    fn is_delegated(&mut self, number: u32, serial: u32) -> bool {
        if number & MIGRATED != 0 {
            return self.has_lent_mapping(number, serial);
        }
        self.sessions.with_serial(number as usize, serial).is_some_and(|s| s.delegated)
    }

    /// Takes back what is delegated, a session or anything else.
    fn take_any_back(&mut self, now: Time, number: u32) {
        if number & MIGRATED != 0 {
            return self.take_mapping_back(now, (number & !MIGRATED) as usize);
        }
        self.catch_up(now, number as usize);
        self.take_back(number as usize);
    }

    /// The fast path says that a session wants to be looked at.
    pub(crate) fn fast_path_event(&mut self, now: Time, slot: usize, serial: u32) {
        if slot as u32 & MIGRATED == 0 && self.sessions.with_serial(slot, serial).is_some() {
            self.catch_up(now, slot);
        }
    }

    /// The session as it is now, for whoever only looks.
    pub(crate) fn up_to_date(&self, slot: usize, session: &Session) -> Streams {
        let mut streams = session.streams;
        if let Some(path) = self.delegation.path.as_ref().filter(|_| session.delegated) {
            let (progress, _) = path.progress(slot as u32);
            streams.sent_by_mut(Side::Client).follow(&progress[0]);
            streams.sent_by_mut(Side::Server).follow(&progress[1]);
        }
        streams
    }

    /// Takes a session back, if the fast path has it.
    pub(crate) fn take_back(&mut self, slot: usize) {
        let session = &mut self.sessions[slot];
        if std::mem::take(&mut session.delegated) {
            self.delegation.count -= 1;
            if let Some(path) = &mut self.delegation.path {
                path.withdraw(slot as u32);
            }
        }
    }

    /// Takes all sessions back: this node serves no longer.
    pub(crate) fn take_all_back(&mut self, now: Time) {
        for (slot, serial) in std::mem::take(&mut self.delegation.order) {
            if self.is_delegated(slot, serial) {
                self.take_any_back(now, slot);
            }
        }
    }

    /// One of those that were handed over first, and are idle now, gives way; who needs its place comes again.
    fn make_room_in_fast_path(&mut self, now: Time) {
        for _ in 0..CANDIDATES {
            let Some((slot, serial)) = self.delegation.order.pop_front() else { return };
            if !self.is_delegated(slot, serial) {
                continue;
            }
            let idle = self.delegation.path.as_ref().and_then(|path| path.progress(slot).1);
            if idle.is_none_or(|idle| idle > IDLE) {
                return self.take_any_back(now, slot);
            }
            self.delegation.order.push_back((slot, serial));
        }
    }

    /// Forgets entries of sessions that are back, when there are many of them.
    fn prune_delegated(&mut self) {
        let Delegation { order, count, .. } = &mut self.delegation;
        if order.len() > 64 && order.len() > 2 * *count {
            let mut order = std::mem::take(order);
            order.retain(|(slot, serial)| self.is_delegated(*slot, *serial));
            self.delegation.order = order;
        }
    }
}

/// What the fast path has to know, if everything that it has to know is known, and it can do everything that there is
/// to do.
fn splice(session: &Session) -> Option<Splice> {
    let record = &session.record;
    let alike = record.client.timestamps == record.server.timestamps
        && record.client.sack == record.server.sack;
    let [client, server] = session.streams.progress().filter(|_| alike)?;
    let direction = |side: Side, stream| Direction {
        tuple: session.tuple(side),
        translation: record.translation(side, 0, 0),
        segment_limit: if record.answered {
            record.segment_limit(side.other()).into()
        } else {
            u32::MAX
        },
        stream,
    };
    Some(Splice {
        serial: session.serial,
        opening: session.phase == Phase::Answering,
        directions: [direction(Side::Client, client), direction(Side::Server, server)],
    })
}
