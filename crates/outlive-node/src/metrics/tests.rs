//! Scrapes over loopback sockets, of a node that has nothing to do.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use mio::{Events, Poll, Token};
use outlive_proxy::{
    Entropy, Node,
    config::{Config, Limits, NodeId, PairConfig, Timeouts},
};
use outlive_tcp::time::Time;

use super::*;
use crate::admin::report::tests::example;

fn idle_node() -> Node {
    let config = Config {
        node: NodeId::A,
        listeners: vec![],
        pools: vec![],
        source_addresses: vec![],
        migration: Default::default(),
        pair: PairConfig::alone(),
        timeouts: Timeouts::default(),
        limits: Limits::default(),
        mtu: 1_500,
    };
    Node::new(config, Entropy([1; 32]), 1, Time::ZERO)
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Sends `request` and reads what comes, up to the end.
fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    // Whoever said nonsense may be cut off.
    let _ = stream.read_to_string(&mut answer);
    answer
}

/// Runs the event loop of an idle node, if it `lives`, while `scrape` asks.
fn while_it_runs(lives: bool, scrape: impl FnOnce(SocketAddr) + Send) {
    let mut poll = Poll::new().unwrap();
    let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
    let address = free_address();
    let mut metrics = Metrics::start(address, waker).unwrap();
    let node = idle_node();
    thread::scope(|scope| {
        let scraping = scope.spawn(|| scrape(address));
        // It also ends if an assertion fails there.
        while !scraping.is_finished() {
            // A signal may interrupt it.
            let _ = poll.poll(&mut Events::with_capacity(4), Some(Duration::from_millis(20)));
            if lives && metrics.wanted().is_some_and(|survey| node.survey(survey, 1)) {
                metrics.give(example());
            }
        }
    });
}

#[test]
fn a_scraper_gets_all_metrics() {
    while_it_runs(true, |address| {
        for _ in 0..3 {
            let answer = ask(address, "GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n");
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert!(answer.contains("\r\nContent-Type: text/plain; version=0.0.4"), "{answer}");
            let (_, body) = answer.split_once("\r\n\r\n").unwrap();
            assert_eq!(body, text::render(&example()));
            assert!(answer.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
        }
        assert!(ask(address, "GET /else HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
        assert!(ask(address, "POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 400 "));
        assert_eq!(ask(address, &"x".repeat(20_000)), "");
    });
}

#[test]
fn one_that_says_nothing_delays_the_next_for_a_bounded_time() {
    while_it_runs(true, |address| {
        let start = Instant::now();
        let silent = TcpStream::connect(address).unwrap();
        let answer = ask(address, "GET /metrics HTTP/1.1\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(start.elapsed() < Duration::from_secs(15));
        drop(silent);
    });
}

#[test]
fn a_hanging_event_loop_is_told() {
    while_it_runs(false, |address| {
        let answer = ask(address, "GET /metrics HTTP/1.1\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    });
}
