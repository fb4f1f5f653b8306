//! Who waits for connections at an address, and how many may wait for him.

use std::collections::{BTreeMap, VecDeque};

use outlive_tcp::wire::Endpoint;

use crate::id::ConnectionId;

/// One address that is listened at.
#[derive(Debug, Default)]
pub(crate) struct Listener {
    /// Connections that may be half open, and that may wait.
    pub(crate) backlog: usize,
    /// Handshakes that are not complete, or not confirmed by the standby.
    pub(crate) half_open: usize,
    /// Connections that wait to be accepted.
    pub(crate) queue: VecDeque<ConnectionId>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Listeners(BTreeMap<Endpoint, Listener>);

impl Listeners {
    pub(crate) fn insert(&mut self, local: Endpoint, listener: Listener) {
        self.0.insert(local, listener);
    }

    pub(crate) fn remove(&mut self, local: Endpoint) -> Option<Listener> {
        self.0.remove(&local)
    }

    pub(crate) fn get(&self, local: Endpoint) -> Option<&Listener> {
        self.0.get(&local)
    }

    pub(crate) fn get_mut(&mut self, local: Endpoint) -> Option<&mut Listener> {
        self.0.get_mut(&local)
    }

    /// A handshake ends, or becomes one that somebody waits for.
    pub(crate) fn leave_half_open(&mut self, local: Endpoint) {
        if let Some(listener) = self.0.get_mut(&local) {
            listener.half_open = listener.half_open.saturating_sub(1);
        }
    }
}

impl Listener {
    /// A SYN may cost memory.
    pub(crate) fn has_room(&self) -> bool {
        self.half_open < self.backlog && self.can_queue()
    }

    /// One more connection may wait to be accepted.
    pub(crate) fn can_queue(&self) -> bool {
        self.queue.len() < self.backlog
    }
}
