//! A node alone, driven packet by packet: what strangers who forge packets can do to it (nothing that lasts),
//! and what it makes of numbers that have gone once round.

mod bench;

use std::time::Duration;

use bench::{Bench, CLIENT_ISN, SERVER_ISN, client, config, end, listener, segment};
use outlive_proxy::{
    config::{Config, Limits, ProxyProtocol},
    counters::Counter,
};
use outlive_tcp::{
    segment::Segment,
    seq::Seq,
    wire::{Endpoint, Flags},
};

fn server() -> Endpoint {
    end(21, 80)
}

/// A node with one server, which wants to be told of the client in that way, if in any.
fn bench(proxy_protocol: Option<ProxyProtocol>, limits: Limits) -> Bench {
    let mut config = Config { limits, ..config() };
    config.pools[0].servers.truncate(1);
    config.pools[0].proxy_protocol = proxy_protocol;
    Bench::new(config)
}

/// A reset within the window that is not the next byte is challenged by its receiver, not obeyed; so the
/// session must not be given to the next SYN that claims its ports.
#[test]
fn a_reset_that_is_not_next_leaves_no_opening_for_a_syn() {
    let mut bench = bench(None, Limits::default());
    let to_server = bench.establish(1);
    for offset in [1, 500, 19_999] {
        let forged = segment(client(1), listener(), CLIENT_ISN + 1 + offset, None, Flags::RST);
        assert_eq!(bench.send(forged).len(), 1, "passed on to the server, which challenges it");
        let from_server =
            segment(server(), to_server.tuple.source, SERVER_ISN + 1 + offset, None, Flags::RST);
        assert_eq!(bench.send(from_server).len(), 1, "likewise");
    }
    assert_eq!(bench.sessions(), [0, 1, 0]);
    assert_eq!(bench.counter(Counter::ResetOutside), 6);
    let forged = segment(client(1), listener(), Seq(5_000_000), None, Flags::SYN);
    let out = bench.send(forged);
    assert_eq!((out[0].tuple.destination, out[0].flags), (client(1), Flags::ACK), "a challenge");
    let said = Segment {
        payload: b"hello",
        ..segment(client(1), listener(), CLIENT_ISN + 1, Some(out[0].seq), Flags::PSH)
    };
    assert_eq!(bench.send(said)[0].tuple, to_server.tuple, "the session goes on");
    assert_eq!(bench.sessions(), [0, 1, 0]);

    // The end of what was sent is where a sender's own reset stands.
    let real = segment(client(1), listener(), CLIENT_ISN + 6, None, Flags::RST);
    assert_eq!(bench.send(real).len(), 1);
    assert_eq!(bench.sessions(), [0, 0, 1]);
}

/// Clients of a direct listener that have been answered and say nothing are half-open, too: beyond the limit
/// a stranger has to show that it exists before it costs a session, and a port towards the server.
#[test]
fn answered_clients_that_say_nothing_count_as_half_open() {
    let mut bench = bench(None, Limits { half_open: 3, ..Limits::default() });
    for number in 0..3 {
        let syn = bench.syn(number).remove(0);
        let syn_ack = bench.accept(&syn).remove(0);
        assert_eq!(syn_ack.tuple.destination, client(number));
    }
    assert_eq!(bench.sessions(), [3, 0, 0]);
    for number in 3..20 {
        let out = bench.syn(number);
        assert_eq!(out[0].tuple.destination, client(number), "challenged, the server left alone");
    }
    assert_eq!(bench.sessions(), [3, 0, 0]);
    assert_eq!(bench.counter(Counter::CookiesSent), 17);

    // One that is there after all makes room for another.
    let syn_ack = bench.syn(0).remove(0);
    let ack = Some(syn_ack.seq + 1);
    bench.send(segment(client(0), listener(), CLIENT_ISN + 1, ack, Flags::NONE));
    assert_eq!(bench.sessions(), [2, 1, 0]);
    let syn = bench.syn(30).remove(0);
    assert_eq!(bench.accept(&syn)[0].tuple.destination, client(30));
    assert_eq!(bench.syn(31)[0].tuple.destination, client(31));

    // And so do those that never were, when their time is over.
    bench.pass(Duration::from_secs(61));
    assert_eq!(bench.sessions(), [0, 1, 0]);
    assert_eq!(bench.syn(32)[0].tuple.destination, server());
}

/// The ACK and the first segment of a client that was challenged are lost, and its second segment comes: nothing
/// proves that it belongs to a handshake, but to reset it would end a connection that lives.
#[test]
fn a_challenged_client_whose_first_segment_was_lost_is_not_reset() {
    let mut bench = bench(None, Limits { half_open: 1, ..Limits::default() });
    let syn = bench.syn(0).remove(0);
    bench.accept(&syn);
    let second = |number, ack| Segment {
        payload: b"later",
        ..segment(client(number), listener(), CLIENT_ISN + 1_401, Some(ack), Flags::PSH)
    };
    assert_eq!(bench.send(second(1, CLIENT_ISN)).len(), 1, "nobody was challenged: a reset");
    let challenge = bench.syn(2).remove(0);
    assert_eq!(challenge.tuple.destination, client(2));
    assert!(bench.send(second(2, challenge.seq + 1)).is_empty());
    let first = segment(client(2), listener(), CLIENT_ISN + 1, Some(challenge.seq + 1), Flags::PSH);
    let out = bench.send(Segment { payload: b"first", ..first });
    assert_eq!(
        out[0].tuple.destination,
        server(),
        "its first segment, repeated, opens the session"
    );
}

/// The bytes of an inserted header are not the client's: acknowledgments of them say nothing to it. Once they
/// are acknowledged they are history; four gigabytes later the same numbers stand for the client's own bytes,
/// and to raise an acknowledgment then would acknowledge what the server does not have.
#[test]
fn an_acknowledgment_is_raised_only_while_the_inserted_header_is_not_acknowledged() {
    let mut bench = bench(Some(ProxyProtocol::V2), Limits::default());
    let syn = bench.syn(1).remove(0);
    let syn_ack = bench.accept(&syn).remove(0);
    let ack = Some(syn_ack.seq + 1);
    let out = bench.send(segment(client(1), listener(), CLIENT_ISN + 1, ack, Flags::NONE));
    let [header, client_data] = [out[0].seq, out[1].seq];
    let len = client_data.distance(header);
    assert_eq!(len, 28, "the header of version 2 for IPv4");

    let own = out[0].tuple.source;
    let mut acknowledge = |upto: Seq| {
        bench.send(segment(server(), own, SERVER_ISN + 1, Some(upto), Flags::NONE))[0].ack
    };
    assert_eq!(acknowledge(header + 5), CLIENT_ISN + 1);
    assert_eq!(acknowledge(client_data), CLIENT_ISN + 1);
    assert_eq!(acknowledge(header + 5), CLIENT_ISN + 1 + 5 - len, "as if 4 GiB had passed");
}

/// Whoever is not on the path can guess an acknowledgment in a large window. Its segment stands in the wrong
/// place, so no end looks at it; were the node to learn from it, the header that it repeats in the client's name
/// would acknowledge what the client does not have.
#[test]
fn nothing_is_learnt_from_a_segment_outside_the_window() {
    let mut bench = bench(Some(ProxyProtocol::V2), Limits::default());
    let syn = bench.syn(1).remove(0);
    let syn_ack = bench.accept(&syn).remove(0);
    let ack = Some(syn_ack.seq + 1);
    let first = bench.send(segment(client(1), listener(), CLIENT_ISN + 1, ack, Flags::NONE));
    assert_eq!(first[0].ack, SERVER_ISN + 1, "the header");
    let far = CLIENT_ISN + (1 << 30);
    bench.send(segment(client(1), listener(), far, Some(syn_ack.seq + 65), Flags::NONE));

    let repeated = bench.pass(Duration::from_millis(300)).remove(0);
    assert_eq!((repeated.seq, repeated.ack), (first[0].seq, SERVER_ISN + 1));
}
