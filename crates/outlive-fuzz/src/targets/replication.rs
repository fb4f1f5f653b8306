//! What a node that has the key, and may be broken or hostile, says on the state connection: to a standby, to a
//! node that serves, to one that has just started. Nothing panics, tables stay within their limits, what makes no
//! sense ends the connection; a standby that takes over after all of that serves; and what it then tells a standby
//! of its own, that one tells in the same words.

use std::time::Duration;

use outlive_proxy::{
    MAX_STATE_MESSAGE, Node, Verdict,
    config::NodeId,
    event::Event,
    pair::{
        Epoch,
        heartbeat::{Beliefs, Heartbeat, Role},
    },
};
use outlive_tcp::{
    time::Time,
    wire::{Endpoint, FourTuple, Offload},
};

use crate::{
    input::Input,
    judge::{self, Numbers, assert_sound},
    world::setup,
};

const MOST_STEPS: usize = 80;
/// An epoch that its peer begins is higher than this node's own.
const EPOCH: u64 = setup::UNIX_US / 1_000_000 * 2 + 1_000_000;

/// The first byte chooses what the node is; the rest is what is said to it.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut bench = Bench::new(input.byte());
    for _ in 0..MOST_STEPS {
        if input.is_empty() {
            break;
        }
        bench.step(&mut input);
    }
    bench.finish();
}

/// Node B, and the fuzzer as node A.
struct Bench {
    node: Node,
    variant: u8,
    now: Time,
    beats: u64,
    connected: bool,
    /// What the peer says it is.
    peer: Role,
    epoch: u64,
}

impl Bench {
    fn new(kind: u8) -> Self {
        let now = setup::START;
        let variant = kind & 15;
        let config = setup::config(NodeId::B, variant);
        let node = Node::new(config, setup::entropy(9), setup::UNIX_US, now);
        let peer = if kind & 16 == 0 { Role::Active } else { Role::Standby };
        let mut bench =
            Bench { node, variant, now, beats: 0, connected: false, peer, epoch: EPOCH };
        if peer == Role::Standby {
            // It serves, for want of a peer.
            bench.silence();
            assert_eq!(bench.node.beliefs().role, Role::Active);
        }
        bench.advance(Duration::from_secs(2));
        if kind & 32 == 0 {
            bench.connect();
            let mut hello = Vec::new();
            bench.hello(&mut hello);
            bench.say(&hello);
            if peer == Role::Active {
                let mut begin = vec![2];
                begin.extend([0; 32]);
                bench.say(&begin);
            }
        }
        bench
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let head = input.byte();
        let mut message = Vec::new();
        match head & 15 {
            0 => message.extend(input.bytes(255)),
            1 => self.hello(&mut message),
            2 => {
                message.push(2);
                message.extend(input.u64().to_be_bytes());
                message.extend(input.array::<24>());
            }
            3..=6 => {
                if head & 16 == 0 {
                    message.push(3);
                } else {
                    message.push(4);
                    message.extend(u64::from(input.byte()).to_be_bytes());
                }
                for _ in 0..=head >> 5 {
                    change(input, &mut message);
                }
            }
            7 => {
                message.push(5);
                message.extend(u64::from(input.byte()).to_be_bytes());
                let epoch = match head >> 5 {
                    0..=3 => self.epoch,
                    4 => self.epoch.wrapping_add(u64::from(input.byte())),
                    5 => self.epoch.wrapping_sub(u64::from(input.byte())),
                    _ => input.u64(),
                };
                message.extend(epoch.to_be_bytes());
                message.extend([5; 16]);
            }
            8 => {
                message.push(6);
                message.extend(match head >> 5 {
                    0 => input.u64().to_be_bytes(),
                    _ => u64::from(input.byte()).to_be_bytes(),
                });
            }
            9 => return self.connect(),
            10 => return self.disconnect(),
            11 => return self.advance(Duration::from_millis(u64::from(input.u16()))),
            12 => {
                self.peer = input.one_of(&[Role::Joining, Role::Standby, Role::Active]);
                self.epoch = match head >> 6 {
                    0 => EPOCH + u64::from(input.byte()),
                    1 => input.u64(),
                    _ => self.epoch,
                };
                return;
            }
            13 => return self.silence(),
            14 => return self.advance(Duration::from_secs(61)),
            _ => return self.packet(input),
        }
        self.say(&message);
    }

    fn hello(&self, out: &mut Vec<u8>) {
        out.extend(b"\x01OLST\0\x01");
        out.push(if self.peer == Role::Active { 2 } else { 0 });
        out.extend(77u64.to_be_bytes());
        out.extend(self.epoch.to_be_bytes());
    }

    fn connect(&mut self) {
        if !self.connected {
            self.connected = true;
            self.node.handle_state_connected(self.now);
            self.settle();
        }
    }

    fn disconnect(&mut self) {
        if std::mem::take(&mut self.connected) {
            self.node.handle_state_closed(self.now);
            self.settle();
        }
    }

    fn say(&mut self, message: &[u8]) {
        let message = &message[..message.len().min(MAX_STATE_MESSAGE)];
        let before = (self.node.beliefs(), self.sessions());
        let result = self.node.handle_state_message(self.now, message);
        if !self.connected {
            assert_eq!(result, Ok(()));
            assert_eq!((self.node.beliefs(), self.sessions()), before, "said by nobody");
        }
        if before.0.role == Role::Active {
            assert_eq!(self.sessions(), before.1, "only a standby is told of sessions");
        }
        let role = self.node.beliefs().role;
        assert!(role == before.0.role, "a message made {role:?} of {:?}", before.0.role);
        assert!(self.node.beliefs().epoch >= before.0.epoch, "back to a stale epoch");
        self.settle();
        if result.is_err() {
            self.disconnect();
        }
    }

    fn sessions(&self) -> usize {
        let census = self.node.status(self.now).sessions;
        census.establishing + census.open + census.over
    }

    fn beat(&mut self) {
        self.beats += 1;
        let heartbeat = Heartbeat {
            beliefs: Beliefs {
                node: NodeId::A,
                incarnation: 77,
                epoch: Epoch(self.epoch),
                role: self.peer,
                synchronised: false,
            },
            asks: false,
            clock_us: setup::UNIX_US,
            counter: self.beats,
            heard: self.beats,
        };
        self.node.handle_heartbeat(self.now, 0, self.now, &heartbeat);
        self.settle();
    }

    fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = (self.now + setup::HEARTBEAT).min(end);
            self.beat();
            self.node.handle_timeout(self.now);
            self.settle();
        }
    }

    /// The peer is not heard for so long that the node acts.
    fn silence(&mut self) {
        self.disconnect();
        for _ in 0..12 {
            self.now = self.now + setup::HEARTBEAT;
            self.node.handle_timeout(self.now);
            self.settle();
        }
    }

    /// A packet of a connection that changes talk about.
    fn packet(&mut self, input: &mut Input<'_>) {
        let (client, server) = tuples(input, self.variant & setup::V6 != 0);
        let tuple = if input.byte() & 1 == 0 { client } else { server };
        let numbers = Numbers {
            seq: input.number(),
            ack: input.number(),
            flags: input.u16(),
            window: input.u16(),
        };
        let mut buffer = vec![0; 64];
        buffer.extend(judge::tcp(tuple, numbers, input.bytes(40), input.bytes(40)));
        let end = buffer.len();
        let passive = self.node.beliefs().role != Role::Active;
        let verdict = self.node.handle_packet(self.now, &mut buffer, 64, end, Offload::default());
        if let Verdict::Forward { range, offload } = verdict {
            assert!(!passive);
            assert_sound(&buffer[range], offload);
        }
        self.settle();
    }

    fn settle(&mut self) {
        let mut closes = false;
        while let Some(event) = self.node.poll_event() {
            closes |= matches!(event, Event::CloseStateConnection(_));
        }
        while let Some(packet) = self.node.poll_transmit() {
            assert_sound(packet, Offload::default());
        }
        if closes {
            self.connected = false;
        }
        let mut message = Vec::new();
        while self.connected && self.node.poll_state_message(self.now, &mut message) {
            assert!(message.len() <= MAX_STATE_MESSAGE);
            message.clear();
        }
        self.node.check_invariants();
        assert!(self.sessions() <= setup::SESSIONS as usize);
    }

    /// It takes over, and tells a standby; that one takes over, and tells another: the same.
    fn finish(mut self) {
        self.silence();
        if self.node.beliefs().role != Role::Active {
            return;
        }
        let (mut second, told) = tell(&mut self.node, NodeId::A, self.variant, self.now);
        for _ in 0..6 {
            self.now = self.now + setup::HEARTBEAT;
            second.handle_timeout(self.now);
            while second.poll_event().is_some() {}
            while second.poll_transmit().is_some() {}
        }
        assert_eq!(second.beliefs().role, Role::Active);
        let (_, again) = tell(&mut second, NodeId::B, self.variant, self.now);
        assert_eq!(told, again, "told in other words");
    }
}

/// Synchronises a new node with `active`; the node, and the sessions it was told of.
fn tell(active: &mut Node, id: NodeId, variant: u8, now: Time) -> (Node, Vec<Vec<u8>>) {
    let mut standby =
        Node::new(setup::config(id, variant), setup::entropy(20), setup::UNIX_US, now);
    let heartbeat = Heartbeat {
        beliefs: active.beliefs(),
        asks: false,
        clock_us: active.clock_us(now),
        counter: 1,
        heard: 0,
    };
    standby.handle_heartbeat(now, 0, now, &heartbeat);
    standby.handle_timeout(now);
    active.handle_state_connected(now);
    standby.handle_state_connected(now);
    let mut told = Vec::new();
    for _ in 0..10 {
        let mut message = Vec::new();
        while active.poll_state_message(now, &mut message) {
            if let [3, changes @ ..] = &message[..] {
                told.extend(changes_in(changes));
            }
            standby.handle_state_message(now, &message).expect("what a node says is understood");
            message.clear();
        }
        while standby.poll_state_message(now, &mut message) {
            active.handle_state_message(now, &message).expect("what a node says is understood");
            message.clear();
        }
    }
    while standby.poll_event().is_some() {}
    standby.check_invariants();
    assert!(standby.beliefs().synchronised && active.beliefs().synchronised);
    told.sort();
    (standby, told)
}

fn changes_in(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    while let [_, high, low, ..] = *bytes {
        let len = 3 + usize::from(u16::from_be_bytes([high, low]));
        // Positions are hints, which a node that takes over has from its own segments.
        if bytes[0] != 5 {
            out.push(bytes[..len].to_vec());
        }
        bytes = &bytes[len..];
    }
    out
}

/// The client's and the server's tuple of one of a few connections, which may stand in each other's way.
fn tuples(input: &mut Input<'_>, v6: bool) -> (FourTuple, FourTuple) {
    let bits = input.byte();
    let end = |number: u8, port: u16| {
        let addr = if v6 {
            [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(number)].into()
        } else {
            [10, 0, 0, number].into()
        };
        Endpoint::new(addr, port)
    };
    let client = FourTuple {
        source: end(9, 4_000 + u16::from(bits & 15)),
        destination: end(if bits & 128 != 0 { 77 } else { 100 }, 80),
    };
    let server =
        FourTuple { source: end(21, 80), destination: end(100, 40_000 + u16::from(bits >> 4 & 7)) };
    (client, if bits == 255 { client } else { server })
}

fn endpoint(end: Endpoint, out: &mut Vec<u8>) {
    let tuple = FourTuple { source: end, destination: end }.to_bytes();
    out.extend(&tuple[..16]);
    out.extend(end.port.to_be_bytes());
}

/// Appends a change, which may be right.
fn change(input: &mut Input<'_>, out: &mut Vec<u8>) {
    let kind = input.byte();
    let mut body = Vec::new();
    let (client, server) = tuples(input, kind & 8 != 0);
    if kind & 7 <= 1 {
        for (tuple, leg) in [(client, 0), (server, 1)] {
            endpoint(tuple.source, &mut body);
            endpoint(tuple.destination, &mut body);
            body.extend(input.number().to_be_bytes());
            body.extend(input.number().to_be_bytes());
            body.extend(input.u16().to_be_bytes());
            body.extend([input.byte() % 16, input.byte() % (15 + leg)]);
        }
        let prefix = if kind & 16 == 0 { 0 } else { input.byte() };
        body.extend(input.number().to_be_bytes());
        body.extend(input.number().to_be_bytes());
        body.extend(u16::from(prefix).to_be_bytes());
        body.extend([if kind & 224 == 224 { input.byte() } else { 0 }, input.byte()]);
        body.extend(input.array::<10>());
        if kind & 32 == 0 {
            body.resize(body.len() + usize::from(prefix), 0x50);
        }
    } else {
        endpoint(client.source, &mut body);
        endpoint(client.destination, &mut body);
        match kind & 7 {
            3 => body.push(input.byte() % 4),
            5 => {
                body.extend(input.number().to_be_bytes());
                body.extend(input.number().to_be_bytes());
            }
            6 => body.push(input.byte() % 3),
            7 => body.extend(input.bytes(20)),
            _ => {}
        }
    }
    let len = body.len() as u16;
    out.push((kind & 7).max(1));
    out.extend(if kind & 192 == 192 { input.u16() } else { len }.to_be_bytes());
    out.extend(body);
}
