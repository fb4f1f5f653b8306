//! A connection that moves to another node, at every event of a transfer.

use std::time::Duration;

use proptest::prelude::*;
use siphasher::sip::SipHasher24;

use super::{
    harness::*,
    world::{Host, LinkConfig, Program, Work, World, pair},
};
use crate::{
    endpoint::{
        Acknowledge, Config, Connection, Contents, End, Event, Positions, Read, RestoreError,
        RestoreOptions, State, WriteError,
    },
    seq::Seq,
    wire::{Flags, Options, Timestamps},
};

/// How a node is replaced.
#[derive(Clone, Copy, Debug)]
struct Replacement {
    contents: Contents,
    /// From what was captured when the program last acknowledged, wrote or ended; otherwise from
    /// what the connection is when it dies.
    last_transaction: bool,
    /// What happens between the death and the replacement.
    outage: Duration,
}

/// The program of the new node: its state is that of the capture.
fn restore(world: &mut World<Host>, i: usize, how: &Replacement) {
    let old = world.ends[i].program();
    let (captured, bytes) = if how.last_transaction {
        old.transaction.clone().expect("nothing was captured yet")
    } else {
        (world.now, old.conn.capture(world.now, how.contents).unwrap())
    };
    let (config, work) = (old.conn.config, old.work);
    let options = RestoreOptions { age: world.now.since(captured), sent_beyond: 0 };
    let conn = Connection::restore(world.now, &bytes, config, &options).unwrap();
    world.ends[i] = Host::Connected(Box::new(Program::resumed(world.now, conn, work)));
}

const SIZE: u64 = 40_000;

fn world(seed: u64, loss: u32, contents: Option<Contents>) -> World<Host> {
    let config = Config { receive_buffer: 20_000, withheld_limit: 30_000, ..Config::default() };
    let link = LinkConfig {
        delay: ms(5),
        loss,
        jitter: ms(u64::from(loss / 10)),
        ..LinkConfig::default()
    };
    let work = |streams| Work { send: SIZE, streams, commit: ms(3), ..Work::default() };
    let mut world = pair(seed, link, (config, work((1, 2))), (config, work((2, 1))));
    if let Host::Connected(program) = &mut world.ends[0] {
        program.captures = contents;
    }
    world
}

/// Runs up to event number `at`, replaces one end, and goes on to the end. False if the transfer was
/// over before.
fn replaced_at(at: u64, seed: u64, loss: u32, how: &Replacement) -> bool {
    let mut world = world(seed, loss, how.last_transaction.then_some(how.contents));
    world.flush(0);
    println!("event {at}, seed {seed}, {how:?}"); // Shown if it fails.
    while world.steps < at {
        if !world.step() {
            return false;
        }
    }
    let program = world.ends[0].program();
    let capturable = program.conn.state().is_synchronized();
    if program.is_done() || program.conn.state() == State::Closed {
        return false;
    }
    if capturable && (!how.last_transaction || program.transaction.is_some()) {
        world.outage(0, how.outage);
        restore(&mut world, 0, how);
        world.flush(0);
    }
    let done = world.run(Duration::from_secs(600), |world| world.ends.iter().all(Host::is_done));
    for i in 0..2 {
        let conn = &world.ends[i].program().conn;
        assert!(done, "event {at}, seed {seed}, {how:?}: {conn:#?}");
        world.ends[i].program().assert_complete(SIZE);
    }
    true
}

fn at_every_event(seed: u64, loss: u32, how: Replacement) {
    let events = (1..).take_while(|&at| replaced_at(at, seed, loss, &how)).count();
    assert!(events > 50, "only {events} events");
}

#[test]
fn a_connection_moves_with_its_program() {
    for outage in [ms(0), ms(400)] {
        let how = Replacement { contents: Contents::EVERYTHING, last_transaction: false, outage };
        at_every_event(1, 0, how);
        at_every_event(2, 50, how);
    }
}

#[test]
fn a_standby_goes_on_from_the_last_transaction() {
    for outage in [ms(1), ms(2_000)] {
        let how = Replacement { contents: Contents::COMMITTED, last_transaction: true, outage };
        at_every_event(3, 0, how);
        at_every_event(4, 50, how);
    }
}

#[test]
fn a_standby_computes_the_output_again() {
    let how = Replacement { contents: Contents::NUMBERS, last_transaction: true, outage: ms(100) };
    at_every_event(5, 0, how);
    at_every_event(6, 50, how);
}

fn explicit() -> Config {
    Config { acknowledge: Acknowledge::Explicitly, ..plain() }
}

/// The connection as another node has it `later`.
fn moved(trace: Trace, contents: Contents, later: Duration) -> Trace {
    let bytes = trace.conn.capture(trace.now, contents).unwrap();
    let now = trace.now + later;
    let options = RestoreOptions { age: later, sent_beyond: 0 };
    let conn = Connection::restore(now, &bytes, trace.conn.config, &options).unwrap();
    Trace { now, conn }
}

#[test]
fn a_capture_of_a_restored_connection_is_the_same() {
    let mut trace = Trace::established(explicit());
    trace.recv(seg(IRS + 1, ISS + 1).data(500));
    trace.read(300);
    trace.write(700);
    trace.send(data(ISS + 1, 700));
    let bytes = trace.conn.capture(trace.now, Contents::EVERYTHING).unwrap();
    let options = RestoreOptions::default();
    let conn = Connection::restore(trace.now, &bytes, trace.conn.config, &options).unwrap();
    assert_eq!(conn.positions(), trace.conn.positions());
    let mut again = conn.capture(trace.now, Contents::EVERYTHING).unwrap();
    // All but the clock, which goes on, the right edges, and with them the checksum.
    assert_eq!(again.len(), bytes.len());
    for range in [56..60, 72..80, 124..132, bytes.len() - 8..bytes.len()] {
        again[range.clone()].copy_from_slice(&bytes[range]);
    }
    assert_eq!(again, bytes);
}

/// The probe lies below RCV.NXT of the other end, whose answer says what it has; the rest is sent
/// again without waiting for a timer.
#[test]
fn what_was_in_flight_is_asked_after_and_sent_again() {
    let mut trace = Trace::established(plain());
    trace.write(5_000);
    trace.send(data(ISS + 1, 5_000));
    let mut trace = moved(trace, Contents::COMMITTED, ms(300));
    let probe = trace.next().unwrap();
    assert_eq!((probe.seq, probe.payload_len(), probe.ack), (Seq(ISS), 1, Some(Seq(IRS + 1))));
    trace.nothing();
    trace.recv(seg(IRS + 1, ISS + 3_001));
    trace.send(data(ISS + 3_001, 2_000));
    trace.nothing();
    trace.recv(seg(IRS + 1, ISS + 5_001));
    // Neither of the acknowledgments measured anything: nobody knows when that was sent.
    assert_eq!(trace.conn.statistics().smoothed_rtt, Some(ms(10)));
}

#[test]
fn echoes_from_before_the_restore_measure_nothing() {
    let stamps = |value, echo| Some(Timestamps { value, echo });
    let config = Config { timestamps: true, ..plain() };
    let options = Options { mss: Some(1_000), timestamps: stamps(1, 0), ..Options::default() };
    let mut trace = Trace::established_with(config, options);
    trace.write(500);
    let sent = trace.send(data(ISS + 1, 500)).options.timestamps.unwrap().value;
    let mut trace = moved(trace, Contents::COMMITTED, ms(600_000));
    trace.next().unwrap();
    trace.recv(seg(IRS + 1, ISS + 501).stamp(1, sent));
    assert_eq!(trace.conn.statistics().smoothed_rtt, Some(ms(10)));
    trace.write(500);
    let later = trace.send(data(ISS + 501, 500)).options.timestamps.unwrap().value;
    assert!(later.wrapping_sub(sent) > 600_000, "the clock ran back");
}

/// What was received and not acknowledged is asked for again: the program's state is that of its
/// last acknowledgment.
#[test]
fn what_was_not_acknowledged_comes_again() {
    let mut trace = Trace::established(explicit());
    trace.recv(seg(IRS + 1, ISS + 1).data(1_000));
    trace.read(1_000);
    trace.conn.acknowledge(400).unwrap();
    trace.send(ack(IRS + 401));
    trace.recv(seg(IRS + 1_001, ISS + 1).data(500).and(Flags::FIN));
    assert_eq!(trace.conn.state(), State::CloseWait);
    let mut trace = moved(trace, Contents::COMMITTED, ms(300));
    assert_eq!(trace.conn.state(), State::Established);
    let probe = trace.next().unwrap();
    assert_eq!(probe.ack, Some(Seq(IRS + 401)));
    trace.recv(seg(IRS + 401, ISS + 1).data(1_100).and(Flags::FIN));
    trace.read(1_100);
    assert_eq!(trace.conn.read(1), Read::End);
}

#[test]
fn the_right_edge_stays_where_it_was() {
    let config = Config { receive_buffer: 2_000, withheld_limit: 6_000, ..explicit() };
    let mut trace = Trace::established(config);
    trace.recv(seg(IRS + 1, ISS + 1).data(1_500));
    let committed = trace.conn.capture(trace.now, Contents::COMMITTED).unwrap();
    trace.read(1_500);
    let update = trace.send(ack(IRS + 1));
    let edge = IRS + 1 + u32::from(update.window);
    let options = RestoreOptions { age: ms(100), sent_beyond: 0 };
    let conn = Connection::restore(trace.now, &committed, config, &options).unwrap();
    let mut trace = Trace { conn, ..trace };
    let probe = trace.next().unwrap();
    assert!(IRS + 1 + u32::from(probe.window) >= edge, "{probe:?}");
    trace.recv(seg(edge - 100, ISS + 1).data(100));
}

/// Sent by the former node, not held here, and acknowledged: the program's next bytes are taken for
/// those.
#[test]
fn output_that_was_acknowledged_is_not_sent_again() {
    let mut trace = Trace::established(plain());
    trace.write(3_000);
    trace.send(data(ISS + 1, 3_000));
    let mut trace = moved(trace, Contents::NUMBERS, ms(300));
    trace.next().unwrap();
    assert_eq!(trace.conn.positions().written, Seq(ISS + 1));
    trace.recv(seg(IRS + 1, ISS + 2_001));
    assert_eq!(trace.conn.poll_event(), Some(Event::OutputSkipped(2_000)));
    assert_eq!(trace.conn.write(bytes(ISS + 1, 1_500)), Ok(1_500));
    trace.nothing();
    assert_eq!(trace.conn.write(bytes(ISS + 1_501, 1_500)), Ok(1_500));
    trace.send(data(ISS + 2_001, 1_000));
}

#[test]
fn an_end_that_was_acknowledged_is_not_sent_again() {
    let mut trace = Trace::established(plain());
    trace.write(1_000);
    trace.conn.shutdown();
    trace.send(data(ISS + 1, 1_000).fin());
    let mut trace = moved(trace, Contents::NUMBERS, ms(300));
    assert_eq!(trace.conn.state(), State::Established);
    trace.next().unwrap();
    trace.recv(seg(IRS + 1, ISS + 1_002));
    assert_eq!(trace.conn.write(bytes(ISS + 1, 1_000)), Ok(1_000));
    trace.conn.shutdown();
    trace.nothing();
    assert_eq!(trace.conn.state(), State::FinWait2);
}

/// The second node has died, too, after its program had ended the stream again.
#[test]
fn an_end_that_was_repeated_can_move_again() {
    let ended_again = || {
        let mut trace = Trace::established(plain());
        trace.conn.shutdown();
        trace.send(data(ISS + 1, 0).fin());
        let mut trace = moved(trace, Contents::NUMBERS, ms(300));
        trace.next().unwrap();
        trace.conn.shutdown();
        trace
    };
    for contents in [Contents::EVERYTHING, Contents::COMMITTED] {
        let mut trace = moved(ended_again(), contents, ms(300));
        assert_eq!(trace.conn.state(), State::FinWait1);
        trace.next().unwrap();
        trace.recv(seg(IRS + 1, ISS + 2));
        assert_eq!(trace.conn.state(), State::FinWait2);
    }
    let mut trace = moved(ended_again(), Contents::NUMBERS, ms(300));
    assert_eq!(trace.conn.state(), State::Established);
    trace.next().unwrap();
    trace.conn.shutdown();
    trace.recv(seg(IRS + 1, ISS + 2));
    assert_eq!(trace.conn.state(), State::FinWait2);
}

/// Another output than the one that the other end has part of is never spliced to it.
#[test]
fn output_that_differs_in_length_ends_the_connection() {
    let before = || {
        let mut trace = Trace::established(plain());
        trace.write(1_000);
        trace.conn.shutdown();
        trace.send(data(ISS + 1, 1_000).fin());
        let mut trace = moved(trace, Contents::NUMBERS, ms(300));
        trace.next().unwrap();
        trace
    };
    let mut shorter = before();
    assert_eq!(shorter.conn.write(bytes(ISS + 1, 999)), Ok(999));
    shorter.conn.shutdown();
    assert_eq!(shorter.conn.end(), Some(End::OutputDiverged));
    shorter.send(rst(ISS + 1));

    let mut longer = before();
    assert_eq!(longer.conn.write(bytes(ISS + 1, 1_001)), Err(WriteError::Closed));
    assert_eq!(longer.conn.end(), Some(End::OutputDiverged));

    let mut ended = Trace::established(plain());
    ended.write(1_000);
    ended.send(data(ISS + 1, 1_000));
    let mut ended = moved(ended, Contents::NUMBERS, ms(300));
    ended.next().unwrap();
    ended.recv(seg(IRS + 1, ISS + 501));
    assert_eq!(ended.conn.write(bytes(ISS + 1, 400)), Ok(400));
    ended.conn.shutdown();
    assert_eq!(ended.conn.end(), Some(End::OutputDiverged));
}

/// Once the program says that everything is written again, more of it cannot be acknowledged.
#[test]
fn an_acknowledgment_beyond_complete_output_ends_the_connection() {
    let before = |acknowledged: u32| {
        let mut trace = Trace::established(plain());
        trace.write(1_000);
        trace.send(data(ISS + 1, 1_000));
        let mut trace = moved(trace, Contents::NUMBERS, ms(300));
        trace.next().unwrap();
        if acknowledged > 0 {
            trace.recv(seg(IRS + 1, ISS + 1 + acknowledged));
        }
        assert_eq!(trace.conn.write(bytes(ISS + 1, 600)), Ok(600));
        if acknowledged == 0 {
            trace.send(data(ISS + 1, 600));
        }
        trace.conn.output_is_complete();
        trace
    };
    // It had said so before the program was ready.
    let mut early = before(700);
    assert_eq!(early.conn.end(), Some(End::OutputDiverged));
    early.send(rst(ISS + 701));

    // It says so afterwards: what follows the old output has not left yet.
    let mut late = before(0);
    assert_eq!(late.conn.write(bytes(ISS + 601, 300)), Ok(300));
    late.nothing();
    late.recv(seg(IRS + 1, ISS + 701));
    assert_eq!(late.conn.end(), Some(End::OutputDiverged));
    late.send(rst(ISS + 601));

    // It has no more than that: all is well, and the new output leaves.
    let mut same = before(0);
    assert_eq!(same.conn.write(bytes(ISS + 601, 300)), Ok(300));
    same.nothing();
    same.recv(seg(IRS + 1, ISS + 601));
    same.send(data(ISS + 601, 300));
    same.recv(seg(IRS + 1, ISS + 901));
    assert_eq!(same.conn.end(), None);
}

/// The answer that new output waits for was lost: it is asked for again, and nothing new leaves.
#[test]
fn new_output_waits_until_the_other_end_has_said_where_it_is() {
    let mut trace = Trace::established(plain());
    trace.write(1_000);
    trace.send(data(ISS + 1, 1_000));
    trace.recv(seg(IRS + 1, ISS + 1_001));
    let mut trace = moved(trace, Contents::NUMBERS, ms(300));
    trace.conn.output_is_complete();
    assert_eq!(trace.conn.write(bytes(ISS + 1_001, 100)), Ok(100));
    for _ in 0..3 {
        let probe = trace.next().unwrap();
        assert!(probe.seq.before(Seq(ISS + 1_001)), "{probe:?}");
        trace.nothing();
        trace.now = trace.conn.poll_timeout().expect("it asks again");
        trace.conn.handle_timeout(trace.now);
    }
    trace.next().unwrap();
    trace.recv(seg(IRS + 1, ISS + 1_001));
    trace.send(data(ISS + 1_001, 100));
}

/// The other end has more than the new node knows: a reset by what that knows means nothing to it.
#[test]
fn a_reset_that_may_have_missed_is_repeated_where_the_other_end_stands() {
    let aborted = || {
        let trace = Trace::established(plain());
        let mut trace = moved(trace, Contents::NUMBERS, ms(300));
        trace.conn.abort();
        trace.send(rst(ISS + 1));
        assert_eq!(trace.next().unwrap().seq, Seq(ISS), "it is asked");
        trace.nothing();
        trace
    };
    let mut trace = aborted();
    // The question or its answer was lost.
    trace.now = trace.conn.poll_timeout().expect("it asks again");
    trace.conn.handle_timeout(trace.now);
    assert_eq!(trace.next().unwrap().seq, Seq(ISS));
    assert!(trace.conn.is_parting());
    trace.recv(seg(IRS + 1, ISS + 1_001));
    trace.send(rst(ISS + 1_001));
    assert!(!trace.conn.is_parting() && trace.conn.poll_timeout().is_none());

    // The reset had arrived: there is nobody any more.
    let mut trace = aborted();
    trace.recv(bare(ISS, Flags::RST));
    trace.nothing();
    assert!(!trace.conn.is_parting());

    // Nobody answers.
    let mut trace = aborted();
    let mut questions = 0;
    while let Some(at) = trace.conn.poll_timeout() {
        trace.now = at;
        trace.conn.handle_timeout(at);
        questions += usize::from(trace.next().is_some());
    }
    assert!((5..10).contains(&questions) && !trace.conn.is_parting());
}

/// Acknowledgments count up to the right edge, for so far the former node may have sent.
#[test]
fn acknowledgments_are_believed_up_to_the_right_edge() {
    let trace = Trace::established(plain());
    let mut trace = moved(trace, Contents::NUMBERS, ms(300));
    trace.next().unwrap();
    trace.recv_dropped(seg(IRS + 1, ISS + 1 + 20_001), crate::endpoint::Drop::BadAcknowledgment);
    trace.send(ack(IRS + 1));
    trace.recv(seg(IRS + 1, ISS + 1 + 20_000));
    assert_eq!(trace.conn.poll_event(), Some(Event::OutputSkipped(20_000)));
}

/// But not beyond the end of the stream, if that is known.
#[test]
fn acknowledgments_are_not_believed_beyond_the_end() {
    let mut trace = Trace::established(plain());
    trace.write(1_000);
    trace.conn.shutdown();
    trace.send(data(ISS + 1, 1_000).fin());
    let mut trace = moved(trace, Contents::NUMBERS, ms(300));
    trace.next().unwrap();
    trace.recv_dropped(seg(IRS + 1, ISS + 1_003), crate::endpoint::Drop::BadAcknowledgment);
    trace.send(ack(IRS + 1));
    trace.recv(seg(IRS + 1, ISS + 1_002));
    assert_eq!(trace.conn.poll_event(), Some(Event::OutputSkipped(1_001)));
    // The next node knows it, too.
    let mut trace = moved(trace, Contents::NUMBERS, ms(300));
    trace.next().unwrap();
    assert_eq!(trace.conn.write(bytes(ISS + 1, 1_000)), Ok(1_000));
    trace.conn.shutdown();
    assert_eq!(trace.conn.state(), State::FinWait2);
}

#[test]
fn every_state_is_restored() {
    type Make = fn(Config) -> Trace;
    let states: [Make; 6] = [
        Trace::established,
        Trace::fin_wait_1,
        Trace::fin_wait_2,
        Trace::close_wait,
        Trace::last_ack,
        Trace::time_wait,
    ];
    for make in states {
        for contents in [Contents::EVERYTHING, Contents::COMMITTED] {
            let trace = make(plain());
            let (state, positions) = (trace.conn.state(), trace.conn.positions());
            let moved = moved(trace, contents, ms(10));
            assert_eq!((moved.conn.state(), moved.conn.positions()), (state, positions));
        }
    }
    let opening = Connection::connect(opening(), plain()).unwrap();
    assert!(opening.capture(Trace::established(plain()).now, Contents::EVERYTHING).is_err());
}

fn some_capture() -> Vec<u8> {
    let mut trace = Trace::established(explicit());
    trace.recv(seg(IRS + 1, ISS + 1).data(5));
    trace.write(7);
    trace.send(data(ISS + 1, 7));
    trace.conn.capture(trace.now, Contents::EVERYTHING).unwrap()
}

fn restored(bytes: &[u8]) -> Result<Positions, RestoreError> {
    let now = Trace::established(plain()).now;
    Connection::restore(now, bytes, plain(), &RestoreOptions::default()).map(|c| c.positions())
}

#[test]
fn damage_is_refused() {
    let bytes = some_capture();
    assert!(restored(&bytes).is_ok());
    for i in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[i] ^= 0x10;
        assert!(restored(&damaged).is_err(), "byte {i}");
        assert!(restored(&bytes[..i]).is_err(), "{i} bytes");
    }
    let mut newer = bytes.clone();
    newer[5] = 2;
    assert_eq!(restored(&newer), Err(RestoreError::Version(2)));
    let mut longer = bytes;
    longer.push(0);
    assert_eq!(restored(&longer), Err(RestoreError::Length));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Numbers that no connection wrote, under a right checksum: refused, or a connection like
    /// any other, as far as its invariants and the absence of panics go.
    #[test]
    fn no_state_breaks_a_node(
        changes in proptest::collection::vec((6usize..148, any::<u8>()), 0..6),
        flips in proptest::collection::vec((64usize..148, 0u32..8), 0..4),
        acks in proptest::collection::vec((0u32..5, 0u32..40_000, 0u32..40_000, any::<bool>()), 1..12),
    ) {
        let mut bytes = some_capture();
        changes.iter().filter(|(at, _)| !(8..12).contains(at)).for_each(|&(at, byte)| bytes[at] = byte);
        flips.iter().for_each(|&(at, bit)| bytes[at] ^= 1 << bit);
        let body = bytes.len() - 8;
        let sum = SipHasher24::new().hash(&bytes[..body]).to_be_bytes();
        bytes[body..].copy_from_slice(&sum);
        let mut now = Trace::established(plain()).now;
        let options = RestoreOptions { age: ms(5), sent_beyond: 1_000 };
        let Ok(mut conn) = Connection::restore(now, &bytes, explicit(), &options) else { return Ok(()) };
        for (what, a, b, fin) in acks {
            let at = conn.positions();
            match what {
                0 => { let _ = conn.write(vec![0; a as usize].into()); }
                1 => { conn.read(a as usize); let _ = conn.acknowledge(b % 3_000); }
                2 => if fin { conn.shutdown() } else { let _ = conn.acknowledge_end(); },
                3 => {
                    now = now + ms(a.into());
                    conn.handle_timeout(now);
                }
                _ => {
                    let (seq, ack) = (at.received + a % 3_000, at.sent_acknowledged + b);
                    let mut segment = seg(seq.0, ack.0).data(b % 2_000);
                    segment.tuple = conn.tuple().reversed();
                    if fin {
                        segment = segment.and(Flags::FIN);
                    }
                    if conn.negotiated().timestamps {
                        segment = segment.stamp(a, b);
                    }
                    conn.handle_segment(now, &segment);
                }
            }
            for i in 0.. {
                if conn.poll_transmit(now).is_none() {
                    break;
                }
                prop_assert!(i < 2_000, "it sends without end");
            }
        }
        let _ = conn.capture(now, Contents::COMMITTED);
    }
}

/// The layout of `docs/endpoint-state.md`, written out: a version that changes it needs another
/// number.
#[test]
fn the_layout_is_the_documented_one() {
    let hex: String = some_capture().iter().map(|byte| format!("{byte:02x}")).collect();
    let golden = include_str!("golden.txt").split_whitespace().collect::<String>();
    assert_eq!(hex, golden);
}
