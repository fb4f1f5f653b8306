//! Segments that a stranger, or another time, may have sent (RFC 5961, RFC 7323, RFC 5927).

use proptest::prelude::*;

use super::harness::*;
use crate::{
    endpoint::{
        Acknowledge, Arrival, Config, Connection, Drop, End, Event, Opening, State, Verdict,
    },
    seq::Seq,
    time::Time,
    wire::{Flags, IcmpError, IcmpErrorKind, Options, SackBlock, Timestamps},
};

#[test]
fn a_reset_within_the_window_draws_a_challenge() {
    let mut trace = Trace::established(plain());
    trace.recv_dropped(bare(IRS + 2, Flags::RST), Drop::DoubtfulReset);
    trace.send(ack(IRS + 1).at(ISS + 1));
    trace.recv_dropped(bare(IRS + 20_000, Flags::RST), Drop::OutsideWindow);
    trace.recv_dropped(bare(IRS, Flags::RST), Drop::OutsideWindow);
    trace.nothing();
    trace.recv(bare(IRS + 1, Flags::RST));
    trace.ended(End::ResetByPeer);
}

/// While acknowledgments are withheld, the other end has two numbers at which it can stand: what it
/// was told is expected, and where it has sent to.
#[test]
fn a_reset_is_exact_at_what_was_received_too() {
    for at in [0, 1_000] {
        let mut trace =
            Trace::established(Config { acknowledge: Acknowledge::Explicitly, ..plain() });
        trace.recv(seg(IRS + 1, ISS + 1).data(1_000));
        trace.recv_dropped(bare(IRS + 500, Flags::RST), Drop::DoubtfulReset);
        trace.send(ack(IRS + 1));
        trace.recv(bare(IRS + 1 + at, Flags::RST));
        trace.ended(End::ResetByPeer);
    }
}

#[test]
fn a_syn_in_a_connection_draws_a_challenge() {
    for seq in [IRS, IRS + 1, IRS + 5_000, IRS + 100_000] {
        let mut trace = Trace::established(plain());
        trace.recv_dropped(bare(seq, Flags::SYN), Drop::UnexpectedSyn);
        trace.send(ack(IRS + 1).at(ISS + 1));
        trace.nothing();
        assert_eq!(trace.conn.state(), State::Established);
    }
}

#[test]
fn acknowledgments_far_from_what_was_sent_draw_a_challenge() {
    let mut trace = Trace::established(plain());
    trace.recv_dropped(seg(IRS + 1, ISS + 2).data(10), Drop::BadAcknowledgment);
    trace.send(ack(IRS + 1));
    trace.recv_dropped(seg(IRS + 1, ISS.wrapping_sub(30_000)).data(10), Drop::BadAcknowledgment);
    trace.send(ack(IRS + 1));
    // A window back is old, and possible.
    trace.recv(seg(IRS + 1, ISS.wrapping_sub(10_000)).data(10));
    trace.read(10);
}

#[test]
fn challenges_are_limited() {
    let mut trace = Trace::established(plain());
    let challenged = |trace: &mut Trace| {
        let mut count = 0;
        for _ in 0..100 {
            trace.recv_dropped(bare(IRS + 2, Flags::RST), Drop::DoubtfulReset);
            count += std::iter::from_fn(|| trace.next()).count();
        }
        count
    };
    assert_eq!(challenged(&mut trace), 10);
    trace.wait(ms(4_999));
    assert_eq!(challenged(&mut trace), 0);
    trace.wait(ms(1));
    assert_eq!(challenged(&mut trace), 10);
}

/// Two ends that take each other's segments for impossible do not answer each other for ever.
#[test]
fn acknowledgments_do_not_loop() {
    let mut trace = Trace::established(plain());
    let answers = (0..1_000)
        .filter(|_| {
            trace.recv_dropped(seg(IRS - 100, ISS + 1), Drop::OutsideWindow);
            trace.next().is_some()
        })
        .count();
    assert_eq!(answers, 10);
}

fn stamped() -> Trace {
    let options = Options {
        mss: Some(1_012),
        timestamps: Some(Timestamps { value: 1_000, echo: 0 }),
        ..Options::default()
    };
    Trace::established_with(Config { timestamps: true, ..plain() }, options)
}

#[test]
fn segments_from_before_are_dropped_by_their_timestamps() {
    let mut trace = stamped();
    trace.recv(seg(IRS + 1, ISS + 1).data(100).stamp(1_010, 1));
    trace.recv_dropped(seg(IRS + 101, ISS + 1).data(100).stamp(1_009, 1), Drop::OldTimestamp);
    assert_eq!(trace.send(ack(IRS + 101)).options.timestamps.unwrap().echo, 1_010);
    trace.recv_dropped(seg(IRS + 101, ISS + 1).data(100), Drop::NoTimestamp);
    trace.nothing();
    trace.recv(seg(IRS + 101, ISS + 1).data(100).stamp(1_010, 1));
    // A reset is judged by its number alone.
    trace.recv(bare(IRS + 201, Flags::RST));
    trace.ended(End::ResetByPeer);
}

#[test]
fn after_24_days_an_old_timestamp_means_nothing() {
    let mut trace = stamped();
    trace.recv(seg(IRS + 1, ISS + 1).data(100).stamp(0x8000_0000, 1));
    trace.nothing();
    trace.timeout(ms(40));
    trace.send(ack(IRS + 101));
    trace.nothing();
    trace.wait(std::time::Duration::from_secs(24 * 86_400 + 1));
    trace.recv(seg(IRS + 101, ISS + 1).data(100).stamp(0x7fff_0000, 1));
}

/// The timestamp of a segment out of order is not echoed: the hole is what acknowledgments are
/// about.
#[test]
fn the_echo_is_of_the_last_segment_in_order() {
    let mut trace = stamped();
    trace.recv(seg(IRS + 1, ISS + 1).data(100).stamp(1_001, 1));
    trace.recv(seg(IRS + 201, ISS + 1).data(100).stamp(1_003, 1));
    assert_eq!(trace.send(ack(IRS + 101)).options.timestamps.unwrap().echo, 1_001);
    trace.recv(seg(IRS + 101, ISS + 1).data(100).stamp(1_004, 1));
    assert_eq!(trace.send(ack(IRS + 301)).options.timestamps.unwrap().echo, 1_004);
}

#[test]
fn time_wait_gives_way_to_a_later_connection_only() {
    let mut trace = Trace::time_wait(plain());
    let reopen = Verdict::Reopen { iss_after: Seq(ISS + 2) };
    assert_eq!(trace.conn.handle_segment(trace.now, &bare(IRS + 3, Flags::SYN)), reopen);
    trace.recv_dropped(bare(IRS - 7, Flags::SYN), Drop::UnexpectedSyn);
    trace.send(ack(IRS + 2));
    assert_eq!(trace.conn.state(), State::TimeWait);
}

#[test]
fn initial_numbers_are_keyed_and_do_not_run_back() {
    let now = Time::from_micros(5_000_000);
    let (key, other) = ([1; 16], [2; 16]);
    let first = Opening::keyed(&key, ends(), 10_000_000, now);
    assert_ne!(first.iss, Opening::keyed(&other, ends(), 10_000_000, now).iss);
    assert_ne!(first.iss, Opening::keyed(&key, ends().reversed(), 10_000_000, now).iss);
    let later = Opening::keyed(&key, ends(), 11_000_000, now + ms(1_000));
    assert_eq!(later.iss.distance(first.iss), 250_000);
    // On another node, whose own clock says something else, timestamps go on.
    let elsewhere = Opening::keyed(&key, ends(), 11_000_000, Time::from_micros(77_000));
    let value = |opening: &Opening, now: Time| {
        opening.timestamp_offset.wrapping_add(now.as_millis() as u32)
    };
    let ahead = value(&elsewhere, Time::from_micros(77_000)).wrapping_sub(value(&first, now));
    assert_eq!(ahead, 1_000);
}

fn icmp(what: IcmpErrorKind, code: u8, quoted_seq: u32) -> IcmpError {
    IcmpError { quoted: ends(), quoted_seq: Seq(quoted_seq), what, code }
}

const UNREACHABLE_PORT: (IcmpErrorKind, u8) = (IcmpErrorKind::Unreachable, 3);

#[test]
fn an_icmp_error_refuses_only_before_the_connection_is_there() {
    let (what, code) = UNREACHABLE_PORT;
    let mut trace = Trace::new(Connection::connect(opening(), plain()).unwrap());
    trace.next().unwrap();
    let soft = icmp(IcmpErrorKind::Unreachable, 1, ISS);
    assert_eq!(trace.conn.handle_icmp(trace.now, &soft), Verdict::Accepted);
    assert_eq!(trace.conn.poll_event(), Some(Event::PathSuspect));
    let guess = icmp(what, code, ISS + 1);
    let doubtful = Verdict::Dropped(Drop::DoubtfulIcmp);
    assert_eq!(trace.conn.handle_icmp(trace.now, &guess), doubtful);
    assert_eq!(trace.conn.state(), State::SynSent);
    trace.conn.handle_icmp(trace.now, &icmp(what, code, ISS));
    trace.ended(End::Refused);

    let mut trace = Trace::established(plain());
    trace.write(100);
    trace.send(data(ISS + 1, 100));
    trace.conn.handle_icmp(trace.now, &icmp(what, code, ISS + 1));
    assert_eq!(trace.conn.state(), State::Established);
    assert_eq!(trace.conn.poll_event(), Some(Event::PathSuspect));
    let elsewhere = IcmpError { quoted: ends().reversed(), ..icmp(what, code, ISS + 1) };
    let other = Verdict::Dropped(Drop::OtherConnection);
    assert_eq!(trace.conn.handle_icmp(trace.now, &elsewhere), other);
}

#[derive(Clone, Debug)]
enum Step {
    Segment(Arrival),
    Wait(u64),
    Write(u32),
    Read(usize),
    Acknowledge(u32),
    AcknowledgeEnd,
    Shutdown,
    Icmp(u32, u32),
}

/// Numbers near the ones that matter, and far ones.
fn number(base: u32) -> impl Strategy<Value = u32> {
    prop_oneof![
        8 => (0u32..12_000).prop_map(move |n| base.wrapping_add(n)),
        2 => (0u32..3_000).prop_map(move |n| base.wrapping_sub(n)),
        1 => any::<u32>(),
    ]
}

fn segment() -> impl Strategy<Value = Arrival> {
    let flags = prop_oneof![
        12 => Just(Flags::ACK),
        2 => Just(Flags::ACK | Flags::FIN),
        1 => (0u16..0x1000).prop_map(Flags),
    ];
    let blocks = proptest::collection::vec((number(ISS), number(ISS)), 0..4);
    let stamp = (any::<bool>(), 0u32..3_000, 0u32..3_000);
    let window = prop_oneof![any::<u16>(), Just(0), Just(20_000)];
    (number(IRS + 1), number(ISS + 1), flags, 0u32..3_000, blocks, stamp, window).prop_map(
        |(seq, ack, flags, len, blocks, (has_stamp, value, echo), window)| {
            let mut segment = seg(seq, ack).window(window);
            segment.flags = flags;
            segment.ack = segment.ack.filter(|_| flags.contains(Flags::ACK));
            segment.payload = bytes(seq, if len < 1_500 { 0 } else { len - 1_499 });
            segment.segment_size = segment.payload.len() as u16;
            for (start, end) in blocks {
                segment.options.sack.push(SackBlock { start: Seq(start), end: Seq(end) });
            }
            if has_stamp {
                segment = segment.stamp(value, echo);
            }
            segment
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => segment().prop_map(Step::Segment),
        3 => (0u64..2_000).prop_map(Step::Wait),
        3 => (1u32..6_000).prop_map(Step::Write),
        2 => (1usize..5_000).prop_map(Step::Read),
        2 => (0u32..3_000).prop_map(Step::Acknowledge),
        1 => Just(Step::AcknowledgeEnd),
        1 => Just(Step::Shutdown),
        1 => (number(ISS), 0u32..2_000).prop_map(|(seq, mtu)| Step::Icmp(seq, mtu)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever comes: no panic, the invariants hold (they are checked after each call), nothing is
    /// sent without end, SEG.ACK covers nothing but what the program has acknowledged, and the
    /// right edge does not move left.
    #[test]
    fn no_segment_breaks_a_connection(
        steps in proptest::collection::vec(step(), 1..60),
        explicit: bool,
        sack: bool,
        timestamps: bool,
    ) {
        let acknowledge = if explicit { Acknowledge::Explicitly } else { Acknowledge::OnReceipt };
        let config = Config { acknowledge, timestamps, nagle: sack, ecn: timestamps, ..plain() };
        let options = Options {
            mss: Some(1_000),
            sack_permitted: sack,
            timestamps: timestamps.then_some(Timestamps { value: 500, echo: 0 }),
            ..Options::default()
        };
        let mut trace = Trace::established_with(config, options);
        let (mut acknowledged, mut edge) = (Seq(IRS + 1), Seq(IRS + 1));
        let mut end = 0;
        for step in steps {
            match step {
                Step::Segment(segment) => { trace.conn.handle_segment(trace.now, &segment); }
                Step::Wait(millis) => {
                    trace.now = trace.now + ms(millis);
                    trace.conn.handle_timeout(trace.now);
                }
                Step::Write(len) => { let _ = trace.conn.write(bytes(0, len)); }
                Step::Read(max) => { trace.conn.read(max); }
                Step::Acknowledge(count) if trace.conn.acknowledge(count).is_ok() => {
                    acknowledged += count;
                }
                Step::AcknowledgeEnd if trace.conn.acknowledge_end().is_ok() => end = 1,
                Step::Acknowledge(_) | Step::AcknowledgeEnd => {}
                Step::Shutdown => trace.conn.shutdown(),
                Step::Icmp(seq, mtu) => {
                    let error = icmp(IcmpErrorKind::TooBig { mtu }, 4, seq);
                    trace.conn.handle_icmp(trace.now, &error);
                }
            }
            for i in 0.. {
                let Some(sent) = trace.next() else { break };
                prop_assert!(i < 200, "it sends without end");
                let Some(ack) = sent.ack.filter(|_| !sent.flags.contains(Flags::RST)) else { continue };
                if explicit {
                    prop_assert!(ack.at_or_before(acknowledged + end));
                }
                let right = ack + u32::from(sent.window);
                prop_assert!(right.at_or_after(edge), "{right:?} is left of {edge:?}");
                edge = right;
            }
        }
    }
}
