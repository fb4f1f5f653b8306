//! The kernel's program against its model: every packet must become the same, and the streams be followed alike.

use std::time::Duration;

use outlive_net::fast_path::{self as kernel, FastPath as Kernel, monotonic};
use outlive_proxy::fast_path::{Direction, FastPath, Model, Outcome, Splice, StreamProgress};
use outlive_tcp::{
    segment::Segment,
    seq::Seq,
    time::Time,
    translation::{TimestampTranslation, Translation},
    wire::{
        Endpoint, Flags, FourTuple, Offload, Options, SackBlock, SackBlocks, TcpPacket, Timestamps,
    },
};

const ETHERNET: [u8; 12] = [0; 12];
const HEADROOM: usize = 64;

/// The program, or `None`, with a line that says so, if this user may not load it.
fn load() -> Option<Kernel> {
    match Kernel::load(64, 1) {
        Ok(kernel) => {
            kernel.serve_until(monotonic() + Duration::from_secs(600));
            Some(kernel)
        }
        Err(error) => {
            eprintln!("SKIPPED: this test needs a user who may load eBPF programs: {error}");
            None
        }
    }
}

fn endpoint(v6: bool, host: u8, port: u16) -> Endpoint {
    let addr = if v6 { format!("fd00::{host:x}") } else { format!("10.1.2.{host}") };
    Endpoint { addr: addr.parse().unwrap(), port }
}

/// Constants and positions by chance, the two directions each other's inverse.
fn splice(rng: &mut fastrand::Rng, v6: bool) -> Splice {
    let client = endpoint(v6, 1, rng.u16(1..));
    let listener = endpoint(v6, 2, 443);
    let source = endpoint(v6, 3, rng.u16(1..));
    let server = endpoint(v6, 4, 8_443);
    let (to_server, to_client) = (rng.u32(..), rng.u32(..));
    let (value, echo) = (rng.u32(..), rng.u32(..));
    let scales = [rng.u8(0..15), rng.u8(0..15)];
    let mut direction = |from: (Endpoint, Endpoint), to: (Endpoint, Endpoint), client: bool| {
        let acked = Seq(rng.u32(..));
        let (seq_delta, ack_delta, value_delta, echo_delta) = if client {
            (to_server, to_client.wrapping_neg(), value, echo.wrapping_neg())
        } else {
            (to_client, to_server.wrapping_neg(), echo, value.wrapping_neg())
        };
        Direction {
            tuple: FourTuple { source: from.0, destination: from.1 },
            translation: Translation {
                tuple: FourTuple { source: to.0, destination: to.1 },
                seq_delta,
                ack_delta,
                ack_floor: None,
                timestamps: TimestampTranslation::Shift { value_delta, echo_delta },
                sack: true,
                window_from: scales[usize::from(!client)],
                window_to: scales[usize::from(client)],
            },
            segment_limit: 1_400,
            stream: StreamProgress {
                next: acked + rng.u32(0..2_000),
                acked,
                edge: acked + rng.u32(0..100_000),
                ..StreamProgress::default()
            },
        }
    };
    let directions = [
        direction((client, listener), (source, server), true),
        direction((server, source), (listener, client), false),
    ];
    Splice { serial: rng.u32(..), opening: rng.bool(), directions }
}

/// Some segment of the session: mostly near where the streams are.
fn segment(rng: &mut fastrand::Rng, splice: &Splice, streams: &[StreamProgress; 2]) -> Vec<u8> {
    let side = rng.usize(..2);
    let (own, other) = (&streams[side], &streams[1 - side]);
    let direction = &splice.directions[side];
    let near = |rng: &mut fastrand::Rng, at: Seq, spread: u32| match rng.u32(..10) {
        0 => Seq(rng.u32(..)),
        1 => at - rng.u32(0..3),
        2 => at,
        _ => at + rng.u32(0..spread),
    };
    let ack = near(rng, other.acked, 3_000) - direction.translation.ack_delta;
    let seq = match rng.u32(..10) {
        0 => Seq(rng.u32(..)),
        // Behind a gap.
        1 => own.next + rng.u32(1..3),
        2..5 => own.next - rng.u32(0..1_500),
        _ => own.next,
    };
    let mut sack = SackBlocks::default();
    for _ in 0..rng.usize(..5) {
        sack.push(SackBlock { start: Seq(rng.u32(..)), end: Seq(rng.u32(..)) });
    }
    let timestamps = rng.bool().then(|| Timestamps { value: rng.u32(..), echo: rng.u32(..) });
    let mut payload = vec![0; rng.usize(..1_450)];
    rng.fill(&mut payload);
    let mut flags = Flags(0);
    for (flag, odds) in
        [(Flags::PSH, 2), (Flags::FIN, 4), (Flags::SYN, 50), (Flags::RST, 50), (Flags::ECE, 9)]
    {
        if rng.u32(..odds) == 0 {
            flags |= flag;
        }
    }
    let mut packet = Vec::new();
    let segment = Segment {
        tuple: direction.tuple,
        seq,
        ack: (rng.u32(..30) > 0).then_some(ack),
        flags,
        window: rng.u16(..),
        options: Options { timestamps, sack, ..Options::default() },
        payload: if rng.bool() { &payload } else { &[] },
        hop_limit: rng.u8(1..),
    };
    segment.emit(&mut packet);
    packet
}

/// What the server may say at any time.
fn plain(splice: &Splice, streams: &[StreamProgress; 2]) -> Vec<u8> {
    let direction = &splice.directions[1];
    let mut packet = Vec::new();
    let segment = Segment {
        tuple: direction.tuple,
        seq: streams[1].next,
        ack: Some(streams[0].acked - direction.translation.ack_delta),
        flags: Flags(0),
        window: 1,
        options: Options::default(),
        payload: &[],
        hop_limit: 64,
    };
    segment.emit(&mut packet);
    packet
}

fn frame(packet: &[u8]) -> Vec<u8> {
    let ethertype: u16 = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
    [&ETHERNET, &ethertype.to_be_bytes()[..], packet].concat()
}

fn install(kernel: &mut Kernel, splice: &Splice) -> kernel::Place {
    let tuple = |tuple: &FourTuple| kernel::Tuple {
        source: (tuple.source.addr, tuple.source.port),
        destination: (tuple.destination.addr, tuple.destination.port),
    };
    let directions = [0, 1].map(|i| {
        let Direction { tuple: from, translation, segment_limit, .. } = &splice.directions[i];
        let TimestampTranslation::Shift { value_delta, echo_delta } = translation.timestamps else {
            unreachable!("made so above");
        };
        kernel::Direction {
            from: tuple(from),
            to: tuple(&translation.tuple),
            seq_delta: translation.seq_delta,
            ack_delta: translation.ack_delta,
            value_delta,
            echo_delta,
            window_from: translation.window_from,
            window_to: translation.window_to,
            segment_limit: *segment_limit,
        }
    });
    let streams = [0, 1].map(|i| {
        let stream = &splice.directions[i].stream;
        kernel::Stream {
            next: stream.next.0,
            acked: stream.acked.0,
            edge: stream.edge.0,
            ..kernel::Stream::default()
        }
    });
    kernel.install(&directions, &streams, splice.opening).expect("room for the session")
}

fn seen(stream: kernel::Stream) -> StreamProgress {
    StreamProgress {
        next: Seq(stream.next),
        acked: Seq(stream.acked),
        edge: Seq(stream.edge),
        fin: stream.fin.map(Seq),
        fin_acked: stream.fin_acked,
        bytes: stream.bytes,
    }
}

#[test]
fn the_kernel_does_what_the_model_does() {
    let Some(mut kernel) = load() else { return };
    let mut rng = fastrand::Rng::with_seed(20);
    let (mut translated, mut left, mut told, mut opened) = (0, 0, 0, 0);
    for round in 0..200 {
        let splice = splice(&mut rng, round % 2 == 0);
        let mut model = Model::new(1);
        assert!(model.install(0, &splice));
        let place = install(&mut kernel, &splice);
        let mut opening = splice.opening;
        for _ in 0..40 {
            let (streams, _) = model.progress(0);
            let packet = segment(&mut rng, &splice, &streams);
            let made = kernel.rehearse(&frame(&packet)).unwrap();

            let mut buffer = [&[0; HEADROOM], &packet[..]].concat();
            let end = buffer.len();
            let mut parsed =
                TcpPacket::parse(&mut buffer, HEADROOM, end, Offload::default()).unwrap();
            let outcome = model.handle(Time::ZERO, &mut parsed);
            let expected = match outcome {
                Outcome::LeftAlone => None,
                Outcome::Translated(_) => Some(frame(parsed.bytes())),
            };
            assert_eq!(made, expected, "{packet:02x?}");
            assert_eq!(kernel.streams(place).map(seen), model.progress(0).0, "{packet:02x?}");
            let event = kernel.poll_event();
            match outcome {
                Outcome::Translated(tell) => {
                    assert_eq!(event.is_some(), tell.is_some(), "{packet:02x?}");
                    assert!(event.is_none_or(|event| event == place));
                    translated += 1;
                    told += usize::from(tell.is_some());
                    opened += usize::from(std::mem::take(&mut opening));
                }
                Outcome::LeftAlone => {
                    assert_eq!(event, None);
                    left += 1;
                }
            }
        }
        if opening {
            // Somebody else has passed what opens it.
            let (streams, _) = model.progress(0);
            model.learn(0, &streams);
            kernel.learn(place, &kernel.streams(place));
            let plain = plain(&splice, &streams);
            assert!(kernel.rehearse(&frame(&plain)).unwrap().is_some(), "it is open");
        }
        kernel.withdraw(place);
        let packet = segment(&mut rng, &splice, &model.progress(0).0);
        assert_eq!(kernel.rehearse(&frame(&packet)).unwrap(), None, "it was withdrawn");
        // Places are kept back for a while, so the kernel is loaded anew before they run out.
        if round % 60 == 59 {
            kernel = load().expect("as before");
        }
    }
    let enough = translated > 1_000 && left > 200 && told > 40 && opened > 20;
    assert!(enough, "{translated} {left} {told} {opened}");
}

#[test]
fn without_a_lease_nothing_is_touched() {
    let Some(mut kernel) = load() else { return };
    let mut rng = fastrand::Rng::with_seed(1);
    let splice = Splice { opening: false, ..splice(&mut rng, false) };
    let place = install(&mut kernel, &splice);
    let ordinary = |kernel: &Kernel| {
        let direction = &splice.directions[0];
        let mut packet = Vec::new();
        let segment = Segment {
            tuple: direction.tuple,
            seq: direction.stream.next,
            ack: Some(Seq(1)),
            flags: Flags(0),
            window: 1,
            options: Options::default(),
            payload: &[],
            hop_limit: 64,
        };
        segment.emit(&mut packet);
        kernel.rehearse(&frame(&packet)).unwrap()
    };
    assert!(ordinary(&kernel).is_some());
    assert_eq!(kernel.passed(place).packets, 1);
    assert!(kernel.idle_for(place).is_some());
    kernel.serve_until(monotonic());
    assert_eq!(ordinary(&kernel), None);
    kernel.serve_until(monotonic() + Duration::from_secs(60));
    assert!(ordinary(&kernel).is_some());
    kernel.stop();
    assert_eq!(ordinary(&kernel), None);
    assert_eq!(kernel.passed(place).packets, 2);
}

/// What came before may be on its way through the process; so everything else goes the same way until it has passed.
#[test]
fn nothing_overtakes_what_the_process_has_not_passed_yet() {
    let Some(mut kernel) = load() else { return };
    let mut rng = fastrand::Rng::with_seed(3);
    let mut splice = Splice { opening: false, ..splice(&mut rng, true) };
    let start = splice.directions[0].stream.next;
    for direction in &mut splice.directions {
        direction.stream.edge = direction.stream.next + 100_000;
    }
    let place = install(&mut kernel, &splice);
    let passes = |kernel: &Kernel, at: u32| {
        let mut packet = Vec::new();
        let segment = Segment {
            tuple: splice.directions[0].tuple,
            seq: start + at,
            ack: Some(Seq(1)),
            flags: Flags(0),
            window: 1,
            options: Options::default(),
            payload: &[7; 100],
            hop_limit: 64,
        };
        segment.emit(&mut packet);
        kernel.rehearse(&frame(&packet)).unwrap().is_some()
    };
    assert!(passes(&kernel, 0), "it continues");
    assert!(!passes(&kernel, 200) && !passes(&kernel, 300), "100 to 200 are missing");
    let mut streams = kernel.streams(place);
    streams[0].next = (start + 300).0;
    kernel.learn(place, &streams);
    assert!(passes(&kernel, 300), "all before has passed");
    assert!(passes(&kernel, 100), "repeated");
    assert!(passes(&kernel, 400));
}

#[test]
fn what_is_not_ordinary_is_left_alone() {
    let Some(mut kernel) = load() else { return };
    let mut rng = fastrand::Rng::with_seed(2);
    let splice = Splice { opening: false, ..splice(&mut rng, false) };
    install(&mut kernel, &splice);
    let direction = &splice.directions[0];
    let mut packet = Vec::new();
    let segment = Segment {
        tuple: direction.tuple,
        seq: direction.stream.next,
        ack: Some(Seq(1)),
        flags: Flags(0),
        window: 1,
        options: Options {
            timestamps: Some(Timestamps { value: 1, echo: 2 }),
            ..Options::default()
        },
        payload: &[7; 10],
        hop_limit: 64,
    };
    segment.emit(&mut packet);
    let whole = frame(&packet);
    let left = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = whole.clone();
        change(&mut frame);
        kernel.rehearse(&frame).unwrap().is_none()
    };
    assert!(!left(&|_| {}), "an ordinary one");
    assert!(left(&|frame| frame[14] = 0x46), "IP options");
    assert!(left(&|frame| frame[20] = 0x20), "a fragment");
    assert!(left(&|frame| frame[21] = 1), "a later fragment");
    assert!(left(&|frame| frame[23] = 17), "UDP");
    assert!(left(&|frame| frame[34] ^= 1), "another port");
    assert!(left(&|frame| frame[12..14].copy_from_slice(&[8, 6])), "ARP");
    assert!(left(&|frame| frame[54] = 30), "an option that nobody knows");
    assert!(left(&|frame| frame[46] = 0x40), "a header that is too short");
    assert!(left(&|frame| frame[46] = 0xf0), "a header that is longer than the segment");
    assert!(left(&|frame| frame[17] = 30), "an IP length that is too short");
    assert!(left(&|frame| frame.truncate(50)), "a short frame");
}
