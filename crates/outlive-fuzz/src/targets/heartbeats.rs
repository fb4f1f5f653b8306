//! Heartbeats: bytes that anybody can send to the port, and heartbeats of whoever has the key and says what it
//! likes. Nobody without the key is heard; nothing panics; a stale epoch moves nobody.

use std::time::Duration;

use outlive_proxy::{
    Node,
    config::NodeId,
    pair::{
        Epoch,
        heartbeat::{Beliefs, HEARTBEAT_LEN, Heartbeat, HeartbeatKey, Role},
    },
};
use outlive_tcp::time::Time;

use crate::{input::Input, world::setup};

const KEY: HeartbeatKey = HeartbeatKey([7; 16]);

/// The first byte chooses: a datagram, or a node that hears heartbeats and the passing of time.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(2) {
        0 => datagram(&mut input),
        _ => listen(&mut input),
    }
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

fn heartbeat(input: &mut Input<'_>) -> Heartbeat {
    let bits = input.byte();
    let base = setup::UNIX_US / 1_000_000 * 2;
    let epoch = match input.below(4) {
        0 => input.u64(),
        1 => base + u64::from(input.byte()),
        2 => base.wrapping_sub(u64::from(input.byte())),
        _ => u64::from(input.byte()),
    };
    Heartbeat {
        beliefs: Beliefs {
            node: if bits & 1 == 0 { NodeId::B } else { NodeId::A },
            incarnation: u64::from(input.byte()),
            epoch: Epoch(epoch),
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
    while !input.is_empty() {
        let before = node.beliefs();
        match input.below(8) {
            0 | 1 => {
                now = now + Duration::from_millis(u64::from(input.u16()));
                node.handle_timeout(now);
            }
            2 => node.handle_peer_refused(now),
            3 => node.handle_asked(u64::from(input.byte())),
            _ => {
                let spoken = heartbeat(input);
                let at = Time::from_micros(now.as_micros().saturating_sub(u64::from(input.byte())));
                node.handle_heartbeat(now, usize::from(input.byte() % 3), at, &spoken);
                let after = node.beliefs();
                let higher =
                    spoken.beliefs.role == Role::Active && spoken.beliefs.epoch > before.epoch;
                if before.role == Role::Active && after.role != Role::Active {
                    assert!(
                        higher,
                        "{spoken:?} is of a stale epoch, and ended the reign {before:?}"
                    );
                }
                if before.role == Role::Standby && after.role == Role::Standby && !higher {
                    assert_eq!(after.epoch, before.epoch);
                }
            }
        }
        while node.poll_event().is_some() {}
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
