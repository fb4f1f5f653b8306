//! What a program must not do, and what strangers can do: every limit is one.

use std::time::Duration;

use outlive_stack::{
    Accepted, Chunk, Closed, CommitError, ListenError, Stack, StackConfig, Transaction,
};
use outlive_tcp::{endpoint::Config, time::Time};

use crate::world::{World, data, local, us};

/// A stack whose program does nothing by itself, one client that has sent `len` bytes, and the
/// connection.
fn accepted(config: StackConfig, len: usize) -> (World, Accepted) {
    let mut world = World::new(config);
    world.idle = true;
    world.connect(data(0, len));
    world.run(Duration::from_millis(50), |_| false);
    let now = world.now;
    let accepted = stack(&mut world).accept(now, local()).expect("a connection");
    (world, accepted)
}

fn stack(world: &mut World) -> &mut Stack {
    &mut world.nodes[0].as_mut().unwrap().stack
}

fn small() -> StackConfig {
    StackConfig {
        tcp: Config {
            receive_buffer: 4_000,
            withheld_limit: 6_000,
            send_buffer: 5_000,
            ..Config::default()
        },
        state_limit: 10,
        ..StackConfig::default()
    }
}

/// Everything that can be read now; where it ends.
fn read_all(stack: &mut Stack, now: Time, accepted: &Accepted) -> u64 {
    let mut end = accepted.position;
    while let Ok(Chunk::Data { position, bytes }) = stack.read(now, accepted.id, 1_000) {
        assert_eq!(position, end);
        end += bytes.len() as u64;
    }
    end
}

#[test]
fn what_cannot_be_is_an_error_and_changes_nothing() {
    let (mut world, accepted) = accepted(small(), 100);
    let now = world.now;
    let id = accepted.id;
    let stack = stack(&mut world);
    let mut refused = |transaction| stack.commit(now, id, transaction).unwrap_err();
    let new = Transaction::new;
    let beyond = CommitError::BeyondRead { wanted: 1, outstanding: 0 };
    assert_eq!(refused(new().acknowledge(1)), beyond, "nothing was read");
    assert_eq!(refused(new().acknowledge_end()), CommitError::NotAtEnd);
    let too_long = CommitError::StateTooLong { len: 11, limit: 10 };
    assert_eq!(refused(new().state("eleven long")), too_long);
    let too_much = CommitError::OutputTooLong { len: 5_001, limit: 5_000 };
    assert_eq!(refused(new().write(vec![0; 5_001])), too_much);

    assert_eq!(read_all(stack, now, &accepted), 100);
    assert_eq!(stack.read(now, id, 1), Ok(Chunk::End { position: 100 }));
    let beyond = CommitError::BeyondRead { wanted: 101, outstanding: 100 };
    assert_eq!(stack.commit(now, id, new().acknowledge(101).write("no")), Err(beyond));
    let early = stack.commit(now, id, new().acknowledge(99).acknowledge_end());
    assert_eq!(early, Err(CommitError::NotAtEnd), "one byte before it is not acknowledged");
    assert_eq!(stack.outstanding(id), Ok(100), "nothing of it was done");
    let number = stack.commit(now, id, new().acknowledge(100).acknowledge_end().end()).unwrap();
    assert_eq!(stack.is_committed(id, number), Ok(true));
    assert_eq!(stack.commit(now, id, new().write("late")), Err(CommitError::Ended));

    stack.close(now, id);
    assert_eq!(stack.read(now, id, 1), Err(Closed::Unknown));
    let unknown = CommitError::Closed(Closed::Unknown);
    assert_eq!(stack.commit(now, id, new()), Err(unknown));
    assert_eq!(stack.listen(local(), 1), Err(ListenError::InUse(local())));
    world.drive_node(0);
    assert!(world.run(Duration::from_secs(1), World::all_finished));
}

#[test]
fn reading_on_without_acknowledging_ends_at_the_limit() {
    let (mut world, accepted) = accepted(small(), 20_000);
    let mut end = accepted.position;
    for _ in 0..100 {
        world.run(Duration::from_millis(50), |_| false);
        let now = world.now;
        let from = Accepted { position: end, ..accepted.clone() };
        end = read_all(stack(&mut world), now, &from);
        world.drive_node(0);
    }
    // The client does not send what is less than a segment into what is left of the window.
    assert!((4_600..=6_000).contains(&end), "{end}: the window follows from what is acknowledged");
    let now = world.now;
    stack(&mut world).commit(now, accepted.id, Transaction::new().acknowledge(end as u32)).unwrap();
    world.drive_node(0);
    world.run(Duration::from_secs(2), |_| false);
    let now = world.now;
    let from = Accepted { position: end, ..accepted };
    assert!(read_all(stack(&mut world), now, &from) > end);
}

#[test]
fn output_waits_for_room() {
    let (mut world, accepted) = accepted(small(), 1);
    let now = world.now;
    let id = accepted.id;
    let stack_ = stack(&mut world);
    let write = |len: usize| Transaction::new().write(vec![b'x'; len]);
    assert_eq!(stack_.room(id), Ok(5_000));
    stack_.commit(now, id, write(4_000)).unwrap();
    assert_eq!(stack_.commit(now, id, write(1_001)), Err(CommitError::NoRoom));
    stack_.commit(now, id, write(1_000)).unwrap();
    assert_eq!(stack_.room(id), Ok(0));
    world.drive_node(0);
    world.run(Duration::from_millis(100), |_| false);
    assert_eq!(stack(&mut world).room(id), Ok(5_000));
    assert_eq!(world.clients[0].got.len(), 5_000);
}

#[test]
fn bytes_that_nobody_acknowledges_end_the_connection_in_time() {
    let limit = Duration::from_secs(3);
    let (mut world, accepted) =
        accepted(StackConfig { commit_timeout: Some(limit), ..small() }, 5_000);
    assert!(world.run(Duration::from_secs(5), World::all_finished));
    assert_eq!(world.clients[0].end, Some(outlive_tcp::endpoint::End::ResetByPeer));
    let closed = Closed::CommitTimeout(limit);
    let now = world.now;
    let stack = stack(&mut world);
    assert_eq!(stack.commit(now, accepted.id, Transaction::new()), Err(closed.into()));
}

#[test]
fn a_connection_that_is_let_go_with_unacknowledged_bytes_is_reset() {
    let (mut world, accepted) = accepted(small(), 100);
    let now = world.now;
    assert_eq!(read_all(stack(&mut world), now, &accepted), 100);
    stack(&mut world).close(now, accepted.id);
    world.drive_node(0);
    assert!(world.run(Duration::from_secs(1), World::all_finished));
    assert_eq!(world.clients[0].end, Some(outlive_tcp::endpoint::End::ResetByPeer));
    assert_eq!(stack(&mut world).connections(), 0);
}

/// A backlog of 16: the seventeenth handshake that is under way has no state, and works.
#[test]
fn a_flood_costs_no_more_than_the_backlog() {
    let mut world = World::new(StackConfig::default());
    world.step();
    for _ in 0..300 {
        // The client vanishes behind its SYN.
        let number = world.connect(Vec::new());
        world.clients[number].gone = true;
    }
    world.run(Duration::from_millis(100), |_| false);
    let counters = stack(&mut world).counters();
    assert_eq!(stack(&mut world).connections(), 16);
    assert_eq!(counters.cookies_sent, 300 - 16);
    let honest = world.connect(data(1, 30_000));
    assert!(world.run(Duration::from_secs(20), |world| world.clients[honest].finished));
    assert_eq!(world.clients[honest].got.len(), 30_000);
    assert_eq!(stack(&mut world).counters().cookies_accepted, 1);
    // In the end nobody is left.
    world.run(Duration::from_secs(300), |_| false);
    assert_eq!(stack(&mut world).connections(), 0);
}

#[test]
fn a_listener_that_nobody_serves_fills_up_and_no_further() {
    let mut world = World::new(StackConfig::default());
    world.idle = true;
    for _ in 0..100 {
        world.connect(data(1, 10));
    }
    world.run(Duration::from_secs(1), |_| false);
    assert!(stack(&mut world).connections() <= 32);
    let counters = stack(&mut world).counters();
    assert!(counters.refused > 0, "{counters:?}");
}

#[test]
fn packets_of_any_kind_are_survived() {
    let mut world = World::new(StackConfig::default());
    world.connect(data(0, 1_000));
    world.run(Duration::from_millis(20), |_| false);
    let mut random = fastrand::Rng::with_seed(3);
    let stack = stack(&mut world);
    let template = {
        let segment = outlive_tcp::segment::Segment {
            tuple: outlive_tcp::wire::FourTuple::new(
                outlive_tcp::wire::Endpoint::new([198, 51, 100, 7].into(), 40_000),
                local(),
            ),
            seq: outlive_tcp::seq::Seq(1),
            ack: Some(outlive_tcp::seq::Seq(1)),
            flags: outlive_tcp::wire::Flags::NONE,
            window: 1_000,
            options: Default::default(),
            payload: b"forged",
            hop_limit: 64,
        };
        let mut packet = Vec::new();
        segment.emit(&mut packet);
        packet
    };
    for round in 0..20_000 {
        let mut packet = template.clone();
        for _ in 0..random.usize(1..5) {
            let at = random.usize(0..packet.len());
            packet[at] = random.u8(..);
        }
        packet.truncate(random.usize(0..=packet.len()));
        let offload = outlive_tcp::wire::Offload {
            checksum: outlive_tcp::wire::Checksum::Verified,
            ..Default::default()
        };
        let now = us(20_000_000 + round);
        stack.handle_packet(now, &mut packet, offload);
        while stack.poll_transmit(now).is_some() {}
    }
    assert!(stack.connections() < 40);
}
