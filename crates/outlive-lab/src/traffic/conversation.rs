//! One end of a connection as a state machine, and its access to the socket.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpStream;

use super::book::{Book, Failure, Group, Side};
use super::waits::{Wait, Waits};

/// What an end does with its connection. It is called whenever the socket may have become
/// readable or writable, and when the time is up that it asked to be called at; it does what can
/// be done without blocking.
pub(crate) trait Conversation: Send {
    /// Goes on as far as possible.
    fn advance(&mut self, io: &mut Io<'_>) -> Result<Next, Failure>;
}

/// What is to happen with a conversation.
pub(crate) enum Next {
    /// Call again when the socket is ready, or at this time.
    Wait(Option<Duration>),
    /// Everything went as planned; close the socket.
    Done,
    /// The opening has been read: this connection is number `id` and goes on like this.
    Become(u64, Arc<Group>, Box<dyn Conversation>),
}

/// The earlier one of two times to be called at.
pub(crate) fn earlier(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// What a conversation sees of the world.
pub(crate) struct Io<'a> {
    pub(crate) stream: &'a mut TcpStream,
    /// Room for one read or write.
    pub(crate) scratch: &'a mut [u8],
    /// The lab's clock.
    pub(crate) now: Duration,
    /// Endless conversations are to come to their end.
    pub(crate) winding_up: bool,
    pub(crate) book: &'a Book,
    pub(crate) group: &'a Group,
    pub(crate) side: Side,
    pub(crate) notes: &'a mut Notes,
}

/// What an end has counted so far.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) sent: u64,
    pub(crate) verified: u64,
    pub(crate) wrong: u64,
    pub(crate) waits: Waits,
}

/// The outcome of a read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Got {
    /// That many bytes stand in `scratch`.
    Bytes(usize),
    /// Nothing there at the moment.
    Blocked,
    /// The other end has closed its direction.
    End,
}

impl Io<'_> {
    /// Reads at most `limit` bytes into `scratch`. `limit` is not zero.
    pub(crate) fn read(&mut self, limit: usize) -> Result<Got, Failure> {
        let limit = limit.min(self.scratch.len());
        match retry(|| self.stream.read(&mut self.scratch[..limit])) {
            Ok(0) => Ok(Got::End),
            Ok(bytes) => {
                self.group.arrived(self.side, self.now, bytes as u64);
                Ok(Got::Bytes(bytes))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Got::Blocked),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes what the kernel takes of the first `len` bytes of `scratch`; 0 if it is full.
    pub(crate) fn write_scratch(&mut self, len: usize) -> Result<usize, Failure> {
        let result = retry(|| self.stream.write(&self.scratch[..len]));
        self.written(result)
    }

    /// Writes what the kernel takes of `data`; 0 if it is full.
    pub(crate) fn write(&mut self, data: &[u8]) -> Result<usize, Failure> {
        let result = retry(|| self.stream.write(data));
        self.written(result)
    }

    /// Closes this end's direction.
    pub(crate) fn close_write(&mut self) -> Result<(), Failure> {
        Ok(self.stream.shutdown(Shutdown::Write)?)
    }

    /// Counts `bytes` as compared, `wrong` of them as different. A stream with a wrong byte is not
    /// followed further: nothing after it could be trusted.
    pub(crate) fn verified(&mut self, bytes: u64, wrong: u64) -> Result<(), Failure> {
        self.notes.verified += bytes;
        self.notes.wrong += wrong;
        if wrong == 0 { Ok(()) } else { Err(Failure::WrongData) }
    }

    /// An answer came now to what was sent at `sent`.
    pub(crate) fn answered(&mut self, sent: Duration) {
        self.group.answered_after(self.now - sent);
        self.notes.waits.keep(Wait { from: sent, to: self.now });
    }

    /// The other end closed; nothing was missing. Anything but the end would be a byte too many.
    pub(crate) fn expect_end(&mut self) -> Result<bool, Failure> {
        match self.read(1)? {
            Got::End => Ok(true),
            Got::Blocked => Ok(false),
            Got::Bytes(bytes) => {
                self.verified(bytes as u64, bytes as u64)?;
                Ok(false)
            }
        }
    }

    fn written(&mut self, result: std::io::Result<usize>) -> Result<usize, Failure> {
        match result {
            Ok(bytes) => {
                self.notes.sent += bytes as u64;
                Ok(bytes)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}

fn retry<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Bytes on their way into the socket.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    at: usize,
}

impl Outbox {
    pub(crate) fn push(&mut self, data: &[u8]) {
        if self.at == self.bytes.len() {
            self.bytes.clear();
            self.at = 0;
        }
        self.bytes.extend_from_slice(data);
    }

    /// Writes what the kernel takes; whether the box is empty now.
    pub(crate) fn flush(&mut self, io: &mut Io<'_>) -> Result<bool, Failure> {
        while self.at < self.bytes.len() {
            let written = io.write(&self.bytes[self.at..])?;
            if written == 0 {
                return Ok(false);
            }
            self.at += written;
        }
        Ok(true)
    }
}
