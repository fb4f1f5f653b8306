//! `outlive handover`: everything moves to the standby, and nobody notices.

use std::{
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use outlive_node::admin::{Request, ask, order};

use crate::which::Which;

/// A handover that works takes a fraction of a second; one that does not is given up by the node within a few.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

pub(crate) fn hand_over(which: Which) -> ExitCode {
    let socket = match which.socket() {
        Ok(socket) => socket,
        Err(status) => return status,
    };
    match order(&socket, &Request::HandOver) {
        Ok(_) => await_end(&socket),
        Err(error) => {
            eprintln!("{error} ({})", socket.display());
            ExitCode::FAILURE
        }
    }
}

fn await_end(socket: &Path) -> ExitCode {
    let start = Instant::now();
    loop {
        match ask(socket) {
            Ok((report, _)) if report.role != "active" => {
                println!(
                    "Node {} has handed over: its peer is active in epoch {}.",
                    report.node, report.epoch
                );
                return ExitCode::SUCCESS;
            }
            Ok((report, _)) if report.handover == "none" => {
                eprintln!("the standby was lost before it took over: this node goes on serving");
                return ExitCode::FAILURE;
            }
            Err(error) => {
                eprintln!("{error} ({})", socket.display());
                return ExitCode::FAILURE;
            }
            Ok(_) if start.elapsed() > PATIENCE => {
                eprintln!("the handover has not ended yet; `outlive status` tells how it goes on");
                return ExitCode::FAILURE;
            }
            Ok(_) => thread::sleep(PAUSE),
        }
    }
}
