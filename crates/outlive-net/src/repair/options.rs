//! The socket options of repair mode, with their structures (`linux/tcp.h`).

use std::{io, os::fd::AsFd};

use super::Scales;
use crate::sys::{self, Plain};

/// Leaves without a window probe.
const OFF_SILENTLY: libc::c_int = -1;
const ON: libc::c_int = 1;

const TCP_STATE_ESTABLISHED: u8 = 1;
const INFO_TIMESTAMPS: u8 = 1;
const INFO_SACK: u8 = 2;
const INFO_WINDOW_SCALE: u8 = 4;

const OPTION_MSS: u32 = 2;
const OPTION_WINDOW_SCALE: u32 = 3;
const OPTION_SACK_PERMITTED: u32 = 4;
const OPTION_TIMESTAMPS: u32 = 8;

/// Which queue [`select_queue`] means.
#[derive(Clone, Copy)]
pub(super) enum Queue {
    None = 0,
    Receive = 1,
    Send = 2,
}

/// `struct tcp_repair_window`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Windows {
    pub(super) snd_wl1: u32,
    pub(super) snd_wnd: u32,
    pub(super) max_window: u32,
    pub(super) rcv_wnd: u32,
    pub(super) rcv_wup: u32,
}

// SAFETY: five integers without padding.
unsafe impl Plain for Windows {}

/// `struct tcp_repair_opt`.
#[repr(C)]
#[derive(Clone, Copy)]
struct RepairOption {
    code: u32,
    value: u32,
}

/// What `TCP_INFO` says of a connection that repair mode does not.
pub(super) struct Negotiated {
    pub(super) is_established: bool,
    pub(super) scales: Option<Scales>,
    pub(super) sack: bool,
    pub(super) timestamps: bool,
}

pub(super) fn enter(socket: impl AsFd) -> io::Result<()> {
    set(socket, libc::TCP_REPAIR, &ON)
}

pub(super) fn leave_silently(socket: impl AsFd) -> io::Result<()> {
    set(socket, libc::TCP_REPAIR, &OFF_SILENTLY)
}

pub(super) fn select_queue(socket: impl AsFd, queue: Queue) -> io::Result<()> {
    set(socket, libc::TCP_REPAIR_QUEUE, &(queue as libc::c_int))
}

/// Of the selected queue: where the next byte goes.
pub(super) fn sequence(socket: impl AsFd) -> io::Result<u32> {
    get(socket, libc::TCP_QUEUE_SEQ)
}

pub(super) fn set_sequence(socket: impl AsFd, sequence: u32) -> io::Result<()> {
    set(socket, libc::TCP_QUEUE_SEQ, &sequence)
}

pub(super) fn windows(socket: impl AsFd) -> io::Result<Windows> {
    get(socket, libc::TCP_REPAIR_WINDOW)
}

pub(super) fn set_windows(socket: impl AsFd, windows: &Windows) -> io::Result<()> {
    set(socket, libc::TCP_REPAIR_WINDOW, windows)
}

/// The TSval that would be sent now.
pub(super) fn timestamp(socket: impl AsFd) -> io::Result<u32> {
    get(socket, libc::TCP_TIMESTAMP)
}

/// Sets the TSval to be sent now: `value`, or the next even number. Odd ones would switch the
/// connection to timestamps in microseconds (Linux 6.7).
pub(super) fn set_timestamp(socket: impl AsFd, value: u32) -> io::Result<()> {
    set(socket, libc::TCP_TIMESTAMP, &even(value))
}

fn even(value: u32) -> u32 {
    value.wrapping_add(value & 1)
}

/// In repair mode: what the other end announced.
pub(super) fn maximum_segment_size(socket: impl AsFd) -> io::Result<u32> {
    get(socket, libc::TCP_MAXSEG)
}

pub(super) fn negotiated(socket: impl AsFd) -> io::Result<Negotiated> {
    let info: libc::tcp_info = get(socket, libc::TCP_INFO)?;
    let has = |bit: u8| info.tcpi_options & bit != 0;
    let scales = info.tcpi_snd_rcv_wscale;
    let (low, high) = (scales & 0xf, scales >> 4);
    // A C bit-field: which half comes first follows the byte order.
    let (send, receive) = if cfg!(target_endian = "little") { (low, high) } else { (high, low) };
    Ok(Negotiated {
        is_established: info.tcpi_state == TCP_STATE_ESTABLISHED,
        scales: has(INFO_WINDOW_SCALE).then_some(Scales { send, receive }),
        sack: has(INFO_SACK),
        timestamps: has(INFO_TIMESTAMPS),
    })
}

/// Sets what was negotiated. Without window scales they are set to zero rather than left alone: the
/// kernel has chosen one for its own windows while connecting.
pub(super) fn set_negotiated(
    socket: impl AsFd,
    mss: u16,
    scales: Option<Scales>,
    sack: bool,
    timestamps: bool,
) -> io::Result<()> {
    let scales = scales.unwrap_or(Scales { send: 0, receive: 0 });
    let scales = u32::from(scales.send) | u32::from(scales.receive) << 16;
    let option = |code, value| RepairOption { code, value };
    let mut options = vec![option(OPTION_MSS, mss.into()), option(OPTION_WINDOW_SCALE, scales)];
    if sack {
        options.push(option(OPTION_SACK_PERMITTED, 0));
    }
    if timestamps {
        options.push(option(OPTION_TIMESTAMPS, 0));
    }
    sys::set_socket_option_slice(socket, libc::IPPROTO_TCP, libc::TCP_REPAIR_OPTIONS, &options)
}

/// Bytes written that are not acknowledged, and how many of them were never sent.
pub(super) fn unacknowledged_and_unsent(socket: impl AsFd) -> io::Result<(usize, usize)> {
    let socket = socket.as_fd();
    Ok((sys::socket_bytes(socket, libc::TIOCOUTQ)?, sys::socket_bytes(socket, SIOCOUTQNSD)?))
}

/// Bytes that wait to be read.
pub(super) fn unread(socket: impl AsFd) -> io::Result<usize> {
    sys::socket_bytes(socket, libc::FIONREAD)
}

/// `linux/sockios.h`.
const SIOCOUTQNSD: libc::c_ulong = 0x894b;

fn set<T: Copy>(socket: impl AsFd, name: libc::c_int, value: &T) -> io::Result<()> {
    sys::set_socket_option(socket, libc::IPPROTO_TCP, name, value)
}

fn get<T: Plain>(socket: impl AsFd, name: libc::c_int) -> io::Result<T> {
    sys::socket_option(socket, libc::IPPROTO_TCP, name)
}

#[cfg(test)]
mod tests {
    use super::even;

    #[test]
    fn timestamps_never_go_back() {
        assert_eq!(even(6), 6);
        assert_eq!(even(7), 8);
        assert_eq!(even(u32::MAX), 0);
    }
}
