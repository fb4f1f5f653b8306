//! Connections that are handed to a target: what the client, the targets and the standby see of it, step by step.

mod duo;
mod targets;

use std::time::Duration;

use duo::{CLIENT_ISN, client, listener, segment};
use outlive_migration::{
    id::Epoch,
    message::{HowEnded, Message, Refusal},
};
use outlive_proxy::counters::Counter;
use outlive_tcp::{segment::Segment, wire::Flags};
use targets::{REQUEST, World, control, from_client, migrating, server, tunnel, tunnelled};

#[test]
fn a_connection_moves_with_its_data_and_the_balancer_only_re_addresses() {
    let mut world = World::new();
    let (iss, out) = world.request(0, 1);
    assert_eq!(out, [], "neither a server nor the client hears anything");
    world.ask();
    let (id, blob) =
        world.agents[0].infused.first_key_value().map(|(i, b)| (*i, b.clone())).unwrap();
    assert_eq!((&blob.data[..], blob.tcp.iss), (REQUEST, iss));
    assert_eq!((blob.tcp.irs, blob.tcp.rcv_acked), (CLIENT_ISN, CLIENT_ISN + 1));
    assert_eq!((blob.ends.source, blob.ends.destination), (client(1), listener()));
    assert_eq!(world.answer(), []);

    world.ask();
    assert_eq!(world.agents[0].speaking, [], "the standby does not know the decision");
    assert_eq!(world.settle(), [], "nothing is sent to the client");
    assert_eq!(world.agents[0].speaking, [id]);
    assert_eq!((world.migrated(0), world.migrated(1)), (1, 1));

    let more = from_client(1, REQUEST.len(), iss + 500, Flags::PSH);
    let out = world.duo.send(0, Segment { payload: b"more", ..more });
    assert_eq!(out.len(), 1);
    assert_eq!((out[0].tuple, &out[0].payload[..]), (tunnelled(0, &blob), &b"more"[..]));
    assert_eq!((out[0].seq, out[0].ack), (more.seq, iss + 501), "nothing else changes");
    assert_eq!(world.count(0, Counter::Tunnelled), 1);

    world.end(0, id, HowEnded::Closed);
    assert_eq!(world.settle(), []);
    assert_eq!((world.migrated(0), world.migrated(1)), (0, 0));
    assert!(matches!(world.agents[0].heard.last(), Some(Message::Gone { .. })));
    let status = world.duo.node(0).status(world.duo.now);
    assert!(status.servers.iter().all(|server| server.sessions == 0), "nothing leaks");
    // A late copy of the request opens nothing.
    let again = from_client(1, 0, iss, Flags::PSH);
    assert_eq!(world.duo.send(0, Segment { payload: REQUEST, ..again }), []);
    world.ask();
    assert_eq!(world.agents.each_ref().map(|agent| agent.infused.len()), [1, 0]);
}

#[test]
fn what_comes_meanwhile_follows() {
    let mut world = World::new();
    let (iss, _) = world.request(0, 1);
    let second = from_client(1, REQUEST.len(), iss, Flags::PSH);
    assert_eq!(world.duo.send(0, Segment { payload: b"second", ..second }), []);
    let copy = from_client(1, 0, iss, Flags::PSH);
    assert_eq!(world.duo.send(0, Segment { payload: REQUEST, ..copy }), [], "is at the target");
    world.talk();
    let last = from_client(1, REQUEST.len() + 6, iss, Flags::FIN);
    assert_eq!(world.duo.send(0, last), []);
    let out = world.settle();
    let payloads: Vec<&[u8]> = out.iter().map(|out| &out.payload[..]).collect();
    assert_eq!(payloads, [&b"second"[..], &b""[..]]);
    assert!(out[1].flags.contains(Flags::FIN));
}

#[test]
fn a_client_that_closes_its_half_with_its_request_does_so_at_the_target() {
    let mut world = World::new();
    let syn_ack = world.duo.syn(0, 1).remove(0);
    let only = from_client(1, 0, syn_ack.seq, Flags::FIN);
    world.duo.send(0, Segment { payload: REQUEST, ..only });
    let out = world.settle();
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].seq, CLIENT_ISN + 1 + REQUEST.len() as u32);
    assert!(out[0].flags.contains(Flags::FIN) && out[0].payload.is_empty());
}

#[test]
fn the_next_target_is_asked_when_one_refuses_and_a_server_when_all_do() {
    let mut world = World::new();
    world.agents[0].refuses = Some(Refusal::NoServer);
    let (_, out) = world.request(0, 1);
    assert_eq!(out, []);
    assert_eq!(world.settle(), []);
    assert_eq!(world.agents.each_ref().map(|agent| agent.speaking.len()), [0, 1]);

    world.agents[1].refuses = Some(Refusal::Full);
    world.request(0, 2);
    let out = world.talk();
    // Not migrated: the SYN to a server, with the client's request to follow.
    assert_eq!(out.len(), 1);
    assert!(
        out[0].flags == Flags::SYN && [server(0), server(1)].contains(&out[0].tuple.destination)
    );
    assert_eq!(world.count(0, Counter::MigrationRefused), 3);
}

#[test]
fn what_was_said_meanwhile_goes_along_to_the_next_target() {
    let mut world = World::new();
    let (iss, _) = world.request(0, 1);
    let second = from_client(1, REQUEST.len(), iss, Flags::PSH);
    world.duo.send(0, Segment { payload: b"second", ..second });
    world.cut(0);
    world.settle();
    assert_eq!(world.agents[0].speaking, []);
    let blob = world.agents[1].infused.values().next().unwrap();
    assert_eq!(blob.data, [REQUEST, b"second"].concat());
}

#[test]
fn a_target_that_cannot_be_reached_is_served_as_a_server() {
    let mut world = World::unreached();
    let (_, out) = world.request(0, 1);
    assert_eq!((out[0].flags, out[0].tuple.destination), (Flags::SYN, server(0)));
}

#[test]
fn a_target_that_does_not_answer_is_given_up_in_time_and_told_so() {
    let mut world = World::new();
    world.request(0, 1);
    world.ask();
    // Its answer is late.
    world.duo.pass(std::time::Duration::from_millis(3_010));
    world.settle();
    let aborted = |m: &Message| matches!(m, Message::Abort { .. });
    assert!(world.agents[0].heard.iter().any(aborted));
    assert_eq!(world.agents[0].removed.len(), 1);
    assert_eq!(world.agents.each_ref().map(|agent| agent.speaking.len()), [0, 1]);
    assert_eq!(world.count(0, Counter::MigrationTimeout), 1);
}

#[test]
fn a_client_that_gives_up_before_the_decision_ends_it() {
    for prepared in [false, true] {
        let mut world = World::new();
        let (iss, _) = world.request(0, 1);
        if prepared {
            world.talk();
        }
        let outside = segment(client(1), listener(), CLIENT_ISN + 100_000, None, Flags::RST);
        world.duo.send(0, outside);
        let reset = from_client(1, REQUEST.len(), iss, Flags::RST);
        assert_eq!(world.duo.send(0, reset), []);
        assert_eq!(world.settle(), []);
        assert_eq!(world.agents[0].speaking, []);
        assert_eq!(world.agents[0].removed.len(), 1);
        assert_eq!((world.migrated(0), world.migrated(1)), (0, 0));
    }
}

#[test]
fn a_takeover_before_the_decision_begins_anew() {
    let mut world = World::new();
    let (iss, _) = world.request(0, 1);
    world.talk();
    // It is decided, and nobody knows.
    world.duo.kill(0, false);
    world.talk();
    assert_eq!(world.agents[0].speaking, []);
    let again = from_client(1, 0, iss, Flags::PSH);
    assert_eq!(world.duo.send(1, Segment { payload: REQUEST, ..again }), []);
    world.settle();
    let speaking = world.agents.each_ref().map(|agent| agent.speaking.len());
    assert_eq!(speaking.iter().sum::<usize>(), 1, "the client is answered once");
}

#[test]
fn a_takeover_after_the_decision_carries_it_out() {
    for tell in [false, true] {
        let mut world = World::new();
        let (iss, _) = world.request(0, 1);
        world.talk();
        world.duo.speak(0);
        world.duo.hear(1, usize::MAX);
        if tell {
            world.duo.speak(1);
            world.duo.hear(0, usize::MAX);
            // COMMIT arrives, and the node dies before it hears the answer.
            world.ask();
            assert_eq!(world.agents[0].speaking.len(), 1);
        }
        world.duo.kill(0, false);
        // Kept until it is known that the target speaks.
        let more = from_client(1, REQUEST.len(), iss, Flags::PSH);
        assert_eq!(world.duo.send(1, Segment { payload: b"more", ..more }), []);
        let out = world.settle();
        assert_eq!(world.agents[0].speaking.len(), 1, "once");
        let blob = world.agents[0].infused.values().next().unwrap();
        assert_eq!(out[0].tuple, tunnelled(0, blob));
        let more = from_client(1, REQUEST.len() + 4, iss + 9, Flags::PSH);
        assert_eq!(world.duo.send(1, Segment { payload: b"x", ..more })[0].payload, b"x");
    }
}

#[test]
fn a_migrated_connection_does_not_notice_a_takeover() {
    let mut world = World::new();
    let (iss, _) = world.request(0, 1);
    world.settle();
    world.duo.kill(0, false);
    let more = from_client(1, REQUEST.len(), iss + 9, Flags::PSH);
    let out = world.duo.send(1, Segment { payload: b"more", ..more });
    let blob = world.agents[0].infused.values().next().unwrap();
    assert_eq!(out[0].tuple, tunnelled(0, blob), "without a word to the target");
    // Its end is told to the node that serves now.
    world.talk();
    let id = world.agents[0].speaking[0];
    world.end(0, id, HowEnded::Closed);
    world.talk();
    assert_eq!(world.migrated(1), 0);
}

#[test]
fn a_new_standby_is_told_of_every_migrated_connection() {
    let mut world = World::new();
    for number in 1..20 {
        world.request(0, number);
        world.settle();
    }
    world.duo.kill(1, false);
    world.duo.restart(1);
    world.duo.connect();
    world.duo.exchange();
    assert!(world.duo.is_paired());
    assert_eq!((world.migrated(0), world.migrated(1)), (19, 19));
    let ids = world.agents[0].speaking.clone();
    for id in ids {
        world.end(0, id, HowEnded::Closed);
    }
    world.settle();
    assert_eq!(world.migrated(0), world.migrated(1));
    // One that missed the end learns it from the next picture.
    world.duo.disconnect();
    world.duo.kill(1, false);
    let left: Vec<_> = world.agents[1].speaking.clone();
    world.end(1, left[0], HowEnded::Reset);
    world.talk();
    world.duo.restart(1);
    world.duo.connect();
    world.duo.exchange();
    assert_eq!(world.migrated(0), world.migrated(1));
}

/// An end that the standby has not been told of is told again by the target.
#[test]
fn a_target_forgets_an_end_only_when_the_standby_knows_it() {
    let mut world = World::new();
    world.request(0, 1);
    world.settle();
    let id = world.agents[0].speaking[0];
    world.end(0, id, HowEnded::Closed);
    world.answer();
    world.ask();
    assert!(!world.agents[0].heard.iter().any(|it| matches!(it, Message::Gone { .. })));
    world.duo.kill(0, false);
    world.settle();
    assert_eq!(world.migrated(1), 0);
    assert!(world.agents[0].heard.iter().any(|it| matches!(it, Message::Gone { .. })));
    // And this one tells nobody whom it could not tell before.
    let mut world = World::new();
    world.request(0, 1);
    world.settle();
    let id = world.agents[0].speaking[0];
    world.end(0, id, HowEnded::Closed);
    world.settle();
    assert!(world.agents[0].heard.iter().any(|it| matches!(it, Message::Gone { .. })));
    assert_eq!((world.migrated(0), world.migrated(1)), (0, 0));
}

/// What agents say while everything stands still for the standby is asked for again when that did not take over.
#[test]
fn a_handover_that_fails_asks_the_targets_again() {
    let mut world = World::new();
    let (iss, _) = world.request(0, 1);
    world.talk();
    world.duo.exchange();
    world.ask();
    let now = world.duo.now;
    world.duo.living(0).unwrap().hand_over(now).unwrap();
    let now = world.duo.now;
    world.duo.living(0).unwrap().handle_timeout(now);
    world.answer();
    world.duo.kill(1, false);
    world.duo.pass(std::time::Duration::from_millis(500));
    world.talk();
    let blob = world.agents[0].infused.values().next().unwrap().clone();
    let more = from_client(1, REQUEST.len(), iss + 9, Flags::PSH);
    let out = world.duo.send(0, Segment { payload: b"more", ..more });
    assert_eq!(out[0].tuple, tunnelled(0, &blob));
}

#[test]
fn after_commit_only_the_same_target_is_asked_again() {
    let mut world = World::new();
    world.request(0, 1);
    world.talk();
    world.duo.exchange();
    world.cut(0);
    assert_eq!(world.settle(), []);
    assert_eq!(world.agents[1].infused.len(), 0);
    world.reach(0);
    world.settle();
    assert_eq!(world.agents[0].speaking.len(), 1);
}

#[test]
fn a_target_that_has_lost_a_connection_leaves_its_client_a_reset_and_no_second_answer() {
    let mut world = World::new();
    let (iss, _) = world.request(0, 1);
    world.settle();
    world.restart(0);
    world.reach(0);
    world.settle();
    assert_eq!((world.migrated(0), world.migrated(1)), (0, 0));
    assert_eq!(world.count(0, Counter::MigrationsLost), 1);
    let again = from_client(1, 0, iss, Flags::PSH);
    let out = world.duo.send(0, Segment { payload: REQUEST, ..again });
    assert!(out.iter().all(|out| out.flags.contains(Flags::RST)), "{out:?}");
    world.settle();
    assert_eq!(world.agents[1].infused.len(), 0);
}

#[test]
fn a_client_in_mid_response_is_asked_where_it_stands_when_its_target_has_lost_it() {
    for by_its_own_word in [false, true] {
        let mut world = World::new();
        let (iss, _) = world.request(0, 1);
        world.settle();
        let out = if by_its_own_word {
            let id = world.agents[0].speaking[0];
            world.end(0, id, HowEnded::Lost);
            world.settle()
        } else {
            world.restart(0);
            world.reach(0)
        };
        let mut to_client = out.iter().filter(|out| out.tuple.destination == client(1));
        let question = to_client.next_back().unwrap();
        assert_eq!((question.seq, question.payload.len()), (iss - 1, 1), "long received");
        assert_eq!(question.flags, Flags::ACK);
        let status = world.duo.node(0).status(world.duo.now);
        assert!(status.servers.iter().all(|server| server.sessions == 0), "nothing leaks");

        // It may get lost, or the answer: then it is asked again.
        world.duo.pass(Duration::from_millis(1_100));
        let answer = from_client(1, REQUEST.len(), iss + 70_000, Flags(0));
        for _ in 0..2 {
            let out = world.duo.send(0, answer);
            assert_eq!(out.len(), 1);
            assert_eq!((out[0].flags, out[0].seq), (Flags::RST, iss + 70_001));
        }
        world.duo.exchange();
        assert_eq!((world.migrated(0), world.migrated(1)), (0, 0));
        // From the same port it may begin anew, as soon as it has said so once.
        assert_eq!(world.duo.syn(0, 1), []);
        assert_eq!(world.duo.syn(0, 1).len(), 1);
    }
}

#[test]
fn a_client_that_does_not_say_where_it_stands_is_forgotten() {
    let mut world = World::new();
    let (iss, _) = world.request(0, 1);
    world.settle();
    world.restart(0);
    world.reach(0);
    world.duo.pass(Duration::from_secs(12));
    assert_eq!(world.duo.said_by_itself(0), [], "nobody is asked for ever");
    let late = from_client(1, REQUEST.len(), iss + 70_000, Flags(0));
    assert_eq!(world.duo.send(0, late), [], "a stranger");
}

#[test]
fn a_commit_that_is_refused_resets_the_client() {
    let mut world = World::new();
    let (iss, _) = world.request(0, 1);
    world.talk();
    world.duo.exchange();
    // COMMIT is on its way, and nobody knows whether it has arrived.
    world.restart(0);
    let out = world.reach(0);
    let reset = out.iter().find(|out| out.flags.contains(Flags::RST)).unwrap();
    assert_eq!((reset.tuple.destination, reset.seq), (client(1), iss + 1));
    assert_eq!(world.count(0, Counter::MigrationsLost), 1);
}

/// The decision is made, and the target's agent dies before it is told.
#[test]
fn what_was_not_told_to_speak_can_go_elsewhere() {
    for (survivor, comes_back) in [(0, true), (0, false), (1, true)] {
        let mut world = World::new();
        let (iss, _) = world.request(0, 1);
        world.talk();
        world.restart(0);
        world.duo.exchange();
        let out = if comes_back {
            world.reach(0)
        } else {
            world.duo.pass(std::time::Duration::from_millis(1_100));
            world.duo.exchange()
        };
        assert!(out.iter().all(|out| !out.flags.contains(Flags::RST)), "{out:?}");
        assert_eq!(world.count(0, Counter::MigrationTimeout), 1);
        world.settle();
        assert_eq!((world.migrated(0), world.migrated(1)), (0, 0));
        if survivor == 1 {
            world.duo.kill(0, true);
            world.duo.pass(std::time::Duration::from_millis(500));
        }
        // The client says it again, and is answered once.
        let again = from_client(1, 0, iss, Flags::PSH);
        world.duo.send(survivor, Segment { payload: REQUEST, ..again });
        world.settle();
        assert_eq!(world.agents.iter().map(|agent| agent.speaking.len()).sum::<usize>(), 1);
    }
}

#[test]
fn a_drained_target_gets_no_more_and_tells_how_many_it_has() {
    let mut world = World::new();
    world.request(0, 1);
    world.settle();
    let now = world.duo.now;
    let node = world.duo.living(0).unwrap();
    assert_eq!(node.drain(now, "moved", server(0), true), Ok(1));
    for number in 2..6 {
        world.request(0, number);
        world.settle();
    }
    assert_eq!(world.agents.each_ref().map(|agent| agent.speaking.len()), [1, 4]);
    let id = world.agents[0].speaking[0];
    world.end(0, id, HowEnded::Closed);
    world.settle();
    let now = world.duo.now;
    assert_eq!(world.duo.living(0).unwrap().drain(now, "moved", server(0), true), Ok(0));
}

#[test]
fn a_planned_handover_takes_migrated_connections_along() {
    let mut world = World::new();
    let (iss, _) = world.request(0, 1);
    world.settle();
    let now = world.duo.now;
    world.duo.living(0).unwrap().hand_over(now).unwrap();
    for _ in 0..8 {
        world.duo.exchange();
        world.duo.pass(std::time::Duration::from_millis(20));
    }
    let blob = world.agents[0].infused.values().next().unwrap().clone();
    for node in [1, 0] {
        let more = from_client(1, REQUEST.len(), iss + 9, Flags::PSH);
        let out = world.duo.send(node, Segment { payload: b"more", ..more });
        assert_eq!(out[0].tuple, tunnelled(0, &blob), "node {node}");
    }
}

#[test]
fn a_new_connection_from_the_same_port_waits_for_the_end_of_the_old_one() {
    let mut world = World::new();
    world.request(0, 1);
    world.settle();
    assert_eq!(world.duo.syn(0, 1), []);
    assert_eq!(world.count(0, Counter::DropMigrating), 1);
}

#[test]
fn a_target_that_has_heard_a_later_epoch_is_ready_for_a_node_that_has_not() {
    let mut world = World::unreached();
    let later = Epoch(world.duo.node(0).beliefs().epoch.0 + 1);
    world.agents[0].serve(&world.duo, 1, later);
    world.reach(0);
    for _ in 0..4 {
        world.duo.pass(Duration::from_millis(250));
        world.talk();
    }
    let node = world.duo.node(0);
    assert!(node.beliefs().epoch.0 < later.0);
    assert_eq!(node.status(world.duo.now).ready_agents, [control(0)]);
}

#[test]
fn targets_come_and_go_while_connections_live_there() {
    let mut world = World::new();
    let (iss, _) = world.request(0, 1);
    world.settle();
    let now = world.duo.now;
    let mut fewer = migrating();
    fewer.migration.agents.remove(0);
    fewer.pools[1].servers.remove(0);
    for node in [0, 1] {
        world.duo.living(node).unwrap().reconfigure(now, fewer.clone()).unwrap();
        assert!(world.duo.node(node).needs_agent(control(0)), "somebody lives there");
    }
    let more = from_client(1, REQUEST.len(), iss + 500, Flags::PSH);
    let out = world.duo.send(0, Segment { payload: b"more", ..more });
    assert_eq!(out.len(), 1, "and is led there");
    world.request(0, 2);
    world.settle();
    assert_eq!(world.agents.each_ref().map(|agent| agent.speaking.len()), [1, 1]);
    let id = world.agents[0].speaking[0];
    world.end(0, id, HowEnded::Closed);
    world.settle();
    for node in [0, 1] {
        let needs = [0, 1].map(|target| world.duo.node(node).needs_agent(control(target)));
        assert_eq!(needs, [false, true]);
        world.duo.living(node).unwrap().forget_agent(now, control(0));
    }

    // A target that gets another address in the tunnel is probed there before it gets anything.
    let mut moved = fewer;
    moved.migration.agents[0].tunnel = vec![tunnel(7)];
    let ready = |world: &World| world.duo.node(0).status(world.duo.now).ready_agents;
    assert_eq!(ready(&world), [control(1)]);
    world.duo.living(0).unwrap().reconfigure(now, moved).unwrap();
    assert_eq!(ready(&world), []);
    world.talk();
    assert_eq!(ready(&world), [control(1)]);
}
