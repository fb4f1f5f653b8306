//! What can go wrong.

use std::io;

use outlive_net::{
    edge::EdgeError, neighbour::NeighbourError, netlink::NetlinkError, sysctl::SysctlError,
    tun::TunError,
};
use outlive_stack::ListenError as StackListenError;
pub use outlive_stack::{Closed, CommitError};

/// Why a host could not start. Nothing has been changed then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no address to serve.
    #[error("a host needs an address")]
    NoAddress,
    /// The TUN device.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// Its interface.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The routes of the addresses.
    #[error(transparent)]
    Edge(#[from] EdgeError),
    /// The sockets that answer neighbours.
    #[error(transparent)]
    Neighbour(#[from] NeighbourError),
    /// A system setting.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The kernel does not forward packets, and the host may not change that.
    #[error("{0}")]
    Forwarding(String),
    /// The own address of the state connection.
    #[error("the state address cannot be listened on: {0}")]
    State(io::Error),
    /// The own address of a path of heartbeats, by its number.
    #[error("the heartbeat address cannot be had: {1}")]
    Heartbeat(usize, io::Error),
    /// The address where balancers connect to.
    #[error("the address for migrations cannot be listened on: {0}")]
    Migration(io::Error),
    /// A peer and migration are both configured.
    #[error("connections cannot be migrated to a host that has a peer")]
    MigrationWithPeer,
    /// Random numbers, the poll, a thread.
    #[error("the system refuses what every program needs: {0}")]
    System(io::Error),
}

/// Why a listener could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// The address is none of the host's.
    #[error("{0} is not an address of the host")]
    NotOurs(std::net::IpAddr),
    /// There is one already.
    #[error(transparent)]
    InUse(#[from] StackListenError),
    /// The host has ended.
    #[error(transparent)]
    HostEnded(#[from] HostEnded),
}

/// The host was shut down, or its thread has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the host has ended")]
pub struct HostEnded;

/// Why a read, a write or a commit was not done.
///
/// ```
/// use outlive_socket::{Closed, CommitError, StreamError};
///
/// fn judge(error: StreamError) -> &'static str {
///     match error {
///         StreamError::Refused(CommitError::Closed(Closed::Moved)) => "it goes on at the other node",
///         StreamError::Refused(CommitError::Closed(_)) => "the connection is over",
///         StreamError::Refused(_) => "a mistake of this program; nothing was done",
///         StreamError::HostEnded(_) => "this program shuts down",
///     }
/// }
/// assert_eq!(judge(Closed::Moved.into()), "it goes on at the other node");
/// assert_eq!(judge(CommitError::NotAtEnd.into()), "a mistake of this program; nothing was done");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The program asked for what cannot be, or the connection is over: the error says which.
    #[error(transparent)]
    Refused(#[from] CommitError),
    /// The host has ended.
    #[error(transparent)]
    HostEnded(#[from] HostEnded),
}

impl From<Closed> for StreamError {
    fn from(closed: Closed) -> Self {
        StreamError::Refused(closed.into())
    }
}

impl StreamError {
    /// Why the connection is over, if that is the reason.
    pub fn closed(&self) -> Option<Closed> {
        match self {
            StreamError::Refused(CommitError::Closed(closed)) => Some(*closed),
            _ => None,
        }
    }

    /// The connection goes on at the other node: this one must do nothing about it any more.
    pub fn has_moved(&self) -> bool {
        self.closed() == Some(Closed::Moved)
    }
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        use io::ErrorKind::*;
        let kind = match error {
            StreamError::HostEnded(_) => NotConnected,
            StreamError::Refused(refused) => match refused {
                CommitError::Closed(Closed::ResetByPeer) => ConnectionReset,
                CommitError::Closed(Closed::PeerSilent | Closed::CommitTimeout(_)) => TimedOut,
                CommitError::Closed(Closed::Finished) => BrokenPipe,
                CommitError::Closed(_) => ConnectionAborted,
                CommitError::Ended => BrokenPipe,
                CommitError::NoRoom => WouldBlock,
                _ => InvalidInput,
            },
        };
        io::Error::new(kind, error)
    }
}
