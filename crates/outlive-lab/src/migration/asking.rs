//! Clients: each opens a connection, asks once, and reads the answer to its end, which is compared byte by byte.
//!
//! One thread for as many as there are at a time. The latency of an answer counts from the call that sends the request (before which
//! nobody can have decided anything) to the call that gives the first byte of the answer.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};

use super::content::{next_id, request, wrong};
use crate::clock::Clock;
use crate::error::LabError;
use crate::host::Host;
use crate::report::as_seconds;
use crate::traffic::Failure;
use crate::traffic::book::new_histogram;

/// How a client that takes its time reads: so much at a time, and the pause after it.
const SIP: usize = 16 << 10;
const SIP_EVERY: Duration = Duration::from_millis(10);
/// A head longer than this is not of one of our servers.
const LONGEST_HEAD: usize = 4096;

/// What is asked for, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asking {
    pub(crate) to: SocketAddr,
    /// Bytes of each answer.
    pub(crate) len: usize,
    /// Connections at a time.
    pub(crate) at_once: usize,
    /// Whether the clients take their time, so that an answer is under way for long.
    pub(crate) slow: bool,
    /// After so long without a byte a client gives up.
    pub(crate) patience: Duration,
}

/// How long it goes on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until<'a> {
    /// So many were asked.
    Count(u64),
    /// Told to stop; what is under way then still comes to its end.
    Stopped(&'a AtomicBool),
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Numbers of the requests.
    pub(crate) asked: Vec<u64>,
    /// Answers that came whole and right.
    pub(crate) answered: u64,
    /// Bytes of content.
    pub(crate) bytes: u64,
    pub(crate) wrong: u64,
    pub(crate) lost: Vec<LostAnswer>,
    /// Microseconds from the request to the first byte of its answer.
    pub(crate) latency: Histogram<u64>,
    /// From the first connection to the last end.
    pub(crate) took: Duration,
}

/// A connection that did not end well.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct LostAnswer {
    pub(crate) id: u64,
    /// When it was opened, in seconds since the lab was built.
    #[serde(serialize_with = "as_seconds")]
    pub(crate) began: Duration,
    #[serde(serialize_with = "as_seconds")]
    pub(crate) ended: Duration,
    /// Bytes of the answer that had come, its head included.
    pub(crate) received: usize,
    pub(crate) why: Failure,
}

impl Default for Outcome {
    fn default() -> Self {
        Self {
            asked: Vec::new(),
            answered: 0,
            bytes: 0,
            wrong: 0,
            lost: Vec::new(),
            latency: new_histogram(),
            took: Duration::ZERO,
        }
    }
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.asked.extend(other.asked);
        self.answered += other.answered;
        self.bytes += other.bytes;
        self.wrong += other.wrong;
        self.lost.extend(other.lost);
        // Both have the same bounds.
        let _ = self.latency.add(other.latency);
        self.took = self.took.max(other.took);
    }
}

impl Asking {
    /// Asks from `host`.
    pub(crate) fn run(self, host: &Host, until: Until<'_>) -> Result<Outcome, LabError> {
        let failed = |error| LabError::Traffic("asking for content", error);
        let clock = host.clock();
        host.enter(|| Clients::new(self, until, clock)?.run())?.map_err(failed)
    }
}

struct Clients<'a> {
    asking: Asking,
    until: Until<'a>,
    clock: Clock,
    poll: Poll,
    slots: Vec<Option<Slot>>,
    outcome: Outcome,
}

struct Slot {
    id: u64,
    stream: TcpStream,
    began: Duration,
    /// What of the request the kernel has not taken.
    request: Vec<u8>,
    sent_at: Option<Instant>,
    heard_at: Instant,
    head: Vec<u8>,
    in_body: bool,
    body: usize,
}

impl<'a> Clients<'a> {
    fn new(asking: Asking, until: Until<'a>, clock: Clock) -> io::Result<Self> {
        let slots = (0..asking.at_once).map(|_| None).collect();
        let (poll, outcome) = (Poll::new()?, Outcome::default());
        Ok(Self { asking, until, clock, poll, slots, outcome })
    }

    fn goes_on(&self) -> bool {
        match self.until {
            Until::Count(count) => (self.outcome.asked.len() as u64) < count,
            Until::Stopped(stop) => !stop.load(Relaxed),
        }
    }

    fn run(mut self) -> io::Result<Outcome> {
        let began = Instant::now();
        let mut events = Events::with_capacity(256);
        let mut buffer = vec![0; 256 << 10];
        for key in 0..self.slots.len() {
            self.refill(key)?;
        }
        let pause = if self.asking.slow { SIP_EVERY } else { Duration::from_millis(100) };
        let mut looked = Instant::now();
        while self.slots.iter().any(Option::is_some) {
            match self.poll.poll(&mut events, Some(pause)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => result?,
            }
            if !self.asking.slow {
                for event in &events {
                    self.serve(event.token().0, &mut buffer)?;
                }
            }
            if looked.elapsed() < pause {
                continue;
            }
            looked = Instant::now();
            for key in 0..self.slots.len() {
                if self.asking.slow {
                    self.serve(key, &mut buffer[..SIP])?;
                }
                self.give_up_if_late(key)?;
            }
        }
        self.outcome.took = began.elapsed();
        Ok(self.outcome)
    }

    /// Opens the next connection, if there is to be one.
    fn refill(&mut self, key: usize) -> io::Result<()> {
        self.slots[key] = None;
        if !self.goes_on() {
            return Ok(());
        }
        let id = next_id();
        let mut stream = self.connect()?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(key), interest)?;
        self.outcome.asked.push(id);
        self.slots[key] = Some(Slot {
            id,
            stream,
            began: self.clock.now(),
            request: request(self.asking.len, id).into_bytes(),
            sent_at: None,
            heard_at: Instant::now(),
            head: Vec::new(),
            in_body: false,
            body: 0,
        });
        Ok(())
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let to = self.asking.to;
        let kind = Type::STREAM.nonblocking();
        let socket = Socket::new(Domain::for_address(to), kind, Some(Protocol::TCP))?;
        if self.asking.slow {
            // So that what a client does not read stays with the server.
            socket.set_recv_buffer_size(4 * SIP)?;
        }
        match socket.connect(&to.into()) {
            Err(error)
                if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) =>
            {
                Err(error)
            }
            _ => Ok(TcpStream::from_std(socket.into())),
        }
    }

    fn serve(&mut self, key: usize, buffer: &mut [u8]) -> io::Result<()> {
        let Some(slot) = &mut self.slots[key] else { return Ok(()) };
        let result = slot.advance(self.asking, buffer, &mut self.outcome);
        match result {
            Ok(()) => self.outcome.answered += 1,
            Err(error) if is_pending(&error) => return Ok(()),
            Err(error) => self.lose(key, reason(&error)),
        }
        self.refill(key)
    }

    fn give_up_if_late(&mut self, key: usize) -> io::Result<()> {
        let late = |slot: &Slot| slot.heard_at.elapsed() > self.asking.patience;
        if self.slots[key].as_ref().is_some_and(late) {
            self.lose(key, Failure::Unfinished);
            self.refill(key)?;
        }
        Ok(())
    }

    fn lose(&mut self, key: usize, why: Failure) {
        let Some(slot) = &self.slots[key] else { return };
        let received = slot.head.len() + slot.body;
        let (began, ended) = (slot.began, self.clock.now());
        self.outcome.lost.push(LostAnswer { id: slot.id, began, ended, received, why });
    }
}

impl Slot {
    /// Does what can be done now. Comes to an end with the answer, or with an error, which may be that it is to go on later.
    fn advance(
        &mut self,
        asking: Asking,
        buffer: &mut [u8],
        outcome: &mut Outcome,
    ) -> io::Result<()> {
        while !self.request.is_empty() {
            let now = Instant::now();
            let sent = self.stream.write(&self.request)?;
            self.sent_at.get_or_insert(now);
            self.request.drain(..sent);
        }
        loop {
            let len = match self.stream.read(buffer)? {
                0 if self.in_body && self.body == asking.len => return Ok(()),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                len => len,
            };
            self.heard_at = Instant::now();
            if let Some(sent_at) = self.sent_at.take() {
                let waited = self.heard_at - sent_at;
                outcome.latency.saturating_record(waited.as_micros() as u64);
            }
            self.take(asking, &buffer[..len], outcome)?;
            if asking.slow {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
    }

    fn take(&mut self, asking: Asking, data: &[u8], outcome: &mut Outcome) -> io::Result<()> {
        if self.in_body {
            return self.take_body(asking, data, outcome);
        }
        let old = self.head.len();
        self.head.extend_from_slice(data);
        let Some(end) = self.head.windows(4).position(|window| window == b"\r\n\r\n") else {
            let head_fits = self.head.len() <= LONGEST_HEAD;
            return if head_fits { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) };
        };
        if !self.head.starts_with(b"HTTP/1.1 200 ") {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.head.truncate(end + 4);
        self.in_body = true;
        self.take_body(asking, &data[self.head.len() - old..], outcome)
    }

    fn take_body(&mut self, asking: Asking, data: &[u8], outcome: &mut Outcome) -> io::Result<()> {
        let wrong = wrong(self.body, data);
        outcome.wrong += wrong;
        outcome.bytes += data.len() as u64;
        self.body += data.len();
        let right = wrong == 0 && self.body <= asking.len;
        if right { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}

fn reason(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Failure::EarlyEnd,
        io::ErrorKind::InvalidData => Failure::WrongData,
        kind => match error.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code).into(),
            None => io::Error::from(kind).into(),
        },
    }
}

/// Nothing there yet, or the handshake is not over.
fn is_pending(error: &io::Error) -> bool {
    use io::ErrorKind;
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted)
}
