//! Each test reads like a conversation. The last one holds every conversation.

mod orders;

use std::time::Duration;

use outlive_tcp::{seq::Seq, wire::Endpoint};

use super::*;
use crate::blob::{Mapping, TcpState};

const NOW: Time = Time::from_micros(1_000_000);
const E1: Epoch = Epoch(2);
const E2: Epoch = Epoch(5);

fn limits() -> Limits {
    Limits { connections: 4, remembered: 6, patience: Duration::from_secs(60) }
}

fn target() -> Target {
    Target::new(limits(), 7, false)
}

/// The `n`th migration that node a makes.
fn id(n: u64) -> MigrationId {
    MigrationId(100 + 2 * n)
}

fn flow(n: u16) -> FlowId {
    FlowId::from_ports(1, n).unwrap()
}

fn ends(client_port: u16) -> FourTuple {
    let end = |text: &str| Endpoint::from(text.parse::<std::net::SocketAddr>().unwrap());
    let client = Endpoint::new("10.1.2.3".parse().unwrap(), client_port);
    FourTuple::new(client, end("192.0.2.80:443"))
}

fn blob(flow: FlowId, ends: FourTuple) -> Blob {
    Blob {
        tcp: TcpState {
            iss: Seq(1),
            snd_una: Seq(2),
            snd_nxt: Seq(2),
            snd_wnd: 100,
            snd_wnd_max: 100,
            snd_wl1: Seq(11),
            snd_wl2: Seq(2),
            irs: Seq(10),
            rcv_acked: Seq(11),
            rcv_nxt: Seq(14),
            rcv_wnd: 100,
            client_mss: 1_460,
            own_mss: 1_460,
            scales: None,
            sack: false,
            timestamps: None,
        },
        ends,
        mapping: Mapping { flow, tunnel: "10.9.0.7".parse().unwrap() },
        data: b"GET".to_vec(),
    }
}

fn prepare(epoch: Epoch, id: MigrationId, flow: FlowId, ends: FourTuple) -> Message {
    Message::Prepare { epoch, id, blob: blob(flow, ends).encode().unwrap() }
}

/// PREPARE of the `n`th migration, of a flow and a client of its own.
fn prepare_nth(n: u16) -> Message {
    prepare(E1, id(n.into()), flow(n), ends(n))
}

fn commit_nth(n: u16) -> Message {
    Message::Commit { epoch: E1, id: id(n.into()), flow: flow(n), ends: ends(n) }
}

/// What `message` from node a brings about. An infusion succeeds at once.
fn say(target: &mut Target, message: Message) -> Vec<Action> {
    target.handle(NOW, Balancer::A, message);
    drain(target)
}

fn drain(target: &mut Target) -> Vec<Action> {
    let mut actions = Vec::new();
    while let Some(action) = target.poll_action() {
        if let Action::Infuse { id, .. } = action {
            target.infused(NOW, id, Ok(()));
        }
        actions.push(action);
    }
    actions
}

fn sent(message: Message) -> Action {
    Action::Send(Balancer::A, message)
}

fn refused(epoch: Epoch, id: MigrationId, reason: Refusal) -> Vec<Action> {
    vec![sent(Message::Refused { epoch, id, reason })]
}

#[test]
fn a_migration_is_prepared_committed_and_ends() {
    let (mut target, id) = (target(), id(1));
    let infuse = Action::Infuse { id, blob: Box::new(blob(flow(1), ends(1))) };
    let prepared = sent(Message::Prepared { epoch: E1, id });
    assert_eq!(say(&mut target, prepare_nth(1)), [infuse, prepared]);
    assert_eq!((target.waiting(), target.committed()), (1, 0));

    let committed = sent(Message::Committed { epoch: E1, id });
    assert_eq!(say(&mut target, commit_nth(1)), [Action::Speak { id }, committed]);
    assert_eq!((target.waiting(), target.committed()), (0, 1));
    assert_eq!(target.next_deadline(), None);

    target.ended(id, HowEnded::Closed);
    let ended = Message::Ended { epoch: E1, id, flow: flow(1), how: HowEnded::Closed };
    assert_eq!(drain(&mut target), [sent(ended.clone())]);
    // Until it is confirmed, it is said to whoever serves, and the identifier stays taken.
    assert_eq!(say(&mut target, Message::Serve { epoch: E1 }), [sent(ended)]);
    let reused = say(&mut target, prepare(E1, super::tests::id(2), flow(1), ends(2)));
    assert_eq!(reused, refused(E1, super::tests::id(2), Refusal::FlowTaken));
    assert_eq!(say(&mut target, Message::Gone { epoch: E1, id }), []);
    assert_eq!(say(&mut target, Message::Serve { epoch: E1 }), []);
    assert_eq!(say(&mut target, prepare(E1, super::tests::id(3), flow(1), ends(1))).len(), 2);
}

#[test]
fn a_repeated_message_is_answered_again_and_does_nothing() {
    let (mut target, id) = (target(), id(1));
    say(&mut target, prepare_nth(1));
    assert_eq!(say(&mut target, prepare_nth(1)), [sent(Message::Prepared { epoch: E1, id })]);
    say(&mut target, commit_nth(1));
    let committed = [sent(Message::Committed { epoch: E1, id })];
    assert_eq!(say(&mut target, commit_nth(1)), committed);
    assert_eq!(say(&mut target, prepare_nth(1)), committed);
    assert_eq!(say(&mut target, Message::Abort { epoch: E1, id }), [], "it has spoken");
    target.ended(id, HowEnded::Reset);
    let ended = drain(&mut target);
    assert_eq!(say(&mut target, commit_nth(1)), ended);
    assert_eq!(say(&mut target, prepare_nth(1)), ended);
}

#[test]
fn an_aborted_migration_never_comes_back() {
    let (mut target, id) = (target(), id(1));
    say(&mut target, prepare_nth(1));
    assert_eq!(say(&mut target, Message::Abort { epoch: E1, id }), [Action::Remove { id }]);
    assert_eq!(say(&mut target, Message::Abort { epoch: E1, id }), []);
    let stale = refused(E1, id, Refusal::StaleMigration);
    assert_eq!(say(&mut target, commit_nth(1)), stale);
    assert_eq!(say(&mut target, prepare_nth(1)), stale);
}

#[test]
fn an_abort_that_overtakes_its_prepare_counts() {
    let (mut target, id) = (target(), id(1));
    assert_eq!(say(&mut target, Message::Abort { epoch: E1, id }), []);
    assert_eq!(say(&mut target, prepare_nth(1)), refused(E1, id, Refusal::StaleMigration));
}

#[test]
fn an_infusion_that_takes_its_time_may_be_aborted_or_committed_meanwhile() {
    let mut target = target();
    for n in [1, 2, 3] {
        target.handle(NOW, Balancer::A, prepare_nth(n));
        assert!(matches!(target.poll_action(), Some(Action::Infuse { .. })));
        assert_eq!(target.poll_action(), None);
    }
    assert_eq!(
        say(&mut target, Message::Abort { epoch: E1, id: id(1) }),
        [Action::Remove { id: id(1) }]
    );
    target.infused(NOW, id(1), Ok(()));
    assert_eq!(drain(&mut target), [], "its result is not wanted any more");
    assert_eq!(say(&mut target, commit_nth(2)), []);
    target.infused(NOW, id(2), Ok(()));
    assert!(drain(&mut target).contains(&Action::Speak { id: id(2) }));
    target.infused(NOW, id(3), Err(Refusal::NoServer));
    let no_server = refused(E1, id(3), Refusal::NoServer);
    assert_eq!(drain(&mut target), no_server);
    assert_eq!(say(&mut target, prepare_nth(3)), no_server, "the same answer again");
}

#[test]
fn what_waits_for_too_long_expires_and_cannot_be_committed() {
    let (mut target, id) = (target(), id(1));
    say(&mut target, prepare_nth(1));
    let deadline = target.next_deadline().unwrap();
    assert_eq!(deadline, NOW + limits().patience);
    target.expire(NOW);
    assert_eq!(drain(&mut target), []);
    target.expire(deadline);
    assert_eq!(drain(&mut target), [Action::Remove { id }]);
    assert_eq!(say(&mut target, commit_nth(1)), refused(E1, id, Refusal::StaleMigration));
    assert_eq!(target.counts().expired, 1);
}

#[test]
fn an_earlier_epoch_is_not_obeyed_and_a_later_one_goes_on() {
    let (mut target, id) = (target(), id(1));
    say(&mut target, prepare_nth(1));
    // Node b takes over. It knows the decision, and commits what node a has prepared.
    target.handle(NOW, Balancer::B, Message::Serve { epoch: E2 });
    assert_eq!(drain(&mut target), []);
    let stale = refused(E1, id, Refusal::StaleEpoch);
    assert_eq!(say(&mut target, commit_nth(1)), stale);
    assert_eq!(
        say(&mut target, prepare_nth(2))[..],
        refused(E1, super::tests::id(2), Refusal::StaleEpoch)
    );
    assert_eq!(say(&mut target, Message::Abort { epoch: E1, id }), []);
    let commit = Message::Commit { epoch: E2, id, flow: flow(1), ends: ends(1) };
    target.handle(NOW, Balancer::B, commit);
    let committed = Action::Send(Balancer::B, Message::Committed { epoch: E2, id });
    assert_eq!(drain(&mut target), [Action::Speak { id }, committed]);
    // Node a serves once more, in its epoch, for node b has died without a word: nothing is changed, and the truth is said.
    assert_eq!(say(&mut target, commit_nth(1)), [sent(Message::Committed { epoch: E1, id })]);
    // Node b is the one that is told of the end.
    target.ended(id, HowEnded::Idle);
    assert!(matches!(drain(&mut target)[..], [Action::Send(Balancer::B, Message::Ended { .. })]));
}

#[test]
fn a_later_attempt_supersedes_a_mute_one_and_never_the_other_way_round() {
    let mut target = target();
    say(&mut target, prepare(E1, id(1), flow(1), ends(1)));
    // Node b has taken over without having been told, and met the client's repeated data.
    let later = prepare(E2, MigrationId(201), flow(2), ends(1));
    let actions = say(&mut target, later);
    assert_eq!(actions[0], Action::Remove { id: id(1) });
    assert!(matches!(actions[1], Action::Infuse { .. }));
    let earlier = prepare(E2, id(5), flow(3), ends(1));
    assert_eq!(say(&mut target, earlier), refused(E2, id(5), Refusal::StaleMigration));
    // One that speaks is not superseded.
    let commit = Message::Commit { epoch: E2, id: MigrationId(201), flow: flow(2), ends: ends(1) };
    say(&mut target, commit);
    let latest = prepare(E2, MigrationId(301), flow(4), ends(1));
    assert_eq!(say(&mut target, latest), refused(E2, MigrationId(301), Refusal::ConnectionTaken));
}

#[test]
fn what_cannot_come_is_refused_with_its_reason() {
    let mut target = target();
    let (epoch, blob) = (E1, vec![1, 2, 3]);
    let damaged = Message::Prepare { epoch, id: id(1), blob };
    assert_eq!(say(&mut target, damaged), refused(E1, id(1), Refusal::BadBlob));
    assert_eq!(say(&mut target, commit_nth(2)), refused(E1, id(2), Refusal::Unknown));
    for n in 10..14 {
        say(&mut target, prepare_nth(n));
    }
    assert_eq!(say(&mut target, prepare_nth(14)), refused(E1, id(14), Refusal::Full));
    target.drain(true);
    assert_eq!(say(&mut target, prepare_nth(15)), refused(E1, id(15), Refusal::Draining));
    assert_eq!(say(&mut target, commit_nth(10))[0], Action::Speak { id: id(10) });
}

#[test]
fn what_is_over_is_forgotten_in_the_end_and_refused_all_the_same() {
    let mut target = target();
    let many = limits().remembered as u16 + 3;
    for n in 0..many {
        say(&mut target, prepare_nth(n + 1));
        say(&mut target, Message::Abort { epoch: E1, id: id(u64::from(n) + 1) });
    }
    for n in 1..=many {
        let stale = refused(E1, id(n.into()), Refusal::StaleMigration);
        assert_eq!(say(&mut target, prepare_nth(n)), stale);
        assert_eq!(say(&mut target, commit_nth(n)), stale);
    }
    // The other node's numbers are its own.
    assert_eq!(say(&mut target, prepare(E1, MigrationId(3), flow(1), ends(1))).len(), 2);
}

#[test]
fn a_connection_that_outlived_its_agent_is_adopted() {
    let mut target = Target::new(limits(), 8, true);
    let adopt = |n: u16| Action::Adopt { id: id(n.into()), flow: flow(n), ends: ends(n) };
    assert_eq!(say(&mut target, commit_nth(1)), [adopt(1)]);
    assert_eq!(say(&mut target, commit_nth(1)), [], "it is being looked for");
    target.adopted(id(1), true);
    let committed = sent(Message::Committed { epoch: E1, id: id(1) });
    assert_eq!(drain(&mut target), [committed]);
    assert_eq!(say(&mut target, commit_nth(2)), [adopt(2)]);
    target.adopted(id(2), false);
    assert_eq!(drain(&mut target), refused(E1, id(2), Refusal::Unknown));
}

#[test]
fn only_what_was_announced_is_a_probe() {
    let mut target = target();
    let (epoch, id) = (E1, id(1));
    assert!(!target.probe_arrived(flow(9), 1_500));
    say(&mut target, Message::Probe { epoch, id, flow: flow(9) });
    assert!(target.probe_arrived(flow(9), 1_500));
    assert_eq!(drain(&mut target), [sent(Message::Probed { epoch, id, len: 1_500 })]);
    // Of a standby that has not heard of the epoch in which the other node serves.
    say(&mut target, Message::Serve { epoch: Epoch(epoch.0 + 4) });
    say(&mut target, Message::Probe { epoch, id, flow: flow(9) });
    assert!(target.probe_arrived(flow(9), 1_500));
    for n in 10..20 {
        say(&mut target, Message::Probe { epoch, id, flow: flow(n) });
    }
    assert!(!target.probe_arrived(flow(9), 1_500), "the oldest are forgotten");
}
