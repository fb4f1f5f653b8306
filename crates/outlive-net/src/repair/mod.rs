//! Connections moved between a kernel's TCP and somewhere else (`TCP_REPAIR`).
//!
//! [`infuse`] makes an established socket out of a [`Connection`], as if its handshake had been
//! made here; nothing is sent. The socket stays [`Mute`]: dropped, it vanishes without a word;
//! [`Mute::speak`] makes it an ordinary socket. [`capture`] does the reverse.
//!
//! Only established connections: neither end has sent a FIN. Out-of-order data is not carried (the
//! other end sends it again), nor are congestion state, round-trip times and ECN, which the kernel
//! finds out anew. The kernel offers no way to set TS.Recent: until the other end's next segment,
//! the timestamps sent echo zero, which receivers pass over.
//!
//! Restoring many connections on one address and port costs the same each time, provided that
//! repair mode is entered before `bind`: the kernel then does not walk the others on the port.
//!
//! A mute socket does not answer what it is sent, or not only: the kernel's TCP would acknowledge
//! data. So whoever infuses keeps the connection's packets away until it may speak.
//!
//! Needs `CAP_NET_ADMIN`.

mod capture;
mod infuse;
mod options;

use std::net::SocketAddr;

pub use self::{
    capture::capture,
    infuse::{Mute, infuse},
};
use crate::Errno;

/// An established connection, as one end has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// This end: an address that the network namespace has.
    pub local: SocketAddr,
    /// The other end, of the same IP version.
    pub remote: SocketAddr,
    /// The largest segment that the other end announced to take, in bytes. The kernel's own limits
    /// (the path's MTU) apply beside it.
    pub send_mss: u16,
    /// Window scales; `None` if not negotiated (RFC 7323, section 2).
    pub scales: Option<Scales>,
    /// Whether SACK is negotiated (RFC 2018).
    pub sack: bool,
    /// The TSval to be sent next, in milliseconds; `None` if timestamps are not negotiated. The first
    /// one sent is this or one more: the kernel reads another meaning out of odd numbers.
    pub timestamp: Option<u32>,
    /// The sending half.
    pub send: SendHalf,
    /// The receiving half.
    pub receive: ReceiveHalf,
}

/// Window scales (RFC 7323), 0 to 14.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scales {
    /// Of the windows that the other end announces.
    pub send: u8,
    /// Of the windows announced by this end.
    pub receive: u8,
}

/// SND.UNA and what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendHalf {
    /// SND.UNA.
    pub unacknowledged: u32,
    /// What was sent from there on: sent again when the retransmission timer says so.
    pub sent: Vec<u8>,
    /// What was written behind that, and never sent: sent once the socket may speak.
    pub unsent: Vec<u8>,
    /// SND.WND, in bytes: how far beyond SND.UNA the other end takes data.
    pub window: u32,
    /// The largest window the other end has ever announced, in bytes; not below `window`.
    pub largest_window: u32,
    /// SND.WL1: the sequence number of the segment that `window` is from.
    pub window_from: u32,
}

/// RCV.NXT and what precedes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiveHalf {
    /// RCV.NXT: after the last byte of `data`.
    pub next: u32,
    /// What was received and the program has not read.
    pub data: Vec<u8>,
    /// What was acknowledged last; not beyond `next`. Data behind it, up to `next`, will be
    /// acknowledged with whatever is sent next.
    pub acknowledged: u32,
    /// The window announced with that, in bytes: never drawn back.
    pub window: u32,
}

/// What [`RepairError`] happened at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Making a socket.
    Socket,
    /// Entering repair mode.
    Enter,
    /// Binding to the local end.
    Bind,
    /// Connecting to the other end, which sends nothing.
    Connect,
    /// Reading or setting sequence numbers.
    Sequence,
    /// Reading or setting options.
    Options,
    /// Reading or setting the timestamp.
    Timestamp,
    /// Reading or filling the receive queue.
    ReceiveQueue,
    /// Reading or filling the send queue.
    SendQueue,
    /// Reading or setting the windows.
    Window,
    /// Leaving repair mode.
    Leave,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Step::Socket => "making the socket",
            Step::Enter => "entering repair mode",
            Step::Bind => "binding",
            Step::Connect => "connecting in repair mode",
            Step::Sequence => "the sequence numbers",
            Step::Options => "the options",
            Step::Timestamp => "the timestamp",
            Step::ReceiveQueue => "the receive queue",
            Step::SendQueue => "the send queue",
            Step::Window => "the windows",
            Step::Leave => "leaving repair mode",
        })
    }
}

/// Why a connection could not be infused or captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RepairError {
    /// `CAP_NET_ADMIN` is missing.
    #[error("repairing TCP sockets needs CAP_NET_ADMIN")]
    Permission,
    /// The local address belongs to no interface of the network namespace.
    #[error("no interface has the address {0}")]
    NotLocal(SocketAddr),
    /// There is such a connection already, or a program holds the port without sharing it.
    #[error("there is such a connection already, or {0} is taken")]
    InUse(SocketAddr),
    /// No route leads to the other end.
    #[error("no route to {0}")]
    NoRoute(SocketAddr),
    /// The values contradict each other.
    #[error("the connection's values contradict each other: {0}")]
    Invalid(&'static str),
    /// The connection to capture is not established, or is no TCP connection.
    #[error("the connection is not established")]
    NotEstablished,
    /// The kernel takes no more data for a queue: its memory for TCP is used up.
    #[error("no memory for {0}")]
    NoMemory(Step),
    /// Something else.
    #[error("{step}: {errno}")]
    Kernel {
        /// What failed.
        step: Step,
        /// How.
        errno: Errno,
    },
}

impl RepairError {
    fn at(step: Step) -> impl Fn(std::io::Error) -> RepairError {
        move |error| {
            let errno = Errno::of(&error);
            match errno.0 {
                libc::EPERM | libc::EACCES if step == Step::Enter => RepairError::Permission,
                libc::ENOMEM | libc::ENOBUFS => RepairError::NoMemory(step),
                _ => RepairError::Kernel { step, errno },
            }
        }
    }
}
