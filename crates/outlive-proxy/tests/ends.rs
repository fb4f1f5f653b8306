//! How sessions end: by both ends, by a reset, for want of either; and what a reset that was not meant does not
//! end.

mod bench;

use std::time::Duration;

use bench::{Bench, CLIENT_ISN, IDLE, SERVER_ISN, client, config, listener, segment};
use outlive_proxy::{counters::Counter, status::Survival};
use outlive_tcp::{segment::Segment, wire::Flags};

#[test]
fn an_idle_session_is_forgotten_without_a_word() {
    let mut bench = Bench::new(config());
    let out = bench.establish(1);
    bench.pass(IDLE / 2);
    // A sign of life: half of the time more.
    let alive = segment(client(1), listener(), CLIENT_ISN + 1, Some(SERVER_ISN + 1), Flags::NONE);
    assert_eq!(bench.send(alive)[0].to(), out.to());
    assert!(bench.pass(IDLE * 3 / 4).is_empty());
    assert_eq!(bench.sessions(), [0, 1, 0]);
    assert!(bench.pass(IDLE / 2).is_empty(), "its ends may think otherwise");
    assert_eq!((bench.sessions(), bench.counter(Counter::SessionsIdle)), ([0, 0, 0], 1));
}

#[test]
fn a_client_that_never_completes_the_handshake_costs_its_server_nothing() {
    let mut bench = Bench::new(config());
    let syn = bench.syn(1).remove(0);
    bench.accept(&syn);
    assert_eq!(bench.sessions(), [1, 0, 0]);
    let out = bench.pass(Duration::from_secs(61));
    assert_eq!((out[0].to(), out[0].seq), (syn.to(), syn.seq + 1));
    assert!(out[0].flags.contains(Flags::RST));
    assert_eq!(bench.sessions(), [0, 0, 0]);
}

/// The client does not know the server's reset for one of its own connection attempt unless its SYN is
/// acknowledged.
#[test]
fn a_server_that_resets_before_the_client_has_answered_refuses_it() {
    let mut bench = Bench::new(config());
    let syn = bench.syn(1).remove(0);
    bench.accept(&syn);
    let reset = segment(syn.to(), syn.tuple.source, SERVER_ISN + 1, None, Flags::RST);
    let out = bench.send(reset);
    assert_eq!((out[0].to(), out[0].flags), (client(1), Flags::RST | Flags::ACK));
    assert_eq!(out[0].ack, CLIENT_ISN + 1);
    assert_eq!(bench.sessions(), [0, 0, 1]);
}

/// A forged reset may have fooled the node and not the end, or have been lost: the session that goes on is open
/// again, and the one that does not is forgotten.
#[test]
fn a_session_that_goes_on_after_a_reset_is_revived() {
    let mut bench = Bench::new(config());
    for number in [1, 2] {
        bench.establish(number);
        let reset = segment(client(number), listener(), CLIENT_ISN + 1, None, Flags::RST);
        assert_eq!(bench.send(reset).len(), 1, "passed on to the end, which judges it");
    }
    assert_eq!(bench.sessions(), [0, 0, 2]);
    let data = Segment {
        payload: b"still here",
        ..segment(client(1), listener(), CLIENT_ISN + 1, Some(SERVER_ISN + 1), Flags::PSH)
    };
    for _ in 0..5 {
        bench.pass(Duration::from_secs(2));
        assert_eq!(bench.send(data)[0].payload, b"still here");
    }
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.sessions(), [0, 1, 0]);
    assert_eq!(bench.send(data).len(), 1);
}

#[test]
fn both_fins_acknowledged_end_a_session() {
    let mut bench = Bench::new(config());
    let out = bench.establish(1);
    let (server, own) = (out.to(), out.tuple.source);
    let from_client = |seq, ack, flags| segment(client(1), listener(), seq, Some(ack), flags);
    let from_server = |seq, ack, flags| segment(server, own, seq, Some(ack), flags);
    let (c, s) = (CLIENT_ISN + 1, SERVER_ISN + 1);
    bench.send(from_client(c, s, Flags::FIN));
    bench.send(from_server(s, out.seq + 1, Flags::FIN));
    assert_eq!(bench.sessions(), [0, 1, 0], "the server's FIN is not acknowledged");
    // A FIN is not acknowledged by one who stands elsewhere.
    bench.send(from_client(c + (1 << 30), s + 1, Flags::NONE));
    assert_eq!(bench.sessions(), [0, 1, 0]);
    bench.send(from_client(c + 1, s + 1, Flags::NONE));
    assert_eq!(bench.sessions(), [0, 0, 1]);
    bench.pass(Duration::from_secs(61));
    assert_eq!((bench.sessions(), bench.counter(Counter::SessionsFinished)), ([0, 0, 0], 1));
    assert_eq!(bench.node.status(bench.now).survival(), Survival::NoPeer);
}
