//! What the standby is told, when, and what becomes of it when the state connection breaks or a node is slow.

mod duo;

use std::time::Duration;

use duo::{Duo, config, segment, server};
use outlive_proxy::{
    MAX_STATE_MESSAGE, StateError,
    config::{Protection, Replication},
    counters::Counter,
    event::LogEvent,
    pair::heartbeat::Role,
};
use outlive_tcp::wire::Flags;

const HELLO: u8 = 1;
const BEGIN: u8 = 2;
const SNAPSHOT: u8 = 3;
const CHANGES: u8 = 4;
const COMPLETE: u8 = 5;
const RESUME: u8 = 8;
/// Kinds from here on do not concern sessions.
const HANDOVER: u8 = 16;
/// In the flags of a hello: it resumes, and it hands over.
const LATER: u8 = 8 | 4;
const FLAGS: usize = 7;
const VERSION: usize = 6;

fn kinds(duo: &mut Duo, to: usize) -> Vec<u8> {
    duo.under_way(to).iter().map(|message| message[0]).collect()
}

fn all_sessions(duo: &Duo, node: usize) -> usize {
    duo.sessions(node).iter().sum()
}

/// Makes the state connection again; returns the kinds of what the active node then says, and how many bytes.
fn reconnect(duo: &mut Duo) -> (Vec<u8>, usize) {
    duo.connect();
    let (mut said, mut bytes) = (Vec::new(), 0);
    while duo.speak(0) + duo.speak(1) > 0 {
        said.extend(kinds(duo, 1));
        bytes += duo.under_way(1).iter().map(Vec::len).sum::<usize>();
        duo.hear(0, usize::MAX);
        duo.hear(1, usize::MAX);
    }
    (said, bytes)
}

/// Makes the state connection as between nodes of the first version.
fn connect_without_resuming(duo: &mut Duo) {
    duo.connect();
    for from in [0, 1] {
        duo.speak(from);
        duo.under_way(1 - from)[0][FLAGS] &= !LATER;
    }
    duo.hear(0, 1);
    duo.hear(1, 1);
}

#[test]
fn after_a_short_break_only_what_was_missed_is_told() {
    let mut duo = Duo::paired(config(Protection::default()));
    for number in 0..500 {
        duo.open(0, number);
    }
    duo.exchange();
    assert_eq!(all_sessions(&duo, 1), 500);
    // A session is told, and lost on the way, when the connection breaks.
    let missed = duo.open(0, 501);
    duo.speak(0);
    duo.disconnect();
    duo.pass(Duration::from_millis(50));
    // Two more happen while the standby is away: one comes, one goes.
    duo.open(0, 502);
    duo.send(0, segment(server(), missed.tuple.source, duo::SERVER_ISN + 1, None, Flags::RST));
    let (said, bytes) = reconnect(&mut duo);
    let about_sessions: Vec<u8> = said.into_iter().filter(|kind| *kind < HANDOVER).collect();
    assert_eq!(about_sessions, [HELLO, RESUME, CHANGES, COMPLETE]);
    assert!(bytes < 600, "{bytes} bytes");
    assert!(duo.is_paired());
    assert_eq!(duo.counter(0, Counter::Resumed), 1);
    assert_eq!(duo.sessions(1), [501, 0, 1]);

    // And it is worth as much as if it had been told everything.
    duo.kill(0, false);
    assert_eq!(duo.role(1), Role::Active);
    for number in [0, 499, 502] {
        assert_eq!(duo.say(1, number, b"hello")[0].payload, b"hello", "{number}");
    }
}

#[test]
fn a_break_in_the_middle_of_catching_up_is_made_good_too() {
    let mut duo = Duo::paired(config(Protection::default()));
    for round in 0..4 {
        duo.disconnect();
        duo.pass(Duration::from_millis(50));
        for number in 0..300 {
            duo.open(0, 1_000 * round + number);
        }
        duo.connect();
        duo.speak(0);
        duo.speak(1);
        duo.hear(0, usize::MAX);
        duo.hear(1, usize::MAX);
        duo.speak(1);
        duo.hear(0, usize::MAX);
        // Of what follows, a part arrives.
        duo.speak(0);
        duo.hear(1, 1 + usize::from(round));
    }
    duo.disconnect();
    let (said, _) = reconnect(&mut duo);
    assert!(said.contains(&RESUME) && duo.is_paired());
    assert_eq!(all_sessions(&duo, 1), 1_200);
}

#[test]
fn a_new_process_is_told_everything() {
    let mut duo = Duo::paired(config(Protection::default()));
    duo.open(0, 1);
    duo.exchange();
    duo.kill(1, false);
    duo.restart(1);
    let (said, _) = reconnect(&mut duo);
    assert!(said.contains(&BEGIN) && !said.contains(&RESUME));
    assert_eq!(all_sessions(&duo, 1), 1);
}

#[test]
fn whoever_has_served_meanwhile_is_told_everything() {
    let mut duo = Duo::paired(config(Protection::default()));
    duo.open(0, 1);
    duo.exchange();
    duo.kill(0, false);
    duo.restart(0);
    assert_eq!((duo.role(0), duo.role(1)), (Role::Standby, Role::Active));
    duo.connect();
    duo.exchange();
    duo.open(1, 2);
    duo.exchange();
    duo.kill(1, false);
    duo.restart(1);
    let (said, _) = reconnect(&mut duo);
    assert!(said.contains(&BEGIN) && duo.is_paired());
    assert_eq!(all_sessions(&duo, 1), 2);
}

#[test]
fn the_old_picture_stays_until_the_new_one_is_complete() {
    let mut duo = Duo::paired(config(Protection::default()));
    let ended = duo.open(0, 1);
    for number in 2..900 {
        duo.open(0, number);
    }
    duo.exchange();
    for again in [false, true] {
        duo.disconnect();
        duo.pass(Duration::from_millis(50));
        if again {
            // Meanwhile a session ended.
            let from = ended.tuple.source;
            duo.send(0, segment(server(), from, duo::SERVER_ISN + 1, None, Flags::RST));
        }
        connect_without_resuming(&mut duo);
        duo.speak(0);
        assert!(duo.under_way(1).len() > 4);
        duo.hear(1, 2);
        assert_eq!(all_sessions(&duo, 1), 899, "in the middle of it");
    }
    duo.kill(0, false);
    assert_eq!(all_sessions(&duo, 1), 899, "the old one is better than none");
    assert_eq!(duo.say(1, 899, b"hello")[0].payload, b"hello");
}

#[test]
fn what_a_complete_picture_does_not_contain_is_removed() {
    let mut duo = Duo::paired(config(Protection::default()));
    let gone = duo.open(0, 1);
    duo.open(0, 2);
    duo.exchange();
    duo.disconnect();
    duo.pass(Duration::from_millis(50));
    duo.send(0, segment(server(), gone.tuple.source, duo::SERVER_ISN + 1, None, Flags::RST));
    duo.pass(duo.config.timeouts.reset_linger * 2);
    assert_eq!((all_sessions(&duo, 0), all_sessions(&duo, 1)), (1, 2));
    connect_without_resuming(&mut duo);
    duo.exchange();
    assert!(duo.is_paired());
    assert_eq!(all_sessions(&duo, 1), 1);
}

/// Of many sessions one has carried much lately: it waits for nobody.
#[test]
fn who_was_busy_is_woken_up_first() {
    let mut duo = Duo::paired(config(Protection::default()));
    duo.careful = false;
    for number in 0..600 {
        duo.open(0, number);
    }
    let busy = duo.open(0, 600);
    duo.exchange();
    duo.acknowledge(0, 600);
    duo.pass(Duration::from_secs(3));
    // The server acknowledges 40 MiB, as the window lets it.
    for step in 1..=2_200_u32 {
        let ack = busy.seq + 1 + step * 19_000;
        let from = busy.tuple.source;
        duo.send(0, segment(server(), from, duo::SERVER_ISN + 1, Some(ack), Flags::NONE));
        let said = segment(
            duo::client(600),
            duo::listener(),
            duo::CLIENT_ISN + 1 + step * 19_000,
            Some(duo::SERVER_ISN + 1),
            Flags::NONE,
        );
        duo.send(0, said);
    }
    duo.exchange();
    duo.kill_at_once(0);
    let first = duo.said_by_itself(1);
    assert_eq!(duo.role(1), Role::Active);
    assert_eq!(
        [first[0].tuple.destination, first[1].tuple.destination],
        [duo::client(600), server()]
    );
    assert_eq!(first[1].tuple.source, busy.tuple.source);
    assert_eq!(first.len(), 2);
    duo.pass(Duration::from_millis(10));
    assert_eq!(duo.said_by_itself(1).len(), 2 * 256, "the others follow");
    duo.pass(Duration::from_millis(40));
    assert_eq!(duo.counter(1, Counter::WakeUps), 601);
}

/// A standby that reads and says nothing holds sessions up for the confirmation timeout, and no longer.
#[test]
fn a_wedged_standby_is_dropped() {
    for replication in [Replication::Sync, Replication::Async] {
        let mut duo = Duo::paired(config(Protection { replication, ..Protection::default() }));
        let syn = duo.syn(0, 1).remove(0);
        let answered = !duo.accept(0, &syn).is_empty();
        assert_eq!(answered, replication == Replication::Async);
        duo.speak(0);
        duo.log(0);
        duo.pass(duo.config.pair.confirm_timeout + Duration::from_millis(50));
        let log = duo.log(0);
        assert!(log.iter().any(|e| matches!(e, LogEvent::WentAlone { .. })), "{log:?}");
        assert_eq!(duo.acknowledge(0, 1)[0].tuple.destination, server(), "released");
        // When it is well again, it is told what it missed.
        duo.connect();
        duo.exchange();
        assert!(duo.is_paired());
        assert_eq!(all_sessions(&duo, 1), 1);
    }
}

/// Nor does one that never takes anything cost more memory than the journal's bound.
#[test]
fn changes_are_told_in_bounded_messages() {
    let mut duo = Duo::apart(config(Protection::default()));
    for number in 0..2_000 {
        duo.open(0, number);
    }
    duo.connect();
    while duo.speak(0) + duo.speak(1) > 0 {
        for to in [0, 1] {
            assert!(duo.under_way(to).iter().all(|m| m.len() <= MAX_STATE_MESSAGE));
            duo.hear(to, usize::MAX);
        }
    }
    assert!(duo.is_paired());
    assert_eq!(all_sessions(&duo, 1), 2_000);
}

#[test]
fn a_gap_is_noticed() {
    let mut duo = Duo::paired(config(Protection::default()));
    duo.open(0, 1);
    duo.speak(0);
    duo.under_way(1).clear();
    duo.open(0, 2);
    duo.speak(0);
    let message = duo.under_way(1).pop_front().unwrap();
    let error = duo.tell(1, &message).unwrap_err();
    assert!(matches!(error, StateError::Gap { expected, got } if got == expected + 1), "{error}");
}

#[test]
fn more_than_was_told_cannot_be_confirmed() {
    let mut duo = Duo::paired(config(Protection::default()));
    duo.open(0, 1);
    let confirm = [&[6][..], &u64::MAX.to_be_bytes()].concat();
    assert_eq!(duo.tell(0, &confirm), Err(StateError::Unexpected));
}

#[test]
fn a_peer_of_another_version_is_refused_at_both_ends_with_a_reason() {
    let mut duo = Duo::apart(config(Protection::default()));
    duo.connect();
    duo.speak(0);
    duo.speak(1);
    for node in [0, 1] {
        let mut hello = duo.under_way(node).pop_front().unwrap();
        hello[VERSION] = 2;
        let error = duo.tell(node, &hello).unwrap_err();
        assert_eq!(error, StateError::Version(2));
        let told = error.to_string();
        assert!(told.contains("version 2") && told.contains("version 1"), "{told}");
    }
}

/// Before nodes could resume, they said and expected nothing of it.
#[test]
fn a_peer_of_the_first_version_is_told_everything_in_its_words() {
    let mut duo = Duo::apart(config(Protection::default()));
    duo.open(0, 1);
    connect_without_resuming(&mut duo);
    assert_eq!(duo.speak(1), 0, "it does not say what it holds");
    duo.speak(0);
    assert_eq!(kinds(&mut duo, 1), [BEGIN, SNAPSHOT, COMPLETE]);
    duo.exchange();
    assert!(duo.is_paired());
    assert_eq!(all_sessions(&duo, 1), 1);
}
