//! State by state, one segment after the other.

use super::harness::*;
use crate::{
    endpoint::{Acknowledge, AcknowledgeError, Config, Connection, Drop, End, Event, Read, State},
    seq::Seq,
    wire::{Flags, Options},
};

#[test]
fn an_active_open_completes() {
    let mut trace = Trace::new(Connection::connect(opening(), plain()).unwrap());
    let syn = trace.next().unwrap();
    assert_eq!((syn.seq, syn.ack, syn.flags), (Seq(ISS), None, Flags::SYN));
    assert_eq!((syn.options.mss, syn.options.sack_permitted), (Some(1_460), true));
    trace.nothing();
    trace.recv(seg(IRS, ISS + 1).and(Flags::SYN));
    trace.send(ack(IRS + 1).at(ISS + 1));
    trace.nothing();
    assert_eq!(trace.conn.state(), State::Established);
}

#[test]
fn a_passive_open_completes() {
    let syn = bare(IRS, Flags::SYN).options(Options { mss: Some(500), ..Options::default() });
    let now = Trace::established(plain()).now;
    let mut trace = Trace::new(Connection::accept(now, &syn, opening(), plain()).unwrap());
    let syn_ack = trace.next().unwrap();
    assert_eq!(
        (syn_ack.seq, syn_ack.ack, syn_ack.flags),
        (Seq(ISS), Some(Seq(IRS + 1)), Flags::SYN)
    );
    assert!(!syn_ack.options.sack_permitted, "what was not offered must not be answered");
    trace.nothing();
    trace.recv(seg(IRS + 1, ISS + 1).data(100));
    assert_eq!(trace.conn.poll_event(), Some(Event::Established));
    trace.read(100);
    trace.write(700);
    assert_eq!(trace.send(data(ISS + 1, 700).acks(IRS + 101)).segment_size, 500);
}

#[test]
fn a_lost_syn_is_repeated_and_given_up_in_time() {
    let config = Config { connect_timeout: ms(4_000), ..plain() };
    let mut trace = Trace::new(Connection::connect(opening(), config).unwrap());
    trace.next().unwrap();
    trace.timeout(ms(1_000));
    assert_eq!(trace.next().unwrap().flags, Flags::SYN);
    trace.nothing();
    trace.timeout(ms(2_000));
    assert_eq!(trace.next().unwrap().flags, Flags::SYN);
    trace.timeout(ms(1_000));
    trace.nothing();
    trace.ended(End::ConnectTimeout);
}

#[test]
fn a_reset_refuses_only_with_the_right_acknowledgment() {
    let mut trace = Trace::new(Connection::connect(opening(), plain()).unwrap());
    trace.next().unwrap();
    trace.recv_dropped(bare(0, Flags::RST), Drop::DoubtfulReset);
    trace.recv_dropped(seg(0, ISS + 7).and(Flags::RST), Drop::BadAcknowledgment);
    trace.nothing();
    trace.recv(seg(0, ISS + 1).and(Flags::RST));
    trace.ended(End::Refused);
}

#[test]
fn an_old_acknowledgment_of_a_syn_is_reset() {
    let mut trace = Trace::new(Connection::connect(opening(), plain()).unwrap());
    trace.next().unwrap();
    trace.recv_dropped(seg(300, 400), Drop::BadAcknowledgment);
    trace.send(rst(400));
    assert_eq!(trace.conn.state(), State::SynSent);
}

#[test]
fn both_ends_may_open_at_once() {
    let mut trace = Trace::new(Connection::connect(opening(), plain()).unwrap());
    trace.next().unwrap();
    trace.recv(bare(IRS, Flags::SYN));
    assert_eq!(trace.conn.state(), State::SynReceived);
    let syn_ack = trace.next().unwrap();
    assert_eq!(
        (syn_ack.seq, syn_ack.ack, syn_ack.flags),
        (Seq(ISS), Some(Seq(IRS + 1)), Flags::SYN)
    );
    trace.recv(seg(IRS, ISS + 1).and(Flags::SYN));
    assert_eq!(trace.conn.state(), State::Established);
}

#[test]
fn a_lost_syn_ack_is_repeated() {
    let syn = bare(IRS, Flags::SYN);
    let now = Trace::established(plain()).now;
    let mut trace = Trace::new(Connection::accept(now, &syn, opening(), plain()).unwrap());
    trace.next().unwrap();
    trace.recv(syn);
    assert_eq!(trace.next().unwrap().flags, Flags::SYN);
    trace.nothing();
    trace.timeout(ms(1_000));
    assert_eq!(trace.next().unwrap().flags, Flags::SYN);
    trace.recv_dropped(seg(IRS + 1, ISS + 5), Drop::BadAcknowledgment);
    trace.send(rst(ISS + 5));
    trace.recv(seg(IRS + 1, ISS + 1));
    assert_eq!(trace.conn.state(), State::Established);
}

#[test]
fn what_is_written_before_the_handshake_goes_with_its_end() {
    let mut trace = Trace::new(Connection::connect(opening(), plain()).unwrap());
    trace.write(100);
    trace.conn.shutdown();
    trace.next().unwrap();
    trace.nothing();
    trace.recv(seg(IRS, ISS + 1).and(Flags::SYN));
    trace.send(data(ISS + 1, 100).fin());
    assert_eq!(trace.conn.state(), State::FinWait1);
}

#[test]
fn data_is_read_and_acknowledged_on_receipt() {
    let mut trace = Trace::established(plain());
    trace.recv(seg(IRS + 1, ISS + 1).data(500));
    trace.nothing();
    trace.timeout(ms(40));
    trace.send(ack(IRS + 501));
    trace.read(500);
    trace.recv(seg(IRS + 501, ISS + 1).data(500));
    trace.nothing();
    trace.recv(seg(IRS + 1001, ISS + 1).data(500));
    trace.send(ack(IRS + 1501));
    trace.nothing();
}

#[test]
fn nothing_is_acknowledged_before_the_program_says_so() {
    let config = Config { acknowledge: Acknowledge::Explicitly, ..plain() };
    let mut trace = Trace::established(config);
    trace.recv(seg(IRS + 1, ISS + 1).data(500));
    assert_eq!(trace.conn.poll_event(), Some(Event::Readable));
    trace.nothing();
    trace.read(300);
    trace.nothing();
    assert_eq!(trace.conn.acknowledge(301), Err(AcknowledgeError::BeyondRead { outstanding: 300 }));
    assert_eq!(trace.conn.withheld(), 500);
    trace.conn.acknowledge(200).unwrap();
    trace.send(ack(IRS + 201));
    trace.nothing();
    // The sender's timer: it hears what it knows, and no more.
    trace.recv(seg(IRS + 201, ISS + 1).data(300));
    trace.send(ack(IRS + 201));
    trace.write(100);
    trace.send(data(ISS + 1, 100).acks(IRS + 201));
    trace.read(200);
    trace.conn.acknowledge(300).unwrap();
    trace.send(ack(IRS + 501));
}

#[test]
fn the_end_of_the_stream_is_acknowledged_apart() {
    let config = Config { acknowledge: Acknowledge::Explicitly, ..plain() };
    let mut trace = Trace::established(config);
    trace.recv(seg(IRS + 1, ISS + 1).data(500).and(Flags::FIN));
    trace.nothing();
    assert_eq!(trace.conn.state(), State::CloseWait);
    trace.read(500);
    assert_eq!(trace.conn.acknowledge_end(), Err(AcknowledgeError::NotAtEnd));
    assert_eq!(trace.conn.read(1), Read::End);
    assert_eq!(trace.conn.acknowledge_end(), Err(AcknowledgeError::NotAtEnd));
    trace.conn.acknowledge(500).unwrap();
    trace.send(ack(IRS + 501));
    trace.recv(seg(IRS + 501, ISS + 1).and(Flags::FIN));
    trace.send(ack(IRS + 501));
    trace.conn.acknowledge_end().unwrap();
    trace.send(ack(IRS + 502));
    trace.nothing();
}

/// LAST-ACK ends with our FIN's acknowledgment, unless the other end's FIN is still withheld: its
/// acknowledgment must be possible afterwards.
#[test]
fn a_withheld_end_keeps_the_connection() {
    let config = Config { acknowledge: Acknowledge::Explicitly, ..plain() };
    let mut trace = Trace::established(config);
    trace.recv(seg(IRS + 1, ISS + 1).and(Flags::FIN));
    trace.conn.shutdown();
    trace.send(data(ISS + 1, 0).fin().acks(IRS + 1));
    trace.recv(seg(IRS + 1, ISS + 2).and(Flags::FIN));
    trace.send(ack(IRS + 1));
    trace.nothing();
    assert_eq!((trace.conn.state(), trace.conn.poll_timeout()), (State::TimeWait, None));
    assert_eq!(trace.conn.read(1), Read::End);
    trace.conn.acknowledge_end().unwrap();
    trace.send(ack(IRS + 2));
    trace.nothing();
    trace.timeout(ms(60_000));
    trace.ended(End::Finished);
}

#[test]
fn closing_first() {
    let mut trace = Trace::time_wait(plain());
    assert_eq!(trace.conn.read(1), Read::End);
    trace.wait(ms(30_000));
    trace.recv_dropped(seg(IRS + 1, ISS + 2).and(Flags::FIN), Drop::OutsideWindow);
    trace.send(ack(IRS + 2));
    trace.nothing();
    trace.timeout(ms(60_000));
    trace.ended(End::Finished);
}

#[test]
fn closing_second() {
    let mut trace = Trace::last_ack(plain());
    trace.recv(seg(IRS + 2, ISS + 2));
    trace.nothing();
    trace.ended(End::Finished);
}

#[test]
fn closing_at_once() {
    let mut trace = Trace::fin_wait_1(plain());
    trace.recv(seg(IRS + 1, ISS + 1).and(Flags::FIN));
    trace.send(ack(IRS + 2));
    assert_eq!(trace.conn.state(), State::Closing);
    trace.recv(seg(IRS + 2, ISS + 2));
    trace.nothing();
    assert_eq!(trace.conn.state(), State::TimeWait);
}

#[test]
fn a_fin_with_the_acknowledgment_of_ours_goes_to_time_wait() {
    let mut trace = Trace::fin_wait_1(plain());
    trace.recv(seg(IRS + 1, ISS + 2).and(Flags::FIN));
    trace.send(ack(IRS + 2));
    assert_eq!(trace.conn.state(), State::TimeWait);
}

#[test]
fn a_half_closed_connection_still_receives() {
    let mut trace = Trace::fin_wait_2(plain());
    trace.recv(seg(IRS + 1, ISS + 2).data(100));
    trace.read(100);
    trace.nothing();
    trace.timeout(ms(40));
    trace.send(ack(IRS + 101));
    assert!(trace.conn.write(bytes(0, 1)).is_err());
}

#[test]
fn a_half_closed_connection_still_sends() {
    let mut trace = Trace::close_wait(plain());
    trace.write(100);
    trace.send(data(ISS + 1, 100));
    trace.recv(seg(IRS + 2, ISS + 101));
    trace.conn.shutdown();
    trace.send(data(ISS + 101, 0).fin());
    assert_eq!(trace.conn.state(), State::LastAck);
}

#[test]
fn a_lost_fin_is_repeated() {
    let mut trace = Trace::fin_wait_1(Config { sack: false, ..plain() });
    trace.timeout(ms(210));
    trace.send(data(ISS + 1, 0).fin());
    trace.nothing();
    trace.timeout(ms(420));
    trace.send(data(ISS + 1, 0).fin());
    trace.recv(seg(IRS + 1, ISS + 2));
    trace.nothing();
    assert_eq!((trace.conn.state(), trace.conn.poll_timeout()), (State::FinWait2, None));
}

#[test]
fn closing_with_unread_data_resets() {
    let mut trace = Trace::established(plain());
    trace.recv(seg(IRS + 1, ISS + 1).data(100));
    trace.conn.close();
    trace.send(rst(ISS + 1));
    trace.nothing();
    trace.ended(End::Aborted);
}

#[test]
fn data_after_closing_resets() {
    let mut trace = Trace::established(plain());
    trace.conn.close();
    trace.send(data(ISS + 1, 0).fin());
    trace.recv(seg(IRS + 1, ISS + 2));
    trace.nothing();
    assert_eq!(trace.conn.state(), State::FinWait2);
    trace.recv(seg(IRS + 1, ISS + 2).data(100));
    trace.send(rst(ISS + 2));
    trace.ended(End::Aborted);
}

#[test]
fn nobody_waits_in_fin_wait_2_for_ever() {
    let mut trace = Trace::established(plain());
    trace.conn.close();
    trace.send(data(ISS + 1, 0).fin());
    trace.recv(seg(IRS + 1, ISS + 2));
    trace.nothing();
    trace.timeout(ms(60_000));
    trace.nothing();
    trace.ended(End::Finished);
}

#[test]
fn urgent_data_stays_in_its_place_and_is_told_of() {
    let mut trace = Trace::established(plain());
    let mut urgent = seg(IRS + 1, ISS + 1).data(100).and(Flags::URG);
    urgent.urgent = Some(300); // More than this segment has.
    trace.recv(urgent.clone());
    assert!(std::iter::from_fn(|| trace.conn.poll_event()).any(|e| e == Event::Urgent));
    assert_eq!(trace.conn.urgent(), 300);
    trace.read(100);
    assert_eq!(trace.conn.urgent(), 200);
    trace.recv(seg(IRS + 101, ISS + 1).data(300));
    trace.read(300);
    assert_eq!(trace.conn.urgent(), 0);

    trace.write(2_500);
    trace.conn.mark_urgent();
    trace.write(2_000);
    for (start, pointer) in
        [(0, Some(2_500)), (1_000, Some(1_500)), (2_000, Some(500)), (3_000, None)]
    {
        let sent = trace.send(data(ISS + 1 + start, 1_000));
        assert_eq!(sent.urgent, pointer);
        let mut packet = Vec::new();
        sent.emit(&mut packet);
        assert_eq!(u16::from_be_bytes([packet[38], packet[39]]), pointer.unwrap_or(0));
    }
}

/// Even if the window is closed (RFC 9293, MUST-66).
#[test]
fn urgency_is_told_of_with_a_closed_window() {
    let mut trace = Trace::established(Config { receive_buffer: 1_000, ..plain() });
    trace.recv(seg(IRS + 1, ISS + 1).data(1_000));
    trace.nothing();
    trace.timeout(ms(40));
    assert_eq!(trace.send(ack(IRS + 1_001)).window, 0);
    let mut urgent = seg(IRS + 1_001, ISS + 1).data(10).and(Flags::URG);
    urgent.urgent = Some(10);
    trace.recv_dropped(urgent, Drop::NoRoom);
    assert!(std::iter::from_fn(|| trace.conn.poll_event()).any(|e| e == Event::Urgent));
    trace.recv(bare(IRS + 1_001, Flags::RST));
    trace.ended(End::ResetByPeer);
}

#[test]
fn addresses_of_more_than_one_host_have_no_connections() {
    use crate::{
        endpoint::{OpenError, Opening},
        testing::tuple,
    };
    let own = "10.0.0.1:4000";
    for other in ["224.0.0.1:80", "255.255.255.255:80", "0.0.0.0:80", "10.0.0.2:0", "[ff02::1]:80"]
    {
        let refused = |result: Result<Connection, OpenError>| {
            assert_eq!(result.err(), Some(OpenError::Address), "{other}");
        };
        let opening = |tuple| Opening { tuple, ..opening() };
        refused(Connection::connect(opening(tuple(own, other)), plain()));
        for tuple in [tuple(own, other), tuple(other, own)] {
            let mut syn = bare(IRS, Flags::SYN);
            syn.tuple = tuple;
            let now = Trace::established(plain()).now;
            refused(Connection::accept(now, &syn, opening(tuple.reversed()), plain()));
        }
    }
}

#[test]
fn packets_carry_the_hop_limit_and_code_point_that_were_asked_for() {
    let mut trace = Trace::established(Config { hop_limit: 7, dscp: 46, ..plain() });
    trace.write(10);
    let mut packet = Vec::new();
    trace.send(data(ISS + 1, 10)).emit(&mut packet);
    assert_eq!((packet[1], packet[8]), (46 << 2, 7));
}

#[test]
fn an_abort_resets() {
    let mut trace = Trace::established(plain());
    trace.write(100);
    trace.send(data(ISS + 1, 100));
    trace.conn.abort();
    trace.send(rst(ISS + 101));
    trace.nothing();
    trace.ended(End::Aborted);
    assert_eq!(trace.conn.read(1), Read::Closed(End::Aborted));
}

#[test]
fn a_reset_ends_every_state() {
    type Make = fn(Config) -> Trace;
    let states: [(Make, u32, End); 6] = [
        (Trace::established, IRS + 1, End::ResetByPeer),
        (Trace::fin_wait_1, IRS + 1, End::ResetByPeer),
        (Trace::fin_wait_2, IRS + 1, End::ResetByPeer),
        (Trace::close_wait, IRS + 2, End::ResetByPeer),
        (Trace::last_ack, IRS + 2, End::ResetByPeer),
        (Trace::time_wait, IRS + 2, End::Finished),
    ];
    for (make, seq, end) in states {
        let mut trace = make(plain());
        trace.recv(bare(seq, Flags::RST));
        trace.nothing();
        trace.ended(end);
    }
}
