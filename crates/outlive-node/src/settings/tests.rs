//! Whole files, right and wrong.

use std::{path::Path, time::Duration};

use outlive_proxy::config::{
    Balance, Detector, NodeId, OpeningMode, Protection, ProxyProtocol, Replication, Synchronise,
};

use super::*;

/// The smallest file; the tests change a line of it.
const SINGLE: &str = r#"
[node]
interfaces = ["eth0"]

[[listener]]
name = "web"
address = "10.0.0.100:443"
pool = "web"

[[pool]]
name = "web"
servers = ["10.0.0.21:443", "10.0.0.22:443"]
"#;

const PAIR: &str = r#"
[node]
name = "b"
interfaces = ["eth0"]

[peer]
state = { listen = "10.0.0.2:7400", peer = "10.0.0.1:7400" }
heartbeat = [
    { local = "10.0.0.2:7401", peer = "10.0.0.1:7401" },
    { local = "10.1.0.2:7401", peer = "10.1.0.1:7401" },
]
key_file = "pair.key"
detection_timeout = "150ms"

[[listener]]
name = "web"
address = ["10.0.0.100:443", "[fd00::100]:443"]
mode = "inspect"
inspect_timeout = "1s 500ms"

[[listener.route]]
server_name = "*.example.org"
pool = "one"

[[listener.route]]
path_prefix = "/api/"
pool = "two"

[[pool]]
name = "one"
servers = ["10.0.0.21:443", "[fd00::21]:443"]
proxy_protocol = "v2"
balance = "least-connections"

[[pool]]
name = "two"
servers = ["[fd00::22]:443", "10.0.0.22:443"]
"#;

fn parse(source: &str) -> Result<Settings, Vec<Problem>> {
    Settings::parse(Path::new("/etc/outlive/x.toml"), source)
}

#[test]
fn a_single_node_needs_little() {
    let settings = parse(SINGLE).unwrap();
    assert!(!settings.proxy.pair.enabled);
    assert!(settings.peer.is_none());
    assert_eq!(settings.proxy.node, NodeId::A);
    assert_eq!(settings.tun.value, DEFAULT_TUN);
    assert_eq!(settings.admin_socket.value, Path::new(DEFAULT_ADMIN_SOCKET));
    assert_eq!(settings.log, LogFormat::Text);
    assert_eq!(
        settings.proxy.source_addresses,
        ["10.0.0.100".parse::<std::net::IpAddr>().unwrap()]
    );
    assert_eq!(settings.proxy.listeners[0].opening, OpeningMode::Direct);
    assert_eq!(settings.proxy.listeners[0].idle_timeout, Duration::from_secs(10_800));
}

#[test]
fn each_listener_chooses_how_it_is_protected() {
    let parsed = |keys: &str| {
        let source = SINGLE.replace("pool = \"web\"", &format!("pool = \"web\"\n{keys}"));
        parse(&source).map(|settings| settings.proxy.listeners[0].protection)
    };
    assert_eq!(parsed("").unwrap(), Protection::default());
    assert_eq!(Protection::default().replication, Replication::Sync);
    let late = parsed("synchronise = \"first-data\"").unwrap();
    assert_eq!(late.synchronise, Synchronise::FirstData);
    assert_eq!(parsed("replication = \"async\"").unwrap().replication, Replication::Async);
}

#[test]
fn a_pair_with_both_ip_versions() {
    let settings = parse(PAIR).unwrap();
    let peer = settings.peer.unwrap();
    assert_eq!(settings.proxy.node, NodeId::B);
    assert_eq!(settings.proxy.pair.paths, 2);
    assert_eq!(settings.proxy.pair.detection_timeout, Duration::from_millis(150));
    assert_eq!(peer.heartbeat[1].peer, "10.1.0.1:7401".parse().unwrap());
    assert_eq!(peer.key_file.value, Path::new("/etc/outlive/pair.key"));
    assert_eq!(peer.key_file.place.unwrap().line, 12);

    // Each listener's routes lead to the servers of its own IP version.
    assert_eq!(settings.proxy.listeners.len(), 2);
    for listener in &settings.proxy.listeners {
        let OpeningMode::Inspect { timeout, .. } = listener.opening else {
            panic!("not inspecting")
        };
        assert_eq!(timeout, Duration::from_millis(1_500));
        assert_eq!(listener.routes.len(), 2);
        for route in &listener.routes {
            let pool = settings.proxy.pool(route.pool).unwrap();
            assert_eq!(pool.servers.len(), 1);
            assert_eq!(pool.servers[0].address.addr.is_ipv4(), listener.address.addr.is_ipv4());
        }
    }
    let one = &settings.proxy.pools[0];
    assert_eq!(
        (one.balance, one.proxy_protocol),
        (Balance::LeastConnections, Some(ProxyProtocol::V2))
    );
}

/// `replace` in `base` by `with` must be refused at `line`, with a message that has `message`.
struct Wrong {
    base: &'static str,
    replace: &'static str,
    with: &'static str,
    line: usize,
    message: &'static str,
}

const fn wrong(
    base: &'static str,
    replace: &'static str,
    with: &'static str,
    line: usize,
    message: &'static str,
) -> Wrong {
    Wrong { base, replace, with, line, message }
}

const WRONG: &[Wrong] = &[
    // The file
    wrong(SINGLE, "[node]", "[node", 2, "unclosed table"),
    wrong(SINGLE, "interfaces", "interface", 3, "unknown field \"interface\""),
    wrong(SINGLE, "interfaces = [\"eth0\"]", "", 2, "missing field \"interfaces\""),
    wrong(SINGLE, "[\"eth0\"]", "\"eth0\"", 3, "invalid type"),
    wrong(SINGLE, "pool = \"web\"", "pool = \"web\"\npool = \"web\"", 9, "duplicate key"),
    wrong(SINGLE, "[[pool]]", "[[pools]]", 10, "unknown field \"pools\""),
    // [node]
    wrong(SINGLE, "[\"eth0\"]", "[]", 3, "no interface is named"),
    wrong(SINGLE, "[\"eth0\"]", "[\"eth0\", \"eth0\"]", 3, "named twice"),
    wrong(SINGLE, "\"eth0\"", "\"an-impossible-name\"", 3, "not possible as the name"),
    wrong(SINGLE, "[node]", "[node]\nname = \"c\"", 3, "\"c\" is not known here"),
    wrong(SINGLE, "[node]", "[node]\nlog = \"yaml\"", 3, "\"yaml\" is not known here"),
    wrong(SINGLE, "[node]", "[node]\nmtu = 100", 3, "100 is out of range"),
    wrong(SINGLE, "[node]", "[node]\nsource_addresses = [\"10.0.0.1/8\"]", 3, "not an address"),
    wrong(SINGLE, "[node]", "[node]\nsource_addresses = [\"0.0.0.0\"]", 3, "address of one host"),
    // [[listener]]
    wrong(SINGLE, "10.0.0.100:443", "10.0.0.300:443", 7, "is not an address with a port"),
    wrong(SINGLE, "10.0.0.100:443", "10.0.0.100", 7, "is not an address with a port"),
    wrong(SINGLE, "10.0.0.100:443", "10.0.0.100:0", 7, "port 0"),
    wrong(SINGLE, "10.0.0.100:443", "224.0.0.1:443", 7, "address of one host"),
    wrong(SINGLE, "\"10.0.0.100:443\"", "[]", 6, "has no address"),
    wrong(SINGLE, "pool = \"web\"", "pool = \"wbe\"", 8, "no pool named \"wbe\""),
    wrong(SINGLE, "pool = \"web\"", "", 6, "neither a default pool nor routes"),
    wrong(SINGLE, "pool = \"web\"", "pool = \"web\"\nmode = \"auto\"", 9, "\"auto\" is not known"),
    wrong(
        SINGLE,
        "pool = \"web\"",
        "pool = \"web\"\ninspect_limit = 512",
        9,
        "does not look at data",
    ),
    wrong(
        SINGLE,
        "pool = \"web\"",
        "pool = \"web\"\nreplication = \"semi\"",
        9,
        "\"semi\" is not known here",
    ),
    wrong(
        SINGLE,
        "pool = \"web\"",
        "pool = \"web\"\nsynchronise = \"later\"",
        9,
        "\"later\" is not known here",
    ),
    wrong(
        SINGLE,
        "pool = \"web\"",
        "pool = \"web\"\nwithout_standby = \"refuse\"",
        9,
        "there is no peer",
    ),
    wrong(
        PAIR,
        "mode = \"inspect\"",
        "mode = \"inspect\"\nreplication = \"async\"\nwithout_standby = \"refuse\"",
        20,
        "replicates asynchronously",
    ),
    wrong(
        SINGLE,
        "pool = \"web\"",
        "pool = \"web\"\nidle_timeout = \"3\"",
        9,
        "\"3\" is not a time",
    ),
    wrong(SINGLE, "pool = \"web\"", "pool = \"web\"\nidle_timeout = \"0s\"", 9, "more than zero"),
    wrong(SINGLE, "pool = \"web\"", "pool = \"web\"\nidle_timeout = 3", 9, "invalid type"),
    wrong(
        SINGLE,
        "\"10.0.0.100:443\"",
        "[\"10.0.0.100:443\", \"10.0.0.100:443\"]",
        7,
        "both listen on 10.0.0.100:443",
    ),
    wrong(
        SINGLE,
        "[[pool]]",
        "[[listener]]\nname = \"more\"\naddress = \"10.0.0.100:443\"\npool = \"web\"\n[[pool]]",
        12,
        "listeners \"web\" and \"more\" both listen on 10.0.0.100:443",
    ),
    wrong(
        SINGLE,
        "[[pool]]",
        "[[listener]]\nname = \"web\"\naddress = \"10.0.0.101:443\"\npool = \"web\"\n[[pool]]",
        11,
        "two listeners named \"web\"",
    ),
    wrong(SINGLE, "10.0.0.100:443", "[fd00::100]:443", 8, "no server of pool \"web\" has"),
    wrong(PAIR, "mode = \"inspect\"\ninspect_timeout = \"1s 500ms\"", "", 16, "inspecting mode"),
    wrong(
        PAIR,
        "mode = \"inspect\"",
        "mode = \"terminate\"\nsynchronise = \"first-data\"",
        19,
        "terminates its sessions",
    ),
    // [[listener.route]]
    wrong(PAIR, "server_name = \"*.example.org\"", "", 21, "no condition"),
    wrong(PAIR, "\"*.example.org\"", "\"www.*.org\"", 22, "is not a name"),
    wrong(PAIR, "\"/api/\"", "\"api\"", 26, "does not begin with a slash"),
    wrong(PAIR, "path_prefix", "server_name = \"x\"\npath_prefix", 25, "can never match"),
    // [[pool]]
    wrong(SINGLE, "[\"10.0.0.21:443\", \"10.0.0.22:443\"]", "[]", 12, "has no servers"),
    wrong(SINGLE, "10.0.0.22:443", "10.0.0.21:443", 12, "named twice"),
    wrong(SINGLE, "[[pool]]", "[[pool]]\nbalance = \"random\"", 11, "\"random\" is not known here"),
    wrong(SINGLE, "[[pool]]", "[[pool]]\nproxy_protocol = \"v3\"", 11, "\"v3\" is not known here"),
    wrong(
        SINGLE,
        "[[pool]]",
        "[[pool]]\nname = \"web\"\nservers = [\"10.0.0.9:1\"]\n[[pool]]",
        14,
        "two pools",
    ),
    // [peer]
    wrong(PAIR, "name = \"b\"", "", 2, "a node with a peer needs a name"),
    wrong(
        PAIR,
        "peer = \"10.0.0.1:7400\"",
        "peer = \"10.0.0.2:7400\"",
        7,
        "the node's own address",
    ),
    wrong(
        PAIR,
        "peer = \"10.0.0.1:7400\"",
        "peer = \"[fd00::1]:7400\"",
        7,
        "different IP versions",
    ),
    wrong(PAIR, "local = \"10.1.0.2:7401\"", "local = \"10.0.0.2:7401\"", 10, "has the same end"),
    wrong(
        PAIR,
        "local = \"10.1.0.2:7401\"",
        "local = \"10.0.0.100:7401\"",
        10,
        "moves between the nodes",
    ),
    wrong(PAIR, "\"150ms\"", "\"30ms\"", 13, "at least twice the heartbeat interval"),
    wrong(
        PAIR,
        "detection_timeout = \"150ms\"",
        "heartbeat_interval = \"90us\"",
        13,
        "less than a millisecond",
    ),
    wrong(PAIR, "key_file = \"pair.key\"", "", 6, "missing field \"key_file\""),
    // [limits]
    wrong(SINGLE, "[node]", "[limits]\nsessions = 0\n[node]", 3, "0 is out of range"),
    wrong(
        SINGLE,
        "[node]",
        "[limits]\nterminated_stream_bytes = 65535\n[node]",
        3,
        "65535 is out of range",
    ),
    wrong(
        SINGLE,
        "[node]",
        "[limits]\nterminated_stream_bytes = 1048576\nterminated_bytes = 1048575\n[node]",
        4,
        "1048575 is out of range",
    ),
    wrong(SINGLE, "[node]", "[timeouts]\nhandshake = \"soon\"\n[node]", 3, "is not a time"),
];

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let mut surprises = Vec::new();
    for Wrong { base, replace, with, line, message } in WRONG {
        assert!(base.contains(replace), "{replace} is not in the file");
        match parse(&base.replacen(replace, with, 1)) {
            Ok(_) => surprises.push(format!("{with:?} is accepted")),
            Err(problems) => {
                let first = &problems[0];
                let at = first.place.as_ref().map(|place| place.line);
                if at != Some(*line) || !first.message.contains(message) || problems.len() != 1 {
                    surprises.push(format!("{with:?} gave, instead of line {line}, {problems:#?}"));
                }
            }
        }
    }
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
}

#[test]
fn an_external_detector_needs_an_address_to_ask_at() {
    let routed = PAIR
        .replace("[peer]", "edge = \"routed\"\n\n[watch]\nlisten = [\"10.0.0.2:7402\"]\n\n[peer]")
        .replace("key_file", "detector = \"external\"\nkey_file");
    let settings = parse(&routed).unwrap();
    assert_eq!(settings.proxy.pair.detector, Detector::External);
    assert_eq!(settings.edge, EdgeKind::Routed);
    assert_eq!(settings.watch[0].value, "10.0.0.2:7402".parse().unwrap());
    let plain = parse(PAIR).unwrap();
    assert_eq!(plain.proxy.pair.detector, Detector::Automatic);
    assert_eq!((plain.edge, plain.watch.len()), (EdgeKind::Neighbours, 0));

    let told = |source: &str| {
        let problems = parse(source).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        (problems[0].place.as_ref().unwrap().line, problems[0].message.clone())
    };
    let nobody = PAIR.replace("key_file", "detector = \"external\"\nkey_file");
    assert_eq!(told(&nobody), (12, "nobody could tell this node to take over".to_owned()));
    let (line, message) = told(&routed.replace("10.0.0.2:7402", "10.0.0.100:7402"));
    assert_eq!(line, 9);
    assert!(message.contains("moves between the nodes"), "{message}");
    let alone = format!("{SINGLE}\n[watch]\nlisten = [\"10.0.0.1:7402\"]\n");
    assert!(told(&alone).1.contains("without a peer"));
}

#[test]
fn all_wrong_values_are_told_at_once_in_order() {
    let source = SINGLE
        .replace("10.0.0.22:443", "10.0.0.22")
        .replace("10.0.0.100:443", "here:443")
        .replace("[node]", "[node]\nname = \"x\"");
    let lines: Vec<usize> =
        parse(&source).unwrap_err().iter().map(|p| p.place.as_ref().unwrap().line).collect();
    assert_eq!(lines, [3, 8, 13]);
}

#[test]
fn a_file_that_is_not_there_is_a_problem() {
    let problems = Settings::load(Path::new("/nonexistent/outlive.toml")).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].to_string().starts_with("/nonexistent/outlive.toml: "));
}

#[test]
fn whatever_is_missing_is_a_problem_and_no_more() {
    // Cut off anywhere, and with each line removed in turn.
    for end in 0..PAIR.len() {
        if let Err(problems) = parse(&PAIR[..end]) {
            assert!(problems.iter().all(|problem| problem.to_string().contains("help: ")));
        }
    }
    for left_out in 0..PAIR.lines().count() {
        let lines = PAIR.lines().enumerate().filter(|(number, _)| *number != left_out);
        let source: Vec<&str> = lines.map(|(_, line)| line).collect();
        if let Err(problems) = parse(&source.join("\n")) {
            assert!(!problems.is_empty());
        }
    }
}

/// One listener that migrates, to one target.
const MIGRATING: &str = r#"
[migration]
tunnel = ["10.9.0.1"]

[[target]]
name = "web1"
agent = "10.0.0.21:7410"
tunnel = ["10.9.0.21"]
servers = ["10.0.0.77:8080"] # agent

[[pool]]
name = "moved"
servers = ["10.0.0.77:8080"]

[[listener]]
name = "moving"
address = "10.0.0.100:80"
mode = "inspect"

[[listener.route]]
path_prefix = "/"
pool = "moved"
action = "migrate"
"#;

#[test]
fn targets_need_tunnel_addresses_servers_in_pools_and_a_key() {
    let plain = format!("{PAIR}{MIGRATING}");
    let own = "[node]\nsource_addresses = [\"10.0.0.101\"]\n";
    let source = plain.replace("[node]\n", own);
    let settings = parse(&source).unwrap();
    let agent = &settings.proxy.migration.agents[0];
    assert_eq!((agent.server.port, agent.control.port), (8_080, 7_410));
    assert!(settings.proxy.listeners.iter().any(|l| l.routes.iter().any(|r| r.migrate)));
    assert_eq!(settings.targets[0].name, "web1");

    let told = |source: &str| parse(source).unwrap_err()[0].message.clone();
    let without = source.replace("[migration]\ntunnel = [\"10.9.0.1\"]\n", "");
    assert!(told(&without).contains("no tunnel"));
    let taken = source.replace("10.9.0.1\"", "10.0.0.100\"");
    assert!(told(&taken).contains("virtual or source"), "{}", told(&taken));
    let elsewhere =
        source.replace("servers = [\"10.0.0.77:8080\"] # agent", "servers = [\"10.7.7.7:1\"]");
    assert!(told(&elsewhere).contains("no server has an agent"));
    assert!(told(&plain).contains("another source address"));
    let alone = format!("{SINGLE}{MIGRATING}");
    assert!(told(&alone).contains("key"), "{}", told(&alone));
}

#[test]
fn routes_may_ask_for_more_than_names() {
    let route = |conditions: &str| {
        let source = format!(
            "{SINGLE}\n[[listener]]\nname = \"r\"\naddress = \"10.0.0.100:81\"\nmode = \"inspect\"\n\
             [[listener.route]]\npool = \"web\"\n{conditions}\n"
        );
        parse(&source).map(|settings| settings.proxy.listeners[1].routes[0].clone())
    };
    let header = route("header = { name = \"X-A\", value = \"7\" }\nmethod = \"PUT\"").unwrap();
    assert_eq!(header.header, Some(("X-A".into(), Some("7".into()))));
    assert_eq!(header.method.as_deref(), Some("PUT"));
    assert_eq!(route("alpn = \"h2\"").unwrap().alpn.as_deref(), Some("h2"));
    assert_eq!(route("first_bytes = \"SSH-\"").unwrap().first_bytes.unwrap(), b"SSH-");
    assert_eq!(route("first_bytes = \"hex:05 fF\"").unwrap().first_bytes.unwrap(), [5, 255]);
    for wrong in
        ["first_bytes = \"hex:5\"", "first_bytes = \"\"", "alpn = \"h2\"\nmethod = \"GET\""]
    {
        let problems = route(wrong).unwrap_err();
        assert_eq!(problems.len(), 1, "{wrong}: {problems:?}");
    }
}
