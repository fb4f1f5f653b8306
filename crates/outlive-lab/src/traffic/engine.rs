//! One thread, any number of connections: readiness and timers.
//!
//! Owns: sockets, the poll, the timers, and the bookkeeping when a connection ends. Does not own:
//! what is said on a connection (a conversation).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use outlive_net::sending::Sending;
use serde::{Deserialize, Serialize};
use slab::Slab;

use super::book::{Book, Failure, Group, Record, Side};
use super::conversation::{Conversation, Io, Next, Notes, Outbox};
use crate::clock::{Clock, wait_until};

/// Bytes per read or write. Larger ones gain nothing; smaller ones cost system calls.
const SCRATCH_LEN: usize = 128 << 10;

/// Tokens from here on are listeners, and the last one is the waker.
const FIRST_LISTENER: usize = usize::MAX / 2;
const WAKER: Token = Token(usize::MAX);

/// Handshakes that one engine has under way at a time; further ones wait for their turn. Opening ten
/// thousand connections is not meant to be a flood.
const MOST_CONNECTING: usize = 256;

/// What is asked of a running engine.
pub(crate) enum Command {
    /// Connect to an address; what stands in the outbox is said first.
    Connect(Box<Connect>),
    /// Tell of all connections that have data on the way.
    Senders(mpsc::Sender<Vec<Sender>>),
    /// Endless conversations come to their end.
    WindUp,
    /// Whatever is still open has failed; the thread ends.
    Stop,
}

/// A connection to be opened.
pub(crate) struct Connect {
    pub(crate) id: u64,
    pub(crate) to: SocketAddr,
    pub(crate) group: Arc<Group>,
    pub(crate) opening: Outbox,
    /// Called when the connection is established.
    pub(crate) conversation: ConversationMaker,
}

/// An end of a connection that has sent data which is not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// The connection's number in the book.
    pub id: u64,
    /// Its retransmission timer's span, doubled as often as it has run out.
    pub retransmission_timeout: Duration,
    /// How often in a row it has run out.
    pub backoff: u8,
    /// Its round-trip time.
    pub round_trip: Duration,
}

/// Makes a conversation at the time when it begins.
pub(crate) type ConversationMaker = Box<dyn FnOnce(Duration) -> Box<dyn Conversation> + Send>;

/// The handle of an engine's thread.
pub(crate) struct Remote {
    commands: mpsc::Sender<Command>,
    waker: Waker,
    open: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
}

impl Remote {
    /// Passes a command on; one to an engine that has ended is without effect.
    pub(crate) fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            // A failure to wake only delays it: the engine looks at least once a second.
            let _ = self.waker.wake();
        }
    }

    /// The connections that have data on the way now; nothing of an engine that has ended.
    pub(crate) fn senders(&self) -> Vec<Sender> {
        let (sender, answer) = mpsc::channel();
        self.send(Command::Senders(sender));
        answer.recv().unwrap_or_default()
    }

    /// Tells the engine to stop, and waits at most `limit` until its sockets are closed.
    pub(crate) fn stop(&self, limit: Duration) {
        self.send(Command::Stop);
        wait_until(limit, || self.ended.load(Acquire));
    }

    /// Connections that are open, as of the thread's last round.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }
}

/// The state of the thread. Make it, then [`run`](Self::run) it in the namespace where it should
/// connect.
pub(crate) struct Engine {
    poll: Poll,
    commands: mpsc::Receiver<Command>,
    open: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    listeners: Vec<TcpListener>,
    accept: fn() -> Box<dyn Conversation>,
    side: Side,
    slots: Slab<Slot>,
    /// How many of them wait for the end of their handshake.
    connecting: usize,
    /// Connections that are to be opened when there are fewer of these.
    queue: VecDeque<Connect>,
    timers: BinaryHeap<Reverse<(Duration, usize, u64)>>,
    serial: u64,
    scratch: Vec<u8>,
    winding_up: bool,
    book: Arc<Book>,
    strangers: Arc<Group>,
    clock: Clock,
}

struct Slot {
    stream: TcpStream,
    /// Distinguishes this connection from others that used the same slot.
    serial: u64,
    wake_at: Option<Duration>,
    id: u64,
    group: Arc<Group>,
    opened: Duration,
    established: Option<Duration>,
    opening: Outbox,
    talk: Talk,
    notes: Notes,
}

/// What is known of a connection at its end, besides the notes.
struct End {
    id: u64,
    opened: Duration,
    established: Option<Duration>,
    failure: Option<Failure>,
}

enum Talk {
    /// The handshake is not over.
    Connecting(ConversationMaker),
    Going(Box<dyn Conversation>),
    /// Between two states; never seen outside `advance`.
    Taken,
}

impl Engine {
    /// An engine that accepts on `listeners`, beginning each accepted connection with `accept`.
    pub(crate) fn new(
        listeners: Vec<TcpListener>,
        accept: fn() -> Box<dyn Conversation>,
        side: Side,
        book: Arc<Book>,
        clock: Clock,
    ) -> io::Result<(Self, Remote)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let (sender, commands) = mpsc::channel();
        let open = Arc::new(AtomicUsize::new(0));
        let ended = Arc::new(AtomicBool::new(false));
        let mut engine = Self {
            poll,
            commands,
            open: open.clone(),
            ended: ended.clone(),
            listeners,
            accept,
            side,
            slots: Slab::new(),
            connecting: 0,
            queue: VecDeque::new(),
            timers: BinaryHeap::new(),
            serial: 0,
            scratch: vec![0; SCRATCH_LEN],
            winding_up: false,
            strangers: book.strangers(),
            book,
            clock,
        };
        for (index, listener) in engine.listeners.iter_mut().enumerate() {
            let token = Token(FIRST_LISTENER + index);
            engine.poll.registry().register(listener, token, Interest::READABLE)?;
        }
        Ok((engine, Remote { commands: sender, waker, open, ended }))
    }

    /// Works until it is told to stop.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        let mut stopped = false;
        while !stopped {
            let next = self.timers.peek().map(|Reverse((at, ..))| *at);
            let timeout = next.map_or(Duration::from_secs(1), |at| {
                at.saturating_sub(self.clock.now()).min(Duration::from_secs(1))
            });
            if let Err(error) = self.poll.poll(&mut events, Some(timeout))
                && error.kind() != io::ErrorKind::Interrupted
            {
                break;
            }
            for event in &events {
                match event.token() {
                    WAKER => {}
                    Token(index) if index >= FIRST_LISTENER => self.accept(index - FIRST_LISTENER),
                    Token(key) => self.advance(key),
                }
            }
            stopped = self.obey();
            self.fire_timers();
            self.open.store(self.slots.len(), Relaxed);
        }
        self.abandon();
        let ended = self.ended.clone();
        drop(self);
        ended.store(true, Release);
    }

    /// Whether the engine is to stop.
    fn obey(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Connect(connect)) => {
                    self.queue.push_back(*connect);
                    self.connect_next();
                }
                Ok(Command::Senders(answer)) => {
                    let senders = self.slots.iter().filter_map(|(_, slot)| slot.sender());
                    // Who no longer wants to know has gone.
                    let _ = answer.send(senders.collect());
                }
                Ok(Command::WindUp) => {
                    self.winding_up = true;
                    let keys: Vec<usize> = self.slots.iter().map(|(key, _)| key).collect();
                    keys.into_iter().for_each(|key| self.advance(key));
                }
                Ok(Command::Stop) | Err(mpsc::TryRecvError::Disconnected) => return true,
                Err(mpsc::TryRecvError::Empty) => return false,
            }
        }
    }

    fn connect_next(&mut self) {
        while self.connecting < MOST_CONNECTING
            && let Some(connect) = self.queue.pop_front()
        {
            self.connect(connect);
        }
    }

    fn connect(&mut self, connect: Connect) {
        let Connect { id, to, group, opening, conversation } = connect;
        let now = self.clock.now();
        let begun = TcpStream::connect(to).map(|stream| Slot {
            stream,
            serial: 0,
            wake_at: None,
            id,
            group: group.clone(),
            opened: now,
            established: None,
            opening,
            talk: Talk::Connecting(conversation),
            notes: Notes::default(),
        });
        match begun.and_then(|slot| self.enter(slot)) {
            Ok(_) => self.connecting += 1,
            Err(error) => {
                let end = End { id, opened: now, established: None, failure: Some(error.into()) };
                self.write_down(&group, end, Notes::default());
            }
        }
    }

    fn accept(&mut self, listener: usize) {
        // Any error ends this round: either nothing is left, or descriptors are, and then the
        // connection waits in the kernel until one is free.
        while let Ok((stream, _)) = self.listeners[listener].accept() {
            let now = self.clock.now();
            let _ = stream.set_nodelay(true);
            let slot = Slot {
                stream,
                serial: 0,
                wake_at: None,
                id: u64::MAX,
                group: self.strangers.clone(),
                opened: now,
                established: Some(now),
                opening: Outbox::default(),
                talk: Talk::Going((self.accept)()),
                notes: Notes::default(),
            };
            if let Ok(key) = self.enter(slot) {
                self.advance(key);
            }
        }
    }

    fn enter(&mut self, mut slot: Slot) -> io::Result<usize> {
        self.serial += 1;
        slot.serial = self.serial;
        let entry = self.slots.vacant_entry();
        let key = entry.key();
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut slot.stream, Token(key), interest)?;
        entry.insert(slot);
        Ok(key)
    }

    fn fire_timers(&mut self) {
        let now = self.clock.now();
        while let Some(&Reverse((at, key, serial))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            // A timer of an earlier connection in this slot, or one since moved, means nothing.
            let current = self.slots.get(key);
            if current.is_some_and(|slot| slot.serial == serial && slot.wake_at == Some(at)) {
                self.advance(key);
            }
        }
    }

    fn advance(&mut self, key: usize) {
        let now = self.clock.now();
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.wake_at = None;
        let was_connecting = slot.is_connecting();
        let result = loop {
            let result =
                slot.advance(&mut self.scratch, &self.book, now, self.winding_up, self.side);
            if let Ok(Next::Become(id, group, conversation)) = result {
                slot.id = id;
                slot.group = group;
                slot.talk = Talk::Going(conversation);
                continue;
            }
            break result;
        };
        let connected = was_connecting && (!slot.is_connecting() || result.is_err());
        match result {
            Ok(Next::Wait(None) | Next::Become(..)) => {}
            Ok(Next::Wait(Some(at))) => {
                slot.wake_at = Some(at);
                self.timers.push(Reverse((at, key, slot.serial)));
            }
            Ok(Next::Done) => self.close(key, None),
            Err(failure) => self.close(key, Some(failure)),
        }
        if connected {
            self.connecting -= 1;
            self.connect_next();
        }
    }

    fn close(&mut self, key: usize, failure: Option<Failure>) {
        let mut slot = self.slots.remove(key);
        let _ = self.poll.registry().deregister(&mut slot.stream);
        // A stranger (a health check, a scanner) that leaves is not a lost connection.
        if slot.id == u64::MAX {
            self.strangers.ended.fetch_add(1, Relaxed);
            return;
        }
        let Slot { id, group, opened, established, notes, .. } = slot;
        self.write_down(&group, End { id, opened, established, failure }, notes);
    }

    fn write_down(&self, group: &Group, end: End, mut notes: Notes) {
        let ended = self.clock.now();
        notes.waits.rest(ended);
        self.book.close(Record {
            id: end.id,
            group: group.label.clone(),
            side: self.side,
            opened: end.opened,
            established: end.established,
            ended,
            failure: end.failure,
            sent: notes.sent,
            verified: notes.verified,
            wrong: notes.wrong,
            waits: notes.waits.into_kept(),
        });
        // Counted last: who sees the last connection end finds its record in the book.
        if self.side == Side::Client {
            group.failed.fetch_add(u64::from(end.failure.is_some()), Relaxed);
            group.ended.fetch_add(1, Release);
        }
    }

    fn abandon(&mut self) {
        let keys: Vec<usize> = self.slots.iter().map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| self.close(key, Some(Failure::Unfinished)));
        let opened = self.clock.now();
        for Connect { id, group, .. } in std::mem::take(&mut self.queue) {
            let failure = Some(Failure::Unfinished);
            let end = End { id, opened, established: None, failure };
            self.write_down(&group, end, Notes::default());
        }
        self.open.store(0, Relaxed);
    }
}

impl Slot {
    fn is_connecting(&self) -> bool {
        matches!(self.talk, Talk::Connecting(_))
    }

    /// What the kernel says of it, if data is on the way.
    fn sender(&self) -> Option<Sender> {
        let sending = Sending::of(&self.stream).ok().filter(|it| it.unacknowledged > 0)?;
        let Sending { retransmission_timeout, backoff, round_trip, .. } = sending;
        Some(Sender { id: self.id, retransmission_timeout, backoff, round_trip })
    }

    fn advance(
        &mut self,
        scratch: &mut [u8],
        book: &Book,
        now: Duration,
        winding_up: bool,
        side: Side,
    ) -> Result<Next, Failure> {
        if let Talk::Connecting(_) = self.talk
            && !self.complete_handshake(now)?
        {
            return Ok(Next::Wait(None));
        }
        let mut io = Io {
            stream: &mut self.stream,
            scratch,
            now,
            winding_up,
            side,
            book,
            group: &self.group,
            notes: &mut self.notes,
        };
        if !self.opening.flush(&mut io)? {
            return Ok(Next::Wait(None));
        }
        match &mut self.talk {
            Talk::Going(conversation) => conversation.advance(&mut io),
            Talk::Connecting(_) | Talk::Taken => Ok(Next::Wait(None)),
        }
    }

    /// Whether the connection is established; its conversation begins then.
    fn complete_handshake(&mut self, now: Duration) -> Result<bool, Failure> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error.into());
        }
        if self.stream.peer_addr().is_err() {
            return Ok(false);
        }
        let _ = self.stream.set_nodelay(true);
        self.established = Some(now);
        self.group.established.fetch_add(1, Relaxed);
        if let Talk::Connecting(begin) = std::mem::replace(&mut self.talk, Talk::Taken) {
            self.talk = Talk::Going(begin(now));
        }
        Ok(true)
    }
}
