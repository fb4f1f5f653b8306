//! What a planned handover does with packets that come late, and with sessions of which the standby was not told.

mod duo;

use std::time::Duration;

use duo::{CLIENT_ISN, Duo, Out, SERVER_ISN, client, config, segment, server};
use outlive_proxy::{
    config::{Protection, Synchronise},
    counters::Counter,
    pair::heartbeat::Role,
};
use outlive_tcp::{segment::Segment, wire::Flags};

const PASSED: u8 = 21;
/// Of a Hello, after magic and version.
const FLAGS: usize = 7;
const TELLS_PASSED: u8 = 1 << 4;

/// A pair with a session, up to where node 1 has taken over and node 0 does not know.
fn taken_over() -> (Duo, Out) {
    let mut duo = Duo::paired(config(Protection::default()));
    let syn = duo.open(0, 1);
    duo.exchange();
    duo.acknowledge(0, 1);
    duo.hand_over(0);
    (duo, syn)
}

#[test]
fn the_new_active_node_waits_until_what_came_before_has_passed() {
    let (mut duo, _) = taken_over();
    assert!(duo.node(1).holds_packets(duo.now));
    // Late: data is passed on, anything else relayed.
    assert_eq!(duo.say(0, 1, b"late")[0].payload, b"late");
    duo.hear(0, usize::MAX);
    assert_eq!(duo.role(0), Role::Standby);
    let close =
        segment(client(1), duo::listener(), CLIENT_ISN + 5, Some(SERVER_ISN + 1), Flags::FIN);
    assert_eq!(duo.send(0, close), []);
    duo.speak(0);
    assert!(duo.under_way(1).iter().all(|message| message[0] != PASSED), "some may be behind");
    duo.pass(Duration::from_millis(10));
    duo.speak(0);
    assert_eq!(duo.under_way(1).back().unwrap()[0], PASSED, "behind what is relayed");
    assert!(duo.node(1).holds_packets(duo.now));
    duo.hear(1, usize::MAX);
    assert!(!duo.node(1).holds_packets(duo.now));
    assert_eq!(duo.counter(1, Counter::RelayedIn), 1);
}

#[test]
fn it_waits_neither_for_long_nor_for_nobody() {
    let (mut duo, _) = taken_over();
    let until = duo.node(1).poll_timeout(duo.now).unwrap();
    assert!(until <= duo.now + Duration::from_millis(50), "the shell is called again");
    duo.now = duo.now + Duration::from_millis(51);
    assert!(!duo.node(1).holds_packets(duo.now));

    let (mut duo, _) = taken_over();
    duo.disconnect();
    assert!(!duo.node(1).holds_packets(duo.now), "the connection is gone");
}

#[test]
fn a_peer_that_does_not_say_when_all_has_passed_is_not_waited_for() {
    let mut duo = Duo::apart(config(Protection::default()));
    duo.connect();
    for from in [0, 1] {
        duo.speak(from);
        duo.under_way(1 - from)[0][FLAGS] &= !TELLS_PASSED;
    }
    duo.exchange();
    duo.hand_over(0);
    assert!(!duo.node(1).holds_packets(duo.now));
    duo.exchange();
    assert!(duo.is_paired(), "nor told");
}

/// Its client would be reset by the new active node.
#[test]
fn a_connection_without_data_is_handed_over_like_any_other() {
    let protection = Protection { synchronise: Synchronise::FirstData, ..Protection::default() };
    let mut duo = Duo::paired(config(protection));
    // One is complete, one has been answered.
    let quiet = duo.open(0, 1);
    duo.acknowledge(0, 1);
    duo.open(0, 2);
    assert_eq!(duo.sessions(1), [0, 0, 0]);
    duo.hand_over(0);
    assert_eq!(duo.sessions(1).iter().sum::<usize>(), 2);
    duo.exchange();
    for number in [1, 2] {
        let said = duo.say(1, number, b"hello");
        assert_eq!((said[0].tuple.destination, &said[0].payload[..]), (server(), &b"hello"[..]));
    }
    let (from, ack) = (quiet.tuple.source, Some(quiet.seq + 1 + 5));
    let answer = segment(server(), from, SERVER_ISN + 1, ack, Flags::PSH);
    let out = duo.send(1, Segment { payload: b"welcome", ..answer });
    assert_eq!((out[0].tuple.destination, &out[0].payload[..]), (client(1), &b"welcome"[..]));
}

/// Data that comes while the standby is told waits for its confirmation.
#[test]
fn what_such_a_connection_says_meanwhile_is_not_lost() {
    let protection = Protection { synchronise: Synchronise::FirstData, ..Protection::default() };
    let mut duo = Duo::paired(config(protection));
    duo.open(0, 1);
    duo.acknowledge(0, 1);
    duo.begin_handover(0);
    assert_eq!(duo.say(0, 1, b"hello"), [], "the standby comes first");
    duo.speak(0);
    duo.hear(1, usize::MAX);
    duo.speak(1);
    let out = duo.hear(0, usize::MAX);
    assert_eq!((out[0].tuple.destination, &out[0].payload[..]), (server(), &b"hello"[..]));
}
