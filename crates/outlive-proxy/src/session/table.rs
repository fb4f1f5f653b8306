//! The table of sessions, with their timers and the queue of those that may give way.

use std::{
    collections::VecDeque,
    ops::{Index, IndexMut},
};

use outlive_tcp::time::Time;

use super::{Session, chunks::Chunks};
use crate::timer::TimerWheel;

/// All sessions. A slot is a small number that a session keeps for life.
#[derive(Debug)]
pub(crate) struct Sessions {
    slab: Chunks<Session>,
    timers: TimerWheel,
    limit: usize,
    serial: u32,
    half_open: usize,
    /// Slots and serials of sessions that are over, oldest first; some may be gone already.
    over: VecDeque<(u32, u32)>,
}

impl Sessions {
    pub(crate) fn new(limit: u32, now: Time) -> Self {
        Sessions {
            slab: Chunks::new(),
            timers: TimerWheel::new(now),
            limit: limit as usize,
            serial: 0,
            half_open: 0,
            over: VecDeque::new(),
        }
    }

    /// From now on there may be so many. Those that there are stay.
    pub(crate) fn limit_to(&mut self, limit: u32) {
        self.limit = limit as usize;
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Slots that may be in use are below this.
    pub(crate) fn slots(&self) -> usize {
        self.slab.end()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.slab.len() >= self.limit
    }

    /// Enters a session, which gets its serial here.
    pub(crate) fn insert(&mut self, mut session: Session) -> usize {
        self.serial = self.serial.wrapping_add(1);
        session.serial = self.serial;
        self.half_open += usize::from(session.half_open);
        self.slab.insert(session)
    }

    pub(crate) fn remove(&mut self, slot: usize) -> Option<Session> {
        self.timers.cancel(slot);
        let session = self.slab.remove(slot)?;
        self.half_open -= usize::from(session.half_open);
        Some(session)
    }

    /// Sessions whose client has not shown yet that it exists.
    pub(crate) fn half_open(&self) -> usize {
        self.half_open
    }

    /// The session is not half-open any more, if it was.
    pub(crate) fn is_complete(&mut self, slot: usize) {
        self.half_open -= usize::from(std::mem::take(&mut self.slab[slot].half_open));
    }

    pub(crate) fn get(&self, slot: usize) -> Option<&Session> {
        self.slab.get(slot)
    }

    /// The session in `slot` if it is still the one with that serial.
    pub(crate) fn with_serial(&mut self, slot: usize, serial: u32) -> Option<&mut Session> {
        self.slab.get_mut(slot).filter(|s| s.serial == serial)
    }

    /// Notes that the session is over: it may give way when room is needed.
    pub(crate) fn is_over(&mut self, slot: usize) {
        let serial = self.slab[slot].serial;
        // Entries of sessions that are gone are dropped when there are many of them.
        if self.over.len() > 64 && self.over.len() > 2 * self.slab.len() {
            let slab = &self.slab;
            self.over.retain(|(slot, serial)| {
                slab.get(*slot as usize).is_some_and(|s| s.serial == *serial)
            });
        }
        self.over.push_back((slot as u32, serial));
    }

    /// The session that has been over for longest.
    pub(crate) fn oldest_over(&mut self) -> Option<usize> {
        while let Some((slot, serial)) = self.over.pop_front() {
            let slot = slot as usize;
            if self.with_serial(slot, serial).is_some_and(|s| s.phase.is_over()) {
                return Some(slot);
            }
        }
        None
    }

    pub(crate) fn set_timer(&mut self, slot: usize, deadline: Time) {
        self.timers.set(slot, deadline);
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.timers.next_deadline()
    }

    pub(crate) fn expire(&mut self, now: Time, expired: &mut Vec<usize>) {
        self.timers.expire(now, expired);
    }

    /// The first session at or after `slot`, for walks that are done a little at a time.
    pub(crate) fn next_from(&self, slot: usize) -> Option<(usize, &Session)> {
        (slot..self.slab.end()).find_map(|slot| Some((slot, self.slab.get(slot)?)))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Session)> {
        self.slab.iter()
    }
}

impl Index<usize> for Sessions {
    type Output = Session;
    fn index(&self, slot: usize) -> &Session {
        &self.slab[slot]
    }
}

impl IndexMut<usize> for Sessions {
    fn index_mut(&mut self, slot: usize) -> &mut Session {
        &mut self.slab[slot]
    }
}
