//! Datagrams with the time at which they arrived at this machine, not that at which somebody came to read them.
//!
//! The kernel notes it (`SO_TIMESTAMPNS`) by the wall clock, which may be set at any time; so what is given is the age
//! of the datagram when it was read, and whoever uses it should bound it by what else is known of the socket.

use std::{
    io,
    mem::{MaybeUninit, size_of},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use crate::sys;

/// Room for one control message with a time, and for those that another option of the socket may add.
const CONTROL_LEN: usize = 128;

/// A datagram that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Bytes of the buffer that it fills; what was too long is cut off.
    pub len: usize,
    /// Who sent it.
    pub from: SocketAddr,
    /// For how long it lay there. `None`: the kernel did not note it, or the wall clock was set meanwhile.
    pub age: Option<Duration>,
}

/// Lets the kernel note when the datagrams of a UDP socket arrive.
///
/// # Errors
/// The kernel does not know how.
pub fn enable(socket: impl AsFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    sys::set_socket_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &on)
}

/// Reads a datagram of an IPv4 or IPv6 socket.
///
/// # Errors
/// Those of `recvmsg(2)`; `WouldBlock` if there is none and the socket does not block.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Arrival> {
    let (len, name, stamp) = receive_stamped(socket, buffer)?;
    let from = address_of(&name).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(Arrival { len, from, age: stamp.and_then(age) })
}

/// Reads a message of any socket: bytes of the buffer that it fills, the kind of address that it came from, and the wall
/// clock when it arrived, if the kernel noted it.
pub(crate) fn receive_stamped(
    socket: impl AsFd,
    buffer: &mut [u8],
) -> io::Result<(usize, libc::sockaddr_storage, Option<Duration>)> {
    let mut name = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    // Of `u64`, so that it is aligned for a header.
    let mut control = [0_u64; CONTROL_LEN / size_of::<u64>()];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: a message header of zeros is valid: null pointers with lengths of zero.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = name.as_mut_ptr().cast();
    message.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_LEN as _;
    // SAFETY: each pointer in the header is to memory that is as long as the header says, is borrowed for writing by
    // nobody else, and outlives the call.
    let len = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, 0) };
    if len < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the storage was zeroed, and zeros are a valid one, so it is initialised whatever the kernel wrote.
    let name = unsafe { name.assume_init() };
    Ok((len as usize, name, stamp(&message).and_then(since_epoch)))
}

fn address_of(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: of this family the storage holds a `sockaddr_in`, which is smaller and needs no more alignment.
            let v4 = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
            let address = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some((address, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: likewise, a `sockaddr_in6`.
            let v6 = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
            let address = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            Some(SocketAddrV6::new(address, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// The wall clock when it arrived.
fn stamp(message: &libc::msghdr) -> Option<libc::timespec> {
    // SAFETY: the header and the control buffer behind it are those that `recvmsg` has just filled in.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: the pointer is null, or to a control message that lies whole in the buffer.
    while let Some(control) = unsafe { header.as_ref() } {
        // SAFETY: computes a length.
        let needed = unsafe { libc::CMSG_LEN(size_of::<libc::timespec>() as u32) } as usize;
        let is_stamp = control.cmsg_level == libc::SOL_SOCKET
            && control.cmsg_type == libc::SCM_TIMESTAMPNS
            && control.cmsg_len >= needed;
        if is_stamp {
            // SAFETY: the message is long enough for a `timespec`, which may lie unaligned.
            return Some(unsafe {
                libc::CMSG_DATA(header).cast::<libc::timespec>().read_unaligned()
            });
        }
        // SAFETY: as above.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    None
}

fn since_epoch(stamp: libc::timespec) -> Option<Duration> {
    let seconds = u64::try_from(stamp.tv_sec).ok()?;
    Some(Duration::new(seconds, u32::try_from(stamp.tv_nsec).ok()?))
}

fn age(then: Duration) -> Option<Duration> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?;
    now.checked_sub(then)
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, thread};

    use super::*;

    #[test]
    fn what_was_read_late_says_so() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(socket) = UdpSocket::bind(local) else { continue };
            enable(&socket).unwrap();
            let sender = UdpSocket::bind(local).unwrap();
            let mut buffer = [0; 8];
            // The kernel begins to note times a little after it was told to.
            let late = loop {
                sender.send_to(b"hello", socket.local_addr().unwrap()).unwrap();
                thread::sleep(Duration::from_millis(30));
                let arrival = receive(&socket, &mut buffer).unwrap();
                assert_eq!((arrival.len, arrival.from), (5, sender.local_addr().unwrap()));
                assert_eq!(&buffer[..5], b"hello");
                if let Some(age) = arrival.age.filter(|age| *age >= Duration::from_millis(30)) {
                    break age;
                }
            };
            assert!(late < Duration::from_secs(60), "{late:?}");
        }
    }

    #[test]
    fn without_it_there_is_no_age_and_nothing_is_an_error() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let nothing = receive(&socket, &mut [0; 8]).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        socket.send_to(b"too long for it", socket.local_addr().unwrap()).unwrap();
        let arrival = receive(&socket, &mut [0; 8]).unwrap();
        assert_eq!((arrival.len, arrival.age), (8, None));
    }
}
