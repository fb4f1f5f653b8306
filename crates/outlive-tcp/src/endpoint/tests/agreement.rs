//! What the ends agree on, and what follows from it for every segment.

use super::harness::*;
use crate::{
    endpoint::{Config, Connection, Negotiated, Opening},
    testing::tuple,
    wire::{Flags, MAX_WINDOW_SCALE, Options, Timestamps},
};

/// Everything offered.
fn rich() -> Config {
    Config { receive_buffer: 1 << 20, withheld_limit: 1 << 20, ..Config::default() }
}

fn all_options() -> Options {
    Options {
        mss: Some(1_000),
        window_scale: Some(3),
        sack_permitted: true,
        timestamps: Some(Timestamps { value: 77, echo: 0 }),
        ..Options::default()
    }
}

/// The options of the SYN-ACK to a SYN with `options`.
fn answer(config: Config, options: Options) -> Options {
    let now = Trace::established(plain()).now;
    let syn = bare(IRS, Flags::SYN).options(options);
    let mut trace = Trace { now, conn: Connection::accept(now, &syn, opening(), config).unwrap() };
    trace.next().unwrap().options
}

#[test]
fn a_syn_offers_what_the_settings_say() {
    let mut trace = Trace::new(Connection::connect(opening(), rich()).unwrap());
    let syn = trace.next().unwrap();
    assert_eq!((syn.options.mss, syn.options.window_scale), (Some(1_460), Some(5)));
    assert!(syn.options.sack_permitted);
    assert_eq!(syn.options.timestamps.unwrap().echo, 0);
    // The window of a SYN has no scale.
    assert_eq!(syn.window, u16::MAX);
    let nothing = Config { sack: false, timestamps: false, window_scaling: false, ..rich() };
    let mut trace = Trace::new(Connection::connect(opening(), nothing).unwrap());
    let mss = Options { mss: Some(1_460), ..Options::default() };
    assert_eq!(trace.next().unwrap().options, mss);
}

#[test]
fn a_syn_ack_answers_only_what_was_offered_and_is_wanted() {
    let full = answer(rich(), all_options());
    assert_eq!((full.mss, full.window_scale), (Some(1_460), Some(5)));
    assert_eq!(full.timestamps.map(|timestamps| timestamps.echo), Some(77));
    let mss = Options { mss: Some(1_460), ..Options::default() };
    assert_eq!(answer(rich(), Options { mss: Some(1_000), ..Options::default() }), mss);
    assert_eq!(answer(plain(), Options { sack_permitted: false, ..all_options() }), mss);
}

#[test]
fn windows_are_scaled_in_both_directions_or_not_at_all() {
    let mut trace = Trace::established_with(rich(), all_options());
    trace.recv(seg(IRS + 1, ISS + 1).stamp(78, 1).window(1_000));
    assert_eq!(trace.conn.statistics().send_window, 8_000);
    trace.write(10);
    assert_eq!(trace.send(data(ISS + 1, 10)).window, ((1u32 << 20) >> 5) as u16);

    let unscaled = Options { window_scale: None, ..all_options() };
    let mut trace = Trace::established_with(rich(), unscaled);
    trace.recv(seg(IRS + 1, ISS + 1).stamp(78, 1).window(1_000));
    assert_eq!(trace.conn.statistics().send_window, 1_000);
    trace.write(10);
    assert_eq!(trace.send(data(ISS + 1, 10)).window, u16::MAX);
    assert!(Negotiated { ..*trace.conn.negotiated() }.receive_scale <= MAX_WINDOW_SCALE);
}

#[test]
fn every_segment_has_timestamps_once_both_have_them() {
    let mut trace = Trace::established_with(rich(), all_options());
    trace.write(1_500);
    let sent = trace.send(data(ISS + 1, 1_500));
    // They take 12 bytes of each segment (RFC 6691).
    assert_eq!((sent.options.timestamps.unwrap().echo, sent.segment_size), (77, 988));
    trace.conn.abort();
    assert!(trace.send(rst(ISS + 1_501)).options.timestamps.is_some());
}

#[test]
fn an_end_that_announces_no_segment_size_gets_the_default() {
    let nothing = Options::default();
    let mut trace = Trace::established_with(plain(), nothing);
    trace.write(2_000);
    assert_eq!(trace.send(data(ISS + 1, 2_000)).segment_size, 536);

    let ends = tuple("[fd00::1]:4000", "[fd00::2]:80");
    let opening = Opening { tuple: ends, ..opening() };
    let mut trace = Trace::new(Connection::connect(opening, plain()).unwrap());
    assert_eq!(trace.next().unwrap().options.mss, Some(1_440));
    let mut syn_ack = seg(IRS, ISS + 1).and(Flags::SYN);
    syn_ack.tuple = ends.reversed();
    trace.recv(syn_ack);
    trace.write(2_000);
    assert_eq!(trace.send(data(ISS + 1, 2_000)).segment_size, 1_220);
}

#[test]
fn nothing_is_sacked_to_an_end_that_did_not_permit_it() {
    let mut trace = Trace::established_with(plain(), Options::default());
    trace.recv(seg(IRS + 1_001, ISS + 1).data(1_000));
    trace.send(ack(IRS + 1).sacks(&[]));
    trace.recv(seg(IRS + 1_001, ISS + 1).data(1_000));
    trace.send(ack(IRS + 1).sacks(&[]));
}

#[test]
fn everything_that_follows_a_filled_hole_is_acknowledged_at_once() {
    let mut trace = Trace::established(plain());
    trace.recv(seg(IRS + 1_001, ISS + 1).data(1_000));
    trace.send(ack(IRS + 1).sacks(&[(IRS + 1_001, IRS + 2_001)]));
    trace.recv(seg(IRS + 2_001, ISS + 1).data(1_000));
    trace.send(ack(IRS + 1).sacks(&[(IRS + 1_001, IRS + 3_001)]));
    trace.recv(seg(IRS + 1, ISS + 1).data(1_000));
    trace.send(ack(IRS + 3_001).sacks(&[]));
    trace.nothing();
    trace.read(3_000);
}

#[test]
fn a_fin_that_comes_early_waits_for_what_is_before_it() {
    let mut trace = Trace::established(plain());
    trace.recv(seg(IRS + 101, ISS + 1).data(100).and(Flags::FIN));
    trace.send(ack(IRS + 1));
    trace.recv(seg(IRS + 1, ISS + 1).data(100));
    trace.send(ack(IRS + 202));
    trace.read(200);
    assert_eq!(trace.conn.read(1), crate::endpoint::Read::End);
}

/// Karn's algorithm: without timestamps nobody knows which copy was acknowledged.
#[test]
fn a_segment_that_was_sent_twice_measures_nothing() {
    let mut trace = Trace::established(Config { sack: false, ..plain() });
    trace.write(100);
    trace.send(data(ISS + 1, 100));
    trace.nothing();
    trace.timeout(ms(210));
    trace.send(data(ISS + 1, 100));
    trace.wait(ms(100));
    trace.recv(seg(IRS + 1, ISS + 101));
    assert_eq!(trace.conn.statistics().smoothed_rtt, Some(ms(10)));
    // And the backoff lasts until something is measured (RFC 6298, section 5).
    assert_eq!(trace.conn.statistics().retransmission_timeout, ms(420));
    trace.write(100);
    trace.send(data(ISS + 101, 100));
    trace.wait(ms(10));
    trace.recv(seg(IRS + 1, ISS + 201));
    assert_eq!(trace.conn.statistics().retransmission_timeout, ms(210));
}

/// Writes more than the window takes, and gives how many bytes go out.
fn burst(trace: &mut Trace) -> usize {
    trace.write(60_000);
    std::iter::from_fn(|| trace.next()).map(|sent| sent.payload_len()).sum()
}

#[test]
fn the_window_begins_with_ten_segments_and_doubles() {
    let mut trace = Trace::established(plain());
    trace.recv(seg(IRS + 1, ISS + 1).window(60_000));
    assert_eq!(burst(&mut trace), 10_000);
    trace.wait(ms(10));
    trace.recv(seg(IRS + 1, ISS + 10_001).window(60_000));
    assert_eq!(
        std::iter::from_fn(|| trace.next()).map(|sent| sent.payload_len()).sum::<usize>(),
        20_000
    );
}

#[test]
fn after_a_lost_syn_the_window_begins_with_one() {
    let mut trace = Trace::new(Connection::connect(opening(), plain()).unwrap());
    trace.next().unwrap();
    trace.timeout(ms(1_000));
    trace.next().unwrap();
    let options = Options { mss: Some(1_000), ..Options::default() };
    trace.recv(seg(IRS, ISS + 1).and(Flags::SYN).options(options));
    assert_eq!(burst(&mut trace), 1_000);
    assert_eq!(trace.conn.statistics().retransmission_timeout, ms(3_000));
}

#[test]
fn a_window_that_was_not_used_does_not_grow_and_is_not_kept() {
    let mut trace = Trace::established(plain());
    for i in 0..30 {
        trace.write(100);
        trace.send(data(ISS + 1 + 100 * i, 100));
        trace.wait(ms(10));
        trace.recv(seg(IRS + 1, ISS + 101 + 100 * i).window(60_000));
    }
    assert_eq!(trace.conn.statistics().congestion_window, 10_000);

    let mut trace = Trace::established(plain());
    trace.recv(seg(IRS + 1, ISS + 1).window(60_000));
    trace.write(10_000);
    trace.send(data(ISS + 1, 10_000));
    trace.write(10_000);
    trace.nothing();
    trace.wait(ms(10));
    trace.recv(seg(IRS + 1, ISS + 10_001).window(60_000));
    trace.send(data(ISS + 10_001, 10_000));
    trace.recv(seg(IRS + 1, ISS + 20_001).window(60_000));
    assert_eq!(trace.conn.statistics().congestion_window, 20_000);
    trace.nothing();
    trace.wait(ms(60_000));
    assert_eq!(burst(&mut trace), 10_000);
}

/// Five gigabytes in each direction: no mark that was left behind comes to lie ahead.
#[test]
fn numbers_come_round() {
    let config = Config { send_buffer: 1 << 26, ecn: true, nagle: true, ..rich() };
    let options = Options { window_scale: Some(14), timestamps: None, ..all_options() };
    let mut trace = Trace::established_with(Config { timestamps: false, ..config }, options);
    let chunk = bytes::Bytes::from(vec![0; 1 << 16]);
    for round in 0..(5u64 << 30) / (1 << 24) {
        for _ in 0..1 << 8 {
            // Here.
            let at = trace.conn.positions();
            let mut segment = seg(at.received.0, at.sent_acknowledged.0).window(u16::MAX);
            segment.payload = chunk.clone();
            segment.segment_size = 1_448;
            trace.conn.handle_segment(trace.now, &segment);
            while let crate::endpoint::Read::Data(data) = trace.conn.read(usize::MAX) {
                trace.conn.acknowledge(data.len() as u32).unwrap();
            }
            // And there.
            assert_eq!(trace.conn.write(chunk.clone()), Ok(chunk.len()));
            while trace.conn.poll_transmit(trace.now).is_some() {}
            let at = trace.conn.positions();
            trace.conn.handle_segment(trace.now, &seg(at.received.0, at.sent.0).window(u16::MAX));
        }
        // All is sent, and a small segment waits for nothing.
        while trace.conn.unacknowledged() > 0 {
            while trace.conn.poll_transmit(trace.now).is_some() {}
            let at = trace.conn.positions();
            trace.conn.handle_segment(trace.now, &seg(at.received.0, at.sent.0).window(u16::MAX));
        }
        trace.conn.write(chunk.slice(..1 + round as usize % 100)).unwrap();
        assert!(trace.conn.poll_transmit(trace.now).unwrap().payload_len() > 0, "round {round}");
    }
}

#[test]
fn the_window_is_told_of_when_it_opens() {
    let config = Config { receive_buffer: 4_000, withheld_limit: 4_000, ..plain() };
    let mut trace = Trace::established(config);
    for i in 0..4 {
        trace.recv(seg(IRS + 1 + 1_000 * i, ISS + 1).data(1_000));
    }
    assert_eq!(trace.send(ack(IRS + 4_001)).window, 0);
    trace.recv_dropped(seg(IRS + 4_001, ISS + 1).data(1), crate::endpoint::Drop::NoRoom);
    assert_eq!(trace.send(ack(IRS + 4_001)).window, 0);
    // Not for a silly piece.
    trace.read(500);
    trace.nothing();
    trace.read(1_500);
    assert_eq!(trace.send(ack(IRS + 4_001)).window, 2_000);
}
