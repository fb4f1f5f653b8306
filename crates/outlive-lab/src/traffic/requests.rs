//! Small messages, each answered by one, each verified: either end.

use std::time::Duration;

use super::book::Failure;
use super::conversation::{Conversation, Got, Io, Next, Outbox};
use super::pattern::Pattern;

/// Number and length before each payload.
const HEAD_LEN: usize = 12;

/// The client's end: asks, waits for the answer, asks again.
pub(crate) struct RequestClient {
    seed: u64,
    every: Duration,
    request: u32,
    response: u32,
    outbox: Outbox,
    inbox: MessageReader,
    number: u64,
    due: Duration,
    asked: Option<Duration>,
    closed: bool,
}

impl RequestClient {
    pub(crate) fn new(
        seed: u64,
        every: Duration,
        request: u32,
        response: u32,
        now: Duration,
    ) -> Self {
        Self {
            seed,
            every,
            request,
            response,
            outbox: Outbox::default(),
            inbox: MessageReader::default(),
            number: 0,
            due: now,
            asked: None,
            closed: false,
        }
    }
}

impl Conversation for RequestClient {
    fn advance(&mut self, io: &mut Io<'_>) -> Result<Next, Failure> {
        // Without a pace, answers may come as fast as they are read; others want their turn, too.
        for _ in 0..16 {
            if let Some(asked) = self.asked {
                self.outbox.flush(io)?;
                let answer = answers(self.seed);
                if !self.inbox.read(io, answer, self.number, self.response)? {
                    return Ok(Next::Wait(None));
                }
                io.answered(asked);
                self.asked = None;
                self.number += 1;
                self.due = (self.due + self.every).max(io.now);
            }
            if io.winding_up {
                if !self.closed {
                    io.close_write()?;
                    self.closed = true;
                }
                return Ok(if io.expect_end()? { Next::Done } else { Next::Wait(None) });
            }
            if io.now < self.due {
                // Nothing is expected; what comes all the same is the end of the connection.
                return if io.expect_end()? {
                    Err(Failure::EarlyEnd)
                } else {
                    Ok(Next::Wait(Some(self.due)))
                };
            }
            push_message(&mut self.outbox, requests(self.seed), self.number, self.request, io);
            self.asked = Some(io.now);
        }
        Ok(Next::Wait(Some(io.now)))
    }
}

/// The server's end: answers what comes until the client closes.
pub(crate) struct RequestServer {
    seed: u64,
    request: u32,
    response: u32,
    outbox: Outbox,
    inbox: MessageReader,
    number: u64,
}

impl RequestServer {
    pub(crate) fn new(seed: u64, request: u32, response: u32) -> Self {
        let (outbox, inbox) = (Outbox::default(), MessageReader::default());
        Self { seed, request, response, outbox, inbox, number: 0 }
    }
}

impl Conversation for RequestServer {
    fn advance(&mut self, io: &mut Io<'_>) -> Result<Next, Failure> {
        for _ in 0..16 {
            if !self.outbox.flush(io)? {
                return Ok(Next::Wait(None));
            }
            match self.inbox.read(io, requests(self.seed), self.number, self.request) {
                Ok(true) => {
                    push_message(
                        &mut self.outbox,
                        answers(self.seed),
                        self.number,
                        self.response,
                        io,
                    );
                    self.number += 1;
                }
                Ok(false) => return Ok(Next::Wait(None)),
                // Between two messages, the end is the end.
                Err(Failure::EarlyEnd) if self.inbox.is_empty() => return Ok(Next::Done),
                Err(failure) => return Err(failure),
            }
        }
        Ok(Next::Wait(Some(io.now)))
    }
}

fn requests(seed: u64) -> u64 {
    seed
}

fn answers(seed: u64) -> u64 {
    !seed
}

/// The payload of a message depends on its number, so an old answer cannot pass for a new one.
fn payload(seed: u64, number: u64) -> Pattern {
    Pattern::new(seed.wrapping_add(number.wrapping_mul(0x2545_f491_4f6c_dd1d)))
}

fn push_message(outbox: &mut Outbox, seed: u64, number: u64, len: u32, io: &mut Io<'_>) {
    let mut head = [0; HEAD_LEN];
    head[..8].copy_from_slice(&number.to_be_bytes());
    head[8..].copy_from_slice(&len.to_be_bytes());
    outbox.push(&head);
    let body = &mut io.scratch[..len as usize];
    payload(seed, number).fill(0, body);
    outbox.push(body);
}

/// Collects one message and verifies it.
#[derive(Debug, Default)]
struct MessageReader {
    bytes: Vec<u8>,
}

impl MessageReader {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether the message of that number and payload length is complete; it is verified then.
    fn read(&mut self, io: &mut Io<'_>, seed: u64, number: u64, len: u32) -> Result<bool, Failure> {
        let whole = HEAD_LEN + len as usize;
        while self.bytes.len() < whole {
            match io.read(whole - self.bytes.len())? {
                Got::Bytes(bytes) => self.bytes.extend_from_slice(&io.scratch[..bytes]),
                Got::Blocked => return Ok(false),
                Got::End => return Err(Failure::EarlyEnd),
            }
        }
        let mut head = [0; HEAD_LEN];
        head[..8].copy_from_slice(&number.to_be_bytes());
        head[8..].copy_from_slice(&len.to_be_bytes());
        let wrong_head = head.iter().zip(&self.bytes).filter(|(one, other)| one != other).count();
        let wrong_body = payload(seed, number).count_wrong(0, &self.bytes[HEAD_LEN..]);
        self.bytes.clear();
        io.verified(whole as u64, wrong_head as u64 + wrong_body)?;
        Ok(true)
    }
}
