//! Connections of real clients, migrated to real servers, with real kernels between them.

mod stage;
mod userspace;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

use outlive_accept::Incoming;
use outlive_migration::message::{HowEnded, Message, Refusal};
use outlive_net::netns::Namespace;
use outlive_tcp::{
    segment::{DEFAULT_HOP_LIMIT, Segment},
    seq::Seq,
    wire::{Endpoint, Flags, FourTuple, Options},
};

use socket2::{Domain, Socket, Type};

use self::stage::{
    Asked, CLIENT, PATIENCE, Running, Stage, TUNNEL_BALANCER, TUNNEL_TARGET, VIRTUAL,
    balancer::{Balancer, Course},
    has, virtual_address,
};

const REPLAY: &str = r#"
[[service]]
address = ["10.78.0.100:80", "[fd78::100]:80"]
mode = "replay"
port = 8080
"#;
const KERNEL: &str = r#"
[[service]]
address = ["10.78.0.100:80", "[fd78::100]:80"]
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

fn content(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// nginx as it is, on port 8080 of all addresses. Gives where it logs to.
fn nginx(stage: &Stage) -> (Program, std::path::PathBuf) {
    let (root, log) = (stage.path("www"), stage.path("access.log"));
    fs::create_dir(&root).unwrap();
    fs::write(root.join("large"), content(3_000_000)).unwrap();
    fs::write(root.join("small"), "hello").unwrap();
    let text = format!(
        r#"
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ }}
http {{
    log_format ends '$remote_addr $remote_port "$request" $status';
    access_log {log} ends;
    client_body_temp_path {directory}/t1; proxy_temp_path {directory}/t2; fastcgi_temp_path {directory}/t3;
    uwsgi_temp_path {directory}/t4; scgi_temp_path {directory}/t5;
    client_max_body_size 100m;
    server {{
        listen 8080;
        listen [::]:8080;
        root {root};
        location /upload {{ proxy_pass http://127.0.0.1:8081/; }}
    }}
    server {{ listen 127.0.0.1:8081; location / {{ return 200 "uploaded\n"; }} }}
}}
"#,
        directory = stage.directory.path().display(),
        log = log.display(),
        root = root.display(),
    );
    let file = stage.path("nginx.conf");
    fs::write(&file, text).unwrap();
    // Its worker need not be able to read what root may.
    let mut command = Command::new("nginx");
    command.args(["-g", "user root;", "-e"]).arg(stage.path("error.log")).arg("-c").arg(&file);
    let child = stage.target.enclose(&mut command).stderr(Stdio::null()).spawn().unwrap();
    let program = Program(child);
    let begin = Instant::now();
    while stage.target.run(|| TcpStream::connect("127.0.0.1:8080")).unwrap().is_err() {
        assert!(begin.elapsed() < PATIENCE, "nginx does not begin");
        std::thread::yield_now();
    }
    (program, log)
}

fn ok(output: std::process::Output) -> Vec<u8> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Waits until the log has so many lines.
fn lines(log: &Path, count: usize) -> Vec<String> {
    let begin = Instant::now();
    loop {
        let text = fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if lines.len() >= count {
            return lines;
        }
        assert!(begin.elapsed() < PATIENCE, "{count} lines in {text}");
        std::thread::yield_now();
    }
}

#[test]
fn curl_talks_to_an_unmodified_nginx() {
    if !has("nginx") || !has("curl") {
        return;
    }
    let Some(stage) = Stage::new() else { return };
    let agent = stage.agent(REPLAY);
    let balancer = Balancer::start(&stage);
    let (_nginx, log) = nginx(&stage);
    let upload = stage.path("upload");
    fs::write(&upload, content(2_000_000)).unwrap();
    for ipv6 in [false, true] {
        let url = stage.url(ipv6, 80);
        let small = ok(stage.curl(ipv6, &[&format!("{url}/small")]));
        assert_eq!(small, b"hello");
        assert!(ok(stage.curl(ipv6, &[&format!("{url}/large")])) == content(3_000_000));
        let both = [&format!("{url}/small")[..], &format!("{url}/large")[..]];
        assert_eq!(ok(stage.curl(ipv6, &both)).len(), 3_000_005, "one connection, two requests");
        let file = format!("@{}", upload.display());
        let answer = ok(stage.curl(ipv6, &["--data-binary", &file, &format!("{url}/upload")]));
        assert_eq!(answer, b"uploaded\n");
        let seen = lines(&log, if ipv6 { 12 } else { 6 });
        let client = CLIENT[usize::from(ipv6)];
        let direct = seen.iter().filter(|line| line.starts_with(client)).count();
        assert_eq!(direct, 5, "the server sees the client's own address: {seen:?}");
    }
    // Each is told as ended, and nothing is left of it.
    agent.wait("migrations.ended", 8);
    agent.wait("connections.mapped", 0);
    assert_eq!(agent.number("migrations.committed"), 8);
    assert_eq!(agent.number("packets.unknown_servers"), 0, "{}", agent.status());
    drop(balancer);
}

/// What stands at the extremes for each end.
fn courses() -> Vec<Course> {
    let plain = Course { scaling: false, sack: false, timestamps: false, ..Course::default() };
    vec![
        Course { iss: Seq(u32::MAX - 1_000_000), clock: u32::MAX - 20, ..Course::default() },
        Course { twice: true, ..Course::default() },
        plain,
        Course { mss: 536, ..plain },
        Course { timestamps: false, ..Course::default() },
        Course { sack: false, ..Course::default() },
        Course { scaling: false, ..Course::default() },
    ]
}

#[test]
fn what_was_negotiated_elsewhere_is_kept_in_front_of_a_server() {
    if !has("nginx") || !has("curl") {
        return;
    }
    let Some(stage) = Stage::new() else { return };
    let agent = stage.agent(REPLAY);
    let balancer = Balancer::start(&stage);
    let (_nginx, _) = nginx(&stage);
    let large = content(3_000_000);
    let set = |key: &str, value: &str| {
        stage.target.run(|| outlive_net::sysctl::write(key, value)).unwrap().unwrap();
    };
    // And with a server that has less than what the client was shown.
    for options in ["1", "0"] {
        for key in ["tcp_timestamps", "tcp_sack", "tcp_window_scaling"] {
            set(&format!("net/ipv4/{key}"), options);
        }
        for (number, course) in courses().into_iter().enumerate() {
            balancer.course(course);
            let ipv6 = number % 2 == 1;
            let url = format!("{}/large", stage.url(ipv6, 80));
            assert!(ok(stage.curl(ipv6, &[&url])) == large, "{number}, options {options}");
        }
    }
    agent.wait("migrations.ended", 2 * courses().len() as u64);
}

#[test]
fn a_server_accepts_what_the_kernel_was_given() {
    if !has("curl") {
        return;
    }
    let Some(stage) = Stage::new() else { return };
    let agent = stage.agent(KERNEL);
    let balancer = Balancer::start(&stage);
    let socket = stage.path("server.sock");
    let server = stage.target.run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Incoming::new(listener, &socket).unwrap()
    });
    let server = server.unwrap();
    let large = content(3_000_000);
    let answer = large.clone();
    let total = 2 * courses().len();
    let serving = std::thread::spawn(move || {
        for _ in 0..total {
            let (mut connection, client) = server.accept().unwrap();
            assert_eq!(connection.peer_addr().unwrap(), client);
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                assert_eq!(connection.read(&mut byte).unwrap(), 1);
                request.push(byte[0]);
            }
            assert!(request.starts_with(b"GET /large "));
            let len = answer.len();
            write!(
                connection,
                "HTTP/1.1 200 OK\r\nX-Client: {client}\r\nContent-Length: {len}\r\n\r\n"
            )
            .unwrap();
            connection.write_all(&answer).unwrap();
            // The client closes when it has everything.
            assert_eq!(connection.read(&mut [0]).unwrap(), 0);
        }
    });
    for course in courses() {
        balancer.course(course);
        for ipv6 in [false, true] {
            let url = format!("{}/large", stage.url(ipv6, 80));
            let headers = stage.path("headers");
            let dump = headers.display().to_string();
            assert!(ok(stage.curl(ipv6, &["-D", &dump, &url])) == large);
            let said = fs::read_to_string(&headers).unwrap();
            assert!(said.contains(CLIENT[usize::from(ipv6)]), "{said}");
        }
    }
    serving.join().unwrap();
    agent.wait("migrations.ended", total as u64);
    agent.wait("connections.mapped", 0);
    assert_eq!(agent.number("packets.to_clients"), 0, "the kernel answers directly");
}

#[test]
fn the_python_example_serves_a_migrated_connection() {
    if !has("curl") || !has("python3") {
        return;
    }
    let Some(stage) = Stage::new() else { return };
    let _agent = stage.agent(KERNEL);
    let _balancer = Balancer::start(&stage);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../outlive-accept/examples/hello.py");
    let mut command = Command::new("python3");
    command.args([script, "127.0.0.1", "0"]).arg(stage.path("server.sock"));
    let mut child = stage
        .target
        .enclose(&mut command)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let _program = Program(child);
    assert!(said.any(|line| line.unwrap().starts_with("migrated connections arrive")));
    for ipv6 in [false, true] {
        let answer = ok(stage.curl(ipv6, &[&format!("{}/what", stage.url(ipv6, 80))]));
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with(&format!("hello, {}:", CLIENT[usize::from(ipv6)])), "{answer}");
        assert!(answer.ends_with("you asked: GET /what HTTP/1.1\n"), "{answer}");
    }
}

fn request(stage: &Stage) -> TcpStream {
    let connect = || TcpStream::connect(virtual_address(false, 80)).unwrap();
    let mut client = stage.client.run(connect).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"GET /small HTTP/1.0\r\n\r\n").unwrap();
    client
}

/// The answer to the next PREPARE.
fn answer(balancer: &Balancer) -> Message {
    balancer.answer()
}

fn refused(balancer: &Balancer) -> Refusal {
    match answer(balancer) {
        Message::Refused { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_no_server_takes_is_refused_before_commit() {
    for services in [REPLAY, KERNEL] {
        let Some(stage) = Stage::new() else { return };
        let agent = stage.agent(services);
        let balancer = Balancer::start(&stage);
        let _client = request(&stage);
        assert_eq!(refused(&balancer), Refusal::NoServer);
        agent.wait("migrations.refused", 1);
        assert_eq!(
            (agent.number("connections.mapped"), agent.number("migrations.prepared")),
            (0, 0)
        );
    }
}

/// A server that talks first, if it may: so whatever speaks too early is seen.
fn talkative(stage: &Stage) -> std::sync::mpsc::Receiver<TcpStream> {
    let (told, accepted) = std::sync::mpsc::channel();
    let listener = stage.target.run(|| TcpListener::bind("0.0.0.0:8080")).unwrap().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(b"welcome");
            if told.send(stream).is_err() {
                return;
            }
        }
    });
    accepted
}

#[test]
fn an_aborted_connection_was_never_there() {
    let Some(stage) = Stage::new() else { return };
    let agent = stage.agent(REPLAY);
    let balancer = Balancer::start(&stage);
    let accepted = talkative(&stage);
    balancer.course(Course { commits: false, ..Course::default() });
    let first = request(&stage);
    assert!(matches!(answer(&balancer), Message::Prepared { .. }));
    agent.wait("migrations.aborted", 1);
    agent.wait("connections.mapped", 0);
    // Of two, the server has heard of the second only.
    balancer.course(Course::default());
    let mut second = request(&stage);
    let mut welcome = [0; 7];
    second.read_exact(&mut welcome).unwrap();
    assert_eq!(&welcome, b"welcome");
    let seen = accepted.recv_timeout(PATIENCE).unwrap();
    assert_eq!(seen.peer_addr().unwrap(), second.local_addr().unwrap());
    assert!(accepted.try_recv().is_err());
    first.set_nonblocking(true).unwrap();
    let nothing = (&first).read(&mut [0]).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock, "not a word to the client");
}

#[test]
fn forged_packets_are_dropped_and_counted() {
    let Some(stage) = Stage::new() else { return };
    let agent = stage.agent(REPLAY);
    let balancer = Balancer::start(&stage);
    let forged = |source: &str, flow: (u16, u16)| {
        let source = Endpoint::new(source.parse().unwrap(), flow.0);
        let destination = Endpoint::new(TUNNEL_TARGET[0].parse().unwrap(), flow.1);
        let mut out = Vec::new();
        Segment {
            tuple: FourTuple::new(source, destination),
            seq: Seq(1),
            ack: Some(Seq(1)),
            flags: Flags::RST,
            window: 0,
            options: Options::default(),
            payload: &[],
            hop_limit: DEFAULT_HOP_LIMIT,
        }
        .emit(&mut out);
        out
    };
    balancer.inject(forged(TUNNEL_BALANCER[0], (1, 2)));
    agent.wait("packets.unknown_flows", 1);
    balancer.inject(forged(CLIENT[0], (1, 2)));
    agent.wait("packets.strangers", 1);
    balancer.inject(forged(TUNNEL_BALANCER[0], (0, 2)));
    agent.wait("packets.unknown_flows", 2);

    // Nobody else is listened to.
    let stranger = stage.client.run(|| TcpStream::connect(stage::CHANNEL)).unwrap().unwrap();
    stranger.set_read_timeout(Some(PATIENCE)).unwrap();
    let closed = (&stranger).read(&mut [0; 64]);
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    agent.wait("channel.strangers", 1);
}

/// Whether neighbours are told of the virtual address, and what is left behind.
#[test]
fn the_virtual_address_is_not_told_and_goes_with_the_agent() {
    let Some(stage) = Stage::new() else { return };
    let netlink = stage.target.netlink().unwrap();
    let state = || {
        // The kernel takes its time over link-local addresses.
        let lasting = |text: &String| !text.starts_with("fe80:");
        let addresses: Vec<String> = (netlink.addresses().unwrap().iter())
            .map(|it| it.address.to_string())
            .filter(lasting)
            .collect();
        let routes: Vec<String> =
            (netlink.routes().unwrap().iter()).map(ToString::to_string).filter(lasting).collect();
        let settings =
            ["net/ipv4/ip_forward", "net/ipv4/conf/all/arp_ignore", "net/ipv6/conf/all/forwarding"];
        let read = || settings.map(|key| outlive_net::sysctl::read(key).unwrap());
        (addresses, routes, netlink.own_rules().unwrap(), stage.target.run(read).unwrap())
    };
    let before = state();
    let agent: Running = stage.agent(REPLAY);
    assert_ne!(state(), before);
    for (version, address) in VIRTUAL.into_iter().enumerate() {
        // A neighbour that believes that it is on the link asks for it, and nobody answers.
        let there = stage.client.netlink().unwrap();
        let address: std::net::IpAddr = address.parse().unwrap();
        for route in there.routes().unwrap() {
            if route.destination.addr() == address {
                there.delete_route(&route).unwrap();
            }
        }
        let on_link = outlive_net::netlink::RouteTarget::Device("eth0".to_owned());
        there.add_route(&outlive_net::netlink::Route::new(address.into(), on_link)).unwrap();
        let connect = || TcpStream::connect(virtual_address(version == 1, 80));
        let error = stage.client.run(connect).unwrap().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::HostUnreachable, "{address}: {error}");
    }
    agent.stop();
    assert_eq!(state(), before);
}

/// Not a test: the process that others start as the agent.
#[test]
fn the_agent() {
    stage::be_agent();
}

fn reads(client: &mut TcpStream, expected: &[u8]) {
    let mut found = vec![0; expected.len()];
    client.read_exact(&mut found).unwrap();
    assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(expected));
}

/// The local server ends connections that nobody translates any more: their clients must not hear of it.
#[test]
fn a_killed_agent_leaks_nothing() {
    let Some(stage) = Stage::new() else { return };
    let agent = stage.agent_process("the_agent", REPLAY);
    let _balancer = Balancer::start(&stage);
    let accepted = talkative(&stage);
    let begin = || {
        let mut client = request(&stage);
        reads(&mut client, b"welcome");
        let server = accepted.recv_timeout(PATIENCE).unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        (client, server)
    };
    let ((reset, with_data), (closed, mut without)) = (begin(), begin());
    reads(&mut without, b"GET /small HTTP/1.0\r\n\r\n");
    drop(agent);
    // With unread data the kernel says RST, without FIN, and that again and again. Either would be in the client's window.
    drop((with_data, without));
    (&reset).write_all(b"are you there?").unwrap();

    let agent = stage.agent_process("the_agent", REPLAY);
    // The balancer has said SERVE, and something about both of the lost connections.
    agent.wait_for("channel.received", |found| found >= 3);
    agent.wait_for("packets.unknown_servers", |found| found > 0);
    let (mut client, mut server) = begin();
    server.write_all(b", again").unwrap();
    reads(&mut client, b", again");
    for lost in [reset, closed] {
        lost.set_nonblocking(true).unwrap();
        let nothing = (&lost).read(&mut [0]).unwrap_err();
        assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock, "not a word to the client");
    }
}

#[test]
fn an_agent_that_stops_says_so_on_both_sides() {
    let Some(stage) = Stage::new() else { return };
    let agent = stage.agent(REPLAY);
    let balancer = Balancer::start(&stage);
    let accepted = talkative(&stage);
    let mut client = request(&stage);
    reads(&mut client, b"welcome");
    let mut server = accepted.recv_timeout(PATIENCE).unwrap();
    reads(&mut server, b"GET /small HTTP/1.0\r\n\r\n");
    agent.stop();
    assert!(matches!(balancer.answer(), Message::Prepared { .. }));
    assert!(matches!(balancer.answer(), Message::Committed { .. }));
    let ended = balancer.answer();
    assert!(matches!(ended, Message::Ended { how: HowEnded::Lost, .. }), "{ended:?}");
    let reset = server.read(&mut [0]).unwrap_err();
    assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
    // What becomes of the client is the balancer's business.
    client.set_nonblocking(true).unwrap();
    let nothing = client.read(&mut [0]).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_connection_in_the_kernel_outlives_the_agent() {
    let Some(stage) = Stage::new() else { return };
    let agent = stage.agent_process("the_agent", KERNEL);
    let balancer = Balancer::start(&stage);
    let socket = stage.path("server.sock");
    let incoming = stage
        .target
        .run(|| Incoming::new(TcpListener::bind("127.0.0.1:0").unwrap(), &socket).unwrap());
    let incoming = incoming.unwrap();
    let mut client = request(&stage);
    let (mut server, _) = incoming.accept().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    reads(&mut server, b"GET /small HTTP/1.0\r\n\r\n");
    server.write_all(b"first").unwrap();
    reads(&mut client, b"first");
    assert!(matches!(balancer.answer(), Message::Prepared { .. }));
    assert!(matches!(balancer.answer(), Message::Committed { .. }));
    drop(agent);
    // Said while nobody leads the client's packets anywhere; the answers need no agent.
    client.write_all(b"next, ").unwrap();
    server.write_all(b"second").unwrap();
    reads(&mut client, b"second");
    let agent = stage.agent_process("the_agent", KERNEL);
    assert!(matches!(balancer.answer(), Message::Hello(_)));
    assert!(matches!(balancer.answer(), Message::Committed { .. }), "it is adopted");
    client.write_all(b"last").unwrap();
    reads(&mut server, b"next, last");
    server.write_all(b"third").unwrap();
    reads(&mut client, b"third");
    drop((client, server));
    agent.wait("migrations.ended", 1);
}

/// Every byte of what both ends say at once, over a tunnel that is bad.
fn echoes(stage: &Stage, ipv6: bool) {
    let data = content(400_000);
    let connect = || TcpStream::connect(virtual_address(ipv6, 80)).unwrap();
    let client = stage.client.run(connect).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (&client).write_all(&data).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut found = Vec::new();
        (&client).read_to_end(&mut found).unwrap();
        assert!(found == data, "{} bytes", found.len());
    });
}

#[test]
fn packets_may_be_lost_doubled_and_reordered() {
    for services in [REPLAY, KERNEL] {
        let Some(stage) = Stage::new() else { return };
        let agent = stage.agent(services);
        let balancer = Balancer::start(&stage);
        balancer.course(Course { bad_link: true, ..Course::default() });
        // Its own connections are those of a replayed service.
        let listener = stage.target.run(|| TcpListener::bind("[::]:8080")).unwrap().unwrap();
        let incoming = Incoming::new(listener, stage.path("server.sock")).unwrap();
        std::thread::spawn(move || {
            while let Ok((connection, _)) = incoming.accept() {
                std::thread::spawn(move || std::io::copy(&mut &connection, &mut &connection));
            }
        });
        for ipv6 in [false, true] {
            echoes(&stage, ipv6);
        }
        agent.wait("migrations.ended", 2);
        agent.wait("connections.mapped", 0);
    }
}

/// The answer to a request, of which the client reads no more than the beginning before the path to it gets narrow.
fn narrows_meanwhile(
    stage: &Stage,
    agent: &impl Asked,
    far: &[Namespace; 2],
    ipv6: bool,
    large: &[u8],
) {
    let [router, client] = far;
    let mtu = |bytes| {
        router.netlink().unwrap().set_mtu("far", bytes).unwrap();
        // What a router of before has told is no longer so.
        let flush = || outlive_net::sysctl::write("net/ipv4/route/flush", "1");
        let _ = stage.target.run(flush);
    };
    mtu(1_500);
    let connect = || {
        let address = virtual_address(ipv6, 80);
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        // So that most of it cannot be on its way yet.
        socket.set_recv_buffer_size(30_000).unwrap();
        socket.connect(&address.into()).unwrap();
        TcpStream::from(socket)
    };
    let mut stream = client.run(connect).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /large HTTP/1.0\r\n\r\n").unwrap();
    let mut found = vec![0; 20_000];
    stream.read_exact(&mut found).unwrap();
    let before = agent.number("packets.errors");
    mtu(1_300);
    stream.read_to_end(&mut found).unwrap();
    assert!(found.ends_with(large), "{} bytes", found.len());
    assert!(agent.number("packets.errors") > before, "{}", agent.status());
}

#[test]
fn the_path_may_narrow_in_mid_response() {
    if !has("nginx") {
        return;
    }
    let large = content(3_000_000);
    for services in [REPLAY, KERNEL] {
        let Some(stage) = Stage::new() else { return };
        let far = stage.far();
        let agent = stage.agent(services);
        let _balancer = Balancer::start(&stage);
        let (_nginx, _) = nginx(&stage);
        let socket = stage.path("server.sock");
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = stage.target.run(bind).unwrap();
        let incoming = Incoming::new(listener, &socket).unwrap();
        let answer = large.clone();
        std::thread::spawn(move || {
            while let Ok((mut connection, _)) = incoming.accept() {
                let mut request = [0; 23];
                connection.read_exact(&mut request).unwrap();
                connection.write_all(&answer).unwrap();
            }
        });
        for ipv6 in [false, true] {
            narrows_meanwhile(&stage, &agent, &far, ipv6, &large);
        }
    }
}
