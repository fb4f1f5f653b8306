//! The server's side: the socket on which connections arrive.

use std::{
    fs, io,
    mem::MaybeUninit,
    net::TcpStream,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            fs::{FileTypeExt, PermissionsExt},
            net::UnixDatagram,
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    io::Errno,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
};

use crate::announcement::{Announcement, InvalidAnnouncement};

/// Room for the descriptors of a datagram that brings too many, so that they are closed here.
const MOST_SOCKETS: usize = 8;

/// Where the connections that are migrated to a server arrive. Its file is removed when it is dropped.
#[derive(Debug)]
pub struct Migrated {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Migrated {
    /// Makes the socket at `path`, which is the `socket` of the service in the configuration of `outlive host`. A file that a process
    /// of before has left there is replaced. Only the owner may send to it (mode 0600), and root, as which the agent runs.
    ///
    /// # Errors
    /// `AddrInUse` if another process has it or it is no socket; whatever else the system says.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let socket = match UnixDatagram::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path) => {
                fs::remove_file(path)?;
                UnixDatagram::bind(path)
            }
            other => other,
        }?;
        let migrated = Migrated { socket, path: path.to_owned() };
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(migrated)
    }

    /// The next connection: a blocking socket whose peer is the client, with what the client has sent so far. Waits for one, or gives
    /// `WouldBlock` if [non-blocking](Self::set_nonblocking).
    ///
    /// Datagrams that are no announcements are passed over.
    ///
    /// # Errors
    /// What the system says. `EMFILE` is not among them: where no descriptor is left, the kernel delivers the datagram without its
    /// socket, which ends the connection.
    pub fn accept(&self) -> io::Result<(TcpStream, Announcement)> {
        loop {
            if let Ok(accepted) = self.receive()? {
                return Ok(accepted);
            }
        }
    }

    /// Makes [`accept`](Self::accept) return at once.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.socket.set_nonblocking(nonblocking)
    }

    fn receive(&self) -> io::Result<Result<(TcpStream, Announcement), InvalidAnnouncement>> {
        let mut bytes = [0; 2 * Announcement::LEN];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut room);
        let received = loop {
            let mut parts = [io::IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                other => break other?,
            }
        };
        let mut sockets: Vec<OwnedFd> = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                sockets.extend(rights);
            }
        }
        let announcement = match Announcement::decode(&bytes[..received.bytes]) {
            Ok(announcement) => announcement,
            Err(invalid) => return Ok(Err(invalid)),
        };
        let (Some(socket), true) = (sockets.pop(), sockets.is_empty()) else {
            return Ok(Err(InvalidAnnouncement::Sockets));
        };
        let stream = TcpStream::from(socket);
        stream.set_nonblocking(false)?;
        Ok(Ok((stream, announcement)))
    }
}

impl AsFd for Migrated {
    /// Readable when a connection waits.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Migrated {
    fn drop(&mut self) {
        // Nobody is left to tell.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether a socket's file is there and no process has it.
fn is_abandoned(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket());
    let refused = || {
        let probe = UnixDatagram::unbound().and_then(|probe| probe.connect(path));
        probe.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    is_socket && refused()
}
