//! Heartbeat threads over loopback sockets.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use mio::{Events, Poll, Token};
use outlive_proxy::{
    config::NodeId,
    pair::{Epoch, heartbeat::Role},
};

use super::*;

const KEY: HeartbeatKey = HeartbeatKey([3; 16]);

fn free_address() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn outgoing(node: NodeId, epoch: u64) -> Outgoing {
    let role = if node == NodeId::A { Role::Active } else { Role::Standby };
    let beliefs = Beliefs {
        node,
        incarnation: 70 + u64::from(node == NodeId::B),
        epoch: Epoch(epoch),
        role,
        synchronised: false,
    };
    Outgoing { beliefs, asks: false, clock_offset_us: 1_000_000_000 }
}

/// A node's heartbeats with the poll of its event loop.
struct Node {
    poll: Poll,
    clock: Clock,
    beats: Heartbeats,
    heard: Vec<(usize, Heartbeat)>,
    wakes: usize,
}

impl Node {
    fn start(node: NodeId, paths: Vec<(SocketAddr, SocketAddr)>, interval: Duration) -> Self {
        Self::with_key(node, paths, interval, KEY)
    }

    fn with_key(
        node: NodeId,
        paths: Vec<(SocketAddr, SocketAddr)>,
        interval: Duration,
        key: HeartbeatKey,
    ) -> Self {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let stall_timeout = Duration::from_secs(5);
        let config = HeartbeatConfig { paths, key, interval, stall_timeout };
        let clock = Clock::start();
        let beats = Heartbeats::start(config, clock, outgoing(node, 2), waker);
        let beats = beats.map_err(|(_, error)| error).unwrap();
        Node { poll, clock, beats, heard: Vec::new(), wakes: 0 }
    }

    fn turn(&mut self) {
        let mut events = Events::with_capacity(4);
        self.poll.poll(&mut events, Some(Duration::from_millis(2))).unwrap();
        self.wakes += events.iter().count();
        self.beats.progress(self.clock.now());
        self.beats.take(|path, _, heartbeat| self.heard.push((path, *heartbeat)));
    }

    fn until(&mut self, mut done: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < Duration::from_secs(20), "waited in vain");
            self.turn();
        }
    }
}

const FAST: Duration = Duration::from_millis(5);
/// So long that only what is sent at once is seen.
const NEVER: Duration = Duration::from_secs(3_600);

#[test]
fn two_nodes_hear_each_other_on_every_path() {
    let own = [free_address(), free_address()];
    let peer = [free_address(), free_address()];
    let there = |one: [SocketAddr; 2], other: [SocketAddr; 2]| one.into_iter().zip(other).collect();
    let mut a = Node::start(NodeId::A, there(own, peer), FAST);
    let mut b = Node::start(NodeId::B, there(peer, own), FAST);
    a.until(|node| (0..2).all(|path| node.heard.iter().any(|(on, _)| *on == path)));
    b.until(|node| node.heard.len() > 4);
    let (_, last) = b.heard.last().unwrap();
    assert_eq!(last.beliefs, outgoing(NodeId::A, 2).beliefs);
    assert!(last.clock_us > 1_000_000_000 && last.clock_us < 1_060_000_000);
    a.until(|node| node.heard.last().is_some_and(|(_, heartbeat)| heartbeat.heard > 0));

    // What is believed now is said at once, and the other event loop is woken for it.
    let wakes = b.wakes;
    a.beats.publish(outgoing(NodeId::A, 4));
    b.until(|node| node.heard.last().is_some_and(|(_, h)| h.beliefs.epoch == Epoch(4)));
    assert!(b.wakes > wakes);
    let counters = b.beats.counters();
    assert!(
        counters
            .iter()
            .all(|path| path.received > 0 && path.refused == 0 && path.last_heard.is_some())
    );
}

#[test]
fn a_question_is_answered_at_once_and_not_asked_back() {
    let (own, peer) = (free_address(), free_address());
    let mut a = Node::start(NodeId::A, vec![(own, peer)], NEVER);
    let _b = Node::start(NodeId::B, vec![(peer, own)], NEVER);
    // Whichever began first was not heard; the question is.
    let before = a.beats.publish(Outgoing { asks: true, ..outgoing(NodeId::A, 2) }).unwrap();
    a.until(|node| node.heard.iter().any(|(_, heartbeat)| heartbeat.heard > before));
    assert!(a.heard.iter().all(|(_, heartbeat)| !heartbeat.asks));
}

#[test]
fn a_hanging_event_loop_silences_the_node() {
    let (own, peer) = (free_address(), free_address());
    let socket = UdpSocket::bind(peer).unwrap();
    let poll = Poll::new().unwrap();
    let main = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
    let config = HeartbeatConfig {
        paths: vec![(own, peer)],
        key: KEY,
        interval: FAST,
        stall_timeout: Duration::from_millis(100),
    };
    let clock = Clock::start();
    let beats = Heartbeats::start(config, clock, outgoing(NodeId::A, 2), main);
    let beats = beats.map_err(|(_, error)| error).unwrap();
    // Nobody reports progress: after a while nothing comes any more.
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut buffer = [0; 100];
    let mut heard = 0;
    while socket.recv(&mut buffer).is_ok() {
        heard += 1;
        assert!(heard < 1_000, "the node goes on claiming to live");
    }
    assert!(heard > 0);
    beats.progress(clock.now());
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert!(socket.recv(&mut buffer).is_ok());
}

#[test]
fn forged_and_repeated_datagrams_are_counted_and_go_nowhere() {
    let (own, peer) = (free_address(), free_address());
    let mut a = Node::start(NodeId::A, vec![(own, peer)], NEVER);
    let socket = UdpSocket::bind(peer).unwrap();
    let real = Heartbeat {
        beliefs: outgoing(NodeId::B, 2).beliefs,
        asks: false,
        clock_us: 5,
        counter: 9,
        heard: 1,
    };
    let own_name = Heartbeat { beliefs: outgoing(NodeId::A, 2).beliefs, ..real };
    for datagram in [
        real.encode(HeartbeatKey([4; 16])).to_vec(),
        own_name.encode(KEY).to_vec(),
        [real.encode(KEY).as_slice(), b"x"].concat(),
        vec![],
        real.encode(KEY).to_vec(),
        real.encode(KEY).to_vec(),
    ] {
        socket.send_to(&datagram, own).unwrap();
    }
    a.until(|node| node.beats.counters()[0].replayed == 1);
    let counters = a.beats.counters()[0];
    assert_eq!((counters.refused, counters.received), (4, 1));
    a.turn();
    assert_eq!(a.heard, [(0, real)]);
}

#[test]
fn the_path_whose_address_is_not_here_is_named() {
    let poll = Poll::new().unwrap();
    let main = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
    let elsewhere = "192.0.2.1:7401".parse().unwrap();
    let config = HeartbeatConfig {
        paths: vec![(free_address(), elsewhere), (elsewhere, elsewhere)],
        key: KEY,
        interval: FAST,
        stall_timeout: FAST,
    };
    let refused = Heartbeats::start(config, Clock::start(), outgoing(NodeId::A, 2), main);
    let (path, error) = refused.err().unwrap();
    assert_eq!((path, error.kind()), (Some(1), io::ErrorKind::AddrNotAvailable));
}
