//! Both kinds of connections in one place.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

use crate::migrated::Migrated;

/// A server's own connections and those that are migrated to it.
#[derive(Debug)]
pub struct Incoming {
    listener: TcpListener,
    migrated: Migrated,
}

impl Incoming {
    /// Accepts from `listener`, and on a socket made at `path`: see [`Migrated::bind`].
    ///
    /// # Errors
    /// As there.
    pub fn new(listener: TcpListener, path: impl AsRef<Path>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let migrated = Migrated::bind(path)?;
        migrated.set_nonblocking(true)?;
        Ok(Incoming { listener, migrated })
    }

    /// Waits for the next connection of either kind: a blocking socket, and the client's address.
    ///
    /// # Errors
    /// What the system says.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            // Whichever is asked first: the other has its turn as soon as this one has none waiting.
            let migrated = self.migrated.accept().map(|(stream, it)| (stream, it.client));
            if let Some(accepted) = unless_empty(migrated)? {
                return Ok(accepted);
            }
            if let Some((stream, client)) = unless_empty(self.listener.accept())? {
                stream.set_nonblocking(false)?;
                return Ok((stream, client));
            }
            self.wait()?;
        }
    }

    fn wait(&self) -> io::Result<()> {
        let both = &mut [
            PollFd::new(&self.listener, PollFlags::IN),
            PollFd::new(&self.migrated, PollFlags::IN),
        ];
        match poll(both, None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn unless_empty<T>(accepted: io::Result<T>) -> io::Result<Option<T>> {
    match accepted {
        Ok(accepted) => Ok(Some(accepted)),
        Err(error) => match error.kind() {
            // A client that has given up before it was accepted is no reason to stop.
            io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted => Ok(None),
            _ => Err(error),
        },
    }
}
