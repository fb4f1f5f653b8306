//! Orders: what an external detector tells a node, and why the node may refuse.
//!
//! Where the pair is watched from outside (a third machine that can redirect the packets), silence alone does not
//! make a standby active: it waits for an order. An order names the highest epoch that the detector has seen of
//! either node, so one that is about the past has no effect, and one that is repeated has none either.

use super::Epoch;

/// An order to take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// The highest epoch that the detector has seen of either node.
    pub epoch: Epoch,
    /// Also with a picture that is not complete, or with none at all: what is missing is lost.
    pub forced: bool,
}

/// What a node makes of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It takes over, as soon as it has read to its end what its peer had still sent.
    Accepted,
    /// It is active already: nothing to do.
    AlreadyActive,
    /// It knows of a later epoch than the order: that is about the past.
    Stale,
    /// It does not hold every session of the highest epoch, and the order is not forced.
    NotSynchronised,
    /// It has no peer in its configuration.
    NoPeer,
}

impl Outcome {
    /// Whether the node is active now, or about to be.
    pub fn obeys(self) -> bool {
        matches!(self, Outcome::Accepted | Outcome::AlreadyActive)
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Outcome::Accepted => "accepted",
            Outcome::AlreadyActive => "the node is active already",
            Outcome::Stale => "the order is about an epoch that is over",
            Outcome::NotSynchronised => "the node does not hold every session",
            Outcome::NoPeer => "the node has no peer in its configuration",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use outlive_tcp::time::Time;

    use super::*;
    use crate::{
        config::{Detector, NodeId, PairConfig},
        event::TakeoverCause,
        pair::{
            Decision, Pair,
            heartbeat::{Beliefs, Heartbeat, Role},
        },
    };

    const FLOOR: Epoch = Epoch(1_000);
    const REIGN: Epoch = Epoch(2_000);
    const LONG: Time = Time::from_micros(3_600_000_000);

    fn external(node: NodeId) -> Pair {
        let config = PairConfig { detector: Detector::External, ..PairConfig::default() };
        Pair::new(config, node, 7, FLOOR, Time::ZERO)
    }

    /// Node b, standby of a in [`REIGN`], with everything.
    fn standby() -> Pair {
        let mut pair = external(NodeId::B);
        pair.heard(0, Time::ZERO, &active(REIGN));
        let joined = pair.decide(Time::ZERO).unwrap();
        assert_eq!(joined, Decision::Join(REIGN));
        pair.done(joined);
        pair.synchronised(REIGN);
        pair
    }

    fn active(epoch: Epoch) -> Heartbeat {
        let beliefs = Beliefs {
            node: NodeId::A,
            incarnation: 1,
            epoch,
            role: Role::Active,
            synchronised: false,
        };
        Heartbeat { beliefs, asks: false, clock_us: 0, counter: 1, heard: 0 }
    }

    fn to(epoch: Epoch) -> Order {
        Order { epoch, forced: false }
    }

    fn forced(epoch: Epoch) -> Order {
        Order { epoch, forced: true }
    }

    #[test]
    fn silence_alone_makes_nobody_active() {
        let mut pair = standby();
        pair.refused();
        assert_eq!(pair.decide(LONG), None);
        let joining = external(NodeId::A);
        assert_eq!(joining.decide(LONG), None);
    }

    #[test]
    fn an_order_is_obeyed_once_however_often_it_is_given() {
        let mut pair = standby();
        assert_eq!(pair.ordered(to(REIGN)), Outcome::Accepted);
        assert_eq!(pair.ordered(to(REIGN)), Outcome::Accepted);
        // Also while the peer is heard: a detector may want the other node for reasons of its own.
        let decision = pair.decide(Time::ZERO).unwrap();
        assert_eq!(decision, Decision::TakeOver(TakeoverCause::Ordered));
        pair.done(decision);
        assert_eq!(pair.epoch(), REIGN.next_of_takeover(NodeId::B));
        let before = pair.epoch();
        assert_eq!(pair.ordered(to(REIGN)), Outcome::AlreadyActive);
        assert_eq!((pair.decide(Time::ZERO), pair.epoch()), (None, before));
    }

    #[test]
    fn an_order_about_the_past_is_refused() {
        let mut pair = standby();
        assert_eq!(pair.ordered(to(Epoch(REIGN.0 - 2))), Outcome::Stale);
        assert_eq!(pair.ordered(forced(Epoch(REIGN.0 - 2))), Outcome::Stale);
        // Accepted, but then the active node is heard of in a later epoch.
        assert_eq!(pair.ordered(to(REIGN)), Outcome::Accepted);
        pair.heard(0, Time::ZERO, &active(Epoch(REIGN.0 + 2)));
        assert_eq!(pair.decide(Time::ZERO), None);
        assert_eq!(pair.ordered(to(REIGN)), Outcome::Stale);
    }

    #[test]
    fn an_incomplete_picture_is_used_only_if_that_is_said() {
        let mut pair = standby();
        // The active node went on alone; only the detector knows.
        let alone = REIGN.next_of_active(NodeId::A);
        assert!(!pair.told_of(alone));
        assert_eq!(pair.ordered(to(alone)), Outcome::NotSynchronised);
        assert_eq!(pair.decide(LONG), None);
        assert_eq!(pair.ordered(forced(alone)), Outcome::Accepted);
        pair.done(pair.decide(LONG).unwrap());
        assert!(pair.epoch() > alone);
    }

    #[test]
    fn a_node_that_knows_nothing_starts_above_all_that_was_seen() {
        for seen in [Epoch::NONE, Epoch(FLOOR.0 + 50)] {
            let mut pair = external(NodeId::A);
            assert_eq!(pair.ordered(to(seen)), Outcome::NotSynchronised);
            assert_eq!(pair.ordered(forced(seen)), Outcome::Accepted);
            pair.done(pair.decide(Time::ZERO).unwrap());
            assert!(pair.is_active());
            assert!(pair.epoch() > seen && pair.epoch() > FLOOR);
        }
    }

    #[test]
    fn an_active_node_yields_to_a_higher_epoch_of_its_peer_only() {
        let mut pair = external(NodeId::A);
        pair.ordered(forced(REIGN));
        pair.done(pair.decide(Time::ZERO).unwrap());
        let own = pair.epoch();
        assert!(!pair.told_of(own));
        // The next one of its own: its standby knew of it first.
        assert!(!pair.told_of(own.next_of_active(NodeId::A)));
        assert!(pair.told_of(own.next_of_takeover(NodeId::B)));
        pair.done(Decision::StepDown(own.next_of_takeover(NodeId::B)));
        assert!(!pair.is_active());
    }

    #[test]
    fn both_starting_nodes_agree_without_an_order() {
        let mut pair = external(NodeId::A);
        let now = Time::ZERO + Duration::from_millis(10);
        let joining =
            Beliefs { node: NodeId::B, role: Role::Joining, ..active(Epoch::NONE).beliefs };
        pair.heard(0, now, &Heartbeat { beliefs: joining, ..active(Epoch::NONE) });
        assert_eq!(pair.decide(now), Some(Decision::Start));
    }
}
