//! `outlive status`: how the running node is.

use std::{path::Path, process::ExitCode};

use outlive_node::admin::ask;

use crate::which::Which;

pub(crate) fn status(which: Which, json: bool) -> ExitCode {
    which.socket().map_or_else(|status| status, |socket| tell(&socket, json))
}

fn tell(socket: &Path, json: bool) -> ExitCode {
    match ask(socket) {
        Ok((_, text)) if json => println!("{text}"),
        Ok((report, _)) => println!("{report}"),
        Err(error) => {
            eprintln!("{error} ({})", socket.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
