//! Channels against each other, and endpoints over loopback sockets.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use mio::{Events, Poll};
use outlive_proxy::config::NodeId;
use outlive_tcp::time::Time;

use super::*;

const KEY: [u8; 32] = [7; 32];
const A: Preamble = Preamble { node: NodeId::A, incarnation: 1 };
const B: Preamble = Preamble { node: NodeId::B, incarnation: 2 };

/// Carries what is outbound at one end to the other, `step` bytes at a time, until nothing moves.
fn exchange(one: &mut Channel, other: &mut Channel, step: usize) -> [Vec<String>; 2] {
    let mut told = [Vec::new(), Vec::new()];
    let mut moved = true;
    while moved {
        moved = false;
        for (number, forth) in [(0, true), (1, false)] {
            let (from, to) =
                if forth { (&mut *one, &mut *other) } else { (&mut *other, &mut *one) };
            while !from.outbound().is_empty() {
                let len = from.outbound().len().min(step);
                to.receive(&from.outbound()[..len]);
                from.sent(len);
                moved = true;
                loop {
                    match to.poll() {
                        Ok(None) => break,
                        Ok(Some(event)) => told[1 - number].push(format!("{event:?}")),
                        Err(failure) => {
                            told[1 - number].push(format!("{failure:?}"));
                            break;
                        }
                    }
                }
            }
        }
    }
    told
}

fn push(channel: &mut Channel, message: &[u8]) {
    assert_eq!(
        channel.push_with(|out| {
            out.extend_from_slice(message);
            true
        }),
        Ok(true)
    );
}

#[test]
fn messages_arrive_whole_and_in_order_however_the_bytes_are_cut() {
    for step in [1, 7, 48, 100_000] {
        let mut dialer = Channel::new(Side::Dialer, B, KEY);
        let mut listener = Channel::new(Side::Listener, A, KEY);
        assert!(!dialer.has_room(), "nothing may be sent before the peer is known");
        assert_eq!(exchange(&mut dialer, &mut listener, step), [["Open"], ["Open"]]);

        push(&mut dialer, b"one");
        push(&mut dialer, b"");
        assert_eq!(dialer.push_with(|_| false), Ok(false));
        push(&mut dialer, b"three");
        push(&mut listener, b"back");
        dialer.seal();
        listener.seal();
        let told = exchange(&mut dialer, &mut listener, step);
        let message = |bytes: &[u8]| format!("{:?}", ChannelEvent::Message(bytes));
        assert_eq!(
            told,
            [vec![message(b"back")], vec![message(b"one"), message(b""), message(b"three")]]
        );
    }
}

#[test]
fn the_longest_messages_fill_the_buffer_and_no_more() {
    let mut dialer = Channel::new(Side::Dialer, B, KEY);
    let mut listener = Channel::new(Side::Listener, A, KEY);
    exchange(&mut dialer, &mut listener, usize::MAX);
    let mut pushed = 0;
    while dialer.has_room() {
        push(&mut dialer, &[pushed; MAX_MESSAGE]);
        pushed += 1;
    }
    dialer.seal();
    assert!(dialer.outbound().len() <= SEND_LIMIT + MAX_MESSAGE + 1_000);
    let [_, told] = exchange(&mut dialer, &mut listener, 10_000);
    assert_eq!(told.len(), usize::from(pushed));
    assert!(dialer.has_room());

    let too_long = dialer.push_with(|out| {
        out.resize(out.len() + MAX_MESSAGE + 1, 0);
        true
    });
    assert_eq!(too_long, Err(Failure::TooLong));
    assert_eq!(dialer.poll(), Err(Failure::TooLong));
}

#[test]
fn another_key_is_named_at_both_ends() {
    let mut dialer = Channel::new(Side::Dialer, B, KEY);
    let mut listener = Channel::new(Side::Listener, A, [8; 32]);
    let told = exchange(&mut dialer, &mut listener, usize::MAX);
    assert_eq!(told, [["KeyRefused"], ["WrongKey"]]);
    assert!(!dialer.is_open() && !listener.is_open());
}

#[test]
fn a_changed_preamble_is_noticed() {
    let mut dialer = Channel::new(Side::Dialer, B, KEY);
    let mut listener = Channel::new(Side::Listener, A, KEY);
    // Somebody between the two changes the incarnation.
    let mut preamble = dialer.outbound().to_vec();
    dialer.sent(preamble.len());
    preamble[15] ^= 1;
    listener.receive(&preamble);
    assert_eq!(listener.poll(), Ok(None));
    let told = exchange(&mut dialer, &mut listener, usize::MAX);
    assert_eq!(told, [["KeyRefused"], ["WrongKey"]]);
}

#[test]
fn a_recorded_handshake_does_not_open_a_connection() {
    let mut dialer = Channel::new(Side::Dialer, B, KEY);
    let mut listener = Channel::new(Side::Listener, A, KEY);
    let mut recorded = dialer.outbound().to_vec();
    listener.receive(dialer.outbound());
    dialer.sent(PREAMBLE_LEN);
    assert_eq!(listener.poll(), Ok(None));
    dialer.receive(listener.outbound());
    listener.sent(PREAMBLE_LEN);
    assert_eq!(dialer.poll(), Ok(None));
    recorded.extend_from_slice(dialer.outbound());

    let mut fooled = Channel::new(Side::Listener, A, KEY);
    fooled.receive(&recorded);
    assert_eq!(fooled.poll(), Ok(None));
    assert!(!fooled.is_open() && !fooled.has_room());
    // Nor does what a stranger can make up next.
    fooled.receive(&[0, 16, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
    assert_eq!(fooled.poll(), Err(Failure::Damaged));
}

#[test]
fn damaged_frames_end_the_connection() {
    let mut dialer = Channel::new(Side::Dialer, B, KEY);
    let mut listener = Channel::new(Side::Listener, A, KEY);
    exchange(&mut dialer, &mut listener, usize::MAX);
    push(&mut dialer, b"message");
    dialer.seal();
    let mut bytes = dialer.outbound().to_vec();
    bytes[5] ^= 0x10;
    listener.receive(&bytes);
    assert_eq!(listener.poll(), Err(Failure::Damaged));
}

#[test]
fn no_bytes_of_a_stranger_do_more_than_end_the_connection() {
    // A linear congruential generator: the same bytes in every run.
    let mut random = 1_u64;
    let mut byte = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 56) as u8
    };
    for round in 0..2_000 {
        let side = [Side::Dialer, Side::Listener, Side::Prober][round % 3];
        let mut channel = Channel::new(side, A, KEY);
        if round % 2 == 0 {
            channel.receive(&B.encode());
        }
        let len = usize::from(byte());
        // Small lengths first, so that frames are complete.
        let bytes: Vec<u8> = (0..len).map(|at| if at % 50 == 0 { 0 } else { byte() }).collect();
        channel.receive(&bytes);
        while let Ok(Some(event)) = channel.poll() {
            assert_eq!(event, ChannelEvent::Greeted);
        }
        assert!(!channel.is_open());
    }
}

/// An endpoint with its own poll, driven by the test.
struct Harness {
    poll: Poll,
    endpoint: StateEndpoint,
    start: Instant,
    told: Vec<Told>,
    messages: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Connected,
    Closed(Failure),
    Refused,
}

impl Harness {
    fn new(
        node: NodeId,
        incarnation: u64,
        psk: [u8; 32],
        local: SocketAddr,
        peer: SocketAddr,
    ) -> Self {
        let poll = Poll::new().unwrap();
        let user_timeout = Duration::from_secs(5);
        let config = EndpointConfig { node, incarnation, psk, local, peer, user_timeout };
        let endpoint = StateEndpoint::open(config, poll.registry(), 0).unwrap();
        Harness { poll, endpoint, start: Instant::now(), told: Vec::new(), messages: Vec::new() }
    }

    fn now(&self) -> Time {
        Time::from_micros(self.start.elapsed().as_micros() as u64)
    }

    /// One turn, which waits for at most a few milliseconds.
    fn turn(&mut self) {
        let mut events = Events::with_capacity(16);
        self.poll.poll(&mut events, Some(Duration::from_millis(2))).unwrap();
        for event in &events {
            self.endpoint.handle_ready(event);
        }
        let (told, messages) = (&mut self.told, &mut self.messages);
        self.endpoint.drive(
            Time::from_micros(self.start.elapsed().as_micros() as u64),
            &mut |event| {
                match event {
                    StateEvent::Connected => told.push(Told::Connected),
                    StateEvent::Closed(failure) => told.push(Told::Closed(failure)),
                    StateEvent::Refused => told.push(Told::Refused),
                    StateEvent::Message(message) => messages.push(message.to_vec()),
                }
                Ok(())
            },
        );
        self.endpoint.flush();
    }
}

/// Takes turns until `done`; a test that waits in vain fails after twenty seconds.
fn until(nodes: &mut [&mut Harness], mut done: impl FnMut(&mut [&mut Harness]) -> bool) {
    let start = Instant::now();
    while !done(nodes) {
        assert!(start.elapsed() < Duration::from_secs(20), "waited in vain");
        nodes.iter_mut().for_each(|node| node.turn());
    }
}

/// Two addresses of loopback that nobody listens on.
fn free_addresses() -> [SocketAddr; 2] {
    let hosts = ["127.0.0.1:0", "127.0.0.2:0"];
    let bound = hosts.map(|host| TcpListener::bind(host).unwrap());
    bound.map(|listener| listener.local_addr().unwrap())
}

fn pair(key_of_b: [u8; 32]) -> (Harness, Harness) {
    let [a, b] = free_addresses();
    (Harness::new(NodeId::A, 1, KEY, a, b), Harness::new(NodeId::B, 2, key_of_b, b, a))
}

#[test]
fn a_pair_connects_talks_and_notices_the_end() {
    let (mut a, mut b) = pair(KEY);
    until(&mut [&mut a, &mut b], |n| n.iter().all(|n| n.endpoint.is_open()));
    for number in 0..100_u8 {
        assert!(b.endpoint.push_with(|out| {
            out.extend([number; 500]);
            true
        }));
    }
    until(&mut [&mut a, &mut b], |n| n[0].messages.len() == 100);
    assert!((0..100).all(|number| a.messages[usize::from(number)] == [number; 500]));

    // What was sent before the end is read after it; then the port refuses.
    assert!(b.endpoint.push_with(|out| {
        out.extend(b"last");
        true
    }));
    b.endpoint.flush();
    drop(b);
    until(&mut [&mut a], |n| n[0].told.contains(&Told::Refused));
    assert_eq!(a.messages.last().unwrap(), b"last");
    assert_eq!(a.told[..2], [Told::Connected, Told::Closed(Failure::Closed)]);
}

#[test]
fn the_dialing_node_notices_a_refusal_and_comes_back() {
    let [at_a, at_b] = free_addresses();
    let mut b = Harness::new(NodeId::B, 2, KEY, at_b, at_a);
    until(&mut [&mut b], |n| n[0].told.contains(&Told::Refused));
    let mut a = Harness::new(NodeId::A, 1, KEY, at_a, at_b);
    until(&mut [&mut a, &mut b], |n| n.iter().all(|n| n.endpoint.is_open()));
    // Node A starts anew: node B finds it again.
    drop(a);
    until(&mut [&mut b], |n| !n[0].endpoint.is_open());
    let mut a = Harness::new(NodeId::A, 3, KEY, at_a, at_b);
    until(&mut [&mut a, &mut b], |n| n.iter().all(|n| n.endpoint.is_open()));
}

#[test]
fn a_probe_of_a_living_peer_is_no_refusal() {
    let [at_a, at_b] = free_addresses();
    // Node B cannot reach node A, which it takes to be elsewhere.
    let [_, elsewhere] = free_addresses();
    let mut a = Harness::new(NodeId::A, 1, KEY, at_a, at_b);
    let mut b = Harness::new(NodeId::B, 2, KEY, at_b, elsewhere);
    let start = Instant::now();
    until(&mut [&mut a, &mut b], |_| start.elapsed() > Duration::from_millis(400));
    assert_eq!(a.told, []);
}

/// Both nodes must find out why they never become a pair.
fn never_open(mut left: Harness, mut right: Harness, why: [Failure; 2]) {
    until(&mut [&mut left, &mut right], |nodes| {
        nodes.iter().zip(why).all(|(node, why)| node.endpoint.last_failure() == Some(why))
    });
    assert_eq!((left.told, right.told), (vec![], vec![]));
}

#[test]
fn nodes_with_different_keys_both_say_so() {
    let (a, b) = pair([8; 32]);
    never_open(a, b, [Failure::WrongKey, Failure::KeyRefused]);
}

#[test]
fn two_nodes_of_one_name_both_say_so() {
    for name in [NodeId::A, NodeId::B] {
        let [one, two] = free_addresses();
        let left = Harness::new(name, 1, KEY, one, two);
        let right = Harness::new(name, 2, KEY, two, one);
        never_open(left, right, [Failure::SameName(name); 2]);
    }
}

#[test]
fn a_node_does_not_become_its_own_peer() {
    for name in [NodeId::A, NodeId::B] {
        let [own, _] = free_addresses();
        let mut node = Harness::new(name, 1, KEY, own, own);
        until(&mut [&mut node], |n| n[0].endpoint.last_failure() == Some(Failure::Oneself));
        assert_eq!(node.told, []);
    }
}

#[test]
fn a_peer_that_does_not_read_holds_back_the_core() {
    let (mut a, mut b) = pair(KEY);
    until(&mut [&mut a, &mut b], |n| n.iter().all(|n| n.endpoint.is_open()));
    // Node A no longer takes turns.
    let mut pushed = 0_usize;
    let mut refused = 0;
    while refused < 100 {
        let took = b.endpoint.push_with(|out| {
            out.extend([1; MAX_MESSAGE]);
            true
        });
        if took {
            pushed += 1;
            refused = 0;
        } else {
            refused += 1;
            b.turn();
        }
        assert!(pushed < 10_000, "nothing holds back");
    }
    assert!(b.endpoint.has_backlog());
    until(&mut [&mut a, &mut b], |n| n[0].messages.len() == pushed);
    assert!(!b.endpoint.has_backlog());
}

#[test]
fn strangers_at_the_port_do_not_keep_the_peer_out() {
    let [at_a, at_b] = free_addresses();
    let mut a = Harness::new(NodeId::A, 1, KEY, at_a, at_b);
    // One speaks something else, one says nothing, from an address that is not the peer's.
    let mut loud = TcpStream::connect(at_a).unwrap();
    loud.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let silent: Vec<TcpStream> = (0..10).map(|_| TcpStream::connect(at_a).unwrap()).collect();
    let mut b = Harness::new(NodeId::B, 2, KEY, at_b, at_a);
    until(&mut [&mut a, &mut b], |n| n.iter().all(|n| n.endpoint.is_open()));
    loud.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut rest = Vec::new();
    // Closed, perhaps with a reset, and told nothing.
    let _ = loud.read_to_end(&mut rest);
    assert_eq!(rest, b"");
    drop(silent);
    assert!(a.now() < Time::NEVER);
}
