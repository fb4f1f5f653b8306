//! What a stack says to its program and its shell.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use outlive_proxy::{
    event::{CloseReason as LinkCloseReason, TakeoverCause},
    pair::Epoch,
};
use outlive_tcp::{endpoint::End, wire::Endpoint};

use crate::id::ConnectionId;

/// A connection that is the program's from now on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// Its name.
    pub id: ConnectionId,
    /// The listener's end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// It was begun at the other node, and goes on here.
    pub resumed: bool,
    /// What the program said last that its state is; empty for a new connection.
    pub state: Bytes,
    /// Where in the other end's stream the next byte read stands; zero for a new connection.
    pub position: u64,
    /// Where in the own stream the next byte written stands; zero for a new connection. Everything before
    /// it is with the other end or held here.
    pub written: u64,
    /// The program has said that it computes its output again: it does so now, from `written` on.
    pub regenerates_output: bool,
}

/// What a read gives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Chunk {
    /// The next bytes, never none.
    Data {
        /// Where in the stream the first of them stands, counted from zero.
        position: u64,
        /// They.
        bytes: Bytes,
    },
    /// Nothing yet: an [`Event::Readable`] will come.
    Blocked,
    /// The other end has ended its stream.
    End {
        /// How long it was.
        position: u64,
    },
}

/// Why a connection is over for its program.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Closed {
    /// Both directions were closed and acknowledged.
    #[error("the connection is finished")]
    Finished,
    /// The other end reset it.
    #[error("the connection was reset by the peer")]
    ResetByPeer,
    /// The program aborted it.
    #[error("the connection was aborted")]
    Aborted,
    /// The other end acknowledged nothing for so long, or does not answer.
    #[error("the peer does not answer")]
    PeerSilent,
    /// The program left received bytes without an acknowledgment for so long.
    #[error("received bytes were not acknowledged for {0:?}")]
    CommitTimeout(Duration),
    /// The other node has taken over, and the connection goes on there.
    #[error("the connection has moved to the other node")]
    Moved,
    /// The name is none that the stack knows: the program has let the connection go.
    #[error("there is no such connection")]
    Unknown,
    /// The program has written another output than before the takeover: see
    /// [`Stack::regenerate_output`](crate::Stack::regenerate_output).
    #[error("the output is not the one that the peer has part of")]
    OutputDiverged,
    /// The standby's copy could not be gone on with.
    #[error("the connection's state is not usable")]
    Unusable,
}

impl Closed {
    pub(crate) fn of(end: End) -> Self {
        match end {
            End::Finished => Closed::Finished,
            End::ResetByPeer | End::Refused => Closed::ResetByPeer,
            End::Aborted => Closed::Aborted,
            End::UserTimeout(_) | End::KeepAlive | End::ConnectTimeout => Closed::PeerSilent,
            End::OutputDiverged => Closed::OutputDiverged,
        }
    }
}

/// A transaction that cannot be, and has not been.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CommitError {
    /// It acknowledges more than was read.
    #[error("acknowledges {wanted} bytes where {outstanding} were read and not acknowledged")]
    BeyondRead {
        /// Bytes that it acknowledges.
        wanted: u32,
        /// Bytes that could be.
        outstanding: u64,
    },
    /// It acknowledges the end of the stream, which was not read, or not everything before it.
    #[error("the end of the stream was not read, or not everything before it is acknowledged")]
    NotAtEnd,
    /// The state is too long.
    #[error("a state of {len} bytes, where {limit} are allowed")]
    StateTooLong {
        /// How long it is.
        len: usize,
        /// How long it may be.
        limit: usize,
    },
    /// It sends more than there will ever be room for.
    #[error("{len} bytes to send at once, where {limit} are allowed")]
    OutputTooLong {
        /// How much it is.
        len: usize,
        /// How much it may be.
        limit: usize,
    },
    /// There is no room for what it sends yet: [`Event::Writable`] will come.
    #[error("no room for more output yet")]
    NoRoom,
    /// The program has ended its stream.
    #[error("the stream to the peer was ended")]
    Ended,
    /// The connection is over.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// Why an address cannot be listened at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody does already.
    #[error("{0} is listened at already")]
    InUse(Endpoint),
}

/// What this node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It listens for its peer.
    Starting,
    /// It serves, and no failure would be survived.
    Alone,
    /// It serves, has lost its standby, and waits until it is certain that it may go on.
    Losing,
    /// It serves, and the standby holds everything.
    Protected,
    /// The other node serves. `synchronised`: this one holds everything, and would go on with it.
    Standby {
        /// Whether it does.
        synchronised: bool,
    },
}

/// What has happened. Program and shell each pick theirs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A connection waits at this listener.
    Acceptable(Endpoint),
    /// There is something to read, or the stream has ended.
    Readable(ConnectionId),
    /// There is room for output again.
    Writable(ConnectionId),
    /// Transactions have taken effect.
    Committed(ConnectionId),
    /// The connection is over.
    Closed(ConnectionId),
    /// Shell: a connection that was [admitted](crate::Stack::admit) is over, for its other end, too.
    Over(ConnectionId, Closed),
    /// The node is something else now.
    Standing(Standing),
    /// Shell: take the virtual addresses, and announce them.
    Activate(Epoch),
    /// Shell: give them up, at once.
    Deactivate(Epoch),
    /// Shell: announce them again.
    Announce,
    /// Shell: close the state connection.
    CloseStateConnection(LinkCloseReason),
    /// For the log.
    Log(LogEvent),
}

/// For the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogEvent {
    /// It serves, without a peer.
    Started(Epoch),
    /// It is the standby.
    Joined(Epoch),
    /// It serves in the peer's place.
    TookOver {
        /// Since this epoch.
        epoch: Epoch,
        /// Why.
        cause: TakeoverCause,
        /// Connections that it goes on with.
        connections: usize,
        /// What it held was complete. If not, it goes on with none.
        complete: bool,
    },
    /// It goes on without a standby.
    WentAlone(Epoch),
    /// It yields to the other node.
    SteppedDown(Epoch),
    /// The standby holds everything.
    Synchronised {
        /// Since this epoch.
        epoch: Epoch,
        /// Connections.
        connections: usize,
    },
    /// It stood still for so long, and asks before it goes on.
    StoodStill(Duration),
    /// It may go on.
    SureAgain,
    /// The state of a connection that the former active node had told could not be gone on with.
    NotRestored(ConnectionId),
}
