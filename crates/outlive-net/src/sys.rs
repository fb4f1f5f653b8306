//! Thin wrappers around system calls: what `libc` declares, with Rust's ownership and errors.
//!
//! Every other module calls these; only where a call is needed in one place does it stand
//! there.

use std::{
    ffi::CStr,
    io,
    mem::{size_of, size_of_val, zeroed},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
};

/// Turns the C convention (-1 and `errno`) into a `Result`.
pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A new socket, closed on exec.
pub(crate) fn socket(
    domain: libc::c_int,
    kind: libc::c_int,
    protocol: libc::c_int,
) -> io::Result<OwnedFd> {
    // SAFETY: takes and returns plain integers.
    let fd = check(unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: the kernel just created `fd` for us, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets a socket option to a plain C structure or integer.
pub(crate) fn set_socket_option<T: Copy>(
    socket: impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: pointer and length describe `value`, which the kernel only reads.
    check(unsafe {
        libc::setsockopt(
            fd,
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    })
    .map(drop)
}

/// Sets a socket option to an array of plain C structures.
pub(crate) fn set_socket_option_slice<T: Copy>(
    socket: impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    values: &[T],
) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    let len = size_of_val(values) as libc::socklen_t;
    // SAFETY: pointer and length describe `values`, which the kernel only reads.
    check(unsafe { libc::setsockopt(fd, level, name, values.as_ptr().cast(), len) }).map(drop)
}

/// A plain C structure or integer that the kernel fills in.
///
/// # Safety
/// Every pattern of bits, all zeros among them, is a valid value.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: an integer.
unsafe impl Plain for u32 {}
// SAFETY: consists of integers.
unsafe impl Plain for [u32; 2] {}
// SAFETY: consists of integers.
unsafe impl Plain for libc::tcp_info {}

/// Reads a socket option. What the kernel does not fill in is zero.
pub(crate) fn socket_option<T: Plain>(
    socket: impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
) -> io::Result<T> {
    // SAFETY: all zeros is a valid value: see `Plain`.
    let mut value: T = unsafe { zeroed() };
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointers describe `value` and its length; the kernel writes at most `len` bytes
    // there, after which the value is still valid: see `Plain`.
    check(unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            std::ptr::from_mut(&mut value).cast(),
            &mut len,
        )
    })?;
    Ok(value)
}

/// A number of bytes that a socket's ioctl (`FIONREAD`, `TIOCOUTQ`, ...) tells.
pub(crate) fn socket_bytes(socket: impl AsFd, request: libc::c_ulong) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: these requests write one int behind the pointer.
    check(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), request as _, &mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Moves the calling thread into the namespace that `namespace` refers to.
///
/// `kind` is one of the `CLONE_NEW*` constants, which the descriptor must match.
pub(crate) fn enter_namespace(namespace: RawFd, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: takes plain integers; a wrong descriptor is an error, not undefined behaviour.
    check(unsafe { libc::setns(namespace, kind) }).map(drop)
}

/// Gives the calling thread namespaces of its own.
pub(crate) fn unshare(kinds: libc::c_int) -> io::Result<()> {
    // SAFETY: takes a plain integer. Only namespaces are unshared, never the descriptor table
    // or the file system attributes that other code of this thread may rely on.
    check(unsafe { libc::unshare(kinds) }).map(drop)
}

/// Sets the signal that the calling process gets when the thread that started it ends.
pub(crate) fn set_death_signal(signal: libc::c_int) -> io::Result<()> {
    // SAFETY: takes plain integers.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong, 0, 0, 0) })
        .map(drop)
}

/// Ignores a signal; a program that this process executes does so, too.
pub(crate) fn ignore_signal(signal: libc::c_int) -> io::Result<()> {
    // SAFETY: ignoring a signal runs no code.
    let before = unsafe { libc::signal(signal, libc::SIG_IGN) };
    if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A program that this process executes has the descriptor, too.
pub(crate) fn keep_on_exec(descriptor: RawFd) -> io::Result<()> {
    // SAFETY: takes plain integers.
    check(unsafe { libc::fcntl(descriptor, libc::F_SETFD, 0) }).map(drop)
}

/// `mount(2)` without data.
pub(crate) fn mount(
    source: &CStr,
    target: &CStr,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
) -> io::Result<()> {
    let kind = kind.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: the strings are NUL-terminated and outlive the call; null is allowed for the
    // type and the data.
    check(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind, flags, std::ptr::null()) })
        .map(drop)
}

/// Detaches what is mounted at `target`.
pub(crate) fn unmount(target: &CStr) -> io::Result<()> {
    // SAFETY: the string is NUL-terminated and outlives the call.
    check(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) }).map(drop)
}

/// Writes `bytes` to an existing file in one call, without allocating: usable between fork and
/// exec.
pub(crate) fn write_file(path: &CStr, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: the path is NUL-terminated and outlives the call.
    let fd = check(unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) })?;
    // SAFETY: the kernel just created `fd` for us, nobody else owns it.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: pointer and length describe `bytes`, which the kernel only reads.
    let written = unsafe { libc::write(file.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    if written < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
