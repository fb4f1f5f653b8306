//! The standby's copy: what it would go on with.

use std::collections::BTreeMap;

use bytes::Bytes;
use outlive_tcp::{
    seq::Seq,
    wire::{Endpoint, FourTuple},
};

use super::{
    message::StateError,
    record::{self, OVERHEAD, Record, Update},
};
use crate::{config::StackConfig, id::ConnectionId};

/// One connection.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) capture: Vec<u8>,
    pub(crate) state: Bytes,
    pub(crate) clock_us: u64,
    pub(crate) irs: Seq,
    pub(crate) acknowledged: u64,
    pub(crate) written: u64,
    pub(crate) released: bool,
    pub(crate) regenerates: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Held {
    copies: BTreeMap<ConnectionId, Copy>,
    /// The record of which parts have come.
    partial: Vec<u8>,
    /// Everything of the active node's epoch is in it.
    pub(crate) complete: bool,
}

impl Held {
    pub(crate) fn len(&self) -> usize {
        self.copies.len()
    }

    /// Nothing of it counts any more.
    pub(crate) fn clear(&mut self) {
        *self = Held::default();
    }

    /// The connection on which parts came is gone.
    pub(crate) fn interrupt(&mut self) {
        self.partial = Vec::new();
    }

    /// All copies; none is held any more.
    pub(crate) fn take(&mut self) -> BTreeMap<ConnectionId, Copy> {
        std::mem::take(self).copies
    }

    /// Takes a part of a record; applies the record if it is the last. Gives the ends and the other
    /// end's initial sequence number of a connection that is over.
    pub(super) fn part(
        &mut self,
        bytes: &[u8],
        last: bool,
        config: &StackConfig,
    ) -> Result<Option<(FourTuple, Seq)>, StateError> {
        let most = config.state_limit + config.tcp.send_buffer as usize + OVERHEAD;
        if self.partial.len() + bytes.len() > most {
            return Err(StateError::TooMuch);
        }
        if !last {
            self.partial.extend_from_slice(bytes);
            return Ok(None);
        }
        if self.partial.is_empty() {
            return self.apply(bytes, config);
        }
        self.partial.extend_from_slice(bytes);
        let whole = std::mem::take(&mut self.partial);
        self.apply(&whole, config)
    }

    fn apply(
        &mut self,
        bytes: &[u8],
        config: &StackConfig,
    ) -> Result<Option<(FourTuple, Seq)>, StateError> {
        match Record::decode(bytes)? {
            Record::Connection(update) => self.update(&update, config).map(|()| None),
            Record::Ended(id) => {
                Ok(self.copies.remove(&id).and_then(|copy| Some((ends(&copy.capture)?, copy.irs))))
            }
        }
    }

    fn update(&mut self, update: &Update<'_>, config: &StackConfig) -> Result<(), StateError> {
        let known = self.copies.remove(&update.id);
        if known.is_none() && (!update.full || self.copies.len() >= config.connections) {
            return Err(if update.full { StateError::TooMuch } else { StateError::Malformed });
        }
        let output = known.as_ref().and_then(|copy| record::output(&copy.capture));
        let state = match update.state {
            Some(state) => Bytes::copy_from_slice(state),
            None => known.as_ref().map(|copy| copy.state.clone()).unwrap_or_default(),
        };
        let copy = Copy {
            capture: update.whole(output.unwrap_or_default())?,
            state,
            clock_us: update.clock_us,
            irs: update.irs,
            acknowledged: update.acknowledged,
            written: update.written,
            released: update.released,
            regenerates: update.regenerates,
        };
        self.copies.insert(update.id, copy);
        Ok(())
    }
}

/// As packets sent have them; IPv4 as IPv4-mapped, which is the same to whoever hashes them.
fn ends(capture: &[u8]) -> Option<FourTuple> {
    let bytes: &[u8; 36] = record::ends(capture)?.try_into().ok()?;
    let end = |address: usize, port: usize| {
        let address: [u8; 16] = bytes[address..address + 16].try_into().ok()?;
        let port = u16::from_be_bytes([bytes[port], bytes[port + 1]]);
        Some(Endpoint::new(std::net::Ipv6Addr::from(address).into(), port))
    };
    Some(FourTuple::new(end(0, 32)?, end(16, 34)?))
}
