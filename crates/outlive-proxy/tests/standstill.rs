//! A node that stood still for longer than the detection timeout: its peer may serve by now, so it says nothing,
//! neither in answer to packets nor when its timers run out, before it knows.

use std::{net::IpAddr, time::Duration};

use outlive_proxy::{
    Entropy, Node,
    config::{
        Balance, Config, Limits, Listener, NodeId, OpeningMode, PairConfig, Pool, PoolId, Server,
        Timeouts,
    },
    pair::{
        Epoch,
        heartbeat::{Beliefs, Heartbeat, Role},
    },
};
use outlive_tcp::{
    segment::Segment,
    seq::Seq,
    time::Time,
    wire::{Endpoint, Flags, FourTuple, Offload, Options},
};

const STANDSTILL: Duration = Duration::from_secs(1);

fn end(number: u8, port: u16) -> Endpoint {
    Endpoint::new(IpAddr::from([10, 0, 0, number]), port)
}

fn config() -> Config {
    Config {
        node: NodeId::A,
        listeners: vec![Listener {
            name: "web".into(),
            address: end(100, 80),
            opening: OpeningMode::Direct,
            routes: Vec::new(),
            default_pool: Some(PoolId(0)),
            idle_timeout: Duration::from_secs(3_600),
            protection: Default::default(),
        }],
        pools: vec![Pool {
            name: "web".into(),
            balance: Balance::RoundRobin,
            servers: vec![Server { address: end(21, 80) }],
            proxy_protocol: None,
            connect_timeout: Duration::from_secs(30),
            retry_after: Duration::from_secs(10),
        }],
        source_addresses: vec![[10, 0, 0, 101].into()],
        pair: PairConfig::default(),
        timeouts: Timeouts::default(),
        limits: Limits::default(),
        mtu: 1_500,
    }
}

fn poll_all(node: &mut Node) -> usize {
    while node.poll_event().is_some() {}
    std::iter::from_fn(|| node.poll_transmit().map(|_| ())).count()
}

/// A node that serves, whose SYN to a server is unanswered, after a standstill.
fn after_a_standstill() -> (Node, Time) {
    let mut now = Time::from_micros(1_000_000);
    let mut node = Node::new(config(), Entropy([7; 32]), 1_700_000_000_000_000, now);
    for _ in 0..150 {
        now = now + Duration::from_millis(20);
        node.handle_timeout(now);
        poll_all(&mut node);
    }
    assert_eq!(node.beliefs().role, Role::Active);
    let syn = Segment {
        tuple: FourTuple { source: end(10, 10_000), destination: end(100, 80) },
        seq: Seq(1_000),
        ack: None,
        flags: Flags::SYN,
        window: 20_000,
        options: Options::default(),
        payload: &[],
        hop_limit: 64,
    };
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
