//! The world: virtual time, a queue of events, and everything that they happen to.
//!
//! [`World::run`] takes one event after the other until the load is done or a rule is broken. What an event
//! means for a node is in `pair`; what a packet must be in `wire`.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};

use outlive_proxy::{
    config::{Listener, Synchronise},
    pair::heartbeat::Heartbeat,
};
use outlive_tcp::{
    time::Time,
    wire::{Endpoint, Flags, FourTuple},
};

use crate::{
    capture::Capture,
    channel::Channel,
    content::FlowId,
    detector::{Answer, Detector, Question},
    host::Host,
    ledger::{Ledger, Rule, Violation},
    machine::Machine,
    network::{Network, NodeIndex, Place},
    packet::Seen,
    rng::Rng,
    roles::Reigns,
    setup::{Fault, Forgery, Setup, Start},
    situations::{self, Situations},
    stack::Kind,
    targets::{Book, TargetHappening, TargetHost},
    wire::Wire,
};

/// When the load begins.
pub const LOAD: Time = Time::from_micros(2_200_000);
/// So long before it the first node starts: both have met by then.
pub(crate) const MEETING: Duration = Duration::from_millis(150);
/// Or the first one has given up waiting for a peer that starts later.
pub(crate) const WAITING: Duration = Duration::from_millis(1_200);
/// How long everything may take once the last fault is over: the end systems' timers are backed off by then.
const PATIENCE: Duration = Duration::from_secs(150);
/// By then, once nothing goes wrong any more, one node serves.
const ROLES_SETTLED: Duration = Duration::from_secs(4);
/// By then, once faults are over, the roles have settled.
const SETTLED: Duration = Duration::from_secs(8);
/// Length of a heartbeat, or of what a detector and a node say, with its headers.
pub(crate) const DATAGRAM: usize = 120;
/// The wall clock at the beginning of time, in microseconds.
pub(crate) const UNIX_US: u64 = 1_700_000_000_000_000;

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Happening {
    /// `sender` is the node that sent it, and the number of its process.
    ToHost {
        host: usize,
        packet: Vec<u8>,
        sender: (NodeIndex, u32),
    },
    HostWakes {
        host: usize,
        at: Time,
    },
    ToNode {
        node: NodeIndex,
        packet: Vec<u8>,
    },
    NodeWakes {
        node: NodeIndex,
        incarnation: u32,
        at: Time,
    },
    SendHeartbeat {
        node: NodeIndex,
        incarnation: u32,
    },
    HeartbeatArrives {
        node: NodeIndex,
        path: usize,
        heartbeat: Heartbeat,
    },
    StateArrives {
        node: NodeIndex,
    },
    Dial {
        again: bool,
    },
    Announced {
        host: usize,
        node: NodeIndex,
    },
    StartNode {
        node: NodeIndex,
    },
    FlowBegins {
        flow: usize,
    },
    DetectorLooks,
    /// The router leads packets to this node.
    Switched {
        to: NodeIndex,
    },
    Asked {
        node: NodeIndex,
        question: Question,
    },
    Answered {
        node: NodeIndex,
        answer: Answer,
    },
    Fault(Fault),
    Target(TargetHappening),
}

struct Scheduled {
    at: Time,
    number: u64,
    happening: Happening,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}
impl Scheduled {
    fn key(&self) -> (Time, u64) {
        (self.at, self.number)
    }
}

/// How a run went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Rules that were broken.
    pub violations: Vec<Violation>,
    /// Steps that the node of the crash point took in all: the number of its crash points.
    pub steps: u64,
    /// Steps that the other node took after the crash, if they were counted.
    pub later_steps: u64,
    /// Flows, and those of them for which nothing was promised.
    pub flows: usize,
    /// Flows that were exempt: their node died without a synchronised standby.
    pub exempt: usize,
    /// Events that happened.
    pub events: u64,
    /// Virtual time that passed.
    pub lasted: Duration,
    /// Takeovers that happened.
    pub takeovers: u32,
    /// Situations that were met.
    pub situations: std::collections::BTreeSet<&'static str>,
}

/// A world.
pub struct World {
    pub(crate) now: Time,
    queue: BinaryHeap<Reverse<Scheduled>>,
    number: u64,
    events: u64,
    pub(crate) setup: Setup,
    pub(crate) rng: Rng,
    pub(crate) network: Network,
    pub(crate) machines: [Option<Machine>; 2],
    pub(crate) channel: Channel,
    pub(crate) detector: Option<Detector>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) targets: Vec<TargetHost>,
    /// What is known of migrations.
    pub(crate) book: Book,
    wakes: Vec<Option<Time>>,
    pub(crate) ledger: Ledger,
    pub(crate) wire: Wire,
    /// By flow of the setup: which it became.
    begun: Vec<Option<FlowId>>,
    pub(crate) steps: u64,
    /// Steps of the other node since then.
    pub(crate) later_steps: u64,
    pub(crate) crashed: bool,
    pub(crate) takeovers: u32,
    pub(crate) situations: Situations,
    /// After the last fault, and when everything has settled: what cannot be expected is exempt.
    settled: bool,
    /// When the last fault happened.
    last_fault: Time,
    faults_left: usize,
    /// When everything was done.
    done_since: Option<Time>,
    pub(crate) reigns: Reigns,
    /// What each client said first, by its connection and sequence number.
    pub(crate) first_words: BTreeMap<(FourTuple, u32), Vec<u8>>,
    /// What a node sent last to each end, if somebody is going to complain about it.
    pub(crate) last_sent: BTreeMap<FourTuple, Vec<u8>>,
    complaints: bool,
    capture: Option<Capture>,
    arrivals: Vec<Time>,
}

impl World {
    /// A world at the beginning of time.
    pub fn new(setup: Setup) -> Self {
        let mut rng = Rng::new(setup.seed);
        let mut hosts = Vec::new();
        for host in &setup.hosts {
            let mut made = Host::new(host.address, host.stack, rng.number());
            host.services.iter().for_each(|service| made.serve(service.clone()));
            hosts.push(made);
        }
        let mut world = World {
            now: LOAD - setup.prelude,
            queue: BinaryHeap::new(),
            number: 0,
            events: 0,
            network: Network::new(setup.link, hosts.len()),
            machines: [None, None],
            channel: Channel::default(),
            detector: setup.detector.then(Detector::default),
            wakes: vec![None; hosts.len()],
            hosts,
            targets: Vec::new(),
            book: Book::default(),
            ledger: Ledger::default(),
            wire: Wire::new(setup.configs[0].listeners.iter().map(|l| l.address)),
            begun: vec![None; setup.flows.len()],
            steps: 0,
            later_steps: 0,
            crashed: false,
            takeovers: 0,
            situations: Situations::new(),
            settled: false,
            last_fault: Time::ZERO,
            faults_left: setup.faults.len(),
            done_since: None,
            reigns: Reigns::new(),
            first_words: BTreeMap::new(),
            last_sent: BTreeMap::new(),
            complaints: setup.faults.iter().any(|(_, f)| *f == Fault::Forge(Forgery::Unreachable)),
            capture: setup.capture.as_deref().map(|path| Capture::create(path).expect("writable")),
            arrivals: Vec::new(),
            rng,
            setup,
        };
        let late = |l: &Listener| l.protection.synchronise == Synchronise::FirstData;
        world.wire.first_data = world.setup.configs[0].listeners.iter().any(late);
        if world.setup.hosts.iter().any(|host| host.stack.kind == Kind::Outlive) {
            world.situations.insert("acknowledged late");
        }
        world.schedule_setup();
        world
    }

    fn schedule_setup(&mut self) {
        for node in 0..2 {
            self.after(self.setup.starts[node], Happening::StartNode { node });
        }
        self.after(Duration::from_millis(10), Happening::Dial { again: true });
        if self.setup.detector {
            self.after(Duration::ZERO, Happening::DetectorLooks);
        }
        for (flow, setup) in self.setup.flows.clone().iter().enumerate() {
            if let Start::At(at) = setup.start {
                self.at(LOAD + at, Happening::FlowBegins { flow });
            }
        }
        for (at, fault) in self.setup.faults.clone() {
            self.at(LOAD + at, Happening::Fault(fault));
        }
        self.last_fault = LOAD;
        self.begin_targets();
    }

    pub(crate) fn at(&mut self, at: Time, happening: Happening) {
        self.number += 1;
        let at = at.max(self.now);
        self.queue.push(Reverse(Scheduled { at, number: self.number, happening }));
    }

    pub(crate) fn after(&mut self, delay: Duration, happening: Happening) {
        self.at(self.now + delay, happening);
    }

    /// Prints a line, if anybody wants to know.
    pub(crate) fn trace(&self, line: impl FnOnce() -> String) {
        if self.setup.trace {
            println!("{:?} {}", self.now, line());
        }
    }

    /// Runs until the load is done, or a rule is broken.
    pub fn run(mut self) -> Outcome {
        let start = self.now;
        while self.ledger.violations.is_empty() && !self.is_over() {
            let Some(Reverse(next)) = self.queue.pop() else { break };
            self.now = next.at;
            self.ledger.now = next.at;
            self.events += 1;
            if self.now > self.last_fault + PATIENCE && self.faults_left == 0 && !self.is_done() {
                self.give_up();
                break;
            }
            if self.now > self.last_fault + SETTLED && self.faults_left == 0 && !self.settled {
                self.settled = true;
                // The links' bad luck is over, too: what is left takes as long as the end systems' timers.
                self.network.link = self.network.link.calm();
                self.exempt(World::is_beyond_promise);
            }
            self.happen(next.happening);
            self.excuse_resets();
            self.begin_waiting();
        }
        self.close_books();
        if self.setup.trace {
            self.ledger.violations.iter().for_each(|v| println!("VIOLATION {v}"));
        }
        Outcome {
            violations: self.ledger.violations,
            steps: self.steps,
            later_steps: self.later_steps,
            flows: self.ledger.flows.len(),
            exempt: self.ledger.flows.iter().filter(|f| f.exempt).count(),
            events: self.events,
            lasted: self.now.since(start),
            takeovers: self.takeovers,
            situations: self.situations,
        }
    }

    fn close_books(&mut self) {
        for machine in self.machines.iter().flatten() {
            let status = machine.node.status(machine.clock(self.now));
            situations::of_counters(&status, &mut self.situations);
        }
        self.note_splices();
        self.situations.extend(self.wire.situations.iter());
        self.situations.extend(self.network.was_full.then_some("a link was full"));
        if self.ledger.violations.is_empty() && self.setup.aftermath > ROLES_SETTLED {
            self.check_one_acts();
            self.check_leftovers();
            self.check_target_leftovers();
        }
        if self.ledger.flows.iter().any(|f| f.exempt) {
            self.situations.insert("flow exempt");
        }
    }

    /// A reset of a connection for which nothing was promised is explained.
    fn excuse_resets(&mut self) {
        let resets: Vec<_> = self.ledger.resets.drain(..).collect();
        for (flow, detail) in resets {
            let flow = &self.ledger.flows[flow.0];
            let tuple = FourTuple::new(flow.client, flow.listener);
            if flow.exempt || self.is_beyond_promise(tuple) || self.may_be_refused(tuple) {
                self.exempt(|_, other| other == tuple);
            } else {
                self.ledger.violate(Rule::Reset, detail);
            }
        }
    }

    /// Everything is done, and the aftermath over.
    fn is_over(&mut self) -> bool {
        if !self.is_done() {
            return false;
        }
        let since = *self.done_since.get_or_insert(self.now);
        let until = since.max(self.last_fault) + self.setup.aftermath;
        self.now >= until
    }

    fn is_done(&self) -> bool {
        self.faults_left == 0
            && self.begun.iter().all(|begun| {
                begun.is_some_and(|id| {
                    let flow = &self.ledger.flows[id.0];
                    flow.is_finished() || flow.exempt
                })
            })
    }

    fn give_up(&mut self) {
        let unfinished: Vec<_> = self
            .ledger
            .flows
            .iter()
            .enumerate()
            .filter(|(_, f)| !f.is_finished() && !f.exempt)
            .map(|(i, f)| {
                let how = |done| if done { "done" } else { "not done" };
                format!("flow {i}: client {}, server {}", how(f.client_done), how(f.server_done))
            })
            .collect();
        if self.setup.trace {
            self.hosts.iter().flat_map(|h| h.describe()).for_each(|line| println!("{line}"));
        }
        self.ledger.violate(Rule::Liveness, unfinished.join("; "));
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::ToHost { host, packet, sender: (node, incarnation) } => {
                let sender = self.machines[node].as_ref();
                if sender.is_some_and(|m| m.lost_outputs_of == Some(incarnation)) {
                    return;
                }
                self.hosts[host].receive(self.now, packet, &mut self.ledger, &self.wire);
                self.host_acts(host);
            }
            Happening::HostWakes { host, at } => {
                if self.wakes[host] == Some(at) {
                    self.wakes[host] = None;
                    self.hosts[host].poll(self.now, &mut self.ledger, &self.wire);
                    self.host_acts(host);
                }
            }
            Happening::ToNode { node, packet } => self.node_gets_packet(node, packet),
            Happening::NodeWakes { node, incarnation, at } => {
                self.node_wakes(node, incarnation, at)
            }
            Happening::SendHeartbeat { node, incarnation } => {
                self.heartbeat_due(node, incarnation);
            }
            Happening::HeartbeatArrives { node, path, heartbeat } => {
                self.node_gets_heartbeat(node, path, heartbeat);
            }
            Happening::StateArrives { node } => self.state_arrives(node),
            Happening::Dial { again } => self.dial(again),
            Happening::Announced { host, node } => {
                self.network.announced(self.now, host, node);
            }
            Happening::StartNode { node } if self.machines[node].is_none() => {
                self.start_node(node);
            }
            Happening::StartNode { .. } => {}
            Happening::FlowBegins { flow } => self.flow_begins(flow),
            Happening::DetectorLooks => self.detector_looks(),
            Happening::Switched { to } => self.switched(to),
            Happening::Asked { node, question } => self.asked(node, question),
            Happening::Answered { node, answer } => self.answered(node, answer),
            Happening::Target(happening) => self.target_happens(happening),
            Happening::Fault(fault) => {
                self.trace(|| format!("FAULT {fault:?}"));
                self.faults_left -= 1;
                self.last_fault = self.now;
                self.fault(fault);
            }
        }
    }

    /// A fault that was not planned happens now (a crash point).
    pub(crate) fn note_fault(&mut self) {
        self.last_fault = self.now;
    }

    pub(crate) fn one_more_fault(&mut self, after: Duration, fault: Fault) {
        self.faults_left += 1;
        self.after(after, Happening::Fault(fault));
    }

    fn flow_begins(&mut self, index: usize) {
        let flow = self.setup.flows[index].clone();
        let client = Endpoint::new(self.setup.hosts[flow.host].address, flow.port);
        let tuple = FourTuple::new(client, flow.listener);
        let prefix = flow.proxy_protocol.map_or(Vec::new(), |version| {
            crate::content::proxy_header(version, client, flow.listener)
        });
        let id = self.ledger.begin_flow(client, flow.listener, &flow.preamble, prefix);
        self.trace(|| format!("flow {} begins: {tuple}", id.0));
        self.begun[index] = Some(id);
        // A flow that begins late has the same time as others.
        self.last_fault = self.now;
        self.wire.begin_flow(tuple, id);
        self.hosts[flow.host].connect(self.now, id, tuple, &flow.script, flow.pace);
        self.hosts[flow.host].poll(self.now, &mut self.ledger, &self.wire);
        self.host_acts(flow.host);
        if self.settled {
            self.exempt(|world, client| client == tuple && world.waits_for_dead_target(client));
        }
    }

    /// After everything that a host did: its packets, its timer, and flows that wait for others.
    pub(crate) fn host_acts(&mut self, host: usize) {
        while let Some(packet) = self.hosts[host].transmit() {
            self.host_sends(host, packet);
        }
        if let Some(at) = self.hosts[host].deadline(self.now) {
            let at = at.max(self.now + Duration::from_micros(1));
            if self.wakes[host].is_none_or(|wake| wake > at || wake <= self.now) {
                self.wakes[host] = Some(at);
                self.at(at, Happening::HostWakes { host, at });
            }
        }
    }

    /// Begins the flows that have waited for others.
    fn begin_waiting(&mut self) {
        for index in 0..self.begun.len() {
            if let (None, Start::After(other)) = (self.begun[index], self.setup.flows[index].start)
                && self.begun[other].is_some_and(|id| {
                    let flow = &self.ledger.flows[id.0];
                    flow.is_finished() || flow.exempt
                })
            {
                self.begun[index] = Some(FlowId(usize::MAX));
                self.flow_begins(index);
            }
        }
    }

    pub(crate) fn host_sends(&mut self, host: usize, mut packet: Vec<u8>) {
        let Some(seen) = Seen::of(&mut packet) else { return };
        self.wire.host_sends(&seen);
        self.capture(&packet);
        if self.wire.is_first(&seen) {
            let key = (seen.tuple, seen.seq.0);
            self.first_words.entry(key).or_insert_with(|| packet.clone());
        }
        let claims = [0, 1].map(|n| self.machines[n].as_ref().is_some_and(|m| m.answers()));
        let node = self.network.neighbour(self.now, host, claims);
        self.trace(|| format!("host {host} -> node {node:?}: {seen}"));
        let Some(node) = node else { return };
        self.travel(Place::Host(host), Place::Node(node), packet);
    }

    /// A packet leaves a node towards wherever it is addressed to.
    pub(crate) fn packet_to_host(&mut self, node: NodeIndex, seen: &Seen, packet: Vec<u8>) {
        self.capture(&packet);
        if self.complaints && !seen.has(Flags::RST) && !seen.has(Flags::SYN) {
            self.last_sent.insert(seen.tuple, packet.clone());
        }
        let address = seen.tuple.destination.addr;
        if let Some(host) = self.hosts.iter().position(|h| h.address == address) {
            self.travel(Place::Node(node), Place::Host(host), packet);
        }
    }

    pub(crate) fn travel(&mut self, from: Place, to: Place, packet: Vec<u8>) {
        let mut arrivals = std::mem::take(&mut self.arrivals);
        let way = (from, to);
        self.network.arrivals(self.now, &mut self.rng, way, packet.len(), &mut arrivals);
        if arrivals.is_empty() {
            self.trace(|| format!("lost: from {from:?} to {to:?}"));
        }
        for at in arrivals.drain(..) {
            let mut packet = packet.clone();
            if self.rng.chance(self.network.link.corruption) {
                let bit = self.rng.below(packet.len() as u64 * 8) as usize;
                packet[bit / 8] ^= 1 << (bit % 8);
            }
            let happening = match (from, to) {
                (Place::Node(node), Place::Host(host)) => {
                    let incarnation = self.machine(node).incarnation;
                    Happening::ToHost { host, packet, sender: (node, incarnation) }
                }
                (_, Place::Node(node)) => Happening::ToNode { node, packet },
                (from, to) if from.is_target() || to.is_target() => {
                    Happening::Target(self.to_or_from_target(from, to, packet))
                }
                // Hosts speak with nodes, and nobody else with hosts.
                _ => continue,
            };
            self.at(at, happening);
        }
        self.arrivals = arrivals;
    }

    /// Notes a packet, if anybody wants to see it.
    pub(crate) fn capture(&mut self, packet: &[u8]) {
        if let Some(capture) = &mut self.capture {
            capture.note(self.now, packet);
        }
    }

    /// Every host hears, if it can, that `node` has the virtual addresses.
    pub(crate) fn announce(&mut self, node: NodeIndex) {
        for host in 0..self.hosts.len() {
            if !self.network.is_cut(Place::Node(node), Place::Host(host))
                && !self.rng.chance(self.network.link.loss)
            {
                self.after(self.network.link.delay, Happening::Announced { host, node });
            }
        }
    }

    /// A heartbeat leaves `node`.
    pub(crate) fn send_heartbeat(&mut self, node: NodeIndex, heartbeat: Heartbeat) {
        let peer = 1 - node;
        let mut arrivals = std::mem::take(&mut self.arrivals);
        let places = (Place::Node(node), Place::Node(peer));
        for path in 0..usize::from(self.setup.configs[node].pair.paths) {
            if self.network.is_path_cut(node, path) {
                self.situations.insert("heartbeat path cut");
                continue;
            }
            self.network.arrivals(self.now, &mut self.rng, places, DATAGRAM, &mut arrivals);
            for at in arrivals.drain(..) {
                self.at(at, Happening::HeartbeatArrives { node: peer, path, heartbeat });
            }
        }
        self.arrivals = arrivals;
    }
}
