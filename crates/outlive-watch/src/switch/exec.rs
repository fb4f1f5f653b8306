//! The driver for everything else: a command, which is told what has happened in its arguments.

use std::{
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};

use super::{Redirection, SwitchError};
use crate::decide::name;

/// The pause between two looks at a command that runs: the first and the longest.
const FIRST_LOOK: Duration = Duration::from_micros(500);
const LAST_LOOK: Duration = Duration::from_millis(20);

/// A command.
#[derive(Clone, Debug)]
pub struct ExecSwitch {
    /// The program and its first arguments; not empty.
    command: Vec<String>,
    limit: Duration,
}

impl ExecSwitch {
    /// `command`: the program and its first arguments. Behind these it gets the event, `redirect`, the node that the
    /// packets are to be led to, `a` or `b`, the other one, and the highest epoch that was seen. It has succeeded if it
    /// ends with status 0 within `limit`.
    pub fn new(command: Vec<String>, limit: Duration) -> Self {
        ExecSwitch { command, limit }
    }

    pub(super) fn redirect(&self, redirection: &Redirection) -> Result<(), SwitchError> {
        let Some((program, first)) = self.command.split_first() else { return Ok(()) };
        let (to, other) = (name(redirection.to), name(redirection.to.other()));
        let failed = |error| SwitchError::Command { command: program.clone(), error };
        let mut child = Command::new(program)
            .args(first)
            .args(["redirect".to_owned(), to.to_string(), other.to_string()])
            .arg(redirection.epoch.to_string())
            .stdin(Stdio::null())
            // A group of its own, so that what it started ends with it.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        match wait(&mut child, self.limit).map_err(failed)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(SwitchError::Failed { command: program.clone(), status }),
            None => Err(SwitchError::TooLong { command: program.clone(), limit: self.limit }),
        }
    }
}

/// How it ended; `None`: it did not within `limit`, and was killed with its children.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    let mut pause = FIRST_LOOK;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let left = limit.saturating_sub(start.elapsed());
        if left.is_zero() {
            break;
        }
        thread::sleep(pause.min(left));
        pause = (pause * 2).min(LAST_LOOK);
    }
    if let Some(group) = Pid::from_raw(child.id() as i32) {
        // It has not been waited for, so the number is still its own.
        let _ = kill_process_group(group, Signal::KILL);
    }
    child.wait()?;
    Ok(None)
}
