//! Verified streams: either end of a [`Transfer`].

use std::time::Duration;

use super::book::{Failure, Side};
use super::conversation::{Conversation, Got, Io, Next, Outbox, earlier};
use super::pattern::{Pattern, StreamHash};
use super::plan::{Reader, Transfer};
use super::protocol::{RECEIPT_LEN, Receipt};

/// Pieces in a row before other connections of the thread get their turn.
const PIECES_PER_TURN: usize = 8;

/// One end of a transfer.
pub(crate) struct TransferEnd {
    side: Side,
    sending: Sending,
    receiving: Receiving,
    server_closes_first: bool,
}

impl TransferEnd {
    /// The end at `side` of a transfer whose patterns have `seed`.
    pub(crate) fn new(side: Side, plan: Transfer, seed: u64, now: Duration) -> Self {
        let (up, down) = (Pattern::new(seed), Pattern::new(!seed));
        let client = side == Side::Client;
        let (send, receive) = if client {
            ((up, plan.up, plan.up_pace), (down, plan.down, plan.reader))
        } else {
            ((down, plan.down, plan.down_pace), (up, plan.up, plan.server_reader))
        };
        Self {
            side,
            sending: Sending::new(send.0, send.1, send.2, now),
            receiving: Receiving::new(receive.0, receive.1, receive.2, client, now),
            server_closes_first: plan.server_closes_first,
        }
    }

    /// Whether the sender may say its last word: a server waits for the whole upload.
    fn may_conclude(&self) -> bool {
        self.side == Side::Client || self.server_closes_first || self.receiving.ended
    }

    fn last_word(&self) -> Option<Receipt> {
        (self.side == Side::Server).then(|| Receipt {
            received: self.receiving.position,
            received_hash: self.receiving.hash.value(),
            sent_hash: self.sending.hash.value(),
        })
    }

    /// The client's comparison of both hashes, once everything has come.
    fn check_receipt(&self) -> Result<(), Failure> {
        if self.side == Side::Server {
            return Ok(());
        }
        let receipt = Receipt::decode(&self.receiving.receipt);
        let upload = self.server_closes_first
            || (receipt.received, receipt.received_hash)
                == (self.sending.position, self.sending.hash.value());
        let download = receipt.sent_hash == self.receiving.hash.value();
        if upload && download { Ok(()) } else { Err(Failure::WrongData) }
    }
}

impl Conversation for TransferEnd {
    fn advance(&mut self, io: &mut Io<'_>) -> Result<Next, Failure> {
        let mut wake = None;
        for _ in 0..PIECES_PER_TURN {
            let receiving = self.receiving.step(io)?;
            let mut sending = self.sending.step(io)?;
            if sending == Step::Finished && !self.sending.closed && self.may_conclude() {
                sending = self.sending.conclude(self.last_word(), io)?;
            }
            if self.sending.closed && self.receiving.ended {
                self.check_receipt()?;
                return Ok(Next::Done);
            }
            wake = earlier(sending.wake(), receiving.wake());
            if sending != Step::Moved && receiving != Step::Moved {
                return Ok(Next::Wait(wake));
            }
        }
        Ok(Next::Wait(earlier(wake, Some(io.now))))
    }
}

/// What one step of one direction came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Bytes moved; there may be more.
    Moved,
    /// The socket has to become ready.
    Blocked,
    /// The plan says: not before this time.
    Until(Duration),
    /// This direction has nothing left to do by itself.
    Finished,
}

impl Step {
    fn wake(self) -> Option<Duration> {
        if let Self::Until(at) = self { Some(at) } else { None }
    }
}

/// Bytes per second since a start.
#[derive(Debug, Clone, Copy)]
struct Pace {
    per_second: Option<u64>,
    start: Duration,
}

/// Who was held up does not make up for more than this: a stream goes on at its pace.
const MOST_LATE: Duration = Duration::from_millis(20);

/// Five hundred portions per second are smooth enough; smaller ones than this only cost.
const SMALLEST_PORTION: u64 = 16 << 10;

impl Pace {
    /// How many bytes may move now if `position` have moved, or when to ask again.
    fn allowance(&mut self, position: u64, now: Duration) -> Result<usize, Duration> {
        let Some(per_second) = self.per_second else { return Ok(usize::MAX) };
        let time_of = |bytes: u64| Duration::from_secs_f64(bytes as f64 / per_second as f64);
        self.start = self.start.max(now.saturating_sub(time_of(position) + MOST_LATE));
        let elapsed = now.saturating_sub(self.start).as_secs_f64();
        let allowed = (per_second as f64 * elapsed) as u64;
        if allowed > position {
            return Ok((allowed - position) as usize);
        }
        // A slow one moves single bytes rather than one portion in several seconds.
        let portion = (per_second / 500).max(SMALLEST_PORTION).min(per_second / 20).max(1);
        Err(self.start + time_of(position + portion))
    }
}

struct Sending {
    pattern: Pattern,
    total: u64,
    pace: Pace,
    position: u64,
    hash: StreamHash,
    last_word: Option<Outbox>,
    closed: bool,
}

impl Sending {
    fn new(pattern: Pattern, total: u64, per_second: Option<u64>, now: Duration) -> Self {
        let pace = Pace { per_second, start: now };
        let hash = StreamHash::default();
        Self { pattern, total, pace, position: 0, hash, last_word: None, closed: false }
    }

    fn step(&mut self, io: &mut Io<'_>) -> Result<Step, Failure> {
        let rest = self.total - self.position;
        if rest == 0 {
            return Ok(Step::Finished);
        }
        let allowance = match self.pace.allowance(self.position, io.now) {
            Ok(allowance) => allowance,
            Err(at) => return Ok(Step::Until(at)),
        };
        let len = rest.min(allowance as u64).min(io.scratch.len() as u64) as usize;
        self.pattern.fill(self.position, &mut io.scratch[..len]);
        let written = io.write_scratch(len)?;
        if written == 0 {
            return Ok(Step::Blocked);
        }
        self.hash.update(&io.scratch[..written]);
        self.position += written as u64;
        Ok(Step::Moved)
    }

    /// After the last byte: the last word, then the end of this direction.
    fn conclude(&mut self, word: Option<Receipt>, io: &mut Io<'_>) -> Result<Step, Failure> {
        let outbox = self.last_word.get_or_insert_with(|| {
            let mut outbox = Outbox::default();
            if let Some(receipt) = word {
                outbox.push(&receipt.encode());
            }
            outbox
        });
        if !outbox.flush(io)? {
            return Ok(Step::Blocked);
        }
        io.close_write()?;
        self.closed = true;
        Ok(Step::Finished)
    }
}

struct Receiving {
    pattern: Pattern,
    total: u64,
    reader: Reader,
    pace: Pace,
    stopped_until: Option<Duration>,
    position: u64,
    hash: StreamHash,
    /// Only the server writes one.
    receipt_expected: bool,
    receipt: [u8; RECEIPT_LEN],
    receipt_len: usize,
    ended: bool,
}

impl Receiving {
    fn new(pattern: Pattern, total: u64, reader: Reader, receipt: bool, now: Duration) -> Self {
        Self {
            pattern,
            total,
            reader,
            pace: Pace { per_second: reader.pace, start: now },
            stopped_until: None,
            position: 0,
            hash: StreamHash::default(),
            receipt_expected: receipt,
            receipt: [0; RECEIPT_LEN],
            receipt_len: 0,
            ended: false,
        }
    }

    fn step(&mut self, io: &mut Io<'_>) -> Result<Step, Failure> {
        if self.ended {
            return Ok(Step::Finished);
        }
        if let Some(at) = self.stopped(io.now) {
            io.notes.waits.rest(io.now);
            return Ok(Step::Until(at));
        }
        if self.position < self.total {
            return self.data(io);
        }
        if self.receipt_expected && self.receipt_len < RECEIPT_LEN {
            return self.receipt(io);
        }
        self.ended = io.expect_end()?;
        Ok(if self.ended { Step::Moved } else { Step::Blocked })
    }

    fn data(&mut self, io: &mut Io<'_>) -> Result<Step, Failure> {
        let allowance = match self.pace.allowance(self.position, io.now) {
            Ok(allowance) => allowance,
            Err(at) => {
                io.notes.waits.rest(io.now);
                return Ok(Step::Until(at));
            }
        };
        let limit = (self.total - self.position).min(allowance as u64) as usize;
        match io.read(limit)? {
            Got::Bytes(bytes) => {
                io.notes.waits.rest(io.now);
                let data = &io.scratch[..bytes];
                let wrong = self.pattern.count_wrong(self.position, data);
                self.hash.update(data);
                self.position += bytes as u64;
                io.verified(bytes as u64, wrong)?;
                Ok(Step::Moved)
            }
            Got::Blocked => {
                io.notes.waits.owe(io.now);
                Ok(Step::Blocked)
            }
            Got::End => Err(Failure::EarlyEnd),
        }
    }

    fn receipt(&mut self, io: &mut Io<'_>) -> Result<Step, Failure> {
        match io.read(RECEIPT_LEN - self.receipt_len)? {
            Got::Bytes(bytes) => {
                let end = self.receipt_len + bytes;
                self.receipt[self.receipt_len..end].copy_from_slice(&io.scratch[..bytes]);
                self.receipt_len = end;
                Ok(Step::Moved)
            }
            Got::Blocked => Ok(Step::Blocked),
            Got::End => Err(Failure::EarlyEnd),
        }
    }

    /// Until when this reader does not read, if it has come to where it stops.
    fn stopped(&mut self, now: Duration) -> Option<Duration> {
        if self.reader.stop_for.is_zero() || self.position < self.reader.stop_after {
            return None;
        }
        let until = *self.stopped_until.get_or_insert(now + self.reader.stop_for);
        (now < until).then_some(until)
    }
}
