//! What a listener promises for the case that the active node fails, and what it lets that cost.

/// When the record of a new session has to be at the standby.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Replication {
    /// Before the session has any effect: no session that anybody knows of is lost.
    #[default]
    Sync,
    /// Whenever it gets there: nothing waits. A session whose record was under way when its node failed is
    /// reset when the quiet time is over.
    Async,
}

/// When the record of a new session goes to the standby.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Synchronise {
    /// As soon as its server is known.
    #[default]
    Establishment,
    /// With the first data, in whichever direction. A connection that never carries any costs nothing, and
    /// does not survive the node.
    FirstData,
}

/// What a synchronous listener does while no standby holds every session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WithoutStandby {
    /// It goes on: new sessions depend on this node alone until a standby has been told of them.
    #[default]
    Serve,
    /// It refuses new connections. Those that clients have been answered for go on.
    Refuse,
}

/// How a listener protects its sessions. The default is the strictest that costs no availability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Protection {
    /// Whether sessions wait for the standby.
    pub replication: Replication,
    /// Whether new connections are taken while there is no standby to wait for.
    pub without_standby: WithoutStandby,
    /// What the record waits for.
    pub synchronise: Synchronise,
}

impl Protection {
    /// Whether sessions wait for their records.
    pub(crate) fn waits(self) -> bool {
        self.replication == Replication::Sync
    }

    /// Whether new connections need a standby.
    pub(crate) fn needs_standby(self) -> bool {
        self.without_standby == WithoutStandby::Refuse
    }
}
