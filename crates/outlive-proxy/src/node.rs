//! A node: the data plane, its role, and the conversation with its peer, put together.
//!
//! Every input is a `handle_*`, everything that follows is fetched with a `poll_*`. After any input, fetch in
//! this order, until each says that there is nothing more:
//!
//! 1. [`poll_event`](Node::poll_event): what has to happen on the machine; then
//!    [`poll_arrived`](Node::poll_arrived): packets to be handed in as if the device had given them;
//! 2. [`poll_transmit`](Node::poll_transmit): packets of the node's own, before the packet that
//!    [`handle_packet`](Node::handle_packet) said to forward;
//! 3. [`poll_state_message`](Node::poll_state_message), as far as the transport has room;
//! 4. [`beliefs`](Node::beliefs), for the heartbeats; [`poll_timeout`](Node::poll_timeout), for the next call
//!    of [`handle_timeout`](Node::handle_timeout).

mod addresses;
mod drain;
mod handover;
mod migrate;
mod reload;

use std::{collections::VecDeque, hash::Hasher, time::Duration};

use outlive_tcp::{
    fault::{self, Fault},
    time::Time,
    wire::Offload,
};
use siphasher::sip128::{Hasher128, SipHasher24};

use crate::{
    clock::PairClock,
    config::Config,
    counters::Counter,
    event::{CloseReason, Event, LogEvent, TakeoverCause},
    fast_path::FastPath,
    opening::keys::EpochKey,
    pair::{
        Decision, Epoch, Pair,
        heartbeat::{Beliefs, Heartbeat, Role},
        order::{Order, Outcome},
    },
    proxy::{Keys, Leaving, Proxy, Release, Verdict},
    replication::{Link, LinkEvent, StateError},
    status::Status,
    survey::Survey,
};

use self::handover::Handover;
pub use self::{
    drain::DrainRefusal,
    handover::{HandoverProgress, HandoverRefusal},
    reload::NoPlace,
};

/// Random bytes from the operating system, once per process. All secrets that the node makes come from them.
#[derive(Clone, Copy)]
pub struct Entropy(pub [u8; 32]);

impl Entropy {
    /// 16 bytes for one purpose.
    pub fn derive(&self, purpose: &[u8], number: u64) -> [u8; 16] {
        let (key, seed) = self.0.split_first_chunk::<16>().expect("32 bytes");
        let mut hasher = SipHasher24::new_with_key(key);
        hasher.write(seed);
        hasher.write(purpose);
        hasher.write_u64(number);
        hasher.finish128().as_bytes()
    }
}

/// One node of a pair, or a node alone.
#[derive(Debug)]
pub struct Node {
    proxy: Proxy,
    pair: Pair,
    link: Link,
    entropy: Secret,
    events: VecDeque<Event>,
    /// The next announcement, and the pause after it.
    announcement: Option<(Time, Duration)>,
    /// Active: the peer may have the addresses, too.
    contested: bool,
    handover: Handover,
    /// Packets of the device wait until then, or until the peer has passed those before them.
    holding: Option<Time>,
    /// What the peer was told, as a fingerprint, if it has said so.
    peer_configuration: Option<u64>,
    /// The fast path has stopped, if there is one.
    fast_path_quiet: bool,
}

/// What of that which has arrived was handed over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hearing {
    /// There may be more.
    Something,
    /// All of it.
    Everything,
}

/// Never shown.
struct Secret(Entropy);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Node {
    /// A node with a configuration that [`Config::validate`] accepts. `unix_us` is the wall clock in
    /// microseconds since 1970: where the pair's clock and the epochs begin when there is no peer.
    pub fn new(config: Config, entropy: Entropy, unix_us: u64, now: Time) -> Self {
        let keys =
            Keys { table: entropy.derive(b"table", 0), sequence: entropy.derive(b"sequence", 0) };
        let [a, b, c, d, e, f, g, h, ..] = entropy.derive(b"incarnation", 0);
        let incarnation = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        // Milliseconds, so that a restarted lone node begins later epochs than before, however often they
        // changed.
        let floor = Epoch((unix_us / 1_000) << 1);
        let pair = Pair::new(config.pair.clone(), config.node, incarnation, floor, now);
        let clock = PairClock::new(unix_us, now);
        let mut proxy = Proxy::new(config, keys, clock, now);
        proxy.identify(incarnation);
        Node {
            proxy,
            pair,
            link: Link::new(),
            entropy: Secret(entropy),
            events: VecDeque::new(),
            announcement: None,
            contested: false,
            handover: Handover::No,
            holding: None,
            peer_configuration: None,
            fast_path_quiet: true,
        }
    }

    // ── packets

    /// One IP packet, `buffer[start..end]`; it may be rewritten in place, and grow into the headroom before
    /// `start`. See [`Verdict`].
    pub fn handle_packet(
        &mut self,
        now: Time,
        buffer: &mut [u8],
        start: usize,
        end: usize,
        offload: Offload,
    ) -> Verdict {
        self.turn(now);
        self.proxy.handle_packet(now, buffer, start, end, offload)
    }

    /// The next packet that the node itself has to send: a whole IP packet with full checksums. None while the
    /// node is not sure that it still may (invariant 7): what its timers, or confirmations that had long arrived,
    /// made it say after a standstill waits for the peer's answer, and is forgotten if that is no.
    pub fn poll_transmit(&mut self) -> Option<&[u8]> {
        self.poll_transmit_offloaded().map(|(packet, _)| packet)
    }

    /// The same, with what the device is asked to do to the packet: nothing, unless
    /// [`use_segmentation`](Self::use_segmentation) was called.
    pub fn poll_transmit_offloaded(&mut self) -> Option<(&[u8], Offload)> {
        if self.proxy.posture.unsure {
            return None;
        }
        self.proxy.outbox.poll()
    }

    /// The device cuts super-segments and computes checksums:
    /// [`poll_transmit_offloaded`](Self::poll_transmit_offloaded) may leave that to it.
    pub fn use_segmentation(&mut self) {
        self.proxy.terminated.use_segmentation();
    }

    /// From now on the packets of established sessions may be left to `path`, which has none yet.
    pub fn use_fast_path(&mut self, path: Box<dyn FastPath>) {
        self.proxy.use_fast_path(path);
    }

    /// Whether there are more packets than were handled in this turn. What can wait does, as long as there are.
    pub fn note_backlog(&mut self, more: bool) {
        self.proxy.posture.backlog = more;
    }

    /// The [fast path](crate::fast_path) says that the session in `slot`, if it is still the one with that
    /// serial, wants to be looked at.
    pub fn handle_fast_path(&mut self, now: Time, slot: u32, serial: u32) {
        self.turn(now);
        self.proxy.fast_path_event(now, slot as usize, serial);
    }

    /// Sessions that the fast path has.
    pub fn delegated(&self) -> usize {
        self.proxy.delegated()
    }

    /// Packets of sessions may be passed on by others: the node is active, sure of it, and about to stay so.
    pub fn serves(&self) -> bool {
        let posture = &self.proxy.posture;
        posture.active && !posture.unsure && posture.leaving == Leaving::No
    }

    /// The fast path does nothing since [`serves`](Self::serves) has said no, and has told everything. A handover
    /// waits for it.
    pub fn fast_path_is_quiet(&mut self) {
        self.fast_path_quiet = true;
    }

    // ── heartbeats

    /// What this node's heartbeats say from now on.
    pub fn beliefs(&self) -> Beliefs {
        self.pair.beliefs()
    }

    /// The pair's clock, in microseconds: runs with `now`.
    pub fn clock_us(&self, now: Time) -> u64 {
        self.proxy.clock.micros(now)
    }

    /// Heartbeats shall ask for an answer, and go out at once: the node stood still.
    pub fn asks(&self) -> bool {
        self.pair.is_unsure()
    }

    /// The heartbeats sent so far have numbers up to `counter`. To be told when [`asks`](Self::asks) says so,
    /// before the first one that asks.
    pub fn handle_asked(&mut self, counter: u64) {
        self.pair.asked(counter);
    }

    /// A heartbeat arrived on path number `path` at `at`.
    pub fn handle_heartbeat(&mut self, now: Time, path: usize, at: Time, heartbeat: &Heartbeat) {
        self.turn(now);
        let unsure = self.pair.is_unsure();
        let held_everything = self.pair.beliefs().synchronised && !self.pair.is_active();
        let news = self.pair.heard(path, at, heartbeat);
        if held_everything && !self.pair.beliefs().synchronised {
            // The active node may complete handshakes now without telling this one.
            self.proxy.keys.clear();
        }
        if news {
            self.log(LogEvent::PeerHeard);
            if self.pair.is_active() {
                // It may have had the addresses meanwhile, or whoever could not hear it not this node either.
                self.announce_soon(now);
            }
        }
        if heartbeat.beliefs.role == Role::Active {
            self.proxy.clock.follow(now, heartbeat.clock_us);
        }
        self.follow(now, Hearing::Something);
        if unsure && !self.pair.is_unsure() && self.pair.is_active() {
            self.log(LogEvent::SureAgain);
        }
        self.sync_posture();
        self.follow_replacement(now);
    }

    /// Connecting to the peer's state port was refused: no process listens there.
    pub fn handle_peer_refused(&mut self, now: Time) {
        self.turn(now);
        self.pair.refused();
        self.follow(now, Hearing::Something);
    }

    // ── external detector

    /// An external detector has seen `epoch` of one of the nodes. An active node that hears of a higher one begun
    /// by its peer stops at once.
    pub fn handle_epoch(&mut self, now: Time, epoch: Epoch) {
        self.turn(now);
        if self.pair.told_of(epoch) {
            self.pair.done(Decision::StepDown(epoch));
            self.log(LogEvent::SteppedDown { epoch });
            self.step_down(now, epoch);
            self.sync_posture();
        }
    }

    /// An external detector orders this node to take over. What is accepted is done by the next
    /// [`handle_timeout`](Self::handle_timeout) that comes after everything that has arrived was handed over.
    pub fn handle_order(&mut self, now: Time, order: Order) -> Outcome {
        self.handle_epoch(now, order.epoch);
        self.pair.ordered(order)
    }

    // ── state connection

    /// The state connection is there (again), empty in both directions.
    pub fn handle_state_connected(&mut self, now: Time) {
        self.turn(now);
        self.drop_link(now);
        self.link.connected(&self.pair.beliefs(), self.pair.is_active());
        self.log(LogEvent::StateConnected);
    }

    /// The state connection is gone. What had arrived on it must have been handed over before.
    pub fn handle_state_closed(&mut self, now: Time) {
        self.turn(now);
        if self.link.is_up() {
            self.log(LogEvent::StateClosed);
        }
        self.drop_link(now);
        self.follow(now, Hearing::Something);
    }

    /// A message arrived on the state connection.
    ///
    /// # Errors
    /// It cannot be obeyed; close the connection.
    pub fn handle_state_message(&mut self, now: Time, message: &[u8]) -> Result<(), StateError> {
        self.turn(now);
        if !self.link.is_up() {
            return Ok(());
        }
        let active = self.pair.is_active();
        let event =
            self.link.handle(now, message, &self.pair.beliefs(), active, &mut self.proxy)?;
        match event {
            Some(LinkEvent::TooEarly) => self.close_link(now),
            Some(LinkEvent::Confirmed(number)) => self.proxy.confirmed(now, number),
            Some(LinkEvent::Paired(key, number)) => {
                self.paired(now, key);
                // Sessions that waited while there was no standby.
                self.proxy.confirmed(now, number);
            }
            Some(LinkEvent::Synchronised(key)) => self.synchronised(now, key),
            Some(LinkEvent::Handover(clock_us)) => self.take_over_as_asked(now, clock_us),
            Some(LinkEvent::Taken(epoch)) => {
                self.pair.handed_over(now, epoch);
                self.handed_over(now, epoch);
            }
            Some(LinkEvent::Configured { fingerprint, reload }) => {
                self.peer_configured(fingerprint, reload);
            }
            Some(LinkEvent::Passed) => self.holding = None,
            Some(LinkEvent::Relayed) | None => {}
        }
        self.follow(now, Hearing::Something);
        Ok(())
    }

    /// Appends the next message of the state connection to `out`, at most
    /// [`MAX_STATE_MESSAGE`](crate::MAX_STATE_MESSAGE) bytes; false if there is nothing to say.
    pub fn poll_state_message(&mut self, now: Time, out: &mut Vec<u8>) -> bool {
        let epoch = self.pair.epoch_of_pair();
        let entropy = self.entropy.0;
        let key = || EpochKey { epoch, key: entropy.derive(b"cookie", epoch.0) };
        let said = self.link.is_up() && self.link.poll(now, &mut self.proxy, key, out);
        if self.link.is_completing() && self.proxy.posture.release == Release::Now {
            // When the answer comes the standby is believed to hold everything: so must what begins meanwhile.
            self.proxy.posture.release = Release::Confirmed;
        }
        said
    }

    // ── time

    /// To be called once per turn of the loop, after everything that has arrived was handed over, and when
    /// [`poll_timeout`](Self::poll_timeout) says so.
    pub fn handle_timeout(&mut self, now: Time) {
        self.turn(now);
        self.follow(now, Hearing::Everything);
        self.check_standby(now);
        if let Some(epoch) = self.pair.holds(now, self.proxy.session_count() > 0) {
            self.begin_epoch(epoch);
            self.log(LogEvent::Established { epoch });
        }
        self.advance_handover(now);
        // What is due waits until it is certain that this node is still the one to do it (invariant 7).
        if !self.proxy.posture.unsure {
            self.proxy.expire(now);
            if self.proxy.expire_retired(now) {
                self.events.push_back(Event::AddressesChanged);
            }
        }
        self.announce_what_is_due(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called next.
    pub fn poll_timeout(&self, now: Time) -> Option<Time> {
        let patience = self.proxy.config.pair.confirm_timeout;
        let owed = [self.proxy.waiting_since(), self.proxy.journal.owed_since()];
        let owed = owed
            .into_iter()
            .flatten()
            .min()
            .filter(|_| self.proxy.posture.release == Release::Confirmed);
        let confirm = owed.map(|since| since + patience);
        let announcement = self.announcement.map(|(at, _)| at);
        let deadlines = [
            self.pair.deadline(now),
            self.proxy.next_deadline().filter(|_| !self.proxy.posture.unsure),
            // Once it is past, what waits does so for room in the transport.
            self.proxy.journal.deadline().filter(|at| *at > now),
            confirm,
            announcement,
            // Once it is past, a handover waits for the standby.
            self.handover_deadline().filter(|at| *at > now),
            self.holding.filter(|at| *at > now),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// The next thing for the shell to do.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front().or_else(|| self.proxy.log.pop_front().map(Event::Log))
    }

    /// What the peer says of itself, if it is heard.
    pub fn peer(&self, now: Time) -> Option<Beliefs> {
        self.pair.watch().alive(now)
    }

    /// Sessions in the table, those that are over included.
    pub fn sessions(&self) -> usize {
        self.proxy.session_count()
    }

    /// The node as an operator sees it. Walks over all sessions at once.
    pub fn status(&self, now: Time) -> Status {
        let mut survey = Survey::new();
        self.survey(&mut survey, usize::MAX);
        self.status_with(now, &survey)
    }

    /// Goes on with a survey of the sessions, over up to `slots` places of the table. Returns whether it is complete.
    pub fn survey(&self, survey: &mut Survey, slots: usize) -> bool {
        survey.walk(&self.proxy, slots)
    }

    /// The node as an operator sees it, with the numbers of sessions that a survey has found.
    pub fn status_with(&self, now: Time, survey: &Survey) -> Status {
        Status {
            handover: self.handover(),
            configuration: self.proxy.config.fingerprint(),
            peer_configuration: self.peer_configuration,
            ..Status::of(&self.proxy, &self.pair, self.link.is_up(), survey, now)
        }
    }

    /// Panics if something does not hold that must hold after every input. Walks over everything: for tests
    /// and the simulator.
    pub fn check_invariants(&self) {
        self.proxy.check_invariants();
        assert_eq!(
            self.pair.is_active(),
            self.proxy.posture.active,
            "the data plane obeys the role"
        );
        if self.pair.is_paired() {
            assert_eq!(self.proxy.posture.release, Release::Confirmed, "record before effect");
        }
    }

    // ── what follows from it

    fn log(&mut self, event: LogEvent) {
        self.events.push_back(Event::Log(event));
    }

    fn turn(&mut self, now: Time) {
        if let Some(time) = self.pair.turn(now) {
            self.log(LogEvent::StoodStill { time });
        }
        self.sync_posture();
    }

    fn sync_posture(&mut self) {
        self.proxy.migrations_epoch(self.pair.epoch());
        self.proxy.posture.unsure = self.pair.is_unsure() && !fault::on(Fault::StandstillIgnored);
    }

    fn follow(&mut self, now: Time, hearing: Hearing) {
        while let Some(decision) = self.pair.decide(now) {
            // To serve, a node must have read the state connection to its end.
            let serves = matches!(decision, Decision::Start | Decision::TakeOver(_));
            if serves && hearing == Hearing::Something {
                return;
            }
            let silent = self.pair.watch().gone(now);
            let complete = self.pair.beliefs().synchronised;
            // One that stood still meanwhile has not watched what became of its sessions.
            let as_asked = self.has_asked() && !self.pair.is_unsure();
            self.pair.done(decision);
            match decision {
                Decision::Start => self.start(now),
                Decision::Join(epoch) => self.join(now, epoch),
                // Its heartbeat was faster than its answer.
                Decision::StepDown(epoch) if as_asked => self.handed_over(now, epoch),
                Decision::StepDown(epoch) => {
                    self.log(LogEvent::SteppedDown { epoch });
                    self.step_down(now, epoch);
                }
                Decision::TakeOver(cause) => self.take_over(now, cause, complete),
                Decision::GoAlone { certain } => {
                    if let Some(gone) = silent {
                        self.log(LogEvent::PeerGone { silent: gone.silent() });
                    }
                    self.log(LogEvent::WentAlone { epoch: self.pair.epoch() });
                    self.proxy.posture.release = Release::Now;
                    if !certain {
                        self.proxy.forget_first_data();
                    }
                    self.proxy.release_all(now);
                    self.handover_failed(now);
                }
                Decision::GoOn => self.log(LogEvent::SureAgain),
            }
            self.sync_posture();
        }
        self.follow_replacement(now);
    }

    /// The standby may have served while this node stood still: where the sessions are is not known any more, and
    /// what that node had under way is lost, as at a takeover.
    fn follow_replacement(&mut self, now: Time) {
        if self.pair.was_replaced() {
            self.proxy.clock.take_over();
            self.proxy.doubt_all(now);
        }
    }

    fn begin_epoch(&mut self, epoch: Epoch) {
        let key = EpochKey { epoch, key: self.entropy.0.derive(b"cookie", epoch.0) };
        self.proxy.keys.add(key);
    }

    fn start(&mut self, now: Time) {
        let epoch = self.pair.epoch();
        self.log(LogEvent::Started { epoch });
        let enabled = self.proxy.config.pair.enabled;
        self.activate(
            now,
            if enabled { self.proxy.config.pair.quiet_time } else { Duration::ZERO },
        );
    }

    fn take_over(&mut self, now: Time, cause: TakeoverCause, complete: bool) {
        let epoch = self.pair.epoch();
        self.proxy.counters.count(Counter::Takeovers);
        self.proxy.clock.take_over();
        self.log(LogEvent::TookOver {
            epoch,
            cause,
            sessions: self.proxy.session_count(),
            complete,
        });
        self.activate(now, self.proxy.config.pair.quiet_time);
        self.proxy.wake_all(now);
    }

    fn activate(&mut self, now: Time, quiet: Duration) {
        self.serve(now, quiet);
        // A connection made in another role has to begin anew.
        self.close_link(now);
    }

    fn serve(&mut self, now: Time, quiet: Duration) {
        let epoch = self.pair.epoch();
        self.begin_epoch(epoch);
        self.proxy.finish_sweep(now);
        let posture = &mut self.proxy.posture;
        posture.active = true;
        let silent = !quiet.is_zero() && !fault::on(Fault::QuietTimeSkipped);
        posture.silent_until = if silent { now + quiet } else { Time::ZERO };
        posture.release = Release::Now;
        self.events.push_back(Event::Activate { epoch });
        self.announce_soon(now);
        self.link.forget_held();
        self.proxy.migrations_epoch(epoch);
        self.proxy.migrations_serve();
        // What was kept for the other node is this one's to handle now.
        self.proxy.readmit(now);
        self.end_relaying();
    }

    fn join(&mut self, now: Time, epoch: Epoch) {
        self.log(LogEvent::Joined { epoch });
        self.close_link(now);
    }

    fn step_down(&mut self, now: Time, epoch: Epoch) {
        self.events.push_back(Event::Deactivate { epoch });
        self.proxy.posture.active = false;
        self.proxy.take_all_back(now);
        self.proxy.remove_all_openings();
        self.proxy.abandon_unconfirmed(now);
        self.proxy.keys.clear();
        self.proxy.outbox.clear();
        self.proxy.migrations_yield();
        self.announcement = None;
        self.end_relaying();
        self.close_link(now);
        // Its numbers mean nothing once another node has served.
        self.proxy.journal.stop();
    }

    fn close_link(&mut self, now: Time) {
        if self.link.is_up() {
            self.drop_link(now);
            self.events.push_back(Event::CloseStateConnection(CloseReason::RoleChanged));
        }
    }

    /// The state connection is no more; what hung on it is settled.
    fn drop_link(&mut self, now: Time) {
        self.link.closed();
        self.holding = None;
        self.peer_configuration = None;
        self.proxy.journal.pause();
        self.proxy.to_relay.rewind();
        self.handover_disconnected(now);
        if let Some(epoch) = self.pair.standby_lost(now) {
            self.begin_epoch(epoch);
            let at_once = fault::on(Fault::GoesAloneAtOnce);
            self.proxy.posture.release = if at_once { Release::Now } else { Release::Held };
            self.follow(now, Hearing::Something);
        } else if self.pair.is_active() && self.proxy.posture.release == Release::Confirmed {
            // The standby was about to hold everything, and does not: alone, as before.
            self.proxy.posture.release = Release::Now;
            self.proxy.release_all(now);
        }
    }

    /// A standby that does not keep up is dropped; it will be synchronised anew.
    fn check_standby(&mut self, now: Time) {
        let timeout = self.proxy.config.pair.confirm_timeout;
        let owed = [self.proxy.waiting_since(), self.proxy.journal.owed_since()];
        let late = owed.into_iter().flatten().any(|since| since + timeout <= now);
        let reason = if self.proxy.journal.overflowed() {
            CloseReason::Overflow
        } else if late
            && self.proxy.posture.release == Release::Confirmed
            && !fault::on(Fault::WedgedStandbyKept)
        {
            CloseReason::NoConfirmation
        } else {
            return;
        };
        self.events.push_back(Event::CloseStateConnection(reason));
        self.drop_link(now);
    }

    /// Active: the standby has confirmed that it holds everything.
    fn paired(&mut self, now: Time, key: EpochKey) {
        self.pair.paired(key.epoch, self.link.peer());
        self.proxy.keys.add(key);
        self.proxy.posture.release = Release::Confirmed;
        // On another connection than the one on which it was asked to take over: it has not.
        if self.has_asked() {
            self.handover_failed(now);
        }
        let sessions = self.proxy.session_count();
        self.log(LogEvent::Synchronised { epoch: key.epoch, sessions });
    }

    /// Standby: it holds everything.
    fn synchronised(&mut self, now: Time, key: EpochKey) {
        self.pair.synchronised(key.epoch);
        self.proxy.keys.add(key);
        self.proxy.keys.restore(now);
        let sessions = self.proxy.session_count();
        self.log(LogEvent::Synchronised { epoch: key.epoch, sessions });
    }
}
