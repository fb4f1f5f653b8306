//! The kernel of a machine of the pair: it passes the packets of sessions that the node has left to it, whether or
//! not the process runs or lives, for as long as its lease lasts.

use outlive_proxy::fast_path::{Model, Outcome};
use outlive_tcp::{
    time::Time,
    wire::{Offload, TcpPacket},
};

use crate::{machine::Process, network::NodeIndex, packet::Seen, pair::Input, world::World};

/// Room before a packet.
const HEADROOM: usize = 32;

/// What the kernel has of a node.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// Its sessions.
    pub(crate) model: Model,
    /// Until then it may pass their packets.
    pub(crate) lease: Time,
    /// Sessions that want to be looked at, by slot and serial.
    pub(crate) events: Vec<(u32, u32)>,
}

impl Kernel {
    /// One with room for so many sessions.
    pub(crate) fn new(sessions: usize) -> Self {
        Kernel { model: Model::new(sessions), lease: Time::ZERO, events: Vec::new() }
    }
}

impl World {
    /// Whether the kernel passes a packet itself; if so, it has.
    pub(crate) fn kernel_passes(&mut self, node: NodeIndex, packet: &[u8]) -> bool {
        let now = self.clock(node);
        let process = self.process(node);
        let machine = self.machine(node);
        let Some(kernel) = machine.kernel.as_mut().filter(|kernel| now <= kernel.lease) else {
            return false;
        };
        if process == Process::Off {
            return false;
        }
        let mut buffer = [&[0; HEADROOM], packet].concat();
        let end = buffer.len();
        let parsed = TcpPacket::parse(&mut buffer, HEADROOM, end, Offload::default());
        let Ok(mut parsed) = parsed else { return false };
        let Outcome::Translated(tell) = kernel.model.handle(now, &mut parsed) else {
            return false;
        };
        let passed = parsed.bytes().to_vec();
        kernel.events.extend(tell);
        machine.busy = true;
        self.situations.insert("passed by the kernel");
        match process {
            Process::Frozen => self.situations.insert("passed by the kernel of a frozen node"),
            Process::Dead => self.situations.insert("passed by the kernel of a dead node"),
            Process::Running | Process::Off => false,
        };
        self.trace(|| format!("node {node}: its kernel passes"));
        let came = Seen::of(&mut packet.to_vec());
        if let (Some(came), Some(goes)) = (came, Seen::of(&mut passed.clone())) {
            self.wire.passed(&mut self.ledger, &came, &goes);
        }
        self.node_sends(node, passed, true);
        if process == Process::Dead || self.step(node) {
            return true;
        }
        if tell.is_some() && process == Process::Running {
            self.turn(node, Input::Time);
        }
        true
    }

    /// What the kernel has to say to the process.
    pub(crate) fn hear_kernel(&mut self, node: NodeIndex) {
        let now = self.clock(node);
        let machine = self.machine(node);
        let Some(kernel) = &mut machine.kernel else { return };
        for (slot, serial) in std::mem::take(&mut kernel.events) {
            machine.node.handle_fast_path(now, slot, serial);
        }
    }

    /// The process lets the kernel go on, or not.
    pub(crate) fn renew_lease(&mut self, node: NodeIndex) {
        let now = self.clock(node);
        let machine = self.machine(node);
        let serves = machine.node.serves();
        if let Some(kernel) = &mut machine.kernel {
            let until = now + machine.config.pair.detection_timeout;
            kernel.lease = if serves { until } else { Time::ZERO };
            if !serves && kernel.events.is_empty() {
                machine.node.fast_path_is_quiet();
            }
        }
    }
}
