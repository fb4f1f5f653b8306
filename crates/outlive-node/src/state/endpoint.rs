//! The sockets of the state connection: which side dials, and which connection counts.
//!
//! Node B dials node A. Both listen: while there is no state connection, node A connects to
//! node B's port from time to time, reads its preamble and hangs up, only to learn whether a
//! process is there. So both learn from a refusal that the other's process is gone, and from the
//! preamble that both have the same name. Whoever stands at the listening
//! port for other reasons costs a slot for two seconds at most, and only from the peer's
//! address.
//!
//! Sockets are edge-triggered: readiness is remembered here until it is used up. Call
//! [`handle_ready`](StateEndpoint::handle_ready) for events, then [`drive`](StateEndpoint::drive) once
//! per turn, fill the connection with [`push_with`](StateEndpoint::push_with), and
//! [`flush`](StateEndpoint::flush).

use std::{io, net::SocketAddr, time::Duration};

use mio::{
    Interest, Registry, Token,
    net::{TcpListener, TcpStream},
};
use outlive_proxy::config::NodeId;
use outlive_tcp::time::Time;
use socket2::SockRef;
use tracing::{debug, info, warn};

use super::{
    ChannelEvent, Failure, Side,
    connection::{self, Connection, Progress},
    preamble::Preamble,
};

/// Connections at a time: the one that counts, our attempt, and a few that knock.
const SLOTS: usize = 6;
/// A connection that is not open by then is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// A dying process closes its sockets one after the other: soon after the connection is lost, its port refuses.
const BACKOFF_MIN: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Bytes read of one connection before others get their turn.
const READ_BUDGET: usize = 4 << 20;
const READ_BUFFER: usize = 128 << 10;
/// The same complaint is not logged again for this long.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// Between whom, and under which key.
#[derive(Clone)]
pub struct EndpointConfig {
    /// This node.
    pub node: NodeId,
    /// A random number of this process.
    pub incarnation: u64,
    /// See [`PairKey::state_psk`](crate::key::PairKey::state_psk).
    pub psk: [u8; 32],
    /// Where this node listens.
    pub local: SocketAddr,
    /// Where the peer listens.
    pub peer: SocketAddr,
    /// After unacknowledged data has waited this long, the connection is given up.
    pub user_timeout: Duration,
}

/// What the endpoint tells.
#[derive(Debug)]
pub enum StateEvent<'a> {
    /// The peer is connected, and proved that it has the key.
    Connected,
    /// It sent this.
    Message(&'a [u8]),
    /// It is no longer connected. All messages that arrived have been told.
    Closed(Failure),
    /// Its port refused a connection.
    Refused,
}

/// All sockets of the state connection.
pub struct StateEndpoint {
    config: EndpointConfig,
    registry: Registry,
    first_token: usize,
    listener: TcpListener,
    acceptable: bool,
    slots: [Option<Slot>; SLOTS],
    /// The connection that counts.
    open: Option<usize>,
    opened_at: Time,
    /// When to try to reach the peer next, unless a try is under way.
    next_attempt: Time,
    backoff: Duration,
    complaints: Complaints,
    last_failure: Option<Failure>,
    buffer: Box<[u8]>,
}

enum Slot {
    /// A connection that is being made by us.
    Reaching {
        stream: TcpStream,
        deadline: Time,
        writable: bool,
    },
    Made(Box<Connection>),
}

impl StateEndpoint {
    /// How many tokens the endpoint uses, from the first one on.
    pub const TOKENS: usize = SLOTS + 1;

    /// Listens. Uses [`TOKENS`](Self::TOKENS) tokens of `registry` from `first_token` on.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn open(
        config: EndpointConfig,
        registry: &Registry,
        first_token: usize,
    ) -> io::Result<Self> {
        // mio sets SO_REUSEADDR, so a restarted node does not wait for TIME-WAIT.
        let mut listener = TcpListener::bind(config.local)?;
        let registry = registry.try_clone()?;
        registry.register(&mut listener, Token(first_token), Interest::READABLE)?;
        Ok(StateEndpoint {
            config,
            registry,
            first_token,
            listener,
            acceptable: true,
            slots: [const { None }; SLOTS],
            open: None,
            opened_at: Time::ZERO,
            next_attempt: Time::ZERO,
            backoff: BACKOFF_MIN,
            complaints: Complaints::default(),
            last_failure: None,
            buffer: vec![0; READ_BUFFER].into_boxed_slice(),
        })
    }

    /// Whether the peer is connected.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Why there is no connection, as far as that is known.
    pub fn last_failure(&self) -> Option<Failure> {
        self.last_failure
    }

    /// Remembers that a socket is ready. Tokens of others are ignored.
    pub fn handle_ready(&mut self, event: &mio::event::Event) {
        let Some(number) = event.token().0.checked_sub(self.first_token) else { return };
        let readable = event.is_readable() || event.is_read_closed() || event.is_error();
        let can_write = event.is_writable() || event.is_write_closed() || event.is_error();
        match number.checked_sub(1) {
            None => self.acceptable = true,
            Some(slot) => match self.slots.get_mut(slot).and_then(Option::as_mut) {
                None => {}
                Some(Slot::Reaching { writable, .. }) => *writable |= can_write,
                Some(Slot::Made(connection)) => {
                    connection.readable |= readable;
                    connection.writable |= can_write;
                }
            },
        }
    }

    /// Does everything that can be done now, and tells what happened. `tell` may refuse a message:
    /// then the connection is closed for that reason.
    ///
    /// Returns whether everything that had arrived was read; if not, call again before
    /// judging the peer silent.
    pub fn drive(
        &mut self,
        now: Time,
        tell: &mut impl FnMut(StateEvent<'_>) -> Result<(), Failure>,
    ) -> bool {
        // The connection that counts goes first: what a successor replaces is read to its end.
        let mut drained = self.open.is_none_or(|slot| self.drive_connection(slot, now, tell));
        for slot in 0..SLOTS {
            match &self.slots[slot] {
                Some(Slot::Reaching { .. }) => self.drive_attempt(slot, now, tell),
                Some(Slot::Made(_)) if self.open != Some(slot) => {
                    drained &= self.drive_connection(slot, now, tell);
                }
                _ => {}
            }
        }
        self.accept(now);
        if self.open.is_none() && now >= self.next_attempt && !self.reaching() {
            self.reach(now, tell);
        }
        drained
    }

    /// When [`drive`](Self::drive) must be called even if nothing is ready.
    pub fn deadline(&self) -> Time {
        let attempt =
            if self.open.is_some() || self.reaching() { Time::NEVER } else { self.next_attempt };
        let slots = self.slots.iter().enumerate().filter_map(|(number, slot)| match slot {
            Some(Slot::Reaching { deadline, .. }) => Some(*deadline),
            Some(Slot::Made(connection)) if self.open != Some(number) => Some(connection.deadline),
            _ => None,
        });
        slots.fold(attempt, Time::min)
    }

    /// Lets `write` append one message if the connection has room, and says whether it did.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        match self.open_connection() {
            // A message that is too long shows as a failure when the connection is next read.
            Some(connection) if connection.channel.has_room() => {
                let pushed = connection.channel.push_with(write);
                connection.readable |= pushed.is_err();
                pushed.unwrap_or(false)
            }
            _ => false,
        }
    }

    /// Sends what was pushed, as far as the socket takes it.
    pub fn flush(&mut self) {
        if let Some(connection) = self.open_connection() {
            connection.write();
        }
    }

    /// Whether something waits for the socket.
    pub fn has_backlog(&self) -> bool {
        let connection = self.open.and_then(|slot| self.slots[slot].as_ref());
        matches!(connection, Some(Slot::Made(c)) if !c.channel.outbound().is_empty())
    }

    /// Closes the connection without telling; the dialing side tries again.
    pub fn close(&mut self, now: Time) {
        if let Some(slot) = self.open {
            self.end(slot, Failure::ClosedHere, now, &mut |_| Ok(()));
        }
    }

    fn open_connection(&mut self) -> Option<&mut Connection> {
        match self.slots[self.open?].as_mut()? {
            Slot::Made(connection) => Some(connection),
            Slot::Reaching { .. } => None,
        }
    }

    /// Whether a try of ours is under way.
    fn reaching(&self) -> bool {
        self.slots.iter().flatten().any(|slot| match slot {
            Slot::Reaching { .. } => true,
            Slot::Made(c) => c.side != Side::Listener && !c.channel.is_open(),
        })
    }

    /// What this node does to reach the peer.
    fn side(&self) -> Side {
        if self.config.node == NodeId::B { Side::Dialer } else { Side::Prober }
    }

    fn reach(&mut self, now: Time, tell: &mut impl FnMut(StateEvent<'_>) -> Result<(), Failure>) {
        let Some(slot) = self.free_slot() else {
            self.next_attempt = now + self.backoff;
            return;
        };
        let EndpointConfig { local, peer, user_timeout, .. } = self.config;
        let registered = connection::connect(local, peer, user_timeout).and_then(|mut stream| {
            self.register(&mut stream, slot)?;
            Ok(stream)
        });
        match registered {
            Ok(stream) => {
                let deadline = now + HANDSHAKE_TIMEOUT;
                self.slots[slot] = Some(Slot::Reaching { stream, deadline, writable: false });
            }
            Err(error) => self.attempt_failed(Failure::of(&error), now, tell),
        }
    }

    fn drive_attempt(
        &mut self,
        slot: usize,
        now: Time,
        tell: &mut impl FnMut(StateEvent<'_>) -> Result<(), Failure>,
    ) {
        let Some(Slot::Reaching { stream, deadline, writable }) = &mut self.slots[slot] else {
            return;
        };
        let outcome = match stream.take_error() {
            Ok(Some(error)) | Err(error) => Err(Failure::of(&error)),
            Ok(None) if *writable && stream.peer_addr().is_ok() => Ok(()),
            Ok(None) if now >= *deadline => Err(Failure::TimedOut),
            Ok(None) => return,
        };
        let Some(Slot::Reaching { stream, .. }) = self.slots[slot].take() else { return };
        match outcome {
            Ok(()) => {
                let connection = self.connection(stream, self.side(), now);
                self.slots[slot] = Some(Slot::Made(connection));
                self.drive_connection(slot, now, tell);
            }
            Err(failure) => {
                self.drop_stream(stream);
                self.attempt_failed(failure, now, tell);
            }
        }
    }

    fn attempt_failed(
        &mut self,
        failure: Failure,
        now: Time,
        tell: &mut impl FnMut(StateEvent<'_>) -> Result<(), Failure>,
    ) {
        self.retry_later(now);
        // A peer that is away for a day is told of once.
        let is_news = self.last_failure.replace(failure) != Some(failure);
        if is_news && self.complaints.due(failure, now) {
            info!(peer = %self.config.peer, reason = %failure, "the peer cannot be reached");
        }
        if failure == Failure::Refused {
            // Nothing to refuse here: there is no message.
            let _ = tell(StateEvent::Refused);
        }
    }

    fn retry_later(&mut self, now: Time) {
        self.next_attempt = now + self.backoff;
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
    }

    fn accept(&mut self, now: Time) {
        while self.acceptable {
            match self.listener.accept() {
                Ok((stream, from)) => self.accepted(stream, from, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.acceptable = false,
                // Of one connection, or of too many descriptors: the next event tries again.
                Err(error) => {
                    self.acceptable = error.kind() == io::ErrorKind::Interrupted;
                    debug!(%error, "a connection to the state port could not be accepted");
                }
            }
        }
    }

    fn accepted(&mut self, mut stream: TcpStream, from: SocketAddr, now: Time) {
        if from.ip() != self.config.peer.ip() {
            if self.complaints.due(Failure::Foreign, now) {
                warn!(%from, "somebody other than the peer connected to the state port");
            }
            return;
        }
        let tuned = connection::tune(&SockRef::from(&stream), self.config.user_timeout);
        let Some(slot) = self.free_slot() else { return };
        if tuned.and_then(|()| self.register(&mut stream, slot)).is_ok() {
            let connection = self.connection(stream, Side::Listener, now);
            self.slots[slot] = Some(Slot::Made(connection));
            // Its preamble leaves at once; what it says is read when it is ready.
            if let Some(Slot::Made(connection)) = &mut self.slots[slot] {
                connection.write();
            }
        }
    }

    fn connection(&self, stream: TcpStream, side: Side, now: Time) -> Box<Connection> {
        let own = Preamble { node: self.config.node, incarnation: self.config.incarnation };
        Box::new(Connection::new(stream, side, own, self.config.psk, now + HANDSHAKE_TIMEOUT))
    }

    /// Returns whether everything that had arrived was read.
    fn drive_connection(
        &mut self,
        slot: usize,
        now: Time,
        tell: &mut impl FnMut(StateEvent<'_>) -> Result<(), Failure>,
    ) -> bool {
        let Some(Slot::Made(connection)) = &mut self.slots[slot] else { return true };
        let counts = self.open == Some(slot);
        let mut opened = false;
        // A connection that is not the one that counts ends its reading as soon as it is open, so that its
        // first messages are told after it took the other's place.
        let outcome = connection.read(&mut self.buffer, READ_BUDGET, |event| match event {
            ChannelEvent::Open => {
                opened = true;
                self.complaints.forget();
                if !counts {
                    tell_replacement(self.open.is_some(), tell);
                }
                tell(StateEvent::Connected)
            }
            // A process is there, which is all that was to be learnt.
            ChannelEvent::Greeted => Err(Failure::ClosedHere),
            ChannelEvent::Message(message) => tell(StateEvent::Message(message)),
        });
        connection.write();
        if opened {
            self.took_place(slot, now);
        }
        match outcome {
            Ok(Progress::More) => false,
            Ok(Progress::Drained) => {
                let late = matches!(&self.slots[slot], Some(Slot::Made(c)) if now >= c.deadline);
                if self.open != Some(slot) && late {
                    self.end(slot, Failure::TimedOut, now, tell);
                }
                true
            }
            Err(failure) => {
                self.end(slot, failure, now, tell);
                true
            }
        }
    }

    /// The connection in `slot` has opened and is the one that counts from now on.
    fn took_place(&mut self, slot: usize, now: Time) {
        if let Some(old) = self.open.replace(slot)
            && let Some(Slot::Made(old)) = self.slots[old].take()
        {
            self.drop_stream(old.stream);
        }
        self.opened_at = now;
        self.last_failure = None;
        debug!(peer = %self.config.peer, "the state connection is open");
        for number in 0..SLOTS {
            if matches!(self.slots[number], Some(Slot::Reaching { .. }))
                && let Some(Slot::Reaching { stream, .. }) = self.slots[number].take()
            {
                self.drop_stream(stream);
            }
        }
    }

    fn end(
        &mut self,
        slot: usize,
        failure: Failure,
        now: Time,
        tell: &mut impl FnMut(StateEvent<'_>) -> Result<(), Failure>,
    ) {
        let Some(Slot::Made(connection)) = self.slots[slot].take() else { return };
        let side = connection.side;
        self.drop_stream(connection.stream);
        if self.open == Some(slot) {
            self.open = None;
            self.last_failure = Some(failure);
            // One that lasted is replaced at once; one that did not is not tried in a tight loop.
            if now.since(self.opened_at) >= BACKOFF_MAX {
                self.backoff = BACKOFF_MIN;
                self.next_attempt = now;
            } else {
                self.retry_later(now);
            }
            info!(peer = %self.config.peer, reason = %failure, "the state connection is closed");
            let _ = tell(StateEvent::Closed(failure));
            return;
        }
        if side != Side::Listener {
            self.retry_later(now);
        }
        // Probes end in these, and what ends in them says why at the other end or in the next try.
        let reset = failure == Failure::Io(io::ErrorKind::ConnectionReset);
        if !reset && !matches!(failure, Failure::ClosedHere | Failure::Closed) {
            self.last_failure = Some(failure);
            if self.complaints.due(failure, now) {
                warn!(peer = %self.config.peer, reason = %failure, "no state connection");
            }
        }
    }

    fn free_slot(&self) -> Option<usize> {
        self.slots.iter().position(Option::is_none)
    }

    fn register(&self, stream: &mut TcpStream, slot: usize) -> io::Result<()> {
        let token = Token(self.first_token + 1 + slot);
        self.registry.register(stream, token, Interest::READABLE | Interest::WRITABLE)
    }

    fn drop_stream(&self, mut stream: TcpStream) {
        // Closing the descriptor would do, too.
        let _ = self.registry.deregister(&mut stream);
    }
}

fn tell_replacement(replaces: bool, tell: &mut impl FnMut(StateEvent<'_>) -> Result<(), Failure>) {
    if replaces {
        let _ = tell(StateEvent::Closed(Failure::Replaced));
    }
}

/// Which failures have been logged, and when, so that a peer that keeps failing does not fill the log.
#[derive(Default)]
struct Complaints {
    told: Vec<(Failure, Time)>,
}

impl Complaints {
    /// Different failures that are remembered; more are not logged.
    const LIMIT: usize = 32;

    fn due(&mut self, failure: Failure, now: Time) -> bool {
        self.told.retain(|(_, at)| now.since(*at) < COMPLAINT_INTERVAL);
        let known = self.told.iter().any(|(told, _)| *told == failure);
        if known || self.told.len() >= Self::LIMIT {
            return false;
        }
        self.told.push((failure, now));
        true
    }

    /// After a success every failure is news again.
    fn forget(&mut self) {
        self.told.clear();
    }
}
