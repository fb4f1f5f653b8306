//! The conversation on the state connection: greeting, everything, then changes.
//!
//! [`Link`] knows who says what next. What the sessions are is the proxy's; who is active is the pair's.

pub(crate) mod change;
pub(crate) mod journal;
pub(crate) mod message;

use std::collections::VecDeque;

use outlive_tcp::time::Time;

pub use self::message::{MAX_STATE_MESSAGE, StateError};
use self::{
    change::ReceivedChange,
    message::{Held, Hello, Message, PROTOCOL},
};
use crate::{
    counters::Counter,
    opening::keys::EpochKey,
    pair::heartbeat::{Beliefs, Role},
    proxy::Proxy,
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
    Asking,
    /// Active: sessions from this slot on have to be told.
    Snapshot { slot: usize },
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
}

impl Link {
    pub(crate) fn new() -> Self {
        Link {
            stage: Stage::Down,
            outgoing: VecDeque::new(),
            confirm: None,
            told: None,
            held: Held::default(),
            peer: 0,
        }
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
        };
        self.say(&Message::Hello(hello));
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
            (Message::Held(held), Stage::Asking) => {
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
                proxy.clock.follow(now, clock_us);
                proxy.sequence_key = sequence_key;
                proxy.begin_picture(now);
                self.stage = Stage::Receiving;
                Ok(None)
            }
            (Message::Resume { clock_us, number }, Stage::Expecting)
                if self.held == (Held { incarnation: self.peer, number }) =>
            {
                proxy.clock.follow(now, clock_us);
                self.told = Some(number);
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
        match (active, hello.active) {
            (true, false) if hello.resumes => self.stage = Stage::Asking,
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
        self.say(&Message::Begin {
            clock_us: proxy.clock.micros(now),
            sequence_key: proxy.sequence_key,
            sessions: proxy.sessions.len() as u64,
        });
        self.stage = Stage::Snapshot { slot: 0 };
    }

    /// Active: the standby is told what happened after `number`.
    fn resume(&mut self, now: Time, number: u64, proxy: &mut Proxy) {
        proxy.journal.resume(number);
        proxy.counters.count(Counter::Resumed);
        self.say(&Message::Resume { clock_us: proxy.clock.micros(now), number });
        self.stage = Stage::CatchingUp;
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
        if !matches!(
            self.stage,
            Stage::Snapshot { .. } | Stage::CatchingUp | Stage::Completing { .. } | Stage::Paired
        ) {
            return false;
        }
        let mut changes = Vec::new();
        let telling = self.stage != Stage::Paired;
        if (telling || proxy.journal.is_due(now))
            && let Some(last) = proxy.journal.fetch(now, MAX_STATE_MESSAGE - HEAD, &mut changes)
        {
            Message::Changes { last, changes: &changes }.encode(out);
            return true;
        }
        match self.stage {
            Stage::Snapshot { slot } => {
                match proxy.snapshot(slot, MAX_STATE_MESSAGE - HEAD, &mut changes) {
                    Some(slot) => self.stage = Stage::Snapshot { slot },
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
