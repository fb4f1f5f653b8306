//! Two nodes, driven step by step: heartbeats and state messages pass when the test says so.

// Each test program uses what it needs.
#![allow(dead_code)]

#[path = "../packets/mod.rs"]
mod packets;

use std::{collections::VecDeque, time::Duration};

use outlive_proxy::{
    Entropy, Node, StateError, Verdict,
    config::{
        Balance, Config, Limits, Listener, NodeId, OpeningMode, PairConfig, Pool, PoolId,
        Protection, ProxyProtocol, Server, Timeouts,
    },
    counters::Counter,
    event::{Event, LogEvent},
    pair::heartbeat::{Heartbeat, Role},
};
use outlive_tcp::{
    segment::Segment,
    time::Time,
    wire::{Endpoint, Flags, Offload},
};

pub(crate) use self::packets::{CLIENT_ISN, HEADROOM, Out, SERVER_ISN, segment};

/// Longer than a session whose record is lost is met with silence.
pub(crate) const QUIET: Duration = Duration::from_secs(6);

pub(crate) fn listener() -> Endpoint {
    Endpoint::new([10, 0, 0, 100].into(), 80)
}

pub(crate) fn server() -> Endpoint {
    Endpoint::new([10, 0, 0, 20].into(), 80)
}

pub(crate) fn client(number: u16) -> Endpoint {
    Endpoint::new([10, 0, 0, 10].into(), 10_000 + number)
}

/// One of the nodes.
struct Half {
    node: Node,
    alive: bool,
    counter: u64,
    heard: u64,
    /// State messages under way to it.
    inbox: VecDeque<Vec<u8>>,
    log: Vec<LogEvent>,
}

/// The pair.
pub(crate) struct Duo {
    halves: [Half; 2],
    pub(crate) config: Config,
    pub(crate) now: Time,
    connected: bool,
    starts: u8,
    /// Everything is checked after each step, which costs a walk over all sessions.
    pub(crate) careful: bool,
}

/// A configuration with a direct listener and one server.
pub(crate) fn config(protection: Protection) -> Config {
    Config {
        node: NodeId::A,
        listeners: vec![Listener {
            name: "web".into(),
            address: listener(),
            opening: OpeningMode::Direct,
            routes: Vec::new(),
            default_pool: Some(PoolId(0)),
            idle_timeout: Duration::from_secs(3_600),
            protection,
            termination: Default::default(),
        }],
        pools: vec![Pool {
            name: "web".into(),
            balance: Balance::RoundRobin,
            servers: vec![Server { address: server() }],
            proxy_protocol: None::<ProxyProtocol>,
            connect_timeout: Duration::from_secs(3),
            retry_after: Duration::from_secs(10),
        }],
        source_addresses: vec![[10, 0, 0, 101].into()],
        migration: Default::default(),
        pair: PairConfig::default(),
        timeouts: Timeouts::default(),
        limits: Limits { sessions: 200_000, half_open: 200_000, ..Limits::default() },
        mtu: 1_500,
    }
}

impl Duo {
    /// A pair of which node 0 is active and node 1 its synchronised standby.
    pub(crate) fn paired(config: Config) -> Self {
        let mut duo = Self::apart(config);
        duo.connect();
        duo.exchange();
        assert!(duo.is_paired(), "they pair");
        duo
    }

    /// Two nodes that have heard of each other, node 0 active, without a state connection.
    pub(crate) fn apart(config: Config) -> Self {
        config.validate().unwrap();
        let now = Time::from_micros(1_000_000);
        let half = |name, seed| Half {
            node: new_node(&config, name, seed, now),
            alive: true,
            counter: 0,
            heard: 0,
            inbox: VecDeque::new(),
            log: Vec::new(),
        };
        let halves = [half(NodeId::A, 1), half(NodeId::B, 2)];
        let mut duo =
            Duo { halves, config: config.clone(), now, connected: false, starts: 2, careful: true };
        duo.pass(Duration::from_millis(100));
        assert_eq!(duo.role(0), Role::Active);
        assert_eq!(duo.role(1), Role::Standby);
        // The time of unknown connections is over.
        duo.pass(Duration::from_secs(10));
        duo
    }

    pub(crate) fn role(&self, node: usize) -> Role {
        self.halves[node].node.beliefs().role
    }

    pub(crate) fn is_paired(&self) -> bool {
        [0, 1].iter().all(|n| self.halves[*n].node.beliefs().synchronised)
    }

    pub(crate) fn node(&self, node: usize) -> &Node {
        &self.halves[node].node
    }

    /// The node, if it lives.
    pub(crate) fn living(&mut self, node: usize) -> Option<&mut Node> {
        let half = &mut self.halves[node];
        half.alive.then_some(&mut half.node)
    }

    pub(crate) fn log(&mut self, node: usize) -> Vec<LogEvent> {
        std::mem::take(&mut self.halves[node].log)
    }

    pub(crate) fn counter(&self, node: usize, counter: Counter) -> u64 {
        self.halves[node].node.status(self.now).counters.value(counter)
    }

    /// Sessions of a node: establishing, open, over.
    pub(crate) fn sessions(&self, node: usize) -> [usize; 3] {
        let census = self.halves[node].node.status(self.now).sessions;
        [census.establishing, census.open, census.over]
    }

    /// Time passes, in which the living hear each other. State messages stay under way.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let beat = Duration::from_millis(10);
            self.now = (self.now + beat).min(end);
            self.beat();
        }
    }

    fn beat(&mut self) {
        let now = self.now;
        for from in [0, 1] {
            let half = &mut self.halves[from];
            if !half.alive {
                continue;
            }
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
            }
        }
        for node in [0, 1] {
            self.settle(node);
        }
    }

    /// What a node wants done; its own packets are thrown away, its messages stay with it.
    fn settle(&mut self, node: usize) {
        let now = self.now;
        let half = &mut self.halves[node];
        if !half.alive {
            return;
        }
        half.node.handle_timeout(now);
        self.events(node);
        while self.halves[node].node.poll_transmit().is_some() {}
        self.check(node);
    }

    fn check(&self, node: usize) {
        if self.careful {
            self.halves[node].node.check_invariants();
        }
    }

    fn events(&mut self, node: usize) {
        let mut close = false;
        while let Some(event) = self.halves[node].node.poll_event() {
            match event {
                Event::CloseStateConnection(_) => close = true,
                Event::Log(log) => self.halves[node].log.push(log),
                _ => {}
            }
        }
        if close {
            self.disconnect();
        }
    }

    // ── the state connection

    pub(crate) fn connect(&mut self) {
        self.connected = true;
        for half in &mut self.halves {
            half.inbox.clear();
            half.node.handle_state_connected(self.now);
        }
        (0..2).for_each(|n| self.events(n));
    }

    /// The connection breaks; what is under way is lost.
    pub(crate) fn disconnect(&mut self) {
        if !std::mem::take(&mut self.connected) {
            return;
        }
        for node in [0, 1] {
            self.halves[node].inbox.clear();
            if self.halves[node].alive {
                self.halves[node].node.handle_state_closed(self.now);
                self.events(node);
            }
        }
    }

    /// What node `from` has to say goes under way. Returns how many messages.
    pub(crate) fn speak(&mut self, from: usize) -> usize {
        let mut count = 0;
        let mut message = Vec::new();
        while self.connected
            && self.halves[from].alive
            && self.halves[from].node.poll_state_message(self.now, &mut message)
        {
            self.halves[1 - from].inbox.push_back(std::mem::take(&mut message));
            count += 1;
        }
        count
    }

    /// The messages under way to a node.
    pub(crate) fn under_way(&mut self, to: usize) -> &mut VecDeque<Vec<u8>> {
        &mut self.halves[to].inbox
    }

    /// Node `to` hears the next `count` messages. Returns the packets that follow.
    pub(crate) fn hear(&mut self, to: usize, count: usize) -> Vec<Out> {
        let mut out = Vec::new();
        for _ in 0..count {
            let Some(message) = self.halves[to].inbox.pop_front() else { break };
            self.tell(to, &message).expect("nodes understand each other");
            out.extend(self.transmitted(to));
        }
        out
    }

    pub(crate) fn tell(&mut self, to: usize, message: &[u8]) -> Result<(), StateError> {
        let result = self.halves[to].node.handle_state_message(self.now, message);
        self.events(to);
        result
    }

    /// Both say and hear everything. Returns the packets that follow at node 0 or 1.
    pub(crate) fn exchange(&mut self) -> Vec<Out> {
        let mut out = Vec::new();
        // What waits for company is sent, too.
        for _ in 0..2 {
            while self.connected
                && self.speak(0)
                    + self.speak(1)
                    + self.halves[0].inbox.len()
                    + self.halves[1].inbox.len()
                    > 0
            {
                for to in [0, 1] {
                    out.extend(self.hear(to, usize::MAX));
                }
            }
            self.now = self.now + Duration::from_millis(11);
            self.beat();
        }
        out
    }

    /// A planned handover from a node to the other, up to where the other is active.
    pub(crate) fn hand_over(&mut self, from: usize) -> Vec<Out> {
        self.begin_handover(from);
        let mut out = Vec::new();
        for _ in 0..100 {
            if self.role(1 - from) == Role::Active {
                return out;
            }
            self.settle(from);
            self.speak(from);
            out.extend(self.hear(1 - from, usize::MAX));
            self.speak(1 - from);
            if self.role(1 - from) != Role::Active {
                out.extend(self.hear(from, usize::MAX));
            }
            self.now = self.now + Duration::from_millis(1);
        }
        panic!("nobody took over");
    }

    /// The first step of it.
    pub(crate) fn begin_handover(&mut self, from: usize) {
        self.halves[from].node.hand_over(self.now).expect("a handover is possible");
        self.settle(from);
    }

    // ── faults

    /// The process of a node dies; what is under way from it arrives if `tail`.
    pub(crate) fn kill(&mut self, node: usize, tail: bool) {
        self.halves[node].alive = false;
        self.halves[node].inbox.clear();
        let other = 1 - node;
        if tail {
            self.hear(other, usize::MAX);
        }
        self.connected = false;
        self.halves[other].inbox.clear();
        self.halves[other].node.handle_state_closed(self.now);
        self.halves[other].node.handle_peer_refused(self.now);
        self.events(other);
        self.pass(Duration::from_millis(150));
    }

    /// A new process in place of a dead one.
    pub(crate) fn restart(&mut self, node: usize) {
        self.starts += 1;
        let name = [NodeId::A, NodeId::B][node];
        let half = &mut self.halves[node];
        half.node = new_node(&self.config, name, self.starts, self.now);
        (half.alive, half.heard) = (true, 0);
        self.halves[1 - node].heard = 0;
        self.pass(Duration::from_millis(100));
    }

    // ── packets

    /// Hands a node a packet; what it lets out.
    pub(crate) fn send(&mut self, node: usize, segment: Segment<'_>) -> Vec<Out> {
        let mut packet = Vec::new();
        segment.emit(&mut packet);
        self.send_bytes(node, &packet)
    }

    pub(crate) fn send_bytes(&mut self, node: usize, packet: &[u8]) -> Vec<Out> {
        let mut buffer = vec![0; HEADROOM];
        buffer.extend_from_slice(packet);
        let (end, now) = (buffer.len(), self.now);
        let half = &mut self.halves[node];
        let verdict = half.node.handle_packet(now, &mut buffer, HEADROOM, end, Offload::default());
        let mut out = Vec::new();
        if let Verdict::Forward { range, .. } = verdict {
            out.push(Out::read(&buffer[range]));
        }
        out.extend(self.transmitted(node));
        self.check(node);
        self.events(node);
        out
    }

    /// Hands a node a packet that is not TCP; the packets that it makes itself.
    pub(crate) fn send_raw(&mut self, node: usize, packet: &[u8]) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; HEADROOM];
        buffer.extend_from_slice(packet);
        let (end, now) = (buffer.len(), self.now);
        let node = &mut self.halves[node].node;
        node.handle_packet(now, &mut buffer, HEADROOM, end, Offload::default());
        std::iter::from_fn(|| node.poll_transmit().map(<[u8]>::to_vec)).collect()
    }

    /// Packets that a node made itself.
    pub(crate) fn transmitted(&mut self, node: usize) -> Vec<Out> {
        let mut out = Vec::new();
        while let Some(packet) = self.halves[node].node.poll_transmit() {
            out.push(Out::read(packet));
        }
        out
    }

    pub(crate) fn syn(&mut self, node: usize, number: u16) -> Vec<Out> {
        self.send(node, segment(client(number), listener(), CLIENT_ISN, None, Flags::SYN))
    }

    /// The server answers the SYN that the node sent it.
    pub(crate) fn accept(&mut self, node: usize, syn: &Out) -> Vec<Out> {
        assert_eq!(syn.tuple.destination, server());
        let to = syn.tuple.source;
        self.send(node, segment(server(), to, SERVER_ISN, Some(syn.seq + 1), Flags::SYN))
    }

    /// A session of that client at the active node, as far as it gets without the standby.
    pub(crate) fn open(&mut self, node: usize, number: u16) -> Out {
        let syn = self.syn(node, number).remove(0);
        self.accept(node, &syn);
        syn
    }

    /// Likewise, of any of a great many clients.
    pub(crate) fn open_from(&mut self, node: usize, number: usize) {
        let [_, a, b, _] = (number as u32 / 60_000).to_be_bytes();
        let client =
            Endpoint::new([11, a, b, number as u8].into(), (1_024 + number % 60_000) as u16);
        let syn = self.send(node, segment(client, listener(), CLIENT_ISN, None, Flags::SYN));
        self.accept(node, &syn[0]);
    }

    /// The client of a direct listener, which has been answered, acknowledges.
    pub(crate) fn acknowledge(&mut self, node: usize, number: u16) -> Vec<Out> {
        self.say(node, number, b"")
    }

    /// The client says its first words.
    pub(crate) fn say(&mut self, node: usize, number: u16, payload: &[u8]) -> Vec<Out> {
        let ack = Some(SERVER_ISN + 1);
        let plain = segment(client(number), listener(), CLIENT_ISN + 1, ack, Flags::NONE);
        self.send(node, Segment { payload, ..plain })
    }
}

fn new_node(config: &Config, node: NodeId, seed: u8, now: Time) -> Node {
    let config = Config { node, ..config.clone() };
    Node::new(config, Entropy([seed; 32]), 1_700_000_000_000_000 + now.as_micros(), now)
}
