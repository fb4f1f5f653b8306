//! Commands, and routes in a network namespace.

use std::{
    fs,
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use mio::{Events, Poll, Token};
use outlive_net::{
    netlink::{AddressOptions, ROUTE_PROTOCOL, RouteTarget, TABLE_MAIN},
    netns::Namespace,
};

use super::*;

const TO_B: Redirection = Redirection { to: NodeId::B, epoch: Epoch(2_001), again: false };

fn shell(script: &str, limit: Duration) -> ExecSwitch {
    // What follows the script is its $0.
    let command = ["/bin/sh", "-c", script, "switch"].map(str::to_owned);
    ExecSwitch::new(command.to_vec(), limit)
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_command_is_told_what_has_happened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("told");
    let script = format!("echo \"$@\" > {}", path.display());
    shell(&script, LONG).redirect(&TO_B).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "redirect b a 1000b\n");
}

#[test]
fn a_command_that_fails_hangs_or_is_not_there_has_not_redirected() {
    let failed = shell("exit 3", LONG).redirect(&TO_B).unwrap_err();
    assert!(matches!(&failed, SwitchError::Failed { status, .. } if status.code() == Some(3)));

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("child");
    let script = format!("sleep 1000 & echo $! > {}; wait", path.display());
    // So long that the shell has surely come to its second command.
    let hangs = shell(&script, Duration::from_secs(1)).redirect(&TO_B).unwrap_err();
    assert!(matches!(hangs, SwitchError::TooLong { .. }));
    let child = fs::read_to_string(&path).unwrap();
    let state = Path::new("/proc").join(child.trim()).join("stat");
    // A kill is carried out when the process runs next, and whoever inherited it may not have looked
    // yet: it is gone, or listed as dead, in the end.
    let state = || fs::read_to_string(&state).unwrap_or_default();
    let ended = |state: &str| state.is_empty() || state.contains(") Z ");
    let until = Instant::now() + LONG;
    while !ended(&state()) {
        assert!(Instant::now() < until, "its child goes on: {}", state());
        std::thread::yield_now();
    }

    let none = ExecSwitch::new(vec!["/nonexistent/switch".to_owned()], LONG);
    assert!(matches!(none.redirect(&TO_B).unwrap_err(), SwitchError::Command { .. }));
}

#[test]
fn all_switches_must_have_done_it_and_commands_are_not_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("told");
    let note =
        |what: &str| Switch::Exec(shell(&format!("echo {what} >> {}", path.display()), LONG));
    let poll = Poll::new().unwrap();
    let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
    let broken = Switch::Exec(shell("false", LONG));
    let switches =
        Switches::start(vec![note("one"), note("two"), broken, note("three")], waker).unwrap();
    switches.request(TO_B);
    switches.request(Redirection { again: true, ..TO_B });
    switches.request(Redirection { to: NodeId::A, ..TO_B });
    let mut results = Vec::new();
    let mut poll = poll;
    while results.len() < 2 {
        // A signal may interrupt it.
        let _ = poll.poll(&mut Events::with_capacity(4), Some(Duration::from_millis(50)));
        results.extend(std::iter::from_fn(|| switches.poll()));
    }
    assert_eq!(results, [(NodeId::B, false), (NodeId::A, false)]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\none\ntwo\n");
}

#[test]
fn routes_lead_to_the_node_and_back() {
    let namespace = match Namespace::create() {
        Ok(namespace) => namespace,
        Err(error) => return eprintln!("SKIPPED: this test needs a privileged user: {error}"),
    };
    let netlink = namespace.netlink().unwrap();
    let options = AddressOptions { no_dad: true, ..AddressOptions::default() };
    for (device, other, address, v6) in
        [("a0", "a1", "10.1.0.254/24", "fd01::ff/64"), ("b0", "b1", "10.2.0.254/24", "fd02::ff/64")]
    {
        netlink.add_veth(device, other, None).unwrap();
        for text in [address, v6] {
            let address: IpNet = text.parse().unwrap();
            netlink.add_address(device, address, options).unwrap();
        }
        netlink.set_up(other, true).unwrap();
        netlink.set_up(device, true).unwrap();
    }
    let nets = ["10.9.0.100/32", "10.9.0.101/32", "fd09::100/128"].map(|net| net.parse().unwrap());
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let via = [vec![ip("10.1.0.1"), ip("fd01::1")], vec![ip("10.2.0.1"), ip("fd02::1")]];
    let switch = namespace.run(|| RouteSwitch::new(&nets, &via, TABLE_MAIN, 0)).unwrap().unwrap();
    let targets = || {
        let routes = netlink.routes().unwrap().into_iter();
        let ours = routes.filter(|route| route.protocol == ROUTE_PROTOCOL);
        let mut targets: Vec<(IpNet, IpAddr)> = ours
            .map(|route| match route.target {
                RouteTarget::Gateway { address, .. } => (route.destination, address),
                other => panic!("{other:?}"),
            })
            .collect();
        targets.sort();
        targets
    };
    for (node, v4, v6) in [
        (NodeId::A, "10.1.0.1", "fd01::1"),
        (NodeId::B, "10.2.0.1", "fd02::1"),
        (NodeId::B, "10.2.0.1", "fd02::1"),
        (NodeId::A, "10.1.0.1", "fd01::1"),
    ] {
        switch.redirect(node).unwrap();
        let expected = [(nets[0], ip(v4)), (nets[1], ip(v4)), (nets[2], ip(v6))];
        assert_eq!(targets(), expected);
    }
    // A link that was down has lost its routes; seeing to them brings them back.
    netlink.set_up("a0", false).unwrap();
    assert!(targets().len() < 3);
    netlink.set_up("a0", true).unwrap();
    netlink.add_address("a0", "fd01::ff/64".parse().unwrap(), options).ok();
    switch.redirect(NodeId::A).unwrap();
    assert_eq!(targets().len(), 3);
    // One that cannot be had is an error, and the others are there all the same.
    netlink.set_up("b0", false).unwrap();
    assert!(switch.redirect(NodeId::B).is_err());
}
