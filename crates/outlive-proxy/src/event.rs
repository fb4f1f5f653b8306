//! What the node tells the shell: things to do, and things for the log.

use std::{fmt, time::Duration};

use outlive_tcp::wire::Endpoint;

use crate::{counters::Counter, flows::Side, pair::Epoch};

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
    /// The other node has taken over as planned. Answer for the virtual addresses no more, but go on leading them
    /// to the device: late packets are passed on, until [`Deactivate`](Self::Deactivate).
    Relay {
        /// The epoch that the other node has begun.
        epoch: Epoch,
    },
    /// Announce the virtual addresses again.
    Announce,
    /// The virtual addresses are others: see [`Node::addresses`](crate::Node::addresses).
    AddressesChanged,
    /// The peer asks this node to read its configuration again.
    Reload,
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
    Finished {
        /// Whose was acknowledged first.
        first: Side,
    },
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
            End::Finished { first: Side::Client } => "closed by the client, then by the server",
            End::Finished { first: Side::Server } => "closed by the server, then by the client",
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
    /// The active node asked for it.
    Handover,
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
            TakeoverCause::Handover => f.write_str("handed over by the active node"),
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
    /// A node that started without its peer has held sessions for a while: from now on it outranks one that starts.
    Established {
        /// The epoch that begins.
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
    /// A server gets no new sessions any more, or gets some again.
    Drains {
        /// The pool.
        pool: String,
        /// The server.
        server: Endpoint,
        /// It gets none.
        drains: bool,
    },
    /// Another configuration is obeyed.
    Reconfigured,
    /// The peer obeys another configuration.
    ConfigurationsDiffer,
    /// The active node is about to hand over.
    HandoverBegun,
    /// The standby has taken over as it was asked to; this node is the standby now.
    HandedOver {
        /// The epoch that the other node has begun.
        epoch: Epoch,
        /// Sessions handed over.
        sessions: usize,
    },
    /// The standby was lost before it took over: this node goes on.
    HandoverFailed,
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
    /// A client was turned away before it had a server.
    TurnedAway {
        /// The client.
        client: Endpoint,
        /// Where it connected to.
        listener: Endpoint,
        /// The counter of the reason.
        why: Counter,
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
            LogEvent::SessionClosed { .. } | LogEvent::TurnedAway { .. } => Severity::Debug,
            LogEvent::TookOver { cause: TakeoverCause::Handover, .. } => Severity::Info,
            LogEvent::PeerGone { .. }
            | LogEvent::TookOver { .. }
            | LogEvent::WentAlone { .. }
            | LogEvent::SteppedDown { .. }
            | LogEvent::StateClosed
            | LogEvent::StoodStill { .. }
            | LogEvent::HandoverFailed
            | LogEvent::ConfigurationsDiffer
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
            LogEvent::Established { epoch } => {
                write!(f, "still without a peer, with sessions, in epoch {epoch}")
            }
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
            LogEvent::Drains { pool, server, drains } => {
                let what = if *drains { "no new sessions any more" } else { "new sessions again" };
                write!(f, "server {server} gets {what} of pool {pool}")
            }
            LogEvent::Reconfigured => f.write_str("obeying another configuration"),
            LogEvent::ConfigurationsDiffer => f.write_str(
                "the nodes have different configurations: give both the same file, and reload",
            ),
            LogEvent::HandoverBegun => f.write_str("handing over to the standby"),
            LogEvent::HandedOver { epoch, sessions } => {
                write!(
                    f,
                    "handed {sessions} sessions over: the other node is active in epoch {epoch}"
                )
            }
            LogEvent::HandoverFailed => {
                f.write_str("the standby was lost before it took over: this node goes on serving")
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
            LogEvent::TurnedAway { client, listener, why } => {
                let why = match why {
                    Counter::NoRoute => "its data matches no route",
                    _ => "no server of the pool could be reached",
                };
                write!(f, "client {client} -> {listener} turned away: {why}")
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
