//! What a scenario and its traffic processes say to each other: lines of JSON over a Unix socket.

use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::traffic::engine::Sender;
use crate::traffic::{Plan, Record};

/// What a process is, said once at its beginning.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Charge {
    /// Ports to listen at; none for clients.
    pub(super) ports: Vec<u16>,
    /// The groups of the book, in their order.
    pub(super) labels: Vec<String>,
    /// The number of its first connection.
    pub(super) first_id: u64,
    /// Decides the patterns of its connections.
    pub(super) seed: u64,
    /// When the lab's clock started, on the machine's.
    pub(super) clock_start: Duration,
}

/// What a process is asked to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Order {
    /// Open connections of the group with this number.
    Open { group: usize, count: u64, to: SocketAddr, plan: Plan },
    /// Tell of all connections that have data on the way.
    Senders,
    /// Bring everything endless to its end.
    WindUp,
    /// End what is still open, hand the records over, and end.
    Stop,
}

/// What a process tells.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum News {
    /// It is ready for orders.
    Ready,
    /// What has changed since it last told.
    Progress {
        /// Connections that are open.
        open: usize,
        /// The groups in which something happened.
        groups: Vec<Progress>,
    },
    /// The answer to [`Order::Senders`].
    Senders(Vec<Sender>),
    /// How an end of a connection went.
    Record(Record),
    /// All answers of a group: microseconds, and how many took that long.
    Answers { group: usize, counts: Vec<(u64, u64)> },
    /// There is nothing more to tell.
    Over,
}

/// What happened in a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    pub(super) group: usize,
    pub(super) established: u64,
    pub(super) ended: u64,
    pub(super) failed: u64,
    pub(super) up: u64,
    pub(super) down: u64,
}

/// Sends one message.
pub(super) fn write(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// The next message; nothing at the end.
pub(super) fn read<T: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&line)?))
}
