//! The conversation on the state connection: greeting, everything, then changes.
//!
//! [`Link`] knows who says what next. What the sessions are is the proxy's; who is active is the pair's.

pub(crate) mod change;
pub(crate) mod journal;
pub(crate) mod message;
pub(crate) mod relay;

use std::collections::VecDeque;

use outlive_tcp::{time::Time, wire::Endpoint};

pub use self::message::{MAX_STATE_MESSAGE, StateError};
use self::{
    change::ReceivedChange,
    message::{Held, Hello, Message, PROTOCOL},
    relay::Assembly,
};
use crate::{
    counters::Counter,
    opening::keys::EpochKey,
    pair::{
        Epoch,
        heartbeat::{Beliefs, Role},
    },
    proxy::{Proxy, SnapshotCursor},
};

/// Room for the head of a message.
const HEAD: usize = 16;

/// Where the conversation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// There is no connection.
    Down,
    /// The peer has not said who it is.
    Greeting,
    /// Neither node is active, or both are: the roles have to settle first.
    Waiting,
    /// Active: the standby will say what it holds.
    Comparing,
    /// Active: everything from there on has to be told.
    Snapshot { from: SnapshotCursor },
    /// Active: the standby is told what it missed.
    CatchingUp,
    /// Active: everything was told, and this number has to be confirmed.
    Completing { number: u64, key: EpochKey },
    /// Active: the standby holds everything.
    Paired,
    /// Standby: it has been told nothing yet.
    Expecting,
    /// Standby: it is being told everything.
    Receiving,
    /// Standby: it had everything once, and is told what happens.
    Following,
}

/// Active: whether the standby is asked to take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asking {
    No,
    /// In this epoch, once everything was told.
    Wanted(Epoch),
    Asked,
}

/// Something that the node has to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkEvent {
    /// The peer is active, and this node has not joined it yet: the connection has to begin anew.
    TooEarly,
    /// Active: everything up to this number is confirmed.
    Confirmed(u64),
    /// Active: the standby holds everything up to this number, and has the key of the epoch that begins now.
    Paired(EpochKey, u64),
    /// Standby: it holds everything, and the epoch begins.
    Synchronised(EpochKey),
    /// Standby: it is to take over; the active node's clock stands at that.
    Handover(u64),
    /// Active: the standby has taken over, and is active in that epoch.
    Taken(Epoch),
    /// The peer obeys the configuration with that fingerprint, and perhaps asks this node to reload.
    Configured { fingerprint: u64, reload: bool },
    /// Active: a packet that reached the passive node was added to those that wait for the device.
    Relayed,
    /// Active since a handover: no packet is behind any more.
    Passed,
}

/// One end of the state connection.
#[derive(Debug)]
pub(crate) struct Link {
    stage: Stage,
    /// The incarnation of the peer's process, once it has greeted.
    peer: u64,
    /// Short messages that go first.
    outgoing: VecDeque<Vec<u8>>,
    /// Standby: to be confirmed.
    confirm: Option<u64>,
    /// Standby: number of the last change, once one has been told.
    told: Option<u64>,
    /// Standby: what it held when it had everything, and since; outlasts the connection.
    held: Held,
    /// The peer understands a handover.
    peer_hands_over: bool,
    /// The peer says when no packet is behind any more after a handover, and understands that.
    peer_tells_passed: bool,
    /// That has to be said, behind all that is relayed.
    passed: bool,
    asking: Asking,
    /// The roles were exchanged on this connection: what the peer said before may still come.
    exchanged: bool,
    assembly: Assembly,
}

impl Link {
    pub(crate) fn new() -> Self {
        Link {
            stage: Stage::Down,
            peer: 0,
            outgoing: VecDeque::new(),
            confirm: None,
            told: None,
            held: Held::default(),
            peer_hands_over: false,
            peer_tells_passed: false,
            passed: false,
            asking: Asking::No,
            exchanged: false,
            assembly: Assembly::default(),
        }
    }

    /// Active: the standby has been told everything, and has not answered yet.
    pub(crate) fn is_completing(&self) -> bool {
        matches!(self.stage, Stage::Completing { .. })
    }

    pub(crate) fn is_up(&self) -> bool {
        self.stage != Stage::Down
    }

    /// The incarnation of the process at the other end.
    pub(crate) fn peer(&self) -> u64 {
        self.peer
    }

    /// The connection is there.
    pub(crate) fn connected(&mut self, me: &Beliefs, active: bool) {
        self.closed();
        self.stage = Stage::Greeting;
        let hello = Hello {
            protocol: PROTOCOL,
            node: me.node,
            incarnation: me.incarnation,
            epoch: me.epoch,
            active,
            resumes: true,
            hands_over: true,
            tells_passed: true,
            migrates: true,
            terminates: true,
            undoes: true,
        };
        self.say(&Message::Hello(hello));
    }

    /// Whether the standby could be asked to take over.
    pub(crate) fn peer_hands_over(&self) -> bool {
        self.peer_hands_over
    }

    /// Whether the peer says when no packet is behind any more.
    pub(crate) fn peer_tells_passed(&self) -> bool {
        self.peer_tells_passed
    }

    /// Standby since a handover: what came late has been passed on, or waits to be relayed.
    pub(crate) fn say_passed(&mut self) {
        self.passed = self.peer_tells_passed && self.exchanged;
    }

    /// Active in `epoch`: asks the standby to take over, behind everything that was told.
    pub(crate) fn hand_over(&mut self, epoch: Epoch) {
        self.asking = Asking::Wanted(epoch);
    }

    /// Says which configuration is obeyed here, if there is a peer that understands it.
    pub(crate) fn say_configuration(&mut self, fingerprint: u64, reload: bool) {
        if self.peer_hands_over {
            self.say(&Message::Configuration { fingerprint, reload });
        }
    }

    /// Tells the standby, if there is one that understands it, that a server drains, or drains no longer.
    pub(crate) fn say_drain(&mut self, pool: &str, server: Endpoint, drains: bool) {
        let telling =
            matches!(self.stage, Stage::Snapshot { .. } | Stage::Completing { .. } | Stage::Paired);
        if telling && self.peer_hands_over {
            self.say(&Message::Drain { drains, server, pool });
        }
    }

    /// Active: the standby has taken over. From now on it tells, on the same connection.
    pub(crate) fn handed_over(&mut self) {
        self.asking = Asking::No;
        self.exchanged = true;
        self.stage = Stage::Expecting;
    }

    /// Standby: this node has taken over, in `epoch`, because it was asked to. From now on it tells.
    pub(crate) fn took_over(&mut self, now: Time, epoch: Epoch, proxy: &mut Proxy) {
        self.confirm = None;
        self.say(&Message::Taken { epoch });
        self.begin(now, proxy);
    }

    /// The connection is gone.
    pub(crate) fn closed(&mut self) {
        *self = Link { held: self.held, ..Link::new() };
    }

    /// This node is no standby any more: what it held goes on without the node that told it.
    pub(crate) fn forget_held(&mut self) {
        self.held = Held::default();
    }

    fn say(&mut self, message: &Message<'_>) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.outgoing.push_back(bytes);
    }

    /// The peer says something. Changes are applied to `proxy`; the rest is for the node.
    pub(crate) fn handle(
        &mut self,
        now: Time,
        bytes: &[u8],
        me: &Beliefs,
        active: bool,
        proxy: &mut Proxy,
    ) -> Result<Option<LinkEvent>, StateError> {
        match (Message::decode(bytes)?, self.stage) {
            (Message::Hello(hello), Stage::Greeting) => {
                self.greeted(now, &hello, me, active, proxy)?;
                // A node that is still joining must become a standby first: it would be synchronised, and
                // then go on as if it knew nothing.
                let early = hello.active && me.role == Role::Joining;
                Ok(early.then_some(LinkEvent::TooEarly))
            }
            (Message::Held(held), Stage::Comparing) => {
                let known = held.incarnation == me.incarnation;
                if known && proxy.journal.can_resume(held.number) {
                    self.resume(now, held.number, proxy);
                } else {
                    self.begin(now, proxy);
                }
                Ok(None)
            }
            (Message::Begin { clock_us, sequence_key, .. }, Stage::Expecting) => {
                self.held = Held::default();
                self.told = None;
                proxy.clock.follow(now, clock_us);
                proxy.sequence_key = sequence_key;
                proxy.begin_picture(now);
                proxy.pools.forget_drains();
                self.stage = Stage::Receiving;
                Ok(None)
            }
            (Message::Resume { clock_us, number }, Stage::Expecting)
                if self.held == (Held { incarnation: self.peer, number }) =>
            {
                proxy.clock.follow(now, clock_us);
                self.told = Some(number);
                proxy.pools.forget_drains();
                self.stage = Stage::Following;
                Ok(None)
            }
            (Message::Snapshot(changes), Stage::Receiving) => {
                apply_all(now, changes, proxy)?;
                Ok(None)
            }
            (Message::Changes { last, changes }, Stage::Receiving | Stage::Following) => {
                let count = apply_all(now, changes, proxy)?;
                self.follows(count, last)?;
                self.confirm = Some(last);
                Ok(None)
            }
            (Message::Complete { number, key }, Stage::Receiving | Stage::Following) => {
                self.follows(1, number)?;
                if self.stage == Stage::Receiving {
                    proxy.complete_picture(now);
                }
                self.stage = Stage::Following;
                self.held = Held { incarnation: self.peer, number };
                self.confirm = Some(number);
                Ok(Some(LinkEvent::Synchronised(key)))
            }
            (
                Message::Confirm { number },
                Stage::Snapshot { .. }
                | Stage::CatchingUp
                | Stage::Completing { .. }
                | Stage::Paired,
            ) => self.confirmed(now, number, proxy),
            (Message::Configuration { fingerprint, reload }, stage)
                if !matches!(stage, Stage::Down | Stage::Greeting) =>
            {
                Ok(Some(LinkEvent::Configured { fingerprint, reload }))
            }
            (Message::Drain { drains, server, pool }, Stage::Receiving | Stage::Following) => {
                proxy.pools.drain(pool, server, drains);
                Ok(None)
            }
            (Message::Handover { epoch, clock_us, keys }, Stage::Receiving | Stage::Following) => {
                // If this node was late, the active one has gone on alone meanwhile.
                let wanted = me.synchronised && me.epoch == epoch;
                if wanted {
                    proxy.keys.adopt(keys).ok_or(StateError::Malformed)?;
                }
                Ok(wanted.then_some(LinkEvent::Handover(clock_us)))
            }
            (Message::Taken { epoch }, Stage::Paired) if self.asking == Asking::Asked => {
                Ok(Some(LinkEvent::Taken(epoch)))
            }
            // Its heartbeat was faster.
            (Message::Taken { .. } | Message::Confirm { .. }, Stage::Expecting)
                if self.exchanged =>
            {
                Ok(None)
            }
            (
                Message::Relay(part),
                Stage::Comparing
                | Stage::Snapshot { .. }
                | Stage::CatchingUp
                | Stage::Completing { .. }
                | Stage::Paired,
            ) => {
                let whole = self.assembly.add(part).map_err(|()| StateError::Malformed)?;
                Ok(whole.map(|(packet, offload)| {
                    proxy.relayed(now, packet, offload);
                    LinkEvent::Relayed
                }))
            }
            (
                Message::Passed,
                Stage::Comparing
                | Stage::Snapshot { .. }
                | Stage::CatchingUp
                | Stage::Completing { .. }
                | Stage::Paired,
            ) => Ok(Some(LinkEvent::Passed)),
            _ => Err(StateError::Unexpected),
        }
    }

    /// Standby: `count` changes were told, of which the last one has this number.
    fn follows(&mut self, count: u64, last: u64) -> Result<(), StateError> {
        if let Some(told) = self.told
            && told + count != last
        {
            return Err(StateError::Gap { expected: told + count, got: last });
        }
        self.told = Some(last);
        if self.stage == Stage::Following {
            self.held.number = last;
        }
        Ok(())
    }

    fn confirmed(
        &mut self,
        now: Time,
        number: u64,
        proxy: &mut Proxy,
    ) -> Result<Option<LinkEvent>, StateError> {
        if !proxy.journal.confirm(now, number) {
            return Err(StateError::Unexpected);
        }
        match self.stage {
            Stage::Completing { number: last, key } if number >= last => {
                self.stage = Stage::Paired;
                proxy.journal.is_complete();
                Ok(Some(LinkEvent::Paired(key, number)))
            }
            _ => Ok(Some(LinkEvent::Confirmed(number))),
        }
    }

    fn greeted(
        &mut self,
        now: Time,
        hello: &Hello,
        me: &Beliefs,
        active: bool,
        proxy: &mut Proxy,
    ) -> Result<(), StateError> {
        if hello.node == me.node {
            return Err(StateError::SameName);
        }
        self.peer = hello.incarnation;
        self.peer_hands_over = hello.hands_over;
        self.peer_tells_passed = hello.tells_passed;
        proxy.migrations.peer_understands(hello.migrates, hello.undoes);
        proxy.terminated_understood(hello.terminates);
        self.say_configuration(proxy.config.fingerprint(), false);
        match (active, hello.active) {
            (true, false) if hello.resumes => self.stage = Stage::Comparing,
            (true, false) => self.begin(now, proxy),
            (false, true) => {
                if hello.resumes {
                    self.say(&Message::Held(self.held));
                }
                self.stage = Stage::Expecting;
            }
            _ => self.stage = Stage::Waiting,
        }
        Ok(())
    }

    /// Active: the standby is told everything.
    fn begin(&mut self, now: Time, proxy: &mut Proxy) {
        proxy.journal.start();
        proxy.tell_all_terminated();
        self.say(&Message::Begin {
            clock_us: proxy.clock.micros(now),
            sequence_key: proxy.sequence_key,
            sessions: proxy.session_count() as u64,
        });
        self.stage = Stage::Snapshot { from: SnapshotCursor::Sessions(0) };
        self.say_drains(proxy);
    }

    fn say_drains(&mut self, proxy: &Proxy) {
        for (pool, server) in proxy.pools.drains() {
            self.say_drain(pool, server, true);
        }
    }

    /// Active: the standby is told what happened after `number`.
    fn resume(&mut self, now: Time, number: u64, proxy: &mut Proxy) {
        proxy.journal.resume(number);
        proxy.counters.count(Counter::Resumed);
        self.say(&Message::Resume { clock_us: proxy.clock.micros(now), number });
        self.stage = Stage::CatchingUp;
        self.say_drains(proxy);
    }

    /// Appends the next message to `out`; false if there is nothing to say. `next_key` makes the key of the
    /// epoch that begins when the standby has everything.
    pub(crate) fn poll(
        &mut self,
        now: Time,
        proxy: &mut Proxy,
        next_key: impl FnOnce() -> EpochKey,
        out: &mut Vec<u8>,
    ) -> bool {
        if let Some(message) = self.outgoing.pop_front() {
            out.extend(message);
            return true;
        }
        if let Some(number) = self.confirm.take() {
            Message::Confirm { number }.encode(out);
            return true;
        }
        match self.stage {
            Stage::Snapshot { .. }
            | Stage::CatchingUp
            | Stage::Completing { .. }
            | Stage::Paired => {}
            Stage::Expecting | Stage::Receiving | Stage::Following if self.peer_hands_over => {
                let relayed = proxy.to_relay.part(now, MAX_STATE_MESSAGE - HEAD, |part| {
                    Message::Relay(part).encode(out);
                });
                if !relayed && std::mem::take(&mut self.passed) {
                    Message::Passed.encode(out);
                    return true;
                }
                return relayed;
            }
            _ => return false,
        }
        let mut changes = Vec::new();
        let telling = self.stage != Stage::Paired || self.asking != Asking::No;
        if (telling || proxy.journal.is_due(now))
            && let Some(last) = proxy.journal.fetch(now, MAX_STATE_MESSAGE - HEAD, &mut changes)
        {
            Message::Changes { last, changes: &changes }.encode(out);
            return true;
        }
        if let (Stage::Paired, Asking::Wanted(epoch)) = (self.stage, self.asking) {
            self.asking = Asking::Asked;
            let clock_us = proxy.clock.micros(now);
            let mut keys = Vec::new();
            proxy.keys.encode(&mut keys);
            Message::Handover { epoch, clock_us, keys: &keys }.encode(out);
            return true;
        }
        match self.stage {
            Stage::Snapshot { from } => {
                match proxy.snapshot(from, MAX_STATE_MESSAGE - HEAD, &mut changes) {
                    Some(from) => self.stage = Stage::Snapshot { from },
                    None => {
                        if let Some(complete) = self.complete(proxy, next_key) {
                            self.say(&complete);
                        }
                    }
                }
                // An empty one does no harm: there was no session, or none was left.
                Message::Snapshot(&changes).encode(out);
                true
            }
            Stage::CatchingUp => match self.complete(proxy, next_key) {
                Some(complete) => {
                    complete.encode(out);
                    true
                }
                None => false,
            },
            _ => false,
        }
    }

    /// Active: the standby has been told everything, if nothing happened meanwhile.
    fn complete(
        &mut self,
        proxy: &mut Proxy,
        next_key: impl FnOnce() -> EpochKey,
    ) -> Option<Message<'static>> {
        let number = proxy.journal.mark()?;
        let key = next_key();
        self.stage = Stage::Completing { number, key };
        Some(Message::Complete { number, key })
    }
}

/// Applies changes, and returns how many.
fn apply_all(now: Time, mut changes: &[u8], proxy: &mut Proxy) -> Result<u64, StateError> {
    let mut count = 0;
    while !changes.is_empty() {
        let change = ReceivedChange::decode(&mut changes).ok_or(StateError::Malformed)?;
        proxy.apply(now, change);
        count += 1;
    }
    Ok(count)
}
