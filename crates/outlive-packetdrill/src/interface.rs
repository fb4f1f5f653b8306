//! The C interface that packetdrill expects of a shared library, and all unsafe code of this crate:
//! pointers of the tool's become references, slices and values, results become return values and
//! `errno`.

use std::{
    ffi::{CStr, c_char, c_int, c_long, c_uint, c_ulong, c_void},
    mem,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    ptr, slice,
    time::Duration,
};

use libc::{iovec, msghdr, pollfd, size_t, sockaddr, socklen_t, ssize_t, timeval};

use crate::{
    session::Session,
    stack::{Errno, Stack},
    table::Interface,
};

/// Fills in the tool's table. Flags that say nothing sensible end the process with a message.
///
/// # Safety
///
/// `flags` is null or a C string, `interface` has room for an [`Interface`].
#[unsafe(no_mangle)]
unsafe extern "C" fn packetdrill_interface_init(flags: *const c_char, interface: *mut Interface) {
    let flags = if flags.is_null() {
        String::new()
    } else {
        // SAFETY: not null, so a C string, as the caller promises.
        unsafe { CStr::from_ptr(flags) }.to_string_lossy().into_owned()
    };
    let settings = flags.parse().unwrap_or_else(|error| {
        eprintln!("--so_flags: {error}");
        std::process::exit(1);
    });
    let userdata = Box::into_raw(Box::new(Session::new(settings)));
    let table = Interface {
        userdata,
        free,
        socket,
        bind,
        listen,
        accept,
        connect,
        read,
        readv,
        recv,
        recvfrom,
        recvmsg,
        write,
        writev,
        send,
        sendto,
        sendmsg,
        fcntl,
        ioctl,
        close,
        shutdown,
        getsockopt,
        setsockopt,
        poll,
        netdev_send,
        netdev_receive,
        usleep,
        gettimeofday,
        epoll_create,
        epoll_ctl,
        epoll_wait,
        pipe,
        splice,
    };
    // SAFETY: the caller promises the room; what it held needs no drop.
    unsafe { interface.write(table) };
}

extern "C" fn free(session: Box<Session>) {
    drop(session);
}

extern "C" fn socket(session: &Session, _domain: c_int, kind: c_int, _: c_int) -> c_int {
    finish(session.call(|stack| stack.open(kind)))
}

unsafe extern "C" fn bind(
    session: &Session,
    fd: c_int,
    address: *const sockaddr,
    len: socklen_t,
) -> c_int {
    // SAFETY: `address` has `len` bytes, as of bind(2).
    let address = unsafe { read_address(address, len) };
    finish(address.and_then(|address| session.call(|stack| stack.bind(fd, address))))
}

extern "C" fn listen(session: &Session, fd: c_int, _backlog: c_int) -> c_int {
    finish(session.call(|stack| stack.listen(fd)))
}

unsafe extern "C" fn accept(
    session: &Session,
    fd: c_int,
    address: *mut sockaddr,
    len: *mut socklen_t,
) -> c_int {
    let accepted = blocking(session, fd, 0, |stack| stack.accept(fd)).map(|(fd, peer)| {
        // SAFETY: `address` is null or has `*len` bytes, as of accept(2).
        unsafe { write_address(peer, address, len) };
        fd
    });
    finish(accepted)
}

unsafe extern "C" fn connect(
    session: &Session,
    fd: c_int,
    address: *const sockaddr,
    len: socklen_t,
) -> c_int {
    // SAFETY: `address` has `len` bytes, as of connect(2).
    let outcome = unsafe { read_address(address, len) }.and_then(|address| {
        if is_nonblocking(session, fd) {
            return session.call(|stack| stack.connect(fd, address));
        }
        session.wait(None, |stack| {
            stack.connect(fd, address).map_err(|errno| match errno {
                libc::EINPROGRESS | libc::EALREADY => libc::EAGAIN,
                errno => errno,
            })
        })
    });
    finish(outcome)
}

unsafe extern "C" fn read(
    session: &Session,
    fd: c_int,
    buffer: *mut c_void,
    len: size_t,
) -> ssize_t {
    // SAFETY: the same arguments.
    unsafe { recv(session, fd, buffer, len, 0) }
}

unsafe extern "C" fn readv(
    session: &Session,
    fd: c_int,
    pieces: *const iovec,
    count: c_int,
) -> ssize_t {
    // SAFETY: `pieces` has `count` buffers, as of readv(2).
    unsafe { receive(session, fd, pieces, count as usize, 0) }
}

unsafe extern "C" fn recv(
    session: &Session,
    fd: c_int,
    buffer: *mut c_void,
    len: size_t,
    flags: c_int,
) -> ssize_t {
    let piece = iovec { iov_base: buffer, iov_len: len };
    // SAFETY: `buffer` has `len` bytes, as of recv(2).
    unsafe { receive(session, fd, &piece, 1, flags) }
}

unsafe extern "C" fn recvfrom(
    session: &Session,
    fd: c_int,
    buffer: *mut c_void,
    len: size_t,
    flags: c_int,
    _address: *mut sockaddr,
    _room: *mut socklen_t,
) -> ssize_t {
    // SAFETY: the same arguments. Of a stream nobody is told where it comes from.
    unsafe { recv(session, fd, buffer, len, flags) }
}

unsafe extern "C" fn recvmsg(
    session: &Session,
    fd: c_int,
    message: *mut msghdr,
    flags: c_int,
) -> ssize_t {
    // SAFETY: `message` is valid and nobody else's, as of recvmsg(2).
    let message = unsafe { &mut *message };
    (message.msg_namelen, message.msg_controllen, message.msg_flags) = (0, 0, 0);
    // SAFETY: it says how many buffers there are.
    unsafe { receive(session, fd, message.msg_iov, message.msg_iovlen, flags) }
}

unsafe extern "C" fn write(
    session: &Session,
    fd: c_int,
    buffer: *const c_void,
    len: size_t,
) -> ssize_t {
    // SAFETY: the same arguments.
    unsafe { send(session, fd, buffer, len, 0) }
}

unsafe extern "C" fn writev(
    session: &Session,
    fd: c_int,
    pieces: *const iovec,
    count: c_int,
) -> ssize_t {
    // SAFETY: `pieces` has `count` buffers, as of writev(2).
    unsafe { transmit(session, fd, pieces, count as usize, 0) }
}

unsafe extern "C" fn send(
    session: &Session,
    fd: c_int,
    buffer: *const c_void,
    len: size_t,
    flags: c_int,
) -> ssize_t {
    let piece = iovec { iov_base: buffer.cast_mut(), iov_len: len };
    // SAFETY: `buffer` has `len` bytes, as of send(2), which are only read.
    unsafe { transmit(session, fd, &piece, 1, flags) }
}

unsafe extern "C" fn sendto(
    session: &Session,
    fd: c_int,
    buffer: *const c_void,
    len: size_t,
    flags: c_int,
    address: *const sockaddr,
    _address_len: socklen_t,
) -> ssize_t {
    if !address.is_null() {
        return finish(Err::<usize, _>(libc::EOPNOTSUPP)) as ssize_t;
    }
    // SAFETY: the same arguments.
    unsafe { send(session, fd, buffer, len, flags) }
}

unsafe extern "C" fn sendmsg(
    session: &Session,
    fd: c_int,
    message: *const msghdr,
    flags: c_int,
) -> ssize_t {
    // SAFETY: `message` is valid, as of sendmsg(2).
    let message = unsafe { &*message };
    // SAFETY: it says how many buffers there are.
    unsafe { transmit(session, fd, message.msg_iov, message.msg_iovlen, flags) }
}

extern "C" fn fcntl(session: &Session, fd: c_int, command: c_int, argument: c_long) -> c_int {
    finish(session.call(|stack| {
        let socket = stack.socket_mut(fd)?;
        match command {
            libc::F_GETFL if socket.nonblocking => Ok(libc::O_RDWR | libc::O_NONBLOCK),
            libc::F_GETFL => Ok(libc::O_RDWR),
            libc::F_SETFL => {
                socket.nonblocking = argument & c_long::from(libc::O_NONBLOCK) != 0;
                Ok(0)
            }
            _ => Err(libc::EINVAL),
        }
    }))
}

unsafe extern "C" fn ioctl(
    session: &Session,
    fd: c_int,
    request: c_ulong,
    argument: *mut c_int,
) -> c_int {
    // The tool passes the request as an `int`.
    let request = request & c_ulong::from(u32::MAX);
    let outcome = session.call(|stack| stack.queued(fd, request)).map(|value| {
        // SAFETY: both requests that are known take the address of a number.
        unsafe { argument.write(value) };
    });
    finish(outcome)
}

extern "C" fn close(session: &Session, fd: c_int) -> c_int {
    finish(session.call(|stack| stack.close(fd)))
}

extern "C" fn shutdown(session: &Session, fd: c_int, how: c_int) -> c_int {
    finish(session.call(|stack| stack.shutdown(fd, how)))
}

unsafe extern "C" fn getsockopt(
    session: &Session,
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    let outcome = session.call(|stack| stack.option(fd, (level, name))).and_then(|number| {
        // SAFETY: `len` says how many bytes `value` has, as of getsockopt(2).
        let room = unsafe { *len } as usize;
        if room < size_of::<c_int>() {
            return Err(libc::EINVAL);
        }
        // SAFETY: there are that many.
        unsafe { value.cast::<c_int>().write_unaligned(number) };
        // SAFETY: as above.
        unsafe { *len = size_of::<c_int>() as socklen_t };
        Ok(())
    });
    finish(outcome)
}

unsafe extern "C" fn setsockopt(
    session: &Session,
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    // SAFETY: `value` has `len` bytes, as of setsockopt(2).
    let value = unsafe { bytes(value, len as usize) };
    finish(session.call(|stack| stack.set_option(fd, (level, name), value)))
}

unsafe extern "C" fn poll(
    session: &Session,
    fds: *mut pollfd,
    count: libc::nfds_t,
    timeout: c_int,
) -> c_int {
    // SAFETY: `fds` has `count` elements, as of poll(2).
    let fds = unsafe { slice::from_raw_parts_mut(fds, count as usize) };
    let timeout = u64::try_from(timeout).ok().map(Duration::from_millis);
    let ready = session.wait(timeout, |stack| {
        for fd in fds.iter_mut() {
            let always = libc::POLLERR | libc::POLLHUP | libc::POLLNVAL;
            fd.revents = stack.readiness(fd.fd) & (fd.events | always);
        }
        match fds.iter().filter(|fd| fd.revents != 0).count() {
            0 => Err(libc::EAGAIN),
            count => Ok(count),
        }
    });
    if ready == Err(libc::ETIMEDOUT) { 0 } else { finish(ready) }
}

unsafe extern "C" fn netdev_send(session: &Session, packet: *const c_void, len: size_t) -> c_int {
    // SAFETY: `packet` has `len` bytes, as the tool's declaration says.
    let packet = unsafe { bytes(packet, len) };
    session.call(|stack| stack.receive(packet));
    0
}

unsafe extern "C" fn netdev_receive(
    session: &Session,
    buffer: *mut c_void,
    len: *mut size_t,
    time_us: *mut i64,
) -> c_int {
    let packet = session.next_packet();
    // SAFETY: `len` is valid, and says how much room `buffer` has.
    let room = unsafe { &mut *len };
    let Some((time, packet)) = packet else {
        eprintln!("no packet is sent, and no timer runs");
        *room = 0;
        return 0;
    };
    *room = packet.len().min(*room);
    // SAFETY: no more than there is room for, and `packet` is nobody else's.
    unsafe { ptr::copy_nonoverlapping(packet.as_ptr(), buffer.cast(), *room) };
    // SAFETY: the tool passes the address of a time.
    unsafe { time_us.write(time.as_micros() as i64) };
    0
}

extern "C" fn usleep(session: &Session, micros: c_uint) -> c_int {
    session.sleep_for(Duration::from_micros(micros.into()));
    0
}

unsafe extern "C" fn gettimeofday(
    session: &Session,
    value: *mut timeval,
    _zone: *mut c_void,
) -> c_int {
    let now = session.now().as_micros();
    let time =
        timeval { tv_sec: (now / 1_000_000) as c_long, tv_usec: (now % 1_000_000) as c_long };
    // SAFETY: the tool passes the address of a time.
    unsafe { value.write(time) };
    0
}

extern "C" fn epoll_create(_: &Session, _: c_int) -> c_int {
    missing()
}

extern "C" fn epoll_ctl(_: &Session, _: c_int, _: c_int, _: c_int, _: *mut c_void) -> c_int {
    missing()
}

extern "C" fn epoll_wait(_: &Session, _: c_int, _: *mut c_void, _: c_int, _: c_int) -> c_int {
    missing()
}

extern "C" fn pipe(_: &Session, _: *mut c_int) -> c_int {
    missing()
}

extern "C" fn splice(
    _: &Session,
    _: c_int,
    _: *mut i64,
    _: c_int,
    _: *mut i64,
    _: size_t,
    _: c_uint,
) -> c_int {
    missing()
}

/// # Safety
///
/// `pieces` has `count` buffers that may be written to.
unsafe fn receive(
    session: &Session,
    fd: c_int,
    pieces: *const iovec,
    count: usize,
    flags: c_int,
) -> ssize_t {
    if flags & !(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | libc::MSG_WAITALL) != 0 {
        return finish(Err::<usize, _>(libc::EOPNOTSUPP)) as ssize_t;
    }
    // SAFETY: as the caller promises.
    let pieces = unsafe { slice::from_raw_parts(pieces, count) };
    let room = pieces.iter().map(|piece| piece.iov_len).sum();
    let outcome = blocking(session, fd, flags, |stack| stack.read(fd, room)).map(|data| {
        let mut rest = &data[..];
        for piece in pieces {
            let (head, tail) = rest.split_at(rest.len().min(piece.iov_len));
            // SAFETY: no more than the buffer has, and `head` is nobody else's.
            unsafe { ptr::copy_nonoverlapping(head.as_ptr(), piece.iov_base.cast(), head.len()) };
            rest = tail;
        }
        data.len()
    });
    finish(outcome) as ssize_t
}

/// # Safety
///
/// `pieces` has `count` buffers.
unsafe fn transmit(
    session: &Session,
    fd: c_int,
    pieces: *const iovec,
    count: usize,
    flags: c_int,
) -> ssize_t {
    if flags & !(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) != 0 {
        return finish(Err::<usize, _>(libc::EOPNOTSUPP)) as ssize_t;
    }
    // SAFETY: as the caller promises.
    let pieces = unsafe { slice::from_raw_parts(pieces, count) };
    let mut data = Vec::new();
    for piece in pieces {
        // SAFETY: as the caller promises.
        data.extend_from_slice(unsafe { bytes(piece.iov_base, piece.iov_len) });
    }
    let waits = !is_nonblocking(session, fd) && flags & libc::MSG_DONTWAIT == 0;
    let mut written = 0;
    let outcome = blocking(session, fd, flags, |stack| {
        loop {
            written += stack.write(fd, &data[written..])?;
            if written == data.len() || !waits {
                return Ok(written);
            }
        }
    });
    finish(outcome) as ssize_t
}

/// Makes a call that waits, unless the socket or the flags say that it must not.
fn blocking<T>(
    session: &Session,
    fd: c_int,
    flags: c_int,
    mut call: impl FnMut(&mut Stack) -> Result<T, Errno>,
) -> Result<T, Errno> {
    if flags & libc::MSG_DONTWAIT != 0 || is_nonblocking(session, fd) {
        return session.call(call);
    }
    session.wait(None, &mut call)
}

fn is_nonblocking(session: &Session, fd: c_int) -> bool {
    session.call(|stack| stack.socket_ref(fd).is_ok_and(|socket| socket.nonblocking))
}

/// The return value of a system call; `errno` is set.
fn finish<T: CallResult>(outcome: Result<T, Errno>) -> c_int {
    outcome.map(T::into_int).unwrap_or_else(|errno| {
        // SAFETY: the address of this thread's `errno`, which always can be written.
        unsafe { *libc::__errno_location() = errno };
        -1
    })
}

fn missing() -> c_int {
    finish(Err::<(), _>(libc::ENOSYS))
}

trait CallResult {
    fn into_int(self) -> c_int;
}

impl CallResult for () {
    fn into_int(self) -> c_int {
        0
    }
}

impl CallResult for c_int {
    fn into_int(self) -> c_int {
        self
    }
}

impl CallResult for usize {
    fn into_int(self) -> c_int {
        self as c_int
    }
}

/// # Safety
///
/// `data` has `len` bytes that live as long as the call, or `len` is 0.
unsafe fn bytes<'a>(data: *const c_void, len: usize) -> &'a [u8] {
    if data.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: as the caller promises.
    unsafe { slice::from_raw_parts(data.cast(), len) }
}

/// # Safety
///
/// `address` is null or has `len` bytes.
unsafe fn read_address(address: *const sockaddr, len: socklen_t) -> Result<SocketAddr, Errno> {
    // SAFETY: as the caller promises.
    let raw = unsafe { bytes(address.cast(), len as usize) };
    let family = raw.first_chunk().map(|family| c_int::from(u16::from_ne_bytes(*family)));
    let port = raw.get(2..).and_then(<[u8]>::first_chunk).map(|port| u16::from_be_bytes(*port));
    let v4 =
        || raw.get(4..).and_then(<[u8]>::first_chunk::<4>).map(|ip| Ipv4Addr::from(*ip).into());
    let v6 =
        || raw.get(8..).and_then(<[u8]>::first_chunk::<16>).map(|ip| Ipv6Addr::from(*ip).into());
    let ip = match family {
        Some(libc::AF_INET) => v4(),
        Some(libc::AF_INET6) => v6(),
        _ => return Err(libc::EAFNOSUPPORT),
    };
    ip.zip(port).map(|(ip, port)| SocketAddr::new(ip, port)).ok_or(libc::EINVAL)
}

/// # Safety
///
/// `out` is null or has `*len` bytes.
unsafe fn write_address(address: SocketAddr, out: *mut sockaddr, len: *mut socklen_t) {
    if out.is_null() || len.is_null() {
        return;
    }
    let mut raw = [0; mem::size_of::<libc::sockaddr_in6>()];
    raw[2..4].copy_from_slice(&address.port().to_be_bytes());
    let (family, size) = match address {
        SocketAddr::V4(v4) => {
            raw[4..8].copy_from_slice(&v4.ip().octets());
            (libc::AF_INET, size_of::<libc::sockaddr_in>())
        }
        SocketAddr::V6(v6) => {
            raw[8..24].copy_from_slice(&v6.ip().octets());
            (libc::AF_INET6, raw.len())
        }
    };
    raw[..2].copy_from_slice(&(family as u16).to_ne_bytes());
    // SAFETY: as the caller promises; `raw` is nobody else's.
    let room = unsafe { *len } as usize;
    // SAFETY: as above.
    unsafe { ptr::copy_nonoverlapping(raw.as_ptr(), out.cast(), size.min(room)) };
    // SAFETY: as above.
    unsafe { *len = size as socklen_t };
}
