//! `outlive status`: how the running node is.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use outlive_node::{
    admin::{Request, ask},
    settings::{DEFAULT_ADMIN_SOCKET, Settings},
};

pub(crate) fn status(config: Option<PathBuf>, socket: Option<PathBuf>, json: bool) -> ExitCode {
    let socket = match (socket, config) {
        (Some(socket), _) => socket,
        (None, Some(config)) => match Settings::load(&config) {
            Ok(settings) => settings.admin_socket.value,
            Err(problems) => return crate::report(&problems),
        },
        (None, None) => PathBuf::from(DEFAULT_ADMIN_SOCKET),
    };
    tell(&socket, json)
}

fn tell(socket: &Path, json: bool) -> ExitCode {
    match ask(socket, Request::Status) {
        Ok((_, text)) if json => println!("{text}"),
        Ok((report, _)) => println!("{report}"),
        Err(error) => {
            eprintln!("{error} ({})", socket.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
