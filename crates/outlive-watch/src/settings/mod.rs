//! The configuration of a detector: a TOML file, parsed and checked. `docs/external-detector.md` documents every key.

mod build;
mod file;
#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use outlive_node::settings::{LogFormat, Placed, Problem, source};

use crate::{check::CheckConfig, decide::Rules};

/// Everything that the configuration file says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file itself, for messages.
    pub file: PathBuf,
    /// The file with the watch key.
    pub key_file: Placed<PathBuf>,
    /// How it is decided.
    pub rules: Rules,
    /// Where node a and node b are asked; each at least at one address.
    pub nodes: [Vec<SocketAddr>; 2],
    /// Connections through the virtual address.
    pub check: Option<CheckConfig>,
    /// What redirects packets, in this order. Without any, the nodes themselves do it (by their announcements).
    pub switches: Vec<SwitchSettings>,
    /// How the log is written.
    pub log: LogFormat,
}

/// Something that redirects packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwitchSettings {
    /// Routes of this machine.
    Route {
        /// What is led to the active node.
        destinations: Vec<IpNet>,
        /// The addresses of node a and node b at which this machine reaches them; at most one per IP version.
        via: [Vec<IpAddr>; 2],
        /// The routing table.
        table: u32,
        /// The routes' metric; 0: the kernel's default.
        metric: u32,
    },
    /// A command.
    Exec {
        /// The program and its first arguments.
        command: Vec<String>,
        /// How long it may take.
        timeout: Duration,
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
    /// All problems that could be found, at least one. A file that is not TOML, or has an unknown, missing or mistyped
    /// key, ends at the first.
    pub fn parse(path: &Path, source: &str) -> Result<Self, Vec<Problem>> {
        build::settings(path, source)
    }
}
