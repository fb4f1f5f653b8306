//! The tool's declaration of what it calls, in Rust.

use std::ffi::{c_int, c_long, c_uint, c_ulong, c_void};

use libc::{iovec, msghdr, pollfd, size_t, sockaddr, socklen_t, ssize_t, timeval};

use crate::session::Session;

/// The functions that the tool calls instead of the system's, in the order of its own declaration.
/// All of them get `userdata` first; else they are as POSIX has them.
#[repr(C)]
pub(crate) struct Interface {
    pub(crate) userdata: *mut Session,
    pub(crate) free: extern "C" fn(Box<Session>),
    pub(crate) socket: unsafe extern "C" fn(&Session, c_int, c_int, c_int) -> c_int,
    pub(crate) bind: unsafe extern "C" fn(&Session, c_int, *const sockaddr, socklen_t) -> c_int,
    pub(crate) listen: unsafe extern "C" fn(&Session, c_int, c_int) -> c_int,
    pub(crate) accept:
        unsafe extern "C" fn(&Session, c_int, *mut sockaddr, *mut socklen_t) -> c_int,
    pub(crate) connect: unsafe extern "C" fn(&Session, c_int, *const sockaddr, socklen_t) -> c_int,
    pub(crate) read: unsafe extern "C" fn(&Session, c_int, *mut c_void, size_t) -> ssize_t,
    pub(crate) readv: unsafe extern "C" fn(&Session, c_int, *const iovec, c_int) -> ssize_t,
    pub(crate) recv: unsafe extern "C" fn(&Session, c_int, *mut c_void, size_t, c_int) -> ssize_t,
    pub(crate) recvfrom: ReceiveFrom,
    pub(crate) recvmsg: unsafe extern "C" fn(&Session, c_int, *mut msghdr, c_int) -> ssize_t,
    pub(crate) write: unsafe extern "C" fn(&Session, c_int, *const c_void, size_t) -> ssize_t,
    pub(crate) writev: unsafe extern "C" fn(&Session, c_int, *const iovec, c_int) -> ssize_t,
    pub(crate) send: unsafe extern "C" fn(&Session, c_int, *const c_void, size_t, c_int) -> ssize_t,
    pub(crate) sendto: SendTo,
    pub(crate) sendmsg: unsafe extern "C" fn(&Session, c_int, *const msghdr, c_int) -> ssize_t,
    /// Variadic there; one argument of a register's size is passed in the same way.
    pub(crate) fcntl: unsafe extern "C" fn(&Session, c_int, c_int, c_long) -> c_int,
    /// The same.
    pub(crate) ioctl: unsafe extern "C" fn(&Session, c_int, c_ulong, *mut c_int) -> c_int,
    pub(crate) close: unsafe extern "C" fn(&Session, c_int) -> c_int,
    pub(crate) shutdown: unsafe extern "C" fn(&Session, c_int, c_int) -> c_int,
    pub(crate) getsockopt: GetOption,
    pub(crate) setsockopt: SetOption,
    pub(crate) poll: unsafe extern "C" fn(&Session, *mut pollfd, libc::nfds_t, c_int) -> c_int,
    /// A packet for the stack.
    pub(crate) netdev_send: unsafe extern "C" fn(&Session, *const c_void, size_t) -> c_int,
    /// The next packet of the stack's, and when it left.
    pub(crate) netdev_receive:
        unsafe extern "C" fn(&Session, *mut c_void, *mut size_t, *mut i64) -> c_int,
    pub(crate) usleep: unsafe extern "C" fn(&Session, c_uint) -> c_int,
    pub(crate) gettimeofday: unsafe extern "C" fn(&Session, *mut timeval, *mut c_void) -> c_int,
    pub(crate) epoll_create: unsafe extern "C" fn(&Session, c_int) -> c_int,
    pub(crate) epoll_ctl: unsafe extern "C" fn(&Session, c_int, c_int, c_int, *mut c_void) -> c_int,
    pub(crate) epoll_wait:
        unsafe extern "C" fn(&Session, c_int, *mut c_void, c_int, c_int) -> c_int,
    pub(crate) pipe: unsafe extern "C" fn(&Session, *mut c_int) -> c_int,
    pub(crate) splice: Splice,
}

type ReceiveFrom = unsafe extern "C" fn(
    &Session,
    c_int,
    *mut c_void,
    size_t,
    c_int,
    *mut sockaddr,
    *mut socklen_t,
) -> ssize_t;
type SendTo = unsafe extern "C" fn(
    &Session,
    c_int,
    *const c_void,
    size_t,
    c_int,
    *const sockaddr,
    socklen_t,
) -> ssize_t;
type GetOption =
    unsafe extern "C" fn(&Session, c_int, c_int, c_int, *mut c_void, *mut socklen_t) -> c_int;
type SetOption =
    unsafe extern "C" fn(&Session, c_int, c_int, c_int, *const c_void, socklen_t) -> c_int;
type Splice =
    unsafe extern "C" fn(&Session, c_int, *mut i64, c_int, *mut i64, size_t, c_uint) -> c_int;
