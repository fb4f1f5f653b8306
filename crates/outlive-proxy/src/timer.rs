//! One timer for each entry of a table, in a hierarchical wheel (Varghese and Lauck, 1987).
//!
//! Setting, moving and cancelling a timer is O(1) and allocates nothing; expiring costs what expires.
//! Timers fire up to one tick late, never early.

use outlive_tcp::time::Time;

/// Microseconds of a tick.
const TICK_US: u64 = 4_000;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// 64^5 ticks of 4 ms: 49 days.
const LEVELS: usize = 5;
const NIL: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Entry {
    previous: u32,
    next: u32,
    /// In ticks; `0` means not set.
    deadline: u32,
    /// Level * 64 + slot.
    slot: u16,
}

/// Entries are allocated so many at a time: a vector that doubles would cost up to twice as much.
const CHUNK: usize = 1_024;

/// One entry for each id, all unset at first.
#[derive(Debug, Default)]
struct Entries(Vec<Box<[Entry]>>);

impl Entries {
    fn get(&self, id: usize) -> Option<&Entry> {
        Some(&self.0.get(id / CHUNK)?[id % CHUNK])
    }

    fn get_mut(&mut self, id: usize) -> Option<&mut Entry> {
        Some(&mut self.0.get_mut(id / CHUNK)?[id % CHUNK])
    }

    /// Makes room for an entry.
    fn reach(&mut self, id: usize) {
        while self.0.len() * CHUNK <= id {
            self.0.push(vec![UNSET; CHUNK].into());
        }
    }
}

impl std::ops::Index<usize> for Entries {
    type Output = Entry;
    fn index(&self, id: usize) -> &Entry {
        &self.0[id / CHUNK][id % CHUNK]
    }
}

impl std::ops::IndexMut<usize> for Entries {
    fn index_mut(&mut self, id: usize) -> &mut Entry {
        &mut self.0[id / CHUNK][id % CHUNK]
    }
}

const UNSET: Entry = Entry { previous: NIL, next: NIL, deadline: 0, slot: 0 };

/// Timers for entries that are known by a small dense index.
#[derive(Debug)]
pub struct TimerWheel {
    entries: Entries,
    heads: [[u32; SLOTS]; LEVELS],
    occupied: [u64; LEVELS],
    /// Everything up to this tick has been expired.
    tick: u64,
}

impl TimerWheel {
    /// An empty wheel whose first tick is the one of `now`.
    pub fn new(now: Time) -> Self {
        TimerWheel {
            entries: Entries::default(),
            heads: [[NIL; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
            tick: now.as_micros() / TICK_US,
        }
    }

    /// Sets the timer of `id` to `deadline`, in place of what it was set to.
    pub fn set(&mut self, id: usize, deadline: Time) {
        self.cancel(id);
        self.entries.reach(id);
        let ticks = deadline.as_micros().div_ceil(TICK_US).max(self.tick + 1);
        let ticks = ticks.min(self.tick + (1 << (SLOT_BITS * LEVELS as u32)) - 1);
        self.insert(id as u32, ticks);
    }

    /// Whether `id` has a timer.
    pub(crate) fn is_set(&self, id: usize) -> bool {
        self.entries.get(id).is_some_and(|entry| entry.deadline != 0)
    }

    /// Forgets the timer of `id`, if it has one.
    pub fn cancel(&mut self, id: usize) {
        let Some(entry) = self.entries.get(id).copied().filter(|e| e.deadline != 0) else {
            return;
        };
        let (level, slot) = (usize::from(entry.slot) / SLOTS, usize::from(entry.slot) % SLOTS);
        match self.entries.get_mut(entry.previous as usize) {
            Some(previous) => previous.next = entry.next,
            None => self.heads[level][slot] = entry.next,
        }
        if let Some(next) = self.entries.get_mut(entry.next as usize) {
            next.previous = entry.previous;
        }
        if self.heads[level][slot] == NIL {
            self.occupied[level] &= !(1 << slot);
        }
        self.entries[id] = UNSET;
    }

    /// An instant by which [`expire`](Self::expire) wants to be called: not later than the first deadline
    /// (rounded up to a tick), though perhaps earlier, when timers have to be sorted anew.
    pub fn next_deadline(&self) -> Option<Time> {
        let at = |level: usize| -> Option<u64> {
            let occupied = self.occupied[level];
            if occupied == 0 {
                return None;
            }
            let shift = SLOT_BITS * level as u32;
            let now = self.tick >> shift;
            let position = (now % SLOTS as u64) as u32;
            // The slot of `position` itself lies a whole turn ahead.
            let ahead = u64::from(occupied.rotate_right((position + 1) % 64).trailing_zeros()) + 1;
            Some((now + ahead) << shift)
        };
        let tick = (0..LEVELS).filter_map(at).min()?;
        Some(Time::from_micros(tick * TICK_US))
    }

    /// Moves the ids of all timers that are due at `now` to `expired`.
    pub fn expire(&mut self, now: Time, expired: &mut Vec<usize>) {
        let target = now.as_micros() / TICK_US;
        while self.tick < target {
            // Jump over what is empty.
            let next = self.next_deadline().map_or(target, |t| t.as_micros() / TICK_US);
            self.tick = next.min(target);
            if self.tick < next {
                break;
            }
            for level in (0..LEVELS).rev() {
                let shift = SLOT_BITS * level as u32;
                if self.tick & ((1 << shift) - 1) == 0 {
                    self.empty_slot(level, ((self.tick >> shift) % SLOTS as u64) as usize, expired);
                }
            }
        }
    }

    fn empty_slot(&mut self, level: usize, slot: usize, expired: &mut Vec<usize>) {
        let mut id = std::mem::replace(&mut self.heads[level][slot], NIL);
        self.occupied[level] &= !(1 << slot);
        while id != NIL {
            let entry = std::mem::replace(&mut self.entries[id as usize], UNSET);
            let ticks = self.widen(entry.deadline);
            if ticks <= self.tick {
                expired.push(id as usize);
            } else {
                self.insert(id, ticks);
            }
            id = entry.next;
        }
    }

    /// The tick of which `deadline` are the low 32 bits; it lies within half a turn of the present.
    fn widen(&self, deadline: u32) -> u64 {
        let ahead = deadline.wrapping_sub(self.tick as u32) as i32;
        self.tick.wrapping_add_signed(i64::from(ahead))
    }

    fn insert(&mut self, id: u32, ticks: u64) {
        let distance = ticks - self.tick;
        let level = ((63 - distance.leading_zeros()) / SLOT_BITS).min(LEVELS as u32 - 1) as usize;
        let slot = ((ticks >> (SLOT_BITS * level as u32)) % SLOTS as u64) as usize;
        let head = std::mem::replace(&mut self.heads[level][slot], id);
        if let Some(next) = self.entries.get_mut(head as usize) {
            next.previous = id;
        }
        self.occupied[level] |= 1 << slot;
        // Zero stands for "not set": the one tick in 200 days that would be zero fires a tick late.
        let deadline = (ticks as u32).max(1);
        self.entries[id as usize] =
            Entry { previous: NIL, next: head, deadline, slot: (level * SLOTS + slot) as u16 };
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fires_in_time_at_every_distance() {
        for millis in [1, 4, 5, 255, 256, 257, 16_000, 20_000, 1_000_000, 7_200_000, 900_000_000] {
            let start = Time::from_micros(123_456_789);
            let mut wheel = TimerWheel::new(start);
            let deadline = start + Duration::from_millis(millis);
            wheel.set(0, deadline);
            let mut expired = Vec::new();
            let mut rounds = 0;
            while expired.is_empty() {
                let now = wheel.next_deadline().expect("a timer is set");
                wheel.expire(now, &mut expired);
                rounds += 1;
                if !expired.is_empty() {
                    assert!(now >= deadline, "{millis} ms: early");
                    assert!(now <= deadline + Duration::from_micros(2 * TICK_US), "late");
                }
            }
            assert!(rounds <= LEVELS, "{millis} ms took {rounds} wake-ups");
            assert_eq!(wheel.next_deadline(), None);
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_sorted_map(ops in prop::collection::vec((0usize..40, 0u64..400_000_000, 0u8..4, 0u64..5_000_000), 1..300)) {
            let mut now = Time::from_micros(77_000_000);
            let mut wheel = TimerWheel::new(now);
            let mut model: BTreeMap<usize, Time> = BTreeMap::new();
            for (id, ahead, op, step) in ops {
                match op {
                    0 => { wheel.cancel(id); model.remove(&id); }
                    1 | 2 => {
                        let deadline = now + Duration::from_micros(ahead);
                        wheel.set(id, deadline);
                        model.insert(id, deadline);
                    }
                    _ => {
                        now = now + Duration::from_micros(step * 3);
                        let mut expired = Vec::new();
                        wheel.expire(now, &mut expired);
                        for id in expired {
                            let deadline = model.remove(&id).expect("set once");
                            prop_assert!(deadline <= now);
                        }
                        for deadline in model.values() {
                            prop_assert!(*deadline + Duration::from_micros(TICK_US) > now, "overdue");
                        }
                    }
                }
                prop_assert_eq!(wheel.next_deadline().is_none(), model.is_empty());
                if let (Some(next), Some(first)) = (wheel.next_deadline(), model.values().min()) {
                    prop_assert!(next.as_micros() <= first.as_micros().div_ceil(TICK_US) * TICK_US + TICK_US);
                }
            }
        }
    }
}
