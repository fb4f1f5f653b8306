//! A server on a target that accepts migrated connections beside its own, as `docs/accept.md` tells; one thread.
//!
//! It remembers which requests it has answered, and to whom: none may be answered twice.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use outlive_accept::Migrated;
use slab::Slab;

use super::content::{asked, content};
use crate::error::LabError;
use crate::host::Host;
use crate::traffic::listen;

const LISTENER: Token = Token(usize::MAX);
const MIGRATED: Token = Token(usize::MAX - 1);

/// A request head longer than this is not one of ours.
const LONGEST_HEAD: usize = 4096;

/// Requests that were answered: how often, and for which client.
pub(crate) type Answered = HashMap<u64, (u32, IpAddr)>;

/// A running server. Dropping it ends it: its connections are closed.
pub(crate) struct Origin {
    stop: Arc<AtomicBool>,
    answered: Arc<Mutex<Answered>>,
}

impl Origin {
    /// Listens at `port` of `host`, and for migrated connections at `socket`.
    pub(crate) fn start(host: &Host, port: u16, socket: &Path) -> Result<Self, LabError> {
        let failed = |error| LabError::Traffic("starting a server for migrated connections", error);
        let listener = host.enter(|| listen(port))?.map_err(failed)?;
        let migrated = Migrated::bind(socket).map_err(failed)?;
        let origin = Self { stop: Arc::default(), answered: Arc::default() };
        let (stop, answered) = (origin.stop.clone(), origin.answered.clone());
        let mut thread = Thread::new(listener, migrated, stop, answered).map_err(failed)?;
        let stop = origin.stop.clone();
        host.spawn(
            "origin",
            move || stop.store(true, Relaxed),
            move || {
                // It ends with the poll; the clients notice.
                let _ = thread.run();
            },
        )?;
        Ok(origin)
    }

    /// What was answered so far.
    pub(crate) fn answered(&self) -> Answered {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

struct Thread {
    poll: Poll,
    listener: TcpListener,
    migrated: Migrated,
    connections: Slab<Connection>,
    stop: Arc<AtomicBool>,
    answered: Arc<Mutex<Answered>>,
}

struct Connection {
    stream: TcpStream,
    client: IpAddr,
    request: Vec<u8>,
    /// What is owed of the head of the answer, and of the content.
    head: Vec<u8>,
    body: &'static [u8],
}

impl Thread {
    fn new(
        mut listener: TcpListener,
        migrated: Migrated,
        stop: Arc<AtomicBool>,
        answered: Arc<Mutex<Answered>>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        migrated.set_nonblocking(true)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let descriptor = migrated.as_fd().as_raw_fd();
        poll.registry().register(&mut SourceFd(&descriptor), MIGRATED, Interest::READABLE)?;
        Ok(Self { poll, listener, migrated, connections: Slab::new(), stop, answered })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        while !self.stop.load(Relaxed) {
            match self.poll.poll(&mut events, Some(Duration::from_millis(100))) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => {
                        while let Ok((stream, client)) = self.listener.accept() {
                            self.enter(stream, client.ip());
                        }
                    }
                    MIGRATED => {
                        while let Ok((stream, announcement)) = self.migrated.accept() {
                            if stream.set_nonblocking(true).is_ok() {
                                self.enter(TcpStream::from_std(stream), announcement.client.ip());
                            }
                        }
                    }
                    Token(key) => self.serve(key),
                }
            }
        }
        Ok(())
    }

    fn enter(&mut self, mut stream: TcpStream, client: IpAddr) {
        let _ = stream.set_nodelay(true);
        let entry = self.connections.vacant_entry();
        let key = entry.key();
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(&mut stream, Token(key), interest).is_ok() {
            let client = client.to_canonical();
            let (request, head) = (Vec::new(), Vec::new());
            entry.insert(Connection { stream, client, request, head, body: &[] });
            self.serve(key);
        }
    }

    fn serve(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        match connection.serve(&self.answered) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Closing the descriptor takes it out of the poll, too.
            _ => drop(self.connections.remove(key)),
        }
    }
}

impl Connection {
    /// Goes on with one request and its answer; `WouldBlock` if that takes longer.
    fn serve(&mut self, answered: &Mutex<Answered>) -> io::Result<()> {
        let mut buffer = [0; LONGEST_HEAD];
        while self.body.is_empty() {
            match self.stream.read(&mut buffer)? {
                0 => return Ok(()),
                len => self.request.extend_from_slice(&buffer[..len]),
            }
            if !self.request.ends_with(b"\r\n\r\n") {
                continue;
            }
            let request = String::from_utf8_lossy(&self.request);
            let (len, id) = asked(&request).ok_or(io::ErrorKind::InvalidData)?;
            self.head = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n").into_bytes();
            self.body = content(len);
            let mut answered = answered.lock().unwrap_or_else(PoisonError::into_inner);
            answered.entry(id).or_insert((0, self.client)).0 += 1;
        }
        while !self.head.is_empty() {
            let parts = [io::IoSlice::new(&self.head), io::IoSlice::new(self.body)];
            let sent = self.stream.write_vectored(&parts)?;
            let of_head = sent.min(self.head.len());
            self.head.drain(..of_head);
            self.body = &self.body[sent - of_head..];
        }
        while !self.body.is_empty() {
            let sent = self.stream.write(self.body)?;
            self.body = &self.body[sent..];
        }
        Ok(())
    }
}
