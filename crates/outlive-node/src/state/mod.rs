//! The state connection: how the nodes of a pair exchange messages, over TCP, encrypted.
//!
//! | part | is |
//! |---|---|
//! | [`preamble`](self) | the first 16 bytes each way, in the clear: who is there |
//! | [`Channel`] | handshake, frames and batches, without a socket |
//! | [`StateEndpoint`] | sockets: listening, dialing, probing, and which connection counts |
//!
//! The core sees messages, that a connection came or went, and that the peer's port refused. What
//! the messages mean is its business (`docs/replication.md`); the bytes on the wire are
//! described in `docs/state-transport.md`.

mod channel;
mod connection;
mod endpoint;
mod preamble;
#[cfg(test)]
mod tests;

pub use channel::{Channel, ChannelEvent, MAX_MESSAGE, SEND_LIMIT, Side};
pub(crate) use connection::{Connection, Progress, connect};
pub use endpoint::{EndpointConfig, StateEndpoint, StateEvent};
pub use preamble::{Introduction, PREAMBLE_LEN, Preamble, VERSION};

use std::io;

use outlive_proxy::config::NodeId;

/// Why a state connection could not be made, or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Whoever is there does not speak this protocol.
    #[error("what answers there is not Outlive")]
    Foreign,
    /// The peer's program speaks another version.
    #[error(
        "the peer speaks version {0} of the state connection, this node version {VERSION}: install neighbouring versions of Outlive on both nodes"
    )]
    Version(u8),
    /// The connection came back to this very process.
    #[error("the node is connected to itself: peer and own address lead to the same process")]
    Oneself,
    /// Both nodes have the same name.
    #[error("both nodes are named \"{}\": name one \"a\" and the other \"b\" in [node]", letter(*.0))]
    SameName(NodeId),
    /// The peer's handshake was not made with our key.
    #[error("the peer has another key: copy the key file from one node to the other")]
    WrongKey,
    /// The peer says that our handshake was not made with its key.
    #[error("the peer refused this node's key: copy the key file from one node to the other")]
    KeyRefused,
    /// A frame that was not made with the connection's keys, or is not well formed.
    #[error("the connection carries something that the peer did not send")]
    Damaged,
    /// The core cannot obey a message of the peer.
    #[error("the peer sent a message that cannot be obeyed")]
    Disobeyed,
    /// The core gave a message longer than [`MAX_MESSAGE`].
    #[error("a message is longer than the connection carries")]
    TooLong,
    /// It took too long to come about.
    #[error("no connection within the time for it")]
    TimedOut,
    /// The port refused: no process listens there, or a firewall says so.
    #[error("the peer's port refuses connections")]
    Refused,
    /// The other side closed it.
    #[error("the peer closed the connection")]
    Closed,
    /// A newer connection of the same peer took its place.
    #[error("the peer made a new connection")]
    Replaced,
    /// Closed by this node.
    #[error("closed by this node")]
    ClosedHere,
    /// The system says so.
    #[error("{0}")]
    Io(io::ErrorKind),
}

fn letter(node: NodeId) -> char {
    match node {
        NodeId::A => 'a',
        NodeId::B => 'b',
    }
}
