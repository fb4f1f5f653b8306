//! Packets into the proxy, in every phase of a session: a script of what clients, servers, strangers, time and
//! fate do to a pair of nodes.
//!
//! Whatever comes: nothing panics, what leaves is sound, tables stay within their limits, a node that does not
//! serve says nothing, and a connection whose own ends would not have believed what was forged goes on, right to
//! the byte, with nothing acknowledged that the other end does not have.

use std::time::Duration;

use outlive_tcp::wire::{Checksum, FourTuple, Offload, Segmentation};

use crate::{
    input::Input,
    judge::{self, Numbers, fix_checksums},
    world::{
        CLIENTS, World,
        conn::{FIN, PSH, URG},
    },
};

/// More steps show nothing more.
const MOST_STEPS: usize = 100;
/// Steps of time, in milliseconds.
const TIMES: [u64; 8] = [1, 20, 250, 1_100, 3_500, 11_000, 65_000, 600];

/// The first byte is the variant of the world, the rest the script.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(input.byte());
    for _ in 0..MOST_STEPS {
        if input.is_empty() {
            break;
        }
        step(&mut world, &mut input);
    }
    world.finish();
}

fn step(world: &mut World, input: &mut Input<'_>) {
    let head = input.byte();
    let who = usize::from(head >> 5) % CLIENTS;
    match head & 31 {
        0..=2 => {
            let bits = input.byte();
            let packet = world.conns[who].syn(bits, head & 1 != 0);
            world.says(Some(packet), false, who);
        }
        3 | 4 => {
            let bits = input.byte();
            let first = world.conns[who].backend.is_some_and(|b| !b.answered);
            world.conns[who].unrecorded |= first && world.records_are_stuck();
            let packet = world.conns[who].answer(bits, false);
            world.says(packet, bits & 64 != 0, who);
        }
        5 => {
            let packet = world.conns[who].answer(0, true);
            world.says(packet, false, who);
        }
        6..=11 => {
            let (len, flags, repeat, partial) = saying(input);
            let client = head & 1 == 0;
            let conn = &mut world.conns[who];
            let packet = if client {
                conn.client_says(len, flags, repeat)
            } else {
                conn.server_says(len, flags, repeat)
            };
            world.says(packet, partial, who);
        }
        12 => {
            let packet = world.conns[who].resets(input.byte() & 1 == 0);
            world.says(packet, false, who);
        }
        13..=16 => forge(world, who, input),
        17 | 18 => guess(world, who, input),
        19 => {
            let packet = input.bytes(100).to_vec();
            let index = target(world, input);
            world.forges(&packet, index, Offload::default());
        }
        20 | 21 => error(world, input),
        22 => other(world, input),
        23..=25 => world.advance(Duration::from_millis(input.one_of(&TIMES))),
        26 => world.nodes.held = !world.nodes.held,
        27 => {
            world.nodes.disconnect();
            world.receive(None);
        }
        28 | 29 => kill(world, input),
        30 => {
            let time = Duration::from_millis(input.one_of(&TIMES));
            if let Some(active) = world.nodes.active() {
                world.lose_unless_complete();
                world.nodes.freeze(active, time);
                world.receive(None);
            }
        }
        _ => {
            world.nodes.start(0);
            world.nodes.start(1);
        }
    }
    world.nodes.deliver();
    world.receive(None);
}

/// What an end says next: how many bytes, flags, whether again, and whether the device is to sum it.
fn saying(input: &mut Input<'_>) -> (u32, u16, bool, bool) {
    let bits = input.byte();
    let len = match bits & 3 {
        0 => 0,
        1 => u32::from(input.byte()),
        2 => 1_400,
        _ => 8_000,
    };
    let kind = match bits & 0x1c {
        0x1c => FIN,
        8 => URG,
        _ => 0,
    };
    (len, kind | if bits & 32 != 0 { PSH } else { 0 }, bits & 64 != 0, bits & 128 != 0)
}

/// Mostly the node that serves.
fn target(world: &World, input: &mut Input<'_>) -> usize {
    let bits = input.byte();
    if bits & 6 == 6 { usize::from(bits & 1) } else { world.nodes.active().unwrap_or(0) }
}

/// Numbers that a segment of either end would have, changed.
fn forge(world: &mut World, who: usize, input: &mut Input<'_>) {
    let conn = &world.conns[who];
    let bits = input.byte();
    let (tuple, half) = match conn.backend {
        Some(backend) if bits & 1 != 0 => (backend.tuple, backend.half),
        _ => (conn.tuple(), conn.half),
    };
    let mut numbers = Numbers {
        seq: half.next().0,
        ack: half.rcv.unwrap_or_default().0,
        flags: input.u16(),
        window: 20_000,
    };
    if bits & 2 != 0 {
        numbers.seq = numbers.seq.wrapping_add(input.number());
    }
    if bits & 4 != 0 {
        numbers.ack = numbers.ack.wrapping_add(input.number());
    }
    if bits & 8 != 0 {
        numbers.window = input.u16();
    }
    let mut tuple = tuple;
    if bits & 0x30 == 0x30 {
        tuple.source.port = input.u16();
    }
    let options = input.bytes(40);
    let payload = input.bytes(64);
    let mut packet = judge::tcp(tuple, numbers, options, payload);
    let offload = match bits & 0xc0 {
        0x40 => Offload {
            checksum: Checksum::Partial,
            segmentation: Segmentation::Tcp { size: input.u16().max(1), ecn: bits & 8 != 0 },
        },
        _ => Offload::default(),
    };
    fix_checksums(&mut packet, offload.checksum);
    if bits & 0xc0 == 0xc0 {
        let at = usize::from(input.byte()) % packet.len();
        packet[at] ^= input.byte();
        if input.byte() & 1 == 0 {
            fix_checksums(&mut packet, offload.checksum);
        }
        let keep = packet.len() - usize::from(input.byte() & 15);
        packet.truncate(keep);
    }
    let index = target(world, input);
    world.forges(&packet, index, offload);
}

/// A segment in the client's name by somebody off the path, who knows the addresses and ports, but not where the
/// streams stand: a quarter of the sequence space away at least, which is more than the largest window. (The ports
/// towards the server are the node's own, and not known off the path.)
fn guess(world: &mut World, who: usize, input: &mut Input<'_>) {
    let conn = &world.conns[who];
    if !conn.settled {
        return;
    }
    let away = (1 << 30) + (input.number() & 0x7fff_ffff);
    let numbers = Numbers {
        seq: conn.half.next().0.wrapping_add(away),
        ack: conn.half.rcv.unwrap_or_default().0.wrapping_add(input.number()),
        flags: input.u16(),
        window: input.u16(),
    };
    let payload = input.bytes(16);
    let packet = judge::tcp(conn.tuple(), numbers, &[], payload);
    world.guesses(&packet);
}

/// An ICMP error about a packet that left a node lately, as it was or changed.
fn error(world: &mut World, input: &mut Input<'_>) {
    let bits = input.byte();
    let Some(left) = world.recent.get(usize::from(bits & 7)).cloned() else { return };
    let mut quoted = left.packet;
    let keep = 48 + usize::from(input.byte());
    quoted.truncate(keep);
    if bits & 8 != 0 {
        let at = usize::from(input.byte()) % quoted.len();
        quoted[at] ^= input.byte();
    }
    let Some(tuple) = tuple_of(&quoted) else { return };
    let kinds: &[u8] = if quoted[0] >> 4 == 6 { &[1, 2, 3, 4] } else { &[3, 11, 12, 5] };
    let mut message = vec![input.one_of(kinds), input.byte() & 7, 0, 0];
    message.extend(input.array::<4>());
    message.extend(&quoted);
    let protocol = if quoted[0] >> 4 == 6 { 58 } else { 1 };
    let mut packet = judge::ip(tuple.destination, tuple.source, protocol, &message);
    fix_checksums(&mut packet, Checksum::Full);
    let index = target(world, input);
    world.nodes.packet(index, &packet, Offload::default());
    world.receive(None);
}

fn tuple_of(packet: &[u8]) -> Option<FourTuple> {
    let (source, destination) = outlive_tcp::wire::addresses(packet).ok()?;
    let end = |addr| outlive_tcp::wire::Endpoint::new(addr, 0);
    Some(FourTuple { source: end(source), destination: end(destination) })
}

/// A ping, or a packet of a protocol that is not answered, to the virtual address.
fn other(world: &mut World, input: &mut Input<'_>) {
    let conn = &world.conns[0];
    let v6 = conn.client.addr.is_ipv6();
    let protocol = input.one_of(&[1, 58, 17, 132, 44, 0, 6]);
    let mut message = vec![if v6 { 128 } else { 8 }, 0, 0, 0];
    message.extend(input.bytes(64));
    let mut packet = judge::ip(conn.client, conn.listener, protocol, &message);
    fix_checksums(&mut packet, Checksum::Full);
    let index = target(world, input);
    world.forges(&packet, index, Offload::default());
}

/// A node dies, and so much time passes that the other notices, or not.
fn kill(world: &mut World, input: &mut Input<'_>) {
    let bits = input.byte();
    let active = world.nodes.active();
    let index = match active {
        Some(active) if bits & 1 == 0 => active,
        Some(active) => 1 - active,
        None => usize::from(bits >> 1 & 1),
    };
    if active != Some(1 - index) {
        world.lose_unless_complete();
    }
    world.nodes.kill(index);
    if bits & 4 == 0 {
        world.advance(Duration::from_secs(6));
    }
}
