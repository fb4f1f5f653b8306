//! What the node tells the shell: things to do, and things for the log.

use std::{fmt, time::Duration};

use outlive_tcp::wire::Endpoint;

use crate::{flows::Side, pair::Epoch};

/// Something that the shell has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Take the virtual addresses: lead them to the device, answer for them, announce them.
    Activate {
        /// The epoch that begins.
        epoch: Epoch,
    },
    /// Give the virtual addresses up at once.
    Deactivate {
        /// The epoch that this node has yielded to.
        epoch: Epoch,
    },
    /// Announce the virtual addresses again.
    Announce,
    /// Close the state connection; the dialing side tries again.
    CloseStateConnection(CloseReason),
    /// For the log.
    Log(LogEvent),
}

/// Why the state connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// This node's role has changed.
    RoleChanged,
    /// The standby did not confirm in time.
    NoConfirmation,
    /// The standby is too far behind.
    Overflow,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CloseReason::RoleChanged => "this node's role has changed",
            CloseReason::NoConfirmation => "the standby does not confirm what it is sent",
            CloseReason::Overflow => "the standby is too far behind",
        })
    }
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A FIN in each direction, acknowledged.
    Finished,
    /// A reset from that side.
    Reset(Side),
    /// Nothing was heard for the idle timeout.
    Idle,
    /// The client never acknowledged the SYN-ACK.
    NotAcknowledged,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            End::Finished => "closed by both ends",
            End::Reset(Side::Client) => "reset by the client",
            End::Reset(Side::Server) => "reset by the server",
            End::Idle => "idle for too long",
            End::NotAcknowledged => "handshake not completed by the client",
        })
    }
}

/// Why a node took over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeoverCause {
    /// No heartbeat on any path for this long.
    Silence(Duration),
    /// The peer's process is gone: connections to it are refused, and no heartbeat came for this long.
    Refused(Duration),
    /// The peer has started anew.
    Restarted,
    /// Both nodes were passive.
    BothPassive,
    /// An external detector said so.
    Ordered,
}

impl fmt::Display for TakeoverCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TakeoverCause::Silence(time) => write!(f, "the peer was silent for {time:?}"),
            TakeoverCause::Refused(time) => {
                write!(f, "the peer's process is gone (connection refused, silent for {time:?})")
            }
            TakeoverCause::Restarted => f.write_str("the peer has started anew"),
            TakeoverCause::BothPassive => f.write_str("both nodes were passive"),
            TakeoverCause::Ordered => f.write_str("told to by an external detector"),
        }
    }
}

/// Something that an operator may want to reconstruct a night by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// The first heartbeat of the peer, or the first after it was gone.
    PeerHeard,
    /// The peer is gone.
    PeerGone {
        /// How long nothing was heard.
        silent: Duration,
    },
    /// This node serves from now on, with no peer to take over from.
    Started {
        /// The epoch that begins.
        epoch: Epoch,
    },
    /// This node has joined an active one.
    Joined {
        /// The active node's epoch.
        epoch: Epoch,
    },
    /// This node has taken over.
    TookOver {
        /// The epoch that begins.
        epoch: Epoch,
        /// Why.
        cause: TakeoverCause,
        /// Sessions that it goes on with.
        sessions: usize,
        /// It held every session of the old active node.
        complete: bool,
    },
    /// The active node has lost its standby and goes on alone.
    WentAlone {
        /// The epoch that began.
        epoch: Epoch,
    },
    /// The active node yields to the other one.
    SteppedDown {
        /// The other one's epoch.
        epoch: Epoch,
    },
    /// The standby holds everything: a failure would be survived.
    Synchronised {
        /// The epoch that begins.
        epoch: Epoch,
        /// Sessions held.
        sessions: usize,
    },
    /// The state connection is up.
    StateConnected,
    /// The state connection is down.
    StateClosed,
    /// The node stood still and asks its peer before it goes on.
    StoodStill {
        /// For how long.
        time: Duration,
    },
    /// It is certain again that this node is the active one.
    SureAgain,
    /// A session has ended.
    SessionClosed {
        /// Its client.
        client: Endpoint,
        /// Where the client connected to.
        listener: Endpoint,
        /// Its server.
        server: Endpoint,
        /// How.
        end: End,
        /// Bytes of the client that the server acknowledged, since this node has the session.
        from_client: u64,
        /// Bytes of the server that the client acknowledged, likewise.
        from_server: u64,
        /// Since it was established, or taken over.
        lasted: Duration,
    },
    /// A server refused a connection, or did not answer.
    ServerFailed {
        /// Which.
        server: Endpoint,
        /// It refused.
        refused: bool,
    },
    /// This node's source ports towards a server are nearly used up.
    PortsLow {
        /// Which.
        server: Endpoint,
        /// In use.
        used: u32,
        /// There are.
        capacity: u32,
    },
    /// Every source port towards a server is in use.
    PortsExhausted {
        /// Which.
        server: Endpoint,
    },
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// One of many of its kind.
    Debug,
    /// As it should be.
    Info,
    /// Not as it should be.
    Warning,
}

impl LogEvent {
    /// How much it matters.
    pub fn severity(&self) -> Severity {
        match self {
            LogEvent::SessionClosed { .. } => Severity::Debug,
            LogEvent::PeerGone { .. }
            | LogEvent::TookOver { .. }
            | LogEvent::WentAlone { .. }
            | LogEvent::SteppedDown { .. }
            | LogEvent::StateClosed
            | LogEvent::StoodStill { .. }
            | LogEvent::ServerFailed { .. }
            | LogEvent::PortsLow { .. }
            | LogEvent::PortsExhausted { .. } => Severity::Warning,
            _ => Severity::Info,
        }
    }
}

impl fmt::Display for LogEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogEvent::PeerHeard => f.write_str("the peer is alive"),
            LogEvent::PeerGone { silent } => write!(f, "the peer is gone: silent for {silent:?}"),
            LogEvent::Started { epoch } => write!(f, "active, without a peer, in epoch {epoch}"),
            LogEvent::Joined { epoch } => {
                write!(f, "joined the active node as standby in epoch {epoch}")
            }
            LogEvent::TookOver { epoch, cause, sessions, complete } => {
                let partial = if *complete { "" } else { ", not all of which may be known" };
                write!(f, "took over {sessions} sessions{partial} in epoch {epoch}: {cause}")
            }
            LogEvent::WentAlone { epoch } => {
                write!(
                    f,
                    "the standby is lost: going on alone in epoch {epoch}, a failure now would not be survived"
                )
            }
            LogEvent::SteppedDown { epoch } => {
                write!(f, "the other node is active in epoch {epoch}: stepping down")
            }
            LogEvent::Synchronised { epoch, sessions } => {
                write!(
                    f,
                    "synchronised {sessions} sessions: a failure would be survived (epoch {epoch})"
                )
            }
            LogEvent::StateConnected => f.write_str("state connection established"),
            LogEvent::StateClosed => f.write_str("state connection closed"),
            LogEvent::StoodStill { time } => {
                write!(f, "stood still for {time:?}: asking the peer before going on")
            }
            LogEvent::SureAgain => f.write_str("still the active node: going on"),
            LogEvent::SessionClosed {
                client,
                listener,
                server,
                end,
                from_client,
                from_server,
                lasted,
            } => {
                write!(
                    f,
                    "session {client} -> {listener} -> {server} {end} after {lasted:?}, \
                     {from_client} bytes from the client, {from_server} from the server"
                )
            }
            LogEvent::ServerFailed { server, refused: true } => {
                write!(f, "server {server} refused a connection")
            }
            LogEvent::ServerFailed { server, refused: false } => {
                write!(f, "server {server} did not answer")
            }
            LogEvent::PortsLow { server, used, capacity } => write!(
                f,
                "source ports towards {server} are nearly used up, {used} of this node's {capacity}: \
                 add source addresses, or servers"
            ),
            LogEvent::PortsExhausted { server } => write!(
                f,
                "no source port towards {server} is free: add source addresses, or servers"
            ),
        }
    }
}
