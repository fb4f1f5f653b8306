//! A minimal HTTP/1.1 server: the same small answer to everything, kept alive or closed.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use crate::error::LabError;
use crate::host::Host;
use crate::traffic::listen;

/// The whole answer: a head and 128 bytes.
pub(super) const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\
    Content-Length: 128\r\n\r\n\
    0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\
    0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// In the request of a client that wants one answer only.
pub(super) const CLOSE: &[u8] = b"Connection: close";

const END_OF_HEAD: &[u8] = b"\r\n\r\n";
const LISTENER: Token = Token(usize::MAX);

/// A request head longer than this is not one of ours.
const LONGEST_HEAD: usize = 4096;

/// A thread that answers requests. Dropping it ends it.
pub struct HttpServer {
    stop: Arc<AtomicBool>,
}

impl HttpServer {
    /// Listens at `port` of `host`.
    pub fn start(host: &Host, port: u16) -> Result<Self, LabError> {
        let failed = |error| LabError::Traffic("starting an HTTP server", error);
        let listener = host.enter(|| listen(port))?.map_err(failed)?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut thread = Thread::new(listener, stop.clone()).map_err(failed)?;
        let stop_later = stop.clone();
        host.spawn(
            "http",
            move || stop_later.store(true, Relaxed),
            move || {
                // It ends with the poll; the clients notice.
                let _ = thread.run();
            },
        )?;
        Ok(Self { stop })
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

struct Thread {
    poll: Poll,
    listener: TcpListener,
    connections: Slab<Connection>,
    stop: Arc<AtomicBool>,
}

struct Connection {
    stream: TcpStream,
    /// The part of a request that has come; empty in the usual case that it came whole.
    partial: Vec<u8>,
    /// Answers that the kernel has not taken: bytes of `ANSWER`s still to be written.
    owed: usize,
    closing: bool,
}

impl Thread {
    fn new(mut listener: TcpListener, stop: Arc<AtomicBool>) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self { poll, listener, connections: Slab::new(), stop })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        let mut buffer = vec![0; 16 << 10];
        while !self.stop.load(Relaxed) {
            match self.poll.poll(&mut events, Some(Duration::from_millis(100))) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(&mut buffer),
                    Token(key) => self.serve(key, &mut buffer),
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self, buffer: &mut [u8]) {
        while let Ok((mut stream, _)) = self.listener.accept() {
            let _ = stream.set_nodelay(true);
            let entry = self.connections.vacant_entry();
            let key = entry.key();
            let interest = Interest::READABLE | Interest::WRITABLE;
            if self.poll.registry().register(&mut stream, Token(key), interest).is_ok() {
                entry.insert(Connection { stream, partial: Vec::new(), owed: 0, closing: false });
                self.serve(key, buffer);
            }
        }
    }

    fn serve(&mut self, key: usize, buffer: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if !matches!(connection.serve(buffer), Ok(true)) {
            // Closing the descriptor takes it out of the poll, too.
            drop(self.connections.remove(key));
        }
    }
}

impl Connection {
    /// Answers what has come; whether the connection stays.
    fn serve(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        loop {
            if !self.pay()? {
                return Ok(true);
            }
            if self.closing {
                return Ok(false);
            }
            let len = match self.stream.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            };
            self.take(&buffer[..len]);
            self.pay()?;
            // A short read has emptied the socket: the next arrival is announced again.
            if len < buffer.len() && self.owed == 0 && !self.closing {
                return Ok(self.partial.len() <= LONGEST_HEAD);
            }
        }
    }

    /// Counts the requests that are complete with `data`.
    fn take(&mut self, data: &[u8]) {
        if self.partial.is_empty() && data.ends_with(END_OF_HEAD) {
            self.count(data);
            return;
        }
        self.partial.extend_from_slice(data);
        let partial = std::mem::take(&mut self.partial);
        let end = partial.windows(4).rposition(|window| window == END_OF_HEAD).map(|at| at + 4);
        let (complete, rest) = partial.split_at(end.unwrap_or(0));
        self.count(complete);
        self.partial = rest.to_vec();
    }

    fn count(&mut self, requests: &[u8]) {
        let ends = requests.windows(4).filter(|window| *window == END_OF_HEAD);
        self.owed += ends.count() * ANSWER.len();
        self.closing |= requests.windows(CLOSE.len()).any(|window| window == CLOSE);
    }

    /// Writes what is owed; whether nothing is owed any more.
    fn pay(&mut self) -> io::Result<bool> {
        while self.owed > 0 {
            // The end of what is owed is the end of an answer.
            let rest = match self.owed % ANSWER.len() {
                0 => ANSWER.len(),
                rest => rest,
            };
            match self.stream.write(&ANSWER[ANSWER.len() - rest..]) {
                Ok(written) => self.owed -= written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
