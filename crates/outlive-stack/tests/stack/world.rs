//! Two stacks, or one, with clients around them, in virtual time. Every output counts: before each, the
//! node can die.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};

use bytes::Bytes;
use outlive_proxy::{
    config::{NodeId, PairConfig},
    node::Entropy,
    pair::heartbeat::Heartbeat,
};
use outlive_stack::{
    Chunk, Closed, ConnectionId, Event, Stack, StackConfig, Standing, Transaction,
};
use outlive_tcp::{
    endpoint::{Acknowledge, Arrival, Config, Connection, End, Event as TcpEvent, Opening, Read},
    seq::Seq,
    time::Time,
    wire::{Endpoint, FourTuple, Offload, TcpPacket},
};

use crate::regenerate::Talk;

pub(crate) const WAY: Duration = Duration::from_millis(1);
pub(crate) const STATE_WAY: Duration = Duration::from_micros(300);
const HEARTBEAT: Duration = Duration::from_millis(20);

pub(crate) fn local() -> Endpoint {
    Endpoint::new([192, 0, 2, 1].into(), 514)
}

pub(crate) fn us(micros: u64) -> Time {
    Time::from_micros(micros)
}

/// What the program sends for a byte that it has received.
pub(crate) fn answer(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| byte ^ 0x20).collect()
}

/// What client `number` sends.
pub(crate) fn data(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + number * 31 + i / 251) as u8).collect()
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Input {
    ToNode(Vec<u8>),
    ToClient(usize, Vec<u8>),
    State { to: usize, generation: u64, message: Vec<u8> },
    StateConnected,
    StateClosed(usize),
    Heartbeat(usize),
    Start(usize),
    Thaw,
    Commit { node: usize, incarnation: u64 },
}

pub(crate) struct Client {
    pub(crate) conn: Connection,
    pub(crate) to_send: Bytes,
    pub(crate) got: Vec<u8>,
    pub(crate) end: Option<End>,
    ended: bool,
    pub(crate) finished: bool,
    /// It says nothing any more.
    pub(crate) gone: bool,
}

/// The program: echoes what it has read, in another case; remembers in its state how far it is.
#[derive(Default)]
pub(crate) struct Program {
    /// Bytes that were written down, by connection and position.
    pub(crate) log: BTreeMap<ConnectionId, BTreeMap<u64, u8>>,
    pub(crate) open: BTreeMap<ConnectionId, u64>,
    /// Read, and to be committed after a moment.
    pub(crate) pending: Vec<(ConnectionId, u64, Bytes)>,
    pub(crate) resumed: usize,
    pub(crate) closed: Vec<Closed>,
    /// Of the program that computes its output.
    pub(crate) talks: BTreeMap<ConnectionId, Talk>,
}

pub(crate) struct Node {
    pub(crate) stack: Stack,
    pub(crate) program: Program,
    pub(crate) incarnation: u64,
    heard: u64,
    counter: u64,
    deadline: Option<Time>,
}

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) nodes: [Option<Node>; 2],
    pub(crate) clients: Vec<Client>,
    queue: BinaryHeap<Reverse<(Time, u64, Input)>>,
    order: u64,
    generation: u64,
    connected: bool,
    pub(crate) owner: usize,
    pub(crate) config: StackConfig,
    /// Outputs so far of the node that is to die, and at which it does.
    pub(crate) outputs: u64,
    pub(crate) die_at: Option<u64>,
    pub(crate) died: bool,
    pub(crate) commit_delay: Duration,
    /// In percent, of packets.
    pub(crate) loss: u32,
    pub(crate) random: fastrand::Rng,
    pub(crate) starts: u64,
    /// What programs do after every event: gives whether there is something to commit soon.
    pub(crate) work: fn(&mut Node, Time) -> bool,
    /// Programs do nothing by themselves.
    pub(crate) idle: bool,
    /// What this node says on the state connection gets lost.
    pub(crate) mute: Option<usize>,
    /// This node does nothing until then.
    frozen: Option<(usize, Time)>,
    pub(crate) logs: Vec<BTreeMap<ConnectionId, BTreeMap<u64, u8>>>,
    pub(crate) log_events: Vec<String>,
}

impl World {
    pub(crate) fn new(config: StackConfig) -> Self {
        let mut world = World {
            now: us(10_000_000),
            nodes: [None, None],
            clients: Vec::new(),
            queue: BinaryHeap::new(),
            order: 0,
            generation: 0,
            connected: false,
            owner: 0,
            config,
            outputs: 0,
            die_at: None,
            died: false,
            commit_delay: Duration::from_micros(500),
            loss: 0,
            random: fastrand::Rng::with_seed(1),
            starts: 0,
            work: Node::work,
            idle: false,
            mute: None,
            frozen: None,
            logs: Vec::new(),
            log_events: Vec::new(),
        };
        let nodes = if world.config.pair.enabled { 2 } else { 1 };
        for node in 0..nodes {
            world.at(Duration::ZERO, Input::Start(node));
        }
        world
    }

    pub(crate) fn pair(settings: impl FnOnce(&mut StackConfig)) -> Self {
        let mut config = StackConfig { pair: PairConfig::default(), ..StackConfig::default() };
        settings(&mut config);
        World::new(config)
    }

    pub(crate) fn at(&mut self, after: Duration, input: Input) {
        self.order += 1;
        self.queue.push(Reverse((self.now + after, self.order, input)));
    }

    pub(crate) fn connect(&mut self, to_send: Vec<u8>) -> usize {
        let number = self.clients.len();
        let source = Endpoint::new([198, 51, 100, 7].into(), 40_000 + number as u16);
        let tuple = FourTuple::new(source, local());
        let opening =
            Opening { tuple, iss: Seq(0xffff_f000 + number as u32), timestamp_offset: 77 };
        let config = Config { acknowledge: Acknowledge::OnReceipt, ..Config::default() };
        let conn = Connection::connect(opening, config).unwrap();
        self.clients.push(Client {
            conn,
            to_send: to_send.into(),
            got: Vec::new(),
            end: None,
            ended: false,
            finished: false,
            gone: false,
        });
        self.drive_client(number);
        number
    }

    pub(crate) fn start(&mut self, number: usize) {
        self.starts += 1;
        let mut config = self.config.clone();
        config.node = if number == 0 { NodeId::A } else { NodeId::B };
        let entropy = Entropy([number as u8 * 16 + self.starts as u8; 32]);
        let unix_us = 1_800_000_000_000_000 + self.now.as_micros();
        let mut stack = Stack::new(config, entropy, unix_us, self.now);
        stack.listen(local(), 16).unwrap();
        let program = Program::default();
        let incarnation = self.starts;
        self.nodes[number] =
            Some(Node { stack, program, incarnation, heard: 0, counter: 0, deadline: None });
        self.at(HEARTBEAT, Input::Heartbeat(number));
        if self.nodes.iter().all(Option::is_some) {
            self.at(Duration::from_millis(5), Input::StateConnected);
        }
        self.drive_node(number);
    }

    /// The node's machine is no more.
    pub(crate) fn kill(&mut self, number: usize) {
        if let Some(node) = self.nodes[number].take() {
            self.logs.push(node.program.log);
            self.close_state(Some(number));
        }
    }

    /// The node stands still for so long; then it sees all at once what has arrived.
    pub(crate) fn freeze(&mut self, number: usize, time: Duration) {
        self.frozen = Some((number, self.now + time));
        self.at(time, Input::Thaw);
    }

    fn is_frozen(&self, number: usize) -> bool {
        self.frozen.is_some_and(|(frozen, until)| frozen == number && self.now < until)
    }

    fn close_state(&mut self, except: Option<usize>) {
        if std::mem::take(&mut self.connected) {
            self.generation += 1;
            for to in (0..2).filter(|to| Some(*to) != except) {
                self.at(STATE_WAY, Input::StateClosed(to));
            }
        }
        if except.is_none() {
            self.at(Duration::from_millis(5), Input::StateConnected);
        }
    }

    // ── running

    fn next_timeout(&self) -> Option<(Time, Option<usize>, usize)> {
        let nodes = self.nodes.iter().enumerate().filter_map(|(i, node)| {
            let node = node.as_ref().filter(|_| !self.is_frozen(i))?;
            Some((node.deadline?, None, i))
        });
        let clients = self.clients.iter().enumerate();
        let clients = clients.filter_map(|(i, client)| {
            Some((client.conn.poll_timeout().filter(|_| !client.gone)?, Some(i), 0))
        });
        nodes.chain(clients).min()
    }

    /// One event. False if there is nothing more to happen.
    pub(crate) fn step(&mut self) -> bool {
        let timeout = self.next_timeout();
        let input = self.queue.peek().map(|Reverse((at, ..))| *at);
        match (timeout, input) {
            (None, None) => return false,
            (Some((at, client, node)), input) if input.is_none_or(|input| at <= input) => {
                self.now = self.now.max(at);
                match client {
                    Some(client) => {
                        self.clients[client].conn.handle_timeout(self.now);
                        self.drive_client(client);
                    }
                    None => self.drive_node(node),
                }
            }
            _ => {
                let Some(Reverse((at, _, input))) = self.queue.pop() else { return false };
                self.now = self.now.max(at);
                self.handle(input);
            }
        }
        true
    }

    /// Runs until `done` says so, or for `time`.
    pub(crate) fn run(&mut self, time: Duration, done: impl Fn(&World) -> bool) -> bool {
        let until = self.now + time;
        while self.now < until {
            if done(self) {
                return true;
            }
            if !self.step() {
                break;
            }
        }
        done(self)
    }

    fn handle(&mut self, input: Input) {
        let now = self.now;
        if let Some(later) = self.put_off(&input) {
            return self.at(later, input);
        }
        match input {
            Input::Start(number) => self.start(number),
            Input::Thaw => self.drive_node(0),
            Input::ToNode(mut packet) => {
                let owner = self.owner;
                if let Some(node) = &mut self.nodes[owner] {
                    node.stack.handle_packet(now, &mut packet, Offload::default());
                    self.drive_node(owner);
                }
            }
            Input::ToClient(number, mut packet) => {
                let len = packet.len();
                let packet = TcpPacket::parse(&mut packet, 0, len, Offload::default()).unwrap();
                assert!(packet.checksum_ok());
                self.clients[number].conn.handle_segment(now, &Arrival::copied(&packet));
                self.drive_client(number);
            }
            Input::State { to, generation, message } => {
                let current = generation == self.generation && self.connected;
                if let Some(node) = self.nodes[to].as_mut().filter(|_| current) {
                    node.stack.handle_state_message(now, &message).unwrap();
                    self.drive_node(to);
                }
            }
            Input::StateConnected => {
                if !self.connected && self.nodes.iter().all(Option::is_some) {
                    self.connected = true;
                    self.generation += 1;
                    for number in 0..2 {
                        if let Some(node) = &mut self.nodes[number] {
                            node.stack.handle_state_connected(now);
                        }
                    }
                    self.drive_node(0);
                    self.drive_node(1);
                }
            }
            Input::StateClosed(number) => {
                let refused = self.nodes[1 - number].is_none();
                if let Some(node) = &mut self.nodes[number] {
                    node.stack.handle_state_closed(now);
                    if refused {
                        node.stack.handle_peer_refused(now);
                    }
                    self.drive_node(number);
                }
            }
            Input::Heartbeat(number) => self.beat(number),
            Input::Commit { node, incarnation } => {
                if let Some(running) = &mut self.nodes[node]
                    && running.incarnation == incarnation
                {
                    running.commit_pending(now);
                    self.drive_node(node);
                }
            }
        }
    }

    /// How long an input waits for a node that stands still.
    fn put_off(&self, input: &Input) -> Option<Duration> {
        let (frozen, until) = self.frozen?;
        let number = match input {
            Input::ToNode(_) => self.owner,
            Input::State { to, .. } | Input::StateClosed(to) => *to,
            Input::Heartbeat(number) => *number,
            Input::Commit { node, .. } => *node,
            Input::StateConnected => frozen,
            _ => return None,
        };
        (number == frozen && self.now < until).then(|| until.since(self.now))
    }

    fn beat(&mut self, number: usize) {
        let now = self.now;
        let Some(node) = &mut self.nodes[number] else { return };
        node.counter += 1;
        if node.stack.asks() {
            node.stack.handle_asked(node.counter - 1);
        }
        let heartbeat = Heartbeat {
            beliefs: node.stack.beliefs(),
            asks: node.stack.asks(),
            clock_us: node.stack.clock_us(now),
            counter: node.counter,
            heard: node.heard,
        };
        self.at(HEARTBEAT, Input::Heartbeat(number));
        if self.is_frozen(1 - number) {
            return;
        }
        if let Some(other) = &mut self.nodes[1 - number] {
            other.heard = heartbeat.counter;
            other.stack.handle_heartbeat(now, 0, now, &heartbeat);
            self.drive_node(1 - number);
        }
    }

    /// An output of node A leaves, unless the node dies right before.
    fn leaves(&mut self, number: usize) -> bool {
        if number != 0 || self.died {
            return true;
        }
        self.outputs += 1;
        if self.die_at == Some(self.outputs) {
            self.died = true;
            self.kill(0);
            return false;
        }
        true
    }

    /// Lets a node do everything that follows from its last input.
    pub(crate) fn drive_node(&mut self, number: usize) {
        let now = self.now;
        if let Some(node) = &mut self.nodes[number] {
            node.stack.handle_timeout(now);
        }
        self.flush_node(number);
        if let Some(node) = &mut self.nodes[number] {
            node.deadline = node.stack.poll_timeout(now);
            assert!(node.deadline.is_none_or(|at| at > now), "what was due was done");
        }
    }

    fn flush_node(&mut self, number: usize) {
        let now = self.now;
        loop {
            let Some(node) = &mut self.nodes[number] else { return };
            if !self.idle && (self.work)(node, now) {
                let incarnation = node.incarnation;
                self.at(self.commit_delay, Input::Commit { node: number, incarnation });
                continue;
            }
            if let Some(event) = node.stack.poll_event() {
                self.event(number, event);
                continue;
            }
            if let Some(transmit) = node.stack.poll_transmit(now) {
                let client = usize::from(transmit.tuple.destination.port) - 40_000;
                for segment in transmit.segments() {
                    if !self.leaves(number) {
                        return;
                    }
                    let mut packet = Vec::new();
                    segment.emit(&mut packet);
                    if self.random.u32(0..100) >= self.loss {
                        self.at(WAY, Input::ToClient(client, packet));
                    }
                }
                continue;
            }
            let mut message = Vec::new();
            if node.stack.poll_state_message(now, &mut message) {
                if !self.leaves(number) {
                    return;
                }
                let (to, generation) = (1 - number, self.generation);
                if self.mute == Some(number) {
                    continue;
                }
                self.at(STATE_WAY, Input::State { to, generation, message });
                continue;
            }
            return;
        }
    }

    fn event(&mut self, number: usize, event: Event) {
        match event {
            Event::Activate(_) => self.owner = number,
            Event::CloseStateConnection(_) => self.close_state(None),
            Event::Log(event) => self.log_events.push(format!("{number} {event:?}")),
            // The program looks at everything whenever something happens.
            _ => {}
        }
    }

    fn drive_client(&mut self, number: usize) {
        let client = &mut self.clients[number];
        if client.gone {
            return;
        }
        while let Some(event) = client.conn.poll_event() {
            if let TcpEvent::Closed(end) = event {
                client.end = Some(end);
            }
        }
        if !client.to_send.is_empty() {
            let sent = client.conn.write(client.to_send.clone()).unwrap_or(0);
            client.to_send = client.to_send.slice(sent..);
        }
        if client.to_send.is_empty() && !client.ended {
            client.ended = true;
            client.conn.shutdown();
        }
        loop {
            match client.conn.read(usize::MAX) {
                Read::Data(bytes) => client.got.extend_from_slice(&bytes),
                Read::End => {
                    client.finished = true;
                    break;
                }
                _ => break,
            }
        }
        let mut packets = Vec::new();
        while let Some(transmit) = client.conn.poll_transmit(self.now) {
            for segment in transmit.segments() {
                let mut packet = Vec::new();
                segment.emit(&mut packet);
                packets.push(packet);
            }
        }
        for packet in packets {
            if self.random.u32(0..100) >= self.loss {
                self.at(WAY, Input::ToNode(packet));
            }
        }
    }

    // ── looking at it

    pub(crate) fn is_protected(&self) -> bool {
        self.nodes.iter().flatten().any(|node| node.stack.standing() == Standing::Protected)
    }

    pub(crate) fn all_finished(&self) -> bool {
        self.clients.iter().all(|client| client.finished || client.end.is_some() || client.gone)
    }

    /// Everything that was written down, by whomever: each byte at most in one version.
    pub(crate) fn union(&self) -> BTreeMap<ConnectionId, Vec<u8>> {
        let running = self.nodes.iter().flatten().map(|node| &node.program.log);
        let mut union: BTreeMap<ConnectionId, BTreeMap<u64, u8>> = BTreeMap::new();
        for log in self.logs.iter().chain(running) {
            for (id, bytes) in log {
                for (position, byte) in bytes {
                    let known = union.entry(*id).or_default().insert(*position, *byte);
                    assert!(known.is_none_or(|known| known == *byte), "{id} at {position}");
                }
            }
        }
        let whole = |(id, bytes): (ConnectionId, BTreeMap<u64, u8>)| {
            assert!(bytes.keys().copied().eq(0..bytes.len() as u64), "{id} has a hole");
            (id, bytes.into_values().collect())
        };
        union.into_iter().map(whole).collect()
    }
}

impl Node {
    /// Reads what there is to read. Returns whether there is something to commit soon.
    fn work(&mut self, now: Time) -> bool {
        let mut news = false;
        while let Some(accepted) = self.stack.accept(now, local()) {
            let state = <[u8; 8]>::try_from(accepted.state.as_ref());
            let state = state.map_or(0, u64::from_be_bytes);
            assert_eq!(state, accepted.position, "state and acknowledgment are one");
            assert_eq!(state, accepted.written, "state and output are one");
            self.program.resumed += usize::from(accepted.resumed);
            self.program.open.insert(accepted.id, accepted.position);
        }
        for id in self.program.open.keys().copied().collect::<Vec<_>>() {
            loop {
                match self.stack.read(now, id, 3_000) {
                    Ok(Chunk::Data { position, bytes }) => {
                        let log = self.program.log.entry(id).or_default();
                        log.extend((position..).zip(bytes.iter().copied()));
                        self.program.pending.push((id, position, bytes));
                        news = true;
                    }
                    Ok(Chunk::Blocked) => break,
                    Ok(Chunk::End { position }) => {
                        self.program.open.remove(&id);
                        self.program.pending.push((id, position, Bytes::new()));
                        news = true;
                        break;
                    }
                    Err(closed) => {
                        self.program.open.remove(&id);
                        self.program.closed.push(closed);
                        self.stack.close(now, id);
                        break;
                    }
                }
            }
        }
        news
    }

    /// What was read is safe now.
    fn commit_pending(&mut self, now: Time) {
        for (id, position, bytes) in std::mem::take(&mut self.program.pending) {
            let so_far = position + bytes.len() as u64;
            let mut transaction = Transaction::new()
                .acknowledge(bytes.len() as u32)
                .write(answer(&bytes))
                .state(so_far.to_be_bytes().to_vec());
            let last = bytes.is_empty();
            if last {
                transaction = transaction.acknowledge_end().end();
            }
            match self.stack.commit(now, id, transaction) {
                Ok(_) if last => self.stack.close(now, id),
                Ok(_) => {}
                Err(error) => assert!(
                    matches!(error, outlive_stack::CommitError::Closed(_)),
                    "{error:?} at {position}"
                ),
            }
        }
    }
}
