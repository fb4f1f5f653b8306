//! A machine of the pair: the node that runs on it, and what a process does around a node.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use outlive_proxy::{Entropy, Node, config::Config, pair::heartbeat::Heartbeat};
use outlive_tcp::time::Time;

use crate::{kernel::Kernel, records::ConnectionName, setup::Clocks, world::UNIX_US};

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
    /// With the time and the path on which they came.
    pub(crate) heartbeats: Vec<(Time, usize, Heartbeat)>,
    pub(crate) state: usize,
    pub(crate) packets: VecDeque<Vec<u8>>,
}

/// The packets that the device's ring holds.
pub(crate) const RING: usize = 500;

/// A machine of the pair.
pub(crate) struct Machine {
    pub(crate) config: Config,
    pub(crate) node: Node,
    pub(crate) clocks: Clocks,
    /// The kernel, if the node leaves sessions to it.
    pub(crate) kernel: Option<Kernel>,
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
    /// Wake-ups in the second that began then, and whether anything came in it.
    pub(crate) wakes: (Time, u32),
    pub(crate) busy: bool,
    pub(crate) backlog: Backlog,
    /// Every connection of a session that it was told of on the state connection.
    pub(crate) held: BTreeSet<ConnectionName>,
    /// Before the present turn it said that it was synchronised.
    pub(crate) was_synchronised: bool,
    /// When it was synchronised last.
    pub(crate) synchronised_since: Time,
    /// In the present turn it has handed over as planned.
    pub(crate) handed_over: bool,
    /// In the present turn it has taken over as planned.
    pub(crate) took_over: bool,
    /// Active: the incarnation of the synchronised standby.
    pub(crate) paired_with: Option<u32>,
    /// Active: since when.
    pub(crate) active_since: Option<Time>,
    /// Active: when the standby was lost last.
    pub(crate) lost_standby: Option<Time>,
    /// When the peer was heard last, on whatever path.
    pub(crate) last_heard: Time,
    /// Since when the process is frozen.
    pub(crate) frozen_since: Time,
    /// It stood still while it was active.
    pub(crate) doubt: Option<Doubt>,
    /// Its state connection is not served.
    pub(crate) wedged: bool,
    /// How much longer a message on the state connection takes to it.
    pub(crate) state_delay: Duration,
    /// What that process of it has sent and is under way is lost: it died with its queues.
    pub(crate) lost_outputs_of: Option<u32>,
}

/// A node that stood still does not know whether it is still active.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doubt {
    pub(crate) since: Time,
    /// Heartbeats up to this one were sent before.
    pub(crate) counter: u64,
}

impl Machine {
    /// A machine whose first process starts now.
    pub(crate) fn new(config: Config, clocks: Clocks, entropy: [u8; 32], now: Time) -> Self {
        let unix_us = (UNIX_US + now.as_micros()).saturating_add_signed(clocks.wall_us);
        Machine {
            node: Node::new(config.clone(), Entropy(entropy), unix_us, now + clocks.boot),
            config,
            clocks,
            kernel: None,
            process: Process::Running,
            incarnation: 0,
            claims: false,
            counter: 0,
            heard: (0, 0),
            asking: false,
            wake: None,
            wakes: (now, 0),
            busy: true,
            backlog: Backlog::default(),
            held: BTreeSet::new(),
            was_synchronised: false,
            synchronised_since: now,
            handed_over: false,
            took_over: false,
            paired_with: None,
            active_since: None,
            lost_standby: None,
            last_heard: now,
            frozen_since: now,
            doubt: None,
            wedged: false,
            state_delay: Duration::ZERO,
            lost_outputs_of: None,
        }
    }

    /// From now on the node leaves sessions to the kernel, which has room for so many.
    pub(crate) fn use_kernel(&mut self, sessions: usize) {
        let kernel = Kernel::new(sessions);
        self.node.use_fast_path(Box::new(kernel.model.clone()));
        self.kernel = Some(kernel);
    }

    /// What this machine's monotonic clock says.
    pub(crate) fn clock(&self, now: Time) -> Time {
        now + self.clocks.boot
    }

    /// When this machine's clock will say `at`.
    pub(crate) fn world_time(&self, at: Time) -> Time {
        at - self.clocks.boot
    }

    /// A new process in place of the old one.
    pub(crate) fn restart(&mut self, entropy: [u8; 32], now: Time) {
        let (incarnation, lost) = (self.incarnation + 1, self.lost_outputs_of);
        *self = Machine::new(self.config.clone(), self.clocks, entropy, now);
        (self.incarnation, self.lost_outputs_of) = (incarnation, lost);
    }

    /// The next heartbeat.
    pub(crate) fn heartbeat(&mut self, now: Time) -> Heartbeat {
        self.counter += 1;
        Heartbeat {
            beliefs: self.node.beliefs(),
            asks: self.node.asks(),
            clock_us: self.node.clock_us(self.clock(now)),
            counter: self.counter,
            heard: self.heard.1,
        }
    }

    /// Notes a heartbeat of the peer that came at `at`.
    pub(crate) fn note_heard(&mut self, at: Time, heartbeat: &Heartbeat) {
        if at.since(self.last_heard) >= self.config.pair.detection_timeout {
            // It was gone meanwhile, and the node may have gone on without it.
            self.lost_standby = None;
        }
        self.last_heard = self.last_heard.max(at);
        self.doubt = self.doubt.filter(|doubt| heartbeat.heard <= doubt.counter);
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
