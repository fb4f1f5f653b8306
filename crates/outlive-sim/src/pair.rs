//! Driving the two nodes as their documentation says, and what befalls them.

use std::time::Duration;

use outlive_proxy::{
    HandoverProgress, Verdict,
    config::{Listener, Replication},
    event::{Event, LogEvent, TakeoverCause},
    pair::heartbeat::{Heartbeat, Role},
};
use outlive_tcp::{
    time::Time,
    wire::{Endpoint, FourTuple, Offload},
};

use crate::{
    channel::{Item, Tail},
    detector::Question,
    device,
    ledger::Rule,
    machine::{Machine, Process, RING},
    network::{NodeIndex, Place},
    packet::Seen,
    records,
    roles::counts_on,
    setup::Fault,
    situations,
    targets::FIRST_TARGET,
    wire::Sender,
    world::{Happening, LOAD, World},
};

/// Room before a packet, into which it may grow.
const HEADROOM: usize = 32;
/// Time between two attempts to make the state connection.
const REDIAL: Duration = Duration::from_millis(40);
/// A packet that waits for a cut to be mended is sent again so often.
const RETRY: Duration = Duration::from_millis(20);
/// Wake-ups of a node in a second in which it has work to do, and in one in which nothing came but
/// heartbeats.
const WAKES: u32 = 1_500;
const IDLE_WAKES: u32 = 150;
/// How soon after its death a process starts again in a pair of crash points.
const SOON: Duration = Duration::from_millis(15);
/// Longest message on the state connection.
const MESSAGE: usize = outlive_proxy::MAX_STATE_MESSAGE;

/// What a node is told.
pub(crate) enum Input {
    Packet(Vec<u8>),
    Heartbeat(Time, usize, Heartbeat),
    Refused,
    State(Item),
    Asked(Question),
    /// An agent's control address, and what comes from there.
    Agent(Endpoint, Item),
    Time,
}

impl World {
    // ── events

    pub(crate) fn start_node(&mut self, node: NodeIndex) {
        let entropy = self.rng.bytes();
        match &mut self.machines[node] {
            Some(machine) => machine.restart(entropy, self.now),
            slot => {
                let config = self.setup.configs[node].clone();
                *slot = Some(Machine::new(config, self.setup.clocks[node], entropy, self.now));
            }
        }
        if self.setup.fast_path > 0 {
            let sessions = self.setup.fast_path;
            self.machine(node).use_kernel(sessions);
        }
        self.lines_of_new_node(node);
        self.trace(|| format!("node {node} starts"));
        let incarnation = self.machine(node).incarnation;
        self.after(Duration::ZERO, Happening::SendHeartbeat { node, incarnation });
        self.turn(node, Input::Time);
    }

    /// What the clock of `node` says.
    pub(crate) fn clock(&mut self, node: NodeIndex) -> Time {
        let now = self.now;
        self.machine(node).clock(now)
    }

    pub(crate) fn machine(&mut self, node: NodeIndex) -> &mut Machine {
        self.machines[node].as_mut().expect("an event of a node that was started")
    }

    pub(crate) fn running(&self, node: NodeIndex) -> bool {
        self.machines[node].as_ref().is_some_and(Machine::is_running)
    }

    pub(crate) fn process(&self, node: NodeIndex) -> Process {
        self.machines[node].as_ref().map_or(Process::Off, |m| m.process)
    }

    pub(crate) fn node_gets_packet(&mut self, node: NodeIndex, packet: Vec<u8>) {
        if self.kernel_passes(node, &packet) {
            return;
        }
        match self.process(node) {
            Process::Running => {
                self.machine(node).busy = true;
                self.turn(node, Input::Packet(packet));
            }
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
        let machine = self.machine(node);
        let (since, count) = machine.wakes;
        let limit = if machine.busy { WAKES } else { IDLE_WAKES };
        if now.since(since) >= Duration::from_secs(1) {
            (machine.wakes, machine.busy) = ((now, 1), false);
        } else {
            machine.wakes.1 += 1;
        }
        if now.since(since) <= Duration::from_secs(2) && count > limit {
            self.ledger.violate(Rule::TimerStorm, format!("node {node}: {count} in a second"));
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
            // The loop of a process that waits for nothing turns a few times in each detection timeout.
            self.renew_lease(node);
        }
        self.after(interval, Happening::SendHeartbeat { node, incarnation });
    }

    pub(crate) fn node_gets_heartbeat(
        &mut self,
        node: NodeIndex,
        path: usize,
        heartbeat: Heartbeat,
    ) {
        let now = self.now;
        match self.process(node) {
            Process::Running => {
                let machine = self.machine(node);
                machine.note_heard(now, &heartbeat);
                if heartbeat.asks {
                    let answer = machine.heartbeat(now);
                    self.send_heartbeat(node, Heartbeat { asks: false, ..answer });
                }
                self.turn(node, Input::Heartbeat(now, path, heartbeat));
            }
            Process::Frozen => {
                self.machine(node).backlog.heartbeats.push((now, path, heartbeat));
            }
            Process::Dead | Process::Off => {}
        }
    }

    pub(crate) fn state_arrives(&mut self, node: NodeIndex) {
        let peer = 1 - node;
        if self.network.is_cut(Place::Node(peer), Place::Node(node)) {
            return self.after(RETRY, Happening::StateArrives { node });
        }
        match self.process(node) {
            Process::Running if self.machine(node).wedged => self.machine(node).backlog.state += 1,
            Process::Running => {
                self.machine(node).busy = true;
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

    pub(crate) fn state_under_way(&mut self, to: NodeIndex) {
        let slow = self.machines[to].as_ref().map_or(Duration::ZERO, |m| m.state_delay);
        self.after(self.network.link.delay + slow, Happening::StateArrives { node: to });
    }

    // ── the loop of a process

    /// One turn: an input, and everything that follows from it.
    pub(crate) fn turn(&mut self, node: NodeIndex, input: Input) {
        let before = self.machine(node).node.beliefs();
        self.machine(node).was_synchronised = before.synchronised;
        // A heartbeat changes nothing but roles.
        let changes = !matches!(input, Input::Heartbeat(..));
        self.hear_kernel(node);
        let forwarded = self.tell(node, input);
        if !self.fetch(node, forwarded) || !self.hand_in(node) {
            return;
        }
        let now = self.clock(node);
        self.machine(node).node.handle_timeout(now);
        if !self.fetch(node, Vec::new()) || !self.hand_in(node) {
            return;
        }
        let machine = self.machine(node);
        let after = machine.node.beliefs();
        if changes || after != before {
            machine.node.check_invariants();
        }
        self.compare(node, &before, &after);
        self.check_beliefs(node, &before, &after);
        self.ask(node);
        self.renew_lease(node);
        self.set_alarm(node);
        self.step(node);
    }

    fn tell(&mut self, node: NodeIndex, input: Input) -> Vec<Vec<u8>> {
        let now = self.clock(node);
        match input {
            Input::Packet(packet) => return self.tell_packet(node, &packet),
            Input::Heartbeat(at, path, heartbeat) => {
                let machine = self.machine(node);
                let at = machine.clock(at);
                machine.node.handle_heartbeat(now, path, at, &heartbeat);
            }
            Input::Refused => self.machine(node).node.handle_peer_refused(now),
            Input::State(Item::Opened) => self.machine(node).node.handle_state_connected(now),
            Input::State(Item::Closed) => self.machine(node).node.handle_state_closed(now),
            Input::State(Item::Message(message)) => self.tell_message(node, &message),
            Input::Asked(question) => self.obey_detector(node, question),
            Input::Agent(control, item) => self.tell_of_agent(node, control, item),
            Input::Time => {}
        }
        Vec::new()
    }

    /// Hands in the packets that the node has kept, or was given by its peer. False if it died meanwhile.
    fn hand_in(&mut self, node: NodeIndex) -> bool {
        let (now, mut packet) = (self.clock(node), Vec::new());
        while let Some(offload) = self.machine(node).node.poll_arrived(now, &mut packet) {
            let forwarded = self.tell_offloaded(node, &packet, offload);
            if !self.fetch(node, forwarded) {
                return false;
            }
            packet.clear();
        }
        true
    }

    fn tell_packet(&mut self, node: NodeIndex, packet: &[u8]) -> Vec<Vec<u8>> {
        self.tell_offloaded(node, packet, Offload::default())
    }

    fn tell_offloaded(&mut self, node: NodeIndex, packet: &[u8], offload: Offload) -> Vec<Vec<u8>> {
        let now = self.clock(node);
        let mut buffer = vec![0; HEADROOM];
        buffer.extend_from_slice(packet);
        let end = buffer.len();
        let machine = self.machine(node);
        let verdict = machine.node.handle_packet(now, &mut buffer, HEADROOM, end, offload);
        let Verdict::Forward { range, offload } = verdict else { return Vec::new() };
        let packets = device::transmit(buffer[range].to_vec(), offload);
        if let Some(came) = Seen::of(&mut packet.to_vec()) {
            for goes in packets.iter().filter_map(|packet| Seen::of(&mut packet.clone())) {
                self.wire.passed(&mut self.ledger, &came, &goes);
            }
        }
        packets
    }

    fn tell_message(&mut self, node: NodeIndex, message: &[u8]) {
        let now = self.clock(node);
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

    pub(crate) fn close_state(&mut self, node: NodeIndex) {
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
            self.node_sends(node, packet, false);
            if self.step(node) {
                return false;
            }
        }
        for packet in forwarded {
            self.node_sends(node, packet, true);
            if self.step(node) {
                return false;
            }
        }
        let now = self.clock(node);
        if !self.fetch_for_agents(node) {
            return false;
        }
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
            Event::Relay { .. } => {
                let machine = self.machine(node);
                machine.claims = false;
                machine.handed_over = true;
            }
            Event::Announce => self.announce(node),
            // Configurations do not change here.
            Event::AddressesChanged | Event::Reload => {}
            Event::CloseStateConnection(_) => self.close_state(node),
            Event::Log(log) => {
                self.machine(node).took_over |=
                    matches!(log, LogEvent::TookOver { cause: TakeoverCause::Handover, .. });
                self.check_takeover(node, &log);
                situations::of_event(&log, &mut self.situations);
            }
        }
    }

    pub(crate) fn node_sends(&mut self, node: NodeIndex, mut packet: Vec<u8>, relays: bool) {
        if self.enters_tunnel(node, &packet) {
            return;
        }
        let Some(seen) = Seen::of(&mut packet) else {
            self.trace(|| format!("node {node} sends something else than TCP"));
            return self.wire.node_says_otherwise(&mut self.ledger, &packet);
        };
        self.trace(|| format!("node {node} -> {seen}"));
        self.check_doubt(node, &seen);
        self.note_both_act(node);
        let sender = sender_of(&self.machines, self.now, node, relays);
        self.wire.node_sends(&mut self.ledger, &seen, &packet, sender);
        for flow in std::mem::take(&mut self.wire.opened_twice) {
            let flow = &mut self.ledger.flows[flow.0];
            (flow.exempt, flow.opened_twice) = (true, true);
        }
        for flow in std::mem::take(&mut self.ledger.resets_sent) {
            let flow = &self.ledger.flows[flow.0];
            let tuple = FourTuple::new(flow.client, flow.listener);
            if self.is_beyond_promise(tuple) {
                self.exempt(|_, other| other == tuple);
            }
        }
        self.packet_to_host(node, &seen, packet);
    }

    /// Notes whether `node` acts beside the other one.
    pub(crate) fn note_both_act(&mut self, node: NodeIndex) {
        let serves = |machine: &Machine| {
            machine.node.beliefs().role == Role::Active
                && machine.node.handover() == HandoverProgress::None
        };
        // Also where a handover has failed halfway.
        let [me, peer] = [node, 1 - node].map(|node| self.machines[node].as_ref());
        self.wire.both_acted |=
            me.is_some_and(serves) && peer.is_some_and(|peer| peer.is_running() && serves(peer));
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
        let Some(at) = machine.node.poll_timeout(machine.clock(now)) else { return };
        let at = machine.world_time(at).max(now + Duration::from_micros(1));
        if machine.wake != Some(at) {
            machine.wake = Some(at);
            let incarnation = machine.incarnation;
            self.at(at, Happening::NodeWakes { node, incarnation, at });
        }
    }

    /// One step of a node; true if it was its last.
    pub(crate) fn step(&mut self, node: NodeIndex) -> bool {
        let Some(crash) = self.setup.crash else { return false };
        if self.now < LOAD || crash.node >= FIRST_TARGET {
            return false;
        }
        if !self.crashed && node == crash.node {
            self.steps += 1;
            if self.steps == crash.point {
                self.crashed = true;
                if crash.queues_lost {
                    let machine = self.machine(node);
                    machine.lost_outputs_of = Some(machine.incarnation);
                }
                let how = if crash.off { Process::Off } else { Process::Dead };
                self.last_step(node, how, crash.tail, crash.restart);
                return true;
            }
        } else if self.crashed && node != crash.node && crash.then.is_some() {
            self.later_steps += 1;
            if crash.then == Some(self.later_steps) {
                self.last_step(node, Process::Dead, Tail::Lost, Some(SOON));
                return true;
            }
        }
        false
    }

    fn last_step(&mut self, node: NodeIndex, how: Process, tail: Tail, restart: Option<Duration>) {
        self.note_fault();
        self.die(node, how, tail);
        if let Some(after) = restart {
            self.one_more_fault(after, Fault::Restart(node));
        }
    }
}

/// How `node` stands, which sends something.
pub(crate) fn sender_of(
    machines: &[Option<Machine>; 2],
    now: Time,
    node: NodeIndex,
    relays: bool,
) -> Sender<'_> {
    let peer = machines[1 - node].as_ref();
    let standby = peer.filter(|p| matches!(p.process, Process::Running | Process::Frozen));
    let me = machines[node].as_ref().expect("it sends");
    let beliefs = me.node.beliefs();
    let paired = beliefs.role == Role::Active
        && beliefs.synchronised
        && me.paired_with == standby.map(|s| s.incarnation);
    // An asynchronous listener's session waits for nobody.
    let waits = |l: &Listener| l.protection.replication == Replication::Sync;
    let waits = me.config.listeners.iter().all(waits);
    let held = standby.filter(|s| waits && (paired || counts_on(now, me, s))).map(|s| &s.held);
    let quiet = me.active_since.is_some_and(|t| now.since(t) < me.config.pair.quiet_time);
    let paired = paired && waits;
    let deaf = now.since(me.last_heard) >= me.config.pair.detection_timeout;
    let peer_acts = peer.is_some_and(|p| p.node.beliefs().role == Role::Active);
    Sender {
        node,
        incarnation: me.incarnation,
        quiet,
        relays,
        paired,
        held,
        own: &me.held,
        apart: deaf && peer_acts && peer.is_some_and(Machine::is_running),
    }
}
