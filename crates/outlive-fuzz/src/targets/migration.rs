//! What the nodes of a pair, or whoever has their key, say to a target: no form of words panics, each has one form, and
//! whatever the order, a target speaks only for what was prepared and committed, and never for what it has taken back.
//! The bytes below the messages, before and after the handshake, are the target `channel`'s: the transport is the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use outlive_migration::{
    flow::FlowId,
    id::{Balancer, Epoch, MigrationId},
    message::{Hello, HowEnded, MAX_MESSAGE, Message, Refusal, Speaker},
    target::{Action, Limits, Target},
};
use outlive_tcp::{time::Time, wire::FourTuple};

use super::blob::blob;
use crate::input::Input;

const LIMITS: Limits = Limits { connections: 4, remembered: 6, patience: Duration::from_secs(60) };

struct Agent {
    now: Time,
    target: Target,
    /// Asked to infuse, and not answered.
    infusing: BTreeSet<MigrationId>,
    adopting: BTreeSet<MigrationId>,
    /// There, mute; from whom a COMMIT came for which.
    there: BTreeSet<MigrationId>,
    committed: BTreeSet<MigrationId>,
    speaking: BTreeSet<MigrationId>,
    /// Of each migration: what belongs to it.
    flows: BTreeMap<MigrationId, FlowId>,
    highest: Epoch,
}

/// A conversation; some of it is raw bytes.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    if input.byte() & 3 == 0 {
        if let Ok(message) = Message::decode(input.rest()) {
            assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
        return;
    }
    let adopts = input.byte() & 1 == 0;
    let mut agent = Agent {
        now: Time::from_micros(1_000_000),
        target: Target::new(LIMITS, 7, adopts),
        infusing: BTreeSet::new(),
        adopting: BTreeSet::new(),
        there: BTreeSet::new(),
        committed: BTreeSet::new(),
        speaking: BTreeSet::new(),
        flows: BTreeMap::new(),
        highest: Epoch::default(),
    };
    for _ in 0..200 {
        if input.is_empty() {
            break;
        }
        agent.step(&mut input);
        agent.obey();
    }
}

impl Agent {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(12) {
            0 => {
                if let Some(id) = nth(&self.infusing, input.byte()) {
                    self.infusing.remove(&id);
                    let refused = input.byte() & 3 == 0;
                    if !refused {
                        self.there.insert(id);
                    }
                    let result = if refused { Err(Refusal::ALL[input.below(12)]) } else { Ok(()) };
                    self.target.infused(self.now, id, result);
                }
            }
            1 => {
                if let Some(id) = nth(&self.adopting, input.byte()) {
                    self.adopting.remove(&id);
                    let lives = input.byte() & 1 == 0;
                    if lives {
                        self.speaking.insert(id);
                    }
                    self.target.adopted(id, lives);
                }
            }
            2 => {
                if let Some(id) = nth(&self.speaking, input.byte()) {
                    self.speaking.remove(&id);
                    self.target.ended(id, HowEnded::ALL[input.below(4)]);
                }
            }
            3 => {
                self.now = self.now + Duration::from_millis(input.u16().into());
                self.target.expire(self.now);
            }
            4 => {
                let probed = self.target.probe_arrived(flow(input), input.u16());
                std::hint::black_box(probed);
            }
            5 => self.target.drain(input.byte() & 1 == 0),
            _ => self.hear(input),
        }
    }

    fn hear(&mut self, input: &mut Input<'_>) {
        let from = if input.byte() & 1 == 0 { Balancer::A } else { Balancer::B };
        let epoch = Epoch(u64::from(input.byte() % 8));
        let id = MigrationId(100 + u64::from(input.byte() % 12));
        let message = match input.below(9) {
            0 => Message::Serve { epoch },
            1 | 2 => {
                let mut state = blob(input);
                state.mapping.flow = flow(input);
                let Ok(bytes) = state.encode() else { return };
                Message::Prepare { epoch, id, blob: bytes }
            }
            3 | 4 => Message::Commit { epoch, id, flow: flow(input), ends: ends(input) },
            5 => Message::Abort { epoch, id },
            6 => Message::Gone { epoch, id },
            7 => Message::Probe { epoch, id, flow: flow(input) },
            _ => match Message::decode(input.bytes(80)) {
                Ok(message) => message,
                Err(_) => Message::Hello(Hello {
                    speaker: Speaker::Balancer(from),
                    incarnation: 1,
                    epoch,
                }),
            },
        };
        let bytes = message.encode();
        assert!(bytes.len() <= MAX_MESSAGE);
        assert_eq!(Message::decode(&bytes).as_ref(), Ok(&message), "there and back");
        let said_in = match &message {
            Message::Hello(hello) => hello.epoch,
            Message::Serve { epoch }
            | Message::Prepare { epoch, .. }
            | Message::Commit { epoch, .. }
            | Message::Abort { epoch, .. }
            | Message::Gone { epoch, .. } => *epoch,
            // The standby may say it, too, and does not serve thereby.
            // A target's own words mean nothing to one.
            _ => Epoch::default(),
        };
        let stale = said_in < self.highest;
        if let Message::Commit { id, .. } = &message
            && !stale
        {
            self.committed.insert(*id);
        }
        let (waiting, committed) = (self.target.waiting(), self.target.committed());
        self.target.handle(self.now, from, message);
        self.highest = self.highest.max(said_in);
        if stale {
            let counts = (self.target.waiting(), self.target.committed());
            assert_eq!(counts, (waiting, committed), "a stale epoch changes nothing");
        }
    }

    fn obey(&mut self) {
        while let Some(action) = self.target.poll_action() {
            match action {
                Action::Send(_, message) => {
                    assert_eq!(Message::decode(&message.encode()).as_ref(), Ok(&message));
                }
                Action::Infuse { id, blob } => {
                    assert!(self.infusing.insert(id) && !self.speaking.contains(&id));
                    self.there.remove(&id);
                    self.flows.insert(id, blob.mapping.flow);
                }
                Action::Adopt { id, flow, .. } => {
                    assert!(self.adopting.insert(id));
                    self.flows.insert(id, flow);
                }
                Action::Speak { id } => {
                    assert!(self.there.remove(&id), "speaks for what is not there: {id:?}");
                    assert!(self.committed.contains(&id), "nobody has said COMMIT: {id:?}");
                    self.speaking.insert(id);
                }
                Action::Remove { id } => {
                    assert!(!self.speaking.contains(&id), "takes back what speaks: {id:?}");
                    self.infusing.remove(&id);
                    self.there.remove(&id);
                }
            }
        }
        let held = self.target.waiting() + self.target.committed();
        assert!(held <= LIMITS.connections, "{held} connections");
        let flows: Vec<_> = self.speaking.iter().map(|id| self.flows[id]).collect();
        let different: BTreeSet<_> = flows.iter().map(|flow| flow.value()).collect();
        assert_eq!(flows.len(), different.len(), "two connections with one flow identifier");
    }
}

fn nth(set: &BTreeSet<MigrationId>, n: u8) -> Option<MigrationId> {
    set.iter().nth(usize::from(n) % set.len().max(1)).copied()
}

fn flow(input: &mut Input<'_>) -> FlowId {
    FlowId::from_ports(1, 1 + u16::from(input.byte() % 12)).expect("no half is zero")
}

fn ends(input: &mut Input<'_>) -> FourTuple {
    let end = |port| outlive_tcp::wire::Endpoint::new([10, 0, 0, 1].into(), port);
    FourTuple::new(end(1 + input.u16() % 8), end(80))
}
