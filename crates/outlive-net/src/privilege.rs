//! What this process may do: what the edge needs and does not have, in words, and the two
//! privileges that only make things better, real-time priority and locked memory.

use std::fs;

use crate::{
    Errno, sys,
    tun::{self, TunError},
};

const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;

/// Something that the edge cannot do without.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// Devices, addresses and routes cannot be changed.
    #[error("CAP_NET_ADMIN is missing: needed for the TUN device and its routes")]
    NetAdmin,
    /// Packet sockets cannot be opened.
    #[error("CAP_NET_RAW is missing: needed to answer ARP and neighbour solicitations")]
    NetRaw,
    /// The TUN driver cannot be opened.
    #[error(transparent)]
    Tun(TunError),
}

/// What is missing; empty if all is there. Nothing is changed by asking.
pub fn missing() -> Vec<Missing> {
    let effective = effective_capabilities();
    let lacks = |capability: u32| effective & (1 << capability) == 0;
    let mut missing = Vec::new();
    missing.extend(lacks(CAP_NET_ADMIN).then_some(Missing::NetAdmin));
    missing.extend(lacks(CAP_NET_RAW).then_some(Missing::NetRaw));
    missing.extend(tun::check_driver().err().map(Missing::Tun));
    missing
}

/// Why real-time priority or locked memory was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `CAP_SYS_NICE` (or a resource limit, `RLIMIT_RTPRIO`) is missing.
    #[error("real-time priority needs CAP_SYS_NICE or a higher RLIMIT_RTPRIO")]
    MayNotRaisePriority,
    /// The priority is not between 1 and 99.
    #[error("{0} is not a real-time priority: 1 to 99")]
    NoSuchPriority(u8),
    /// `CAP_IPC_LOCK` (or a resource limit, `RLIMIT_MEMLOCK`) is missing.
    #[error("locking memory needs CAP_IPC_LOCK or a higher RLIMIT_MEMLOCK")]
    MayNotLock,
    /// Something else.
    #[error(transparent)]
    Other(Errno),
}

/// Gives the calling thread real-time priority (`SCHED_FIFO`), 1 to 99.
///
/// Threads and programs that it starts do not inherit it. A thread of this kind that never
/// waits starves all others of its core.
pub fn set_realtime(priority: u8) -> Result<(), Refusal> {
    let parameter = libc::sched_param { sched_priority: priority.into() };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the pointer is to a structure that outlives the call; 0 is the calling thread.
    sys::check(unsafe { libc::sched_setscheduler(0, policy, &parameter) }).map_err(|error| {
        match Errno::of(&error) {
            Errno(libc::EPERM) => Refusal::MayNotRaisePriority,
            Errno(libc::EINVAL) => Refusal::NoSuchPriority(priority),
            other => Refusal::Other(other),
        }
    })?;
    Ok(())
}

/// Keeps this process's pages in memory, from each page's first use on, so that no packet
/// waits for a disk.
pub fn lock_memory() -> Result<(), Refusal> {
    let flags = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
    // SAFETY: takes a plain integer.
    sys::check(unsafe { libc::mlockall(flags) }).map_err(|error| match Errno::of(&error) {
        Errno(libc::EPERM | libc::ENOMEM | libc::EAGAIN) => Refusal::MayNotLock,
        other => Refusal::Other(other),
    })?;
    Ok(())
}

/// The effective capabilities of the calling thread, one bit each; none if `/proc` is not
/// there to ask.
fn effective_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    parse_effective(&status).unwrap_or(0)
}

fn parse_effective(status: &str) -> Option<u64> {
    let digits = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(digits.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_status() {
        let status = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t0000000000003000\n";
        assert_eq!(parse_effective(status), Some(1 << CAP_NET_ADMIN | 1 << CAP_NET_RAW));
        assert_eq!(parse_effective("Name:\tx\n"), None);
        assert_eq!(parse_effective("CapEff:\tzz\n"), None);
    }

    #[test]
    fn priorities_out_of_range_are_told_from_missing_privilege() {
        for priority in [0, 100] {
            assert_eq!(set_realtime(priority), Err(Refusal::NoSuchPriority(priority)));
        }
    }
}
