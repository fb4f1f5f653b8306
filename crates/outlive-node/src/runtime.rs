//! The event loop: one thread that owns the core, the TUN device and the state connection.
//!
//! A turn reads everything that has arrived, in the order of its weight: heartbeats, the state connection to
//! its end, packets up to a budget. Only then may the core judge that its peer is silent or late. What
//! the core wants done follows each step: events, then its own packets; messages and beliefs at the
//! end of the turn, so that many leave in one frame.
//!
//! Sockets are edge-triggered and remember their own readiness, so a turn without a socket's event makes no
//! system call for it.

mod start;

use std::{
    io,
    net::SocketAddr,
    os::fd::AsFd,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use mio::{Events, Poll, Token, Waker};
use outlive_net::{fast_path::monotonic, keeper::Keeper};
use outlive_proxy::{
    HandoverProgress, HandoverRefusal, Node,
    config::{Detector, NodeId},
    event::{Event, LogEvent, Severity},
    pair::{heartbeat::Role, order::Outcome},
    status::Survival as CoreSurvival,
    survey::Survey,
};
use outlive_tcp::time::Time;
use tracing::{debug, info, warn};

use crate::{
    admin::{
        AdminServer, Answer, Request,
        gather::{Sources, gather},
    },
    clock::Clock,
    detector::{Pending, Responder, wire::NodeState},
    edge::Edge,
    fast_path::{ASK_EVERY, KernelPath},
    heartbeat::{Heartbeats, Outgoing},
    metrics::Metrics,
    packets::PacketPath,
    reload::reload,
    settings::Settings,
    state::{Failure, StateEndpoint, StateEvent},
    targets::{TargetEvent, TargetLinks},
};

pub use self::start::StartError;

const WAKER: Token = Token(0);
const ADMIN: usize = 1;
const STATE: usize = ADMIN + AdminServer::TOKENS;
const EDGE: usize = STATE + StateEndpoint::TOKENS;
/// Behind all that an edge can have: interfaces may be added.
const TARGETS: usize = 1 << 20;

/// A loop without a peer need not turn often when nothing happens.
const IDLE_TURN: Duration = Duration::from_secs(1);
/// Until the next look whether heartbeats that have arrived have been read.
const OVERLOOKED: Duration = Duration::from_millis(1);
/// What a node that is told to stop takes at most to hand over first.
pub const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// Places of the session table, and of the fast path, that are looked at in a turn to count them.
const COUNTED: usize = 4_096;
/// Turns that the judgement of the peer is put off while the state connection still has something to read.
const PATIENT_TURNS: u32 = 16;

/// A node, set up and ready to [`run`](Runtime::run). Dropping it removes everything it set up.
pub struct Runtime {
    /// Keeps what follows for a moment if this process is killed.
    keeper: Option<Keeper>,
    /// Or why there is none.
    fast_path: Result<KernelPath, String>,
    edge: Edge,
    heartbeats: Option<Heartbeats>,
    detector: Option<Responder>,
    metrics: Option<Metrics>,
    state: Option<StateEndpoint>,
    targets: TargetLinks,
    admin: AdminServer,
    node: Node,
    packets: PacketPath,
    clock: Clock,
    poll: Poll,
    waker: Arc<Waker>,
    stop: Arc<AtomicU32>,
    /// It was told to read its file again.
    reload: Arc<AtomicBool>,
    /// It was told to stop, and hands over first; until then at the latest.
    stopping: Option<Time>,
    settings: Settings,
    /// Turns in which the state connection was not read to its end.
    behind: u32,
    /// More neighbours have asked than were answered in one turn.
    neighbours_wait: bool,
    /// So has the fast path.
    events_wait: bool,
    /// And the targets.
    targets_wait: bool,
    /// Heartbeats have arrived that have not been read.
    overlooked: bool,
    /// Sessions are being counted for the metrics, or for a command.
    measures: bool,
    /// How far that has come for a command.
    survey: Option<Survey>,
}

/// Ends a node's [`run`](Runtime::run), or has it reload, from another thread.
#[derive(Clone)]
pub struct Stopper {
    /// How often it was told to.
    stop: Arc<AtomicU32>,
    reload: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl Stopper {
    /// Lets the node, and its peer, read their files again, and obey them if nothing is wrong with them.
    pub fn reload(&self) {
        self.reload.store(true, Ordering::Release);
        let _ = self.waker.wake();
    }

    /// Lets the loop end: an active node with a synchronised standby hands over to it first, which takes no longer
    /// than [`STOP_PATIENCE`]. Told a second time, it ends after its present turn.
    pub fn stop(&self) {
        self.stop.fetch_add(1, Ordering::Release);
        // Without it the next turn, soon anyway.
        let _ = self.waker.wake();
    }
}

impl Runtime {
    /// What ends [`run`](Self::run).
    pub fn stopper(&self) -> Stopper {
        Stopper { stop: self.stop.clone(), reload: self.reload.clone(), waker: self.waker.clone() }
    }

    /// Has the kernel go on with established sessions for one detection timeout, in which the peer notices, if this process
    /// is killed. Given that time, `command` makes the program that comes to [`keep`](outlive_net::keeper::keep).
    pub fn use_keeper(&mut self, command: impl FnOnce(Duration) -> Command) {
        let (Ok(path), true) = (&self.fast_path, self.settings.peer.is_some()) else { return };
        let mut command = command(self.settings.proxy.pair.detection_timeout);
        match path.keep(&mut command, self.edge.tun.as_fd()) {
            Ok(keeper) => self.keeper = Some(keeper),
            Err(error) => {
                warn!(%error, "established sessions will stand still if this process is killed, until the peer has noticed")
            }
        }
    }

    /// Turns until it is [stopped](Stopper). Then everything that was set up is removed.
    ///
    /// # Errors
    /// The system no longer lets the loop wait for its sockets.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        info!(node = %self.name(), "running");
        while !self.has_ended() {
            let wait = self.wait();
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            self.turn(&events);
        }
        info!(node = %self.name(), "stopping");
        Ok(())
    }

    /// Whether the node has been told to stop, and has nothing left to hand over.
    fn has_ended(&mut self) -> bool {
        let told = self.stop.load(Ordering::Acquire);
        if told == 0 {
            return false;
        }
        let now = self.clock.now();
        match self.stopping {
            _ if told > 1 => true,
            Some(until) => now >= until || self.node.handover() == HandoverProgress::None,
            None => {
                self.stopping = Some(now + STOP_PATIENCE);
                !self.hand_over_first(now)
            }
        }
    }

    /// Whether there is something to hand over, or to relay, before the node may stop.
    fn hand_over_first(&mut self, now: Time) -> bool {
        match self.node.hand_over(now) {
            Ok(()) => true,
            Err(HandoverRefusal::UnderWay | HandoverRefusal::NotActive) => {
                self.node.handover() != HandoverProgress::None
            }
            Err(HandoverRefusal::NotSurvivable(CoreSurvival::NoPeer)) => false,
            Err(reason) => {
                warn!(%reason, "stopping without a handover");
                false
            }
        }
    }

    fn name(&self) -> char {
        if self.settings.proxy.node == NodeId::A { 'a' } else { 'b' }
    }

    /// How long the loop may wait for something to happen.
    fn wait(&self) -> Duration {
        let now = self.clock.now();
        let readable = self.packets.is_readable() && !self.node.holds_packets(now);
        let packets = readable || self.node.has_arrived();
        let others = self.neighbours_wait || self.events_wait || self.targets_wait;
        if packets || others || self.measures || self.behind > 0 {
            return Duration::ZERO;
        }
        if self.overlooked {
            // The thread that reads them needs the processor.
            return OVERLOOKED;
        }
        let pair = &self.settings.proxy.pair;
        let mut idle = if pair.enabled { pair.detection_timeout / 4 } else { IDLE_TURN };
        if self.node.delegated() > 0 {
            idle = idle.min(ASK_EVERY);
        }
        let state = self.state.as_ref().map(StateEndpoint::deadline);
        let deadlines = [self.node.poll_timeout(now), state, Some(self.targets.deadline())];
        deadlines.into_iter().flatten().fold(now + idle, Time::min).since(now)
    }

    fn turn(&mut self, events: &Events) {
        let began = monotonic();
        let now = self.clock.now();
        if let Some(heartbeats) = &self.heartbeats {
            heartbeats.progress(now);
        }
        for event in events {
            self.handle_ready(event);
        }
        if let Some(heartbeats) = &self.heartbeats {
            let node = &mut self.node;
            heartbeats.take(|path, at, heartbeat| node.handle_heartbeat(now, path, at, heartbeat));
        }
        let order = self.hear_detector(now);
        self.settle(now);
        self.read_state(now);
        self.settle(now);
        self.read_targets(now);
        self.settle(now);
        if !self.node.holds_packets(now) {
            self.packets.turn(now, &self.edge.tun, &mut self.node);
        }
        self.settle(now);
        self.drive_fast_path(now, began);
        self.neighbours_wait = self.edge.answer_neighbours();
        // What the peer has said in time must not be overlooked because it was much, or because this machine is busy.
        let behind = self.behind > 0 && self.behind <= PATIENT_TURNS;
        if !behind && !self.overlooks_heartbeats(now) {
            self.node.note_backlog(self.packets.is_readable());
            self.node.handle_timeout(now);
            self.settle(now);
        }
        if self.reload.swap(false, Ordering::AcqRel) && self.reload_file(now) {
            self.node.ask_peer_to_reload();
        }
        self.speak(now);
        self.tell_detector(now, order);
        self.answer(now);
    }

    /// Fetches what the kernel has to say of the sessions that were left to it, and lets it go on with them, until it
    /// would be time to ask the peer.
    fn drive_fast_path(&mut self, now: Time, began: Duration) {
        let Ok(path) = &mut self.fast_path else { return };
        let pair = &self.settings.proxy.pair;
        let time = if pair.enabled { pair.detection_timeout } else { 4 * IDLE_TURN };
        let serves = self.node.serves();
        path.serve(serves.then_some(began + time));
        self.events_wait = path.report(now, &mut self.node);
        if !serves && !self.events_wait {
            self.node.fast_path_is_quiet();
        }
    }

    fn handle_ready(&mut self, event: &mio::event::Event) {
        match event.token() {
            WAKER => {}
            Token(ADMIN..STATE) => self.admin.handle_ready(event.token()),
            Token(STATE..EDGE) => {
                if let Some(state) = &mut self.state {
                    state.handle_ready(event);
                }
            }
            Token(TARGETS..) => self.targets.handle_ready(event),
            token => {
                if self.edge.handle_ready(token) {
                    self.packets.handle_ready();
                }
            }
        }
    }

    /// Whether the peer has been silent for the detection timeout as far as is known, but more of it has arrived.
    fn overlooks_heartbeats(&mut self, now: Time) -> bool {
        let Some(heartbeats) = &self.heartbeats else { return false };
        let timeout = self.settings.proxy.pair.detection_timeout;
        let silent = now.since(heartbeats.last_heard().unwrap_or(now));
        // Whoever sends nonsense all the time must not keep a dead peer alive.
        let judged = silent >= timeout && silent < timeout * 2;
        // What the thread has read since this turn began is seen by the second look.
        self.overlooked = (judged && heartbeats.has_unread()) || heartbeats.has_news();
        self.overlooked
    }

    /// Hands over what an external detector said. Gives its order with what became of it, to be answered when the
    /// turn is over.
    fn hear_detector(&mut self, now: Time) -> Option<(Pending, Outcome)> {
        let news = self.detector.as_ref()?.take()?;
        self.node.handle_epoch(now, news.epoch);
        let (order, pending) = news.order?;
        let outcome = self.node.handle_order(now, order);
        match outcome.obeys() {
            true => {
                info!(epoch = %order.epoch, forced = order.forced, %outcome, "ordered to take over")
            }
            false => warn!(epoch = %order.epoch, %outcome, "ordered to take over, and refused"),
        }
        Some((pending, outcome))
    }

    fn tell_detector(&mut self, now: Time, order: Option<(Pending, Outcome)>) {
        let Some(detector) = &mut self.detector else { return };
        let waits = self.settings.proxy.pair.detector == Detector::External;
        detector.publish(now, node_state(&self.node, now, waits));
        if let Some((pending, outcome)) = order {
            detector.answer(&pending, outcome);
        }
    }

    /// Hands over what came on the state connection.
    fn read_state(&mut self, now: Time) {
        let (Some(state), node) = (&mut self.state, &mut self.node) else { return };
        let drained = state.drive(now, &mut |event| {
            match event {
                StateEvent::Connected => node.handle_state_connected(now),
                StateEvent::Closed(_) => node.handle_state_closed(now),
                StateEvent::Refused => node.handle_peer_refused(now),
                StateEvent::Message(message) => {
                    if let Err(error) = node.handle_state_message(now, message) {
                        warn!(%error, "the peer sent a message that cannot be obeyed");
                        return Err(Failure::Disobeyed);
                    }
                }
            }
            Ok(())
        });
        self.behind = if drained { 0 } else { self.behind + 1 };
    }

    /// Hands over what the targets' agents say.
    fn read_targets(&mut self, now: Time) {
        let node = &mut self.node;
        // What was not read in this turn is in the next: the judgement of the peer need not wait for it.
        self.targets_wait = !self.targets.drive(now, &mut |control, event| {
            match event {
                TargetEvent::Connected => node.handle_agent_connected(now, control.into()),
                TargetEvent::Closed => node.handle_agent_closed(now, control.into()),
                TargetEvent::Message(message) => {
                    if let Err(error) = node.handle_agent_message(now, control.into(), message) {
                        warn!(agent = %control, %error, "a target sent a message that cannot be obeyed");
                        return Err(Failure::Disobeyed);
                    }
                }
            }
            Ok(())
        });
        self.forget_targets(now);
    }

    /// Leaves the agents that are not configured any more and of which no connection is left.
    fn forget_targets(&mut self, now: Time) {
        let (targets, node) = (&mut self.targets, &mut self.node);
        let unneeded = |control: &SocketAddr| !node.needs_agent((*control).into());
        let unneeded: Vec<SocketAddr> = targets.retired().filter(unneeded).collect();
        for control in unneeded {
            info!(agent = %control, "the target's last connection has ended: it is left");
            targets.forget(control);
            node.forget_agent(now, control.into());
        }
    }

    /// Does what the core wants done, and sends what it has made.
    fn settle(&mut self, now: Time) {
        self.obey(now);
        if self.node.has_arrived() {
            self.packets.hand_in(now, &self.edge.tun, &mut self.node);
            self.obey(now);
        }
        self.packets.transmit(&self.edge.tun, &mut self.node);
    }

    fn obey(&mut self, now: Time) {
        while let Some(event) = self.node.poll_event() {
            match event {
                Event::Activate { epoch } => {
                    debug!(%epoch, "taking the virtual addresses");
                    self.edge.activate();
                }
                Event::Deactivate { epoch } => {
                    debug!(%epoch, "giving the virtual addresses up");
                    self.edge.deactivate();
                }
                Event::Relay { epoch } => {
                    debug!(%epoch, "answering for the virtual addresses no more");
                    self.edge.stop_answering();
                }
                Event::Announce => self.edge.announce(),
                Event::AddressesChanged => {
                    // Fewer: nothing can be in the way.
                    let registry = self.poll.registry();
                    let _ = self.edge.set_addresses(self.node.addresses(), &[], registry);
                }
                Event::Reload => {
                    info!("the peer asks to read the configuration again");
                    self.reload_file(now);
                }
                Event::CloseStateConnection(reason) => {
                    debug!(%reason, "closing the state connection");
                    if let Some(state) = &mut self.state {
                        state.close(now);
                    }
                }
                Event::Log(event) if self.settings.log_connections && is_of_connection(&event) => {
                    info!("{event}");
                }
                Event::Log(event) => match event.severity() {
                    Severity::Debug => debug!("{event}"),
                    Severity::Info => info!("{event}"),
                    Severity::Warning => warn!("{event}"),
                },
            }
        }
    }

    /// Tells the peer what there is to tell.
    fn speak(&mut self, now: Time) {
        if let Some(state) = &mut self.state {
            while state.push_with(|out| self.node.poll_state_message(now, out)) {}
            state.flush();
        }
        while let Some((control, message)) = self.node.poll_agent_message() {
            self.targets.push(control.into(), message);
        }
        self.targets.flush();
        let outgoing = outgoing(&self.node, now);
        if let Some(heartbeats) = &mut self.heartbeats
            && let Some(counter) = heartbeats.publish(outgoing)
        {
            self.node.handle_asked(counter);
        }
    }

    /// Obeys the changed file; the log tells what came of it. Returns whether it could.
    fn reload_file(&mut self, now: Time) -> bool {
        let Runtime { settings, node, edge, targets, poll, .. } = self;
        match reload(now, settings, node, edge, targets, poll.registry()) {
            Ok(changes) => info!(%changes, "the configuration was read again"),
            Err(problems) => {
                for problem in problems {
                    warn!("the configuration is not obeyed, nothing was changed: {problem}");
                }
                return false;
            }
        }
        true
    }

    /// Tells operators, and the metrics, how the node is, and obeys them, if somebody asks.
    fn answer(&mut self, now: Time) {
        let Runtime {
            admin, metrics, node, settings, edge, poll, targets, fast_path, survey, ..
        } = self;
        let (state, heartbeats) = (self.state.as_ref(), self.heartbeats.as_ref());
        let (detector, packets) = (self.detector.as_ref(), &self.packets);
        let told = |node: &Node,
                    path: &Result<_, _>,
                    settings: &Settings,
                    targets: &TargetLinks,
                    survey: &Survey| {
            let fast_path = path.as_ref();
            let known = Sources { state, targets, heartbeats, detector, fast_path, packets };
            gather(now, &node.status_with(now, survey), settings, &known)
        };
        self.measures = admin.drive(|request| {
            Some(match request {
                Request::Status => {
                    let counting = survey.get_or_insert_default();
                    if !count(node, fast_path, counting) {
                        return None;
                    }
                    let report = told(node, fast_path, settings, targets, counting);
                    *survey = None;
                    Box::new(report).into()
                }
                Request::Reload => {
                    match reload(now, settings, node, edge, targets, poll.registry()) {
                        Ok(changes) => {
                            info!(%changes, "the configuration was read again");
                            node.ask_peer_to_reload();
                            Answer::done(changes)
                        }
                        Err(problems) => {
                            let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
                            Answer::refusal(format!("nothing was changed\n{}", told.join("\n")))
                        }
                    }
                }
                Request::Drain { pool, server } => drain(now, node, &pool, server, true),
                Request::Undrain { pool, server } => drain(now, node, &pool, server, false),
                Request::HandOver => match node.hand_over(now) {
                    Ok(()) => Answer::done("handing over"),
                    Err(reason) => Answer::refusal(reason),
                },
            })
        });
        if let Some(metrics) = metrics
            && let Some(survey) = metrics.wanted()
        {
            if count(node, fast_path, survey) {
                let report = told(node, fast_path, settings, targets, survey);
                metrics.give(report);
            } else {
                self.measures = true;
            }
        }
    }
}

/// Goes on with counting the sessions, and what the fast path has passed. Returns whether that is complete.
fn count(node: &Node, fast_path: &mut Result<KernelPath, String>, survey: &mut Survey) -> bool {
    let sessions = node.survey(survey, COUNTED);
    sessions && fast_path.as_mut().map_or(true, |path| path.count_passed(COUNTED))
}

impl Drop for Runtime {
    /// Gives the addresses up, then lets the peer know by falling silent and refusing it; what takes longer (the
    /// device) comes after that, with the fields.
    fn drop(&mut self) {
        if let Ok(path) = &mut self.fast_path {
            path.serve(None);
        }
        self.edge.deactivate();
        self.state = None;
        self.heartbeats = None;
        self.detector = None;
        self.metrics = None;
    }
}

/// What an external detector is told.
fn node_state(node: &Node, now: Time, waits_for_orders: bool) -> NodeState {
    let (beliefs, peer) = (node.beliefs(), node.peer(now));
    NodeState {
        node: beliefs.node,
        role: beliefs.role,
        epoch: beliefs.epoch,
        incarnation: beliefs.incarnation,
        synchronised: beliefs.synchronised,
        unsure: node.asks(),
        hears_peer: peer.is_some(),
        peer_is_active: peer.is_some_and(|peer| peer.role == Role::Active),
        waits_for_orders,
        sessions: node.sessions() as u64,
    }
}

fn outgoing(node: &Node, now: Time) -> Outgoing {
    Outgoing {
        beliefs: node.beliefs(),
        asks: node.asks(),
        clock_offset_us: node.clock_us(now).wrapping_sub(now.as_micros()),
    }
}

fn drain(now: Time, node: &mut Node, pool: &str, server: SocketAddr, drains: bool) -> Answer {
    match node.drain(now, pool, server.into(), drains) {
        Ok(sessions) => Answer::done(sessions.to_string()),
        Err(reason) => Answer::refusal(reason),
    }
}

/// Whether the event is the end of a client's connection.
fn is_of_connection(event: &LogEvent) -> bool {
    matches!(event, LogEvent::SessionClosed { .. } | LogEvent::TurnedAway { .. })
}
