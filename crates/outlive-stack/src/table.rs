//! The connections, by slot, by ends, by name.

use std::{
    collections::BTreeMap,
    hash::BuildHasher,
    ops::{Index, IndexMut},
};

use hashbrown::HashMap;
use outlive_tcp::wire::FourTuple;
use siphasher::sip::SipHasher13;
use slab::Slab;

use crate::{conn::Conn, id::ConnectionId};

/// Strangers choose what is looked up, so the hash is keyed.
#[derive(Clone, Debug)]
struct Keyed([u8; 16]);

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_key(&self.0)
    }
}

/// All connections of a stack.
#[derive(Debug)]
pub(crate) struct Table {
    slots: Slab<Box<Conn>>,
    /// Ends as packets sent have them. A connection that is over has left it.
    by_ends: HashMap<FourTuple, usize, Keyed>,
    by_id: BTreeMap<ConnectionId, usize>,
}

impl Table {
    pub(crate) fn new(key: [u8; 16]) -> Self {
        Table {
            slots: Slab::new(),
            by_ends: HashMap::with_hasher(Keyed(key)),
            by_id: BTreeMap::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn insert(&mut self, conn: Conn) -> usize {
        let (ends, id) = (conn.tuple(), conn.id);
        let slot = self.slots.insert(Box::new(conn));
        self.by_ends.insert(ends, slot);
        self.by_id.insert(id, slot);
        slot
    }

    /// Other connections may be between the same ends from now on.
    pub(crate) fn leave_ends(&mut self, slot: usize) {
        let ends = self.slots[slot].tuple();
        if self.by_ends.get(&ends) == Some(&slot) {
            self.by_ends.remove(&ends);
        }
    }

    pub(crate) fn remove(&mut self, slot: usize) -> Conn {
        self.leave_ends(slot);
        let conn = self.slots.remove(slot);
        self.by_id.remove(&conn.id);
        *conn
    }

    /// `ends` as packets sent have them.
    pub(crate) fn between(&self, ends: &FourTuple) -> Option<usize> {
        self.by_ends.get(ends).copied()
    }

    pub(crate) fn named(&self, id: ConnectionId) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    pub(crate) fn get(&self, slot: usize) -> Option<&Conn> {
        self.slots.get(slot).map(Box::as_ref)
    }

    /// Every slot, in the order of names.
    pub(crate) fn all(&self) -> Vec<usize> {
        self.by_id.values().copied().collect()
    }
}

impl Index<usize> for Table {
    type Output = Conn;

    fn index(&self, slot: usize) -> &Conn {
        &self.slots[slot]
    }
}

impl IndexMut<usize> for Table {
    fn index_mut(&mut self, slot: usize) -> &mut Conn {
        &mut self.slots[slot]
    }
}
