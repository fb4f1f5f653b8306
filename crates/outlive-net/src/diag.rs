//! Which TCP connections the kernel has, and which have ended (sock_diag(7)).
//!
//! For whoever has given a connection away and wants to know what became of it. A connection ends for the kernel when its last
//! data and its FIN are acknowledged and no program has it, or when it was reset; what stays for a minute
//! (TIME-WAIT) is not a connection any more.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use netlink_sys::{Socket, SocketAddr as NetlinkAddress, protocols::NETLINK_SOCK_DIAG};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
/// Multicast groups of `linux/sock_diag.h`.
const INET_TCP_DESTROY: u32 = 1;
const INET6_TCP_DESTROY: u32 = 3;
const HEADER: usize = 16;
/// `struct inet_diag_req_v2`.
const REQUEST: usize = 56;
const TIME_WAIT: u8 = 6;
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;
const RECEIVE_LEN: usize = 8 * 1024;

/// The ends of a connection of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    /// This machine's.
    pub local: SocketAddr,
    /// The other one.
    pub remote: SocketAddr,
}

/// Tells which connections of a network namespace end, from its making on.
pub struct Endings {
    socket: Socket,
    datagram: Vec<u8>,
}

/// The kernel had more to tell than there was room for: some endings were not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow;

impl Endings {
    /// Of the network namespace of the calling thread.
    ///
    /// # Errors
    /// What the kernel says: it has no such thing (`CONFIG_INET_DIAG`).
    pub fn subscribe() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.add_membership(INET_TCP_DESTROY)?;
        socket.add_membership(INET6_TCP_DESTROY)?;
        socket.set_non_blocking(true)?;
        // What there is room for while the reader does something else; the system's limit applies.
        let _ = socket.set_rx_buf_sz(4 << 20);
        Ok(Endings { socket, datagram: Vec::with_capacity(RECEIVE_LEN) })
    }

    /// The next connection that has ended; `None` if there is none now.
    ///
    /// # Errors
    /// Some were lost: ask [`lives`] about those that matter, and go on.
    pub fn poll(&mut self) -> Result<Option<Ends>, Overflow> {
        loop {
            self.datagram.clear();
            match self.socket.recv(&mut self.datagram, 0) {
                // One message for each connection.
                Ok(_) => {
                    if let Some((_, ends)) = connection(&self.datagram) {
                        return Ok(Some(ends));
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Err(Overflow),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Ok(None),
            }
        }
    }
}

impl AsFd for Endings {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Endings {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl std::fmt::Debug for Endings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endings").finish_non_exhaustive()
    }
}

/// Whether the kernel has this connection, in the network namespace of the calling thread.
///
/// # Errors
/// What the kernel says.
pub fn lives(ends: &Ends) -> io::Result<bool> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    let question = question(ends);
    socket.send_to(&question, &NetlinkAddress::new(0, 0), 0)?;
    let mut answer = Vec::with_capacity(RECEIVE_LEN);
    socket.recv(&mut answer, 0)?;
    if let Some(error) = error_of(&answer) {
        return match error {
            libc::ENOENT => Ok(false),
            other => Err(io::Error::from_raw_os_error(other)),
        };
    }
    // Where there is no such connection, a listener on the port may be found.
    Ok(connection(&answer).is_some_and(|(state, found)| {
        found == *ends && ![TIME_WAIT, CLOSE, LISTEN].contains(&state)
    }))
}

fn question(ends: &Ends) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + REQUEST);
    bytes.extend(((HEADER + REQUEST) as u32).to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    bytes.extend([0; 8]); // Sequence number, port.
    let family = if ends.local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    bytes.extend([family as u8, libc::IPPROTO_TCP as u8, 0, 0]);
    bytes.extend(u32::MAX.to_ne_bytes()); // All states.
    bytes.extend(ends.local.port().to_be_bytes());
    bytes.extend(ends.remote.port().to_be_bytes());
    for end in [ends.local, ends.remote] {
        match end.ip() {
            IpAddr::V4(v4) => {
                bytes.extend(v4.octets());
                bytes.extend([0; 12]);
            }
            IpAddr::V6(v6) => bytes.extend(v6.octets()),
        }
    }
    bytes.extend([0; 4]); // Any interface.
    bytes.extend([0xff; 8]); // No cookie.
    bytes
}

/// The positive error number of an answer that is an error.
fn error_of(message: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(*message.get(4..)?.first_chunk()?);
    let number = i32::from_ne_bytes(*message.get(HEADER..)?.first_chunk()?);
    (kind == NLMSG_ERROR).then_some(-number)
}

/// State and ends out of a message with a `struct inet_diag_msg`.
fn connection(message: &[u8]) -> Option<(u8, Ends)> {
    let kind = u16::from_ne_bytes(*message.get(4..)?.first_chunk()?);
    let body = message.get(HEADER..)?;
    let &[family, state, ..] = body.first_chunk::<2>()?;
    let port = |at: usize| Some(u16::from_be_bytes(*body.get(at..)?.first_chunk()?));
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 16] = *body.get(at..)?.first_chunk()?;
        match i32::from(family) {
            libc::AF_INET => Some(IpAddr::from([octets[0], octets[1], octets[2], octets[3]])),
            // A socket for both versions with a client of the older one.
            libc::AF_INET6 => Some(IpAddr::from(octets).to_canonical()),
            _ => None,
        }
    };
    let local = SocketAddr::new(address(8)?, port(4)?);
    let remote = SocketAddr::new(address(24)?, port(6)?);
    (kind == SOCK_DIAG_BY_FAMILY).then_some((state, Ends { local, remote }))
}
