//! Clients that open sessions, ask something on each of them, and compare the answers.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::gate::CLIENTS;
use super::{Numbers, QUESTION_LEN, initial_sequence};
use crate::attack::{ACK, RST, SYN, Segment};
use crate::traffic::pattern::Pattern;

/// Sessions of one client address.
const PER_ADDRESS: u64 = 50_000;
const FIRST_PORT: u16 = 10_000;

/// What has no answer for so long is said again.
const AGAIN: Duration = Duration::from_millis(300);

/// Sessions that may wait for something at a time: fewer than make a node challenge its clients, and
/// than overflow a queue.
const WINDOW: usize = 512;

/// All clients of a lab.
pub struct Clients {
    seed: u64,
    /// Where IPv4 and IPv6 sessions go to; session `n` takes the `n`th in turn.
    targets: Vec<SocketAddr>,
    sessions: Vec<Session>,
    /// The next session that has not begun what all are to do now.
    next: usize,
    /// Those that wait for something, and until when.
    waiting: VecDeque<(Duration, u32)>,
    outstanding: usize,
    tally: Tally,
    last_served: Duration,
}

/// How far all sessions are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Sessions that are established.
    pub established: u64,
    /// Answers that came, all told.
    pub answers: u64,
    /// Bytes of answers that were compared.
    pub verified: u64,
    /// How many of these were wrong.
    pub wrong: u64,
    /// Established sessions that were reset.
    pub reset: u64,
    /// Times that a client was refused before its session was established; it tries again.
    pub refused: u64,
    /// Segments that had to be sent again.
    pub repeated: u64,
}

#[derive(Debug, Clone, Copy)]
struct Session {
    numbers: Numbers,
    stage: Stage,
    /// Questions that were answered.
    answered: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Closed,
    /// The SYN is out.
    Opening,
    Quiet,
    /// A question is out.
    Asking,
    Reset,
}

impl Clients {
    /// `count` clients, each of which will connect to one of `targets` in turn.
    pub fn new(count: usize, targets: Vec<SocketAddr>, seed: u64) -> Self {
        let session = Session { numbers: Numbers::default(), stage: Stage::Closed, answered: 0 };
        Self {
            seed,
            targets,
            sessions: vec![session; count],
            next: count,
            waiting: VecDeque::new(),
            outstanding: 0,
            tally: Tally::default(),
            last_served: Duration::ZERO,
        }
    }

    /// Lets every session be opened that is not yet, and ask one question more.
    pub fn ask_all(&mut self) {
        self.next = 0;
    }

    /// Whether every session that is not reset has its answer.
    pub fn are_served(&self) -> bool {
        self.next == self.sessions.len() && self.outstanding == 0
    }

    /// When the last answer came.
    pub fn last_served(&self) -> Duration {
        self.last_served
    }

    /// How far all sessions are.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// When something has to be said again.
    pub fn deadline(&self) -> Option<Duration> {
        self.waiting.front().map(|&(at, _)| at)
    }

    /// The next segment that a client wants to send by itself.
    pub(super) fn poll(&mut self, now: Duration) -> Option<Segment> {
        while let Some(&(at, number)) = self.waiting.front()
            && at <= now
        {
            self.waiting.pop_front();
            let stage = self.sessions[number as usize].stage;
            if matches!(stage, Stage::Opening | Stage::Asking) {
                self.tally.repeated += 1;
                return Some(self.begin(number as usize, now));
            }
        }
        while self.outstanding < WINDOW && self.next < self.sessions.len() {
            let number = self.next;
            self.next += 1;
            let session = &mut self.sessions[number];
            session.stage = match session.stage {
                Stage::Closed => Stage::Opening,
                Stage::Quiet => Stage::Asking,
                _ => continue,
            };
            self.outstanding += 1;
            return Some(self.begin(number, now));
        }
        None
    }

    /// Says what the session's stage asks for, for the first time or again.
    fn begin(&mut self, number: usize, now: Duration) -> Segment {
        self.waiting.push_back((now + AGAIN, number as u32));
        let session = self.sessions[number];
        let (from, to) = self.ends(number);
        // The other end's segment, which this would be the answer to.
        let heard = Segment { from: to, to: from, seq: 0, ack: 0, flags: ACK, payload: Vec::new() };
        if session.stage == Stage::Opening {
            let seq = initial_sequence(self.seed, number as u64);
            return Segment { from, to, seq, flags: SYN, ..heard };
        }
        let question = self.question(number, session.answered);
        session.numbers.say(&heard, question.to_vec())
    }

    /// What a client says to the segment.
    pub(super) fn receive(&mut self, segment: &Segment, now: Duration) -> Option<Segment> {
        let number = self.number(segment.to)?;
        let session = &mut self.sessions[number];
        if segment.flags & RST != 0 {
            if session.stage == Stage::Opening {
                // Its SYN is repeated anyway.
                self.tally.refused += 1;
                return None;
            }
            if session.stage == Stage::Asking {
                self.outstanding -= 1;
            }
            self.tally.reset += u64::from(session.stage != Stage::Reset);
            session.stage = Stage::Reset;
            return None;
        }
        if segment.flags & SYN != 0 {
            let start = initial_sequence(self.seed, number as u64).wrapping_add(1);
            if session.stage == Stage::Opening && segment.ack == start {
                let receive_next = segment.seq.wrapping_add(1);
                session.numbers = Numbers { send_next: start, receive_next };
                session.stage = Stage::Asking;
                self.tally.established += 1;
                return Some(self.begin(number, now));
            }
            return Some(session.numbers.acknowledge(segment));
        }
        let len = segment.payload.len();
        if len == 0 || matches!(session.stage, Stage::Closed | Stage::Opening | Stage::Reset) {
            return None;
        }
        if segment.seq == session.numbers.receive_next && session.stage == Stage::Asking {
            session.numbers.receive_next = segment.seq.wrapping_add(len as u32);
            session.numbers.send_next = session.numbers.send_next.wrapping_add(QUESTION_LEN as u32);
            session.stage = Stage::Quiet;
            let expected = self.question(number, self.sessions[number].answered);
            self.compare(&expected, &segment.payload);
            self.sessions[number].answered += 1;
            self.outstanding -= 1;
            self.last_served = now;
        }
        Some(self.sessions[number].numbers.acknowledge(segment))
    }

    fn compare(&mut self, expected: &[u8], payload: &[u8]) {
        let wrong = expected.iter().zip(payload).filter(|(one, other)| one != other).count();
        self.tally.answers += 1;
        self.tally.verified += payload.len() as u64;
        self.tally.wrong += (wrong + expected.len().abs_diff(payload.len())) as u64;
    }

    /// What a session asks: nobody else's question, nor one that it has asked before.
    fn question(&self, number: usize, answered: u16) -> [u8; QUESTION_LEN] {
        let mut question = [0; QUESTION_LEN];
        let at = u64::from(answered) * QUESTION_LEN as u64;
        Pattern::new(self.seed ^ number as u64).fill(at, &mut question);
        question
    }

    /// Both ends of a session.
    fn ends(&self, number: usize) -> (SocketAddr, SocketAddr) {
        let to = self.targets[number % self.targets.len()];
        let nth = (number / self.targets.len()) as u64;
        let port = FIRST_PORT + (nth % PER_ADDRESS) as u16;
        let address = CLIENTS.address((nth / PER_ADDRESS) as u16, to.is_ipv6());
        (SocketAddr::new(address, port), to)
    }

    /// The session whose client end that is.
    fn number(&self, end: SocketAddr) -> Option<usize> {
        let turn = self.targets.iter().position(|to| to.is_ipv6() == end.is_ipv6())?;
        let port = u64::from(end.port().checked_sub(FIRST_PORT)?);
        let address = CLIENTS.number(end.ip())?;
        let nth = u64::from(address) * PER_ADDRESS + port;
        let number = nth as usize * self.targets.len() + turn;
        (number < self.sessions.len()).then_some(number)
    }
}
