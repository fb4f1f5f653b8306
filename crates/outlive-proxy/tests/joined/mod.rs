//! A pair with a listener that terminates, a client and a server with a TCP of their own, in virtual time.
//!
//! Everybody is told everything once in a millisecond. The addresses are with whoever claimed them last.
#![allow(dead_code, reason = "every test uses a part of it")]

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use outlive_proxy::{
    Entropy, Node, Verdict,
    config::{
        Balance, Config, Limits, Listener, NodeId, OpeningMode, PairConfig, Pool, PoolId, Server,
        Termination, Timeouts,
    },
    counters::Counter,
    event::Event,
    pair::heartbeat::Heartbeat,
};
use outlive_tcp::{
    endpoint::{self, Acknowledge, Arrival, Connection, Opening, Read, State},
    time::Time,
    wire::{Endpoint, Flags, FourTuple, Offload, TcpPacket},
};

const HEADROOM: usize = 64;
const TICK: Duration = Duration::from_millis(1);

pub(crate) fn listener() -> Endpoint {
    Endpoint::new([10, 0, 0, 100].into(), 80)
}

pub(crate) fn server_address(number: u8) -> Endpoint {
    Endpoint::new([10, 0, 0, 20 + number].into(), 80)
}

fn client_address() -> Endpoint {
    Endpoint::new([10, 0, 0, 10].into(), 10_000)
}

pub(crate) fn config(opening: OpeningMode) -> Config {
    Config {
        node: NodeId::A,
        listeners: vec![Listener {
            name: "web".into(),
            address: listener(),
            opening,
            routes: Vec::new(),
            default_pool: Some(PoolId(0)),
            idle_timeout: Duration::from_secs(600),
            protection: Default::default(),
            termination: Termination::Terminate,
        }],
        pools: vec![Pool {
            name: "web".into(),
            balance: Balance::RoundRobin,
            servers: vec![Server { address: server_address(0) }],
            proxy_protocol: None,
            connect_timeout: Duration::from_secs(3),
            retry_after: Duration::from_secs(10),
        }],
        source_addresses: vec![[10, 0, 0, 101].into()],
        pair: PairConfig::default(),
        timeouts: Timeouts::default(),
        limits: Limits::default(),
        mtu: 1_500,
        migration: Default::default(),
    }
}

pub(crate) fn inspecting() -> OpeningMode {
    OpeningMode::Inspect { limit: 200, timeout: Duration::from_secs(1) }
}

/// What an end does: it sends so many bytes, closes its stream, and reads at some pace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) sends: usize,
    /// It closes once it has received so much.
    pub(crate) closes_after: usize,
    /// Bytes that it reads in a millisecond.
    pub(crate) reads: usize,
    pub(crate) buffer: u32,
}

impl Work {
    pub(crate) fn sending(sends: usize, closes_after: usize) -> Self {
        Work { sends, closes_after, reads: usize::MAX, buffer: 200_000 }
    }
}

/// A client or a server.
pub(crate) struct End {
    pub(crate) connection: Connection,
    work: Work,
    written: usize,
    pub(crate) read: Vec<u8>,
    pub(crate) ended: bool,
    seed: u8,
}

fn byte(seed: u8, at: usize) -> u8 {
    (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0] ^ seed
}

impl End {
    fn new(connection: Connection, work: Work, seed: u8) -> Self {
        End { connection, work, written: 0, read: Vec::new(), ended: false, seed }
    }

    fn act(&mut self) {
        while self.written < self.work.sends {
            let len = (self.work.sends - self.written).min(10_000);
            let data: Vec<u8> =
                (self.written..self.written + len).map(|at| byte(self.seed, at)).collect();
            let taken = self.connection.write(Bytes::from(data)).unwrap_or(0);
            self.written += taken;
            if taken == 0 {
                break;
            }
        }
        let mut left = self.work.reads;
        while left > 0 {
            match self.connection.read(left) {
                Read::Data(data) => {
                    left = left.saturating_sub(data.len());
                    self.read.extend_from_slice(&data);
                }
                Read::End => {
                    self.ended = true;
                    break;
                }
                _ => break,
            }
        }
        if self.written == self.work.sends && self.read.len() >= self.work.closes_after {
            self.connection.shutdown();
        }
    }

    fn is_done(&self) -> bool {
        self.ended && matches!(self.connection.state(), State::Closed | State::TimeWait)
    }
}

struct Half {
    node: Node,
    alive: bool,
    claims: bool,
    inbox: VecDeque<Vec<u8>>,
    counter: u64,
    heard: u64,
}

/// The world.
pub(crate) struct World {
    halves: Vec<Half>,
    config: Config,
    pub(crate) now: Time,
    connected: bool,
    pub(crate) client: Option<End>,
    pub(crate) servers: Vec<End>,
    server_work: Work,
    client_work: Work,
    /// Packets to the ends and to the nodes, so many of which the first is lost.
    loses: Option<usize>,
    passed: usize,
    pub(crate) resets: usize,
    pub(crate) messages: usize,
    pub(crate) refusing: Vec<Endpoint>,
    /// Nothing reaches the servers.
    pub(crate) deaf: bool,
    starts: u8,
    /// What each server's connection begins with before the client's words.
    pub(crate) prefix: usize,
}

impl World {
    /// A pair of which node 0 is active, and its standby holds everything.
    pub(crate) fn new(config: Config, client: Work, server: Work) -> Self {
        config.validate().unwrap();
        let now = Time::from_micros(1_000_000);
        let mut world = World {
            halves: [NodeId::A, NodeId::B]
                .iter()
                .enumerate()
                .map(|(i, n)| half(&config, *n, i as u8 + 1, now))
                .collect(),
            config,
            now,
            connected: false,
            client: None,
            servers: Vec::new(),
            server_work: server,
            client_work: client,
            loses: None,
            passed: 0,
            resets: 0,
            messages: 0,
            refusing: Vec::new(),
            deaf: false,
            starts: 2,
            prefix: 0,
        };
        world.run(2_000);
        world.connect();
        world.run(200);
        assert!(world.is_paired());
        world.messages = 0;
        world
    }

    pub(crate) fn is_paired(&self) -> bool {
        self.halves.iter().all(|half| half.alive && half.node.beliefs().synchronised)
    }

    /// Every so many packets one is lost.
    pub(crate) fn lossy(mut self, every: usize) -> Self {
        self.loses = Some(every);
        self
    }

    pub(crate) fn node(&self, node: usize) -> &Node {
        &self.halves[node].node
    }

    pub(crate) fn counter(&self, node: usize, counter: Counter) -> u64 {
        self.halves[node].node.status(self.now).counters.value(counter)
    }

    /// Sessions of a node: establishing, open, over.
    pub(crate) fn sessions(&self, node: usize) -> [usize; 3] {
        let census = self.halves[node].node.status(self.now).sessions;
        [census.establishing, census.open, census.over]
    }

    pub(crate) fn start_client(&mut self) {
        let config = endpoint::Config {
            acknowledge: Acknowledge::OnReceipt,
            receive_buffer: self.client_work.buffer,
            ..endpoint::Config::default()
        };
        let tuple = FourTuple::new(client_address(), listener());
        let opening = Opening::keyed(&[9; 16], tuple, self.now.as_micros(), self.now);
        let connection = Connection::connect(opening, config).unwrap();
        self.client = Some(End::new(connection, self.client_work, 1));
    }

    pub(crate) fn run(&mut self, ticks: usize) {
        (0..ticks).for_each(|_| self.tick());
    }

    /// Until both ends are done.
    pub(crate) fn finish(&mut self) {
        for _ in 0..400_000 {
            self.tick();
            let servers = !self.servers.is_empty() && self.servers.iter().all(End::is_done);
            if servers && self.client.as_ref().is_some_and(End::is_done) {
                return self.check_streams();
            }
        }
        let client = self.client.as_ref().unwrap();
        let server = self.servers.last();
        panic!(
            "it stands still: client {:?} read {} wrote {}, server {:?}",
            client.connection.state(),
            client.read.len(),
            client.written,
            server.map(|s| (s.connection.state(), s.read.len(), s.written)),
        );
    }

    fn check_streams(&self) {
        let (client, server) = (self.client.as_ref().unwrap(), self.servers.last().unwrap());
        assert_eq!(client.read.len(), server.work.sends);
        assert_eq!(server.read.len(), client.work.sends + self.prefix);
        assert!(client.read.iter().enumerate().all(|(at, b)| *b == byte(2, at)));
        let said = &server.read[self.prefix..];
        assert!(said.iter().enumerate().all(|(at, b)| *b == byte(1, at)));
        assert_eq!(self.resets, 0);
    }

    pub(crate) fn tick(&mut self) {
        self.now = self.now + TICK;
        let now = self.now;
        for end in self.client.iter_mut().chain(&mut self.servers) {
            end.connection.handle_timeout(now);
            end.act();
        }
        if now.as_millis().is_multiple_of(10) {
            self.beat();
        }
        for node in 0..2 {
            if self.halves[node].alive {
                self.halves[node].node.handle_timeout(now);
                self.after(node);
            }
        }
        // What was said in this millisecond is heard in it, up to a bound.
        for _ in 0..50 {
            if !self.exchange() {
                break;
            }
        }
        self.check_truth();
    }

    /// No end was told of more than the other has.
    fn check_truth(&self) {
        let (Some(client), Some(server)) = (&self.client, self.servers.last()) else { return };
        if client.connection.state() == State::SynSent {
            return;
        }
        let has = |end: &End| end.read.len() + end.connection.unread();
        let told = |end: &End| end.written - end.connection.unacknowledged();
        assert!(
            told(client) + self.prefix <= has(server) || has(server) == 0 && told(client) == 0,
            "told {} has {}",
            told(client),
            has(server)
        );
        assert!(told(server) <= has(client));
    }

    fn exchange(&mut self) -> bool {
        let mut packets = Vec::new();
        let now = self.now;
        for end in self.client.iter_mut().chain(&mut self.servers) {
            while let Some(transmit) = end.connection.poll_transmit(now) {
                for segment in transmit.segments() {
                    let mut packet = Vec::new();
                    segment.emit(&mut packet);
                    packets.push(packet);
                }
            }
            while end.connection.poll_event().is_some() {}
        }
        let moved = !packets.is_empty();
        for packet in packets {
            if !self.is_lost() {
                self.hand_to_node(&packet);
            }
        }
        self.state_messages() || moved
    }

    fn is_lost(&mut self) -> bool {
        self.passed += 1;
        self.loses.is_some_and(|every| self.passed.is_multiple_of(every))
    }

    pub(crate) fn hand_to_node(&mut self, packet: &[u8]) {
        let Some(node) = (0..2).find(|n| self.halves[*n].alive && self.halves[*n].claims) else {
            return;
        };
        let mut buffer = vec![0; HEADROOM];
        buffer.extend_from_slice(packet);
        let end = buffer.len();
        let verdict = self.halves[node].node.handle_packet(
            self.now,
            &mut buffer,
            HEADROOM,
            end,
            Offload::default(),
        );
        assert_eq!(verdict, Verdict::Done, "nothing is translated");
        self.after(node);
    }

    fn after(&mut self, node: usize) {
        let mut arrived = Vec::new();
        while self.halves[node].node.poll_arrived(self.now, &mut arrived).is_some() {
            let mut buffer = vec![0; HEADROOM];
            buffer.append(&mut arrived);
            let end = buffer.len();
            self.halves[node].node.handle_packet(
                self.now,
                &mut buffer,
                HEADROOM,
                end,
                Offload::default(),
            );
        }
        let mut close = false;
        while let Some(event) = self.halves[node].node.poll_event() {
            match event {
                Event::Activate { .. } => {
                    (0..2).for_each(|n| self.halves[n].claims = n == node);
                }
                Event::Deactivate { .. } => self.halves[node].claims = false,
                Event::CloseStateConnection(_) => close = true,
                _ => {}
            }
        }
        let mut packets = Vec::new();
        while let Some(packet) = self.halves[node].node.poll_transmit() {
            packets.push(packet.to_vec());
        }
        self.halves[node].node.check_invariants();
        if close {
            self.disconnect();
        }
        for packet in packets {
            if !self.is_lost() {
                self.hand_to_end(packet);
            }
        }
    }

    fn hand_to_end(&mut self, mut packet: Vec<u8>) {
        let len = packet.len();
        let parsed = TcpPacket::parse(&mut packet, 0, len, Offload::default()).unwrap();
        assert!(parsed.checksum_ok());
        let (arrival, now) = (Arrival::copied(&parsed), self.now);
        if arrival.flags.contains(Flags::RST) {
            self.resets += 1;
        }
        let tuple = arrival.tuple.reversed();
        if self.deaf && tuple.source.port == server_address(0).port {
            return;
        }
        let ends = self.client.iter_mut().chain(&mut self.servers);
        let living = |end: &&mut End| {
            end.connection.tuple() == tuple && end.connection.state() != State::Closed
        };
        if let Some(end) = ends.into_iter().find(living) {
            end.connection.handle_segment(now, &arrival);
            return;
        }
        let serves = tuple.source != client_address() && !self.refusing.contains(&tuple.source);
        if arrival.flags.contains(Flags::SYN) && arrival.ack.is_none() && serves {
            let config = endpoint::Config {
                acknowledge: Acknowledge::OnReceipt,
                receive_buffer: self.server_work.buffer,
                ..endpoint::Config::default()
            };
            let opening = Opening::keyed(&[8; 16], tuple, now.as_micros(), now);
            let connection = Connection::accept(now, &arrival, opening, config).unwrap();
            self.servers.push(End::new(connection, self.server_work, 2));
        } else if let Some(reset) = outlive_tcp::segment::reset_for(&parsed) {
            let mut bytes = Vec::new();
            reset.emit(&mut bytes);
            self.hand_to_node(&bytes);
        }
    }

    // ── the pair

    fn beat(&mut self) {
        let now = self.now;
        for from in [0, 1] {
            if !self.halves[from].alive {
                continue;
            }
            let half = &mut self.halves[from];
            half.counter += 1;
            let heartbeat = Heartbeat {
                beliefs: half.node.beliefs(),
                asks: half.node.asks(),
                clock_us: half.node.clock_us(now),
                counter: half.counter,
                heard: half.heard,
            };
            let to = &mut self.halves[1 - from];
            if to.alive {
                to.heard = heartbeat.counter;
                to.node.handle_heartbeat(now, 0, now, &heartbeat);
                self.after(1 - from);
            }
        }
    }

    fn state_messages(&mut self) -> bool {
        let mut moved = false;
        for node in [0, 1] {
            let mut message = Vec::new();
            while self.connected
                && self.halves[node].alive
                && self.halves[node].node.poll_state_message(self.now, &mut message)
            {
                self.messages += 1;
                moved = true;
                self.halves[1 - node].inbox.push_back(std::mem::take(&mut message));
            }
        }
        for node in [0, 1] {
            while let Some(message) = self.halves[node].inbox.pop_front() {
                if self.halves[node].alive {
                    self.halves[node].node.handle_state_message(self.now, &message).unwrap();
                    self.after(node);
                }
            }
        }
        moved
    }

    pub(crate) fn connect(&mut self) {
        self.connected = true;
        for node in [0, 1] {
            self.halves[node].inbox.clear();
            self.halves[node].node.handle_state_connected(self.now);
            self.after(node);
        }
    }

    fn disconnect(&mut self) {
        if !std::mem::take(&mut self.connected) {
            return;
        }
        for node in [0, 1] {
            if self.halves[node].alive {
                self.halves[node].node.handle_state_closed(self.now);
                self.after(node);
            }
        }
    }

    /// The process of a node dies.
    pub(crate) fn kill(&mut self, node: usize) {
        self.halves[node].alive = false;
        self.halves[node].claims = false;
        self.disconnect();
        self.halves[1 - node].node.handle_peer_refused(self.now);
        self.after(1 - node);
    }

    /// A node is told to do something else.
    pub(crate) fn reconfigure(&mut self, node: usize, change: impl FnOnce(&mut Config)) {
        let name = [NodeId::A, NodeId::B][node];
        let mut config = Config { node: name, ..self.config.clone() };
        change(&mut config);
        config.validate().unwrap();
        self.halves[node].node.reconfigure(self.now, config).unwrap();
        self.after(node);
    }

    /// A new process in its place, which becomes the standby.
    pub(crate) fn restart(&mut self, node: usize) {
        self.starts += 1;
        let name = [NodeId::A, NodeId::B][node];
        self.halves[node] = half(&self.config, name, self.starts, self.now);
        self.halves[1 - node].heard = 0;
        self.run(100);
        self.connect();
        self.run(100);
        assert!(self.is_paired(), "it is the standby");
    }

    pub(crate) fn hand_over(&mut self, node: usize) {
        self.halves[node].node.hand_over(self.now).unwrap();
        self.run(300);
    }
}

fn half(config: &Config, node: NodeId, seed: u8, now: Time) -> Half {
    let config = Config { node, ..config.clone() };
    let unix_us = 1_700_000_000_000_000 + now.as_micros();
    Half {
        node: Node::new(config, Entropy([seed; 32]), unix_us, now),
        alive: true,
        claims: false,
        inbox: VecDeque::new(),
        counter: 0,
        heard: 0,
    }
}
