//! A node that stood still for longer than the detection timeout: its peer may serve by now, so it says nothing,
//! neither in answer to packets nor when its timers run out, before it knows.

mod bench;

use std::time::Duration;

use bench::{CLIENT_ISN, client, config, listener, segment};
use outlive_proxy::{
    Entropy, Node,
    config::{Config, NodeId, PairConfig},
    pair::{
        Epoch,
        heartbeat::{Beliefs, Heartbeat, Role},
    },
};
use outlive_tcp::{
    time::Time,
    wire::{Flags, Offload},
};

const STANDSTILL: Duration = Duration::from_secs(1);

fn poll_all(node: &mut Node) -> usize {
    while node.poll_event().is_some() {}
    std::iter::from_fn(|| node.poll_transmit().map(|_| ())).count()
}

/// A node that serves, whose SYN to a server is unanswered, after a standstill.
fn after_a_standstill() -> (Node, Time) {
    let mut now = Time::from_micros(1_000_000);
    let config = Config { pair: PairConfig::default(), ..config() };
    let mut node = Node::new(config, Entropy([7; 32]), 1_700_000_000_000_000, now);
    for _ in 0..150 {
        now = now + Duration::from_millis(20);
        node.handle_timeout(now);
        poll_all(&mut node);
    }
    assert_eq!(node.beliefs().role, Role::Active);
    let syn = segment(client(1), listener(), CLIENT_ISN, None, Flags::SYN);
    let mut buffer = vec![0; 64];
    syn.emit(&mut buffer);
    let end = buffer.len();
    node.handle_packet(now, &mut buffer, 64, end, Offload::default());
    assert_eq!(poll_all(&mut node), 1, "the server is asked");

    let now = now + STANDSTILL;
    node.handle_timeout(now);
    assert!(node.asks());
    assert_eq!(poll_all(&mut node), 0, "its SYN is to be repeated, but it may not know everything");
    (node, now)
}

#[test]
fn a_node_that_nobody_contradicts_goes_on_with_what_it_had_to_say() {
    let (mut node, mut now) = after_a_standstill();
    let mut sent = 0;
    while node.asks() {
        assert_eq!(sent, 0);
        now = now + Duration::from_millis(20);
        node.handle_timeout(now);
        sent = poll_all(&mut node);
    }
    assert_eq!(sent, 1, "the SYN is repeated, once");
}

#[test]
fn a_node_whose_peer_serves_by_now_says_nothing_more() {
    let (mut node, now) = after_a_standstill();
    node.handle_asked(5);
    let beliefs = Beliefs {
        node: NodeId::B,
        incarnation: 3,
        epoch: Epoch(node.beliefs().epoch.0 + 5),
        role: Role::Active,
        synchronised: false,
    };
    let clock_us = node.clock_us(now);
    let heartbeat = Heartbeat { beliefs, asks: false, clock_us, counter: 9, heard: 6 };
    node.handle_heartbeat(now, 0, now, &heartbeat);
    assert_eq!(node.beliefs().role, Role::Standby);
    assert!(!node.asks());
    assert_eq!(poll_all(&mut node), 0, "what waited is forgotten");
}
