//! The nodes of the small world, driven as their documentation says: heartbeats, the state connection, and what
//! leaves them.

use std::{collections::VecDeque, fmt::Write, sync::LazyLock, time::Duration};

use outlive_proxy::{
    Node, Verdict,
    config::NodeId,
    event::Event,
    fast_path::{Model, Outcome},
    pair::heartbeat::{Heartbeat, Role},
};
use outlive_tcp::{
    time::Time,
    wire::{Offload, TcpPacket},
};

use super::setup;
use crate::judge::assert_sound;

const HEADROOM: usize = 64;
/// Packets of its own that one input may make a node send: the first data of a client, cut into the smallest
/// segments there are, or two probes for every session.
const MOST_PACKETS: usize = 400;
/// Turns of the loop that a node may ask for at one instant.
const MOST_TURNS: usize = 100;

/// Tells what happens if `OUTLIVE_FUZZ_TRACE` is set: for whoever wants to understand a finding.
pub(crate) fn trace(line: impl FnOnce() -> String) {
    static WANTED: LazyLock<bool> =
        LazyLock::new(|| std::env::var_os("OUTLIVE_FUZZ_TRACE").is_some());
    if *WANTED {
        eprintln!("{}", line());
    }
}

/// A packet in a line.
pub(crate) fn show(packet: &[u8]) -> String {
    let mut bytes = packet.to_vec();
    let end = bytes.len();
    let mut out = String::new();
    let _ = match TcpPacket::parse(&mut bytes, 0, end, Offload::default()) {
        Ok(tcp) => write!(out, "{tcp:?}"),
        Err(error) => write!(out, "{} bytes, {error}", packet.len()),
    };
    out
}

/// A node, or the place of one that is dead.
pub(crate) struct Member {
    pub(crate) node: Option<Node>,
    id: NodeId,
    variant: u8,
    starts: u8,
    beats: u64,
    /// It stands still.
    pub(crate) frozen: bool,
    /// Stands for the kernel's program, and may serve as long as the node was asked lately.
    fast_path: Option<Model>,
    asked: Time,
    /// Said on the state connection, not yet delivered.
    said: VecDeque<Vec<u8>>,
}

/// A packet that left a node.
#[derive(Clone, Debug)]
pub(crate) struct Left {
    pub(crate) packet: Vec<u8>,
    pub(crate) offload: Offload,
}

impl Member {
    fn new(id: NodeId, variant: u8) -> Self {
        let said = VecDeque::new();
        let (node, fast_path, asked) = (None, None, Time::ZERO);
        Member { node, id, variant, starts: 0, beats: 0, frozen: false, fast_path, asked, said }
    }

    fn start(&mut self, now: Time) {
        self.starts = self.starts.wrapping_add(2);
        let seed = self.starts + u8::from(self.id == NodeId::B);
        let config = setup::config(self.id, self.variant);
        let unix_us = setup::UNIX_US + now.as_micros() - setup::START.as_micros();
        let mut node = Node::new(config, setup::entropy(seed), unix_us, now);
        self.fast_path = (self.variant & setup::FAST_PATH != 0).then(|| Model::new(2));
        if let Some(model) = &self.fast_path {
            node.use_fast_path(Box::new(model.clone()));
        }
        self.node = Some(node);
        self.beats = 0;
        self.frozen = false;
    }

    pub(crate) fn role(&self) -> Option<Role> {
        self.node.as_ref().map(|node| node.beliefs().role)
    }

    /// It may send packets.
    pub(crate) fn serves(&self) -> bool {
        self.node.as_ref().is_some_and(|n| n.beliefs().role == Role::Active && !n.asks())
    }
}

/// Both nodes, and what is between them.
pub(crate) struct Nodes {
    pub(crate) members: [Member; 2],
    pub(crate) now: Time,
    connected: bool,
    /// Messages of the state connection are not delivered for the time being.
    pub(crate) held: bool,
    alone: bool,
    /// What left since it was last taken.
    pub(crate) left: Vec<Left>,
}

impl Nodes {
    /// Node A serving, and node B its standby unless the variant is one without.
    pub(crate) fn new(variant: u8) -> Self {
        let members = [NodeId::A, NodeId::B].map(|id| Member::new(id, variant));
        let alone = variant & setup::ALONE != 0;
        let mut nodes = Nodes {
            members,
            now: setup::START,
            connected: false,
            held: false,
            alone,
            left: Vec::new(),
        };
        nodes.start(0);
        // Also past the time in which strangers are met with silence.
        nodes.advance(Duration::from_secs(12));
        if !alone {
            nodes.start(1);
            nodes.advance(Duration::from_secs(3));
            assert_eq!(nodes.members[1].role(), Some(Role::Standby));
            assert!(nodes.standby_is_complete());
        }
        assert!(nodes.members[0].serves());
        nodes
    }

    /// Starts a node that is dead.
    pub(crate) fn start(&mut self, index: usize) {
        if self.members[index].node.is_none() && !(self.alone && index == 1) {
            self.members[index].start(self.now);
            self.turn(index, |node, now| node.handle_timeout(now));
        }
    }

    /// Ends a node without a word.
    pub(crate) fn kill(&mut self, index: usize) {
        self.disconnect();
        trace(|| format!("node {index} dies"));
        self.members[index].node = None;
        self.members[index].frozen = false;
    }

    /// Whether a death now would be survived.
    pub(crate) fn standby_is_complete(&self) -> bool {
        let synchronised = |m: &Member| m.node.as_ref().is_some_and(|n| n.beliefs().synchronised);
        self.members.iter().all(synchronised)
    }

    /// The node that serves, if exactly one does.
    pub(crate) fn active(&self) -> Option<usize> {
        match [self.members[0].serves(), self.members[1].serves()] {
            [true, false] => Some(0),
            [false, true] => Some(1),
            _ => None,
        }
    }

    /// Hands a packet to a node.
    pub(crate) fn packet(&mut self, index: usize, packet: &[u8], offload: Offload) {
        let mut buffer = vec![0; HEADROOM];
        buffer.extend_from_slice(packet);
        let end = buffer.len();
        trace(|| format!("node {index} gets {}", show(packet)));
        if self.take_fast_path(index, &mut buffer, offload) {
            return;
        }
        let serves = self.members[index].serves();
        let before = self.left.len();
        let mut verdict = Verdict::Done;
        self.turn(index, |node, now| {
            verdict = node.handle_packet(now, &mut buffer, HEADROOM, end, offload);
        });
        if let Verdict::Forward { range, offload } = verdict {
            assert!(range.end <= end && range.start <= range.end, "within the buffer");
            self.left.push(Left { packet: buffer[range].to_vec(), offload });
        }
        assert!(serves || self.left.len() == before, "a passive node sent something");
        for left in &self.left[before..] {
            assert_sound(&left.packet, left.offload);
        }
    }

    /// Whether the node's fast path has taken care of the packet.
    fn take_fast_path(&mut self, index: usize, buffer: &mut [u8], offload: Offload) -> bool {
        let member = &self.members[index];
        let asked = !member.frozen && self.now.since(member.asked) < setup::DETECTION;
        let Some(model) = member.fast_path.as_ref().filter(|_| asked && member.serves()) else {
            return false;
        };
        let end = buffer.len();
        let Ok(mut packet) = TcpPacket::parse(buffer, HEADROOM, end, offload) else { return false };
        let Outcome::Translated(news) = model.handle(self.now, &mut packet) else { return false };
        assert_sound(packet.bytes(), packet.offload());
        self.left.push(Left { packet: packet.bytes().to_vec(), offload: packet.offload() });
        if let Some((slot, serial)) = news {
            self.turn(index, |node, now| node.handle_fast_path(now, slot, serial));
        }
        true
    }

    /// Lets time pass, both nodes hearing each other.
    pub(crate) fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = (self.now + setup::HEARTBEAT).min(end);
            self.beat();
            for index in 0..2 {
                self.wake(index);
            }
            self.deliver();
        }
    }

    /// A node stands still while the other lives on; then goes on.
    pub(crate) fn freeze(&mut self, index: usize, time: Duration) {
        self.members[index].frozen = true;
        self.advance(time);
        self.members[index].frozen = false;
    }

    /// The state connection breaks.
    pub(crate) fn disconnect(&mut self) {
        if !std::mem::take(&mut self.connected) {
            return;
        }
        for index in 0..2 {
            self.members[index].said.clear();
            self.turn(index, |node, now| node.handle_state_closed(now));
        }
    }

    /// Delivers everything that the nodes have to say to each other.
    pub(crate) fn deliver(&mut self) {
        for _ in 0..if self.held { 0 } else { 50 } {
            let mut quiet = true;
            for from in 0..2 {
                if self.members[1 - from].frozen {
                    continue;
                }
                while let Some(message) = self.members[from].said.pop_front() {
                    quiet = false;
                    let mut result = Ok(());
                    self.turn(1 - from, |node, now| {
                        result = node.handle_state_message(now, &message);
                    });
                    result.expect("what a node says is understood");
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn running(&self, index: usize) -> bool {
        self.members[index].node.is_some() && !self.members[index].frozen
    }

    fn beat(&mut self) {
        for from in 0..2 {
            let to = 1 - from;
            if !self.running(from) {
                if self.members[from].node.is_none() && self.running(to) && !self.alone {
                    self.turn(to, |node, now| node.handle_peer_refused(now));
                }
                continue;
            }
            let heard = self.members[to].beats;
            let now = self.now;
            let member = &mut self.members[from];
            let Some(node) = &mut member.node else { continue };
            if node.asks() {
                node.handle_asked(member.beats);
            }
            member.beats += 1;
            let heartbeat = Heartbeat {
                beliefs: node.beliefs(),
                asks: node.asks(),
                clock_us: node.clock_us(now),
                counter: member.beats,
                heard,
            };
            if self.running(to) {
                self.turn(to, |node, now| node.handle_heartbeat(now, 0, now, &heartbeat));
            }
        }
        let joint = self.running(0) && self.running(1) && !self.connected;
        if joint {
            self.connected = true;
            for index in 0..2 {
                self.turn(index, |node, now| node.handle_state_connected(now));
            }
        }
    }

    /// Calls a node as long as it wants to be called at this instant.
    fn wake(&mut self, index: usize) {
        for _ in 0..MOST_TURNS {
            if !self.running(index) {
                return;
            }
            self.turn(index, |node, now| node.handle_timeout(now));
            let now = self.now;
            let node = self.members[index].node.as_ref();
            if node.and_then(|n| n.poll_timeout(now)).is_none_or(|at| at > now) {
                return;
            }
        }
        panic!("a node that never comes to rest");
    }

    /// One input, and all that follows from it.
    fn turn(&mut self, index: usize, mut input: impl FnMut(&mut Node, Time)) {
        self.turn_of(index, &mut input);
    }

    fn turn_of(&mut self, index: usize, input: &mut dyn FnMut(&mut Node, Time)) {
        let now = self.now;
        let member = &mut self.members[index];
        let Some(node) = &mut member.node else { return };
        if member.frozen {
            return;
        }
        member.asked = now;
        input(node, now);
        let mut closes = false;
        while let Some(event) = node.poll_event() {
            closes |= matches!(event, Event::CloseStateConnection(_));
            trace(|| format!("{now:?} node {index}: {event:?}"));
        }
        let mut sent = 0;
        while let Some(packet) = node.poll_transmit() {
            assert_sound(packet, Offload::default());
            self.left.push(Left { packet: packet.to_vec(), offload: Offload::default() });
            sent += 1;
        }
        assert!(sent <= MOST_PACKETS, "{sent} packets for one input");
        assert!(sent == 0 || !node.asks(), "sent before it asked whether it may");
        node.check_invariants();
        let status = node.status(now);
        let sessions = status.sessions;
        assert!(sessions.establishing + sessions.open + sessions.over <= setup::SESSIONS as usize);
        assert!(status.openings <= setup::OPENINGS as usize);
        if closes {
            // The shell has told nobody yet, and this end knows.
            self.connected = false;
            for other in 0..2 {
                self.members[other].said.clear();
            }
            self.turn_of(1 - index, &mut |node, now| node.handle_state_closed(now));
            return;
        }
        if self.connected {
            let mut message = Vec::new();
            while node.poll_state_message(now, &mut message) {
                assert!(message.len() <= outlive_proxy::MAX_STATE_MESSAGE);
                member.said.push_back(std::mem::take(&mut message));
            }
        }
    }
}
