//! Epochs: who acts, numbered.

use std::fmt;

use outlive_tcp::fault::{self, Fault};

use crate::config::NodeId;

/// The number of a reign. A takeover raises it, and whoever sees a higher one stops at once.
///
/// The lowest bit names the node that began the epoch, so two nodes that each believe the other dead never
/// begin the same one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Before any.
    pub const NONE: Epoch = Epoch(0);

    fn next(self, node: NodeId, generations: u64) -> Epoch {
        let bit = u64::from(node == NodeId::B && !fault::on(Fault::SameEpochTwice));
        Epoch((((self.0 >> 1) + generations) << 1) | bit)
    }

    /// The epoch that `node` begins when it goes on without its peer, or pairs with it again.
    pub fn next_of_active(self, node: NodeId) -> Epoch {
        self.next(node, 1)
    }

    /// The epoch that `node` begins when it takes over. Two steps: higher than what the old active node
    /// begins if it goes on alone at the same time, cut off from everybody, so that when they meet again
    /// the one that took the clients over stays.
    pub fn next_of_takeover(self, node: NodeId) -> Epoch {
        if fault::on(Fault::EpochNotRaised) {
            return self;
        }
        self.next(node, 2)
    }

    /// The node that began it.
    pub fn owner(self) -> NodeId {
        if self.0 & 1 == 0 { NodeId::A } else { NodeId::B }
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.0 >> 1, if self.owner() == NodeId::A { 'a' } else { 'b' })
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_takeover_outranks_going_on_alone() {
        for start in [Epoch(0), Epoch(17), Epoch(18)] {
            for (alone, taker) in [(NodeId::A, NodeId::B), (NodeId::B, NodeId::A)] {
                assert!(start.next_of_takeover(taker) > start.next_of_active(alone));
                assert!(start.next_of_active(alone) > start);
                assert_eq!(start.next_of_takeover(taker).owner(), taker);
            }
        }
    }
}
