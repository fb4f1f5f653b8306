//! The loop: one thread that asks the nodes, hears their answers, and does what the [`Judge`] decides.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mio::{Events, Interest, Poll, Registry, Token, Waker, net::UdpSocket};
use outlive_net::{
    netlink::NetlinkError,
    privilege::{self, Missing},
};
use outlive_node::{
    clock::Clock,
    detector::wire::{ANSWER_LEN, Answer, Question},
    key::{KeyError, WatchKey},
    settings::Problem,
};
use outlive_proxy::config::NodeId;
use outlive_tcp::time::Time;
use tracing::{info, warn};

use crate::{
    check::{Check, CheckConfig},
    decide::{Action, Judge},
    settings::{Settings, SwitchSettings},
    switch::{ExecSwitch, Redirection, RouteSwitch, Switch, Switches},
};

const WAKER: Token = Token(usize::MAX);
/// Above ordinary threads: a detector that is late takes a node for dead.
const PRIORITY: u8 = 20;
/// Answers read of one socket in a turn.
const BUDGET: usize = 64;
/// What is wrong with what arrives is logged no more often than this.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// A detector, ready to [`run`](Watcher::run).
pub struct Watcher {
    key: WatchKey,
    judge: Judge,
    clock: Clock,
    poll: Poll,
    waker: Arc<Waker>,
    stop: Arc<AtomicBool>,
    paths: Vec<Path>,
    switches: Option<Switches>,
    to_check: Option<CheckConfig>,
    check: Option<Check>,
    complained: Option<Time>,
}

/// A way to a node.
struct Path {
    node: NodeId,
    address: SocketAddr,
    /// The only one to this node: what is refused on it is refused by the node.
    is_only: bool,
    /// `None`: it cannot be had at the moment.
    socket: Option<UdpSocket>,
    readable: bool,
}

/// Ends a detector's [`run`](Watcher::run) from another thread.
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

/// Why a detector could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The watch key.
    #[error("{}: {error}", path.display())]
    Key {
        /// Its file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        error: KeyError,
    },
    /// Routes cannot be changed by this user.
    #[error("{0}")]
    Privilege(Missing),
    /// Routes cannot be changed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Random numbers, the poll, a thread.
    #[error("the system refuses what every program needs: {0}")]
    System(#[from] io::Error),
}

impl StartError {
    /// As a problem of the configuration, with its place if it has one.
    pub fn problem(&self, settings: &Settings) -> Problem {
        let (place, help) = match self {
            StartError::Key { error: KeyError::Missing | KeyError::NotAKey { .. }, path } => (
                settings.key_file.place.clone(),
                format!(
                    "make it on a node with `outlive keygen --watch PAIR_KEY_FILE --output {}`",
                    path.display()
                ),
            ),
            StartError::Key { error, path } => (settings.key_file.place.clone(), error.help(path)),
            StartError::Privilege(_) => {
                (None, "run it as root, or give it CAP_NET_ADMIN: it changes routes".to_owned())
            }
            _ => (None, "nothing has been changed; try again".to_owned()),
        };
        Problem { file: settings.file.clone(), place, message: self.to_string(), help }
    }
}

impl Watcher {
    /// Opens everything, in the network namespace of the calling thread. Changes nothing yet, and asks nobody.
    ///
    /// # Errors
    /// What is missing.
    pub fn start(settings: &Settings) -> Result<Self, StartError> {
        let path = &settings.key_file.value;
        let key =
            WatchKey::load(path).map_err(|error| StartError::Key { path: path.clone(), error })?;
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let switches = match settings.switches.is_empty() {
            true => None,
            false => Some(Switches::start(switches(settings)?, waker.clone())?),
        };
        let clock = Clock::start();
        let number = getrandom::u64().map_err(io::Error::other)?;
        let mut paths = Vec::new();
        for (node, addresses) in [NodeId::A, NodeId::B].into_iter().zip(&settings.nodes) {
            let is_only = addresses.len() == 1;
            paths.extend(addresses.iter().map(|address| Path {
                node,
                address: *address,
                is_only,
                socket: None,
                readable: false,
            }));
        }
        Ok(Watcher {
            key,
            judge: Judge::new(settings.rules.clone(), number, clock.now()),
            clock,
            poll,
            waker,
            stop: Arc::new(AtomicBool::new(false)),
            paths,
            switches,
            to_check: settings.check.clone(),
            check: None,
            complained: None,
        })
    }

    /// What ends [`run`](Self::run).
    pub fn stopper(&self) -> Stopper {
        Stopper { stop: self.stop.clone(), waker: self.waker.clone() }
    }

    /// Watches until it is [stopped](Stopper). Packets then go on being led where they are.
    ///
    /// # Errors
    /// The system no longer lets the loop wait for its sockets.
    pub fn run(mut self) -> io::Result<()> {
        if let Some(config) = self.to_check.take() {
            self.check = Some(Check::start(config, self.waker.clone())?);
        }
        if let Err(refusal) = privilege::set_realtime(PRIORITY) {
            info!(%refusal, "watching without real-time priority");
        }
        let mut events = Events::with_capacity(64);
        info!("watching");
        while !self.stop.load(Ordering::Acquire) {
            let busy = self.paths.iter().any(|path| path.readable);
            let wait = self.judge.deadline().since(self.clock.now());
            let wait = if busy { Duration::ZERO } else { wait };
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                if let Some(path) = self.paths.get_mut(event.token().0) {
                    path.readable = true;
                }
            }
            self.turn();
        }
        info!("stopped; the packets are led where they were");
        Ok(())
    }

    fn turn(&mut self) {
        for path in 0..self.paths.len() {
            self.receive(path);
        }
        let now = self.clock.now();
        while let Some((to, success)) = self.switches.as_ref().and_then(Switches::poll) {
            self.judge.switched(now, to, success);
        }
        while let Some(success) = self.check.as_ref().and_then(Check::poll) {
            self.judge.checked(now, success);
        }
        self.judge.handle_timeout(now);
        self.act(now);
    }

    fn act(&mut self, now: Time) {
        while let Some(action) = self.judge.poll_action() {
            match action {
                Action::Say(question) => self.say(now, &question),
                Action::Switch { to, epoch, again } => match &self.switches {
                    Some(switches) => switches.request(Redirection { to, epoch, again }),
                    // The node announces itself.
                    None if again => {}
                    None => self.judge.switched(now, to, true),
                },
                Action::Log(event) if event.is_warning() => warn!("{event}"),
                Action::Log(event) => info!("{event}"),
            }
        }
    }

    /// Sends on every way to the node. What cannot be sent will not be answered, which is noticed.
    fn say(&mut self, now: Time, question: &Question) {
        let datagram = question.encode(&self.key);
        let mut refused = false;
        for (number, path) in self.paths.iter_mut().enumerate() {
            if path.node != question.node {
                continue;
            }
            if path.socket.is_none() {
                path.socket = open(self.poll.registry(), number, path.address).ok();
                path.readable = path.socket.is_some();
            }
            let Some(socket) = &path.socket else { continue };
            // The first reports what became of the one before.
            if let Err(error) = socket.send(&datagram)
                && error.kind() == io::ErrorKind::ConnectionRefused
            {
                refused |= path.is_only;
                let _ = socket.send(&datagram);
            }
        }
        if refused {
            self.judge.refused(now, question.node);
        }
    }

    fn receive(&mut self, number: usize) {
        for turn in 1..=BUDGET {
            let path = &mut self.paths[number];
            let Some(socket) = path.socket.as_ref().filter(|_| path.readable) else { return };
            // One byte more than an answer shows that a datagram is longer.
            let mut buffer = [0; ANSWER_LEN + 1];
            match socket.recv(&mut buffer) {
                Ok(len) => {
                    let (node, address) = (path.node, path.address);
                    self.datagram(node, address, &buffer[..len]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => path.readable = false,
                Err(error) => {
                    path.readable = turn < BUDGET;
                    if error.kind() == io::ErrorKind::ConnectionRefused && path.is_only {
                        let node = path.node;
                        self.judge.refused(self.clock.now(), node);
                    }
                }
            }
        }
    }

    fn datagram(&mut self, node: NodeId, from: SocketAddr, datagram: &[u8]) {
        let now = self.clock.now();
        let why = match Answer::decode(datagram, &self.key) {
            Ok(answer) if answer.state.node == node => {
                self.judge.answered(now, &answer);
                return;
            }
            Ok(_) => "it is of the other node".to_owned(),
            Err(error) => error.to_string(),
        };
        if self.complained.is_none_or(|at| now.since(at) >= COMPLAINT_INTERVAL) {
            self.complained = Some(now);
            warn!(%from, why, "an answer was refused");
        }
    }
}

/// Connected, so that a refusal is told.
fn open(registry: &Registry, number: usize, address: SocketAddr) -> io::Result<UdpSocket> {
    let any = match address.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let mut socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(address)?;
    registry.register(&mut socket, Token(number), Interest::READABLE)?;
    Ok(socket)
}

fn switches(settings: &Settings) -> Result<Vec<Switch>, StartError> {
    let routes = |switch: &SwitchSettings| matches!(switch, SwitchSettings::Route { .. });
    if settings.switches.iter().any(routes) && privilege::missing().contains(&Missing::NetAdmin) {
        return Err(StartError::Privilege(Missing::NetAdmin));
    }
    let switch = |switch: &SwitchSettings| {
        Ok(match switch {
            SwitchSettings::Route { destinations, via, table, metric } => {
                Switch::Route(RouteSwitch::new(destinations, via, *table, *metric)?)
            }
            SwitchSettings::Exec { command, timeout } => {
                Switch::Exec(ExecSwitch::new(command.clone(), *timeout))
            }
        })
    };
    settings.switches.iter().map(switch).collect()
}
