//! `outlive hold`: what a node starts beside itself. It keeps the established sessions in the kernel going for the moment
//! until the peer has noticed that the node was killed.

use std::{
    process::{self, ExitCode},
    time::Duration,
};

use outlive_net::keeper;

/// The present program, also if its file has been replaced meanwhile.
const PRESENT: &str = "/proc/self/exe";

/// This command, to be run for `time` after the node has gone.
pub(crate) fn command(time: Duration) -> process::Command {
    let mut command = process::Command::new(PRESENT);
    command.arg("hold").arg(time.as_micros().to_string());
    command
}

pub(crate) fn hold(microseconds: u64) -> ExitCode {
    match keeper::keep(Duration::from_micros(microseconds)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("there is no node for which anything could be held: {error}");
            ExitCode::FAILURE
        }
    }
}
