//! A machine of the pair: the node that runs on it, and what a process does around a node.

use std::collections::{BTreeSet, VecDeque};

use outlive_proxy::{Entropy, Node, config::Config, pair::heartbeat::Heartbeat};
use outlive_tcp::time::Time;

use crate::records::ConnectionName;

/// Whether the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Process {
    /// It runs.
    Running,
    /// It is stopped, and may go on.
    Frozen,
    /// It is dead. The machine lives, and refuses connections.
    Dead,
    /// The machine is dead.
    Off,
}

/// What waits for a frozen process.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    pub(crate) heartbeats: Vec<(Time, Heartbeat)>,
    pub(crate) state: usize,
    pub(crate) packets: VecDeque<Vec<u8>>,
}

/// The packets that the device's ring holds.
pub(crate) const RING: usize = 500;

/// A machine of the pair.
pub(crate) struct Machine {
    pub(crate) config: Config,
    pub(crate) node: Node,
    pub(crate) process: Process,
    /// Numbers the processes: what was meant for an earlier one is void.
    pub(crate) incarnation: u32,
    /// It answers for the virtual addresses.
    pub(crate) claims: bool,
    /// Number of the last heartbeat sent.
    pub(crate) counter: u64,
    /// Incarnation of the peer, and the highest number heard of it.
    pub(crate) heard: (u64, u64),
    /// The heartbeats ask.
    pub(crate) asking: bool,
    /// When the node is to be woken up, as scheduled last.
    pub(crate) wake: Option<Time>,
    /// Wake-ups in the second that began then.
    pub(crate) wakes: (Time, u32),
    pub(crate) backlog: Backlog,
    /// Every connection of a session that it was told of on the state connection.
    pub(crate) held: BTreeSet<ConnectionName>,
    /// Before the present turn it said that it was synchronised.
    pub(crate) was_synchronised: bool,
    /// Active: the incarnation of the synchronised standby.
    pub(crate) paired_with: Option<u32>,
}

impl Machine {
    pub(crate) fn new(config: Config, entropy: [u8; 32], unix_us: u64, now: Time) -> Self {
        Machine {
            node: Node::new(config.clone(), Entropy(entropy), unix_us, now),
            config,
            process: Process::Running,
            incarnation: 0,
            claims: false,
            counter: 0,
            heard: (0, 0),
            asking: false,
            wake: None,
            wakes: (now, 0),
            backlog: Backlog::default(),
            held: BTreeSet::new(),
            was_synchronised: false,
            paired_with: None,
        }
    }

    /// A new process in place of the old one.
    pub(crate) fn restart(&mut self, entropy: [u8; 32], unix_us: u64, now: Time) {
        let incarnation = self.incarnation + 1;
        *self = Machine::new(self.config.clone(), entropy, unix_us, now);
        self.incarnation = incarnation;
    }

    /// The next heartbeat.
    pub(crate) fn heartbeat(&mut self, now: Time) -> Heartbeat {
        self.counter += 1;
        Heartbeat {
            beliefs: self.node.beliefs(),
            asks: self.node.asks(),
            clock_us: self.node.clock_us(now),
            counter: self.counter,
            heard: self.heard.1,
        }
    }

    /// Notes the number of a heartbeat of the peer.
    pub(crate) fn note_heard(&mut self, heartbeat: &Heartbeat) {
        let incarnation = heartbeat.beliefs.incarnation;
        if self.heard.0 != incarnation {
            self.heard = (incarnation, 0);
        }
        self.heard.1 = self.heard.1.max(heartbeat.counter);
    }
}

impl Machine {
    /// Somebody who asks who has the virtual addresses is answered by this node.
    pub(crate) fn answers(&self) -> bool {
        self.claims && self.process == Process::Running
    }

    pub(crate) fn is_running(&self) -> bool {
        self.process == Process::Running
    }
}
