//! The splice's translation of one packet: checksums stay right (and wrong ones wrong), the payload is not
//! touched, and what is undone is as it was.

use outlive_tcp::{
    seq::Seq,
    translation::{TimestampTranslation, Translation},
    wire::{Checksum, Endpoint, FourTuple, Offload, Options, Segmentation, TcpPacket},
};

use crate::{
    input::Input,
    judge::{self, Numbers, assert_sound, fix_checksums, payload_of},
};

const HEADROOM: usize = 32;

/// Makes a packet and a translation out of the bytes.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let v6 = input.byte() & 1 != 0;
    let from = ends(&mut input, v6);
    let to = ends(&mut input, v6);
    let translation = translation(&mut input, to);
    let offload = offload(&mut input);
    let (packet, is_tcp) = packet(&mut input, from, offload.checksum);

    std::hint::black_box(Options::parse(packet.get(40..).unwrap_or_default()).is_ok());
    let mut buffer = vec![0xee; HEADROOM];
    buffer.extend(&packet);
    let end = buffer.len();
    let Ok(mut view) = TcpPacket::parse(&mut buffer, HEADROOM, end, offload) else {
        assert!(!is_tcp, "a packet that was made with care does not parse");
        return;
    };
    let options = view.options();
    assert_eq!(view.timestamps(), options.timestamps);
    let was_right = view.checksum_ok();
    let was = (view.tuple(), view.seq(), view.ack(), view.flags(), view.payload().to_vec());
    let plain = view.bytes().to_vec();
    let tcp = view.ip_header_len();
    if view.translate(&translation).is_err() {
        assert_eq!(view.bytes(), plain, "refused, and changed all the same");
        return;
    }
    assert_eq!(view.payload(), was.4, "the payload is not touched");
    assert_eq!((view.tuple(), view.flags()), (translation.tuple, was.3));
    assert_eq!(view.seq(), was.1 + translation.seq_delta);
    assert_eq!(view.checksum_ok(), was_right, "right stays right, wrong stays wrong");
    if is_tcp {
        assert_sound(view.bytes(), view.offload());
    }
    let range = view.range();
    let again = TcpPacket::parse(&mut buffer, range.start, range.end, offload);
    let mut again = again.expect("what was translated is a packet");

    let constant = matches!(translation.timestamps, TimestampTranslation::Shift { .. })
        && translation.ack_floor.is_none()
        && translation.sack
        && translation.window_from == translation.window_to;
    if constant {
        again.translate(&inverse(&translation, was.0)).expect("there and back");
        // What is in place of a checksum in a spoilt packet can be the zero that no header has.
        let same = |bytes: &[u8]| if is_tcp { bytes.to_vec() } else { one_zero(bytes, tcp) };
        assert_eq!(same(again.bytes()), same(&plain), "there and back");
    } else {
        again.limit_segments(input.u16());
        if is_tcp {
            assert_sound(again.bytes(), again.offload());
        }
    }
}

/// The packet, whose TCP header begins at `tcp`, with only one of the two zeros of ones' complement in its checksums.
fn one_zero(packet: &[u8], tcp: usize) -> Vec<u8> {
    let mut out = packet.to_vec();
    let of_ip = (packet[0] >> 4 == 4).then_some(10);
    for at in of_ip.into_iter().chain([tcp + 16]) {
        if out[at..at + 2] == [0xff, 0xff] {
            out[at..at + 2].fill(0);
        }
    }
    out
}

fn ends(input: &mut Input<'_>, v6: bool) -> FourTuple {
    let mut end = || {
        let addr = if v6 { input.array::<16>().into() } else { input.array::<4>().into() };
        Endpoint::new(addr, input.u16())
    };
    FourTuple { source: end(), destination: end() }
}

fn translation(input: &mut Input<'_>, tuple: FourTuple) -> Translation {
    let bits = input.byte();
    let timestamps = match input.below(3) {
        0 => TimestampTranslation::Strip,
        1 => TimestampTranslation::Insert { value: input.number(), echo: input.number() },
        _ => {
            TimestampTranslation::Shift { value_delta: input.number(), echo_delta: input.number() }
        }
    };
    let same_scale = bits & 4 != 0;
    let scale = input.byte() % 16;
    Translation {
        tuple,
        seq_delta: input.number(),
        ack_delta: input.number(),
        ack_floor: (bits & 1 != 0).then(|| Seq(input.number())),
        timestamps,
        sack: bits & 2 == 0,
        window_from: scale,
        window_to: if same_scale { scale } else { input.byte() % 16 },
    }
}

fn inverse(translation: &Translation, tuple: FourTuple) -> Translation {
    let timestamps = match translation.timestamps {
        TimestampTranslation::Shift { value_delta, echo_delta } => TimestampTranslation::Shift {
            value_delta: value_delta.wrapping_neg(),
            echo_delta: echo_delta.wrapping_neg(),
        },
        other => other,
    };
    Translation {
        tuple,
        seq_delta: translation.seq_delta.wrapping_neg(),
        ack_delta: translation.ack_delta.wrapping_neg(),
        timestamps,
        ..*translation
    }
}

fn offload(input: &mut Input<'_>) -> Offload {
    match input.below(4) {
        0 => Offload { checksum: Checksum::Partial, segmentation: Segmentation::None },
        1 => Offload {
            checksum: Checksum::Partial,
            segmentation: Segmentation::Tcp { size: input.u16().max(1), ecn: false },
        },
        _ => Offload::default(),
    }
}

/// A packet, and whether everything about it is right.
fn packet(input: &mut Input<'_>, tuple: FourTuple, checksum: Checksum) -> (Vec<u8>, bool) {
    let numbers = Numbers {
        seq: input.number(),
        ack: input.number(),
        flags: input.u16(),
        window: input.u16(),
    };
    let raw_options = input.byte() & 1 != 0;
    let options = if raw_options { input.bytes(40).to_vec() } else { options(input) };
    let spoilt = input.byte();
    let position = usize::from(input.u16());
    let mut packet = judge::tcp(tuple, numbers, &options, input.rest());
    fix_checksums(&mut packet, checksum);
    let spoils = spoilt & 3 == 3;
    if spoils {
        let at = position % packet.len();
        packet[at] ^= spoilt | 1;
    }
    if spoilt & 7 == 7 {
        fix_checksums(&mut packet, checksum);
    }
    let tcp = payload_of(&packet).is_some_and(|(_, protocol)| protocol == 6);
    (packet, tcp && !raw_options && !spoils)
}

/// Options that parse: timestamps and SACK blocks at any offset, once.
fn options(input: &mut Input<'_>) -> Vec<u8> {
    let bits = input.byte();
    let mut out = vec![1; usize::from(bits & 3)];
    if bits & 4 != 0 {
        out.extend([8, 10]);
        out.extend(input.number().to_be_bytes());
        out.extend(input.number().to_be_bytes());
    }
    out.extend(vec![1; usize::from(bits >> 3 & 1)]);
    if bits & 16 != 0 {
        let blocks = 1 + input.below(3);
        if out.len() + 2 + 8 * blocks <= 40 {
            out.extend([5, 2 + 8 * blocks as u8]);
            (0..2 * blocks).for_each(|_| out.extend(input.number().to_be_bytes()));
        }
    }
    if bits & 32 != 0 && out.len() <= 36 {
        out.extend([253, 4, 1, 2]);
    }
    out.resize(out.len().next_multiple_of(4), 1);
    out
}
