//! Many HTTP clients in one thread, each asking as soon as it has its answer.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::Window;
use super::http_server::ANSWER;
use crate::error::LabError;
use crate::host::Host;
use crate::traffic::Failure;
use crate::traffic::book::new_histogram;

const KEEP_ALIVE: &[u8] = b"GET /lab HTTP/1.1\r\nHost: lab.example\r\n\r\n";
const CLOSE: &[u8] = b"GET /lab HTTP/1.1\r\nHost: lab.example\r\nConnection: close\r\n\r\n";

/// What the clients do.
#[derive(Debug, Clone, Copy)]
pub struct HttpLoad {
    /// Connections at any time.
    pub connections: usize,
    /// Whether each connection carries one request only.
    pub close: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct HttpResult {
    /// Answers per second inside the window.
    pub per_second: f64,
    /// Connections that were opened, over the whole time.
    pub connections: u64,
    /// Bytes of answers that were compared with what they must be, over the whole time.
    pub bytes: u64,
    /// Connections that broke, over the whole time.
    pub failed: u64,
    /// Why they did, and how many of them.
    pub failures: BTreeMap<Failure, u64>,
    /// Answers that were not the expected one, over the whole time.
    pub wrong: u64,
    /// Microseconds from a request (or the connection attempt) to the end of its answer, inside
    /// the window.
    pub latency: Histogram<u64>,
}

impl HttpLoad {
    /// Runs from `host` against `to`.
    pub fn run(self, host: &Host, to: SocketAddr, window: Window) -> Result<HttpResult, LabError> {
        let failed = |error| LabError::Traffic("HTTP load", error);
        host.enter(|| Clients::new(self, to)?.run(window))?.map_err(failed)
    }
}

struct Clients {
    poll: Poll,
    to: SocketAddr,
    request: &'static [u8],
    close: bool,
    slots: Vec<Slot>,
    answers: u64,
    result: HttpResult,
}

struct Slot {
    stream: TcpStream,
    asked: Instant,
    /// Bytes of the request that the kernel has taken, and bytes of the answer that have come.
    sent: usize,
    received: usize,
}

/// What a slot needs next.
enum Step {
    Wait,
    /// The answer is complete.
    Answered,
    /// The answer is complete and the connection over.
    Closed,
}

impl Clients {
    fn new(load: HttpLoad, to: SocketAddr) -> io::Result<Self> {
        let mut clients = Self {
            poll: Poll::new()?,
            to,
            request: if load.close { CLOSE } else { KEEP_ALIVE },
            close: load.close,
            slots: Vec::new(),
            answers: 0,
            result: HttpResult {
                per_second: 0.0,
                connections: 0,
                bytes: 0,
                failed: 0,
                failures: BTreeMap::new(),
                wrong: 0,
                latency: new_histogram(),
            },
        };
        for key in 0..load.connections {
            let slot = clients.connect(key)?;
            clients.slots.push(slot);
        }
        Ok(clients)
    }

    fn connect(&mut self, key: usize) -> io::Result<Slot> {
        self.result.connections += 1;
        let mut stream = TcpStream::connect(self.to)?;
        let _ = stream.set_nodelay(true);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(key), interest)?;
        Ok(Slot { stream, asked: Instant::now(), sent: 0, received: 0 })
    }

    fn run(mut self, window: Window) -> io::Result<HttpResult> {
        let mut events = Events::with_capacity(256);
        let mut buffer = vec![0; 16 << 10];
        let begin = Instant::now() + window.warm_up;
        let end = begin + window.length;
        let mut counted_from = None;
        loop {
            match self.poll.poll(&mut events, Some(Duration::from_millis(50))) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => result?,
            }
            let now = Instant::now();
            if counted_from.is_none() && now >= begin {
                counted_from = Some((now, self.answers));
                self.result.latency.reset();
            }
            if let Some((from, before)) = counted_from
                && now >= end
            {
                let took = (now - from).as_secs_f64();
                self.result.bytes = self.answers * ANSWER.len() as u64;
                self.result.per_second = (self.answers - before) as f64 / took;
                return Ok(self.result);
            }
            for event in &events {
                self.serve(event.token().0, &mut buffer)?;
            }
        }
    }

    fn serve(&mut self, key: usize, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            match self.slots[key].advance(self.request, self.close, buffer, &mut self.result.wrong)
            {
                Ok(Step::Wait) => return Ok(()),
                Ok(Step::Answered) => self.answered(key),
                Ok(Step::Closed) => {
                    self.answered(key);
                    self.slots[key] = self.connect(key)?;
                    return Ok(());
                }
                Err(error) => {
                    self.result.failed += 1;
                    *self.result.failures.entry(reason(error)).or_default() += 1;
                    self.slots[key] = self.connect(key)?;
                    return Ok(());
                }
            }
        }
    }

    fn answered(&mut self, key: usize) {
        let now = Instant::now();
        let slot = &mut self.slots[key];
        let micros = (now - slot.asked).as_micros() as u64;
        self.result.latency.saturating_record(micros);
        self.answers += 1;
        slot.asked = now;
        slot.sent = 0;
        slot.received = 0;
    }
}

impl Slot {
    fn advance(
        &mut self,
        request: &[u8],
        close: bool,
        buffer: &mut [u8],
        wrong: &mut u64,
    ) -> io::Result<Step> {
        if self.sent < request.len() {
            match self.stream.write(&request[self.sent..]) {
                Ok(len) => self.sent += len,
                Err(error) if is_pending(&error) => {}
                Err(error) => return Err(error),
            }
            // Nothing can have come before the request is out.
            return Ok(Step::Wait);
        }
        loop {
            let len = match self.stream.read(buffer) {
                Ok(0) if close && self.received == ANSWER.len() => return Ok(Step::Closed),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => len,
                Err(error) if is_pending(&error) => return Ok(Step::Wait),
                Err(error) => return Err(error),
            };
            let expected = ANSWER.get(self.received..self.received + len);
            if expected != Some(&buffer[..len]) {
                *wrong += 1;
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.received += len;
            if !close && self.received == ANSWER.len() {
                return Ok(Step::Answered);
            }
        }
    }
}

fn reason(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Failure::EarlyEnd,
        io::ErrorKind::InvalidData => Failure::WrongData,
        _ => error.into(),
    }
}

/// Nothing there yet, or the handshake is not over.
fn is_pending(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected)
}
