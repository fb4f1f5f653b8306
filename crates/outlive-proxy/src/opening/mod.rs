//! Connections that are being opened: from the client's first segment to the server's SYN-ACK.
//!
//! Nothing here is replicated, for nothing here has had an effect: if the node dies, the client still has
//! its SYN, or its data, and says it again.

mod client;
pub(crate) mod connect;
mod cookies;
mod establish;
pub(crate) mod keys;
pub(crate) mod memory;
mod table;

use arrayvec::ArrayVec;
use outlive_tcp::{
    seq::Seq,
    time::Time,
    wire::{Endpoint, FourTuple, Options},
};

pub(crate) use self::{cookies::FIRST_WINDOW, table::Openings};
use crate::{balance::ServerId, config::PoolId, migration::Transfer};

/// How many servers are tried for one client.
pub(crate) const MAX_SERVERS: usize = 8;

/// The window scale that clients are shown when they are answered before their server is known. Both nodes
/// must agree on it at any time, so it is a constant; the translation rescales. Windows of up to 16 MiB, in
/// steps of 256 bytes.
pub(crate) const SHOWN_SCALE: u8 = 8;

/// How the client was met.
#[derive(Clone, Debug)]
pub(crate) enum Meeting {
    /// Its SYN is held until the server has answered (direct).
    Held {
        /// The SYN offers ECN (RFC 3168, 6.1.1).
        ecn: bool,
    },
    /// It was answered with a cookie.
    Answered {
        /// The cookie.
        iss: Seq,
        /// TSval of the SYN-ACK that the client accepted.
        timestamp: u32,
        /// Data since, unacknowledged, without a gap.
        data: Vec<u8>,
        /// A FIN follows the data.
        fin: bool,
    },
}

/// A connection attempt to a server.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) server: ServerId,
    pub(crate) address: Endpoint,
    pub(crate) own: Endpoint,
    pub(crate) iss: Seq,
    /// Added to the client's timestamps.
    pub(crate) timestamp_delta: u32,
    pub(crate) began: Time,
    pub(crate) syns: u32,
}

impl Attempt {
    /// The tuple of the server's packets.
    pub(crate) fn tuple(&self) -> FourTuple {
        FourTuple { source: self.address, destination: self.own }
    }
}

/// A connection that is being opened.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    /// The tuple of the client's packets.
    pub(crate) tuple: FourTuple,
    pub(crate) listener: u16,
    /// The client's initial sequence number.
    pub(crate) irs: Seq,
    /// What the client offered.
    pub(crate) options: Options,
    /// The client's latest timestamp.
    pub(crate) timestamp: u32,
    /// The client's window in bytes.
    pub(crate) window: u32,
    pub(crate) meeting: Meeting,
    /// Chosen when the content is known.
    pub(crate) pool: Option<PoolId>,
    pub(crate) tried: ArrayVec<ServerId, MAX_SERVERS>,
    pub(crate) attempt: Option<Attempt>,
    /// The hash of what its data showed.
    pub(crate) content: Option<u64>,
    /// Its route migrates, as long as there is a target to try.
    pub(crate) migrate: bool,
    /// It is being prepared at a target, instead of an attempt.
    pub(crate) transfer: Option<Box<Transfer>>,
}

impl Opening {
    pub(crate) fn is_half_open(&self) -> bool {
        matches!(self.meeting, Meeting::Held { .. })
    }

    fn buffered(&self) -> usize {
        match &self.meeting {
            Meeting::Held { .. } => 0,
            Meeting::Answered { data, .. } => data.capacity(),
        }
    }
}
