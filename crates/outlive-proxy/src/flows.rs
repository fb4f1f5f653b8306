//! Which session or opening a packet belongs to.
//!
//! Every connection is found by the four-tuple its packets carry. A session has two connections, so two
//! entries; an entry is 32 bits, and the tuple itself stands in the session. Strangers choose what is
//! looked up here, so the hash is keyed.

use std::hash::Hasher;

use hashbrown::HashTable;
use outlive_tcp::wire::FourTuple;
use siphasher::sip::SipHasher13;

/// Who sends the packets of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client: the tuple is client to virtual address.
    Client,
    /// The server: the tuple is server to source address.
    Server,
}

impl Side {
    /// The other end.
    pub(crate) fn other(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }
}

/// What a tuple leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// An entry of the session table.
    Session(usize, Side),
    /// A connection that is being opened.
    Opening(usize, Side),
    /// A terminated session.
    Terminated(usize, Side),
}

const OPENING: u32 = 1 << 31;
const SERVER: u32 = 1 << 30;
/// Beside [`OPENING`], so that a spliced session is found out with one look.
const TERMINATED: u32 = 1 << 29;

impl Flow {
    fn pack(self) -> u32 {
        let (base, slot, side) = match self {
            Flow::Session(slot, side) => (0, slot, side),
            Flow::Opening(slot, side) => (OPENING, slot, side),
            Flow::Terminated(slot, side) => (OPENING | TERMINATED, slot, side),
        };
        base | if side == Side::Server { SERVER } else { 0 } | slot as u32
    }

    fn unpack(packed: u32) -> Flow {
        let side = if packed & SERVER == 0 { Side::Client } else { Side::Server };
        if packed & OPENING == 0 {
            return Flow::Session((packed & !SERVER) as usize, side);
        }
        let slot = (packed & !(OPENING | SERVER | TERMINATED)) as usize;
        if packed & TERMINATED == 0 {
            Flow::Opening(slot, side)
        } else {
            Flow::Terminated(slot, side)
        }
    }
}

/// Room for so many connections is made at the start, if there may be so many; 40 bytes for each session then.
const RESERVED: usize = 4 << 20;

/// The index. Every call is given `tuple_of`, which tells the tuple of a flow that is in it.
#[derive(Debug)]
pub(crate) struct FlowTable {
    table: HashTable<u32>,
    key: [u8; 16],
}

impl FlowTable {
    /// With room for `connections` from the beginning: to find new places for a million entries, whose tuples stand
    /// elsewhere, would stop the node for most of a second. (Pages that are not used yet cost nothing.)
    pub(crate) fn new(key: [u8; 16], connections: usize) -> Self {
        FlowTable { table: HashTable::with_capacity(connections.min(RESERVED)), key }
    }

    pub(crate) fn find(
        &self,
        tuple: &FourTuple,
        tuple_of: impl Fn(Flow) -> FourTuple,
    ) -> Option<Flow> {
        let hash = hash(&self.key, tuple);
        let found = self.table.find(hash, |packed| tuple_of(Flow::unpack(*packed)) == *tuple);
        found.map(|packed| Flow::unpack(*packed))
    }

    /// Enters `flow` under `tuple`, which must not be there yet.
    pub(crate) fn insert(
        &mut self,
        tuple: &FourTuple,
        flow: Flow,
        tuple_of: impl Fn(Flow) -> FourTuple,
    ) {
        debug_assert!(self.find(tuple, &tuple_of).is_none(), "{tuple:?} is there already");
        let key = self.key;
        let hash_of = |packed: &u32| hash(&key, &tuple_of(Flow::unpack(*packed)));
        self.table.insert_unique(hash(&key, tuple), flow.pack(), hash_of);
    }

    /// Removes the entry of `tuple` if it is `flow`.
    pub(crate) fn remove(&mut self, tuple: &FourTuple, flow: Flow) {
        let packed = flow.pack();
        if let Ok(entry) = self.table.find_entry(hash(&self.key, tuple), |other| *other == packed) {
            entry.remove();
        }
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }
}

fn hash(key: &[u8; 16], tuple: &FourTuple) -> u64 {
    let mut hasher = SipHasher13::new_with_key(key);
    for end in [tuple.source, tuple.destination] {
        match end.addr {
            std::net::IpAddr::V4(v4) => hasher.write(&v4.octets()),
            std::net::IpAddr::V6(v6) => hasher.write(&v6.octets()),
        }
        hasher.write_u16(end.port);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_survives_packing() {
        for slot in [0, 1, (1 << 28) - 1] {
            for side in [Side::Client, Side::Server] {
                for flow in [
                    Flow::Session(slot, side),
                    Flow::Opening(slot, side),
                    Flow::Terminated(slot, side),
                ] {
                    assert_eq!(Flow::unpack(flow.pack()), flow);
                }
            }
        }
    }
}
