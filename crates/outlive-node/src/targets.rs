//! The connections with the agents of migration targets: this node dials each, and dials again.
//!
//! The transport is that of the state connection (`docs/state-transport.md`), with a key for each target. What the messages mean is the
//! core's business (`docs/migration.md`). Sockets are edge-triggered: call [`handle_ready`](TargetLinks::handle_ready) for events,
//! [`drive`](TargetLinks::drive) once per turn, [`push`](TargetLinks::push) what there is to say, and [`flush`](TargetLinks::flush).

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use mio::{Interest, Registry, Token, net::TcpStream};
use outlive_tcp::time::Time;
use tracing::{debug, info, warn};

use crate::state::{ChannelEvent, Connection, Failure, Preamble, Progress, Side, connect};

/// A connection that is not open by then is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// A target that acknowledges nothing for this long is dialed anew.
const USER_TIMEOUT: Duration = Duration::from_secs(5);
const READ_BUDGET: usize = 1 << 20;
const READ_BUFFER: usize = 64 << 10;
/// Bytes that wait for a target that does not read: then its connection is given up.
const BACKLOG: usize = 8 << 20;

/// How a target is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct TargetConfig {
    /// For the log, and what its key was made for.
    pub name: String,
    /// Where its agent listens.
    pub control: SocketAddr,
    /// See [`HostKey::psk`](crate::key::HostKey::psk).
    pub psk: [u8; 32],
}

/// What a link tells.
#[derive(Debug)]
pub enum TargetEvent<'a> {
    /// The agent is connected, and proved that it has the key.
    Connected,
    /// It sent this.
    Message(&'a [u8]),
    /// It is no longer connected. All messages that arrived have been told.
    Closed,
}

/// The links to all targets.
pub struct TargetLinks {
    /// By what is added to the first token; places of links that are no more are given to others.
    links: Vec<Option<Link>>,
    registry: Registry,
    first_token: usize,
    own: Preamble,
    buffer: Box<[u8]>,
}

struct Link {
    config: TargetConfig,
    /// Not configured any more: it stays for the connections that live there.
    is_retired: bool,
    stage: Stage,
    next_attempt: Time,
    backoff: Duration,
    last_failure: Option<Failure>,
    /// Messages that found no room.
    waiting: std::collections::VecDeque<Vec<u8>>,
    waiting_bytes: usize,
}

enum Stage {
    Down,
    /// The connection is being made.
    Reaching {
        stream: TcpStream,
        deadline: Time,
        writable: bool,
    },
    Made {
        connection: Box<Connection>,
        told: bool,
    },
}

impl TargetLinks {
    /// Links to these targets, none of them up. Uses a token of `registry` for each, from `first_token` on. `own` says who this node is.
    ///
    /// # Errors
    /// The registry cannot be shared.
    pub fn new(
        targets: Vec<TargetConfig>,
        own: Preamble,
        registry: &Registry,
        first_token: usize,
    ) -> io::Result<Self> {
        Ok(TargetLinks {
            links: targets.into_iter().map(|config| Some(Link::new(config))).collect(),
            registry: registry.try_clone()?,
            first_token,
            own,
            buffer: vec![0; READ_BUFFER].into_boxed_slice(),
        })
    }

    /// Other targets from now on. What is configured as before stays as it is. What is not configured any more is not dialed anew
    /// forever: see [`retired`](Self::retired). What has another name or key is left, and dialed; gives where the agents of those
    /// that were connected listen, since nothing else tells that they are no more.
    pub fn configure(&mut self, targets: Vec<TargetConfig>) -> Vec<SocketAddr> {
        let mut left = Vec::new();
        for place in &mut self.links {
            let Some(link) = place else { continue };
            let control = link.config.control;
            let new = targets.iter().find(|target| target.control == control);
            link.is_retired = new.is_none();
            if new.is_some_and(|new| *new != link.config) {
                left.extend(link.is_up().then_some(control));
                *place = None;
            }
        }
        for target in targets {
            if self.links().any(|link| link.config.control == target.control) {
                continue;
            }
            match self.links.iter_mut().find(|place| place.is_none()) {
                Some(place) => *place = Some(Link::new(target)),
                None => self.links.push(Some(Link::new(target))),
            }
        }
        left
    }

    /// Where agents listen that are not configured any more.
    pub fn retired(&self) -> impl Iterator<Item = SocketAddr> {
        self.links().filter(|link| link.is_retired).map(|link| link.config.control)
    }

    /// Closes the connection with an agent, and dials it no more.
    pub fn forget(&mut self, control: SocketAddr) {
        for place in &mut self.links {
            place.take_if(|link| link.config.control == control);
        }
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.iter().flatten()
    }

    /// Remembers that a socket is ready. Tokens of others are ignored.
    pub fn handle_ready(&mut self, event: &mio::event::Event) {
        let number = event.token().0.checked_sub(self.first_token);
        let Some(Some(link)) = number.and_then(|number| self.links.get_mut(number)) else { return };
        let can_write = event.is_writable() || event.is_write_closed() || event.is_error();
        match &mut link.stage {
            Stage::Down => {}
            Stage::Reaching { writable, .. } => *writable |= can_write,
            Stage::Made { connection, .. } => {
                connection.readable |=
                    event.is_readable() || event.is_read_closed() || event.is_error();
                connection.writable |= can_write;
            }
        }
    }

    /// Does everything that can be done now, and tells what happened at which agent. `tell` may refuse a message: then the
    /// connection is closed. Returns whether everything that had arrived was read.
    pub fn drive(
        &mut self,
        now: Time,
        tell: &mut impl FnMut(SocketAddr, TargetEvent<'_>) -> Result<(), Failure>,
    ) -> bool {
        let mut drained = true;
        for number in 0..self.links.len() {
            let Some(link) = &self.links[number] else { continue };
            if matches!(link.stage, Stage::Down) && now >= link.next_attempt {
                self.reach(number, now);
            }
            self.finish_reaching(number, now);
            drained &= self.read(number, now, tell);
        }
        drained
    }

    /// When [`drive`](Self::drive) must be called even if nothing is ready.
    pub fn deadline(&self) -> Time {
        let deadlines = self.links().map(|link| match &link.stage {
            Stage::Down => link.next_attempt,
            Stage::Reaching { deadline, .. } => *deadline,
            Stage::Made { told: true, .. } => Time::NEVER,
            Stage::Made { connection, told: false } => connection.deadline,
        });
        deadlines.fold(Time::NEVER, Time::min)
    }

    /// Says something to the agent at `control`; lost if there is no connection, as what was said before is.
    pub fn push(&mut self, control: SocketAddr, message: Vec<u8>) {
        let mut links = self.links.iter_mut().flatten();
        let Some(link) = links.find(|link| link.config.control == control) else { return };
        if link.is_up() {
            link.waiting_bytes += message.len();
            link.waiting.push_back(message);
        }
    }

    /// Sends what was pushed, as far as the sockets take it.
    pub fn flush(&mut self) {
        for link in self.links.iter_mut().flatten() {
            let Stage::Made { connection, told: true } = &mut link.stage else { continue };
            while connection.channel.has_room()
                && let Some(message) = link.waiting.pop_front()
            {
                link.waiting_bytes -= message.len();
                // A message that is too long shows as a failure when the connection is next read.
                let pushed = connection.channel.push_with(|out| {
                    out.extend_from_slice(&message);
                    true
                });
                connection.readable |= pushed.is_err();
            }
            connection.write();
        }
    }

    /// Each target that is configured: its name, where its agent listens, and, if there is no connection, why, as far as that is known.
    pub fn states(&self) -> impl Iterator<Item = (&str, SocketAddr, Result<(), Option<Failure>>)> {
        self.links().filter(|link| !link.is_retired).map(|link| {
            let state = if link.is_up() { Ok(()) } else { Err(link.last_failure) };
            (link.config.name.as_str(), link.config.control, state)
        })
    }

    fn reach(&mut self, number: usize, now: Time) {
        let Some(link) = &mut self.links[number] else { return };
        let control = link.config.control;
        let any: SocketAddr = match control {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let token = Token(self.first_token + number);
        let interest = Interest::READABLE | Interest::WRITABLE;
        let made = connect(any, control, USER_TIMEOUT).and_then(|mut stream| {
            self.registry.register(&mut stream, token, interest)?;
            Ok(stream)
        });
        match made {
            Ok(stream) => {
                let deadline = now + HANDSHAKE_TIMEOUT;
                link.stage = Stage::Reaching { stream, deadline, writable: false };
            }
            Err(error) => link.failed(Failure::of(&error), now),
        }
    }

    fn finish_reaching(&mut self, number: usize, now: Time) {
        let Some(link) = &mut self.links[number] else { return };
        let Stage::Reaching { stream, deadline, writable } = &mut link.stage else { return };
        let outcome = match stream.take_error() {
            Ok(Some(error)) | Err(error) => Err(Failure::of(&error)),
            Ok(None) if *writable && stream.peer_addr().is_ok() => Ok(()),
            Ok(None) if now >= *deadline => Err(Failure::TimedOut),
            Ok(None) => return,
        };
        let Stage::Reaching { stream, .. } = std::mem::replace(&mut link.stage, Stage::Down) else {
            return;
        };
        match outcome {
            Ok(()) => {
                let own = crate::state::Introduction::Balancer(self.own);
                let deadline = now + HANDSHAKE_TIMEOUT;
                let connection =
                    Connection::new(stream, Side::Dialer, own, link.config.psk, deadline);
                link.stage = Stage::Made { connection: Box::new(connection), told: false };
            }
            Err(failure) => link.failed(failure, now),
        }
    }

    fn read(
        &mut self,
        number: usize,
        now: Time,
        tell: &mut impl FnMut(SocketAddr, TargetEvent<'_>) -> Result<(), Failure>,
    ) -> bool {
        let Some(link) = &mut self.links[number] else { return true };
        let control = link.config.control;
        let overflows = link.waiting_bytes > BACKLOG;
        let Stage::Made { connection, told } = &mut link.stage else { return true };
        let outcome = connection.read(&mut self.buffer, READ_BUDGET, |event| match event {
            ChannelEvent::Open => {
                *told = true;
                tell(control, TargetEvent::Connected)
            }
            ChannelEvent::Message(message) => tell(control, TargetEvent::Message(message)),
            ChannelEvent::Greeted => Ok(()),
        });
        connection.write();
        let was_told = *told;
        let late = !was_told && now >= connection.deadline;
        let failure = match outcome {
            Ok(_) if late || overflows => Failure::TimedOut,
            Ok(progress) => {
                if was_told && link.last_failure.take().is_some() {
                    info!(target = %link.config.name, agent = %control, "the target's agent is reached");
                }
                if was_told {
                    link.backoff = BACKOFF_MIN;
                }
                return progress == Progress::Drained;
            }
            Err(failure) => failure,
        };
        link.stage = Stage::Down;
        link.waiting.clear();
        link.waiting_bytes = 0;
        link.failed(failure, now);
        if was_told {
            // Nothing to refuse here: there is no message.
            let _ = tell(control, TargetEvent::Closed);
        }
        true
    }
}

impl Link {
    fn new(config: TargetConfig) -> Self {
        Link {
            config,
            is_retired: false,
            stage: Stage::Down,
            next_attempt: Time::ZERO,
            backoff: BACKOFF_MIN,
            last_failure: None,
            waiting: Default::default(),
            waiting_bytes: 0,
        }
    }

    /// Whether the agent is connected, and that was told.
    fn is_up(&self) -> bool {
        matches!(self.stage, Stage::Made { told: true, .. })
    }

    /// There is no connection; the next attempt is put off.
    fn failed(&mut self, failure: Failure, now: Time) {
        self.next_attempt = now + self.backoff;
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        // A target that is away for a day is told of once.
        let is_news = self.last_failure.replace(failure) != Some(failure);
        let (name, agent) = (&self.config.name, &self.config.control);
        if is_news {
            warn!(target = %name, %agent, reason = %failure, "no connection with the target's agent");
        } else {
            debug!(target = %name, %agent, reason = %failure, "still no connection");
        }
    }
}

#[cfg(test)]
mod tests;
