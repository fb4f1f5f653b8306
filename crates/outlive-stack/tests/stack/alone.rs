//! A stack without a peer.

use std::time::Duration;

use outlive_stack::StackConfig;

use crate::world::{World, answer, data};

#[test]
fn bytes_are_echoed_once_they_are_safe() {
    let mut world = World::new(StackConfig::default());
    for number in 0..5 {
        world.connect(data(number, 100_000 * number));
    }
    assert!(world.run(Duration::from_secs(60), World::all_finished));
    for (number, client) in world.clients.iter().enumerate() {
        assert_eq!(client.got, answer(&data(number, 100_000 * number)));
    }
    let mut union: Vec<_> = world.union().into_values().collect();
    union.sort_by_key(Vec::len);
    assert_eq!(union[1], data(2, 200_000), "one that sent nothing has no entry");
    // TIME-WAIT, if any, is over.
    world.run(Duration::from_secs(200), |_| false);
    assert_eq!(world.nodes[0].as_ref().unwrap().stack.connections(), 0);
}

#[test]
fn a_lossy_network_changes_nothing() {
    let mut world = World::new(StackConfig::default());
    world.loss = 5;
    for number in 0..5 {
        world.connect(data(number, 50_000));
    }
    assert!(world.run(Duration::from_secs(600), World::all_finished));
    for (number, client) in world.clients.iter().enumerate() {
        assert_eq!(client.got, answer(&data(number, 50_000)));
    }
}
