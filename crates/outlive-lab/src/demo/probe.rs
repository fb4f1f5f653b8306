//! Asks a node how it is, over its admin socket: within a millisecond, so that a takeover can be
//! timed and a display be current.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::node::Survival;

/// A node that is busy taking over still answers within this time; one that is dead refuses.
const PATIENCE: Duration = Duration::from_millis(250);

/// No report is longer.
const LONGEST: u64 = 1 << 20;

/// The part of a node's report that the demo shows.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct NodeStatus {
    /// `joining`, `standby` or `active`.
    pub(super) role: String,
    /// Whether a failure now would be survived, and if not, why.
    pub(super) survival: Survival,
    pub(super) core: Core,
    packets: Packets,
    fast_path: FastPath,
}

impl NodeStatus {
    /// Bytes that it has carried since its start, the node itself or its kernel.
    pub(super) fn carried(&self) -> u64 {
        self.packets.read_bytes + self.fast_path.bytes
    }
}

/// What its core counts.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Core {
    /// Sessions with data on the way.
    open: u64,
    /// Sessions of which that is not known: it only holds their records, or they begin.
    establishing: u64,
}

impl Core {
    /// Sessions that would go on if this node had to carry them.
    pub(super) fn sessions(&self) -> u64 {
        self.open + self.establishing
    }
}

/// What its device has passed.
#[derive(Debug, Clone, Deserialize)]
struct Packets {
    read_bytes: u64,
}

/// What its kernel has passed.
#[derive(Debug, Clone, Deserialize)]
struct FastPath {
    bytes: u64,
}

/// What the node at that socket says; nothing if it does not answer.
pub(super) fn ask(admin_socket: &Path) -> Option<NodeStatus> {
    let mut stream = UnixStream::connect(admin_socket).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(b"{\"command\":\"status\"}\n").ok()?;
    let mut answer = String::new();
    BufReader::new(stream.take(LONGEST)).read_line(&mut answer).ok()?;
    serde_json::from_str(&answer).ok()
}
