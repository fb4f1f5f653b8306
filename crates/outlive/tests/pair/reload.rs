//! Changed files, obeyed by running nodes.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use outlive_net::{netlink::ROUTE_PROTOCOL, netns::Namespace};

use crate::common::{Network, Node, VIRTUAL, connect, echo_server, outlive, say};

const BEFORE: &str = r#"
[timeouts]
time_wait = "200ms"
reset_linger = "200ms"

[[listener]]
name = "echo"
address = "10.77.0.100:7"
pool = "echo"

[[pool]]
name = "echo"
servers = ["10.77.0.20:7"]
"#;

/// Another address, another server, another port.
const AFTER: &str = r#"
[timeouts]
time_wait = "200ms"
reset_linger = "200ms"

[[listener]]
name = "new"
address = "10.77.0.110:9"
pool = "echo"

[[pool]]
name = "echo"
servers = ["10.77.0.21:7"]
"#;

fn command(word: &str, config: &Path) -> (bool, String) {
    let socket = config.with_extension("sock");
    let output = outlive().arg(word).arg("--socket").arg(socket).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

/// How many routes `host` has that an Outlive node made.
fn routes(host: &Namespace) -> usize {
    let routes = host.netlink().unwrap().routes().unwrap();
    routes.iter().filter(|route| route.protocol == ROUTE_PROTOCOL).count()
}

#[test]
fn a_changed_file_is_obeyed_and_nobody_is_cut_off() {
    let Some(network) = Network::new() else { return };
    let [a_host, b_host, client] = [1, 2, 10].map(|number| network.host(number));
    let [first, second] = [20, 21].map(|number| network.host(number));
    echo_server(&first, "10.77.0.20:7");
    echo_server(&second, "10.77.0.21:7");
    let configs = [network.config("a", 1, 2, BEFORE), network.config("b", 2, 1, BEFORE)];
    let mut a = Node::start(&a_host, &configs[0]);
    a.is("active");
    let b = Node::start(&b_host, &configs[1]);
    b.is_survivable();
    let mut old = connect(&client, VIRTUAL.parse().unwrap(), 7);
    say(&mut old, b"before");
    let (done, said) = command("reload", &configs[0]);
    assert!(done && said.contains("nothing is different"), "{said}");

    // A wrong file, and what cannot be changed: told with its place, and nothing happens.
    let right = fs::read_to_string(&configs[0]).unwrap();
    for (wrong, expected) in [
        (right.replace("pool = \"echo\"", "pool = \"nobody\""), "there is no pool named"),
        (right.replace("\"eth0\"", "\"eth1\""), "a.toml:4:15: interfaces cannot be changed"),
        (right.replace("\"pair.key\"", "\"other.key\""), "key_file cannot be changed"),
        (right.replace("\"200ms\"\n\n[tim", "\"300ms\"\n\n[tim"), "how the nodes watch each other"),
    ] {
        assert_ne!(wrong, right);
        fs::write(&configs[0], wrong).unwrap();
        let (done, said) = command("reload", &configs[0]);
        assert!(!done && said.contains(expected), "{expected}: {said}");
        assert!(said.contains("nothing was changed") && said.contains("help: "), "{said}");
        say(&mut old, b"still there");
    }

    // One node alone is told by a signal: both notice that they differ.
    let rewritten = [("a", 1, 2), ("b", 2, 1)];
    network.config("a", 1, 2, AFTER);
    a.signal("HUP");
    let differs = |status: &serde_json::Value| status["same_configuration"] == false;
    a.until("the difference", differs);
    b.until("the difference", differs);
    for (name, number, peer) in rewritten {
        let path = network.config(name, number, peer, AFTER);
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace("set_sysctls = true", "set_sysctls = true\nlog_connections = true");
        fs::write(&path, text).unwrap();
    }
    // Asked at either node, obeyed by both.
    let (done, said) = command("reload", &configs[0]);
    assert!(done && said.contains("The peer has the same configuration"), "{said}");

    // What was there goes on; new connections go where the new file says.
    say(&mut old, b"on a listener that is no more");
    let mut new = connect(&client, "10.77.0.110".parse().unwrap(), 9);
    say(&mut new, b"on a new one");
    let status = a.status();
    let servers = status["core"]["servers"].as_array().unwrap();
    let sessions =
        |address| servers.iter().find(|s| s["address"] == address).unwrap()["sessions"].as_u64();
    assert_eq!((sessions("10.77.0.20:7"), sessions("10.77.0.21:7")), (Some(1), Some(1)));
    let gone = SocketAddr::new(VIRTUAL.parse().unwrap(), 7);
    let refused = client.run(|| TcpStream::connect_timeout(&gone, Duration::from_secs(5))).unwrap();
    assert!(refused.is_err(), "the old listener still takes connections");

    // Also after a death; and the standby knew of the new address.
    b.is_survivable();
    a.kill();
    say(&mut old, b"after the death");
    say(&mut new, b"after the death");
    b.is("active");
    assert_eq!(routes(&b_host), 4, "two addresses, one of them retired");

    // With its last session, the old address is given up.
    drop(old);
    b.until("the end of the old address", |_| routes(&b_host) == 2);
    say(&mut new, b"at last");
    let line = "10.77.0.100:7 -> 10.77.0.20:7 closed by the client, then by the server after";
    assert!(b.log().contains(line), "the end of the session is not in the log");
}
