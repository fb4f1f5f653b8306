//! Orders of an external detector: which are obeyed, and who yields to an epoch that it has seen.

mod bench;

use std::time::Duration;

use bench::config;
use outlive_proxy::{
    Entropy, Node,
    config::{Config, Detector, NodeId, PairConfig},
    pair::{
        Epoch,
        heartbeat::{Beliefs, Heartbeat, Role},
        order::{Order, Outcome},
    },
};
use outlive_tcp::time::Time;

const PEERS_EPOCH: Epoch = Epoch(3_400_000_000_001);

fn node(enabled: bool) -> (Node, Time) {
    let pair = PairConfig { enabled, detector: Detector::External, ..PairConfig::default() };
    let now = Time::from_micros(1_000_000);
    let config = Config { pair, node: NodeId::A, ..config() };
    let node = Node::new(config, Entropy([7; 32]), 1_700_000_000_000_000, now);
    (node, now)
}

fn hear(node: &mut Node, now: Time, counter: u64) {
    let beliefs = Beliefs {
        node: NodeId::B,
        incarnation: 3,
        epoch: PEERS_EPOCH,
        role: Role::Active,
        synchronised: false,
    };
    let clock_us = node.clock_us(now);
    let heartbeat = Heartbeat { beliefs, asks: false, clock_us, counter, heard: 0 };
    node.handle_heartbeat(now, 0, now, &heartbeat);
    node.handle_timeout(now);
}

#[test]
fn a_standby_obeys_only_what_is_of_now_and_safe() {
    let (mut node, mut now) = node(true);
    hear(&mut node, now, 1);
    assert_eq!(node.beliefs().role, Role::Standby);
    let order = |epoch, forced| Order { epoch: Epoch(epoch), forced };
    let past = order(PEERS_EPOCH.0 - 1, true);
    assert_eq!(node.handle_order(now, past), Outcome::Stale);
    let unsafe_now = order(PEERS_EPOCH.0, false);
    assert_eq!(node.handle_order(now, unsafe_now), Outcome::NotSynchronised);

    // Without an order it waits, however long its peer is silent.
    for _ in 0..100 {
        now = now + Duration::from_millis(20);
        node.handle_timeout(now);
    }
    assert_eq!(node.beliefs().role, Role::Standby);
    assert_eq!(node.handle_order(now, order(PEERS_EPOCH.0, true)), Outcome::Accepted);
    node.handle_timeout(now);
    assert_eq!(node.beliefs().role, Role::Active);
    assert!(node.beliefs().epoch > PEERS_EPOCH);
    let again = node.handle_order(now, order(PEERS_EPOCH.0, true));
    assert_eq!(again, Outcome::AlreadyActive);
    assert!(again.obeys() && !Outcome::Stale.obeys());
}

#[test]
fn an_active_node_yields_to_its_peers_higher_epoch_that_the_detector_has_seen() {
    let (mut node, now) = node(true);
    node.handle_order(now, Order { epoch: Epoch::NONE, forced: true });
    node.handle_timeout(now);
    let own = node.beliefs();
    assert_eq!(own.role, Role::Active);
    for harmless in [own.epoch, Epoch(own.epoch.0 - 1), Epoch(own.epoch.0 + 2)] {
        // Its own, the peer's last one, and one that only this node can have begun.
        node.handle_epoch(now, harmless);
        assert_eq!(node.beliefs(), own, "{harmless}");
    }
    let peers = Epoch(own.epoch.0 + 3);
    node.handle_epoch(now, peers);
    assert_eq!((node.beliefs().role, node.beliefs().epoch), (Role::Standby, peers));
}

#[test]
fn a_node_without_a_peer_takes_no_orders() {
    let (mut node, now) = node(false);
    let order = Order { epoch: Epoch::NONE, forced: true };
    assert_eq!(node.handle_order(now, order), Outcome::NoPeer);
}
