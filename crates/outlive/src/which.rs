//! Which running node a command is for.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use outlive_node::settings::{DEFAULT_ADMIN_SOCKET, Settings};

#[derive(Args)]
pub(crate) struct Which {
    /// The configuration file of the node, for the path of its admin socket.
    #[arg(short, long, value_name = "FILE", conflicts_with = "socket")]
    config: Option<PathBuf>,
    /// The admin socket of the node.
    #[arg(short, long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl Which {
    /// The admin socket; or the exit status, if the configuration does not tell.
    pub(crate) fn socket(self) -> Result<PathBuf, ExitCode> {
        match (self.socket, self.config) {
            (Some(socket), _) => Ok(socket),
            (None, Some(config)) => match Settings::load(&config) {
                Ok(settings) => Ok(settings.admin_socket.value),
                Err(problems) => Err(crate::report(&problems)),
            },
            (None, None) => Ok(PathBuf::from(DEFAULT_ADMIN_SOCKET)),
        }
    }
}
