//! The thread: reads questions, answers what it can, hands orders on.

use std::{
    io,
    net::SocketAddr,
    os::fd::AsRawFd,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use mio::{Events, Interest, Poll, Token, Waker, unix::SourceFd};
use outlive_net::privilege;
use outlive_proxy::pair::order::Outcome;
use outlive_tcp::time::Time;
use tracing::warn;

use super::{
    Pending, ResponderConfig, Shared, lock,
    wire::{Answer, NodeState, NotUnderstood, QUESTION_LEN, Question},
};
use crate::clock::Clock;

const WAKER: Token = Token(usize::MAX);
/// Below the heartbeats, above everything ordinary.
const PRIORITY: u8 = 19;
/// Datagrams read of one socket before others get their turn.
const BUDGET: usize = 32;
/// After this long a challenge is replaced; the one before is still accepted. So an order that somebody has recorded
/// is worth nothing after twice the time.
const CHALLENGE_LIFE: Duration = Duration::from_secs(2);
/// What is wrong with what arrives is logged no more often than this.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

pub(super) struct Listener {
    config: ResponderConfig,
    clock: Clock,
    shared: Arc<Shared>,
    /// Wakes the event loop.
    main: Arc<Waker>,
    poll: Poll,
    waker: Arc<Waker>,
    readable: Vec<bool>,
    challenges: Challenges,
    complained: Option<Time>,
}

/// Random numbers that a detector repeats in its orders, to show that it gives them now.
struct Challenges {
    current: u64,
    previous: u64,
    since: Time,
}

impl Challenges {
    fn new(now: Time) -> io::Result<Self> {
        Ok(Challenges { current: random()?, previous: random()?, since: now })
    }

    fn turn(&mut self, now: Time) {
        if now.since(self.since) < CHALLENGE_LIFE {
            return;
        }
        // Without a random number the old one has to serve: there was one at the start.
        if let Ok(next) = random() {
            self.previous = std::mem::replace(&mut self.current, next);
            self.since = now;
        }
    }

    fn knows(&self, challenge: u64) -> bool {
        challenge == self.current || challenge == self.previous
    }
}

fn random() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::other)
}

impl Listener {
    pub(super) fn new(
        config: ResponderConfig,
        clock: Clock,
        shared: Arc<Shared>,
        main: Arc<Waker>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        for (number, socket) in shared.sockets.iter().enumerate() {
            let descriptor = socket.as_raw_fd();
            let read = Interest::READABLE;
            poll.registry().register(&mut SourceFd(&descriptor), Token(number), read)?;
        }
        Ok(Listener {
            readable: vec![true; shared.sockets.len()],
            challenges: Challenges::new(clock.now())?,
            config,
            clock,
            shared,
            main,
            poll,
            waker,
            complained: None,
        })
    }

    pub(super) fn waker(&self) -> Arc<Waker> {
        self.waker.clone()
    }

    pub(super) fn run(mut self) {
        // The heartbeats have said already if it is not allowed.
        let _ = privilege::set_realtime(PRIORITY);
        let mut events = Events::with_capacity(16);
        while !self.shared.stop.load(Ordering::Acquire) {
            let busy = self.readable.contains(&true);
            let wait = if busy { Duration::ZERO } else { Duration::from_secs(1) };
            if let Err(error) = self.poll.poll(&mut events, Some(wait))
                && error.kind() != io::ErrorKind::Interrupted
            {
                warn!(%error, "the detector's thread cannot wait for its sockets");
                std::thread::sleep(Duration::from_secs(1));
            }
            for event in &events {
                if let Some(readable) = self.readable.get_mut(event.token().0) {
                    *readable = true;
                }
            }
            for socket in 0..self.readable.len() {
                self.receive(socket);
            }
        }
    }

    fn receive(&mut self, socket: usize) {
        for turn in 1..=BUDGET {
            if !self.readable[socket] {
                break;
            }
            // One byte more than a question shows that a datagram is longer.
            let mut buffer = [0; QUESTION_LEN + 1];
            match self.shared.sockets[socket].recv_from(&mut buffer) {
                Ok((len, from)) => self.datagram(socket, &buffer[..len], from),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable[socket] = false;
                }
                // An earlier answer drew an ICMP error: the detector is gone. This thread must not spin.
                Err(_) => self.readable[socket] = turn < BUDGET,
            }
        }
    }

    fn datagram(&mut self, socket: usize, datagram: &[u8], from: SocketAddr) {
        let now = self.clock.now();
        let state = self.state();
        let question = match Question::decode(datagram, &self.config.key) {
            Ok(question) if question.node == state.node => question,
            refused => {
                self.shared.refused.fetch_add(1, Ordering::Relaxed);
                self.complain(now, from, refused.err());
                return;
            }
        };
        if !self.lives(now) {
            return;
        }
        self.shared.questions.fetch_add(1, Ordering::Relaxed);
        self.shared.last_heard.store(now.as_micros() + 1, Ordering::Relaxed);
        self.challenges.turn(now);
        let news = question.epoch > state.epoch;
        let Some(ticket) = question.order else {
            if news {
                self.hand_on(&question, None);
            }
            self.answer(socket, &question, state, None, from);
            return;
        };
        if ticket.incarnation != state.incarnation || !self.challenges.knows(ticket.challenge) {
            self.answer(socket, &question, state, Some(Outcome::Stale), from);
            return;
        }
        self.shared.orders.fetch_add(1, Ordering::Relaxed);
        let pending = Pending { question, challenge: self.challenges.current, socket, from };
        self.hand_on(&question, Some(pending));
    }

    fn hand_on(&self, question: &Question, pending: Option<Pending>) {
        let mut inbox = lock(&self.shared.inbox);
        inbox.epoch = inbox.epoch.max(question.epoch);
        if let (Some(order), Some(pending)) = (question.order(), pending) {
            inbox.order = Some((order, pending));
        }
        drop(inbox);
        // Pairs with the event loop's swap before it empties the inbox.
        self.shared.arrived.store(true, Ordering::Release);
        // Without it the event loop looks by itself, soon.
        let _ = self.main.wake();
    }

    fn answer(
        &self,
        socket: usize,
        question: &Question,
        state: NodeState,
        outcome: Option<Outcome>,
        to: SocketAddr,
    ) {
        let answer =
            Answer { number: question.number, state, challenge: self.challenges.current, outcome };
        // What is lost is asked for again.
        let _ = self.shared.sockets[socket].send_to(&answer.encode(&self.config.key), to);
    }

    fn state(&self) -> NodeState {
        let sessions = self.shared.sessions.load(Ordering::Relaxed);
        NodeState { sessions, ..*lock(&self.shared.state) }
    }

    /// Whether the event loop has made progress lately.
    fn lives(&self, now: Time) -> bool {
        let progress = Time::from_micros(self.shared.progress.load(Ordering::Relaxed));
        now.since(progress) <= self.config.stall_timeout
    }

    fn complain(&mut self, now: Time, from: SocketAddr, why: Option<NotUnderstood>) {
        if self.complained.is_some_and(|at| now.since(at) < COMPLAINT_INTERVAL) {
            return;
        }
        self.complained = Some(now);
        match why {
            Some(why) => warn!(%from, %why, "a detector's question was refused"),
            None => {
                warn!(%from, "a detector asks for the other node here: its addresses are exchanged")
            }
        }
    }
}
