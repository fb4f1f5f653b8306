//! What becomes of a connection whose server does not answer, refuses, or is not found; and what strangers can do
//! to it while it is being opened.

mod bench;

use std::time::Duration;

use bench::{
    Bench, CLIENT_ISN, CONNECT_TIMEOUT, Out, SERVER_ISN, client, config, end, inspecting, listener,
    segment,
};
use outlive_proxy::{
    config::{Config, Limits, NamePattern, PoolId, Route},
    counters::Counter,
};
use outlive_tcp::{
    segment::Segment,
    seq::Seq,
    wire::{Flags, Options},
};

/// The server refuses the SYN that it was sent.
fn refuse(bench: &mut Bench, syn: &Out) -> Vec<Out> {
    let (from, to) = (syn.tuple.destination, syn.tuple.source);
    bench.send(segment(from, to, Seq(0), Some(syn.seq + 1), Flags::RST))
}

/// The client completes the handshake with a cookie, with its first data.
fn say(bench: &mut Bench, number: u16, syn_ack: &Out, payload: &[u8]) -> Vec<Out> {
    let ack = Some(syn_ack.seq + 1);
    let plain = segment(client(number), listener(), CLIENT_ISN + 1, ack, Flags::PSH);
    bench.send(Segment { payload, ..plain })
}

#[test]
fn servers_that_refuse_are_passed_over_and_the_client_hears_of_it_when_none_is_left() {
    let mut bench = Bench::new(config());
    let first = bench.syn(1).remove(0);
    // Somebody who does not know the sequence number refuses in vain.
    let wrong = Out { seq: first.seq + 1, ..first.clone() };
    assert!(refuse(&mut bench, &wrong).is_empty());

    let second = refuse(&mut bench, &first).remove(0);
    assert_ne!(second.to(), first.to(), "the other server");
    let told = refuse(&mut bench, &second).remove(0);
    assert_eq!((told.to(), told.flags), (client(1), Flags::RST | Flags::ACK));
    assert_eq!(told.ack, CLIENT_ISN + 1, "a reset that a client in SYN-SENT believes");
    assert_eq!(bench.counter(Counter::ServerRefused), 2);
    assert_eq!((bench.counter(Counter::NoServer), bench.openings()), (1, 0));
}

#[test]
fn a_silent_server_is_asked_again_and_then_passed_over() {
    let mut bench = Bench::new(config());
    let first = bench.syn(1).remove(0);
    let said = bench.pass(CONNECT_TIMEOUT + Duration::from_millis(20));
    let again = said.iter().filter(|out| **out == first).count();
    assert!(again >= 3, "{said:?}");
    let last = said.last().unwrap();
    assert_eq!(last.flags, Flags::SYN);
    assert_ne!(last.to(), first.to());
    assert_eq!(bench.counter(Counter::ServerTimeout), 1);
    assert_eq!(bench.accept(last)[0].to(), client(1));
}

/// After a crash of the node the server may still have a connection with these ports: it challenges the SYN.
#[test]
fn an_older_connection_at_the_server_is_ended_and_the_syn_repeated() {
    let mut bench = Bench::new(config());
    let syn = bench.syn(1).remove(0);
    let challenge = segment(syn.to(), syn.tuple.source, Seq(5), Some(Seq(77)), Flags::NONE);
    let out = bench.send(challenge);
    assert_eq!((out[0].flags, out[0].seq), (Flags::RST, Seq(77)));
    assert_eq!(out[1], syn);
    assert_eq!(bench.send(challenge).len(), 2);
    assert_eq!(bench.send(challenge).len(), 1, "not for ever");
}

#[test]
fn a_client_that_gives_up_is_forgotten_if_it_is_the_client() {
    for inspects in [false, true] {
        let mut bench = Bench::new(if inspects { inspecting() } else { config() });
        let out = bench.syn(1).remove(0);
        if inspects {
            say(&mut bench, 1, &out, b"GET / HT");
        }
        assert_eq!(bench.openings(), 1);
        let reset = |seq| segment(client(1), listener(), seq, None, Flags::RST);
        assert!(bench.send(reset(CLIENT_ISN + 100_000)).is_empty());
        assert_eq!((bench.openings(), bench.counter(Counter::ResetOutside)), (1, 1));
        assert!(bench.send(reset(CLIENT_ISN + 1)).is_empty());
        assert_eq!(bench.openings(), 0);
    }
}

fn routed(default_pool: Option<PoolId>) -> Config {
    let mut config = inspecting();
    let host = NamePattern::parse("known.example");
    config.listeners[0].routes = vec![Route { host, pool: PoolId(1), ..Route::default() }];
    config.listeners[0].default_pool = default_pool;
    let mut pool = config.pools[0].clone();
    pool.name = "known".into();
    pool.servers.truncate(1);
    pool.servers[0].address = end(31, 80);
    config.pools.push(pool);
    config
}

#[test]
fn a_request_goes_where_its_host_belongs_or_nowhere() {
    let mut bench = Bench::new(routed(None));
    let syn_ack = bench.syn(1).remove(0);
    let out = say(&mut bench, 1, &syn_ack, b"GET / HTTP/1.1\r\nHost: known.example\r\n\r\n");
    assert_eq!((out[0].to(), out[0].flags), (end(31, 80), Flags::SYN));

    let syn_ack = bench.syn(2).remove(0);
    let out = say(&mut bench, 2, &syn_ack, b"GET / HTTP/1.1\r\nHost: unknown\r\n\r\n");
    assert_eq!((out[0].to(), out[0].flags), (client(2), Flags::RST));
    assert_eq!(out[0].seq, syn_ack.seq + 1, "where the client's stream stands");
    assert_eq!((bench.counter(Counter::NoRoute), bench.openings()), (1, 1));
}

#[test]
fn what_is_not_complete_in_time_or_within_the_limit_goes_to_the_default() {
    let mut bench = Bench::new(routed(Some(PoolId(0))));
    let syn_ack = bench.syn(1).remove(0);
    assert!(say(&mut bench, 1, &syn_ack, b"GET / HTTP/1.1\r\nHo").is_empty());
    let out = bench.pass(Duration::from_millis(1_010));
    assert_eq!((out[0].to().addr, out[0].flags), (end(21, 80).addr, Flags::SYN));

    let syn_ack = bench.syn(2).remove(0);
    let endless = [b"GET /".as_slice(), &[b'a'; 300]].concat();
    let out = say(&mut bench, 2, &syn_ack, &endless);
    assert_eq!((out[0].to().addr, out[0].flags), (end(22, 80).addr, Flags::SYN));
    // All of it is the server's, however little was looked at.
    let out = bench.accept(&out[0].clone());
    assert_eq!(out[0].payload, endless);
}

#[test]
fn a_direct_client_that_had_to_show_that_it_exists_is_served() {
    let limits = Limits { half_open: 1, ..Limits::default() };
    let mut bench = Bench::new(Config { limits, ..config() });
    bench.syn(1);
    let syn_ack = bench.syn(2).remove(0);
    assert_eq!(syn_ack.to(), client(2), "challenged");
    assert_eq!(bench.counter(Counter::CookiesSent), 1);
    let syn = say(&mut bench, 2, &syn_ack, b"hello").remove(0);
    assert_eq!(syn.flags, Flags::SYN);
    assert_eq!(bench.accept(&syn)[0].payload, b"hello");
    assert_eq!(bench.sessions(), [0, 1, 0]);
}

#[test]
fn a_full_table_takes_no_more_until_something_is_over() {
    let limits = Limits { sessions: 1, ..Limits::default() };
    let mut bench = Bench::new(Config { limits, ..config() });
    bench.establish(1);
    let syn = bench.syn(2).remove(0);
    assert!(bench.accept(&syn).is_empty());
    assert_eq!(bench.counter(Counter::DropTableFull), 1);
    assert_eq!(bench.sessions(), [0, 1, 0]);

    bench.send(segment(client(1), listener(), CLIENT_ISN + 1, None, Flags::RST));
    assert_eq!(bench.sessions(), [0, 0, 1]);
    assert_eq!(bench.accept(&syn)[0].to(), client(2), "the one that is over gives way");
    assert_eq!(bench.counter(Counter::SessionsRecycled), 1);
}

#[test]
fn openings_are_limited() {
    let limits = Limits { openings: 2, ..Limits::default() };
    let mut bench = Bench::new(Config { limits, ..inspecting() });
    for number in 0..5 {
        let syn_ack = bench.syn(number).remove(0);
        assert!(say(&mut bench, number, &syn_ack, b"GET ").is_empty());
    }
    assert_eq!((bench.openings(), bench.counter(Counter::DropOpenings)), (2, 3));
}

#[test]
fn what_cannot_be_proxied_or_is_not_ours_is_dropped() {
    let mut bench = Bench::new(config());
    let mut packet = Vec::new();
    let options = Options { mss: Some(1_400), ..Options::default() };
    let syn = segment(client(1), listener(), CLIENT_ISN, None, Flags::SYN);
    Segment { options, ..syn }.emit(&mut packet);
    // The option's kind becomes MD5 (19), and the checksum the right one for it.
    packet[40] = 19;
    let checksum = u16::from_be_bytes([packet[36], packet[37]]);
    let (checksum, borrow) = checksum.overflowing_sub((19 - 2) << 8);
    packet[36..38].copy_from_slice(&(checksum - u16::from(borrow)).to_be_bytes());
    assert!(bench.raw(&packet).is_empty());
    assert_eq!(bench.counter(Counter::DropAuthenticated), 1);

    assert!(bench.send(segment(client(1), end(7, 80), CLIENT_ISN, None, Flags::SYN)).is_empty());
    assert_eq!(bench.counter(Counter::DropForeign), 1);
    let mut fragment = packet.clone();
    fragment[6] = 0x20;
    assert!(bench.raw(&fragment).is_empty());
    assert_eq!(bench.counter(Counter::DropFragment), 1);

    let stray = segment(client(1), listener(), Seq(7), Some(SERVER_ISN), Flags::NONE);
    let out = bench.send(stray);
    assert_eq!((out[0].flags, out[0].seq), (Flags::RST, SERVER_ISN), "no such connection");
}
