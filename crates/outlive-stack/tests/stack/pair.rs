//! Two stacks: the one that serves dies before each of its outputs.

use std::time::Duration;

use outlive_stack::{Closed, Standing};
use outlive_tcp::endpoint::Config;

use crate::world::{World, answer, data};

const MINUTES: Duration = Duration::from_secs(600);

/// A pair that is synchronised, and clients that have just sent their SYN.
fn protected(lens: &[usize], loss: u32) -> World {
    let mut world = World::pair(|config| {
        config.tcp = Config { receive_buffer: 9_000, withheld_limit: 12_000, ..Config::default() };
    });
    assert!(world.run(Duration::from_secs(5), World::is_protected), "{:?}", world.log_events);
    world.loss = loss;
    (world.outputs, world.died) = (0, false);
    for (number, len) in lens.iter().enumerate() {
        world.connect(data(number, *len));
    }
    world
}

fn assert_complete(world: &World, lens: &[usize]) {
    for (number, len) in lens.iter().enumerate() {
        let client = &world.clients[number];
        let what = format!("client {number}, died at {:?}, {:?}", world.die_at, world.log_events);
        assert!(client.finished, "{what}: {:?} {:?}", client.end, client.conn);
        assert_eq!(client.got, answer(&data(number, *len)), "{what}");
    }
    let mut written: Vec<Vec<u8>> = world.union().into_values().collect();
    let mut sent: Vec<Vec<u8>> = lens.iter().enumerate().map(|(i, len)| data(i, *len)).collect();
    written.sort();
    sent.sort();
    assert_eq!(written, sent, "died at {:?}: each byte once", world.die_at);
}

/// Returns whether the node died.
fn dies_at(output: u64, lens: &[usize], loss: u32) -> bool {
    let mut world = protected(lens, loss);
    world.die_at = Some(output);
    let finished = world.run(MINUTES, World::all_finished);
    assert!(finished, "died at {output}: {:?}", world.log_events);
    assert_complete(&world, lens);
    world.died
}

fn at_every_output(lens: &[usize], loss: u32, step: usize) {
    let outputs = (1..).step_by(step).take_while(|output| dies_at(*output, lens, loss)).count();
    assert!(outputs * step > 20, "only {outputs} deaths");
}

#[test]
fn every_connection_goes_on_whenever_the_node_dies() {
    at_every_output(&[5_000, 20_000], 0, 1);
}

#[test]
fn so_it_does_on_a_bad_network() {
    at_every_output(&[3_000, 12_000], 5, 3);
}

#[test]
fn many_short_connections_go_on() {
    at_every_output(&[1, 10, 100, 1_000, 2, 20, 200, 2_000], 0, 2);
}

#[test]
fn nothing_leaves_before_the_standby_has_confirmed() {
    let mut world = protected(&[5_000], 0);
    // The standby hears, and its confirmations get lost on the way.
    world.mute = Some(1);
    world.run(Duration::from_millis(300), |_| false);
    assert_eq!(world.nodes[0].as_ref().unwrap().program.log.len(), 0, "not even accepted");
    let backlog = world.nodes[0].as_ref().unwrap().stack.backlog(world.now);
    assert!(backlog.unconfirmed > 0, "the program can see that the standby does not keep up");
    assert!(backlog.oldest > Duration::from_millis(200), "{backlog:?}");
    let client = &world.clients[0];
    assert!(client.got.is_empty() && client.conn.unacknowledged() > 0);
    // It is given up, and the node goes on alone.
    assert!(world.run(MINUTES, World::all_finished));
    assert_complete(&world, &[5_000]);
}

#[test]
fn a_node_whose_standby_dies_goes_on_alone_and_is_protected_again() {
    let lens = [200_000, 30_000];
    let mut world = protected(&lens, 0);
    world.run(Duration::from_millis(20), |_| false);
    world.kill(1);
    assert!(world.run(MINUTES, |world| {
        world.nodes[0].as_ref().unwrap().stack.standing() == Standing::Alone
    }));
    world.run(Duration::from_millis(30), |_| false);
    world.start(1);
    assert!(world.run(MINUTES, World::is_protected), "{:?}", world.log_events);
    assert!(world.run(MINUTES, World::all_finished));
    assert_complete(&world, &lens);
}

/// Connections that end while the standby, which had not heard of them yet, is away do not count when it is back.
#[test]
fn a_synchronisation_that_was_cut_short_is_forgotten() {
    let lens = [40_000, 5_000, 5_000];
    let mut world = protected(&lens, 0);
    world.run(Duration::from_millis(8), |_| false);
    let now = world.now;
    let [node, standby] = world.nodes.each_mut().map(|node| &mut node.as_mut().unwrap().stack);
    for stack in [&mut *node, &mut *standby] {
        stack.handle_state_closed(now);
        stack.handle_state_connected(now);
    }
    let mut hello = Vec::new();
    assert!(standby.poll_state_message(now, &mut hello));
    node.handle_state_message(now, &hello).unwrap();
    // There was no room for a word of what is to be told now.
    node.handle_state_closed(now);
    world.kill(1);
    assert!(world.run(MINUTES, World::all_finished), "{:?}", world.log_events);
    world.run(Duration::from_secs(120), |_| false);
    world.start(1);
    assert!(world.run(MINUTES, World::is_protected), "{:?}", world.log_events);
    assert_complete(&world, &lens);
}

#[test]
fn a_connection_survives_one_node_after_the_other() {
    let lens = [400_000, 300_000];
    let mut world = protected(&lens, 0);
    world.commit_delay = Duration::from_millis(20);
    let mut deaths = 0;
    while !world.all_finished() {
        world.run(Duration::from_millis(150), World::all_finished);
        if world.all_finished() || !world.is_protected() {
            continue;
        }
        let active = world.owner;
        world.kill(active);
        deaths += 1;
        world.run(Duration::from_secs(2), |world| world.owner != active);
        world.start(active);
        world.run(Duration::from_secs(5), World::is_protected);
    }
    assert_complete(&world, &lens);
    assert!(deaths > 2, "only {deaths} deaths");
    let resumed = |world: &World| world.nodes.iter().flatten().any(|n| n.program.resumed > 0);
    assert!(resumed(&world) || deaths > 0);
}

/// Its standby took over meanwhile, served, and died: what this node has of the connections is not true any more.
#[test]
fn a_node_that_was_replaced_while_it_stood_still_resets_rather_than_errs() {
    let lens = [1_000_000];
    let mut world = protected(&lens, 0);
    world.run(Duration::from_millis(10), |_| false);
    world.freeze(0, Duration::from_secs(1));
    assert!(world.run(MINUTES, |world| world.owner == 1), "{:?}", world.log_events);
    world.run(Duration::from_millis(100), |_| false);
    let before = world.clients[0].got.len();
    world.kill(1);
    world.owner = 0;
    assert!(world.run(MINUTES, World::all_finished), "{:?}", world.log_events);
    let client = &world.clients[0];
    assert!(client.got.len() >= before && !client.finished);
    assert_eq!(client.got, answer(&data(0, lens[0]))[..client.got.len()], "nothing wrong");
    let node = &world.nodes[0].as_ref().unwrap();
    assert_eq!(node.program.closed, [Closed::Unusable], "{:?}", world.log_events);
}

#[test]
fn a_node_that_was_cut_off_yields_and_tells_its_program() {
    let lens = [100_000];
    let mut world = protected(&lens, 0);
    world.run(Duration::from_millis(10), |_| false);
    // It stands still for a second: no packet, no heartbeat, no message.
    world.freeze(0, Duration::from_secs(1));
    assert!(world.run(MINUTES, World::all_finished), "{:?}", world.log_events);
    assert_complete(&world, &lens);
    world.run(Duration::from_secs(3), |_| false);
    assert_eq!(world.owner, 1);
    let old = &world.nodes[0].as_ref().unwrap();
    assert_eq!(old.program.closed, [Closed::Moved], "{:?}", world.log_events);
    assert!(matches!(old.stack.standing(), Standing::Standby { .. }));
}
