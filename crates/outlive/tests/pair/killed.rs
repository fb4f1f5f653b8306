//! What a node that was killed leaves behind: for a moment, the kernel that goes on with its sessions; then nothing.

use std::{fs, time::Duration};

use outlive_lab::clock::wait_until;
use outlive_net::netns::Namespace;

use super::LISTENER;
use crate::common::{Network, Node, VIRTUAL, connect, echo_server, outlive, say};

/// The TUN device that a node has when nothing else is configured.
const DEVICE: &str = "outlive0";

#[test]
fn established_sessions_go_on_without_the_process_until_its_death_must_have_been_noticed() {
    let Some(network) = Network::new() else { return };
    let [host, client, server] = [1, 10, 20].map(|number| network.host(number));
    echo_server(&server, "10.77.0.20:7");
    let config = network.config("a", 1, 2, LISTENER);
    let text = fs::read_to_string(&config).unwrap();
    // Its peer is never there, and nobody takes over: what answers is the kernel.
    fs::write(&config, text.replace("\"200ms\"", "\"5s\"")).unwrap();
    let mut node = Node::start(&host, &config);
    let status = node.is("active");
    if let Some(reason) = status["fast_path"]["unavailable_because"].as_str() {
        eprintln!("SKIPPED: this kernel cannot go on alone: {reason}");
        return;
    }
    let mut stream = connect(&client, VIRTUAL.parse().unwrap(), 7);
    say(&mut stream, b"while the process runs");
    node.until("left to the kernel", |status| status["fast_path"]["sessions"] == 1);

    node.kill();
    say(&mut stream, b"while nobody has noticed that it was killed");
    until_gone(&host);
}

#[test]
fn a_killed_node_can_be_started_again_at_once() {
    let Some(network) = Network::new() else { return };
    let [a_host, b_host] = [1, 2].map(|number| network.host(number));
    let a_config = network.config("a", 1, 2, LISTENER);
    let mut a = Node::start(&a_host, &a_config);
    let b = Node::start(&b_host, &network.config("b", 2, 1, LISTENER));
    b.is_survivable();

    a.kill();
    let a = Node::start(&a_host, &a_config);
    a.is_survivable();
    assert_eq!((a.stop(), b.stop()), (Some(0), Some(0)));
    // Whoever stops in order leaves nothing for a moment, either.
    assert!([a_host, b_host].iter().all(|host| host.netlink().unwrap().link(DEVICE).is_err()));
}

#[test]
fn what_is_held_for_a_node_ends_with_it() {
    let mut command = outlive();
    command.args(["hold", "1000"]).stdin(std::process::Stdio::piped());
    let mut keeper = command.spawn().unwrap();
    assert!(keeper.try_wait().unwrap().is_none(), "its starter is still there");
    drop(keeper.stdin.take());
    assert!(keeper.wait().unwrap().success());
}

/// Waits until the device of a node that was killed is gone.
pub(crate) fn until_gone(host: &Namespace) {
    let gone = || host.netlink().unwrap().link(DEVICE).is_err();
    assert!(wait_until(Duration::from_secs(60), gone), "{DEVICE} is still there");
}
