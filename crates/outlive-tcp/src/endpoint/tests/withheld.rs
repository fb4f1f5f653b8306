//! Acknowledgments that are withheld: what the other end is told meanwhile. The expectations are
//! what Linux was seen to need.

use super::harness::*;
use crate::{
    endpoint::{Acknowledge, Config},
    wire::{Flags, Options},
};

fn explicit() -> Config {
    Config { acknowledge: Acknowledge::Explicitly, ..plain() }
}

/// Six segments, the third lost. SACKing only what is beyond the hole would make Linux take the
/// withheld ones for lost as well; a block that begins at SEG.ACK would be ignored.
#[test]
fn with_a_hole_withheld_bytes_are_sacked_but_for_the_first_segment() {
    let mut trace = Trace::established(explicit());
    for i in [0, 1, 3] {
        trace.recv(seg(IRS + 1 + 1_000 * i, ISS + 1).data(1_000));
    }
    let told = [(IRS + 3_001, IRS + 4_001), (IRS + 1_001, IRS + 2_001)];
    trace.send(ack(IRS + 1).sacks(&told));
    trace.nothing();
    trace.recv(seg(IRS + 4_001, ISS + 1).data(1_000));
    trace.send(ack(IRS + 1).sacks(&[(IRS + 3_001, IRS + 5_001), (IRS + 1_001, IRS + 2_001)]));
    // The hole is filled: nothing is missing, so nothing is told of what is withheld.
    trace.recv(seg(IRS + 2_001, ISS + 1).data(1_000));
    trace.send(ack(IRS + 1).sacks(&[]));
    trace.read(5_000);
    trace.conn.acknowledge(5_000).unwrap();
    trace.send(ack(IRS + 5_001).sacks(&[]));
}

#[test]
fn the_first_withheld_segment_is_never_sacked() {
    let mut trace = Trace::established(explicit());
    trace.recv(seg(IRS + 1, ISS + 1).data(1_000));
    trace.nothing();
    trace.recv(seg(IRS + 2_001, ISS + 1).data(1_000));
    trace.send(ack(IRS + 1).sacks(&[(IRS + 2_001, IRS + 3_001)]));
}

/// What was sacked and then is first again, because part was acknowledged, is not told any more:
/// the other end knows it.
#[test]
fn the_block_moves_with_the_acknowledgment() {
    let mut trace = Trace::established(explicit());
    for i in [0, 1, 2, 4] {
        trace.recv(seg(IRS + 1 + 1_000 * i, ISS + 1).data(1_000));
    }
    trace.send(ack(IRS + 1).sacks(&[(IRS + 4_001, IRS + 5_001), (IRS + 1_001, IRS + 3_001)]));
    trace.read(1_500);
    trace.conn.acknowledge(1_000).unwrap();
    trace.send(ack(IRS + 1_001).sacks(&[(IRS + 4_001, IRS + 5_001), (IRS + 2_001, IRS + 3_001)]));
}

/// The sender's timer fires while its data is withheld: each copy is answered, and what the copy
/// was of is told where that cannot be misread.
#[test]
fn copies_of_withheld_data_are_answered() {
    let mut trace = Trace::established(explicit());
    trace.recv(seg(IRS + 1, ISS + 1).data(1_000));
    trace.recv(seg(IRS + 1_001, ISS + 1).data(1_000));
    trace.recv(seg(IRS + 1, ISS + 1).data(1_000));
    trace.send(ack(IRS + 1).sacks(&[]));
    // A loss probe repeats the last segment. Without a hole that is not told: the first segment
    // would look lost.
    trace.recv(seg(IRS + 1_001, ISS + 1).data(1_000));
    trace.send(ack(IRS + 1).sacks(&[]));
    trace.recv(seg(IRS + 3_001, ISS + 1).data(1_000));
    trace.send(ack(IRS + 1));
    trace.recv(seg(IRS + 1_001, ISS + 1).data(1_000));
    let copy = (IRS + 1_001, IRS + 2_001);
    trace.send(ack(IRS + 1).sacks(&[copy, copy, (IRS + 3_001, IRS + 4_001)]));
}

#[test]
fn copies_of_acknowledged_data_are_reported() {
    let mut trace = Trace::established(explicit());
    trace.recv(seg(IRS + 1, ISS + 1).data(1_000));
    trace.read(1_000);
    trace.conn.acknowledge(1_000).unwrap();
    trace.send(ack(IRS + 1_001));
    trace.recv_dropped(seg(IRS + 1, ISS + 1).data(1_000), crate::endpoint::Drop::OutsideWindow);
    trace.send(ack(IRS + 1_001).sacks(&[(IRS + 1, IRS + 1_001)]));
    trace.nothing();
    trace.recv(seg(IRS + 501, ISS + 1).data(1_000));
    trace.send(ack(IRS + 1_001).sacks(&[(IRS + 501, IRS + 1_001)]));
}

/// A segment that fills holes may bring what was held behind them once more.
#[test]
fn what_comes_twice_in_part_is_reported_too() {
    let mut trace = Trace::established(plain());
    trace.recv(seg(IRS + 1_001, ISS + 1).data(1_000));
    trace.send(ack(IRS + 1).sacks(&[(IRS + 1_001, IRS + 2_001)]));
    trace.recv(seg(IRS + 3_001, ISS + 1).data(1_000));
    trace.send(ack(IRS + 1).sacks(&[(IRS + 3_001, IRS + 4_001), (IRS + 1_001, IRS + 2_001)]));
    trace.recv(seg(IRS + 2_501, ISS + 1).data(1_000));
    let twice = (IRS + 3_001, IRS + 3_501);
    let blocks = [twice, (IRS + 2_501, IRS + 4_001), (IRS + 1_001, IRS + 2_001)];
    trace.send(ack(IRS + 1).sacks(&blocks));
    trace.recv(seg(IRS + 1, ISS + 1).data(1_500));
    let twice = (IRS + 1_001, IRS + 1_501);
    trace.send(ack(IRS + 2_001).sacks(&[twice, (IRS + 2_501, IRS + 4_001)]));
    trace.nothing();
}

/// Without SACK a duplicate acknowledgment asks for what begins at SEG.ACK, which is not missing.
#[test]
fn without_sack_no_duplicate_asks_for_what_is_withheld() {
    let options = Options { mss: Some(1_000), ..Options::default() };
    let mut trace = Trace::established_with(explicit(), options);
    trace.recv(seg(IRS + 1, ISS + 1).data(1_000));
    for i in 2..6 {
        trace.recv(seg(IRS + 1 + 1_000 * i, ISS + 1).data(1_000));
        trace.nothing();
    }
    trace.read(1_000);
    trace.conn.acknowledge(1_000).unwrap();
    trace.send(ack(IRS + 1_001));
    trace.recv(seg(IRS + 7_001, ISS + 1).data(1_000));
    trace.send(ack(IRS + 1_001));
}

/// Reading opens the window for what is new as long as the withheld limit allows it: the sender
/// goes on though nothing is acknowledged.
#[test]
fn reading_on_without_acknowledging_is_bounded() {
    let config = Config { receive_buffer: 4_000, withheld_limit: 6_000, ..explicit() };
    let mut trace = Trace::established(config);
    let mut edges = vec![];
    for i in 0..6 {
        trace.recv(seg(IRS + 1 + 1_000 * i, ISS + 1).data(1_000));
        trace.read(1_000);
        if let Some(update) = trace.next() {
            assert_eq!(update.ack.unwrap().0, IRS + 1);
            edges.push(update.window);
        }
    }
    assert_eq!(edges.last(), Some(&6_000));
    trace.recv_dropped(seg(IRS + 6_001, ISS + 1).data(1_000), crate::endpoint::Drop::NoRoom);
    trace.send(ack(IRS + 1));
    trace.conn.acknowledge(3_000).unwrap();
    let transmit = trace.send(ack(IRS + 3_001));
    assert_eq!(transmit.window, 6_000);
}

/// The echoed timestamp is that of the oldest segment that is not acknowledged (RFC 7323, section
/// 4.3): the sender's timer learns how long acknowledgments take here.
#[test]
fn the_echo_includes_the_wait() {
    let config = Config { timestamps: true, ..explicit() };
    let options = Options {
        timestamps: Some(crate::wire::Timestamps { value: 100, echo: 0 }),
        ..Options::default()
    };
    let mut trace = Trace::established_with(config, options);
    trace.recv(seg(IRS + 1, ISS + 1).data(1_000).stamp(110, 0));
    trace.recv(seg(IRS + 1_001, ISS + 1).data(1_000).stamp(120, 0));
    trace.read(2_000);
    trace.wait(ms(300));
    trace.conn.acknowledge(2_000).unwrap();
    assert_eq!(trace.send(ack(IRS + 2_001)).options.timestamps.unwrap().echo, 110);
}

/// But what filled a hole is acknowledged with its own: an older one would say that nothing was
/// lost.
#[test]
fn the_echo_of_a_repair_is_that_of_the_repair() {
    let config = Config { timestamps: true, ..explicit() };
    let options = Options {
        sack_permitted: true,
        timestamps: Some(crate::wire::Timestamps { value: 100, echo: 0 }),
        ..Options::default()
    };
    let mut trace = Trace::established_with(config, options);
    trace.recv(seg(IRS + 1, ISS + 1).data(1_000).stamp(110, 0));
    trace.recv(seg(IRS + 2_001, ISS + 1).data(1_000).stamp(120, 0));
    trace.send(ack(IRS + 1));
    trace.recv(seg(IRS + 1_001, ISS + 1).data(1_000).stamp(150, 0));
    let echo = |transmit: crate::endpoint::Transmit| transmit.options.timestamps.unwrap().echo;
    assert_eq!(echo(trace.send(ack(IRS + 1))), 110);
    trace.read(3_000);
    trace.conn.acknowledge(1_000).unwrap();
    assert_eq!(echo(trace.send(ack(IRS + 1_001))), 110);
    trace.conn.acknowledge(2_000).unwrap();
    assert_eq!(echo(trace.send(ack(IRS + 3_001))), 150);
}

/// A probe below what was received, but not acknowledged, is answered too.
#[test]
fn probes_within_withheld_data_are_answered() {
    let mut trace = Trace::established(explicit());
    trace.recv(seg(IRS + 1, ISS + 1).data(1_000));
    trace.recv(seg(IRS + 1_000, ISS + 1));
    trace.send(ack(IRS + 1));
    trace.recv(seg(IRS + 1_001, ISS + 1));
    trace.nothing();
}

/// A probe at or below RCV.NXT - 1, which a takeover sends to make an end repeat its
/// acknowledgment, is answered in every state that has a peer.
#[test]
fn probes_are_answered() {
    type Make = fn(Config) -> Trace;
    let states: [(Make, u32); 6] = [
        (Trace::established, IRS + 1),
        (Trace::fin_wait_1, IRS + 1),
        (Trace::fin_wait_2, IRS + 1),
        (Trace::close_wait, IRS + 2),
        (Trace::last_ack, IRS + 2),
        (Trace::time_wait, IRS + 2),
    ];
    for (make, nxt) in states {
        let mut trace = make(plain());
        let mut probe = seg(nxt - 2, ISS + 1).data(1);
        trace.recv_dropped(probe.clone(), crate::endpoint::Drop::OutsideWindow);
        trace.send(ack(nxt));
        probe.payload.clear();
        trace.recv_dropped(probe, crate::endpoint::Drop::OutsideWindow);
        trace.send(ack(nxt));
        trace.nothing();
    }
}

#[test]
fn a_withheld_fin_is_answered_but_not_acknowledged() {
    let mut trace = Trace::established(explicit());
    trace.recv(seg(IRS + 1, ISS + 1).data(500).and(Flags::FIN));
    trace.nothing();
    for _ in 0..3 {
        trace.recv(seg(IRS + 1, ISS + 1).data(500).and(Flags::FIN));
        trace.send(ack(IRS + 1));
        trace.nothing();
    }
}
