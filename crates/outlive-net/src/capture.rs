//! What passes an interface, both ways, with the time at which the kernel saw it (packet(7)): for tests that hold one
//! event against another.

use std::{
    io,
    mem::{size_of, zeroed},
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use crate::{arrival, netlink::LinkIndex, sys};

/// Room for frames that nobody has taken yet.
const QUEUE_BYTES: libc::c_int = 32 << 20;

/// A listener at one interface of the network namespace that it was opened in.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
}

/// A frame that was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Bytes of the buffer that it fills, from the Ethernet header on; what was too long is cut off.
    pub len: usize,
    /// When it passed, since 1970 by the wall clock.
    pub at: Duration,
}

impl Capture {
    /// Begins to listen. [`receive`](Self::receive) waits for at most `patience`.
    ///
    /// # Errors
    /// Those of `socket(2)`, among them `PermissionDenied` without `CAP_NET_RAW`.
    pub fn open(link: LinkIndex, patience: Duration) -> io::Result<Capture> {
        // With protocol 0 nothing is received before the interface is set.
        let socket = sys::socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
        arrival::enable(&socket)?;
        let wait = libc::timeval {
            tv_sec: patience.as_secs() as libc::time_t,
            tv_usec: libc::suseconds_t::from(patience.subsec_micros()),
        };
        sys::set_socket_option(&socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &wait)?;
        // Beyond the system's limit where that is allowed; otherwise what the limit leaves.
        let force = libc::SO_RCVBUFFORCE;
        sys::set_socket_option(&socket, libc::SOL_SOCKET, force, &QUEUE_BYTES).or_else(|_| {
            sys::set_socket_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, &QUEUE_BYTES)
        })?;
        // SAFETY: `sockaddr_ll` is plain data for which all zeros is valid.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as libc::c_ushort;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = link.0 as libc::c_int;
        let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: pointer and length describe `address`, which the kernel only reads.
        sys::check(unsafe {
            libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), len)
        })?;
        Ok(Capture { socket })
    }

    /// The next frame. `None`: none came in time.
    ///
    /// # Errors
    /// Those of `recvmsg(2)`; the interface may be gone or down. `InvalidData` if the kernel did not note the time,
    /// as with the first frames after the listener was opened.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Captured>> {
        match arrival::receive_stamped(&self.socket, buffer) {
            Ok((len, _, Some(at))) => Ok(Some(Captured { len, at })),
            Ok(_) => Err(io::ErrorKind::InvalidData.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Frames that there was no room for since this was asked last.
    ///
    /// # Errors
    /// Those of `getsockopt(2)`.
    pub fn missed(&self) -> io::Result<u32> {
        let [_, missed]: [u32; 2] =
            sys::socket_option(&self.socket, libc::SOL_PACKET, libc::PACKET_STATISTICS)?;
        Ok(missed)
    }
}
