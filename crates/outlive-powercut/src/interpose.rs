//! The functions of the C library that this library stands before, and all unsafe code of this crate.

use std::{
    fs::{self, File},
    io,
    mem::ManuallyDrop,
    os::fd::FromRawFd,
    path::PathBuf,
    sync::{Mutex, OnceLock},
};

use libc::{c_int, off_t};

use crate::record::Record;

/// As `fsync(2)`; and what it has made durable is recorded.
#[unsafe(no_mangle)]
extern "C" fn fsync(fd: c_int) -> c_int {
    synchronise(fd, libc::SYS_fsync)
}

/// As `fdatasync(2)`, likewise: the length of a file is part of its data.
#[unsafe(no_mangle)]
extern "C" fn fdatasync(fd: c_int) -> c_int {
    synchronise(fd, libc::SYS_fdatasync)
}

/// As `ftruncate(2)`.
#[unsafe(no_mangle)]
extern "C" fn ftruncate(fd: c_int, len: off_t) -> c_int {
    truncate(fd, len)
}

/// As `ftruncate(2)` with a length of 64 bits, which is what it has where this library is built.
#[unsafe(no_mangle)]
extern "C" fn ftruncate64(fd: c_int, len: off_t) -> c_int {
    truncate(fd, len)
}

/// One at a time: so a record is of one synchronisation. None: the environment asks for nothing.
fn record() -> Option<&'static Mutex<io::Result<Record>>> {
    static RECORD: OnceLock<Option<Mutex<io::Result<Record>>>> = OnceLock::new();
    let made = RECORD.get_or_init(|| {
        let setting = std::env::var("OUTLIVE_POWERCUT").ok()?;
        let delay = std::env::var("OUTLIVE_POWERCUT_DELAY_US").ok();
        Some(Mutex::new(Record::new(&setting, delay.as_deref())))
    });
    made.as_ref()
}

fn synchronise(fd: c_int, call: libc::c_long) -> c_int {
    let Some(record) = record() else { return plain(fd, call) };
    let outcome = (|| {
        let mut record = record.lock().unwrap_or_else(|held| held.into_inner());
        let record = record.as_mut().map_err(|error| io::Error::other(error.to_string()))?;
        let (file, path) = (borrowed(fd), opened_at(fd)?);
        let Some(watched) = record.watched(&file, &path)? else { return Ok(plain(fd, call)) };
        let result = plain(fd, call);
        if result == 0 {
            // By its descriptor: it may have another name by now, or none.
            record.synchronised(&watched, &descriptor(fd), appends(fd))?;
        }
        Ok(result)
    })();
    outcome.unwrap_or_else(|error: io::Error| {
        eprintln!("outlive-powercut: {error}");
        set_errno(libc::EIO);
        -1
    })
}

fn truncate(fd: c_int, len: off_t) -> c_int {
    if let Some(record) = record() {
        let mut record = record.lock().unwrap_or_else(|held| held.into_inner());
        if let Ok(record) = record.as_mut() {
            // What cannot be looked at cannot be truncated either, and the kernel says why.
            let _ = record.truncated(&borrowed(fd));
        }
    }
    // SAFETY: takes plain integers.
    unsafe { libc::syscall(libc::SYS_ftruncate, fd, len) as c_int }
}

/// The system call itself; sets `errno`.
fn plain(fd: c_int, call: libc::c_long) -> c_int {
    // SAFETY: both calls take a plain integer.
    unsafe { libc::syscall(call, fd) as c_int }
}

/// The caller's file, to be looked at only: it is not closed here.
fn borrowed(fd: c_int) -> ManuallyDrop<File> {
    // SAFETY: whoever calls `fsync` promises an open descriptor, and keeps it open for as long as the call lasts; if not,
    // system calls on it fail. It is never dropped here, so never closed.
    ManuallyDrop::new(unsafe { File::from_raw_fd(fd) })
}

fn descriptor(fd: c_int) -> PathBuf {
    format!("/proc/self/fd/{fd}").into()
}

fn opened_at(fd: c_int) -> io::Result<PathBuf> {
    fs::read_link(descriptor(fd))
}

fn appends(fd: c_int) -> bool {
    // SAFETY: takes plain integers.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    flags >= 0 && flags & libc::O_APPEND != 0
}

fn set_errno(value: c_int) {
    // SAFETY: the C library gives a valid pointer to the calling thread's own `errno`.
    unsafe { *libc::__errno_location() = value };
}
