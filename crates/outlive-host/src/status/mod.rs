//! How an agent is: for people (`outlive host --status`) and for Prometheus.
//!
//! The loop publishes a copy of its numbers at the end of each turn; whoever asks is answered by a thread of its own, so that a
//! slow one does not disturb the loop.

mod metrics;
mod observers;

use std::{
    io::{self, Read},
    os::unix::net::UnixStream,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use outlive_migration::target::Counts as TargetCounts;
use serde_json::{Value, json};

pub(crate) use self::observers::Observers;
pub use crate::agent::PacketCounts;
use crate::channel::Counts as ChannelCounts;

/// Until an agent must have answered.
const PATIENCE: Duration = Duration::from_secs(5);

/// How an agent is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether node a and node b are connected.
    pub nodes: [bool; 2],
    /// Connections that speak.
    pub committed: usize,
    /// Connections that are prepared, or about to be.
    pub waiting: usize,
    /// Flows whose packets are led to a connection: those, and what has just ended.
    pub mapped: usize,
    /// Connections whose server has not taken them yet.
    pub handing_over: usize,
    /// What became of migrations.
    pub target: TargetCounts,
    /// What was said.
    pub channels: ChannelCounts,
    /// What became of packets.
    pub packets: PacketCounts,
}

/// The latest [`Status`].
#[derive(Debug, Default)]
pub(crate) struct Shared(Mutex<Status>);

impl Shared {
    pub(crate) fn publish(&self, status: Status) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    pub(crate) fn latest(&self) -> Status {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the agent whose status socket is at `path`: one JSON object.
///
/// # Errors
/// Nobody answers there.
pub fn ask(path: &Path) -> io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

impl Status {
    /// As `outlive host --status` prints it.
    pub(crate) fn to_json(self) -> Value {
        let Status { nodes, committed, waiting, mapped, handing_over, target, channels, packets } =
            self;
        json!({
            "nodes": { "a": nodes[0], "b": nodes[1] },
            "connections": {
                "committed": committed,
                "waiting": waiting,
                "mapped": mapped,
                "handing_over": handing_over,
            },
            "migrations": {
                "prepared": target.prepared,
                "blob_bytes": target.blob_bytes,
                "committed": target.committed,
                "aborted": target.aborted,
                "expired": target.expired,
                "refused": target.refused,
                "stale": target.stale,
                "ended": target.ended,
            },
            "channel": {
                "received": channels.received,
                "sent": channels.sent,
                "unsent": channels.unsent,
                "strangers": channels.strangers,
                "failures": channels.failures,
            },
            "packets": {
                "from_tunnel": packets.from_tunnel,
                "from_tunnel_bytes": packets.from_tunnel_bytes,
                "to_clients": packets.to_clients,
                "to_clients_bytes": packets.to_clients_bytes,
                "errors": packets.errors,
                "probes": packets.probes,
                "strangers": packets.strangers,
                "unknown_flows": packets.unknown_flows,
                "mute": packets.mute,
                "unknown_servers": packets.unknown_servers,
                "other": packets.other,
                "write_failures": packets.write_failures,
            },
        })
    }
}
