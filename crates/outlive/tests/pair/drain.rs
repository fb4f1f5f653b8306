//! Servers that get no new sessions.

use crate::common::{Network, Node, VIRTUAL, connect, echo_server, outlive, say};

const LISTENER: &str = r#"
[timeouts]
time_wait = "200ms"

[[listener]]
name = "echo"
address = "10.77.0.100:7"
pool = "echo"

[[pool]]
name = "echo"
servers = ["10.77.0.20:7", "10.77.0.21:7"]
"#;

#[test]
fn a_draining_server_keeps_its_sessions_and_gets_no_more_whoever_serves() {
    let Some(network) = Network::new() else { return };
    let [a_host, b_host, client] = [1, 2, 10].map(|number| network.host(number));
    let [first, second] = [20, 21].map(|number| network.host(number));
    echo_server(&first, "10.77.0.20:7");
    echo_server(&second, "10.77.0.21:7");
    let configs = [network.config("a", 1, 2, LISTENER), network.config("b", 2, 1, LISTENER)];
    let mut a = Node::start(&a_host, &configs[0]);
    a.is("active");
    let b = Node::start(&b_host, &configs[1]);
    b.is_survivable();
    let tell = |word: &str, node: &str, member: &str| {
        let socket = network.path(&format!("{node}.sock"));
        let output = outlive().args([word, member, "--socket"]).arg(socket).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    };
    let sessions = |node: &Node, address: &str| {
        let status = node.status();
        let servers = status["core"]["servers"].as_array().unwrap();
        let server = servers.iter().find(|s| s["address"] == address).unwrap();
        (server["sessions"].as_u64().unwrap(), server["draining"].as_bool().unwrap())
    };
    let open = || {
        let mut stream = connect(&client, VIRTUAL.parse().unwrap(), 7);
        say(&mut stream, b"hello");
        stream
    };

    let mut before: Vec<_> = (0..4).map(|_| open()).collect();
    assert_eq!(sessions(&a, "10.77.0.20:7"), (2, false));
    for (word, node, member, expected) in [
        ("drain", "b", "echo/10.77.0.20:7", "not the active one"),
        ("drain", "a", "ecco/10.77.0.20:7", "no pool of that name"),
        ("drain", "a", "echo/10.77.0.20:8", "no such server"),
        ("drain", "a", "10.77.0.20:7", "POOL/ADDRESS:PORT"),
    ] {
        let (done, said) = tell(word, node, member);
        assert!(!done && said.contains(expected), "{expected}: {said}");
    }
    let (done, said) = tell("drain", "a", "echo/10.77.0.20:7");
    assert!(done && said.contains("2 left"), "{said}");
    let after: Vec<_> = (0..4).map(|_| open()).collect();
    assert_eq!(sessions(&a, "10.77.0.20:7"), (2, true));
    assert_eq!(sessions(&a, "10.77.0.21:7"), (6, false));

    // The standby knows.
    b.until("the news", |_| sessions(&b, "10.77.0.20:7").1);
    b.is_survivable();
    a.kill();
    before.iter_mut().for_each(|stream| say(stream, b"still here"));
    b.is("active");
    let more = open();
    assert_eq!(sessions(&b, "10.77.0.20:7"), (2, true));

    drop((before, after, more));
    let (done, said) = tell("undrain", "b", "echo/10.77.0.20:7");
    assert!(done && said.contains("again"), "{said}");
    let _streams: Vec<_> = (0..2).map(|_| open()).collect();
    b.until("its turn", |_| matches!(sessions(&b, "10.77.0.20:7"), (1.., false)));
}
