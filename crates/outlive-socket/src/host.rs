//! The host: it starts the loop, and hands out listeners.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use mio::{Poll, Waker};
use outlive_node::{
    clock::{Clock, unix_us},
    heartbeat::{HeartbeatConfig, Heartbeats},
    state::{EndpointConfig, StateEndpoint},
};
use outlive_proxy::node::Entropy;
use outlive_stack::{Backlog, Counters, DEFAULT_BACKLOG, Stack, Standing};
use tokio::sync::watch;

use crate::{
    config::{HostConfig, PeerConfig},
    driver::{Driver, EDGE, STATE, Sockets, WAKER, outgoing},
    edge::Edge,
    error::{HostEnded, ListenError, StartError},
    listener::Listener,
    shared::Shared,
    target::MigrationTarget,
};

/// Detection timeouts without a turn of the loop after which heartbeats are withheld.
const STALL: u32 = 3;
/// The state connection's unacknowledged data waits for at most this many confirmation timeouts.
const STATE_PATIENCE: u32 = 3;

/// A TCP host inside of this process, with addresses of its own.
///
/// It ends when it is dropped, or [shut down](Self::shutdown): the addresses are given up, and its
/// connections are left as they are. With a standby, they go on there; without one, they are no more.
///
/// See the [crate's page](crate) for a whole program.
pub struct Host {
    shared: Arc<Shared>,
    addresses: Vec<std::net::IpAddr>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Host {
    /// Sets everything up in the network namespace of the calling thread: a TUN device, routes of the
    /// addresses, sockets that answer neighbours, and a thread that owns them. Needs `CAP_NET_ADMIN`
    /// and `CAP_NET_RAW`.
    ///
    /// ```no_run
    /// use outlive_socket::{Host, HostConfig, StartError};
    ///
    /// let config = HostConfig::new([192, 0, 2, 10].into(), "eth0");
    /// match Host::start(config) {
    ///     Ok(host) => println!("{:?}", *host.standing().borrow()),
    ///     Err(StartError::Tun(error)) => eprintln!("are you root? {error}"),
    ///     Err(error) => eprintln!("{error}"),
    /// }
    /// ```
    ///
    /// # Errors
    /// What failed. Everything that was done before has been undone.
    pub fn start(config: HostConfig) -> Result<Self, StartError> {
        if config.routed().is_empty() {
            return Err(StartError::NoAddress);
        }
        if config.migration.is_some() && config.peer.is_some() {
            return Err(StartError::MigrationWithPeer);
        }
        let poll = Poll::new().map_err(StartError::System)?;
        let waker = || Waker::new(poll.registry(), WAKER).map_err(StartError::System);
        let clock = Clock::start();
        let mut entropy = [0; 32];
        getrandom::fill(&mut entropy).map_err(|e| StartError::System(io::Error::other(e)))?;
        let stack = Stack::new(config.stack(), Entropy(entropy), unix_us(), clock.now());
        let edge = Edge::set_up(&config, poll.registry(), EDGE)?;
        let waker = Arc::new(waker()?);
        let state = config.peer.as_ref().map(|peer| open_state(peer, &stack, &poll)).transpose()?;
        let heartbeats = config
            .peer
            .as_ref()
            .map(|peer| start_heartbeats(peer, &stack, clock, &waker))
            .transpose()?;
        let migration_token = EDGE + 1 + config.interfaces.len();
        let migration = config
            .migration
            .as_ref()
            .map(|it| {
                let connections = config.connections;
                MigrationTarget::start(it, connections, poll.registry(), migration_token)
            })
            .transpose()?;
        let detection = config.stack().pair.detection_timeout;
        let shared = Shared::new(stack, clock, waker);
        let sockets = Sockets { edge, state, heartbeats, migration };
        let driver = Driver::new(shared.clone(), sockets, detection, poll);
        let thread = std::thread::Builder::new().name("outlive-host".to_owned());
        let thread = thread.spawn(move || driver.run()).map_err(StartError::System)?;
        let mut addresses = config.addresses;
        addresses.extend(config.migration.into_iter().flat_map(|migration| migration.addresses));
        Ok(Host { shared, addresses, thread: Mutex::new(Some(thread)) })
    }

    /// Listens at `local`, whose address is one of the host's. Up to 1,024 connections wait to be
    /// accepted, and as many handshakes have a state of their own; see
    /// [`listen_with_backlog`](Self::listen_with_backlog).
    pub fn listen(&self, local: SocketAddr) -> Result<Listener, ListenError> {
        self.listen_with_backlog(local, DEFAULT_BACKLOG)
    }

    /// The same with another limit. Handshakes beyond it cost no memory (they are answered with a
    /// cookie), and when as many connections wait, new clients are not answered.
    pub fn listen_with_backlog(
        &self,
        local: SocketAddr,
        backlog: usize,
    ) -> Result<Listener, ListenError> {
        if !self.addresses.contains(&local.ip()) {
            return Err(ListenError::NotOurs(local.ip()));
        }
        self.shared.use_stack()?.stack.listen(local.into(), backlog)?;
        Ok(Listener::new(self.shared.clone(), local))
    }

    /// What this node is, now and whenever it changes.
    ///
    /// ```no_run
    /// # use outlive_socket::{Host, Standing};
    /// # async fn example(host: &Host) -> Result<(), Box<dyn std::error::Error>> {
    /// host.standing().wait_for(|standing| *standing == Standing::Protected).await?;
    /// println!("from now on, the death of this process would be survived");
    /// # Ok(()) }
    /// ```
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.shared.standing.subscribe()
    }

    /// What waits for the standby, and for how long: whether it keeps up.
    ///
    /// A standby that confirms late makes every [`commit`](crate::Stream::commit) take as long, and
    /// clients repeat what is not acknowledged. It costs no memory: of each connection one record is
    /// under way. One that confirms nothing for [`PairConfig::confirm_timeout`](crate::PairConfig) is
    /// given up, and [`standing`](Self::standing) says so.
    ///
    /// ```no_run
    /// # fn example(host: &outlive_socket::Host) {
    /// let backlog = host.backlog();
    /// if backlog.oldest.as_millis() > 100 {
    ///     eprintln!("{} connections wait for the standby", backlog.connections);
    /// }
    /// # }
    /// ```
    pub fn backlog(&self) -> Backlog {
        self.shared.lock().stack.backlog(self.shared.clock.now())
    }

    /// What has happened since the start.
    pub fn counters(&self) -> Counters {
        self.shared.lock().stack.counters()
    }

    /// Connections in the table, those that are being opened included.
    pub fn connections(&self) -> usize {
        self.shared.lock().stack.connections()
    }

    /// Ends the host, and waits until it has. Streams that are dropped afterwards send nothing, so
    /// their connections go on at the standby: a program that wants that ends its host before its
    /// tasks.
    ///
    /// ```no_run
    /// # fn example(host: outlive_socket::Host, tasks: Vec<tokio::task::JoinHandle<()>>) {
    /// host.shutdown();
    /// tasks.iter().for_each(|task| task.abort());
    /// # }
    /// ```
    pub fn shutdown(&self) {
        self.shared.lock().stop = true;
        self.shared.wake_loop();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic there has been reported by itself.
            let _ = thread.join();
        }
    }

    /// No connection is migrated here from now on, or again. Balancers are told when they ask, and choose
    /// another target. [`connections`](Self::connections) says how many are still here.
    pub fn drain(&self, draining: bool) {
        self.shared.lock().draining = draining;
        self.shared.wake_loop();
    }

    /// Whether the host still runs.
    pub fn is_running(&self) -> Result<(), HostEnded> {
        self.shared.use_stack().map(drop)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.shutdown();
    }
}

fn open_state(peer: &PeerConfig, stack: &Stack, poll: &Poll) -> Result<StateEndpoint, StartError> {
    let config = EndpointConfig {
        node: peer.node,
        incarnation: stack.beliefs().incarnation,
        psk: peer.key.state_psk(),
        local: peer.state.0,
        peer: peer.state.1,
        user_timeout: peer.watch.confirm_timeout * STATE_PATIENCE,
    };
    StateEndpoint::open(config, poll.registry(), STATE).map_err(StartError::State)
}

fn start_heartbeats(
    peer: &PeerConfig,
    stack: &Stack,
    clock: Clock,
    waker: &Arc<Waker>,
) -> Result<Heartbeats, StartError> {
    let config = HeartbeatConfig {
        paths: peer.heartbeat.clone(),
        key: peer.key.heartbeat(),
        interval: peer.watch.heartbeat_interval,
        stall_timeout: peer.watch.detection_timeout * STALL,
    };
    let say = outgoing(stack, clock.now());
    Heartbeats::start(config, clock, say, waker.clone()).map_err(|(path, error)| match path {
        Some(number) => StartError::Heartbeat(number, error),
        None => StartError::System(error),
    })
}
