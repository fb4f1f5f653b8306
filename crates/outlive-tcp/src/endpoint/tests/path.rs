//! The path: its MTU, its congestion marks, and whether anybody is at its end.

use super::{
    harness::*,
    world::{Host, LinkConfig, Work, pair},
};
use crate::{
    endpoint::{Config, Connection, Drop, End, KeepAlive, State, Verdict},
    seq::Seq,
    wire::{Flags, IcmpError, IcmpErrorKind, Options},
};

fn too_big(mtu: u32, quoted_seq: u32) -> IcmpError {
    let what = IcmpErrorKind::TooBig { mtu };
    IcmpError { quoted: ends(), quoted_seq: Seq(quoted_seq), what, code: 4 }
}

fn full_size() -> Trace {
    let options = Options { mss: Some(1_460), sack_permitted: true, ..Options::default() };
    let mut trace = Trace::established_with(plain(), options);
    trace.write(5_000);
    assert_eq!(trace.send(data(ISS + 1, 5_000)).segment_size, 1_460);
    trace.nothing();
    trace
}

#[test]
fn a_smaller_path_is_believed_and_what_was_lost_sent_again_without_congestion() {
    let mut trace = full_size();
    assert_eq!(trace.conn.handle_icmp(trace.now, &too_big(1_400, ISS + 1)), Verdict::Accepted);
    assert_eq!(trace.send(data(ISS + 1, 5_000)).segment_size, 1_360);
    trace.nothing();
    let statistics = trace.conn.statistics();
    assert_eq!((statistics.path_mtu, statistics.slow_start_threshold), (1_400, u32::MAX));
    trace.recv(seg(IRS + 1, ISS + 5_001));
    // After ten minutes larger segments are tried again.
    trace.nothing();
    trace.timeout(ms(600_000));
    trace.write(1_460);
    assert_eq!(trace.send(data(ISS + 5_001, 1_460)).segment_size, 1_460);
}

#[test]
fn claims_about_what_is_not_in_flight_are_dropped() {
    let mut trace = full_size();
    for seq in [ISS, ISS + 5_001, ISS + 100_000] {
        let verdict = trace.conn.handle_icmp(trace.now, &too_big(1_400, seq));
        assert_eq!(verdict, Verdict::Dropped(Drop::DoubtfulIcmp));
    }
    trace.nothing();
    assert_eq!(trace.conn.statistics().path_mtu, 1_500);
}

/// Segments of that size were acknowledged: a claim must be confirmed by a timeout.
#[test]
fn claims_about_what_has_got_through_must_prove_true() {
    let mut trace = full_size();
    trace.recv(seg(IRS + 1, ISS + 5_001));
    trace.write(2_920);
    trace.send(data(ISS + 5_001, 2_920));
    trace.conn.handle_icmp(trace.now, &too_big(600, ISS + 5_001));
    trace.nothing();
    assert_eq!(trace.conn.statistics().path_mtu, 1_500);
    // It was a lie.
    trace.recv(seg(IRS + 1, ISS + 7_921));
    trace.write(2_920);
    trace.send(data(ISS + 7_921, 2_920));
    trace.conn.handle_icmp(trace.now, &too_big(1_300, ISS + 7_921));
    trace.nothing();
    // And now it is true: neither the segments nor the probe get through.
    while trace.conn.statistics().path_mtu == 1_500 {
        assert!(trace.conn.poll_timeout().unwrap().since(trace.now) < ms(1_000));
        trace.now = trace.conn.poll_timeout().unwrap();
        trace.conn.handle_timeout(trace.now);
        trace.next();
    }
    assert_eq!(trace.conn.statistics().path_mtu, 1_300);
}

#[test]
fn ecn_is_used_only_if_both_ends_want_it() {
    let config = Config { ecn: true, ..plain() };
    let ecn = Flags::ECE | Flags::CWR;
    let mut trace = Trace::new(Connection::connect(opening(), config).unwrap());
    assert!(trace.next().unwrap().flags.contains(ecn));
    trace.recv(seg(IRS, ISS + 1).and(Flags::SYN));
    trace.next().unwrap();
    trace.write(100);
    assert!(!trace.send(data(ISS + 1, 100)).ecn_capable);

    // A SYN with ECN that is not answered is repeated without it.
    let mut trace = Trace::new(Connection::connect(opening(), config).unwrap());
    trace.next().unwrap();
    trace.timeout(ms(1_000));
    assert!(!trace.next().unwrap().flags.intersects(ecn));

    // Passively.
    let now = trace.now;
    let syn = bare(IRS, Flags::SYN | ecn);
    let flags = |config| {
        let mut trace =
            Trace { now, conn: Connection::accept(now, &syn, opening(), config).unwrap() };
        trace.next().unwrap().flags
    };
    assert_eq!(flags(config) & ecn, Flags::ECE);
    assert_eq!(flags(plain()) & ecn, Flags::NONE);
}

fn with_ecn() -> Trace {
    let config = Config { ecn: true, max_super_segment: 1, ..plain() };
    let mut trace = Trace::new(Connection::connect(opening(), config).unwrap());
    trace.next().unwrap();
    trace.wait(ms(10));
    let options = Options { mss: Some(1_000), sack_permitted: true, ..Options::default() };
    trace.recv(seg(IRS, ISS + 1).and(Flags::SYN | Flags::ECE).options(options));
    trace.send(ack(IRS + 1));
    trace.nothing();
    trace
}

#[test]
fn congestion_is_echoed_until_the_sender_has_reacted() {
    let mut trace = with_ecn();
    let mut marked = seg(IRS + 1, ISS + 1).data(100);
    marked.congestion_experienced = true;
    trace.recv(marked);
    assert!(trace.send(ack(IRS + 101)).flags.contains(Flags::ECE));
    trace.write(100);
    let sent = trace.send(data(ISS + 1, 100));
    assert!(sent.flags.contains(Flags::ECE) && sent.ecn_capable);
    trace.recv(seg(IRS + 101, ISS + 101).data(100).and(Flags::CWR));
    trace.nothing();
    trace.timeout(ms(40));
    assert!(!trace.send(ack(IRS + 201)).flags.contains(Flags::ECE));
}

#[test]
fn an_echo_reduces_the_window_once_in_a_round_trip() {
    let mut trace = with_ecn();
    trace.write(20_000);
    (0..10).for_each(|i| assert!(trace.send(data(ISS + 1 + 1_000 * i, 1_000)).ecn_capable));
    trace.nothing();
    trace.wait(ms(10));
    for i in 1..=3 {
        trace.recv(seg(IRS + 1, ISS + 1 + 1_000 * i).and(Flags::ECE));
    }
    assert_eq!(trace.conn.statistics().congestion_window, 7_000);
    trace.nothing();
    trace.recv(seg(IRS + 1, ISS + 5_001));
    assert!(trace.send(data(ISS + 10_001, 1_000)).flags.contains(Flags::CWR));
    assert!(!trace.send(data(ISS + 11_001, 1_000)).flags.contains(Flags::CWR));
}

#[test]
fn what_is_sent_again_is_not_marked() {
    let mut trace = with_ecn();
    trace.write(1_000);
    assert!(trace.send(data(ISS + 1, 1_000)).ecn_capable);
    trace.nothing();
    let due = trace.conn.poll_timeout().unwrap();
    trace.now = due;
    trace.conn.handle_timeout(due);
    assert!(!trace.send(data(ISS + 1, 1_000)).ecn_capable);
}

fn lively() -> Config {
    let keep_alive = KeepAlive { idle: ms(10_000), interval: ms(1_000), probes: 2 };
    Config { keep_alive: Some(keep_alive), ..plain() }
}

#[test]
fn an_idle_connection_is_probed_and_given_up() {
    let mut trace = Trace::established(lively());
    trace.timeout(ms(10_000));
    // One byte that the other end has long acknowledged: it answers.
    let probe = trace.next().unwrap();
    assert_eq!((probe.seq, probe.payload_len()), (Seq(ISS), 1));
    trace.nothing();
    trace.recv(seg(IRS + 1, ISS + 1));
    trace.nothing();
    trace.timeout(ms(10_000));
    trace.next().unwrap();
    trace.nothing();
    trace.timeout(ms(1_000));
    trace.next().unwrap();
    trace.nothing();
    trace.timeout(ms(1_000));
    trace.send(rst(ISS + 1));
    trace.ended(End::KeepAlive);
}

#[test]
fn without_keep_alive_an_idle_connection_has_no_timer() {
    let trace = Trace::established(plain());
    assert_eq!((trace.conn.poll_timeout(), trace.conn.state()), (None, State::Established));
}

#[test]
fn data_postpones_the_probe() {
    let mut trace = Trace::established(lively());
    trace.wait(ms(9_000));
    trace.recv(seg(IRS + 1, ISS + 1).data(100));
    trace.nothing();
    trace.timeout(ms(40));
    trace.send(ack(IRS + 101));
    trace.nothing();
    trace.timeout(ms(9_960));
    trace.next().unwrap();
}

/// A path that swallows what is longer than it takes, and says nothing.
#[test]
fn a_black_hole_is_survived() {
    let work = Work { send: 100_000, ..Work::default() };
    let link = LinkConfig { swallows_beyond: 1_300, ..LinkConfig::default() };
    let config = Config { ecn: true, ..Config::default() };
    let mut world = pair(1, link, (config, work), (config, Work::default()));
    let limit = std::time::Duration::from_secs(300);
    assert!(world.run(limit, |world| world.ends.iter().all(Host::is_done)));
    world.ends[1].program().assert_complete(100_000);
    let mtu = world.ends[0].program().conn.statistics().path_mtu;
    assert!(mtu == 1_024 || mtu == 1_280, "{mtu}");
}
