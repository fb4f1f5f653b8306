//! Heartbeats, and what an external detector says: bytes that anybody can send to the ports, and messages of whoever
//! has the key and says what it likes. Nobody without the key is heard; nothing panics; a stale epoch moves nobody.

use std::{sync::LazyLock, time::Duration};

use outlive_node::{
    detector::wire::{Answer, NodeState, OrderTicket, Question},
    key::{PairKey, WatchKey},
};
use outlive_proxy::{
    Node,
    config::NodeId,
    pair::{
        Epoch,
        heartbeat::{Beliefs, HEARTBEAT_LEN, Heartbeat, HeartbeatKey, Role},
        order::{Order, Outcome},
    },
};
use outlive_tcp::time::Time;

use crate::{
    input::Input,
    world::{nodes::trace, setup},
};

const KEY: HeartbeatKey = HeartbeatKey([7; 16]);

/// The first byte chooses: a datagram, or a node that hears heartbeats and the passing of time.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(4) {
        0 => datagram(&mut input),
        1 => detector(&mut input),
        _ => listen(&mut input),
    }
}

/// What a detector and a node say to each other: read back as it was, and not if a byte of it has changed.
fn detector(input: &mut Input<'_>) {
    static WATCH: LazyLock<WatchKey> = LazyLock::new(|| {
        let text = format!("outlive pair key, version 1\n{}\n", "5a".repeat(32));
        PairKey::from_text(&text).expect("a key").watch()
    });
    let bits = input.byte();
    let node = if bits & 1 == 0 { NodeId::A } else { NodeId::B };
    let ticket =
        OrderTicket { forced: bits & 2 != 0, incarnation: input.u64(), challenge: input.u64() };
    let question = Question {
        node,
        number: input.u64(),
        epoch: Epoch(input.u64()),
        order: (bits & 4 != 0).then_some(ticket),
    };
    let outcomes = [None, Some(Outcome::Accepted), Some(Outcome::Stale), Some(Outcome::NoPeer)];
    let answer = Answer {
        number: input.u64(),
        state: NodeState {
            node,
            role: input.one_of(&[Role::Joining, Role::Standby, Role::Active]),
            epoch: Epoch(input.u64()),
            incarnation: ticket.incarnation,
            synchronised: bits & 8 != 0,
            unsure: bits & 16 != 0,
            hears_peer: bits & 32 != 0,
            peer_is_active: bits & 64 != 0,
            waits_for_orders: bits & 128 != 0,
            sessions: input.u64(),
        },
        challenge: ticket.challenge,
        outcome: input.one_of(&outcomes),
    };
    let (mut asked, mut answered) = (question.encode(&WATCH), answer.encode(&WATCH));
    assert_eq!(Question::decode(&asked, &WATCH), Ok(question));
    assert_eq!(Answer::decode(&answered, &WATCH), Ok(answer));
    let (at, change) = (usize::from(input.byte()), input.byte() | 1);
    asked[at % asked.len()] ^= change;
    answered[at % answered.len()] ^= change;
    assert!(Question::decode(&asked, &WATCH).is_err(), "a changed byte");
    assert!(Answer::decode(&answered, &WATCH).is_err(), "a changed byte");
    let bytes = input.rest();
    assert!(Question::decode(bytes, &WATCH).is_err() && Answer::decode(bytes, &WATCH).is_err());
}

fn datagram(input: &mut Input<'_>) {
    let bytes = input.rest();
    if let Ok(heartbeat) = Heartbeat::decode(bytes, KEY) {
        assert_eq!(heartbeat.encode(KEY)[..6], bytes[..6], "who has no key is not heard");
    }
    // With the right tag, so that what is behind it is read.
    let mut body = [0; HEARTBEAT_LEN];
    body[..bytes.len().min(48)].copy_from_slice(&bytes[..bytes.len().min(48)]);
    let spoken = heartbeat(&mut Input::new(&body));
    let encoded = spoken.encode(KEY);
    assert_eq!(Heartbeat::decode(&encoded, KEY), Ok(spoken));
    let mut damaged = encoded;
    let at = usize::from(body[47]) % HEARTBEAT_LEN;
    damaged[at] ^= body[46] | 1;
    assert!(Heartbeat::decode(&damaged, KEY).is_err(), "a changed byte");
}

fn epoch(input: &mut Input<'_>) -> Epoch {
    let base = setup::UNIX_US / 1_000_000 * 2;
    Epoch(match input.below(4) {
        0 => input.u64(),
        1 => base + u64::from(input.byte()),
        2 => base.wrapping_sub(u64::from(input.byte())),
        _ => u64::from(input.byte()),
    })
}

fn heartbeat(input: &mut Input<'_>) -> Heartbeat {
    let bits = input.byte();
    let epoch = epoch(input);
    Heartbeat {
        beliefs: Beliefs {
            node: if bits & 1 == 0 { NodeId::B } else { NodeId::A },
            incarnation: u64::from(input.byte()),
            epoch,
            role: input.one_of(&[Role::Joining, Role::Standby, Role::Active]),
            synchronised: bits & 2 != 0,
        },
        asks: bits & 4 != 0,
        clock_us: match input.below(3) {
            0 => setup::UNIX_US.wrapping_add(u64::from(input.u32())),
            1 => input.u64(),
            _ => 0,
        },
        counter: u64::from(input.byte()),
        heard: u64::from(input.byte()),
    }
}

/// Node A, and whatever node B's heartbeats, or what claims to be them, say to it.
fn listen(input: &mut Input<'_>) {
    let mut now = setup::START;
    let mut node = Node::new(setup::config(NodeId::A, 0), setup::entropy(1), setup::UNIX_US, now);
    let mut clock = node.clock_us(now);
    let mut claimed = Epoch::NONE;
    while !input.is_empty() {
        let before = node.beliefs();
        match input.below(8) {
            0 | 1 => {
                now = now + Duration::from_millis(u64::from(input.u16()));
                node.handle_timeout(now);
            }
            2 => node.handle_peer_refused(now),
            3 => node.handle_asked(u64::from(input.byte())),
            4 => {
                let epoch = epoch(input);
                let order = Order { epoch, forced: input.byte() & 1 != 0 };
                let outcome = node.handle_order(now, order);
                trace(|| format!("{now:?} {order:?}: {outcome:?}"));
                if outcome == Outcome::Accepted {
                    assert!(epoch >= before.epoch, "an order about the past was accepted");
                    assert!(order.forced || before.synchronised);
                }
                if before.role == Role::Active && node.beliefs().role != Role::Active {
                    assert!(
                        epoch > before.epoch,
                        "{epoch} is stale, and ended the reign {before:?}"
                    );
                }
            }
            _ => {
                let spoken = heartbeat(input);
                let at = Time::from_micros(now.as_micros().saturating_sub(u64::from(input.byte())));
                let path = usize::from(input.byte() % 3);
                trace(|| format!("{now:?} on path {path}, of {at:?}: {spoken:?}"));
                node.handle_heartbeat(now, path, at, &spoken);
                let after = node.beliefs();
                let active = spoken.beliefs.role == Role::Active;
                let higher = active && spoken.beliefs.epoch > before.epoch;
                if active && spoken.beliefs.node == NodeId::B {
                    // It counts also when a later heartbeat, overtaken by this one, shows that the peer is alive.
                    claimed = claimed.max(spoken.beliefs.epoch);
                }
                if before.role == Role::Active && after.role != Role::Active {
                    assert!(claimed > before.epoch, "{spoken:?} ended the reign {before:?}");
                }
                if before.role == Role::Standby && after.role == Role::Standby && !higher {
                    assert_eq!(after.epoch, before.epoch);
                }
            }
        }
        while let Some(event) = node.poll_event() {
            trace(|| format!("{now:?} {event:?}"));
        }
        while node.poll_transmit().is_some() {}
        assert!(
            node.beliefs().epoch >= before.epoch || before.role != Role::Active,
            "back in time"
        );
        assert!(node.clock_us(now) >= clock, "the pair's clock never runs back");
        clock = node.clock_us(now);
        if let Some(at) = node.poll_timeout(now) {
            assert!(at >= Time::ZERO);
        }
        node.check_invariants();
    }
}
