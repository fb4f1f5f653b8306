//! Driving the two nodes as their documentation says, and what befalls them.

use std::time::Duration;

use outlive_proxy::{
    Verdict,
    config::{Listener, NodeId, Replication, WithoutStandby},
    event::Event,
    pair::heartbeat::{Beliefs, Heartbeat, Role},
};
use outlive_tcp::{
    time::Time,
    wire::{Endpoint, FourTuple, Offload},
};

use crate::{
    channel::{Item, Tail},
    device,
    ledger::Rule,
    machine::{Machine, Process, RING},
    network::{NodeIndex, Place},
    packet::Seen,
    records,
    setup::Fault,
    situations,
    world::{Happening, LOAD, UNIX_US, World},
};

/// Room before a packet, into which it may grow.
const HEADROOM: usize = 32;
/// Time between two attempts to make the state connection.
const REDIAL: Duration = Duration::from_millis(40);
/// A packet that waits for a cut to be mended is sent again so often.
const RETRY: Duration = Duration::from_millis(20);
/// Wake-ups of a node in a second.
const WAKES: u32 = 1_500;
/// Longest message on the state connection.
const MESSAGE: usize = outlive_proxy::MAX_STATE_MESSAGE;

/// A situation that explains much.
const BOTH_ACTIVE: &str = "both nodes active";

/// What a node is told.
enum Input {
    Packet(Vec<u8>),
    Heartbeat(Time, Heartbeat),
    Refused,
    State(Item),
    Time,
}

impl World {
    // ── events

    pub(crate) fn start_node(&mut self, node: NodeIndex) {
        let (entropy, unix_us) = (self.rng.bytes(), self.unix_us());
        match &mut self.machines[node] {
            Some(machine) => machine.restart(entropy, unix_us, self.now),
            slot => {
                let config = self.setup.configs[node].clone();
                *slot = Some(Machine::new(config, entropy, unix_us, self.now));
            }
        }
        self.trace(|| format!("node {node} starts"));
        let incarnation = self.machine(node).incarnation;
        self.after(Duration::ZERO, Happening::SendHeartbeat { node, incarnation });
        self.turn(node, Input::Time);
    }

    fn unix_us(&self) -> u64 {
        UNIX_US + self.now.as_micros()
    }

    fn machine(&mut self, node: NodeIndex) -> &mut Machine {
        self.machines[node].as_mut().expect("an event of a node that was started")
    }

    fn running(&self, node: NodeIndex) -> bool {
        self.machines[node].as_ref().is_some_and(Machine::is_running)
    }

    fn process(&self, node: NodeIndex) -> Process {
        self.machines[node].as_ref().map_or(Process::Off, |m| m.process)
    }

    pub(crate) fn node_gets_packet(&mut self, node: NodeIndex, packet: Vec<u8>) {
        match self.process(node) {
            Process::Running => self.turn(node, Input::Packet(packet)),
            Process::Frozen => {
                let ring = &mut self.machine(node).backlog.packets;
                if ring.len() < RING {
                    ring.push_back(packet);
                }
            }
            Process::Dead | Process::Off => {}
        }
    }

    pub(crate) fn node_wakes(&mut self, node: NodeIndex, incarnation: u32, at: Time) {
        let machine = self.machine(node);
        if machine.incarnation != incarnation || !machine.is_running() || machine.wake != Some(at) {
            return;
        }
        machine.wake = None;
        let now = self.now;
        let (since, count) = &mut self.machine(node).wakes;
        if now.since(*since) >= Duration::from_secs(1) {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        if *count > WAKES {
            self.ledger.violate(Rule::TimerStorm, format!("node {node}: {WAKES} in a second"));
        }
        self.turn(node, Input::Time);
    }

    pub(crate) fn heartbeat_due(&mut self, node: NodeIndex, incarnation: u32) {
        let now = self.now;
        let machine = self.machine(node);
        if machine.incarnation != incarnation
            || matches!(machine.process, Process::Dead | Process::Off)
        {
            return;
        }
        let interval = machine.config.pair.heartbeat_interval;
        if machine.is_running() {
            let heartbeat = machine.heartbeat(now);
            self.send_heartbeat(node, heartbeat);
        }
        self.after(interval, Happening::SendHeartbeat { node, incarnation });
    }

    pub(crate) fn node_gets_heartbeat(&mut self, node: NodeIndex, heartbeat: Heartbeat) {
        let now = self.now;
        match self.process(node) {
            Process::Running => {
                let machine = self.machine(node);
                machine.note_heard(&heartbeat);
                if heartbeat.asks {
                    let answer = machine.heartbeat(now);
                    self.send_heartbeat(node, Heartbeat { asks: false, ..answer });
                }
                self.turn(node, Input::Heartbeat(now, heartbeat));
            }
            Process::Frozen => self.machine(node).backlog.heartbeats.push((now, heartbeat)),
            Process::Dead | Process::Off => {}
        }
    }

    pub(crate) fn state_arrives(&mut self, node: NodeIndex) {
        let peer = 1 - node;
        if self.network.is_cut(Place::Node(peer), Place::Node(node)) {
            return self.after(RETRY, Happening::StateArrives { node });
        }
        match self.process(node) {
            Process::Running => {
                let up = self.channel.is_up(node);
                let item = self.channel.arrive(node);
                // What still comes on a connection that this end has closed is dropped by its kernel.
                let item = item.filter(|i| up || !matches!(i, Item::Message(_)));
                if let Some(item) = item {
                    let closed = item == Item::Closed;
                    self.turn(node, Input::State(item));
                    if closed {
                        self.after(Duration::from_millis(1), Happening::Dial { again: false });
                    } else if self.running(peer) {
                        // There may be room now.
                        self.turn(peer, Input::Time);
                    }
                }
            }
            Process::Frozen => self.machine(node).backlog.state += 1,
            Process::Dead | Process::Off => {}
        }
    }

    /// An attempt to make the state connection, if there is none.
    pub(crate) fn dial(&mut self, again: bool) {
        if again {
            self.after(REDIAL, Happening::Dial { again });
        }
        let cut = |a, b| self.network.is_cut(Place::Node(a), Place::Node(b));
        if cut(0, 1) || cut(1, 0) {
            return;
        }
        match (self.process(0), self.process(1)) {
            (Process::Running, Process::Running) if self.channel.is_down() => {
                self.channel.open();
                self.state_under_way(0);
                self.state_under_way(1);
            }
            (Process::Running, Process::Dead) if !self.channel.is_up(0) => {
                self.turn(0, Input::Refused);
            }
            (Process::Dead, Process::Running) if !self.channel.is_up(1) => {
                self.turn(1, Input::Refused);
            }
            _ => {}
        }
    }

    fn state_under_way(&mut self, to: NodeIndex) {
        self.after(self.network.link.delay, Happening::StateArrives { node: to });
    }

    // ── faults

    pub(crate) fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(node) => self.die(node, Process::Dead, Tail::Random),
            Fault::PowerOff(node) => self.die(node, Process::Off, Tail::Random),
            Fault::Freeze(node) => {
                if self.running(node) {
                    self.machine(node).process = Process::Frozen;
                }
            }
            Fault::Resume(node) => self.resume(node),
            Fault::Restart(node) => {
                if matches!(self.process(node), Process::Dead | Process::Off) {
                    // What was left of an old connection is now refused.
                    if self.channel.close(node) {
                        self.state_under_way(1 - node);
                    }
                    self.start_node(node);
                }
            }
            Fault::Disconnect => {
                if self.channel.break_off(&mut self.rng) {
                    self.state_under_way(0);
                    self.state_under_way(1);
                }
            }
            Fault::Cut(from, to) => self.network.cut(from, to),
            Fault::Heal => self.network.heal(),
            Fault::Links(link) => self.network.link = link,
        }
    }

    /// `node` dies.
    pub(crate) fn die(&mut self, node: NodeIndex, how: Process, tail: Tail) {
        let Some(machine) = &mut self.machines[node] else { return };
        if matches!(machine.process, Process::Dead | Process::Off) {
            return;
        }
        situations::of_counters(&machine.node.status(self.now), &mut self.situations);
        let role = machine.node.beliefs().role;
        machine.process = how;
        machine.claims = false;
        machine.held.clear();
        self.trace(|| format!("node {node} dies: {how:?}"));
        if role == Role::Active {
            // What it alone knew dies with it.
            self.exempt(|world, client| {
                world.wire.server_of(client).is_some() && !world.known_to(1 - node, client)
            });
        }
        self.channel.lose_tail(1 - node, tail, &mut self.rng);
        // The kernel of a machine that lives says so; a dead machine says nothing.
        if how == Process::Dead && self.channel.close(node) {
            self.state_under_way(1 - node);
        }
    }

    fn resume(&mut self, node: NodeIndex) {
        if self.process(node) != Process::Frozen {
            return;
        }
        let machine = self.machine(node);
        machine.process = Process::Running;
        machine.wake = None;
        let backlog = std::mem::take(&mut machine.backlog);
        let incarnation = machine.incarnation;
        for (at, heartbeat) in backlog.heartbeats {
            self.machine(node).note_heard(&heartbeat);
            self.turn(node, Input::Heartbeat(at, heartbeat));
        }
        for _ in 0..backlog.state {
            self.state_arrives(node);
        }
        for packet in backlog.packets {
            self.node_gets_packet(node, packet);
        }
        if self.running(node) && self.machine(node).incarnation == incarnation {
            self.turn(node, Input::Time);
        }
    }

    // ── the loop of a process

    /// One turn: an input, and everything that follows from it.
    fn turn(&mut self, node: NodeIndex, input: Input) {
        let before = self.machine(node).node.beliefs();
        self.machine(node).was_synchronised = before.synchronised;
        let forwarded = self.tell(node, input);
        if !self.fetch(node, forwarded) {
            return;
        }
        let now = self.now;
        self.machine(node).node.handle_timeout(now);
        if !self.fetch(node, Vec::new()) {
            return;
        }
        let machine = self.machine(node);
        machine.node.check_invariants();
        let after = machine.node.beliefs();
        self.compare(node, &before, &after);
        self.ask(node);
        self.set_alarm(node);
        self.step(node);
    }

    fn tell(&mut self, node: NodeIndex, input: Input) -> Vec<Vec<u8>> {
        let now = self.now;
        match input {
            Input::Packet(packet) => return self.tell_packet(node, &packet),
            Input::Heartbeat(at, heartbeat) => {
                self.machine(node).node.handle_heartbeat(now, 0, at, &heartbeat);
            }
            Input::Refused => self.machine(node).node.handle_peer_refused(now),
            Input::State(Item::Opened) => self.machine(node).node.handle_state_connected(now),
            Input::State(Item::Closed) => self.machine(node).node.handle_state_closed(now),
            Input::State(Item::Message(message)) => self.tell_message(node, &message),
            Input::Time => {}
        }
        Vec::new()
    }

    fn tell_packet(&mut self, node: NodeIndex, packet: &[u8]) -> Vec<Vec<u8>> {
        let now = self.now;
        let mut buffer = vec![0; HEADROOM];
        buffer.extend_from_slice(packet);
        let end = buffer.len();
        let machine = self.machine(node);
        let verdict =
            machine.node.handle_packet(now, &mut buffer, HEADROOM, end, Offload::default());
        match verdict {
            Verdict::Forward { range, offload } => {
                device::transmit(buffer[range].to_vec(), offload)
            }
            Verdict::Done => Vec::new(),
        }
    }

    fn tell_message(&mut self, node: NodeIndex, message: &[u8]) {
        let now = self.now;
        self.trace(|| {
            format!("node {node} <= state message {:?}", &message[..message.len().min(9)])
        });
        match self.machine(node).node.handle_state_message(now, message) {
            Ok(()) => {
                let held = &mut self.machine(node).held;
                records::sessions_opened(message, |session| {
                    held.insert(session);
                });
            }
            Err(error) => {
                self.ledger.violate(Rule::StateConnection, format!("node {node}: {error}"));
                self.close_state(node);
            }
        }
    }

    fn close_state(&mut self, node: NodeIndex) {
        if self.channel.close(node) {
            self.state_under_way(1 - node);
        }
    }

    /// Fetches everything that the node has to give. False if it died meanwhile.
    fn fetch(&mut self, node: NodeIndex, forwarded: Vec<Vec<u8>>) -> bool {
        while let Some(event) = self.machine(node).node.poll_event() {
            self.obey(node, event);
            if self.step(node) {
                return false;
            }
        }
        while let Some(packet) = self.machine(node).node.poll_transmit().map(<[u8]>::to_vec) {
            self.node_sends(node, packet);
            if self.step(node) {
                return false;
            }
        }
        for packet in forwarded {
            self.node_sends(node, packet);
            if self.step(node) {
                return false;
            }
        }
        let now = self.now;
        while self.channel.has_room(node) {
            let mut message = Vec::new();
            if !self.machine(node).node.poll_state_message(now, &mut message) {
                break;
            }
            if message.len() > MESSAGE {
                let detail = format!("node {node}: a message of {} bytes", message.len());
                self.ledger.violate(Rule::StateConnection, detail);
            }
            self.channel.send(node, message);
            self.state_under_way(1 - node);
            if self.step(node) {
                return false;
            }
        }
        true
    }

    fn obey(&mut self, node: NodeIndex, event: Event) {
        self.trace(|| match &event {
            Event::Log(log) => format!("node {node}: {log}"),
            other => format!("node {node}: {other:?}"),
        });
        match event {
            Event::Activate { .. } => {
                let machine = self.machine(node);
                machine.claims = true;
                let promised = machine.was_synchronised;
                self.activated(node, promised);
                self.announce(node);
            }
            Event::Deactivate { .. } => self.machine(node).claims = false,
            Event::Announce => self.announce(node),
            Event::CloseStateConnection(_) => self.close_state(node),
            Event::Log(log) => situations::of_event(&log, &mut self.situations),
        }
    }

    fn node_sends(&mut self, node: NodeIndex, mut packet: Vec<u8>) {
        let Some(seen) = Seen::of(&mut packet) else {
            return self.trace(|| format!("node {node} sends something else than TCP"));
        };
        self.trace(|| format!("node {node} -> {seen}"));
        let peer = self.machines[1 - node].as_ref();
        let standby = peer.filter(|p| matches!(p.process, Process::Running | Process::Frozen));
        let me = self.machines[node].as_ref().expect("it sends");
        let beliefs = me.node.beliefs();
        let paired = beliefs.role == Role::Active
            && beliefs.synchronised
            && me.paired_with == standby.map(|s| s.incarnation);
        // An asynchronous listener's session waits for nobody.
        let waits = |l: &Listener| l.protection.replication == Replication::Sync;
        let waits = me.config.listeners.iter().all(waits);
        let held = standby.filter(|_| paired && waits).map(|s| &s.held);
        self.wire.node_sends(&mut self.ledger, &seen, &packet, held);
        self.packet_to_host(node, &seen, packet);
    }

    /// What a change of role means for the flows.
    fn compare(&mut self, node: NodeIndex, before: &Beliefs, after: &Beliefs) {
        let peer = self.machines[1 - node].as_ref().map(|m| m.incarnation);
        let paired = after.role == Role::Active && after.synchronised;
        let now = self.now;
        let machine = self.machine(node);
        if after.synchronised && !before.synchronised {
            machine.synchronised_since = now;
        }
        if !paired {
            machine.paired_with = None;
        } else if !before.synchronised || before.role != Role::Active {
            machine.paired_with = peer;
        }
        if before.role == Role::Active && after.role != Role::Active {
            self.exempt(|world, tuple| !world.known_to(1 - node, tuple));
        }
    }

    /// `node` becomes active, having held everything or not.
    fn activated(&mut self, node: NodeIndex, promised: bool) {
        let since = self.machine(node).synchronised_since;
        self.takeovers += 1;
        let other = self.machines[1 - node].as_ref();
        if other.is_some_and(|m| m.is_running() && m.node.beliefs().role == Role::Active) {
            self.situations.insert(BOTH_ACTIVE);
            self.wire.both_acted = true;
        }
        self.exempt(|world, tuple| {
            // A handshake from before this node had everything cannot be proved to be without effect.
            let early = world.wire.was_answered_before(tuple, since);
            let lonely = world.wire.was_answered_alone(tuple);
            !promised || (lonely || early) && !world.known_to(node, tuple)
        });
    }

    /// Nothing is promised for the flows that are alive and for which `which` holds.
    pub(crate) fn exempt(&mut self, which: impl Fn(&World, FourTuple) -> bool) {
        for i in 0..self.ledger.flows.len() {
            let flow = &self.ledger.flows[i];
            let tuple = FourTuple::new(flow.client, flow.listener);
            if !flow.is_finished() && which(self, tuple) {
                self.trace(|| format!("flow {i} is exempt"));
                self.ledger.flows[i].exempt = true;
            }
        }
    }

    /// Whether nothing was promised for this client's connection: an active node has never been told of it,
    /// because the one that opened it had no synchronised standby.
    pub(crate) fn is_beyond_promise(&self, client: FourTuple) -> bool {
        let active = |node: &NodeIndex| {
            let machine = self.machines[*node].as_ref();
            machine.is_some_and(|m| m.is_running() && m.node.beliefs().role == Role::Active)
        };
        let mut unaware = [0, 1].into_iter().filter(active).filter(|n| !self.known_to(*n, client));
        let served = self.wire.server_of(client).is_some();
        // While both nodes acted, a port may have been used again behind the back of the one that stays: it
        // may have an old session for the new connection.
        let reused = self.ledger.flows.iter().filter(|f| f.client == client.source).count() > 1
            && self.situations.contains(BOTH_ACTIVE);
        (served || reused || self.wire.was_answered_alone(client)) && unaware.next().is_some()
    }

    /// Whether a node may refuse this client: it has had no answer yet, and the listener wants a standby.
    pub(crate) fn may_be_refused(&self, client: FourTuple) -> bool {
        let refuses = |l: &Listener| l.protection.without_standby == WithoutStandby::Refuse;
        self.setup.configs[0].listeners.iter().any(refuses) && !self.wire.has_met(client)
    }

    /// Whether `node` holds the session of that client, as far as the wire tells.
    fn known_to(&self, node: NodeIndex, client: FourTuple) -> bool {
        let session = self.wire.session_of(client);
        let told = session.is_some_and(|session| {
            self.machines[node].as_ref().is_some_and(|m| m.held.contains(&session))
        });
        told || self.wire.server_of(client).is_some_and(|server| owner(server.destination) == node)
    }

    /// Asks the peer at once, if the node wants to.
    fn ask(&mut self, node: NodeIndex) {
        let now = self.now;
        let machine = self.machine(node);
        let asks = machine.node.asks();
        if asks && !machine.asking {
            machine.asking = true;
            machine.node.handle_asked(machine.counter);
            let heartbeat = machine.heartbeat(now);
            self.send_heartbeat(node, heartbeat);
        }
        self.machine(node).asking = asks;
    }

    fn set_alarm(&mut self, node: NodeIndex) {
        let now = self.now;
        let machine = self.machine(node);
        let Some(at) = machine.node.poll_timeout(now) else { return };
        let at = at.max(now + Duration::from_micros(1));
        if machine.wake != Some(at) {
            machine.wake = Some(at);
            let incarnation = machine.incarnation;
            self.at(at, Happening::NodeWakes { node, incarnation, at });
        }
    }

    /// One step of a node; true if it was its last.
    fn step(&mut self, node: NodeIndex) -> bool {
        let Some(crash) = self.setup.crash else { return false };
        if crash.node != node || self.crashed || self.now < Time::from_micros(1_000_000) + LOAD {
            return false;
        }
        self.steps += 1;
        if self.steps != crash.point {
            return false;
        }
        self.crashed = true;
        self.note_fault();
        self.die(node, if crash.off { Process::Off } else { Process::Dead }, crash.tail);
        if let Some(after) = crash.restart {
            self.one_more_fault(after, Fault::Restart(node));
        }
        true
    }
}

/// The node in whose range of source ports this is.
fn owner(own: Endpoint) -> NodeIndex {
    let node = if own.port < 33_280 { NodeId::A } else { NodeId::B };
    usize::from(node == NodeId::B)
}
