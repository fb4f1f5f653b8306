//! What a stack is told to do.

use std::time::Duration;

use outlive_proxy::config::{NodeId, PairConfig};
use outlive_tcp::endpoint;

/// Settings of a stack. Both nodes of a pair should have the same, but for the node's name.
#[derive(Clone, Debug)]
pub struct StackConfig {
    /// Which of the two nodes this is. Alone it does not matter.
    pub node: NodeId,
    /// How the two nodes watch each other; [`PairConfig::alone`] without a peer.
    pub pair: PairConfig,
    /// Settings of each connection. When bytes are acknowledged is not among them: that is the
    /// program's, so [`acknowledge`](endpoint::Config::acknowledge) does not count here.
    pub tcp: endpoint::Config,
    /// Connections there may be, those that are being opened included.
    pub connections: usize,
    /// Bytes of a program's state for one connection.
    pub state_limit: usize,
    /// How long bytes that have come may be without an acknowledgment of the program before the
    /// connection is reset. A client's own patience is some minutes; without a limit a program that
    /// has forgotten a connection keeps it for as long as the client does.
    pub commit_timeout: Option<Duration>,
}

impl Default for StackConfig {
    fn default() -> Self {
        StackConfig {
            node: NodeId::A,
            pair: PairConfig::alone(),
            tcp: endpoint::Config::default(),
            connections: 100_000,
            state_limit: 64 << 10,
            commit_timeout: None,
        }
    }
}

/// How many connections wait for a listener's program: the default for
/// [`Stack::listen`](crate::Stack::listen).
pub const DEFAULT_BACKLOG: usize = 1_024;
