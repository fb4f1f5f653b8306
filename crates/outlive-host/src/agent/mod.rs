//! The event loop: one thread that owns the connections, the device and the channels.
//!
//! A turn reads what the balancers say, then what has ended in the kernel, then packets up to a budget, then looks at the clock; after each
//! step it does what the target wants done. Messages leave at the end of the turn.

mod actions;
mod connections;
mod packets;
mod timers;

use std::{
    io,
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mio::{Events, Interest, Poll, Token, Waker, unix::SourceFd};
use outlive_migration::{
    id::Balancer,
    message::HowEnded,
    target::{Limits, Target},
    tunnel::Mappings,
};
use outlive_net::diag::Endings;
use outlive_node::{
    clock::Clock,
    key::{HostKey, KeyError},
    settings::Problem,
};
use outlive_tcp::time::Time;
use tracing::info;

pub use self::packets::Counts as PacketCounts;
use self::{connections::Connections, packets::PacketPath};
use crate::{
    channel::Channels,
    edge::{self, Edge, SetUpError},
    kernel::HandOvers,
    settings::Settings,
    status::{Observers, Shared, Status},
};

const WAKER: Token = Token(0);
const DEVICE: Token = Token(1);
const ENDINGS: Token = Token(2);
const CHANNELS: usize = 3;
/// A loop need not turn often when nothing happens.
const IDLE_TURN: Duration = Duration::from_secs(1);
/// Until servers that were busy are asked again.
const BUSY_TURN: Duration = Duration::from_millis(5);
/// Migrations that are over and are remembered.
const REMEMBERED: usize = 65_536;

/// An agent, set up and ready to [`run`](Agent::run). Dropping it removes everything it set up.
pub struct Agent {
    settings: Settings,
    target: Target,
    mappings: Mappings,
    connections: Connections,
    packets: PacketPath,
    hand_overs: HandOvers,
    channels: Channels,
    endings: Endings,
    /// The kernel may have told of endings.
    endings_wait: bool,
    clock: Clock,
    poll: Poll,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    shared: Arc<Shared>,
    _observers: Observers,
    /// Last: what it has set up is removed when everything else is gone.
    edge: Edge,
}

/// Ends an agent's [`run`](Agent::run) from another thread.
#[derive(Clone)]
pub struct Stopper {
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl Stopper {
    /// Lets the loop end after its present turn.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        // Without it the next turn, soon anyway.
        let _ = self.waker.wake();
    }
}

/// Why an agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The key.
    #[error("the key: {0}")]
    Key(#[from] KeyError),
    /// Device, addresses, routes.
    #[error(transparent)]
    Edge(#[from] SetUpError),
    /// An address cannot be listened on, or the event loop cannot be made.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        error: io::Error,
    },
}

impl StartError {
    fn at(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| StartError::Io { what, error }
    }

    /// The same as a problem with the configuration.
    pub fn problem(&self, settings: &Settings) -> Problem {
        match self {
            StartError::Key(error) => {
                let path = &settings.key_file.value;
                let mut problem =
                    settings.problem(format!("{}: {error}", path.display()), error.help(path));
                problem.place = settings.key_file.place.clone();
                problem
            }
            other => settings.problem(
                other.to_string(),
                "run it as root, on a machine that has what the configuration names",
            ),
        }
    }
}

/// What the machine lacks for this configuration, found without changing anything.
pub fn inspect(settings: &Settings) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Err(error) = HostKey::load(&settings.key_file.value) {
        problems.push(StartError::Key(error).problem(settings));
    }
    if settings.set_sysctls {
        // They are set when the agent starts, and put back when it ends.
        return problems;
    }
    match edge::unmet(settings) {
        Ok(unmet) => problems.extend(unmet.iter().map(|unmet| {
            let help = "set it with that command (and in /etc/sysctl.d), or write set_sysctls = true in [host]";
            settings.problem(unmet.to_string(), help)
        })),
        Err(error) => problems.push(settings.problem(
            error.to_string(),
            "run it on a Linux kernel with this IP version switched on",
        )),
    }
    problems
}

impl Agent {
    /// Sets everything up, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// What is in the way; everything done before has been undone.
    pub fn start(settings: Settings) -> Result<Self, StartError> {
        let key = HostKey::load(&settings.key_file.value)?;
        let poll = Poll::new().map_err(StartError::at("making the event loop"))?;
        let registry = poll.registry();
        let waker = Waker::new(registry, WAKER).map_err(StartError::at("making the event loop"))?;
        let incarnation = getrandom::u64()
            .map_err(|error| StartError::at("random numbers")(io::Error::other(error)))?;
        let (listen, psk) = (settings.listen.value, key.psk());
        let channels =
            Channels::listen(listen, &settings.nodes, incarnation, psk, registry, CHANNELS)
                .map_err(StartError::at("listening for the balancers"))?;
        // Before there is anything that could end.
        let endings = Endings::subscribe().map_err(StartError::at("asking for ended sockets"))?;
        let shared = Arc::new(Shared::default());
        let observers = Observers::start(&settings, &shared)
            .map_err(StartError::at("listening for questions"))?;
        let edge = Edge::set_up(&settings)?;
        for (descriptor, token) in [(edge.tun.as_raw_fd(), DEVICE), (endings.as_raw_fd(), ENDINGS)]
        {
            registry
                .register(&mut SourceFd(&descriptor), token, Interest::READABLE)
                .map_err(StartError::at("registering with the event loop"))?;
        }
        let limits = Limits {
            connections: settings.connections,
            remembered: REMEMBERED,
            patience: settings.patience,
        };
        let nodes = settings.tunnel_nodes.iter().copied();
        let own = settings.tunnel.iter().copied();
        Ok(Agent {
            target: Target::new(limits, incarnation, settings.has_kernel_service()),
            mappings: Mappings::new(nodes, own, settings.connections),
            connections: Connections::default(),
            packets: PacketPath::default(),
            hand_overs: HandOvers::default(),
            channels,
            endings,
            endings_wait: true,
            clock: Clock::start(),
            poll,
            stop: Arc::new(AtomicBool::new(false)),
            waker: Arc::new(waker),
            shared,
            _observers: observers,
            edge,
            settings,
        })
    }

    /// What ends [`run`](Self::run).
    pub fn stopper(&self) -> Stopper {
        Stopper { stop: self.stop.clone(), waker: self.waker.clone() }
    }

    /// Works until told to stop.
    ///
    /// # Errors
    /// The event loop cannot go on.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        info!(listen = %self.settings.listen.value, "ready for connections");
        while !self.stop.load(Ordering::Acquire) {
            self.turn();
            let patience = self.patience();
            match self.poll.poll(&mut events, Some(patience)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    WAKER => {}
                    DEVICE => self.packets.handle_ready(),
                    ENDINGS => self.endings_wait = true,
                    token => {
                        // An error shows when reading.
                        let failed = event.is_error() || event.is_read_closed();
                        let readable = event.is_readable() || failed;
                        self.channels.handle_ready(token, readable, event.is_writable());
                    }
                }
            }
        }
        self.give_up();
        Ok(())
    }

    /// Nobody will translate for replayed servers any more: they are told so, while the way to them is still there, and so are the
    /// balancers. What is in the kernel goes on.
    fn give_up(&mut self) {
        let lost = self.connections.replayed();
        if !lost.is_empty() {
            info!(
                lost = lost.len(),
                "connections to servers that know nothing of migrations are lost"
            );
        }
        for id in lost {
            self.remove(id);
            self.target.ended(id, HowEnded::Lost);
        }
        self.perform();
        self.channels.flush(self.clock.now(), self.poll.registry());
    }

    fn turn(&mut self) {
        self.listen();
        self.perform();
        self.notice_endings();
        self.perform();
        self.handle_packets();
        self.perform();
        let now = self.clock.now();
        self.target.expire(now);
        self.handle_deadlines(now);
        self.hand_over_again();
        self.perform();
        self.channels.flush(now, self.poll.registry());
        self.publish();
    }

    fn listen(&mut self) {
        let now = self.clock.now();
        let Agent { channels, target, poll, .. } = self;
        let hello = target.hello();
        channels.turn(
            now,
            poll.registry(),
            || hello.clone(),
            |from, message| target.handle(now, from, message),
        );
    }

    /// How long to wait for something to happen.
    fn patience(&self) -> Duration {
        if self.packets.is_readable() {
            return Duration::ZERO;
        }
        let now = self.clock.now();
        let deadlines =
            [self.target.next_deadline(), self.channels.next_deadline(), self.connections.next()];
        let next = deadlines.into_iter().flatten().min().unwrap_or(Time::NEVER);
        let busy = if self.hand_overs.len() > 0 { BUSY_TURN } else { IDLE_TURN };
        // Rounded up: poll counts in milliseconds, and would turn idly for the rest of one.
        (next.since(now) + Duration::from_millis(1)).min(busy)
    }

    fn publish(&self) {
        let nodes = [Balancer::A, Balancer::B].map(|node| self.channels.is_connected(node));
        self.shared.publish(Status {
            nodes,
            committed: self.target.committed(),
            waiting: self.target.waiting(),
            mapped: self.mappings.len(),
            handing_over: self.hand_overs.len(),
            target: self.target.counts(),
            channels: self.channels.counts(),
            packets: self.packets.counts(),
        });
    }
}
