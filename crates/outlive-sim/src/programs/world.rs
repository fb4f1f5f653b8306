//! Virtual time, the two nodes, what is said between them, and who dies when.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    panic::AssertUnwindSafe,
    time::Duration,
};

use outlive_proxy::pair::heartbeat::Heartbeat;
use outlive_stack::{Event, Standing};
use outlive_tcp::{
    time::Time,
    wire::{Flags, Offload},
};

use super::{
    Setup,
    client::Client,
    program::{Node, Records},
};
use crate::{
    channel::Tail,
    ledger::{Rule, Violation},
    packet::Seen,
    rng::Rng,
    world::Outcome,
};

/// A packet's way, and a message's.
const WAY: Duration = Duration::from_micros(500);
const STATE_WAY: Duration = Duration::from_micros(300);
const HEARTBEAT: Duration = Duration::from_millis(20);
const REDIAL: Duration = Duration::from_millis(5);
/// The load begins when the pair is synchronised, or so late.
const MEETING: Duration = Duration::from_secs(5);
/// How long everything may take after the last death: the end systems' timers are backed off by then.
const PATIENCE: Duration = Duration::from_secs(150);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    ToNode(Vec<u8>),
    /// With the number of the process that sent it.
    ToClient(usize, u64, Vec<u8>),
    State {
        to: usize,
        connection: u64,
        message: Vec<u8>,
    },
    StateMade,
    /// `refused`: nobody answers when it is tried again.
    StateLost {
        node: usize,
        refused: bool,
    },
    Heartbeat {
        node: usize,
        incarnation: u64,
    },
    Start(usize),
    Announced(usize),
    Decide {
        node: usize,
        incarnation: u64,
    },
    Begin(usize),
    Woken(usize),
}

struct World {
    now: Time,
    setup: Setup,
    rng: Rng,
    queue: BinaryHeap<Reverse<(Time, u64, Happening)>>,
    order: u64,
    events: u64,
    nodes: [Option<Node>; 2],
    started: u64,
    /// The number of the state connection, if there is one.
    connection: Option<u64>,
    connections: u64,
    /// Messages of the connections before it that still arrive: so many of the oldest.
    arriving: BTreeMap<u64, usize>,
    /// Processes whose packets under way are lost.
    lost_packets_of: BTreeSet<u64>,
    /// Whose the address is, as the network believes.
    owner: usize,
    clients: Vec<Client>,
    records: Vec<Records>,
    load_began: bool,
    steps: u64,
    later_steps: u64,
    crashed: bool,
    last_fault: Time,
    takeovers: u32,
    wrong: Vec<(Rule, String)>,
    violations: Vec<Violation>,
}

/// Runs a world. A panic in it is a broken rule.
pub fn run(setup: Setup) -> Outcome {
    let flows = setup.load.clients.len();
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| World::new(setup).run()));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        let detail = text.unwrap_or_default();
        let violation = Violation { at: Time::NEVER, rule: Rule::Invariant, detail };
        Outcome { violations: vec![violation], flows, ..Outcome::default() }
    })
}

impl World {
    fn new(setup: Setup) -> Self {
        let mut world = World {
            now: Time::from_micros(10_000_000),
            rng: Rng::new(setup.seed),
            setup,
            queue: BinaryHeap::new(),
            order: 0,
            events: 0,
            nodes: [None, None],
            started: 0,
            connection: None,
            connections: 0,
            arriving: BTreeMap::new(),
            lost_packets_of: BTreeSet::new(),
            owner: 0,
            clients: Vec::new(),
            records: Vec::new(),
            load_began: false,
            steps: 0,
            later_steps: 0,
            crashed: false,
            last_fault: Time::ZERO,
            takeovers: 0,
            wrong: Vec::new(),
            violations: Vec::new(),
        };
        world.at(Duration::ZERO, Happening::Start(0));
        world.at(Duration::ZERO, Happening::Start(1));
        world
    }

    fn at(&mut self, after: Duration, happening: Happening) {
        self.order += 1;
        self.queue.push(Reverse((self.now + after, self.order, happening)));
    }

    fn trace(&self, line: impl FnOnce() -> String) {
        if self.setup.trace {
            println!("{:?} {}", self.now, line());
        }
    }

    fn run(mut self) -> Outcome {
        let start = self.now;
        while self.violations.is_empty() && !self.is_done() {
            let Some((at, node)) = self.next() else { break };
            self.now = self.now.max(at);
            self.events += 1;
            match node {
                Some(node) => self.drive_node(node),
                None => {
                    let Some(Reverse((_, _, happening))) = self.queue.pop() else { break };
                    self.happen(happening);
                }
            }
            self.begin_load(start);
            self.note_wrong();
            if self.load_began && self.now > self.last_fault + PATIENCE {
                let stuck: Vec<_> = (0..self.clients.len()).filter(|i| !self.is_over(*i)).collect();
                self.wrong.push((Rule::Liveness, format!("clients {stuck:?} are not done")));
                self.note_wrong();
            }
        }
        self.merge_records();
        self.note_wrong();
        if self.setup.trace {
            self.violations.iter().for_each(|violation| println!("VIOLATION {violation}"));
        }
        Outcome {
            violations: self.violations,
            steps: self.steps,
            later_steps: self.later_steps,
            flows: self.clients.len(),
            exempt: self.clients.iter().filter(|client| client.exempt).count(),
            events: self.events,
            lasted: self.now.since(start),
            takeovers: self.takeovers,
            ..Outcome::default()
        }
    }

    fn is_over(&self, client: usize) -> bool {
        self.clients[client].done || self.clients[client].exempt
    }

    fn is_done(&self) -> bool {
        self.load_began
            && self.clients.len() == self.setup.load.clients.len()
            && (0..self.clients.len()).all(|client| self.is_over(client))
    }

    fn note_wrong(&mut self) {
        for (rule, detail) in std::mem::take(&mut self.wrong) {
            self.violations.push(Violation { at: self.now, rule, detail });
        }
    }

    /// What is next: a node's timer, or something of the queue.
    fn next(&self) -> Option<(Time, Option<usize>)> {
        let timers = self.nodes.iter().enumerate();
        let timers = timers.filter_map(|(i, node)| Some((node.as_ref()?.deadline?, Some(i))));
        let queued = self.queue.peek().map(|Reverse((at, ..))| (*at, None));
        timers.chain(queued).min_by_key(|(at, node)| (*at, node.is_some()))
    }

    fn begin_load(&mut self, start: Time) {
        let protected =
            self.nodes.iter().flatten().any(|n| n.stack.standing() == Standing::Protected);
        if self.load_began || !protected && self.now.since(start) < MEETING {
            return;
        }
        self.load_began = true;
        self.last_fault = self.now;
        for client in 0..self.setup.load.clients.len() {
            let after = self.setup.load.apart * client as u32;
            self.at(after, Happening::Begin(client));
        }
    }

    fn happen(&mut self, happening: Happening) {
        let now = self.now;
        match happening {
            Happening::Start(node) if self.nodes[node].is_none() => self.start(node),
            Happening::Start(_) => {}
            Happening::ToNode(mut packet) => {
                let owner = self.owner;
                if let Some(node) = &mut self.nodes[owner] {
                    node.stack.handle_packet(now, &mut packet, Offload::default());
                    self.drive_node(owner);
                }
            }
            Happening::ToClient(client, sender, packet) => {
                if !self.lost_packets_of.contains(&sender) {
                    self.clients[client].receive(now, packet);
                    self.drive_client(client);
                }
            }
            Happening::State { to, connection, message } => {
                self.state_arrives(to, connection, &message);
            }
            Happening::StateMade => {
                if self.connection.is_none() && self.nodes.iter().all(Option::is_some) {
                    self.connections += 1;
                    self.connection = Some(self.connections);
                    for node in self.nodes.iter_mut().flatten() {
                        node.stack.handle_state_connected(now);
                    }
                    self.drive_node(0);
                    self.drive_node(1);
                }
            }
            Happening::StateLost { node: number, refused } => {
                if let Some(node) = &mut self.nodes[number] {
                    node.stack.handle_state_closed(now);
                    if refused {
                        node.stack.handle_peer_refused(now);
                    }
                    self.drive_node(number);
                }
            }
            Happening::Heartbeat { node, incarnation } => self.beat(node, incarnation),
            Happening::Announced(node) => self.owner = node,
            Happening::Decide { node: number, incarnation } => {
                let running = self.nodes[number].as_mut().filter(|n| n.incarnation == incarnation);
                if let Some(node) = running {
                    node.decide(now, &mut self.wrong);
                    self.drive_node(number);
                }
            }
            Happening::Begin(number) => {
                let (kind, len) = self.setup.load.clients[number];
                let seed = self.rng.number();
                self.clients.push(Client::new(now, number, kind, len, seed));
                self.last_fault = self.last_fault.max(now);
                self.drive_client(number);
            }
            Happening::Woken(client) => self.drive_client(client),
        }
    }

    fn start(&mut self, number: usize) {
        self.started += 1;
        self.trace(|| format!("node {number} starts"));
        let entropy = self.rng.bytes();
        self.nodes[number] = Some(Node::new(self.now, number, self.started, entropy));
        let incarnation = self.started;
        self.at(HEARTBEAT / 2, Happening::Heartbeat { node: number, incarnation });
        self.at(REDIAL, Happening::StateMade);
        self.drive_node(number);
    }

    fn state_arrives(&mut self, to: usize, connection: u64, message: &[u8]) {
        let current = self.connection == Some(connection);
        let left = self.arriving.get_mut(&connection).filter(|left| **left > 0);
        if let Some(left) = left {
            *left -= 1;
        } else if !current {
            return;
        }
        let now = self.now;
        let Some(node) = &mut self.nodes[to] else { return };
        if let Err(error) = node.stack.handle_state_message(now, message) {
            self.wrong.push((Rule::StateConnection, format!("node {to}: {error}")));
        }
        self.drive_node(to);
    }

    fn beat(&mut self, number: usize, incarnation: u64) {
        let now = self.now;
        let running = self.nodes[number].as_mut().filter(|n| n.incarnation == incarnation);
        let Some(node) = running else { return };
        node.counter += 1;
        let asks = node.stack.asks();
        if asks {
            node.stack.handle_asked(node.counter - 1);
        }
        let heartbeat = Heartbeat {
            beliefs: node.stack.beliefs(),
            asks,
            clock_us: node.stack.clock_us(now),
            counter: node.counter,
            heard: node.heard,
        };
        self.at(HEARTBEAT, Happening::Heartbeat { node: number, incarnation });
        if let Some(other) = &mut self.nodes[1 - number] {
            other.heard = heartbeat.counter;
            other.stack.handle_heartbeat(now, 0, now, &heartbeat);
            self.drive_node(1 - number);
        }
    }

    /// Lets a node do everything that follows from its last input.
    fn drive_node(&mut self, number: usize) {
        let now = self.now;
        let Some(node) = &mut self.nodes[number] else { return };
        node.stack.handle_timeout(now);
        if !self.flush(number) || self.step(number) {
            return;
        }
        if let Some(node) = &mut self.nodes[number] {
            node.deadline = node.stack.poll_timeout(now);
            match node.stack.standing() {
                Standing::Standby { synchronised: true } => {
                    node.synchronised_since.get_or_insert(now);
                }
                _ => node.synchronised_since = None,
            }
        }
    }

    /// Fetches everything that a node has to give. False if it died meanwhile.
    fn flush(&mut self, number: usize) -> bool {
        let now = self.now;
        loop {
            let Some(node) = &mut self.nodes[number] else { return false };
            let incarnation = node.incarnation;
            let (resumed, news) = node.work(now, &mut self.wrong);
            for (remote, position) in resumed {
                let client = self.clients.iter().find(|client| client.tuple.source == remote);
                self.wrong.extend(client.and_then(|client| client.is_resumed(position)));
            }
            if news {
                let after = self.setup.load.decides_after;
                self.at(after, Happening::Decide { node: number, incarnation });
                continue;
            }
            let Some(node) = &mut self.nodes[number] else { return false };
            if let Some(event) = node.stack.poll_event() {
                self.obey(number, event);
                continue;
            }
            if let Some(transmit) = node.stack.poll_transmit(now) {
                for segment in transmit.segments() {
                    let mut packet = Vec::new();
                    segment.emit(&mut packet);
                    self.node_sends(number, incarnation, packet);
                    if self.step(number) {
                        return false;
                    }
                }
                continue;
            }
            let mut message = Vec::new();
            if !node.stack.poll_state_message(now, &mut message) {
                return true;
            }
            if let Some(connection) = self.connection {
                let to = 1 - number;
                self.at(STATE_WAY, Happening::State { to, connection, message });
            }
            if self.step(number) {
                return false;
            }
        }
    }

    fn obey(&mut self, number: usize, event: Event) {
        match event {
            Event::Activate(_) => {
                self.takeovers += 1;
                self.trace(|| format!("node {number} is active"));
                // A handshake from before it held everything cannot be proved to be without effect.
                let since = self.nodes[number].as_ref().and_then(|node| node.synchronised_since);
                for client in &mut self.clients {
                    client.exempt |= !client.done && client.is_unproved(since);
                }
                self.at(WAY, Happening::Announced(number));
            }
            Event::Announce => self.at(WAY, Happening::Announced(number)),
            Event::CloseStateConnection(_) => self.lose_state([false; 2]),
            Event::Log(event) => self.trace(|| format!("node {number}: {event:?}")),
            _ => {}
        }
    }

    /// The state connection is gone; who is alive hears of it, and whether it is refused another one.
    fn lose_state(&mut self, refused: [bool; 2]) {
        if self.connection.take().is_some() {
            for (node, refused) in refused.into_iter().enumerate() {
                self.at(STATE_WAY, Happening::StateLost { node, refused });
            }
        }
        self.at(REDIAL, Happening::StateMade);
    }

    fn node_sends(&mut self, number: usize, incarnation: u64, mut packet: Vec<u8>) {
        let Some(seen) = Seen::of(&mut packet) else { return };
        self.trace(|| format!("node {number} -> {seen}"));
        if !seen.checksum_ok {
            self.wrong.push((Rule::WellFormed, format!("wrong checksum: {seen}")));
        }
        let to = seen.tuple.destination;
        let Some(client) = self.clients.iter().position(|client| client.tuple.source == to) else {
            return;
        };
        self.wrong.extend(self.clients[client].is_sent(self.now, &seen, &packet));
        if !self.rng.chance(self.setup.load.loss) {
            self.at(WAY, Happening::ToClient(client, incarnation, packet));
        }
    }

    fn drive_client(&mut self, number: usize) {
        let packets = self.clients[number].drive(self.now, &mut self.wrong);
        for mut packet in packets {
            if let Some(seen) = Seen::of(&mut packet) {
                self.trace(|| format!("client {number} -> {seen}"));
                if seen.has(Flags::RST) && !self.clients[number].exempt {
                    self.trace(|| format!("client {number} resets"));
                }
            }
            if !self.rng.chance(self.setup.load.loss) {
                self.at(WAY, Happening::ToNode(packet));
            }
        }
        if let Some(at) = self.clients[number].deadline() {
            let after = at.since(self.now).max(Duration::from_micros(1));
            self.at(after, Happening::Woken(number));
        }
    }

    // ── deaths

    /// A node has taken a step. Whether it dies there.
    fn step(&mut self, number: usize) -> bool {
        let Some(crash) = self.setup.crash.filter(|_| self.load_began) else { return false };
        if !self.crashed && number == crash.node {
            self.steps += 1;
            if self.steps == crash.point {
                self.crashed = true;
                self.die(number, crash.tail, crash.off, crash.queues_lost, crash.restart);
                return true;
            }
        } else if self.crashed && number != crash.node && crash.then.is_some() {
            self.later_steps += 1;
            if Some(self.later_steps) == crash.then {
                let soon = Some(Duration::from_millis(15));
                self.die(number, Tail::Lost, false, false, soon);
                return true;
            }
        }
        false
    }

    fn die(
        &mut self,
        number: usize,
        tail: Tail,
        off: bool,
        queues_lost: bool,
        restart: Option<Duration>,
    ) {
        let Some(node) = self.nodes[number].take() else { return };
        self.trace(|| format!("node {number} dies, {tail:?} of what it has said arrives"));
        self.last_fault = self.now;
        if queues_lost {
            self.lost_packets_of.insert(node.incarnation);
        }
        // Nothing is promised if nobody is left who holds everything.
        let other = self.nodes[1 - number].as_ref().map(|other| other.stack.standing());
        let holds = |standing| {
            !matches!(standing, Standing::Starting | Standing::Standby { synchronised: false })
        };
        if !other.is_some_and(holds) {
            self.clients.iter_mut().for_each(|client| client.exempt |= !client.done);
        }
        self.records.push(node.records);
        if let Some(connection) = self.connection {
            let mine = |Reverse((_, _, happening)): &Reverse<(Time, u64, Happening)>| {
                matches!(happening, Happening::State { to, connection: c, .. }
                    if *to != number && *c == connection)
            };
            let under_way = self.queue.iter().filter(|entry| mine(entry)).count();
            let kept = match tail {
                Tail::Kept => under_way,
                Tail::Lost => 0,
                Tail::Random => self.rng.below(under_way as u64 + 1) as usize,
            };
            self.arriving.insert(connection, kept);
            self.connection = None;
            if !off {
                self.at(STATE_WAY, Happening::StateLost { node: 1 - number, refused: true });
            }
        }
        if let Some(after) = restart {
            self.at(after, Happening::Start(number));
        }
    }

    // ── in the end

    /// Everything that was written down, by whomever: each byte in one version, and nothing missing.
    fn merge_records(&mut self) {
        let running = self.nodes.iter_mut().flatten().map(|node| std::mem::take(&mut node.records));
        let all: Vec<Records> = self.records.drain(..).chain(running).collect();
        let mut merged = Records::new();
        for (key, byte) in all.into_iter().flatten() {
            let known = *merged.entry(key).or_insert(byte);
            if known != byte {
                let detail = format!("{} at {} was written down twice, differently", key.0, key.1);
                self.wrong.push((Rule::AtMostOnce, detail));
            }
        }
        if !self.violations.is_empty() || self.clients.iter().any(|client| client.exempt) {
            return;
        }
        let mut streams: BTreeMap<_, Vec<u8>> = BTreeMap::new();
        for ((id, at), byte) in merged {
            let stream = streams.entry(id).or_default();
            if stream.len() as u64 != at {
                let detail = format!("{id}: nothing was written down before {at}");
                return self.wrong.push((Rule::Stream, detail));
            }
            stream.push(byte);
        }
        let mut written: Vec<Vec<u8>> = streams.into_values().collect();
        let clients = self.clients.iter().enumerate();
        let mut said: Vec<Vec<u8>> = clients
            .map(|(i, client)| (0..client.len()).map(|at| super::program::said(i, at)).collect())
            .collect();
        written.sort();
        said.sort();
        if written != said {
            self.wrong.push((Rule::Stream, "what was written down is not what was said".into()));
        }
    }
}
