//! What is said on the state connection of two stacks: one that serves a client and tells, one that holds. Messages are changed,
//! lost or made up on the way, in both directions, and in the end the one that holds takes over. Nothing panics, every
//! limit holds, who does not serve is silent, what leaves is sound; and as long as nothing was changed, what the client gets
//! is what the program decided, whoever of the two sends it.

use std::time::Duration;

use bytes::Bytes;
use outlive_proxy::{
    config::{NodeId, PairConfig},
    node::Entropy,
    pair::heartbeat::Heartbeat,
};
use outlive_stack::{
    Chunk, ConnectionId, Event, MAX_STATE_MESSAGE, Stack, StackConfig, Transaction,
};
use outlive_tcp::{
    endpoint::{Arrival, Config, Connection, Opening, Read},
    seq::Seq,
    time::Time,
    wire::{Endpoint, FourTuple, Offload, TcpPacket},
};

use crate::{input::Input, judge::assert_sound, mutate::Mutator};

const CONNECTIONS: usize = 3;
const STATE: usize = 64;
const START: Time = Time::from_micros(1_000_000);
const BEAT: Duration = Duration::from_millis(20);
/// More than an input can be worth.
const MOST: usize = 20_000;

struct Pair {
    now: Time,
    stacks: [Option<Stack>; 2],
    counters: [u64; 2],
    heard: [u64; 2],
    client: Connection,
    got: Vec<u8>,
    open: [Vec<ConnectionId>; 2],
    /// Nothing was changed on the way so far.
    honest: bool,
    said: usize,
}

/// What the program sends for what it has read at `position`.
fn answer(position: u64, len: usize) -> Vec<u8> {
    (position..).take(len).map(|at| (at * 7 + 3) as u8).collect()
}

fn listener() -> Endpoint {
    Endpoint::new([192, 0, 2, 1].into(), 514)
}

/// A pair of stacks, from their first words on.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut pair = Pair::new();
    for _ in 0..150 {
        if input.is_empty() {
            break;
        }
        pair.step(&mut input);
        pair.check();
    }
    // The one that tells dies.
    pair.stacks[0] = None;
    for _ in 0..80 {
        pair.beat();
        pair.work(1);
        pair.check();
    }
}

impl Pair {
    fn new() -> Self {
        let stack = |node, byte| {
            let tcp = Config {
                receive_buffer: 4_000,
                withheld_limit: 4_000,
                send_buffer: 3_000,
                ..Config::default()
            };
            let config = StackConfig {
                node,
                pair: PairConfig::default(),
                tcp,
                connections: CONNECTIONS,
                state_limit: STATE,
                commit_timeout: None,
            };
            let mut stack = Stack::new(config, Entropy([byte; 32]), 1_800_000_000_000_000, START);
            stack.listen(listener(), 4).expect("nobody listens yet");
            Some(stack)
        };
        let tuple = FourTuple::new(Endpoint::new([198, 51, 100, 7].into(), 40_000), listener());
        let opening = Opening { tuple, iss: Seq(0xffff_f000), timestamp_offset: 77 };
        let mut pair = Pair {
            now: START,
            stacks: [stack(NodeId::A, 1), stack(NodeId::B, 2)],
            counters: [0; 2],
            heard: [0; 2],
            client: Connection::connect(opening, Config::default()).expect("both of one version"),
            got: Vec::new(),
            open: Default::default(),
            honest: true,
            said: 0,
        };
        for _ in 0..4 {
            pair.beat();
        }
        pair.reconnect();
        for _ in 0..6 {
            pair.talk(0, |_| true);
            pair.talk(1, |_| true);
        }
        pair
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(12) {
            0 => {
                let _ = self.client.write(Bytes::from(vec![9; usize::from(input.u16() % 3_000)]));
                self.packets();
            }
            1 | 2 => {
                self.work(0);
                self.packets();
            }
            3 => {
                self.talk(0, |_| true);
                self.talk(1, |_| true);
                self.packets();
            }
            4 | 5 => {
                // Changed, in one direction.
                let (from, seed) = (usize::from(input.byte() & 1), input.u64());
                let mut mutator = Mutator::new(seed);
                self.honest = false;
                self.talk(from, |message| {
                    *message = mutator.mutate(std::slice::from_ref(message), MAX_STATE_MESSAGE);
                    true
                });
            }
            6 => {
                let lost = input.byte();
                self.honest = false;
                self.talk(usize::from(lost & 1), |_| lost & 2 == 0);
            }
            7 | 8 => {
                let to = usize::from(input.byte() & 1);
                let message = message(input);
                self.honest = false;
                self.hear(to, &message);
            }
            9 => self.reconnect(),
            10 => {
                self.client.shutdown();
                self.packets();
            }
            _ => self.beat(),
        }
    }

    /// A heartbeat each, and what time brings.
    fn beat(&mut self) {
        self.now = self.now + BEAT;
        for from in 0..2 {
            let Some(stack) = &mut self.stacks[from] else { continue };
            self.counters[from] += 1;
            if stack.asks() {
                stack.handle_asked(self.counters[from] - 1);
            }
            let heartbeat = Heartbeat {
                beliefs: stack.beliefs(),
                asks: stack.asks(),
                clock_us: stack.clock_us(self.now),
                counter: self.counters[from],
                heard: self.heard[from],
            };
            if let Some(other) = &mut self.stacks[1 - from] {
                self.heard[1 - from] = heartbeat.counter;
                other.handle_heartbeat(self.now, 0, self.now, &heartbeat);
            }
        }
        for stack in self.stacks.iter_mut().flatten() {
            stack.handle_timeout(self.now);
        }
        self.client.handle_timeout(self.now);
        self.packets();
    }

    fn reconnect(&mut self) {
        let now = self.now;
        for stack in self.stacks.iter_mut().flatten() {
            stack.handle_state_closed(now);
            stack.handle_state_connected(now);
        }
    }

    /// Everything that one has to say, as far as `passes` lets it.
    fn talk(&mut self, from: usize, mut passes: impl FnMut(&mut Vec<u8>) -> bool) {
        for _ in 0..20 {
            let mut message = Vec::new();
            let Some(stack) = &mut self.stacks[from] else { return };
            if !stack.poll_state_message(self.now, &mut message) {
                return;
            }
            assert!(message.len() <= MAX_STATE_MESSAGE, "{} bytes", message.len());
            if passes(&mut message) {
                self.hear(1 - from, &message);
            }
        }
    }

    fn hear(&mut self, to: usize, message: &[u8]) {
        let Some(stack) = &mut self.stacks[to] else { return };
        if stack.handle_state_message(self.now, message).is_err() {
            assert!(!self.honest, "what one says the other obeys");
            self.reconnect();
        }
    }

    /// The program reads, and decides.
    fn work(&mut self, node: usize) {
        let now = self.now;
        let Some(stack) = &mut self.stacks[node] else { return };
        while let Some(accepted) = stack.accept(now, listener()) {
            assert!(accepted.state.len() <= STATE);
            self.open[node].push(accepted.id);
        }
        self.open[node].retain(|id| match stack.read(now, *id, 1_000) {
            Ok(Chunk::Data { position, bytes }) => {
                let transaction = Transaction::new()
                    .acknowledge(bytes.len() as u32)
                    .write(answer(position, bytes.len()))
                    .state(position.to_be_bytes().to_vec());
                // What was read and is not answered would be missing in its stream.
                let decided = stack.commit(now, *id, transaction).is_ok();
                if !decided {
                    stack.close(now, *id);
                }
                decided
            }
            Ok(Chunk::End { .. }) => {
                let _ = stack.commit(now, *id, Transaction::new().acknowledge_end().end());
                stack.close(now, *id);
                false
            }
            Ok(Chunk::Blocked) => true,
            Err(_) => {
                stack.close(now, *id);
                false
            }
        });
    }

    /// What there is to send is sent, and arrives.
    fn packets(&mut self) {
        let now = self.now;
        for _ in 0..20 {
            let mut busy = false;
            while let Some(transmit) = self.client.poll_transmit(now) {
                busy = true;
                for segment in transmit.segments() {
                    let mut packet = Vec::new();
                    segment.emit(&mut packet);
                    for stack in self.stacks.iter_mut().flatten() {
                        stack.handle_packet(now, &mut packet.clone(), Offload::default());
                    }
                }
            }
            for node in 0..2 {
                let Some(stack) = &mut self.stacks[node] else { continue };
                let mut packets = Vec::new();
                while let Some(transmit) = stack.poll_transmit(now) {
                    assert!(stack.beliefs().role == outlive_proxy::pair::heartbeat::Role::Active);
                    for segment in transmit.segments() {
                        let mut packet = Vec::new();
                        segment.emit(&mut packet);
                        packets.push(packet);
                    }
                }
                for mut packet in packets {
                    busy = true;
                    self.said += 1;
                    assert!(self.said < MOST, "it sends without end");
                    assert_sound(&packet, Offload::default());
                    let len = packet.len();
                    let packet = TcpPacket::parse(&mut packet, 0, len, Offload::default());
                    let packet = packet.expect("it is sound");
                    if packet.tuple().destination == self.client.tuple().source {
                        self.client.handle_segment(now, &Arrival::copied(&packet));
                    }
                }
            }
            while let Read::Data(bytes) = self.client.read(usize::MAX) {
                self.got.extend_from_slice(&bytes);
            }
            while self.client.poll_event().is_some() {}
            if !busy {
                return;
            }
        }
    }

    fn check(&mut self) {
        for node in 0..2 {
            let Some(stack) = &mut self.stacks[node] else { continue };
            assert!(stack.held() <= CONNECTIONS, "{} held", stack.held());
            assert!(stack.connections() <= CONNECTIONS, "{} connections", stack.connections());
            let mut closes = false;
            while let Some(event) = stack.poll_event() {
                closes |= matches!(event, Event::CloseStateConnection(_));
            }
            if closes {
                self.reconnect();
            }
        }
        if self.honest {
            let right = self.got == answer(0, self.got.len());
            assert!(right, "the client got what the program did not decide");
        }
    }
}

/// Something like a message.
fn message(input: &mut Input<'_>) -> Vec<u8> {
    let kind = input.below(8) as u8;
    let number = u64::from(input.byte() % 16);
    let mut out = vec![kind];
    match kind {
        1 => {
            out.extend(*b"OLSA");
            out.extend([0, 1, input.byte() & 3]);
            out.extend(u64::from(input.byte()).to_be_bytes());
            out.extend(input.u64().to_be_bytes());
        }
        2 => out.extend(input.u64().to_be_bytes()),
        3 => {
            out.push(input.byte() & 1);
            out.extend(number.to_be_bytes());
            out.extend(record(input));
        }
        4 => {
            out.extend(number.to_be_bytes());
            out.extend(input.u64().to_be_bytes());
            out.extend([7; 16]);
        }
        5 => out.extend(number.to_be_bytes()),
        _ => out.extend(input.bytes(200)),
    }
    out
}

/// Something like a record of a connection, or of its end.
fn record(input: &mut Input<'_>) -> Vec<u8> {
    let mut out = vec![1 + (input.byte() & 1), input.byte() & 7];
    out.extend([0; 15]);
    out.push(input.byte() & 3);
    out.extend(input.u64().to_be_bytes());
    out.extend(input.u32().to_be_bytes());
    out.extend(u64::from(input.u16()).to_be_bytes());
    out.extend(u64::from(input.u16()).to_be_bytes());
    out.extend(u32::from(input.byte()).to_be_bytes());
    let state = input.bytes(100);
    out.extend((state.len() as u32).to_be_bytes());
    out.extend(state);
    out.extend(input.bytes(255));
    out
}
