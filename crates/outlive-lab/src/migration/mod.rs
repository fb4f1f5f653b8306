//! A pair that hands connections to targets: the machines, their programs, and clients that ask for content which can be checked.
//!
//! | module | is |
//! |---|---|
//! | `site` | a pair, its targets, a client; which ports lead where |
//! | `target` | a target's machine with its agent and a server |
//! | `origin` | a server that accepts migrated connections |
//! | `asking` | clients, each of which asks once |
//! | `content` | what is asked for |

pub(crate) mod asking;
pub(crate) mod content;
pub(crate) mod origin;
pub(crate) mod site;
pub(crate) mod target;

use clap::ValueEnum;

use self::target::ServerKind;

/// Bytes that a client can ask for, at most.
pub const LONGEST_RESPONSE: usize = content::LONGEST;

/// What becomes of a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MigrationMode {
    /// It goes on in the kernel of a target, whose server accepts it.
    Kernel,
    /// It goes on at a target before nginx, which knows nothing of it.
    Replay,
    /// It stays: the node translates.
    Splice,
}

/// What is harmed while connections are migrated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Victim {
    /// The active node's program.
    Balancer,
    /// The agent on a target.
    Agent,
    /// A target's whole machine.
    Machine,
}

impl MigrationMode {
    /// Whose servers are asked.
    pub(crate) fn server(self) -> ServerKind {
        match self {
            Self::Kernel | Self::Splice => ServerKind::Origin,
            Self::Replay => ServerKind::Nginx,
        }
    }

    /// As the command names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Replay => "replay",
            Self::Splice => "splice",
        }
    }
}
