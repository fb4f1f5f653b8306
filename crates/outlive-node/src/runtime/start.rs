//! Setting a node up: everything that can fail, in an order in which a failure leaves nothing behind.

use std::{
    io,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32},
    },
};

use mio::{Poll, Waker};
use outlive_proxy::{Entropy, Node, config::Detector};
use tracing::info;

use super::{ADMIN, EDGE, Runtime, STATE, TARGETS, WAKER, node_state, outgoing};
use crate::{
    admin::{AdminServer, OpenError},
    clock::{Clock, unix_us},
    detector::{Responder, ResponderConfig},
    edge::{Edge, SetUpError},
    fast_path::KernelPath,
    heartbeat::{HeartbeatConfig, Heartbeats},
    metrics::Metrics,
    packets::PacketPath,
    preflight::Plan,
    reload::target_configs,
    settings::{PeerSettings, Problem, Settings},
    state::{EndpointConfig, Preamble, StateEndpoint},
    targets::TargetLinks,
};

/// Detection timeouts without a turn of the loop after which heartbeats are withheld.
const STALL: u32 = 3;
/// The state connection's unacknowledged data waits for at most this many confirmation timeouts.
const STATE_PATIENCE: u32 = 3;

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The admin socket.
    #[error(transparent)]
    Admin(#[from] OpenError),
    /// The state port.
    #[error("the state address cannot be listened on: {0}")]
    State(io::Error),
    /// A heartbeat path's address, by the path's number.
    #[error("the heartbeat address cannot be had: {1}")]
    Heartbeat(usize, io::Error),
    /// An address at which an external detector asks, by its number.
    #[error("the address for the external detector cannot be had: {1}")]
    Detector(usize, io::Error),
    /// The address for metrics.
    #[error("the address for metrics cannot be listened on: {0}")]
    Metrics(io::Error),
    /// TUN device, routes, packet sockets.
    #[error(transparent)]
    Edge(#[from] SetUpError),
    /// The pair's key is missing from the plan, which belongs to another configuration.
    #[error("the plan was made for another configuration")]
    Plan,
    /// Random numbers, the poll, a thread.
    #[error("the system refuses what every program needs: {0}")]
    System(io::Error),
}

impl StartError {
    /// As a problem of the configuration, with its place if it has one.
    pub fn problem(&self, settings: &Settings) -> Problem {
        let in_use = "stop what uses it (`ss -tulpn` shows it), or choose another port";
        let (place, help) = match (self, &settings.peer) {
            (StartError::State(_), Some(peer)) => (peer.state.local.place.clone(), in_use),
            (StartError::Heartbeat(number, _), Some(peer)) => {
                let path = peer.heartbeat.get(*number);
                (path.and_then(|path| path.local.place.clone()), in_use)
            }
            (StartError::Detector(number, _), _) => {
                (settings.watch.get(*number).and_then(|address| address.place.clone()), in_use)
            }
            (StartError::Metrics(_), _) => {
                (settings.metrics.as_ref().and_then(|listen| listen.place.clone()), in_use)
            }
            (StartError::Admin(_), _) => (
                settings.admin_socket.place.clone(),
                "stop the other node, or give this one an admin_socket of its own in [node]",
            ),
            (StartError::Edge(_), _) => {
                (settings.tun.place.clone(), "remove what is in the way; nothing has been changed")
            }
            _ => (None, "nothing has been changed; try again"),
        };
        Problem {
            file: settings.file.clone(),
            place,
            message: self.to_string(),
            help: help.to_owned(),
        }
    }
}

impl Runtime {
    /// Sets everything up, in the network namespace of the calling thread. The node listens for its peer
    /// and claims nothing until it [runs](Self::run).
    ///
    /// # Errors
    /// What failed; everything done before has been undone.
    pub fn start(settings: Settings, plan: &Plan) -> Result<Self, StartError> {
        let poll = Poll::new().map_err(StartError::System)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(StartError::System)?);
        let admin = AdminServer::open(&settings.admin_socket.value, poll.registry(), ADMIN)?;

        let mut config = settings.proxy.clone();
        config.mtu = plan.mtu;
        let clock = Clock::start();
        let mut entropy = [0; 32];
        getrandom::fill(&mut entropy).map_err(|e| StartError::System(io::Error::other(e)))?;
        let mut node = Node::new(config, Entropy(entropy), unix_us(), clock.now());

        node.use_segmentation();
        if let Some(peer) = &settings.peer {
            // Only to see that it can be had, before anything is changed.
            TcpListener::bind(peer.state.local.value).map_err(StartError::State)?;
        }
        let edge = Edge::set_up(&settings, plan, poll.registry(), EDGE)?;
        let fast_path = open_fast_path(&settings);
        if let Ok(path) = &fast_path {
            node.use_fast_path(path.for_core());
        }
        // After the TUN device: the kernel closes a killed process's descriptors from the last to the
        // first, and taking the device down keeps it busy for tens of milliseconds in which
        // the peer would not be refused yet.
        let state = match &settings.peer {
            Some(peer) => Some(open_state(peer, &settings, plan, &node, &poll)?),
            None => None,
        };
        let targets = open_targets(&settings, plan, &node, &poll)?;
        let heartbeats = match &settings.peer {
            Some(peer) => Some(start_heartbeats(peer, &settings, plan, &node, clock, &waker)?),
            None => None,
        };
        let detector = match settings.watch.is_empty() {
            true => None,
            false => Some(start_detector(&settings, plan, &node, clock, &waker)?),
        };
        let metrics = match &settings.metrics {
            Some(listen) => {
                Some(Metrics::start(listen.value, waker.clone()).map_err(StartError::Metrics)?)
            }
            None => None,
        };
        Ok(Runtime {
            keeper: None,
            fast_path,
            edge,
            heartbeats,
            detector,
            metrics,
            state,
            targets,
            admin,
            node,
            packets: PacketPath::new(),
            clock,
            poll,
            waker,
            stop: Arc::new(AtomicU32::new(0)),
            reload: Arc::new(AtomicBool::new(false)),
            stopping: None,
            settings,
            behind: 0,
            neighbours_wait: false,
            events_wait: false,
            targets_wait: false,
            overlooked: false,
            measures: false,
            survey: None,
        })
    }
}

/// The fast path, or why there is none.
fn open_fast_path(settings: &Settings) -> Result<KernelPath, String> {
    let interfaces: Vec<&str> = settings.interfaces.iter().map(|i| i.value.as_str()).collect();
    let (sessions, device) = (settings.fast_path, &settings.tun.value);
    if sessions == 0 {
        return Err("limits.fast_path is 0".to_owned());
    }
    KernelPath::open(sessions, device, &interfaces).map_err(|reason| {
        info!(%reason, "established sessions are not left to the kernel");
        reason.to_string()
    })
}

fn open_state(
    peer: &PeerSettings,
    settings: &Settings,
    plan: &Plan,
    node: &Node,
    poll: &Poll,
) -> Result<StateEndpoint, StartError> {
    let key = plan.key.as_ref().ok_or(StartError::Plan)?;
    let config = EndpointConfig {
        node: settings.proxy.node,
        incarnation: node.beliefs().incarnation,
        psk: key.state_psk(),
        local: peer.state.local.value,
        peer: peer.state.peer,
        user_timeout: settings.proxy.pair.confirm_timeout * STATE_PATIENCE,
    };
    StateEndpoint::open(config, poll.registry(), STATE).map_err(StartError::State)
}

fn open_targets(
    settings: &Settings,
    plan: &Plan,
    node: &Node,
    poll: &Poll,
) -> Result<TargetLinks, StartError> {
    let own = Preamble { node: settings.proxy.node, incarnation: node.beliefs().incarnation };
    if plan.key.is_none() && !settings.targets.is_empty() {
        return Err(StartError::Plan);
    }
    let targets = target_configs(settings, plan);
    TargetLinks::new(targets, own, poll.registry(), TARGETS).map_err(StartError::System)
}

fn start_heartbeats(
    peer: &PeerSettings,
    settings: &Settings,
    plan: &Plan,
    node: &Node,
    clock: Clock,
    waker: &Arc<Waker>,
) -> Result<Heartbeats, StartError> {
    let key = plan.key.as_ref().ok_or(StartError::Plan)?;
    let config = HeartbeatConfig {
        paths: peer.heartbeat.iter().map(|path| (path.local.value, path.peer)).collect(),
        key: key.heartbeat(),
        interval: settings.proxy.pair.heartbeat_interval,
        stall_timeout: settings.proxy.pair.detection_timeout * STALL,
    };
    let outgoing = outgoing(node, clock.now());
    Heartbeats::start(config, clock, outgoing, waker.clone()).map_err(|(path, error)| match path {
        Some(number) => StartError::Heartbeat(number, error),
        None => StartError::System(error),
    })
}

fn start_detector(
    settings: &Settings,
    plan: &Plan,
    node: &Node,
    clock: Clock,
    waker: &Arc<Waker>,
) -> Result<Responder, StartError> {
    let key = plan.key.as_ref().ok_or(StartError::Plan)?;
    let pair = &settings.proxy.pair;
    let config = ResponderConfig {
        listen: settings.watch.iter().map(|address| address.value).collect(),
        key: key.watch(),
        stall_timeout: pair.detection_timeout * STALL,
    };
    let state = node_state(node, clock.now(), pair.detector == Detector::External);
    Responder::start(config, clock, state, waker.clone()).map_err(
        |(address, error)| match address {
            Some(number) => StartError::Detector(number, error),
            None => StartError::System(error),
        },
    )
}
