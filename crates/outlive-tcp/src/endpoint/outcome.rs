//! What the endpoint says to its caller: verdicts on packets, events, errors of misuse, and why a
//! connection is over.

use std::time::Duration;

/// What became of a packet that was handed in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It belongs to the connection and was processed. Something may be to transmit now.
    Accepted,
    /// It was dropped. Something may be to transmit nevertheless (a challenge, a reset).
    Dropped(Drop),
    /// A SYN for a new connection between the same ends, while this one is in TIME-WAIT (RFC 9293,
    /// MAY-2; RFC 6191). The caller may replace this connection by a new one that starts with
    /// `iss_after` or later, or take it for dropped.
    Reopen {
        /// The new initial sequence number must lie beyond this one.
        iss_after: crate::seq::Seq,
    },
}

/// Why a packet was dropped. Each is worth a counter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Drop {
    /// The connection is over.
    Closed,
    /// The packet's ends are not this connection's.
    OtherConnection,
    /// The timestamp is older than one already seen (RFC 7323, section 5).
    OldTimestamp,
    /// No timestamps though they were negotiated (RFC 7323, section 3.2).
    NoTimestamp,
    /// Sequence numbers outside the window.
    OutsideWindow,
    /// An acknowledgment of what was never sent, or of what was acknowledged long ago (RFC 5961,
    /// section 5).
    BadAcknowledgment,
    /// A SYN where none belongs (RFC 5961, section 4).
    UnexpectedSyn,
    /// A reset whose sequence number is not exactly right (RFC 5961, section 3).
    DoubtfulReset,
    /// No ACK flag, where every segment has one.
    NoAcknowledgment,
    /// Data beyond what may be held.
    NoRoom,
    /// Data, or a FIN, after the other end's FIN.
    AfterEnd,
    /// An ICMP error that quotes nothing in flight, or says what cannot be (RFC 5927).
    DoubtfulIcmp,
}

/// Something that the program may want to act on. Each is told once, and again when it happens
/// again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The handshake is complete.
    Established,
    /// There is something to read, or the end of the stream is.
    Readable,
    /// The other end calls some of what it sends urgent:
    /// [`Connection::urgent`](super::Connection::urgent) says how far.
    Urgent,
    /// There is room to write again, after there was none.
    Writable,
    /// The other end has acknowledged everything that was written, the end of the stream included.
    AllAcknowledged,
    /// Retransmissions go unanswered (R1 of RFC 9293, section 3.8.3), or an ICMP error says that
    /// the other end cannot be reached. The connection goes on.
    PathSuspect,
    /// After a restore without output: the other end has acknowledged bytes that were not written
    /// here yet. So many of the next bytes written are taken for those, and not sent.
    OutputSkipped(u32),
    /// The connection is over, and why.
    Closed(End),
}

/// Why a connection is over, and who ended it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Both directions were closed and acknowledged.
    Finished,
    /// The other end answered the SYN with a reset, or an ICMP error did.
    Refused,
    /// The other end reset it.
    ResetByPeer,
    /// The program did, with [`abort`](super::Connection::abort), or by closing while unread bytes
    /// were there or still came.
    Aborted,
    /// The other end acknowledged nothing for so long.
    UserTimeout(Duration),
    /// The other end did not answer keep-alive probes.
    KeepAlive,
    /// The handshake was not completed in time.
    ConnectTimeout,
    /// After a restore without output, the program wrote more or less than it had before, or the other
    /// end has more than that: it is not the stream that the other end has part of.
    OutputDiverged,
}

/// A program's acknowledgment that cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AcknowledgeError {
    /// More bytes than were read and not acknowledged.
    #[error("acknowledges more than the {outstanding} bytes that were read")]
    BeyondRead {
        /// Bytes that were read and not acknowledged.
        outstanding: u32,
    },
    /// The end of the stream has not been read, or bytes before it are not acknowledged.
    #[error("the end of the stream is not reached")]
    NotAtEnd,
    /// The connection acknowledges by itself ([`Acknowledge`](super::Acknowledge)).
    #[error("the connection acknowledges by itself")]
    Automatic,
}

/// A write that cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WriteError {
    /// The program has closed this direction.
    #[error("the stream was ended")]
    Ended,
    /// The connection is over.
    #[error("the connection is over")]
    Closed,
}

/// What a read gives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Read {
    /// The next bytes; never none.
    Data(bytes::Bytes),
    /// Nothing yet.
    Blocked,
    /// The other end has ended its stream, and everything was read.
    End,
    /// The connection is over, and the stream was not complete.
    Closed(End),
}
