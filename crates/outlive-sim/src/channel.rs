//! The state connection: reliable, ordered, made of messages, with a bounded number of bytes under way.
//!
//! When a process dies, what it had sent arrives up to some message and no further; its end is noticed
//! behind that.

use std::collections::VecDeque;

use crate::{network::NodeIndex, rng::Rng};

/// Bytes under way in one direction.
const ROOM: usize = 256 << 10;

/// What arrives at an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// The connection is there.
    Opened,
    /// A message.
    Message(Vec<u8>),
    /// The other end is gone.
    Closed,
}

#[derive(Clone, Debug, Default)]
struct End {
    /// The node has been told of the connection.
    up: bool,
    /// What is under way to it.
    inbox: VecDeque<Item>,
    bytes: usize,
}

/// The state connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Channel {
    ends: [End; 2],
}

impl Channel {
    /// Whether both nodes are without a connection, and nothing is under way.
    pub(crate) fn is_down(&self) -> bool {
        self.ends.iter().all(|end| !end.up && end.inbox.is_empty())
    }

    pub(crate) fn is_up(&self, node: NodeIndex) -> bool {
        self.ends[node].up
    }

    /// A connection is made; two items are under way.
    pub(crate) fn open(&mut self) {
        for end in &mut self.ends {
            end.inbox.push_back(Item::Opened);
        }
    }

    pub(crate) fn has_room(&self, from: NodeIndex) -> bool {
        self.ends[from].up && self.ends[1 - from].bytes < ROOM
    }

    pub(crate) fn send(&mut self, from: NodeIndex, message: Vec<u8>) {
        let to = &mut self.ends[1 - from];
        to.bytes += message.len();
        to.inbox.push_back(Item::Message(message));
    }

    /// What arrives next at `node`.
    pub(crate) fn arrive(&mut self, node: NodeIndex) -> Option<Item> {
        let end = &mut self.ends[node];
        let item = end.inbox.pop_front()?;
        match &item {
            Item::Opened => end.up = true,
            Item::Message(message) => end.bytes -= message.len(),
            Item::Closed => end.up = false,
        }
        Some(item)
    }

    /// `node` closes its end. Whether the other one has to be told.
    pub(crate) fn close(&mut self, node: NodeIndex) -> bool {
        let had = self.ends[node].up || !self.ends[node].inbox.is_empty();
        self.ends[node] = End::default();
        let other = &mut self.ends[1 - node];
        let open = other.up || !other.inbox.is_empty();
        let told = other.inbox.back() == Some(&Item::Closed);
        if had && open && !told {
            other.inbox.push_back(Item::Closed);
            return true;
        }
        false
    }

    /// Loses what is under way to `node`, from a message chosen by `tail` on.
    pub(crate) fn lose_tail(&mut self, node: NodeIndex, tail: Tail, rng: &mut Rng) {
        let end = &mut self.ends[node];
        let keep = match tail {
            Tail::Kept => end.inbox.len(),
            Tail::Lost => 0,
            Tail::Random => rng.below(end.inbox.len() as u64 + 1) as usize,
        };
        end.inbox.truncate(keep);
        end.bytes =
            end.inbox.iter().map(|i| if let Item::Message(m) = i { m.len() } else { 0 }).sum();
    }
}

/// What becomes of the messages under way from a process that dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// All arrive.
    Kept,
    /// None arrives.
    Lost,
    /// They arrive up to some message.
    Random,
}
