//! An ordinary user becomes the root of namespaces of its own: users, network, mounts.
//!
//! The lab uses this to run without root: inside, network namespaces, links, routes and packet
//! sockets may be made. What belongs to the machine stays closed: `/dev/net/tun` where its
//! mode does not allow the user, `net.core.*` limits, real-time priority.

use std::{
    env,
    ffi::CStr,
    io::{self, Write},
    os::unix::process::CommandExt,
    process::Command,
};

use crate::sys;

const MARK: &str = "OUTLIVE_USER_NAMESPACE";

/// Whether [`reexec`] has started this program.
pub fn is_inside() -> bool {
    env::var_os(MARK).is_some()
}

/// Starts this program again, in this process, with the same arguments, as root of new user,
/// network and mount namespaces.
///
/// Returns only if that failed. Call it first thing in `main`: a process with a second thread
/// cannot enter a user namespace (`EINVAL`). `EPERM` or `ENOSPC` where the machine does not
/// allow user namespaces to this user.
pub fn reexec() -> io::Error {
    let mut arguments = env::args_os();
    let mut command = match env::current_exe() {
        Ok(program) => Command::new(program),
        Err(error) => return error,
    };
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    enclose(command.args(arguments).env(MARK, "1")).exec()
}

/// Makes `command` start as root of new user, network and mount namespaces, which last as long
/// as it and its children.
///
/// The user and group that it would have had are root inside; there are no others. Its loopback
/// interface is down.
pub fn enclose(command: &mut Command) -> &mut Command {
    let enter = || {
        // SAFETY: these take nothing and cannot fail.
        let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
        sys::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET | libc::CLONE_NEWNS)?;
        // user_namespaces(7): without this, an ordinary user may not map groups.
        sys::write_file(c"/proc/self/setgroups", b"deny")?;
        map_root_to(c"/proc/self/uid_map", user)?;
        map_root_to(c"/proc/self/gid_map", group)?;
        // What is mounted inside must not show outside.
        sys::mount(c"none", c"/", None, libc::MS_REC | libc::MS_PRIVATE)
    };
    // SAFETY: the closure runs in the forked child before exec. It makes system calls and
    // formats numbers on its stack: no allocation, no lock; its errors hold an errno.
    unsafe { command.pre_exec(enter) }
}

/// Writes a map of one entry, without allocating: usable between fork and exec.
fn map_root_to(path: &CStr, id: u32) -> io::Result<()> {
    let mut line = [0; 24];
    let mut rest = &mut line[..];
    writeln!(rest, "0 {id} 1")?;
    let unused = rest.len();
    sys::write_file(path, &line[..line.len() - unused])
}
