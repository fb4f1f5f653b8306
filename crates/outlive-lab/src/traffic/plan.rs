//! What one connection is to do.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The course of a connection, as its client decides it; the server learns its part in band.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Plan {
    /// A verified stream in one or both directions.
    Transfer(Transfer),
    /// A small message every `every`, each answered by one, until the traffic winds up.
    Requests {
        /// Time between a request and the next; a late answer delays the next one.
        every: Duration,
        /// Payload bytes of a request, at most 64 KiB.
        request: u32,
        /// Payload bytes of an answer, at most 64 KiB.
        response: u32,
    },
    /// A key every `every`, whether or not the last one was echoed, until the traffic winds up.
    Interactive {
        /// Time between two keys.
        every: Duration,
    },
    /// Silent until the traffic winds up; then one echo proves that the connection still lives.
    Idle,
}

impl Plan {
    /// A verified stream of `bytes` from the client to the server.
    pub fn upload(bytes: u64) -> Self {
        Self::Transfer(Transfer { up: bytes, ..Transfer::default() })
    }

    /// A verified stream of `bytes` from the server to the client.
    pub fn download(bytes: u64) -> Self {
        Self::Transfer(Transfer { down: bytes, ..Transfer::default() })
    }

    /// Verified streams of `bytes` each way at once.
    pub fn both(bytes: u64) -> Self {
        Self::Transfer(Transfer { up: bytes, down: bytes, ..Transfer::default() })
    }

    /// The client says all it has to say at once and closes its direction; the server goes on for
    /// `bytes` at `pace` bytes per second.
    pub fn half_closed(bytes: u64, pace: u64) -> Self {
        let down_pace = Some(pace);
        Self::Transfer(Transfer { down: bytes, down_pace, ..Transfer::default() })
    }
}

/// A verified stream in one or both directions. Each end closes its direction when it has sent
/// everything, and the server adds a receipt: what it got, with both hashes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Bytes from the client to the server.
    pub up: u64,
    /// Bytes from the server to the client.
    pub down: u64,
    /// Bytes per second that the client sends, or as fast as it goes.
    pub up_pace: Option<u64>,
    /// Bytes per second that the server sends, or as fast as it goes.
    pub down_pace: Option<u64>,
    /// How the client reads.
    pub reader: Reader,
    /// How the server reads.
    pub server_reader: Reader,
    /// The server closes its direction after its last byte, however long the client still sends.
    /// Its receipt then says nothing about the upload; the book does.
    pub server_closes_first: bool,
}

/// How an end reads. The default reads whatever comes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reader {
    /// Bytes per second, or as fast as they come.
    pub pace: Option<u64>,
    /// Stop reading once this many bytes have come ...
    pub stop_after: u64,
    /// ... for this long, in whole milliseconds.
    pub stop_for: Duration,
}
