//! `outlive reload`: a changed file, obeyed by both nodes.

use std::{
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use outlive_node::admin::{Request, ask, order};

use crate::which::Which;

/// The peer reads its file within milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);

pub(crate) fn reload(which: Which) -> ExitCode {
    let socket = match which.socket() {
        Ok(socket) => socket,
        Err(status) => return status,
    };
    match order(&socket, &Request::Reload) {
        Ok(changes) => {
            println!("This node: {changes}.");
            tell_of_peer(&socket)
        }
        Err(error) => {
            eprintln!("{error} ({})", socket.display());
            ExitCode::FAILURE
        }
    }
}

fn tell_of_peer(socket: &Path) -> ExitCode {
    let start = Instant::now();
    loop {
        let same = match ask(socket) {
            Ok((report, _)) if report.peer.is_none() => return ExitCode::SUCCESS,
            Ok((report, _)) => report.same_configuration,
            Err(error) => {
                eprintln!("{error} ({})", socket.display());
                return ExitCode::FAILURE;
            }
        };
        match same {
            Some(true) => {
                println!("The peer has the same configuration.");
                return ExitCode::SUCCESS;
            }
            _ if start.elapsed() < PATIENCE => thread::sleep(PAUSE),
            Some(false) => {
                eprintln!(
                    "The peer has another one: change its file, too, and run `outlive reload` there."
                );
                return ExitCode::FAILURE;
            }
            None => {
                eprintln!("The peer is not connected: it will compare its own when it comes back.");
                return ExitCode::SUCCESS;
            }
        }
    }
}
