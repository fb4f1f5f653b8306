//! The state of a connection as bytes, on its way to a target: what is made is read again as it was, what was damaged is
//! refused, and what is accepted can be gone on with: a replay of it says only what is sound.

use std::hash::Hasher;

use outlive_host::replay::Replay;
use outlive_migration::{
    blob::{Blob, FIXED_LEN, MAX_DATA, Mapping, Scales, TcpState, TimestampState},
    flow::FlowId,
};
use outlive_tcp::{
    seq::Seq,
    time::Time,
    wire::{Endpoint, FourTuple, Offload, TcpPacket},
};
use siphasher::sip::SipHasher24;

use crate::{
    input::Input,
    judge::{self, Numbers, assert_sound},
};

/// A state made of the bytes, and then damaged; or the bytes for a state.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    if input.byte() & 1 == 0 {
        return raw(&mut input);
    }
    let damage = (input.byte(), input.u16());
    let blob = blob(&mut input);
    let Ok(bytes) = blob.encode() else { return };
    assert!(bytes.len() <= FIXED_LEN + MAX_DATA);
    assert_eq!(Blob::decode(&bytes).as_ref(), Ok(&blob), "there and back");
    let mut damaged = bytes.clone();
    match damage {
        (0, _) => {}
        (bits, at) if bits & 1 == 0 => damaged[usize::from(at) % bytes.len()] ^= bits,
        (_, at) => damaged.truncate(usize::from(at) % bytes.len()),
    }
    if damaged != bytes {
        assert!(Blob::decode(&damaged).is_err(), "damaged, and accepted");
    }
    replay(blob, &mut input);
}

/// With the checksum that they should have, or without.
fn raw(input: &mut Input<'_>) {
    let repaired = input.byte() & 1 == 0;
    let mut bytes = input.rest().to_vec();
    if repaired && bytes.len() >= FIXED_LEN {
        let body = bytes.len() - 8;
        let mut hasher = SipHasher24::new();
        hasher.write(&bytes[..body]);
        bytes[body..].copy_from_slice(&hasher.finish().to_be_bytes());
    }
    let Ok(blob) = Blob::decode(&bytes) else { return };
    assert_eq!(blob.encode().as_deref(), Ok(&bytes[..]), "one state has one form");
    replay(blob, &mut Input::new(&bytes));
}

/// An ordinary connection to a server, in the client's name, which answers whatever it likes.
fn replay(blob: Blob, input: &mut Input<'_>) {
    let mut replay = Replay::new(blob, 40_000);
    let mut out = Vec::new();
    replay.syn(&mut out);
    assert_sound(&out, Offload::default());
    let len = out.len();
    let first =
        TcpPacket::parse(&mut out, 0, len, Offload::default()).expect("it is sound").seq() + 1;
    let inner = replay.inner();
    for _ in 0..3 {
        let bits = input.byte();
        let numbers = Numbers {
            seq: input.number(),
            ack: if bits & 3 == 3 { input.number() } else { first.0 },
            // SYN and ACK, mostly.
            flags: if bits & 12 == 12 { input.u16() } else { 0x12 },
            window: input.u16(),
        };
        let mut packet = judge::tcp(inner.reversed(), numbers, input.bytes(40), &[]);
        let len = packet.len();
        if let Ok(packet) = TcpPacket::parse(&mut packet, 0, len, Offload::default()) {
            std::hint::black_box(replay.open(&packet));
        }
    }
    std::hint::black_box(replay.speak(Time::from_micros(input.u32().into())));
    for packet in replay.introduction() {
        assert_sound(&packet, Offload::default());
    }
    out.clear();
    replay.reset(&mut out);
    assert_sound(&out, Offload::default());
}

/// One that is often consistent.
pub(super) fn blob(input: &mut Input<'_>) -> Blob {
    let bits = input.byte();
    let (iss, irs) = (Seq(input.number()), Seq(input.number()));
    let snd_una = iss + 1 + u32::from(input.byte());
    let rcv_acked = irs + 1 + u32::from(input.byte());
    let snd_wnd = input.number() & 0x7fff_ffff;
    let v6 = bits & 1 != 0;
    let mut end = || {
        let addr = if v6 { input.array::<16>().into() } else { input.array::<4>().into() };
        Endpoint::new(addr, input.u16())
    };
    let ends = FourTuple { source: end(), destination: end() };
    let tunnel = end().addr;
    let scales = Scales { snd: input.byte() % 16, rcv: input.byte() % 16 };
    let echoed = input.number();
    let timestamps = TimestampState {
        recent: input.number(),
        echoed,
        clock: echoed.wrapping_add(input.number()),
    };
    let (rcv_wnd, client_mss, own_mss) = (u32::from(input.u16()), input.u16(), input.u16());
    let flow = FlowId::new(input.u32()).or(FlowId::new(0x1_0001)).expect("no half is zero");
    let data = input.bytes(200).to_vec();
    let tcp = TcpState {
        iss,
        snd_una,
        snd_nxt: snd_una + u32::from(bits >> 7),
        snd_wnd,
        snd_wnd_max: snd_wnd.max(input.number() & 0x3fff_ffff),
        snd_wl1: rcv_acked,
        snd_wl2: snd_una,
        irs,
        rcv_acked,
        rcv_nxt: rcv_acked + data.len() as u32,
        rcv_wnd,
        client_mss,
        own_mss,
        scales: (bits & 2 != 0).then_some(scales),
        sack: bits & 4 != 0,
        timestamps: (bits & 8 != 0).then_some(timestamps),
    };
    Blob { tcp, ends, mapping: Mapping { flow, tunnel }, data }
}
