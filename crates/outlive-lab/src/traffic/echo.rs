//! Bytes that come back: keys of an interactive session, and the proof of life of an idle one.

use std::collections::VecDeque;
use std::time::Duration;

use super::book::Failure;
use super::conversation::{Conversation, Got, Io, Next, Outbox};
use super::pattern::Pattern;

/// Bytes of one key: one could be anything, eight are surely this key and no other.
const KEY_LEN: usize = 8;

/// Keys that may be without an echo; a typist who sees none for so long stops typing.
const MOST_UNANSWERED: usize = 4096;

/// The server's end: everything goes back as it came.
#[derive(Default)]
pub(crate) struct Echo {
    outbox: Outbox,
}

impl Conversation for Echo {
    fn advance(&mut self, io: &mut Io<'_>) -> Result<Next, Failure> {
        loop {
            // Nothing is read that cannot be given back, so a client that does not read is held.
            if !self.outbox.flush(io)? {
                return Ok(Next::Wait(None));
            }
            match io.read(io.scratch.len())? {
                Got::Bytes(bytes) => self.outbox.push(&io.scratch[..bytes]),
                Got::Blocked => return Ok(Next::Wait(None)),
                Got::End => return Ok(Next::Done),
            }
        }
    }
}

/// The client's end: types a key now and then and watches for its echo.
pub(crate) struct Typist {
    pattern: Pattern,
    /// Time between two keys; nothing for one that types a single key at the very end.
    every: Option<Duration>,
    due: Duration,
    outbox: Outbox,
    typed: u64,
    echoed: u64,
    /// When the keys were typed that have no echo yet.
    unanswered: VecDeque<Duration>,
    winding_up: bool,
    closed: bool,
}

impl Typist {
    pub(crate) fn new(seed: u64, every: Option<Duration>, now: Duration) -> Self {
        Self {
            pattern: Pattern::new(seed),
            every,
            due: now,
            outbox: Outbox::default(),
            typed: 0,
            echoed: 0,
            unanswered: VecDeque::new(),
            winding_up: false,
            closed: false,
        }
    }

    fn press(&mut self, io: &Io<'_>) {
        let mut key = [0; KEY_LEN];
        self.pattern.fill(self.typed, &mut key);
        self.outbox.push(&key);
        self.typed += KEY_LEN as u64;
        self.unanswered.push_back(io.now);
    }

    /// Reads echoes until none is there; each must be the next byte typed.
    fn watch(&mut self, io: &mut Io<'_>) -> Result<(), Failure> {
        while self.echoed < self.typed {
            let limit = (self.typed - self.echoed) as usize;
            match io.read(limit)? {
                Got::Bytes(bytes) => {
                    let wrong = self.pattern.count_wrong(self.echoed, &io.scratch[..bytes]);
                    let keys_before = self.echoed / KEY_LEN as u64;
                    self.echoed += bytes as u64;
                    io.verified(bytes as u64, wrong)?;
                    for _ in keys_before..self.echoed / KEY_LEN as u64 {
                        if let Some(typed) = self.unanswered.pop_front() {
                            io.answered(typed);
                        }
                    }
                }
                Got::Blocked => return Ok(()),
                Got::End => return Err(Failure::EarlyEnd),
            }
        }
        Ok(())
    }
}

impl Conversation for Typist {
    fn advance(&mut self, io: &mut Io<'_>) -> Result<Next, Failure> {
        if io.winding_up && !self.winding_up {
            self.winding_up = true;
            // The last key is also the only one of an idle connection.
            self.press(io);
        } else if let Some(every) = self.every
            && !self.winding_up
            && io.now >= self.due
        {
            if self.unanswered.len() < MOST_UNANSWERED {
                self.press(io);
            }
            self.due = (self.due + every).max(io.now);
        }
        self.outbox.flush(io)?;
        self.watch(io)?;
        let all_answered = self.echoed == self.typed;
        if self.winding_up && all_answered && !self.closed {
            io.close_write()?;
            self.closed = true;
        }
        // With nothing unanswered, whatever comes is the end, or one byte too many.
        if all_answered && io.expect_end()? {
            return if self.closed { Ok(Next::Done) } else { Err(Failure::EarlyEnd) };
        }
        Ok(Next::Wait(self.every.filter(|_| !self.winding_up).map(|_| self.due)))
    }
}
