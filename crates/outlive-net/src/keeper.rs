//! A program that holds descriptors for a moment longer than the process that started it.
//!
//! What the kernel does for a process ends with its last descriptor: a TUN device goes, a program at an
//! interface is detached. A [`Keeper`] has copies of such descriptors. It does nothing with them; it learns from a
//! pipe that its starter is gone, waits, and ends. So what the starter had set up goes on for a time that was fixed
//! beforehand, also after `SIGKILL`, and then vanishes as it would have done at once.

use std::{
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, RawFd},
        unix::process::CommandExt,
    },
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use crate::sys;

/// What would end a keeper together with its starter: a service manager, or a terminal, means the whole group.
const IGNORED: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// The running program. Dropping it ends it, so that nothing is held any longer.
#[derive(Debug)]
pub struct Keeper {
    child: Child,
}

impl Keeper {
    /// Starts `command`, which must come to [`keep`], with copies of `held`. It has no terminal and no output: who reads what
    /// the starter says sees the end of it when the starter ends.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(command: &mut Command, held: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let held: Vec<RawFd> = held.iter().map(AsRawFd::as_raw_fd).collect();
        let prepare = move || {
            IGNORED.iter().try_for_each(|signal| sys::ignore_signal(*signal))?;
            held.iter().try_for_each(|descriptor| sys::keep_on_exec(*descriptor))
        };
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        // SAFETY: the closure runs in the forked child before exec. It only makes system calls: no allocation, no
        // lock. The descriptors are open: they are borrowed from the caller until the child has been started.
        unsafe { command.pre_exec(prepare) };
        Ok(Keeper { child: command.spawn()? })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a keeper does: waits until its starter is gone, and `time` longer.
///
/// # Errors
/// Standard input is not the starter's pipe.
pub fn keep(time: Duration) -> io::Result<()> {
    io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    thread::sleep(time);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{ErrorKind, Read},
        os::{fd::AsFd, unix::net::UnixStream},
    };

    use super::*;

    #[test]
    fn what_a_keeper_holds_stays_open_until_it_is_dropped() {
        let (mut mine, held) = UnixStream::pair().unwrap();
        mine.set_nonblocking(true).unwrap();
        // It waits for the end of standard input.
        let keeper = Keeper::start(&mut Command::new("cat"), &[held.as_fd()]).unwrap();
        drop(held);
        let mut end = [0];
        assert_eq!(mine.read(&mut end).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(keeper);
        assert_eq!(mine.read(&mut end).unwrap(), 0);
    }

    #[test]
    fn a_keeper_ends_when_its_starter_is_gone_and_is_deaf_to_what_ends_others() {
        let (mut mine, held) = UnixStream::pair().unwrap();
        let mut keeper = Keeper::start(&mut Command::new("cat"), &[held.as_fd()]).unwrap();
        drop(held);
        let id = keeper.child.id().to_string();
        assert!(Command::new("kill").args(["-s", "TERM", &id]).status().unwrap().success());
        assert!(keeper.child.try_wait().unwrap().is_none());
        // As the starter's death closes it.
        drop(keeper.child.stdin.take());
        assert_eq!(mine.read(&mut [0]).unwrap(), 0);
        assert!(keeper.child.wait().unwrap().success());
    }
}
