//! The configuration of an agent: what `docs/host.md` describes, checked.

mod build;
mod file;
#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use outlive_node::settings::{LogFormat, Placed, Problem, source};

/// What an agent is to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file.
    pub file: PathBuf,
    /// Where the nodes of the pair reach the agent.
    pub listen: Placed<SocketAddr>,
    /// The key that the agent shares with them.
    pub key_file: Placed<PathBuf>,
    /// Where they connect from: nobody else is listened to.
    pub nodes: Vec<IpAddr>,
    /// Name of the TUN device.
    pub tun: Placed<String>,
    /// Its MTU, in bytes.
    pub mtu: u16,
    /// The routing table of what replayed servers send.
    pub table: u32,
    /// Whether system settings may be changed.
    pub set_sysctls: bool,
    /// The agent's addresses in the tunnel, at most one of each IP version.
    pub tunnel: Vec<IpAddr>,
    /// The nodes' addresses in the tunnel: packets of others are dropped.
    pub tunnel_nodes: Vec<IpAddr>,
    /// What connections are migrated to.
    pub services: Vec<Service>,
    /// Connections that are prepared or speak, at most.
    pub connections: usize,
    /// How long a prepared connection waits for COMMIT.
    pub patience: Duration,
    /// How long a local server may take to answer a replayed handshake.
    pub open_timeout: Duration,
    /// How long packets of a connection that has ended are still led to it.
    pub linger: Duration,
    /// A connection without a packet of its client for so long is looked at, and given up if the kernel does not have it any more, or if it is
    /// replayed.
    pub idle_timeout: Duration,
    /// Where metrics are asked for.
    pub metrics: Option<Placed<SocketAddr>>,
    /// Where `outlive host --status` asks.
    pub status_socket: PathBuf,
    /// How the log is written.
    pub log: LogFormat,
}

/// A virtual address and port, and what takes its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The virtual address, and the port of the listener at the balancer.
    pub address: SocketAddr,
    /// What takes them.
    pub taker: Taker,
}

/// What takes the connections of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taker {
    /// A server program that listens on this port of the virtual address and knows nothing of it.
    Replay {
        /// Its port.
        port: u16,
    },
    /// A server program that accepts migrated connections on this Unix socket.
    Kernel {
        /// The socket.
        socket: PathBuf,
    },
}

impl Settings {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// All problems that could be found, at least one.
    pub fn load(path: &Path) -> Result<Self, Vec<Problem>> {
        Self::parse(path, &source::read(path)?)
    }

    /// Checks the text of a file. `path` is for messages, and relative paths in the file start at its directory.
    ///
    /// # Errors
    /// All problems that could be found, at least one.
    pub fn parse(path: &Path, source: &str) -> Result<Self, Vec<Problem>> {
        build::settings(path, source)
    }

    /// A problem that only the machine could show.
    pub fn problem(&self, message: impl Into<String>, help: impl Into<String>) -> Problem {
        Problem { file: self.file.clone(), place: None, message: message.into(), help: help.into() }
    }

    /// The virtual addresses, each once, sorted.
    pub fn virtual_addresses(&self) -> Vec<IpAddr> {
        let mut addresses: Vec<IpAddr> = self.services.iter().map(|it| it.address.ip()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// Whether there are addresses of IPv4 (or of IPv6).
    pub fn uses(&self, ipv4: bool) -> bool {
        self.tunnel.iter().any(|address| address.is_ipv4() == ipv4)
    }

    /// Whether connections may outlive the agent.
    pub fn has_kernel_service(&self) -> bool {
        self.services.iter().any(|it| matches!(it.taker, Taker::Kernel { .. }))
    }
}
