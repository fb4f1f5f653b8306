//! The conversation with the other node: what is told of which connection, and what is confirmed.
//!
//! The active node keeps no log of records: it keeps the connections of which something is to be told,
//! each once, and makes a record when there is room in the transport, of what the connection is then.
//! So a slow standby costs memory for no more than what the connections themselves may hold, and what
//! came meanwhile is told in one. Of each connection one record with effects is under way at a time.

mod held;
mod message;
mod record;
mod tell;

use std::collections::VecDeque;

use outlive_proxy::EpochKey;
use outlive_tcp::time::Time;

pub(crate) use self::held::{Copy as HeldCopy, Held};
use self::message::Hello;
pub use self::message::{MAX_STATE_MESSAGE, StateError};
use crate::id::ConnectionId;

/// Ended connections of which the standby has not been told; more, and it is synchronised anew.
const ENDED_LIMIT: usize = 1 << 20;

/// What is to be told.
#[derive(Clone, Copy, Debug)]
enum Item {
    /// How far the connection is.
    Connection(ConnectionId),
    /// That it is over.
    Ended(ConnectionId),
    /// That this was everything.
    Complete,
}

/// How far the conversation is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// There is no connection.
    Down,
    /// The peer has not said who it is.
    Greeting,
    /// This node tells.
    Telling,
    /// This node holds.
    Holding,
}

/// A record that leaves in parts.
#[derive(Debug)]
struct Leaving {
    number: u64,
    bytes: Vec<u8>,
    at: usize,
}

/// A record that the standby has not confirmed.
#[derive(Clone, Copy, Debug)]
struct Owed {
    number: u64,
    since: Time,
    what: Option<ConnectionId>,
}

/// This node's end of the conversation.
#[derive(Debug)]
pub(crate) struct Link {
    phase: Phase,
    /// What is to be said first.
    hello: Option<Hello>,
    begin: bool,
    /// The peer's process.
    peer: u64,

    queue: VecDeque<Item>,
    /// Since when the front of the queue waits.
    waiting_since: Option<Time>,
    ended: usize,
    overflowed: bool,
    /// Connections that the standby must be told of before it has everything.
    missing: usize,
    leaving: Option<Leaving>,
    last_number: u64,
    owed: VecDeque<Owed>,
    /// [`Item::Complete`] is in the queue, or has left it.
    complete: bool,
    /// Its number and its key, until it is confirmed.
    completing: Option<(u64, EpochKey)>,

    pub(crate) held: Held,
    /// The number of the last record that has come whole.
    got: u64,
    confirm: bool,
}

/// What a message means for the node.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// The roles do not fit (yet).
    TooEarly,
    /// The standby holds everything, and the pair begins an epoch.
    Paired(EpochKey),
    /// This standby holds everything.
    Synchronised(EpochKey),
}

impl Link {
    pub(crate) fn new() -> Self {
        Link {
            phase: Phase::Down,
            hello: None,
            begin: false,
            peer: 0,
            queue: VecDeque::new(),
            waiting_since: None,
            ended: 0,
            overflowed: false,
            missing: 0,
            leaving: None,
            last_number: 0,
            owed: VecDeque::new(),
            complete: false,
            completing: None,
            held: Held::default(),
            got: 0,
            confirm: false,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.phase != Phase::Down
    }

    pub(crate) fn is_telling(&self) -> bool {
        self.phase == Phase::Telling
    }

    /// Every connection was told, and nothing has an effect any more before it was.
    pub(crate) fn is_complete(&self) -> bool {
        self.phase == Phase::Telling && self.complete
    }

    /// The process at the other end.
    pub(crate) fn peer(&self) -> u64 {
        self.peer
    }

    pub(crate) fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// There is a connection, and nothing was said on it.
    pub(crate) fn connected(&mut self, beliefs: &outlive_proxy::pair::heartbeat::Beliefs) {
        self.phase = Phase::Greeting;
        self.hello = Some(Hello::of(beliefs));
    }

    /// There is none. What was told and not confirmed is as if it had not been told.
    pub(crate) fn closed(&mut self) {
        let mut held = std::mem::take(&mut self.held);
        held.interrupt();
        *self = Link { held, ..Link::new() };
    }

    /// Since when the standby owes a confirmation, or the transport room.
    pub(crate) fn owed_since(&self) -> Option<Time> {
        let owed = self.owed.front().map(|owed| owed.since);
        owed.into_iter().chain(self.waiting_since).min()
    }

    /// How much waits: connections to be told of, and records to be confirmed.
    pub(crate) fn backlog(&self) -> (usize, usize) {
        (self.queue.len(), self.owed.len())
    }

    /// A connection of which the standby was told is over.
    pub(crate) fn tell_ended(&mut self, id: ConnectionId) {
        if self.phase != Phase::Telling {
            return;
        }
        self.ended += 1;
        self.overflowed |= self.ended > ENDED_LIMIT;
        self.queue.push_back(Item::Ended(id));
    }

    fn push(&mut self, now: Time, item: Item) {
        self.waiting_since.get_or_insert(now);
        self.queue.push_back(item);
    }
}
