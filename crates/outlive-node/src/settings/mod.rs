//! The configuration of a node: a TOML file, parsed and checked into [`Settings`].
//!
//! | part | is |
//! |---|---|
//! | `file` | the tables and keys as they are written |
//! | `values` | addresses, times and the like from text |
//! | `build` | from the one to the other, with everything that contradicts itself |
//! | `change` | what of a changed file a running node can obey |
//! | [`source`] | from a file to what it describes: shared with the detector and the agent |
//! | [`Problem`] | what is wrong, where, and what to do about it |
//!
//! Nothing here looks at the machine: whether interfaces exist and keys can be read is
//! [`preflight`](crate::preflight)'s question. So a file can be checked anywhere.

mod build;
mod change;
mod file;
mod problem;
pub mod source;
#[cfg(test)]
mod tests;
pub mod values;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

pub use problem::{Place, Problem, Problems};

/// Where the admin socket is unless the file says otherwise.
pub const DEFAULT_ADMIN_SOCKET: &str = "/run/outlive/admin.sock";
/// What the TUN device is called unless the file says otherwise.
pub const DEFAULT_TUN: &str = "outlive0";

/// How many established sessions are left to the kernel unless the file says otherwise.
pub const DEFAULT_FAST_PATH: u32 = 65_536;

/// Everything that the configuration file says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file itself, for messages.
    pub file: PathBuf,
    /// What the core is told: listeners, pools, times, limits. Its MTU is that of the file, or
    /// [`DEFAULT_MTU`](Self::DEFAULT_MTU): see [`mtu`](Self::mtu).
    pub proxy: outlive_proxy::config::Config,
    /// MTU of the TUN device in bytes; `None`: the smallest of the interfaces' ones.
    pub mtu: Option<u16>,
    /// Interfaces on which virtual addresses are answered for; at least one.
    pub interfaces: Vec<Placed<String>>,
    /// How packets for the virtual addresses find the active node.
    pub edge: EdgeKind,
    /// Name of the TUN device.
    pub tun: Placed<String>,
    /// Whether system settings that are wrong may be changed.
    pub set_sysctls: bool,
    /// Established sessions that may be left to the kernel; zero: none.
    pub fast_path: u32,
    /// Path of the admin socket.
    pub admin_socket: Placed<PathBuf>,
    /// How the log is written.
    pub log: LogFormat,
    /// Whether each connection that ends gets a line in it.
    pub log_connections: bool,
    /// The other node, if there is one.
    pub peer: Option<PeerSettings>,
    /// Where an external detector may ask, and give its orders; empty if there is none.
    pub watch: Vec<Placed<SocketAddr>>,
    /// Where metrics may be asked for.
    pub metrics: Option<Placed<SocketAddr>>,
    /// Migration targets.
    pub targets: Vec<TargetSettings>,
    /// The pair's key, from which those of the targets are derived; needed if there are any.
    pub target_key_file: Option<Placed<PathBuf>>,
}

/// How packets for the virtual addresses find the active node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EdgeKind {
    /// Both nodes are on the addresses' segment: the active one answers ARP and neighbour solicitations, and
    /// announces itself.
    Neighbours,
    /// Routers lead the addresses to the active node's own address; somebody tells them.
    Routed,
}

/// How the other node is reached.
#[derive(Clone, Debug)]
pub struct PeerSettings {
    /// The state connection: our listening address, and the peer's.
    pub state: PathSettings,
    /// One for each way to the peer; at least one. Order is the path's number.
    pub heartbeat: Vec<PathSettings>,
    /// The file with the key that both nodes share.
    pub key_file: Placed<PathBuf>,
}

/// A machine that connections can be migrated to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetSettings {
    /// What its key was made for.
    pub name: String,
    /// Where its agent listens.
    pub control: SocketAddr,
}

/// A way between the nodes.
#[derive(Clone, Debug)]
pub struct PathSettings {
    /// This node's end.
    pub local: Placed<SocketAddr>,
    /// The peer's end.
    pub peer: SocketAddr,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// A value, and where it stands in the file.
#[derive(Clone, Debug)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// `None`: a default.
    pub place: Option<Place>,
}

impl Settings {
    /// The MTU of Ethernet.
    pub const DEFAULT_MTU: u16 = 1500;

    /// Reads and checks a file.
    ///
    /// # Errors
    /// All problems that could be found, at least one.
    pub fn load(path: &Path) -> Result<Self, Vec<Problem>> {
        Self::parse(path, &source::read(path)?)
    }

    /// Checks the text of a file. `path` is for messages, and relative paths in the file start
    /// at its directory.
    ///
    /// # Errors
    /// All problems that could be found, at least one. A file that is not TOML, or has an
    /// unknown, missing or mistyped key, ends at the first.
    pub fn parse(path: &Path, source: &str) -> Result<Self, Vec<Problem>> {
        build::settings(path, source)
    }

    /// A problem with a value of this configuration that only the machine could show.
    pub fn problem<T>(
        &self,
        with: &Placed<T>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Problem {
        Problem {
            file: self.file.clone(),
            place: with.place.clone(),
            message: message.into(),
            help: help.into(),
        }
    }
}
