//! The table of openings, with its limits.

use std::ops::{Index, IndexMut};

use outlive_tcp::{
    fault::{self, Fault},
    time::Time,
};
use slab::Slab;

use super::{Meeting, Opening};
use crate::{config::Limits, timer::TimerWheel};

/// Bytes of first data that are held for all openings together.
const BUFFER_LIMIT: usize = 64 << 20;

/// All connections that are being opened.
#[derive(Debug)]
pub(crate) struct Openings {
    slab: Slab<Opening>,
    timers: TimerWheel,
    limit: usize,
    half_open_limit: usize,
    half_open: usize,
    buffered: usize,
}

impl Openings {
    pub(crate) fn new(limits: &Limits, now: Time) -> Self {
        Openings {
            slab: Slab::new(),
            timers: TimerWheel::new(now),
            limit: limits.openings as usize,
            half_open_limit: limits.half_open as usize,
            half_open: 0,
            buffered: 0,
        }
    }

    /// From now on there may be so many. Those that there are stay.
    pub(crate) fn limit_to(&mut self, limits: &Limits) {
        self.limit = limits.openings as usize;
        self.half_open_limit = limits.half_open as usize;
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.slab.len() >= self.limit
    }

    /// So many clients have not shown yet that they exist, here and among the sessions (`answered`), that
    /// the next ones must do so first.
    pub(crate) fn must_challenge(&self, answered: usize) -> bool {
        if fault::on(Fault::FloodNotChallenged) {
            return false;
        }
        self.half_open + answered >= self.half_open_limit || self.is_full()
    }

    pub(crate) fn insert(&mut self, opening: Opening) -> usize {
        self.half_open += usize::from(opening.is_half_open());
        self.buffered += opening.buffered();
        self.slab.insert(opening)
    }

    pub(crate) fn remove(&mut self, slot: usize) -> Option<Opening> {
        self.timers.cancel(slot);
        let opening = self.slab.try_remove(slot)?;
        self.half_open -= usize::from(opening.is_half_open());
        self.buffered -= opening.buffered();
        Some(opening)
    }

    pub(crate) fn get(&self, slot: usize) -> Option<&Opening> {
        self.slab.get(slot)
    }

    /// Appends to the data of an answered client, up to `limit` bytes in all; returns how much was taken.
    pub(crate) fn append(&mut self, slot: usize, bytes: &[u8], limit: usize) -> usize {
        let opening = &mut self.slab[slot];
        let before = opening.buffered();
        let Meeting::Answered { data, .. } = &mut opening.meeting else { return 0 };
        let room = limit.saturating_sub(data.len()).min(BUFFER_LIMIT.saturating_sub(self.buffered));
        let taken = bytes.len().min(room);
        data.extend_from_slice(&bytes[..taken]);
        self.buffered += opening.buffered() - before;
        taken
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

    pub(crate) fn slots(&self) -> Vec<usize> {
        self.slab.iter().map(|(slot, _)| slot).collect()
    }
}

impl Index<usize> for Openings {
    type Output = Opening;
    fn index(&self, slot: usize) -> &Opening {
        &self.slab[slot]
    }
}

impl IndexMut<usize> for Openings {
    fn index_mut(&mut self, slot: usize) -> &mut Opening {
        &mut self.slab[slot]
    }
}
