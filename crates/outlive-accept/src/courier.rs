//! The agent's side: hands connections over.

use std::{
    io,
    mem::MaybeUninit,
    os::{fd::AsFd, unix::net::UnixDatagram},
    path::Path,
};

use rustix::{
    io::Errno,
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};

use crate::announcement::Announcement;

/// A way to one server.
#[derive(Debug)]
pub struct Courier {
    socket: UnixDatagram,
}

impl Courier {
    /// Finds the server whose socket is at `path`. It stays found as long as that process lives.
    ///
    /// # Errors
    /// `NotFound` or `ConnectionRefused`: there is none.
    pub fn find(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        socket.set_nonblocking(true)?;
        Ok(Courier { socket })
    }

    /// Hands a connected TCP socket over. The caller's own descriptor should be closed afterwards: as long as it is open, the
    /// server's closing the connection has no effect.
    ///
    /// # Errors
    /// The server has not got it.
    pub fn hand_over(
        &self,
        stream: impl AsFd,
        announcement: &Announcement,
    ) -> Result<(), NotHandedOver> {
        let sockets = [stream.as_fd()];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut room);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&sockets)) {
            return Err(NotHandedOver::System(io::ErrorKind::OutOfMemory));
        }
        let bytes = announcement.encode();
        let parts = [io::IoSlice::new(&bytes)];
        match sendmsg(&self.socket, &parts, &mut ancillary, SendFlags::NOSIGNAL) {
            Ok(_) => Ok(()),
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::TOOMANYREFS) => Err(NotHandedOver::Busy),
            Err(Errno::CONNREFUSED | Errno::CONNRESET | Errno::NOTCONN | Errno::PIPE) => {
                Err(NotHandedOver::Gone)
            }
            Err(other) => Err(NotHandedOver::System(io::Error::from(other).kind())),
        }
    }
}

/// Why a server has not got a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotHandedOver {
    /// Too many wait for it already. Later, perhaps.
    #[error("the server has not accepted those that were handed over before")]
    Busy,
    /// It has ended.
    #[error("the server has ended")]
    Gone,
    /// The system says so.
    #[error("{0}")]
    System(io::ErrorKind),
}
