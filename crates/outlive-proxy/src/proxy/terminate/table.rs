//! The table of terminated sessions.

use std::{
    collections::VecDeque,
    ops::{Index, IndexMut},
};

use outlive_tcp::{endpoint::Config, seq::Seq, time::Time, wire::FourTuple};
use slab::Slab;

use super::{
    joined::{Joined, SIDES},
    resume::Resuming,
};
use crate::{
    balance::ServerId,
    config::Limits,
    flows::Side,
    session::{Phase, Seconds, record::Record},
    timer::TimerWheel,
};

/// However little memory is left, a session may hold so much of a stream.
const LEAST_SHARE: u32 = 16 << 10;

/// A session that waits for the standby.
#[derive(Clone, Copy, Debug)]
pub(super) struct Awaiting {
    /// The change that must be confirmed.
    pub(super) change: u64,
    pub(super) slot: usize,
    pub(super) serial: u32,
    pub(super) since: Time,
    pub(super) what: Awaited,
}

/// What happens when the standby has confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    /// The session may have effects.
    Opening,
    /// The end of that side's stream may be passed on.
    Ending(Side),
}

/// What a session is at the moment.
#[derive(Debug)]
pub(super) enum Stage {
    /// The standby has not confirmed the record: nothing may leave yet.
    Unconfirmed(Box<Joined>),
    /// Both connections are here.
    Live(Box<Joined>),
    /// They are at the other node, or died with it.
    Held,
    /// They died with it, and the ends are being asked where they stand.
    Resuming(Box<Resuming>),
    /// Both ends have closed: kept for late segments.
    Over,
}

/// A terminated session.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(super) record: Record,
    /// What was put before the client's first byte, until the server has acknowledged it.
    pub(super) prefix: Vec<u8>,
    pub(super) server: ServerId,
    /// Index of the listener, or [`NO_LISTENER`](crate::session::Session::NO_LISTENER).
    pub(super) listener: u16,
    /// Distinguishes it from earlier holders of its slot.
    pub(super) serial: u32,
    pub(super) since: Seconds,
    pub(super) last_seen: Seconds,
    /// Which synchronisation it was last part of (standby).
    pub(super) picture: u8,
    /// The client has not shown yet that it exists.
    pub(super) half_open: bool,
    /// The standby was told of it, if there is one that understands.
    pub(super) told: bool,
    /// By whose stream it is: the sequence number of the FIN, once the standby was told.
    pub(super) endings: [Option<Seq>; 2],
    /// What each end's stream was acknowledged up to when the standby was told last, in the end's numbers.
    pub(super) positions: [Seq; 2],
    pub(super) stage: Stage,
    /// Bytes that the two connections hold.
    pub(super) held: usize,
    /// What the timer is set to.
    pub(super) due: Time,
}

impl Entry {
    pub(super) fn tuple(&self, side: Side) -> FourTuple {
        self.record.leg(side).tuple()
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    pub(super) fn joined_mut(&mut self) -> Option<&mut Joined> {
        match &mut self.stage {
            Stage::Live(joined) | Stage::Unconfirmed(joined) => Some(joined),
            _ => None,
        }
    }

    pub(super) fn joined(&self) -> Option<&Joined> {
        match &self.stage {
            Stage::Live(joined) | Stage::Unconfirmed(joined) => Some(joined),
            _ => None,
        }
    }

    /// What each end's stream is known to be acknowledged up to.
    pub(super) fn acknowledged(&self) -> [Seq; 2] {
        self.joined().map_or(self.positions, Joined::acknowledged)
    }
}

/// All terminated sessions.
#[derive(Debug)]
pub(crate) struct Terminated {
    slab: Slab<Box<Entry>>,
    pub(super) timers: TimerWheel,
    limit: usize,
    /// Bytes of one stream that a session may hold: received, and not acknowledged by whom they are for.
    stream: u32,
    /// Bytes that all sessions may hold together.
    memory: usize,
    serial: u32,
    half_open: usize,
    /// Bytes that all of them hold.
    held: usize,
    /// Slots and serials of those that are over, oldest first; some may be gone already.
    over: VecDeque<(usize, u32)>,
    pub(super) awaiting: VecDeque<Awaiting>,
    /// The standby understands what it is told of them.
    pub(super) understood: bool,
    /// The shell's device cuts super-segments.
    pub(super) segmentation: bool,
    /// After a takeover: the next slot to be resumed, and when.
    pub(super) next_resumed: Option<(usize, Time)>,
}

impl Terminated {
    pub(crate) fn new(limits: &Limits, now: Time) -> Self {
        let mut table = Terminated {
            slab: Slab::new(),
            timers: TimerWheel::new(now),
            limit: 0,
            stream: 0,
            memory: 0,
            serial: 0,
            half_open: 0,
            held: 0,
            over: VecDeque::new(),
            awaiting: VecDeque::new(),
            understood: false,
            segmentation: false,
            next_resumed: None,
        };
        table.limit_to(limits);
        table
    }

    pub(crate) fn limit_to(&mut self, limits: &Limits) {
        self.limit = limits.sessions as usize;
        self.stream = limits.terminated_stream_bytes;
        self.memory = usize::try_from(limits.terminated_bytes).unwrap_or(usize::MAX);
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.slab.len() >= self.limit
    }

    /// Sessions whose client has not shown yet that it exists.
    pub(crate) fn half_open(&self) -> usize {
        self.half_open
    }

    /// Sessions that wait for the standby's confirmation.
    pub(crate) fn unconfirmed(&self) -> usize {
        self.awaiting.len()
    }

    /// Since when the first of them has been waiting.
    pub(crate) fn waiting_since(&self) -> Option<Time> {
        self.awaiting.front().map(|awaiting| awaiting.since)
    }

    pub(crate) fn tuple(&self, slot: usize, side: Side) -> FourTuple {
        self.slab[slot].tuple(side)
    }

    pub(crate) fn gives_way(&self, slot: usize) -> bool {
        self.slab[slot].is_over()
    }

    /// From now on super-segments are left to the device to be cut.
    pub(crate) fn use_segmentation(&mut self) {
        self.segmentation = true;
    }

    /// When something is due.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let resumed = self.next_resumed.map(|(_, at)| at);
        [self.timers.next_deadline(), resumed].into_iter().flatten().min()
    }

    /// Enters a session, which gets its serial here.
    pub(super) fn insert(&mut self, mut entry: Entry) -> usize {
        self.serial = self.serial.wrapping_add(1);
        entry.serial = self.serial;
        self.half_open += usize::from(entry.half_open);
        self.slab.insert(Box::new(entry))
    }

    pub(super) fn remove(&mut self, slot: usize) -> Option<Box<Entry>> {
        self.timers.cancel(slot);
        let entry = self.slab.try_remove(slot)?;
        self.half_open -= usize::from(entry.half_open);
        self.held -= entry.held;
        Some(entry)
    }

    pub(super) fn get(&self, slot: usize) -> Option<&Entry> {
        self.slab.get(slot).map(|entry| &**entry)
    }

    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut Entry> {
        self.slab.get_mut(slot).map(|entry| &mut **entry)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Entry)> {
        self.slab.iter().map(|(slot, entry)| (slot, &**entry))
    }

    /// The first session at or after `slot`, for walks that are done a little at a time.
    pub(super) fn next_from(&self, slot: usize) -> Option<(usize, &Entry)> {
        let end = self.slab.iter().next_back().map_or(0, |(last, _)| last + 1);
        (slot..end).find_map(|slot| Some((slot, self.get(slot)?)))
    }

    /// The client has shown that it exists.
    pub(super) fn is_complete(&mut self, slot: usize) {
        self.half_open -= usize::from(std::mem::take(&mut self.slab[slot].half_open));
    }

    /// The session may give way when room is needed.
    pub(super) fn is_over(&mut self, slot: usize) {
        let serial = self.slab[slot].serial;
        if self.over.len() > 64 && self.over.len() > 2 * self.slab.len() {
            let slab = &self.slab;
            self.over.retain(|(slot, serial)| slab.get(*slot).is_some_and(|e| e.serial == *serial));
        }
        self.over.push_back((slot, serial));
    }

    /// The session that has been over for longest.
    pub(super) fn oldest_over(&mut self) -> Option<usize> {
        while let Some((slot, serial)) = self.over.pop_front() {
            if self.get(slot).is_some_and(|e| e.serial == serial && e.is_over()) {
                return Some(slot);
            }
        }
        None
    }

    /// Notes how much a session holds now.
    pub(super) fn note_held(&mut self, slot: usize) {
        let entry = &mut self.slab[slot];
        let now = entry.joined().map_or(0, Joined::held);
        self.held = self.held + now - std::mem::replace(&mut entry.held, now);
    }

    /// Nothing more can be held.
    pub(super) fn is_exhausted(&self) -> bool {
        self.held >= self.memory
    }

    /// How much of one stream a session may hold now.
    pub(super) fn share(&self) -> u32 {
        let left = self.memory.saturating_sub(self.held);
        if left >= self.memory / 2 {
            return self.stream;
        }
        let part = u128::from(self.stream) * left as u128 / (self.memory as u128 / 2).max(1);
        // Less than the whole, so it fits.
        (part as u32).max(LEAST_SHARE)
    }

    pub(super) fn set_timer(&mut self, slot: usize, due: Time) {
        if std::mem::replace(&mut self.slab[slot].due, due) != due {
            self.timers.set(slot, due);
        }
    }

    /// Our side's addresses of all connections.
    pub(crate) fn own_addresses(&self) -> impl Iterator<Item = std::net::IpAddr> + '_ {
        let of_entry = |entry: &Entry| SIDES.map(|side| entry.record.leg(side).own().addr);
        self.iter().flat_map(move |(_, entry)| of_entry(entry))
    }

    /// By listener and whether it is over, or not complete yet: for a survey.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = (u16, Phase)> + '_ {
        self.iter().map(|(_, entry)| {
            let phase = match entry.stage {
                Stage::Over => Phase::TimeWait,
                Stage::Unconfirmed(_) => Phase::Unconfirmed,
                _ if entry.half_open => Phase::Answering,
                _ => Phase::Open,
            };
            (entry.listener, phase)
        })
    }

    /// What must hold after every input.
    pub(crate) fn check_invariants(&self, tuples: &mut dyn FnMut(FourTuple, usize, Side)) {
        for (slot, entry) in self.iter() {
            SIDES.iter().for_each(|side| tuples(entry.tuple(*side), slot, *side));
            assert_eq!(
                entry.held,
                entry.joined().map_or(0, Joined::held),
                "what is held is counted"
            );
        }
        assert_eq!(self.held, self.iter().map(|(_, entry)| entry.held).sum::<usize>());
        let half_open = self.iter().filter(|(_, entry)| entry.half_open).count();
        assert_eq!(self.half_open, half_open);
    }
}

impl Index<usize> for Terminated {
    type Output = Entry;
    fn index(&self, slot: usize) -> &Entry {
        &self.slab[slot]
    }
}

impl IndexMut<usize> for Terminated {
    fn index_mut(&mut self, slot: usize) -> &mut Entry {
        &mut self.slab[slot]
    }
}

/// The settings of all connections of terminated sessions.
pub(super) fn endpoint_config(
    stream: u32,
    mtu: u16,
    handshake: std::time::Duration,
    idle: std::time::Duration,
) -> Config {
    Config {
        mtu,
        receive_buffer: stream,
        withheld_limit: stream,
        send_buffer: stream + u32::from(u16::MAX),
        // Both ends have done what there is to do about small segments.
        nagle: false,
        user_timeout: idle,
        connect_timeout: handshake,
        ..Config::default()
    }
}
