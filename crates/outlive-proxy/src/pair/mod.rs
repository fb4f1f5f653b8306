//! Roles: which of the two nodes serves, and when that changes.
//!
//! `Pair` is a state machine that is told what was heard and asked what follows; it does nothing itself.
//! The rules (invariants 4, 5 and 7 of ARCHITECTURE.md):
//!
//! * A node starts by listening. It joins an active peer, or serves when there is none.
//! * A standby takes over when the peer is gone, or has started anew.
//! * Where an external detector decides, neither follows from silence: the node waits for its order.
//! * An active node that hears of a higher epoch stops at once.
//! * A node that serves because there was no peer holds nothing: until it has held sessions for a while, its epoch is
//!   below any other, and it yields to whoever serves.
//! * An active node that loses its standby begins a new epoch, and gives new sessions effects only when the
//!   peer has confirmed that it knows of the epoch, or is gone.
//! * An active node that stood still asks before it sends another packet.

mod epoch;
pub mod heartbeat;
pub mod order;
mod watch;

use std::time::Duration;

use outlive_tcp::{
    fault::{self, Fault},
    time::Time,
};

pub use self::epoch::Epoch;
use self::{
    heartbeat::{Beliefs, Heartbeat, Role},
    order::{Order, Outcome},
    watch::{Gone, Watch},
};
use crate::{
    config::{Detector, NodeId, PairConfig},
    event::TakeoverCause,
};

/// A node that started without its peer must have held sessions for so long before it outranks others: meeting them may
/// have been a matter of heartbeats.
const PROVING: Duration = Duration::from_secs(1);

/// What a node has to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Serve: there is no peer.
    Start,
    /// Be the standby of the peer, which is active in that epoch.
    Join(Epoch),
    /// Serve in the peer's place.
    TakeOver(TakeoverCause),
    /// Yield to the peer, which is active in that higher epoch.
    StepDown(Epoch),
    /// Go on without a standby: the peer knows of it, or is gone.
    GoAlone {
        /// It is certain that the peer has not taken over.
        certain: bool,
    },
    /// The peer confirmed that it has not taken over in the meantime.
    GoOn,
}

/// An active node's standby.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// There is none that could take over.
    Alone,
    /// It was lost at that time, and the peer has not confirmed that it knows.
    Losing(Time),
    /// It holds everything.
    Paired,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Joining { since: Time },
    Standby,
    Active(Standing),
}

/// An active node that stood still, until it knows better.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    /// Heartbeats sent up to this number do not count as a question.
    asked_after: Option<u64>,
    /// The process that was the standby before the standstill.
    standby: Option<u64>,
}

/// The role of this node.
#[derive(Debug)]
pub struct Pair {
    config: PairConfig,
    node: NodeId,
    incarnation: u64,
    state: State,
    epoch: Epoch,
    /// Lower than any epoch that this process begins by itself.
    floor: Epoch,
    /// Standby: it holds every session of `epoch`.
    synchronised: bool,
    /// Active: the process that was synchronised last.
    standby: u64,
    watch: Watch,
    doubt: Option<Doubt>,
    /// The standby may have served while this node stood still, and serves no more.
    was_replaced: bool,
    /// It has stood still since it was paired last.
    stood_still: bool,
    /// An external detector's, accepted and not yet obeyed.
    order: Option<Order>,
    last_turn: Time,
    peer_was_gone: bool,
    /// Since when a node that started without its peer has held sessions.
    proving: Option<Time>,
}

impl Pair {
    /// A node that starts at `now`; `floor` is lower than any epoch that it will begin.
    pub fn new(
        config: PairConfig,
        node: NodeId,
        incarnation: u64,
        floor: Epoch,
        now: Time,
    ) -> Self {
        Pair {
            watch: Watch::new(&config, now),
            config,
            node,
            incarnation,
            state: State::Joining { since: now },
            epoch: Epoch::NONE,
            floor,
            synchronised: false,
            standby: 0,
            doubt: None,
            was_replaced: false,
            stood_still: false,
            order: None,
            last_turn: now,
            peer_was_gone: true,
            proving: None,
        }
    }

    /// The epoch that this node believes in.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// It serves.
    pub fn is_active(&self) -> bool {
        matches!(self.state, State::Active(_))
    }

    /// It serves, and the standby holds everything.
    pub fn is_paired(&self) -> bool {
        self.state == State::Active(Standing::Paired)
    }

    /// It stood still, and does not know yet whether it is still the one to serve: it must send no packet.
    pub fn is_unsure(&self) -> bool {
        self.doubt.is_some()
    }

    /// What this node's heartbeats say.
    pub fn beliefs(&self) -> Beliefs {
        Beliefs {
            node: self.node,
            incarnation: self.incarnation,
            epoch: self.epoch,
            role: match self.state {
                State::Joining { .. } => Role::Joining,
                State::Standby => Role::Standby,
                State::Active(_) => Role::Active,
            },
            synchronised: self.synchronised || self.is_paired(),
        }
    }

    /// What the peer says of itself, if it is heard.
    pub fn peer(&self, now: Time) -> Option<Beliefs> {
        self.watch.alive(now)
    }

    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    // ── what happens

    /// Every input begins with this. Returns for how long the node stood still, if that was too long.
    pub fn turn(&mut self, now: Time) -> Option<Duration> {
        let gap = now.since(self.last_turn);
        self.last_turn = now;
        if !self.config.enabled || gap < self.config.detection_timeout {
            return None;
        }
        self.watch.was_deaf(now);
        if let State::Joining { since } = &mut self.state {
            // It has not listened so far: a machine so busy that starting took long would else serve beside its peer.
            *since = now;
        }
        if self.is_active() && self.doubt.is_none() {
            let standby = self.watch.said().filter(|peer| peer.role == Role::Standby);
            let standby = standby.map(|peer| peer.incarnation);
            self.doubt = Some(Doubt { asked_after: None, standby });
            self.stood_still = true;
            return Some(gap);
        }
        None
    }

    /// Heartbeats up to number `counter` were sent before the node began to doubt.
    pub fn asked(&mut self, counter: u64) {
        if let Some(doubt) = &mut self.doubt {
            doubt.asked_after.get_or_insert(counter);
        }
    }

    /// Returns whether the peer has (again) become audible.
    pub fn heard(&mut self, path: usize, at: Time, heartbeat: &Heartbeat) -> bool {
        if heartbeat.beliefs.node == self.node {
            return false;
        }
        self.watch.heard(path, at, heartbeat);
        let asked_after = self.doubt.and_then(|d| d.asked_after);
        if asked_after.is_some_and(|counter| heartbeat.heard > counter) {
            // Whatever it says, it says after the standstill: `decide` draws the conclusion.
            self.is_sure(Some(heartbeat.beliefs.incarnation));
        }
        let beliefs = heartbeat.beliefs;
        if self.state == State::Standby
            && beliefs.role == Role::Active
            && beliefs.epoch > self.epoch
        {
            // It went on without this node.
            self.outdated(beliefs.epoch);
        }
        std::mem::replace(&mut self.peer_was_gone, false)
    }

    /// Connecting to the peer was refused.
    pub fn refused(&mut self) {
        self.watch.refused();
    }

    /// An external detector has seen this epoch. Returns whether this node, active in a lower one, has to yield:
    /// then it is [done](Self::done) with [`Decision::StepDown`].
    pub fn told_of(&mut self, epoch: Epoch) -> bool {
        // One that this node began, it may have told its standby of before it counts itself.
        let by_peer = epoch.owner() != self.node;
        if !self.config.enabled || !by_peer || epoch <= self.epoch {
            return false;
        }
        if self.state == State::Standby {
            self.outdated(epoch);
        }
        self.is_active()
    }

    /// An external detector's order; [`decide`](Self::decide) obeys it if it is accepted.
    pub(crate) fn ordered(&mut self, order: Order) -> Outcome {
        if !self.config.enabled {
            return Outcome::NoPeer;
        }
        if self.is_active() {
            return Outcome::AlreadyActive;
        }
        if order.epoch < self.epoch {
            return Outcome::Stale;
        }
        let complete = self.synchronised && order.epoch == self.epoch;
        if !complete && !order.forced {
            return Outcome::NotSynchronised;
        }
        self.order = Some(order);
        Outcome::Accepted
    }

    /// The active node has begun `epoch` without this standby.
    fn outdated(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        self.synchronised = false;
        // Given without knowing of it. Whoever means it says it again.
        self.order = None;
    }

    /// The standby has everything of `epoch`.
    pub fn synchronised(&mut self, epoch: Epoch) {
        if epoch >= self.epoch {
            self.epoch = epoch;
            self.synchronised = true;
        }
    }

    /// Active: the standby has taken over in `epoch`, as it was asked to.
    pub(crate) fn handed_over(&mut self, now: Time, epoch: Epoch) {
        self.done(Decision::StepDown(epoch));
        self.watch.is_active(now, epoch);
    }

    /// Active: the standby, a process with that incarnation, has confirmed everything; the pair begins `epoch`.
    pub fn paired(&mut self, epoch: Epoch, standby: u64) {
        self.standby = standby;
        self.stood_still = false;
        self.epoch = epoch;
        self.state = State::Active(Standing::Paired);
    }

    /// Active: the standby is lost; a new epoch begins at once. Returns it, or `None` if there was none to
    /// lose.
    pub fn standby_lost(&mut self, now: Time) -> Option<Epoch> {
        if !self.is_paired() {
            return None;
        }
        self.epoch = self.epoch.next_of_active(self.node);
        self.state = State::Active(Standing::Losing(now));
        Some(self.epoch)
    }

    /// Active: the epoch that the pair begins when the standby holds everything. Never one that this node begins alone.
    pub(crate) fn epoch_of_pair(&self) -> Epoch {
        self.epoch.max(self.floor.next_of_active(self.node)).next_of_active(self.node)
    }

    /// Whether this node holds sessions. Returns an epoch that it begins because it does, having started with none.
    pub(crate) fn holds(&mut self, now: Time, sessions: bool) -> Option<Epoch> {
        let alone = self.state == State::Active(Standing::Alone) && self.doubt.is_none();
        if !alone || !sessions || self.epoch > self.floor {
            self.proving = None;
            return None;
        }
        let since = *self.proving.get_or_insert(now);
        if now.since(since) < PROVING {
            return None;
        }
        self.epoch = self.floor.next_of_active(self.node);
        Some(self.epoch)
    }

    // ── what follows

    /// The next thing to do; [`done`](Self::done) tells when it has been done.
    pub fn decide(&self, now: Time) -> Option<Decision> {
        if self.order.is_some() && !self.is_active() {
            return Some(Decision::TakeOver(TakeoverCause::Ordered));
        }
        match self.state {
            State::Joining { since } => self.decide_joining(now, since),
            State::Standby => self.decide_standby(now),
            State::Active(standing) => self.decide_active(now, standing),
        }
    }

    fn decide_joining(&self, now: Time, since: Time) -> Option<Decision> {
        if !self.config.enabled {
            return Some(Decision::Start);
        }
        let Some(peer) = self.watch.alive(now) else {
            let waited = now.since(since) >= self.config.join_timeout;
            return (waited && !self.waits_for_orders()).then_some(Decision::Start);
        };
        match peer.role {
            Role::Active => Some(Decision::Join(peer.epoch)),
            // Both start: node A serves.
            Role::Joining => (self.node == NodeId::A).then_some(Decision::Start),
            // It will notice that this process is a new one, and take over.
            Role::Standby => None,
        }
    }

    fn decide_standby(&self, now: Time) -> Option<Decision> {
        if self.waits_for_orders() {
            return None;
        }
        if let Some(gone) = self.watch.gone(now) {
            // What it would go on with is not complete, so a false alarm would cost sessions: it waits for as
            // long as a starting node does, unless the peer's process is known to be gone.
            let silent = matches!(gone, Gone::Silent(time) if time < self.config.join_timeout);
            if silent && !self.synchronised && !fault::on(Fault::HastyTakeover) {
                return None;
            }
            let cause = match gone {
                Gone::Silent(time) => TakeoverCause::Silence(time),
                Gone::Refused(time) => TakeoverCause::Refused(time),
            };
            return Some(Decision::TakeOver(cause));
        }
        let peer = self.watch.alive(now)?;
        match peer.role {
            Role::Active => None,
            Role::Joining => Some(Decision::TakeOver(TakeoverCause::Restarted)),
            Role::Standby => {
                let rank = |b: &Beliefs| (b.synchronised, b.epoch, b.node == NodeId::A);
                let mine = rank(&self.beliefs()) > rank(&peer);
                let long = self.watch.role_for(now) >= self.config.detection_timeout * 2;
                (mine && long).then_some(Decision::TakeOver(TakeoverCause::BothPassive))
            }
        }
    }

    fn decide_active(&self, now: Time, standing: Standing) -> Option<Decision> {
        let peer = self.watch.alive(now);
        if let Some(peer) = peer.filter(|p| p.role == Role::Active && self.must_yield(p.epoch)) {
            return Some(Decision::StepDown(peer.epoch));
        }
        if self.doubt.is_some() {
            // Nobody to ask: this node is all there is.
            return self.watch.gone(now).map(|_| Decision::GoOn);
        }
        let Standing::Losing(since) = standing else { return None };
        // That the lost standby was joining is what it said before it was one.
        let restarted = |p: &Beliefs| p.role == Role::Joining && p.incarnation != self.standby;
        let confirmed =
            peer.is_some_and(|p| restarted(&p) || (p.epoch >= self.epoch && !p.synchronised));
        let gone = self.watch.gone(now);
        let waited = now.since(since) >= self.config.join_timeout;
        // A process that is gone, or begins anew, may have served while this node stood still.
        let certain = (confirmed || matches!(gone, Some(Gone::Refused(_)))) && !self.stood_still;
        (confirmed || gone.is_some() || waited).then_some(Decision::GoAlone { certain })
    }

    fn waits_for_orders(&self) -> bool {
        self.config.detector == Detector::External && !fault::on(Fault::DetectorNotAwaited)
    }

    /// Whether a node that is active in `epoch` is to be yielded to.
    fn must_yield(&self, epoch: Epoch) -> bool {
        if fault::on(Fault::HigherEpochIgnored) {
            return false;
        }
        epoch > self.epoch || fault::on(Fault::StaleEpochAccepted)
    }

    /// The node has done what was decided.
    pub fn done(&mut self, decision: Decision) {
        let order = self.order.take();
        match decision {
            Decision::Start => {
                // Of the wall clock only where there is nobody to be outranked: see `holds`.
                let before = if self.config.enabled { Epoch::NONE } else { self.floor };
                self.epoch = before.next_of_active(self.node);
                self.state = State::Active(Standing::Alone);
                self.synchronised = false;
            }
            Decision::TakeOver(_) => {
                // Above everything that anybody has seen, also where this node has just started.
                let seen = order.map_or(Epoch::NONE, |order| order.epoch);
                self.epoch = self.epoch.max(seen).max(self.floor);
                self.epoch = self.epoch.next_of_takeover(self.node);
                self.state = State::Active(Standing::Alone);
                self.synchronised = false;
                self.note_gone();
            }
            Decision::Join(epoch) | Decision::StepDown(epoch) => {
                self.epoch = epoch;
                self.state = State::Standby;
                self.synchronised = fault::on(Fault::PromotedUnsynchronised);
                self.doubt = None;
            }
            Decision::GoAlone { .. } => {
                self.state = State::Active(Standing::Alone);
                self.note_gone();
            }
            Decision::GoOn => self.is_sure(None),
        }
    }

    /// This node doubts no more: the peer has answered, and is the process with that incarnation, or is gone.
    fn is_sure(&mut self, peer: Option<u64>) {
        let standby = self.doubt.take().and_then(|doubt| doubt.standby);
        // One that served would say so, or that it has yielded; one that is gone cannot.
        self.was_replaced |= standby.is_some() && standby != peer;
    }

    /// Whether another process may have served, and changed every connection, between two turns of this one; says so
    /// once.
    pub fn was_replaced(&mut self) -> bool {
        std::mem::take(&mut self.was_replaced) && self.is_active()
    }

    fn note_gone(&mut self) {
        if self.watch.gone(self.last_turn).is_some() {
            self.peer_was_gone = true;
            self.watch.forget();
        }
    }

    /// When [`decide`](Self::decide) may say something new though nothing is heard.
    pub fn deadline(&self, now: Time) -> Option<Time> {
        if !self.config.enabled {
            return matches!(self.state, State::Joining { .. }).then_some(now);
        }
        // Also so often that a standstill is noticed for what it is.
        let turn = now + self.config.detection_timeout / 4;
        let joined = match self.state {
            State::Joining { since } => Some(since + self.config.join_timeout),
            _ => None,
        };
        let ahead = [Some(self.watch.deadline(now)), joined];
        ahead.into_iter().flatten().filter(|at| *at > now).chain([turn]).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time::from_micros(1_000_000);

    /// What node B says, process `incarnation`.
    fn says(incarnation: u64, counter: u64, role: Role) -> Heartbeat {
        let node = NodeId::B;
        let beliefs = Beliefs { node, incarnation, epoch: Epoch::NONE, role, synchronised: false };
        Heartbeat { beliefs, asks: false, clock_us: 0, counter, heard: 0 }
    }

    /// Node A, paired with process 7, which was last heard when it was joining.
    fn paired() -> Pair {
        let mut pair = Pair::new(PairConfig::default(), NodeId::A, 3, Epoch(10), START);
        pair.heard(0, START, &says(7, 1, Role::Joining));
        pair.done(Decision::Start);
        pair.paired(pair.epoch().next_of_active(NodeId::A), 7);
        pair
    }

    #[test]
    fn who_begins_with_nothing_outranks_nobody_before_it_holds_something() {
        let mut pair = Pair::new(PairConfig::default(), NodeId::A, 3, Epoch(1_000), START);
        pair.done(Decision::Start);
        let begun = pair.epoch();
        let serving = Epoch(500).next_of_active(NodeId::B);
        assert!(begun < serving && pair.epoch_of_pair() > Epoch(1_000));
        assert_eq!(pair.holds(START, true), None, "for how long?");
        assert_eq!(pair.holds(START + PROVING / 2, false), None);
        assert_eq!(pair.holds(START + PROVING, true), None, "not all the time");
        let now = START + PROVING * 2;
        assert_eq!(pair.holds(now, true), Some(pair.epoch()));
        assert!(pair.epoch() > Epoch(1_000) && pair.epoch() < pair.epoch_of_pair());
        assert_eq!(pair.holds(now + PROVING, true), None, "once");

        // Whoever takes over holds something.
        let mut pair = Pair::new(PairConfig::default(), NodeId::A, 3, Epoch(1_000), START);
        pair.done(Decision::Join(begun));
        pair.done(Decision::TakeOver(TakeoverCause::Restarted));
        assert!(pair.epoch() > Epoch(1_000));
    }

    #[test]
    fn a_standby_that_may_have_served_during_a_standstill_is_noticed() {
        // Who answers after it: the same process, another one, or nobody.
        for (answer, replaced) in [(Some(7), false), (Some(8), true), (None, true)] {
            let mut pair = paired();
            pair.turn(START);
            pair.heard(0, START, &says(7, 2, Role::Standby));
            let now = START + Duration::from_secs(1);
            assert!(pair.turn(now).is_some());
            pair.asked(3);
            match answer {
                Some(process) => {
                    let says = says(process, 4, Role::Standby);
                    pair.heard(0, now, &Heartbeat { heard: 4, ..says });
                }
                None => {
                    let later = now + PairConfig::default().detection_timeout;
                    assert_eq!(pair.decide(later), Some(Decision::GoOn));
                    pair.done(Decision::GoOn);
                }
            }
            assert!(!pair.is_unsure());
            assert_eq!((pair.was_replaced(), pair.was_replaced()), (replaced, false), "{answer:?}");
        }
    }

    #[test]
    fn that_the_lost_standby_was_joining_does_not_mean_that_it_is() {
        let mut pair = paired();
        pair.standby_lost(START);
        assert_eq!(pair.decide(START), None);
        pair.heard(0, START, &says(8, 1, Role::Joining));
        assert_eq!(pair.decide(START), Some(Decision::GoAlone { certain: true }));
    }
}
