//! What an eavesdropper on a cable learns: where each connection's sequence numbers are.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::mpsc::Receiver;

use super::segment::Segment;
use crate::error::LabError;
use crate::host::Host;

/// One direction of a connection, as the segments of one host show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// The host's end.
    pub from: SocketAddr,
    /// The other end, as the host sees it.
    pub to: SocketAddr,
    /// The next sequence number that the other end expects, if it got everything.
    pub next_seq: u32,
    /// The host's latest acknowledgment.
    pub ack: u32,
}

/// Overhears what a host sends. The host's cable must be an impaired one (impaired by nothing
/// will do): only there do frames pass through this process.
pub struct Ear {
    frames: Receiver<Vec<u8>>,
    flows: BTreeMap<(SocketAddr, SocketAddr), Flow>,
}

impl Ear {
    /// Begins to listen to `host`.
    pub fn on(host: &Host) -> Result<Self, LabError> {
        let frames = host.link().overhear().ok_or(LabError::NothingToOverhear)?;
        Ok(Self { frames, flows: BTreeMap::new() })
    }

    /// The flows heard so far, with the latest numbers of each.
    pub fn flows(&mut self) -> Vec<Flow> {
        for frame in self.frames.try_iter() {
            if let Some((segment, next_seq)) = Segment::parse(&frame) {
                let Segment { from, to, ack, .. } = segment;
                self.flows.insert((from, to), Flow { from, to, next_seq, ack });
            }
        }
        self.flows.values().copied().collect()
    }
}
