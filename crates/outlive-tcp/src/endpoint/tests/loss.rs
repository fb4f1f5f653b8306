//! Loss and its repair, one acknowledgment after the other.

use super::harness::*;
use crate::{
    endpoint::{Config, End, Event, State},
    wire::{Flags, Options},
};

/// Segments of 1,000 bytes, as many as the initial window has room for.
fn flight(config: Config, segments: u32) -> Trace {
    let mut trace = Trace::established(Config { max_super_segment: 1, nagle: false, ..config });
    trace.write(1_000 * segments);
    for i in 0..segments {
        trace.send(data(ISS + 1 + 1_000 * i, 1_000));
    }
    trace.nothing();
    trace
}

/// The end of the first `n` segments.
fn after(n: u32) -> u32 {
    ISS + 1 + 1_000 * n
}

fn without_sack(segments: u32) -> Trace {
    flight(Config { sack: false, ..plain() }, segments)
}

#[test]
fn three_segments_beyond_a_hole_show_a_loss() {
    let mut trace = flight(plain(), 10);
    trace.wait(ms(10));
    trace.recv(seg(IRS + 1, after(1)));
    trace.recv(seg(IRS + 1, after(1)).sack(&[(after(2), after(3))]));
    trace.nothing();
    trace.recv(seg(IRS + 1, after(1)).sack(&[(after(2), after(4))]));
    trace.nothing();
    trace.recv(seg(IRS + 1, after(1)).sack(&[(after(2), after(5))]));
    trace.send(data(after(1), 1_000));
    trace.nothing();
    // Nothing else is repeated, and the end of the repair is not a burst.
    trace.wait(ms(10));
    trace.recv(seg(IRS + 1, after(10)));
    trace.nothing();
    assert!(trace.conn.statistics().congestion_window < 10_000);
}

#[test]
fn two_holes_are_repaired_in_one_round_trip() {
    let mut trace = flight(plain(), 10);
    trace.wait(ms(10));
    let blocks = [(after(7), after(10)), (after(1), after(6))];
    trace.recv(seg(IRS + 1, after(0)).sack(&blocks));
    trace.send(data(after(0), 1_000));
    trace.send(data(after(6), 1_000));
    trace.nothing();
}

/// The later acknowledgment came first; what the earlier one reports is news all the same.
#[test]
fn an_acknowledgment_that_was_overtaken_still_shows_a_loss() {
    let mut trace = flight(plain(), 10);
    trace.wait(ms(10));
    trace.recv(seg(IRS + 1, after(4)));
    trace.recv(seg(IRS + 1, after(3)).sack(&[(after(5), after(8))]).window(0));
    trace.send(data(after(4), 1_000));
    trace.nothing();
    assert_ne!(trace.conn.statistics().send_window, 0, "its window is old");
}

#[test]
fn a_segment_that_is_only_late_is_not_repeated() {
    let mut trace = flight(plain(), 4);
    trace.wait(ms(10));
    trace.recv(seg(IRS + 1, after(0)).sack(&[(after(1), after(2))]));
    trace.nothing();
    trace.wait(ms(1));
    trace.recv(seg(IRS + 1, after(4)));
    trace.nothing();
    assert_eq!(trace.conn.statistics().slow_start_threshold, u32::MAX);
}

#[test]
fn one_segment_beyond_a_hole_shows_a_loss_after_a_while() {
    let mut trace = flight(plain(), 2);
    trace.wait(ms(10));
    trace.recv(seg(IRS + 1, after(0)).sack(&[(after(1), after(2))]));
    trace.nothing();
    // A quarter of the least round trip.
    trace.timeout(std::time::Duration::from_micros(2_500));
    trace.send(data(after(0), 1_000));
    trace.nothing();
}

/// On a path that was seen to reorder, segments may be late by a quarter of the round trip, and by
/// more once that was too little (RFC 8985, section 6.2).
#[test]
fn a_path_that_reorders_is_given_time() {
    let quarter = std::time::Duration::from_micros(2_500);
    let mut trace = flight(plain(), 10);
    trace.wait(ms(10));
    trace.recv(seg(IRS + 1, after(0)).sack(&[(after(1), after(2))]));
    trace.recv(seg(IRS + 1, after(2)));
    trace.nothing();
    trace.recv(seg(IRS + 1, after(2)).sack(&[(after(3), after(6))]));
    trace.nothing();
    trace.timeout(quarter);
    trace.send(data(after(2), 1_000));
    // It was only late: the copy is reported.
    trace.recv(seg(IRS + 1, after(6)));
    trace.recv(seg(IRS + 1, after(6)).sack(&[(after(2), after(3))]));
    trace.write(6_000);
    (10..16).for_each(|i| drop(trace.send(data(after(i), 1_000))));
    trace.nothing();
    trace.wait(ms(10));
    trace.recv(seg(IRS + 1, after(10)));
    trace.recv(seg(IRS + 1, after(10)).sack(&[(after(11), after(15))]));
    trace.nothing();
    let wait = trace.conn.poll_timeout().unwrap().since(trace.now);
    assert!(wait >= 2 * quarter, "{wait:?}");
}

#[test]
fn a_lost_tail_is_probed_for() {
    let mut trace = flight(plain(), 5);
    trace.timeout(ms(20));
    trace.send(data(after(4), 1_000));
    trace.nothing();
    // The probe got through, the rest did not: no timer is needed to find out.
    trace.wait(ms(10));
    trace.recv(seg(IRS + 1, after(1)).sack(&[(after(4), after(5))]));
    // As much goes out as has arrived.
    trace.send(data(after(1), 1_000));
    trace.send(data(after(2), 1_000));
    trace.nothing();
    trace.wait(ms(10));
    trace.recv(seg(IRS + 1, after(3)).sack(&[(after(4), after(5))]));
    trace.send(data(after(3), 1_000));
}

#[test]
fn a_probe_that_repairs_the_loss_still_reduces_the_window() {
    let mut trace = flight(plain(), 5);
    trace.timeout(ms(20));
    trace.send(data(after(4), 1_000));
    trace.write(1_000);
    trace.send(data(after(5), 1_000));
    trace.recv(seg(IRS + 1, after(6)));
    assert_eq!(trace.conn.statistics().slow_start_threshold, 7_000);
}

#[test]
fn a_needless_probe_does_not() {
    let mut trace = flight(plain(), 5);
    trace.timeout(ms(20));
    trace.send(data(after(4), 1_000));
    trace.recv(seg(IRS + 1, after(5)));
    trace.recv(seg(IRS + 1, after(5)).sack(&[(after(4), after(5))]));
    assert_eq!(trace.conn.statistics().slow_start_threshold, u32::MAX);
}

#[test]
fn the_timer_repeats_the_head_and_backs_off() {
    let mut trace = without_sack(4);
    trace.timeout(ms(210));
    trace.send(data(after(0), 1_000));
    trace.nothing();
    assert_eq!(trace.conn.statistics().congestion_window, 1_000);
    trace.timeout(ms(420));
    trace.send(data(after(0), 1_000));
    trace.nothing();
    trace.recv(seg(IRS + 1, after(1)));
    // Slow start from one segment.
    trace.send(data(after(1), 1_000));
    trace.send(data(after(2), 1_000));
    trace.nothing();
}

/// R1 of RFC 9293: the program is told.
#[test]
fn the_program_hears_of_a_suspect_path() {
    let mut trace = without_sack(4);
    for wait in [210, 420] {
        trace.timeout(ms(wait));
        trace.send(data(after(0), 1_000));
        trace.nothing();
    }
    assert_eq!(trace.conn.poll_event(), None);
    trace.timeout(ms(840));
    assert_eq!(trace.conn.poll_event(), Some(Event::PathSuspect));
}

#[test]
fn without_sack_three_duplicates_show_a_loss_and_a_partial_acknowledgment_the_next() {
    let mut trace = without_sack(8);
    trace.wait(ms(10));
    trace.recv(seg(IRS + 1, after(0)));
    trace.recv(seg(IRS + 1, after(0)));
    trace.nothing();
    trace.recv(seg(IRS + 1, after(0)));
    trace.send(data(after(0), 1_000));
    trace.nothing();
    trace.wait(ms(10));
    trace.recv(seg(IRS + 1, after(2)));
    trace.send(data(after(2), 1_000));
    trace.nothing();
    trace.recv(seg(IRS + 1, after(8)));
    assert_eq!(trace.conn.unacknowledged(), 0);
}

#[test]
fn a_window_update_or_data_is_no_duplicate() {
    let mut trace = without_sack(8);
    for i in 0..4 {
        let start = IRS + 1 + u32::from(i) * 10;
        trace.recv(seg(start, after(0)).window(20_001 + i));
        trace.recv(seg(start, after(0)).window(20_001 + i).data(10));
    }
    while let Some(transmit) = trace.next() {
        assert_eq!(transmit.payload_len(), 0);
    }
}

/// The other end had everything: the timestamp says that its acknowledgment is of the first copy.
#[test]
fn a_needless_timeout_is_undone() {
    let config = Config { timestamps: true, max_super_segment: 1, ..plain() };
    let stamps = |value, echo| Some(crate::wire::Timestamps { value, echo });
    let options = Options { mss: Some(1_012), timestamps: stamps(1, 0), ..Options::default() };
    let mut trace = Trace::established_with(config, options);
    trace.write(5_000);
    let sent = trace.send(data(after(0), 1_000)).options.timestamps.unwrap().value;
    (1..5).for_each(|i| drop(trace.send(data(after(i), 1_000))));
    trace.nothing();
    trace.timeout(ms(210));
    trace.send(data(after(0), 1_000));
    assert_eq!(trace.conn.statistics().congestion_window, 1_000);
    trace.recv(seg(IRS + 1, after(1)).stamp(2, sent));
    trace.nothing();
    let statistics = trace.conn.statistics();
    assert_eq!((statistics.congestion_window, statistics.slow_start_threshold), (10_000, u32::MAX));
    // The first acknowledgment may have been lost: what this one took is the timer's doing.
    assert_eq!(statistics.smoothed_rtt, Some(ms(10)));
}

/// The same by duplicate reports.
#[test]
fn a_needless_repair_is_undone() {
    let mut trace = flight(plain(), 10);
    trace.wait(ms(10));
    trace.recv(seg(IRS + 1, after(0)).sack(&[(after(1), after(4))]));
    trace.send(data(after(0), 1_000));
    trace.recv(seg(IRS + 1, after(10)));
    assert!(trace.conn.statistics().congestion_window < 10_000);
    trace.recv(seg(IRS + 1, after(10)).sack(&[(after(0), after(1))]));
    assert!(trace.conn.statistics().congestion_window >= 10_000);
    assert_eq!(trace.conn.statistics().slow_start_threshold, u32::MAX);
}

/// The other end has dropped what it had selectively acknowledged, as it may: it is sent again.
#[test]
fn reneging_is_survived() {
    let mut trace = flight(plain(), 6);
    trace.wait(ms(10));
    trace.recv(seg(IRS + 1, after(0)).sack(&[(after(1), after(6))]));
    trace.send(data(after(0), 1_000));
    trace.nothing();
    trace.wait(ms(10));
    trace.recv(seg(IRS + 1, after(1)));
    trace.nothing();
    trace.timeout(trace.conn.statistics().retransmission_timeout);
    trace.send(data(after(1), 1_000));
    trace.recv(seg(IRS + 1, after(2)));
    trace.send(data(after(2), 1_000));
    trace.send(data(after(3), 1_000));
}

#[test]
fn nobody_waits_longer_than_the_user_timeout() {
    let config = Config { user_timeout: ms(1_000), sack: false, ..plain() };
    let mut trace = flight(config, 1);
    trace.timeout(ms(210));
    trace.send(data(after(0), 1_000));
    trace.nothing();
    trace.timeout(ms(420));
    trace.send(data(after(0), 1_000));
    trace.nothing();
    trace.timeout(ms(370));
    trace.nothing();
    trace.ended(End::UserTimeout(ms(1_000)));
}

/// A lone segment's probe would come later than the timer: it comes in its place, and says nothing
/// about congestion (RFC 8985, section 7.2).
#[test]
fn the_first_timeout_is_a_probe() {
    let mut trace = flight(plain(), 1);
    trace.timeout(ms(210));
    trace.send(data(after(0), 1_000));
    trace.nothing();
    assert_eq!(trace.conn.statistics().congestion_window, 10_000);
    trace.timeout(ms(210));
    trace.send(data(after(0), 1_000));
    trace.nothing();
    assert_eq!(trace.conn.statistics().congestion_window, 1_000);
    trace.timeout(ms(420));
    trace.send(data(after(0), 1_000));
}

/// What has no bytes has none to push.
#[test]
fn a_fin_alone_is_not_pushed() {
    let mut trace = Trace::established(Config { sack: false, ..plain() });
    trace.conn.shutdown();
    let fin = data(ISS + 1, 0).fin();
    assert!(!trace.send(fin.clone()).flags.contains(Flags::PSH));
    trace.nothing();
    trace.timeout(ms(210));
    assert!(!trace.send(fin).flags.contains(Flags::PSH));
}

#[test]
fn the_user_timeout_may_change_while_something_waits() {
    let mut trace = flight(Config { sack: false, ..plain() }, 1);
    trace.timeout(ms(210));
    trace.send(data(after(0), 1_000));
    trace.nothing();
    trace.conn.set_user_timeout(ms(300));
    trace.timeout(ms(90));
    trace.ended(End::UserTimeout(ms(300)));
}

#[test]
fn a_closed_window_is_probed_and_outlives_the_user_timeout() {
    let config = Config { user_timeout: ms(2_000), ..plain() };
    let mut trace = Trace::established(config);
    trace.recv(seg(IRS + 1, ISS + 1).window(0));
    trace.write(3_000);
    trace.nothing();
    let mut wait = 210;
    for _ in 0..8 {
        trace.timeout(ms(wait));
        trace.send(data(ISS + 1, 1));
        trace.nothing();
        trace.recv(seg(IRS + 1, ISS + 1).window(0));
        trace.nothing();
        wait *= 2;
    }
    // It opens: everything goes at once, but for the small end (Nagle), and the probe is no loss.
    trace.recv(seg(IRS + 1, ISS + 1).window(10_000));
    let sent: usize = std::iter::from_fn(|| trace.next()).map(|t| t.payload_len()).sum();
    assert_eq!(sent, 2_001);
    assert_eq!(trace.conn.statistics().slow_start_threshold, u32::MAX);
    assert_eq!(trace.conn.state(), State::Established);
}

#[test]
fn a_probe_that_is_taken_counts() {
    let mut trace = Trace::established(plain());
    trace.recv(seg(IRS + 1, ISS + 1).window(0));
    trace.write(3_000);
    trace.nothing();
    trace.timeout(ms(210));
    trace.send(data(ISS + 1, 1));
    trace.recv(seg(IRS + 1, ISS + 2).window(10_000));
    assert_eq!(trace.send(data(ISS + 2, 2_999)).segment_size, 1_000);
}

#[test]
fn a_fin_goes_through_a_closed_window() {
    let mut trace = Trace::established(plain());
    trace.recv(seg(IRS + 1, ISS + 1).window(0));
    trace.conn.shutdown();
    trace.nothing();
    trace.timeout(ms(210));
    trace.send(data(ISS + 1, 0).fin());
}

/// A window that moved left leaves what is in flight beyond it: no abort, no storm (RFC 9293,
/// section 3.8.6).
#[test]
fn a_shrunk_window_is_survived() {
    let mut trace = flight(plain(), 6);
    trace.wait(ms(10));
    trace.recv(seg(IRS + 1, after(1)).window(1_000));
    trace.nothing();
    trace.wait(ms(5));
    trace.recv(seg(IRS + 1, after(6)).window(5_000));
    assert_eq!(trace.conn.unacknowledged(), 0);
}

#[test]
fn silly_windows_are_not_used() {
    let mut trace = Trace::established(plain());
    trace.recv(seg(IRS + 1, ISS + 1).window(500));
    trace.write(3_000);
    trace.nothing();
    // The override timer.
    trace.timeout(ms(210));
    trace.send(data(ISS + 1, 500));
    trace.recv(seg(IRS + 1, ISS + 501).window(1_200));
    trace.send(data(ISS + 501, 1_000));
}

#[test]
fn small_segments_wait_for_each_other() {
    let mut trace = Trace::established(plain());
    trace.write(100);
    trace.send(data(ISS + 1, 100));
    trace.write(100);
    trace.nothing();
    trace.write(1_000);
    trace.send(data(ISS + 101, 1_000));
    trace.nothing();
    trace.recv(seg(IRS + 1, ISS + 101));
    trace.send(data(ISS + 1_101, 100));
    trace.write(100);
    trace.nothing();
    trace.conn.set_nagle(false);
    trace.send(data(ISS + 1_201, 100));

    let mut trace = Trace::established(Config { nagle: false, ..plain() });
    for i in 0..3 {
        trace.write(100);
        trace.send(data(ISS + 1 + 100 * i, 100));
    }
}

#[test]
fn push_marks_the_end_of_what_was_written() {
    let mut trace = Trace::established(Config { max_super_segment: 1, ..plain() });
    trace.write(2_500);
    assert!(!trace.send(data(ISS + 1, 1_000)).flags.contains(Flags::PSH));
    assert!(!trace.send(data(ISS + 1_001, 1_000)).flags.contains(Flags::PSH));
    assert!(trace.send(data(ISS + 2_001, 500)).flags.contains(Flags::PSH));
}

#[test]
fn a_super_segment_goes_out_whole_and_shares_what_was_written() {
    let mut trace = Trace::established(plain());
    let written = bytes(ISS + 1, 10_000);
    trace.conn.write(written.clone()).unwrap();
    let sent = trace.send(data(ISS + 1, 10_000));
    assert_eq!((sent.segment_size, sent.payload.len()), (1_000, 1));
    assert_eq!(sent.payload[0].as_ptr(), written.as_ptr());
}
