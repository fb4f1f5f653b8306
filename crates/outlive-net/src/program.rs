//! Programs that must not outlive the one that started them.

use std::{os::unix::process::CommandExt, process::Command};

use crate::sys;

/// Makes the kernel kill the program that `command` starts (`SIGKILL`) as soon as the *thread*
/// that starts it is gone: also when this process is killed itself and can clean up nothing.
pub fn end_with_starter(command: &mut Command) -> &mut Command {
    // SAFETY: the closure runs in the forked child before exec. It only makes a system call: no
    // allocation, no lock. The error it may return holds an errno, no memory.
    unsafe { command.pre_exec(|| sys::set_death_signal(libc::SIGKILL)) }
}
