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

/// How a listener protects its sessions. The default is the strictest that costs no availability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Protection {
    /// Whether sessions wait for the standby.
    pub replication: Replication,
}

impl Protection {
    /// Whether sessions wait for their records.
    pub(crate) fn waits(self) -> bool {
        self.replication == Replication::Sync
    }
}
