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
    /// Slots whose timers were due, and are to be told of.
    due: VecDeque<u32>,
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
            due: VecDeque::new(),
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

    /// The serial of the session that was entered last.
    pub(crate) fn serial(&self) -> u32 {
        self.serial
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
        match self.due.is_empty() {
            true => self.timers.next_deadline(),
            false => Some(Time::ZERO),
        }
    }

    /// Up to `limit` slots whose timers are due.
    pub(crate) fn expire(&mut self, now: Time, limit: usize, expired: &mut Vec<usize>) {
        if self.due.is_empty() {
            self.timers.expire(now, expired);
            let more = expired.drain(limit.min(expired.len())..);
            self.due.extend(more.map(|slot| slot as u32));
            return;
        }
        while expired.len() < limit
            && let Some(slot) = self.due.pop_front()
        {
            // Whoever set it again since, or the next session there, did not mean this instant.
            if !self.timers.is_set(slot as usize) {
                expired.push(slot as usize);
            }
        }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A million of them at once would hold up every packet.
    #[test]
    fn timers_that_are_due_together_are_obeyed_a_few_at_a_time() {
        let now = Time::from_micros(1_000_000);
        let mut sessions = Sessions::new(10, now);
        let due = now + Duration::from_secs(1);
        (0..5).for_each(|slot| sessions.set_timer(slot, due));
        let later = due + Duration::from_secs(1);
        let expired = |sessions: &mut Sessions| {
            let mut slots = Vec::new();
            sessions.expire(later, 2, &mut slots);
            slots
        };
        let first = expired(&mut sessions);
        assert_eq!(first.len(), 2);
        assert!(sessions.next_deadline().is_some_and(|at| at <= later), "it goes on at once");
        // One of the others is set anew meanwhile.
        let again = (0..5).find(|slot| !first.contains(slot)).unwrap();
        sessions.set_timer(again, later + Duration::from_secs(9));
        let mut rest = expired(&mut sessions);
        rest.extend(expired(&mut sessions));
        let mut all = [first, rest].concat();
        all.sort_unstable();
        assert_eq!(all, (0..5).filter(|slot| *slot != again).collect::<Vec<_>>());
        assert!(sessions.next_deadline().is_some_and(|at| at > later));
    }
}
