//! What each choice of a listener promises for the case that the active node fails, and what it does not.

mod duo;

use duo::{CLIENT_ISN, Duo, QUIET, SERVER_ISN, client, config, listener, segment, server};
use outlive_proxy::{
    config::{Protection, Replication},
    counters::Counter,
};
use outlive_tcp::wire::Flags;

const SYNC: Protection = Protection { replication: Replication::Sync };
const ASYNC: Protection = Protection { replication: Replication::Async };

#[test]
fn a_synchronous_listener_answers_when_the_standby_knows() {
    let mut duo = Duo::paired(config(SYNC));
    let syn = duo.syn(0, 1).remove(0);
    assert_eq!(duo.accept(0, &syn), [], "the standby comes first");
    let out = duo.exchange();
    assert_eq!(out[0].tuple.destination, client(1));
    duo.acknowledge(0, 1);
    duo.kill(0, false);
    let said = duo.say(1, 1, b"hello");
    assert_eq!((said[0].tuple.destination, &said[0].payload[..]), (server(), &b"hello"[..]));
}

#[test]
fn an_asynchronous_listener_waits_for_nobody() {
    let mut duo = Duo::paired(config(ASYNC));
    let syn = duo.syn(0, 1).remove(0);
    assert_eq!(duo.accept(0, &syn)[0].tuple.destination, client(1), "answered at once");
    duo.acknowledge(0, 1);
    assert_eq!(duo.say(0, 1, b"hello")[0].payload, b"hello");
    duo.speak(0);
    duo.kill(0, true);
    // The record arrived with the last words of the dead node.
    let acked =
        segment(server(), syn.tuple.source, SERVER_ISN + 1, Some(syn.seq + 1 + 5), Flags::NONE);
    assert_eq!(duo.send(1, acked)[0].ack, CLIENT_ISN + 1 + 5, "the session goes on");
    assert_eq!(duo.counter(1, Counter::SessionsLost), 0);
}

#[test]
fn a_session_whose_record_was_under_way_is_reset_when_the_quiet_time_is_over() {
    let mut duo = Duo::paired(config(ASYNC));
    let syn = duo.syn(0, 1).remove(0);
    duo.accept(0, &syn);
    duo.acknowledge(0, 1);
    assert_eq!(duo.say(0, 1, b"hello")[0].payload, b"hello");
    duo.kill(0, false);
    assert_eq!(duo.say(1, 1, b"hello"), [], "silence: it might live elsewhere");
    duo.pass(QUIET);
    for _ in 0..3 {
        let reset = duo.say(1, 1, b"hello").remove(0);
        assert_eq!((reset.tuple.destination, reset.flags), (client(1), Flags::RST));
    }
    assert_eq!(duo.counter(1, Counter::SessionsLost), 1, "counted once");
}

/// While the standby may hold the session that had the port before, it would go on with that one.
#[test]
fn a_port_that_is_used_again_waits_for_the_standby_even_there() {
    let mut duo = Duo::paired(config(ASYNC));
    let first = duo.syn(0, 1).remove(0);
    duo.accept(0, &first);
    duo.acknowledge(0, 1);
    duo.exchange();
    // The server resets its connection; the client comes again from the same port.
    let reset = segment(server(), first.tuple.source, SERVER_ISN + 1, None, Flags::RST);
    duo.send(0, reset);
    let anew = segment(client(1), listener(), CLIENT_ISN + 70_000, None, Flags::SYN);
    let syn = duo.send(0, anew).remove(0);
    assert_eq!(duo.accept(0, &syn), [], "the standby does not know of the end");
    assert_eq!(duo.exchange()[0].tuple.destination, client(1));

    // When it does, nothing waits any more.
    let reset = segment(server(), syn.tuple.source, SERVER_ISN + 1, None, Flags::RST);
    duo.send(0, reset);
    duo.exchange();
    let anew = segment(client(2), listener(), CLIENT_ISN, None, Flags::SYN);
    let syn = duo.send(0, anew).remove(0);
    assert_eq!(duo.accept(0, &syn)[0].tuple.destination, client(2));
}
