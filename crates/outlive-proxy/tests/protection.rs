//! What each choice of a listener promises for the case that the active node fails, and what it does not.

mod duo;

use duo::{CLIENT_ISN, Duo, QUIET, SERVER_ISN, client, config, listener, segment, server};
use outlive_proxy::{
    config::{Invalid, Protection, ProxyProtocol, Replication, Synchronise, WithoutStandby},
    counters::Counter,
};
use outlive_tcp::{
    segment::Segment,
    wire::{Flags, Options, Timestamps},
};

const SYNC: Protection = Protection {
    replication: Replication::Sync,
    without_standby: WithoutStandby::Serve,
    synchronise: Synchronise::Establishment,
};
const FIRST_DATA: Protection = Protection { synchronise: Synchronise::FirstData, ..SYNC };
const ASYNC: Protection = Protection { replication: Replication::Async, ..SYNC };
const REFUSE: Protection = Protection { without_standby: WithoutStandby::Refuse, ..SYNC };

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

#[test]
fn without_a_standby_new_connections_are_refused_where_it_is_wished() {
    let mut duo = Duo::paired(config(REFUSE));
    let syn = duo.syn(0, 1).remove(0);
    duo.accept(0, &syn);
    duo.exchange();
    duo.acknowledge(0, 1);
    // Client 2 is held, and client 3's session waits, when the standby dies.
    let held = duo.syn(0, 2).remove(0);
    let waiting = duo.syn(0, 3).remove(0);
    assert_eq!(duo.accept(0, &waiting), []);
    duo.kill(1, false);

    assert_eq!(duo.say(0, 1, b"hello")[0].payload, b"hello", "what is established goes on");
    let refused = duo.syn(0, 4).remove(0);
    assert_eq!((refused.tuple.destination, refused.flags), (client(4), Flags::RST | Flags::ACK));
    assert_eq!(refused.ack, CLIENT_ISN + 1);
    let out = duo.accept(0, &held);
    assert_eq!((out[0].tuple.destination, out[0].flags), (server(), Flags::RST));
    assert_eq!((out[1].tuple.destination, out[1].flags), (client(2), Flags::RST | Flags::ACK));
    let out = duo.syn(0, 3);
    assert_eq!((out[0].tuple.destination, out[0].flags), (client(3), Flags::RST | Flags::ACK));
    assert_eq!(duo.counter(0, Counter::NoStandby), 3);
    assert_eq!(duo.sessions(0), [0, 1, 0]);

    // A standby that is being told of the sessions is none yet.
    duo.restart(1);
    duo.connect();
    duo.speak(0);
    assert_eq!(duo.syn(0, 5)[0].flags, Flags::RST | Flags::ACK);
    duo.exchange();
    assert!(duo.is_paired());
    assert_eq!(duo.syn(0, 5)[0].tuple.destination, server());
    assert_eq!(duo.sessions(1).iter().sum::<usize>(), 1);
}

#[test]
fn by_default_a_lone_node_serves_and_the_return_of_a_standby_is_not_noticed() {
    let mut duo = Duo::paired(config(SYNC));
    duo.kill(1, false);
    let syn = duo.syn(0, 1).remove(0);
    assert_eq!(duo.accept(0, &syn)[0].tuple.destination, client(1), "nobody to wait for");
    duo.restart(1);
    duo.connect();
    duo.acknowledge(0, 1);
    duo.exchange();
    assert_eq!(duo.say(0, 1, b"hello")[0].payload, b"hello");
    duo.kill(0, false);
    assert_eq!(duo.say(1, 1, b"hello")[0].payload, b"hello", "told when it came");
}

#[test]
fn a_refusal_that_could_never_end_is_a_mistake() {
    let mut lone = config(REFUSE);
    lone.pair.enabled = false;
    assert_eq!(lone.validate(), Err(Invalid::RefusesAlone("web".into())));
    let both = config(Protection { replication: Replication::Async, ..REFUSE });
    assert_eq!(both.validate(), Err(Invalid::RefusesAsync("web".into())));
}

#[test]
fn a_connection_without_data_costs_the_standby_nothing() {
    let mut duo = Duo::paired(config(FIRST_DATA));
    let syn = duo.syn(0, 1).remove(0);
    assert_eq!(duo.accept(0, &syn)[0].tuple.destination, client(1), "answered at once");
    assert_eq!(duo.acknowledge(0, 1)[0].tuple.destination, server());
    let reset = segment(client(1), listener(), CLIENT_ISN + 1, None, Flags::RST);
    assert_eq!(duo.send(0, reset)[0].tuple.destination, server(), "as a health check would");
    assert_eq!(duo.speak(0), 0, "not a word");
    duo.exchange();
    assert_eq!(duo.sessions(1), [0, 0, 0]);
}

#[test]
fn first_data_waits_for_the_standby_and_is_not_lost_meanwhile() {
    let mut duo = Duo::paired(config(FIRST_DATA));
    let syn = duo.syn(0, 1).remove(0);
    duo.accept(0, &syn);
    duo.acknowledge(0, 1);
    assert_eq!(duo.say(0, 1, b"hel"), [], "the standby comes first");
    assert_eq!(duo.say(0, 1, b"hello"), []);
    // The server speaks at the same time.
    let banner = Segment {
        payload: b"welcome",
        ..segment(server(), syn.tuple.source, SERVER_ISN + 1, Some(syn.seq + 1), Flags::PSH)
    };
    assert_eq!(duo.send(0, banner), []);
    let out = duo.exchange();
    assert_eq!((out[0].tuple.destination, &out[0].payload[..]), (server(), &b"hello"[..]));
    assert_eq!((out[0].seq, out[0].ack), (syn.seq + 1, SERVER_ISN + 1), "nothing acknowledged");
    assert_eq!((out[1].tuple.destination, &out[1].payload[..]), (client(1), &b"welcome"[..]));
    assert_eq!((out[1].seq, out[1].ack), (SERVER_ISN + 1, CLIENT_ISN + 1));
    duo.kill(0, false);
    assert_eq!(duo.say(1, 1, b"hello")[0].payload, b"hello", "the session goes on");
}

#[test]
fn a_connection_without_data_is_reset_after_a_takeover() {
    let mut duo = Duo::paired(config(FIRST_DATA));
    let syn = duo.syn(0, 1).remove(0);
    duo.accept(0, &syn);
    duo.acknowledge(0, 1);
    duo.kill(0, true);
    assert_eq!(duo.say(1, 1, b"hello"), []);
    duo.pass(QUIET);
    assert_eq!(duo.say(1, 1, b"hello")[0].flags, Flags::RST);
    assert_eq!(duo.counter(1, Counter::SessionsLost), 1);
}

/// Servers that are told of the client wait for that before they speak: it cannot wait for data.
#[test]
fn a_header_is_data() {
    let mut config = config(FIRST_DATA);
    config.pools[0].proxy_protocol = Some(ProxyProtocol::V2);
    let mut duo = Duo::paired(config);
    let syn = duo.syn(0, 1).remove(0);
    assert_eq!(duo.accept(0, &syn)[0].tuple.destination, client(1));
    assert_eq!(duo.acknowledge(0, 1), [], "the standby comes first");
    let out = duo.exchange();
    assert_eq!((out.len(), out[0].payload.len(), out[0].seq), (1, 28, syn.seq + 1));
    assert_eq!(duo.sessions(1).iter().sum::<usize>(), 1);
}

#[test]
fn a_close_is_data() {
    let mut duo = Duo::paired(config(FIRST_DATA));
    let syn = duo.syn(0, 1).remove(0);
    duo.accept(0, &syn);
    duo.acknowledge(0, 1);
    let ack = Some(SERVER_ISN + 1);
    let close = || segment(client(1), listener(), CLIENT_ISN + 1, ack, Flags::FIN);
    assert_eq!(duo.send(0, close()), []);
    assert_eq!(duo.exchange()[0].flags, Flags::FIN | Flags::ACK);
}

/// Its sessions are not among those that a new standby is told of, either.
#[test]
fn a_new_standby_hears_of_a_connection_when_there_is_data() {
    let mut duo = Duo::apart(config(FIRST_DATA));
    let syn = duo.syn(0, 1).remove(0);
    duo.accept(0, &syn);
    duo.acknowledge(0, 1);
    duo.connect();
    duo.exchange();
    assert!(duo.is_paired());
    assert_eq!(duo.sessions(1), [0, 0, 0]);
    assert_eq!(duo.say(0, 1, b"hello"), []);
    assert_eq!(duo.exchange()[0].payload, b"hello");
    assert_eq!(duo.sessions(1).iter().sum::<usize>(), 1);
}

/// An end that waits for long before it speaks must not take that time for the way to the other end and back:
/// what is echoed with its first data is the last that it was told.
#[test]
fn first_data_carries_the_timestamps_that_it_came_with() {
    let mut duo = Duo::paired(config(FIRST_DATA));
    let stamped = |value, echo| Options {
        timestamps: Some(Timestamps { value, echo }),
        mss: Some(1_460),
        ..Options::default()
    };
    let from_client = |seq, ack, flags, options| Segment {
        options,
        ..segment(client(1), listener(), seq, ack, flags)
    };
    let syn = duo.send(0, from_client(CLIENT_ISN, None, Flags::SYN, stamped(100, 0))).remove(0);
    let shift = syn.timestamps.unwrap().value.wrapping_sub(100);
    let from_server = |seq, ack, flags, options| Segment {
        options,
        ..segment(server(), syn.tuple.source, seq, ack, flags)
    };
    let (ack, echo) = (Some(syn.seq + 1), shift.wrapping_add(100));
    duo.send(0, from_server(SERVER_ISN, ack, Flags::SYN, stamped(7_000, echo)));
    let ack = Some(SERVER_ISN + 1);
    duo.send(0, from_client(CLIENT_ISN + 1, ack, Flags::NONE, stamped(101, 7_000)));

    // An hour later, after keep-alives.
    let hour = 3_600_000;
    let said = from_client(CLIENT_ISN + 1, ack, Flags::PSH, stamped(hour, 7_000 + hour));
    assert_eq!(duo.send(0, Segment { payload: b"hello", ..said }), []);
    let (ack, echo) = (Some(syn.seq + 1), shift.wrapping_add(hour));
    let said = from_server(SERVER_ISN + 1, ack, Flags::PSH, stamped(7_001 + hour, echo));
    assert_eq!(duo.send(0, Segment { payload: b"welcome", ..said }), []);
    let out = duo.exchange();
    let expected = Timestamps { value: shift.wrapping_add(hour), echo: 7_000 + hour };
    assert_eq!(out[0].timestamps, Some(expected));
    assert_eq!(out[1].timestamps, Some(Timestamps { value: 7_001 + hour, echo: hour }));
}
