//! A responder over loopback sockets.

use std::{net::UdpSocket as StdSocket, time::Instant};

use mio::{Events, Poll, Token};
use outlive_proxy::{config::NodeId, pair::heartbeat::Role};

use super::{
    wire::{ANSWER_LEN, OrderTicket},
    *,
};
use crate::key::PairKey;

/// A node's responder, and a detector's socket.
struct World {
    poll: Poll,
    clock: Clock,
    responder: Responder,
    socket: StdSocket,
    address: SocketAddr,
    key: WatchKey,
}

fn standby(epoch: u64) -> NodeState {
    NodeState {
        node: NodeId::B,
        role: Role::Standby,
        epoch: Epoch(epoch),
        incarnation: 77,
        synchronised: true,
        unsure: false,
        hears_peer: true,
        peer_is_active: true,
        waits_for_orders: true,
        sessions: 5,
    }
}

fn question(number: u64, epoch: u64) -> Question {
    Question { node: NodeId::B, number, epoch: Epoch(epoch), order: None }
}

impl World {
    fn new() -> Self {
        Self::with_stall_timeout(Duration::from_secs(60))
    }

    fn with_stall_timeout(stall_timeout: Duration) -> Self {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let key = PairKey::generate().unwrap().watch();
        let config = ResponderConfig {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            key: key.clone(),
            stall_timeout,
        };
        let clock = Clock::start();
        let responder = Responder::start(config, clock, standby(10), waker);
        let responder = responder.map_err(|(_, error)| error).unwrap();
        let address = responder.shared.sockets[0].local_addr().unwrap();
        let socket = StdSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        World { poll, clock, responder, socket, address, key }
    }

    fn say(&self, question: &Question) {
        self.socket.send_to(&question.encode(&self.key), self.address).unwrap();
    }

    fn hear(&self) -> Answer {
        let mut buffer = [0; ANSWER_LEN + 1];
        let len = self.socket.recv(&mut buffer).unwrap();
        Answer::decode(&buffer[..len], &self.key).unwrap()
    }

    /// What the event loop is woken for.
    fn news(&mut self) -> News {
        let start = Instant::now();
        let mut events = Events::with_capacity(4);
        loop {
            if let Some(news) = self.responder.take() {
                return news;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "waited in vain");
            self.poll.poll(&mut events, Some(Duration::from_millis(50))).unwrap();
        }
    }
}

#[test]
fn questions_are_answered_without_the_event_loop() {
    let mut world = World::new();
    world.say(&question(8, 10));
    let answer = world.hear();
    assert_eq!((answer.number, answer.state, answer.outcome), (8, standby(10), None));
    assert!(world.responder.take().is_none());
    // What it published last is what is told.
    world.responder.publish(world.clock.now(), NodeState { sessions: 9, ..standby(12) });
    world.say(&question(9, 10));
    assert_eq!(world.hear().state, NodeState { sessions: 9, ..standby(12) });
    // A higher epoch is news for the core.
    world.say(&question(10, 14));
    assert_eq!(world.news().epoch, Epoch(14));
    assert!(world.responder.counters().last_heard.is_some());
}

#[test]
fn an_order_reaches_the_core_if_it_is_given_now() {
    let mut world = World::new();
    world.say(&question(1, 10));
    let challenge = world.hear().challenge;
    let order = |number, incarnation, challenge| Question {
        order: Some(OrderTicket { forced: false, incarnation, challenge }),
        ..question(number, 10)
    };
    // For a process that is gone; recorded long ago.
    for wrong in [order(2, 76, challenge), order(3, 77, challenge ^ 1)] {
        world.say(&wrong);
        assert_eq!(world.hear().outcome, Some(Outcome::Stale));
    }
    assert!(world.responder.take().is_none());

    world.say(&order(4, 77, challenge));
    let (order, pending) = world.news().order.unwrap();
    assert_eq!(order, Order { epoch: Epoch(10), forced: false });
    let active = NodeState { role: Role::Active, ..standby(15) };
    world.responder.publish(world.clock.now(), active);
    world.responder.answer(&pending, Outcome::Accepted);
    let answer = world.hear();
    assert_eq!((answer.number, answer.outcome), (4, Some(Outcome::Accepted)));
    assert_eq!(answer.state.role, Role::Active);
    assert_eq!(world.responder.counters().orders, 1);
}

#[test]
fn strangers_and_the_other_nodes_mail_get_no_answer() {
    let world = World::new();
    let stranger = PairKey::generate().unwrap().watch();
    world.socket.send_to(&question(1, 99).encode(&stranger), world.address).unwrap();
    world.socket.send_to(b"hello", world.address).unwrap();
    world.say(&Question { node: NodeId::A, ..question(2, 99) });
    world.say(&question(3, 10));
    assert_eq!(world.hear().number, 3);
    let counters = world.responder.counters();
    assert_eq!((counters.refused, counters.questions), (3, 1));
    assert!(world.responder.take().is_none());
}

#[test]
fn a_hanging_event_loop_answers_nobody() {
    let world = World::with_stall_timeout(Duration::from_millis(1));
    while world.clock.now().since(Time::ZERO) < Duration::from_millis(20) {
        std::thread::yield_now();
    }
    world.say(&question(1, 10));
    world.socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(world.socket.recv(&mut [0; 100]).is_err());
    // It goes on, as if for ever.
    world.responder.shared.progress.store(u64::MAX, Ordering::Relaxed);
    world.socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    world.say(&question(2, 10));
    assert_eq!(world.hear().number, 2);
}
