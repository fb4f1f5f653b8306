//! `bpf(2)`: maps, programs, links, and maps mapped into this process.

use std::{
    io,
    marker::PhantomData,
    mem::size_of,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64},
};

use crate::sys;

/// Commands of `bpf(2)`.
#[derive(Clone, Copy)]
enum Command {
    MapCreate = 0,
    MapUpdate = 2,
    MapDelete = 3,
    ProgramLoad = 5,
    ProgramTestRun = 10,
    LinkCreate = 28,
}

/// Kinds of maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MapKind {
    Hash = 1,
    Array = 2,
    Ring = 27,
}

const PROGRAM_SCHED_CLS: u32 = 3;
const ATTACH_TCX_INGRESS: u32 = 46;
/// Elements are made when they are needed.
const NO_PREALLOCATION: u32 = 1;
const MAPPABLE: u32 = 1 << 10;
/// Of a program or a map, as `bpftool` shows it.
const NAME: [u8; 16] = *b"outlive\0\0\0\0\0\0\0\0\0";

/// A structure that may be handed to the kernel as the arguments of a command.
///
/// # Safety
/// `repr(C)`, without padding, and its pointers, if any, are valid for what the command does with them.
unsafe trait Arguments {}

fn bpf<T: Arguments>(command: Command, arguments: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: pointer and length describe `arguments`, whose own pointers are valid: see `Arguments`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            std::ptr::from_mut(arguments),
            size_of::<T>(),
        )
    };
    sys::check(result as libc::c_int)
}

/// A new descriptor out of a command.
fn descriptor<T: Arguments>(command: Command, arguments: &mut T) -> io::Result<OwnedFd> {
    let fd = bpf(command, arguments)?;
    // SAFETY: the kernel just created `fd` for us, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[repr(C)]
struct MapCreate {
    kind: u32,
    key_len: u32,
    value_len: u32,
    entries: u32,
    flags: u32,
    inner: u32,
    numa_node: u32,
    name: [u8; 16],
}

// SAFETY: plain numbers without padding.
unsafe impl Arguments for MapCreate {}

/// A map that the program and the process share.
pub(super) fn create_map(
    kind: MapKind,
    key_len: usize,
    value_len: usize,
    entries: u32,
) -> io::Result<OwnedFd> {
    let flags = match kind {
        MapKind::Hash => NO_PREALLOCATION,
        MapKind::Array => MAPPABLE,
        MapKind::Ring => 0,
    };
    let (key_len, value_len) = (key_len as u32, value_len as u32);
    let (inner, numa_node) = (0, 0);
    let mut arguments = MapCreate {
        kind: kind as u32,
        key_len,
        value_len,
        entries,
        flags,
        inner,
        numa_node,
        name: NAME,
    };
    descriptor(Command::MapCreate, &mut arguments)
}

#[repr(C)]
struct Element<'a> {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
    memory: PhantomData<&'a [u8]>,
}

// SAFETY: plain numbers without padding; `element` takes the pointers from slices that live as long.
unsafe impl Arguments for Element<'_> {}

fn element<'a>(map: BorrowedFd<'_>, key: &'a [u8], value: Option<&'a [u8]>) -> Element<'a> {
    Element {
        map: map.as_raw_fd() as u32,
        padding: 0,
        key: key.as_ptr() as u64,
        // What a command does not use must be zero.
        value: value.map_or(0, |value| value.as_ptr() as u64),
        flags: 0,
        memory: PhantomData,
    }
}

/// Enters or replaces an element of a hash. `key` and `value` must have the map's lengths.
pub(super) fn update<const K: usize, const V: usize>(
    map: BorrowedFd<'_>,
    key: &[u8; K],
    value: &[u8; V],
) -> io::Result<()> {
    bpf(Command::MapUpdate, &mut element(map, key, Some(value))).map(drop)
}

/// Removes an element of a hash. An error with the kind `NotFound` if there is none.
pub(super) fn delete<const K: usize>(map: BorrowedFd<'_>, key: &[u8; K]) -> io::Result<()> {
    bpf(Command::MapDelete, &mut element(map, key, None)).map(drop)
}

#[repr(C)]
struct ProgramLoad {
    kind: u32,
    instructions: u32,
    program: u64,
    license: u64,
    log_level: u32,
    log_len: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach: u32,
}

// SAFETY: plain numbers without padding; `load` takes the pointers from what outlives the call.
unsafe impl Arguments for ProgramLoad {}

/// Has the kernel verify and compile a program for packets.
///
/// The error carries what the verifier said, if it said something.
pub(super) fn load(program: &[u8]) -> Result<OwnedFd, (io::Error, String)> {
    const INSTRUCTION_LEN: usize = 8;
    let attempt = |log: &mut [u8]| {
        let mut arguments = ProgramLoad {
            kind: PROGRAM_SCHED_CLS,
            instructions: (program.len() / INSTRUCTION_LEN) as u32,
            program: program.as_ptr() as u64,
            license: c"Dual MIT/GPL".as_ptr() as u64,
            log_level: u32::from(!log.is_empty()),
            log_len: log.len() as u32,
            log: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
            kernel_version: 0,
            flags: 0,
            name: NAME,
            interface: 0,
            attach: ATTACH_TCX_INGRESS,
        };
        descriptor(Command::ProgramLoad, &mut arguments)
    };
    attempt(&mut []).map_err(|error| {
        // Once more, to hear why.
        let mut log = vec![0; 1 << 20];
        let _ = attempt(&mut log);
        let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
        (error, String::from_utf8_lossy(&log[..end]).into_owned())
    })
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    interface: u32,
    attach: u32,
    flags: u32,
    relative: u32,
    padding: u32,
    expected_revision: u64,
}

// SAFETY: plain numbers without padding.
unsafe impl Arguments for LinkCreate {}

/// Lets a program see what arrives on an interface, for as long as the descriptor lives (so not longer than the
/// process). Linux 6.6.
pub(super) fn attach_ingress(program: BorrowedFd<'_>, interface: u32) -> io::Result<OwnedFd> {
    let mut arguments = LinkCreate {
        program: program.as_raw_fd() as u32,
        interface,
        attach: ATTACH_TCX_INGRESS,
        flags: 0,
        relative: 0,
        padding: 0,
        expected_revision: 0,
    };
    descriptor(Command::LinkCreate, &mut arguments)
}

#[repr(C)]
struct TestRun {
    program: u32,
    result: u32,
    len_in: u32,
    len_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_len_in: u32,
    context_len_out: u32,
    context_in: u64,
    context_out: u64,
}

// SAFETY: plain numbers without padding; `test_run` takes the pointers from what outlives the call.
unsafe impl Arguments for TestRun {}

/// Runs a program on a copy of a frame; gives its result and what the copy has become.
pub(super) fn test_run(program: BorrowedFd<'_>, frame: &[u8]) -> io::Result<(u32, Vec<u8>)> {
    let mut out = vec![0; frame.len() + 256];
    let mut arguments = TestRun {
        program: program.as_raw_fd() as u32,
        result: 0,
        len_in: frame.len() as u32,
        len_out: out.len() as u32,
        data_in: frame.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        repeat: 1,
        duration: 0,
        context_len_in: 0,
        context_len_out: 0,
        context_in: 0,
        context_out: 0,
    };
    bpf(Command::ProgramTestRun, &mut arguments)?;
    out.truncate(arguments.len_out as usize);
    Ok((arguments.result, out))
}

/// Memory of a map, mapped into this process: written by the kernel while it is read here, so in atomics only.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory belongs to the mapping alone, and is reached through atomics only.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `len` bytes of a map from `offset` on, which is a multiple of the page size.
    pub(super) fn new(
        map: BorrowedFd<'_>,
        offset: usize,
        len: usize,
        writable: bool,
    ) -> io::Result<Self> {
        let protection = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
        let len = len.next_multiple_of(page_size());
        // SAFETY: a new mapping, wherever the kernel has room, replaces nothing.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                protection,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                offset as libc::off_t,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start =
            NonNull::new(start.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        Ok(Mapping { start, len })
    }

    /// The 32 bits at `offset`. Writes to a mapping that is not writable end the process.
    ///
    /// # Panics
    /// The offset is not a multiple of four, or lies outside.
    pub(super) fn word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.len);
        // SAFETY: inside the mapping, which lives as long as `self`, aligned, and accessed as atomics only.
        unsafe { AtomicU32::from_ptr(self.start.as_ptr().add(offset).cast()) }
    }

    /// The 64 bits at `offset`; likewise.
    ///
    /// # Panics
    /// The offset is not a multiple of eight, or lies outside.
    pub(super) fn double(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.len);
        // SAFETY: as above.
        unsafe { AtomicU64::from_ptr(self.start.as_ptr().add(offset).cast()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` has mapped; nothing borrowed from it is left.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Bytes of a page of memory.
pub(super) fn page_size() -> usize {
    // SAFETY: takes and returns plain integers.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.try_into().unwrap_or(4_096)
}

/// The monotonic clock, in nanoseconds: what the kernel's programs see.
pub(super) fn monotonic_ns() -> u64 {
    // SAFETY: all zeros are a valid `timespec`.
    let mut now: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one `timespec`, of which the pointer is valid.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
