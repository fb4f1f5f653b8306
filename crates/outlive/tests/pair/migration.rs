//! A pair that migrates, an agent, real servers and real clients.

mod userspace;

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use outlive_lab::clock::wait_until;
use outlive_net::{
    netlink::{Route, RouteTarget},
    netns::Namespace,
};
use serde_json::Value;

use crate::common::{Network, Node, VIRTUAL, connect, outlive};

const PATIENCE: Duration = Duration::from_secs(60);
/// Of both nodes; [`Network::config`] has no place for what differs.
const MIGRATES: &str = r#"
[migration]
tunnel = ["10.79.0.NUMBER", "fd79::NUMBER"]

[[target]]
name = "web1"
agent = "10.77.0.7:7410"
tunnel = ["10.79.0.7", "fd79::7"]
servers = ["10.77.0.7:80", "[fd77::7]:80"]

[[listener]]
name = "replayed"
address = ["10.77.0.100:80", "[fd77::100]:80"]
mode = "inspect"
pool = "web"
[[listener.route]]
path_prefix = "/"
pool = "web"
action = "migrate"

[[listener]]
name = "accepted"
address = ["10.77.0.100:81", "[fd77::100]:81"]
mode = "inspect"
pool = "web"
[[listener.route]]
path_prefix = "/"
pool = "web"
action = "migrate"

[[pool]]
name = "web"
servers = ["10.77.0.7:80", "[fd77::7]:80"]
"#;
/// The target has the virtual address itself, so what is proxied to it comes from another one.
const SOURCES: &str = "[node]\nsource_addresses = [\"10.77.0.101\", \"fd77::101\"]";
const AGENT: &str = r#"
[host]
listen = "10.77.0.7:7410"
key_file = "web1.key"
nodes = ["10.77.0.1", "10.77.0.2"]
set_sysctls = true
status_socket = "host.sock"

[tunnel]
addresses = ["10.79.0.7", "fd79::7"]
nodes = ["10.79.0.1", "10.79.0.2", "fd79::1", "fd79::2"]

[[service]]
address = ["10.77.0.100:80", "[fd77::100]:80"]
mode = "replay"
port = 8080

[[service]]
address = ["10.77.0.100:81", "[fd77::100]:81"]
mode = "kernel"
socket = "server.sock"
"#;

/// A program that ends with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Stage {
    network: Network,
    a_host: Namespace,
    b_host: Namespace,
    client: Namespace,
    target: Namespace,
}

impl Stage {
    fn new() -> Option<Self> {
        let network = Network::new()?;
        let [a_host, b_host, client, target] = [1, 2, 10, 7].map(|number| network.host(number));
        let lead = |from: &Namespace, to: &str, via: &str| {
            let to: std::net::IpAddr = to.parse().unwrap();
            let target = RouteTarget::Gateway { address: via.parse().unwrap(), device: None };
            from.netlink().unwrap().add_route(&Route::new(to.into(), target)).unwrap();
        };
        for (number, node) in [(1, &a_host), (2, &b_host)] {
            lead(node, "10.79.0.7", "10.77.0.7");
            lead(node, "fd79::7", "fd77::7");
            lead(&target, &format!("10.79.0.{number}"), &format!("10.77.0.{number}"));
            lead(&target, &format!("fd79::{number}"), &format!("fd77::{number}"));
        }
        let key = network.path("web1.key");
        let mut keygen = outlive();
        keygen.arg("keygen").arg("--host").arg(network.path("pair.key"));
        let made = keygen.args(["--name", "web1", "--output"]).arg(key).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        fs::write(network.path("host.toml"), AGENT).unwrap();
        Some(Stage { network, a_host, b_host, client, target })
    }

    /// Both nodes, a active, ready to migrate.
    fn pair(&self) -> [Node; 2] {
        let config = |name, number: u8, peer| {
            let rest = MIGRATES.replace("NUMBER", &number.to_string());
            let path = self.network.config(name, number, peer, &rest);
            let text = fs::read_to_string(&path).unwrap();
            fs::write(&path, text.replace("[node]", SOURCES)).unwrap();
            path
        };
        let a = Node::start(&self.a_host, &config("a", 1, 2));
        a.is("active");
        let b = Node::start(&self.b_host, &config("b", 2, 1));
        a.is_survivable();
        for node in [&a, &b] {
            node.until("the target is ready", |status| status["targets"][0]["ready"] == true);
        }
        [a, b]
    }

    fn agent(&self) -> Program {
        let mut command = outlive();
        command.arg("host").arg("--config").arg(self.network.path("host.toml"));
        let log = fs::File::create(self.network.path("host.log")).unwrap();
        Program(self.target.enclose(&mut command).stderr(log).spawn().unwrap())
    }

    /// What the agent says of itself.
    fn agent_status(&self) -> Value {
        let mut command = outlive();
        command.args(["host", "--status", "--config"]).arg(self.network.path("host.toml"));
        serde_json::from_slice(&command.output().unwrap().stdout).unwrap_or(Value::Null)
    }

    fn curl(&self, ipv6: bool, port: u16, path: &str) -> Vec<u8> {
        let address = if ipv6 { "[fd77::100]" } else { VIRTUAL };
        let mut command = Command::new("curl");
        command.args(["-sS", "-g", "--fail", "--max-time", "60", "--noproxy", "*"]);
        command.arg(format!("http://{address}:{port}{path}"));
        let output = self.client.enclose(&mut command).output().unwrap();
        let log = fs::read_to_string(self.network.path("host.log")).unwrap_or_default();
        assert!(output.status.success(), "{}\n{log}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// nginx as it is, on port 8080 of all addresses of the target.
    fn nginx(&self) -> Program {
        let directory = self.network.directory.path().display();
        fs::create_dir(self.network.path("www")).unwrap();
        fs::write(self.network.path("www/large"), content()).unwrap();
        let text = format!(
            "daemon off; master_process off; user root; pid {directory}/nginx.pid; error_log {directory}/error.log; events {{ }}\n\
             http {{ log_format ends '$remote_addr \"$request\" $status'; access_log {directory}/access.log ends;\n\
             client_body_temp_path {directory}/t1; proxy_temp_path {directory}/t2; fastcgi_temp_path {directory}/t3;\n\
             uwsgi_temp_path {directory}/t4; scgi_temp_path {directory}/t5;\n\
             server {{ listen 8080; listen [::]:8080; root {directory}/www; }} }}\n"
        );
        fs::write(self.network.path("nginx.conf"), text).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-e").arg(self.network.path("error.log"));
        command.arg("-c").arg(self.network.path("nginx.conf")).stderr(Stdio::null());
        let program = Program(self.target.enclose(&mut command).spawn().unwrap());
        let answers = || self.target.run(|| TcpStream::connect("127.0.0.1:8080")).unwrap().is_ok();
        assert!(wait_until(PATIENCE, answers), "nginx does not begin");
        program
    }

    /// A server that accepts what is migrated to it, and answers each request alike.
    fn server(&self) {
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = self.target.run(bind).unwrap();
        let path = self.network.path("server.sock");
        let incoming = outlive_accept::Incoming::new(listener, path).unwrap();
        thread::spawn(move || {
            while let Ok((mut connection, client)) = incoming.accept() {
                thread::spawn(move || -> std::io::Result<()> {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        let mut byte = [0];
                        connection.read_exact(&mut byte)?;
                        request.push(byte[0]);
                    }
                    let client = client.ip();
                    let body = content();
                    write!(connection, "HTTP/1.1 200 OK\r\nX-Client: {client}\r\n")?;
                    write!(connection, "Content-Length: {}\r\n\r\n", body.len())?;
                    connection.write_all(&body)?;
                    connection.read_to_end(&mut request).map(drop)
                });
            }
        });
    }
}

fn content() -> Vec<u8> {
    (0..3_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn has(program: &str) -> bool {
    let there = Command::new(program).arg("-V").output().is_ok();
    if !there {
        eprintln!("SKIPPED: this test needs {program}");
    }
    there
}

#[test]
fn connections_are_answered_by_the_machine_that_they_were_migrated_to() {
    if !has("nginx") || !has("curl") {
        return;
    }
    let Some(stage) = Stage::new() else { return };
    let (_agent, _nginx) = (stage.agent(), stage.nginx());
    stage.server();
    let [mut a, b] = stage.pair();
    let content = content();
    for ipv6 in [false, true] {
        for port in [80, 81] {
            assert!(stage.curl(ipv6, port, "/large") == content, "port {port}, IPv6: {ipv6}");
        }
    }
    let seen = fs::read_to_string(stage.network.path("access.log")).unwrap();
    for client in ["10.77.0.10 ", "fd77::10 "] {
        assert!(seen.lines().any(|line| line.starts_with(client)), "{seen}");
    }
    let status = stage.agent_status();
    assert_eq!(status["migrations"]["committed"], 4, "{status}");

    // The balancer dies in mid-response, which it is no part of; and then somebody has to lead what the client says.
    let mut held: Vec<TcpStream> = [80, 81]
        .map(|port| {
            let mut stream = connect(&stage.client, VIRTUAL.parse().unwrap(), port);
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let request = b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            stream.write_all(request).unwrap();
            stream.read_exact(&mut [0; 1_000]).unwrap();
            stream
        })
        .into();
    a.kill();
    b.is("active");
    for stream in &mut held {
        let mut rest = vec![0; content.len() - 1_000];
        stream.read_exact(&mut rest).unwrap();
        // What was read before is a header and some of the content.
        let at = content.windows(100).position(|part| part == &rest[..100]);
        assert!(at.is_some_and(|at| content[at..].starts_with(&rest)), "bytes are missing");
    }
    assert!(stage.curl(false, 80, "/large") == content, "the other node migrates, too");
}
