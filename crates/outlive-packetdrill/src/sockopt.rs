//! Socket options: those that mean something to the endpoint.

use std::{os::fd::RawFd, time::Duration};

use libc::c_int;
use outlive_tcp::endpoint::{Config, KeepAlive, State};

use crate::{
    settings::algorithm,
    stack::{Errno, Role, Stack},
};

/// At level `SOL_TCP`: so many bytes that were read may be acknowledged. The system has no such
/// option, since it has no such thing.
pub(crate) const ACKNOWLEDGE: c_int = 5_001;
/// The same for the end of the stream.
pub(crate) const ACKNOWLEDGE_END: c_int = 5_002;

impl Stack {
    /// `setsockopt`. What only the system's other parts would mind is accepted.
    pub(crate) fn set_option(
        &mut self,
        fd: RawFd,
        (level, name): (c_int, c_int),
        value: &[u8],
    ) -> Result<(), Errno> {
        let number = value.first_chunk().map(|bytes| c_int::from_ne_bytes(*bytes));
        match (level, name) {
            (libc::SOL_SOCKET, libc::SO_REUSEADDR) => return Ok(()),
            (libc::SOL_SOCKET, libc::SO_LINGER) => {
                let seconds = value.get(4..).and_then(|rest| rest.first_chunk());
                let seconds = c_int::from_ne_bytes(*seconds.ok_or(libc::EINVAL)?);
                self.socket_mut(fd)?.reset_on_close = number != Some(0) && seconds == 0;
                return Ok(());
            }
            (libc::IPPROTO_TCP, libc::TCP_CONGESTION) => {
                let name = String::from_utf8_lossy(value);
                let chosen = algorithm(name.trim_end_matches('\0')).ok_or(libc::ENOENT)?;
                return self.configure(fd, |config| config.congestion = chosen);
            }
            _ => {}
        }
        let number = number.ok_or(libc::EINVAL)?;
        let count = u32::try_from(number).map_err(|_| libc::EINVAL);
        match (level, name) {
            // Of a connection it stays what it was: the option is a hint.
            (libc::SOL_SOCKET, libc::SO_SNDBUF | libc::SO_RCVBUF) if self.connected(fd).is_ok() => {
                Ok(())
            }
            (libc::SOL_SOCKET, libc::SO_SNDBUF) => {
                let bytes = count?;
                self.configure(fd, |config| config.send_buffer = bytes)
            }
            (libc::SOL_SOCKET, libc::SO_RCVBUF) => {
                let bytes = count?;
                self.configure(fd, |config| {
                    (config.receive_buffer, config.withheld_limit) = (bytes, bytes)
                })
            }
            (libc::IPPROTO_TCP, libc::TCP_MAXSEG) => {
                let mtu = number.checked_add(40).and_then(|mtu| u16::try_from(mtu).ok());
                let mtu = mtu.ok_or(libc::EINVAL)?;
                self.configure(fd, |config| config.mtu = config.mtu.min(mtu))
            }
            (libc::IPPROTO_TCP, libc::TCP_NODELAY) => self.set_nagle(fd, number == 0),
            (libc::SOL_SOCKET, libc::SO_KEEPALIVE) => self.configure(fd, |config| {
                config.keep_alive = (number != 0).then(KeepAlive::default);
            }),
            (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE) => {
                let idle = Duration::from_secs(count?.into());
                self.configure_keep_alive(fd, |keep_alive| keep_alive.idle = idle)
            }
            (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL) => {
                let interval = Duration::from_secs(count?.into());
                self.configure_keep_alive(fd, |keep_alive| keep_alive.interval = interval)
            }
            (libc::IPPROTO_TCP, libc::TCP_KEEPCNT) => {
                let probes = u8::try_from(number).map_err(|_| libc::EINVAL)?;
                self.configure_keep_alive(fd, |keep_alive| keep_alive.probes = probes)
            }
            (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT) => {
                let timeout = Duration::from_millis(count?.into());
                self.socket_mut(fd)?.config.user_timeout = timeout;
                if let Ok(link) = self.connected(fd) {
                    link.conn.set_user_timeout(timeout);
                }
                Ok(())
            }
            (libc::IPPROTO_TCP, ACKNOWLEDGE) => {
                let count = count?;
                self.connected(fd)?.conn.acknowledge(count).map_err(|_| libc::EINVAL)?;
                self.settle_socket(fd)
            }
            (libc::IPPROTO_TCP, ACKNOWLEDGE_END) => {
                self.connected(fd)?.conn.acknowledge_end().map_err(|_| libc::EINVAL)?;
                self.settle_socket(fd)
            }
            _ => Err(libc::ENOPROTOOPT),
        }
    }

    /// `getsockopt`, of an option that is a number.
    pub(crate) fn option(
        &mut self,
        fd: RawFd,
        (level, name): (c_int, c_int),
    ) -> Result<c_int, Errno> {
        let config = self.socket_ref(fd)?.config;
        match (level, name) {
            (libc::SOL_SOCKET, libc::SO_ERROR) => {
                Ok(self.connected(fd).ok().and_then(|link| link.failure.take()).unwrap_or(0))
            }
            (libc::SOL_SOCKET, libc::SO_SNDBUF) => Ok(config.send_buffer as c_int),
            (libc::SOL_SOCKET, libc::SO_RCVBUF) => Ok(config.receive_buffer as c_int),
            (libc::SOL_SOCKET, libc::SO_KEEPALIVE) => Ok(config.keep_alive.is_some().into()),
            (libc::IPPROTO_TCP, libc::TCP_NODELAY) => Ok((!config.nagle).into()),
            (libc::IPPROTO_TCP, libc::TCP_MAXSEG) => {
                let agreed = *self.connected(fd)?.conn.negotiated();
                Ok(c_int::from(agreed.peer_mss) - if agreed.timestamps { 12 } else { 0 })
            }
            _ => Err(libc::ENOPROTOOPT),
        }
    }

    /// Bytes that `FIONREAD` and `SIOCOUTQ` tell.
    pub(crate) fn queued(&mut self, fd: RawFd, request: u64) -> Result<c_int, Errno> {
        let conn = &self.connected(fd)?.conn;
        match request {
            libc::FIONREAD => Ok(conn.unread() as c_int),
            libc::TIOCOUTQ if conn.state() == State::Closed => Ok(0),
            libc::TIOCOUTQ => Ok(conn.unacknowledged() as c_int),
            _ => Err(libc::EINVAL),
        }
    }

    /// What can be changed before there is a connection only.
    fn configure(&mut self, fd: RawFd, change: impl FnOnce(&mut Config)) -> Result<(), Errno> {
        let socket = self.socket_mut(fd)?;
        if matches!(socket.role, Role::Connected(_)) {
            return Err(libc::EISCONN);
        }
        change(&mut socket.config);
        Ok(())
    }

    fn configure_keep_alive(
        &mut self,
        fd: RawFd,
        change: impl FnOnce(&mut KeepAlive),
    ) -> Result<(), Errno> {
        self.configure(fd, |config| change(config.keep_alive.get_or_insert_default()))
    }

    fn set_nagle(&mut self, fd: RawFd, on: bool) -> Result<(), Errno> {
        self.socket_mut(fd)?.config.nagle = on;
        if let Ok(link) = self.connected(fd) {
            link.conn.set_nagle(on);
        }
        self.settle_socket(fd)
    }
}
