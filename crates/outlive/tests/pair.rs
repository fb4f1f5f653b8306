//! Two running nodes, real kernels at both ends.

mod common;
#[path = "pair/drain.rs"]
mod drain;
#[path = "pair/handover.rs"]
mod handover;
#[path = "pair/killed.rs"]
mod killed;
#[path = "pair/migration.rs"]
mod migration;
#[path = "pair/reload.rs"]
mod reload;
mod routed;

use common::{Network, Node, VIRTUAL, connect, echo_server, outlive, say};
use outlive_net::netlink::ROUTE_PROTOCOL;

const LISTENER: &str = r#"
[[listener]]
name = "echo"
address = ["10.77.0.100:7", "[fd77::100]:7"]
pool = "echo"

[[pool]]
name = "echo"
servers = ["10.77.0.20:7", "[fd77::20]:7"]
"#;

#[test]
fn connections_outlive_the_active_node_twice() {
    let Some(network) = Network::new() else { return };
    let [a_host, b_host, client, server] = [1, 2, 10, 20].map(|number| network.host(number));
    echo_server(&server, "10.77.0.20:7");
    echo_server(&server, "[fd77::20]:7");
    let a_config = network.config("a", 1, 2, LISTENER);
    let b_config = network.config("b", 2, 1, LISTENER);

    let mut a = Node::start(&a_host, &a_config);
    a.is("active");
    let mut b = Node::start(&b_host, &b_config);
    b.is("standby");
    a.is_survivable();
    b.is_survivable();

    let mut v4 = connect(&client, VIRTUAL.parse().unwrap(), 7);
    let mut v6 = connect(&client, "fd77::100".parse().unwrap(), 7);
    say(&mut v4, b"before");
    say(&mut v6, b"before");
    let bulk: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut reader = v4.try_clone().unwrap();

    a.kill();
    say(&mut v4, b"after the first death");
    say(&mut v6, b"after the first death");
    b.is("active");

    // The failed node comes back, is told everything, and is then the one that survives.
    let a = Node::start(&a_host, &a_config);
    a.is("standby");
    a.is_survivable();
    let sent = bulk.clone();
    let mut writer = v4.try_clone().unwrap();
    let writing = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &sent));
    let mut received = vec![0; bulk.len()];
    let (first, second) = received.split_at_mut(100_000);
    std::io::Read::read_exact(&mut reader, first).unwrap();
    b.kill();
    std::io::Read::read_exact(&mut reader, second).unwrap();
    writing.join().unwrap().unwrap();
    assert!(received == bulk, "bytes were changed");
    say(&mut v6, b"after the second death");
    a.is("active");
    assert_eq!(a.stop(), Some(0));
}

#[test]
fn a_frozen_node_and_one_that_is_cut_off_yield() {
    let Some(network) = Network::new() else { return };
    let [a_host, b_host, client, server] = [1, 2, 10, 20].map(|number| network.host(number));
    echo_server(&server, "10.77.0.20:7");
    let a = Node::start(&a_host, &network.config("a", 1, 2, LISTENER));
    a.is("active");
    let b = Node::start(&b_host, &network.config("b", 2, 1, LISTENER));
    b.is_survivable();
    let mut stream = connect(&client, VIRTUAL.parse().unwrap(), 7);
    say(&mut stream, b"before");

    a.signal("STOP");
    say(&mut stream, b"while the active node is frozen");
    b.is("active");
    a.signal("CONT");
    a.is("standby");
    say(&mut stream, b"after it thawed");
    a.is_survivable();

    // Now the other one's cable: it goes on believing that it is active until it hears better.
    network.cable(2, false);
    say(&mut stream, b"while the active node is cut off");
    a.is("active");
    network.cable(2, true);
    b.is("standby");
    say(&mut stream, b"after the cable is back");
    a.is_survivable();
    say(&mut stream, b"and when everything is in order again");
}

#[test]
fn a_pair_may_be_as_quick_as_it_can_be_configured() {
    let Some(network) = Network::new() else { return };
    let [a_host, b_host, client, server] = [1, 2, 10, 20].map(|number| network.host(number));
    echo_server(&server, "10.77.0.20:7");
    let quick = |config: std::path::PathBuf| {
        let text = std::fs::read_to_string(&config).unwrap();
        let times = "detection_timeout = \"20ms\"\nheartbeat_interval = \"5ms\"";
        std::fs::write(&config, text.replace("detection_timeout = \"200ms\"", times)).unwrap();
        config
    };
    let (a_config, b_config) =
        (quick(network.config("a", 1, 2, LISTENER)), quick(network.config("b", 2, 1, LISTENER)));
    let a = Node::start(&a_host, &a_config);
    let b = Node::start(&b_host, &b_config);
    a.is_survivable();
    b.is_survivable();
    let mut stream = connect(&client, VIRTUAL.parse().unwrap(), 7);
    say(&mut stream, b"before");
    // On a busy machine either may have taken over from the other meanwhile, which is no loss.
    let a_serves = a.status()["role"] == "active";
    let (mut active, standby) = if a_serves { (a, b) } else { (b, a) };
    active.kill();
    say(&mut stream, b"after");
    standby.is("active");
}

#[test]
fn metrics_can_be_scraped_before_and_after_a_takeover() {
    let Some(network) = Network::new() else { return };
    let [a_host, b_host, client, server] = [1, 2, 10, 20].map(|number| network.host(number));
    echo_server(&server, "10.77.0.20:7");
    let metrics =
        |number: u8| format!("{LISTENER}\n[metrics]\nlisten = \"10.77.0.{number}:9464\"\n");
    let mut a = Node::start(&a_host, &network.config("a", 1, 2, &metrics(1)));
    a.is("active");
    let b = Node::start(&b_host, &network.config("b", 2, 1, &metrics(2)));
    a.is_survivable();
    b.is_survivable();
    let mut streams = [(); 3].map(|()| connect(&client, VIRTUAL.parse().unwrap(), 7));
    streams.iter_mut().for_each(|stream| say(stream, b"before"));

    let text = scrape(&client, "10.77.0.1:9464");
    for line in [
        "outlive_role{role=\"active\"} 1",
        "outlive_survivable 1",
        "outlive_synchronised 1",
        "outlive_sessions{state=\"open\"} 3",
        "outlive_listener_sessions{listener=\"echo\",address=\"10.77.0.100:7\"} 3",
        "outlive_listener_sessions_opened_total{listener=\"echo\",address=\"10.77.0.100:7\"} 3",
        "outlive_server_connections_total{server=\"10.77.0.20:7\"} 3",
        "outlive_takeovers_total 0",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} is missing in:\n{text}");
    }

    a.kill();
    b.is("active");
    streams.iter_mut().for_each(|stream| say(stream, b"after"));
    let text = scrape(&client, "10.77.0.2:9464");
    for line in [
        "outlive_role{role=\"active\"} 1",
        "outlive_survivable 0",
        "outlive_peer_alive 0",
        "outlive_sessions{state=\"open\"} 3",
        "outlive_listener_sessions_opened_total{listener=\"echo\",address=\"10.77.0.100:7\"} 0",
        "outlive_takeovers_total 1",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} is missing in:\n{text}");
    }
}

#[test]
fn a_detector_decides_for_nodes_that_announce_themselves_and_tells_a_command() {
    let Some(network) = Network::new() else { return };
    let [a_host, b_host, client, server, third] =
        [1, 2, 10, 20, 30].map(|number| network.host(number));
    echo_server(&server, "10.77.0.20:7");
    let external = |number: u8| {
        let watch = format!("[watch]\nlisten = [\"10.77.0.{number}:7402\"]");
        format!("detector = \"external\"\n{watch}\n{LISTENER}")
    };
    let mut a = Node::start(&a_host, &network.config("a", 1, 2, &external(1)));
    let b = Node::start(&b_host, &network.config("b", 2, 1, &external(2)));
    // Nobody watches, so nobody would tell b.
    let because = |status: &serde_json::Value| status["survival"]["because"].to_string();
    let unwatched = |status: &serde_json::Value| because(status).contains("no external detector");
    a.until("unwatched", unwatched);

    let told = network.path("told");
    let detector = format!(
        r#"
[watch]
key_file = "watch.key"
timeout = "300ms"

[node.a]
addresses = ["10.77.0.1:7402"]

[node.b]
addresses = ["10.77.0.2:7402"]

[check]
address = "10.77.0.100:7"
send = "hello"
timeout = "1s"
failures = 1

[[switch]]
driver = "exec"
command = ["/bin/sh", "-c", "echo \"$@\" >> {}", "switch"]
"#,
        told.display()
    );
    let config = network.path("watch.toml");
    std::fs::write(&config, detector).unwrap();
    let made = |arguments: &[&std::ffi::OsStr]| outlive().args(arguments).output().unwrap();
    let (pair_key, watch_key) = (network.path("pair.key"), network.path("watch.key"));
    let keygen = ["keygen".as_ref(), "--watch".as_ref(), pair_key.as_os_str()];
    let output = ["--output".as_ref(), watch_key.as_os_str()];
    assert!(made(&[keygen.as_slice(), &output].concat()).status.success());
    let checked =
        made(&["watch".as_ref(), "--check".as_ref(), "--config".as_ref(), config.as_ref()]);
    assert!(checked.status.success(), "{checked:?}");

    let _detector = Node::watch(&third, &config);
    a.is_survivable();
    b.is_survivable();
    let mut stream = connect(&client, VIRTUAL.parse().unwrap(), 7);
    say(&mut stream, b"before");
    a.kill();
    b.is("active");
    say(&mut stream, b"after");
    let told = std::fs::read_to_string(told).unwrap();
    let lines: Vec<Vec<&str>> = told.lines().map(|line| line.split(' ').collect()).collect();
    let [first, last] = &lines[..] else { panic!("{told}") };
    assert_eq!(
        (&first[..3], &last[..3]),
        (&["redirect", "a", "b"][..], &["redirect", "b", "a"][..])
    );
}

/// The metrics at `address`, asked for from `host`.
fn scrape(host: &outlive_net::netns::Namespace, address: &str) -> String {
    use std::io::{Read, Write};
    let (ip, port) = address.split_once(':').unwrap();
    let mut stream = connect(host, ip.parse().unwrap(), port.parse().unwrap());
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    body.to_owned()
}

#[test]
fn a_stopped_node_leaves_nothing_behind() {
    let Some(network) = Network::new() else { return };
    let [host, server] = [1, 20].map(|number| network.host(number));
    echo_server(&server, "10.77.0.20:7");
    let config = network.config("a", 1, 2, LISTENER);
    let own = |host: &outlive_net::netns::Namespace| {
        let netlink = host.netlink().unwrap();
        let routes = netlink.routes().unwrap().into_iter();
        let routes = routes.filter(|route| route.protocol == ROUTE_PROTOCOL).count();
        (routes, netlink.links().unwrap().iter().any(|link| link.name == "outlive0"))
    };
    let node = Node::start(&host, &config);
    let status = node.is("active");
    assert_eq!(status["survival"]["survives"], false);
    assert_eq!(own(&host), (4, true));
    // A second one, or another on the same addresses, is refused and harms nobody.
    let mut again = outlive();
    again.arg("run").arg("--config").arg(&config);
    let again = host.enclose(&mut again).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(said.contains("another node is running"), "{said}");
    assert_eq!(own(&host), (4, true));

    assert_eq!(node.stop(), Some(0));
    assert_eq!(own(&host), (0, false));
    assert!(!network.path("a.sock").exists());

    // One that is killed leaves silence, not refusal; the next start takes it over.
    let mut node = Node::start(&host, &config);
    node.is("active");
    node.kill();
    // What goes on for a moment is seen in `killed`.
    killed::until_gone(&host);
    assert_eq!(own(&host), (2, false));
    let node = Node::start(&host, &config);
    node.is("active");
    assert!(node.log().contains("left behind"));
    assert_eq!(node.stop(), Some(0));
    assert_eq!(own(&host), (0, false));
}

#[test]
fn check_tells_everything_and_changes_nothing() {
    let Some(network) = Network::new() else { return };
    let host = network.host(1);
    let config = network.config("a", 1, 2, LISTENER);
    let check = |config: &std::path::Path| {
        let mut command = outlive();
        command.arg("check").arg("--config").arg(config);
        let output = host.enclose(&mut command).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (status, said) = check(&config);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("eth0 will answer for 10.77.0.100, fd77::100"), "{said}");

    let text = std::fs::read_to_string(&config).unwrap();
    let wrong = text
        .replace("set_sysctls = true", "")
        .replace("\"eth0\"", "\"eth7\"")
        .replace("10.77.0.1:7401", "10.77.0.9:7401")
        .replace("pair.key", "no.key");
    std::fs::write(&config, wrong).unwrap();
    let (status, said) = check(&config);
    assert_eq!(status, Some(1));
    for expected in [
        "a.toml:4:15: there is no interface eth7",
        "a.toml:10:24: 10.77.0.9 is not an address of this machine",
        "no.key: there is no such key file",
        "outlive keygen --output",
        "net/ipv4/ip_forward is 0, but must be 1",
        "net/ipv6/conf/all/forwarding is 0, but must be 1",
        "5 problems",
    ] {
        assert!(said.contains(expected), "{expected} is missing in:\n{said}");
    }
}
