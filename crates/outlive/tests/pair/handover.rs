//! Planned handovers under load: nobody may notice.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::common::{Network, Node, VIRTUAL, connect, echo_server, outlive, say};
use outlive_net::netns::Namespace;

const LISTENERS: &str = r#"
[[listener]]
name = "echo"
address = ["10.77.0.100:7", "[fd77::100]:7"]
pool = "echo"

[[listener]]
name = "looked-at"
address = "10.77.0.100:80"
mode = "inspect"
pool = "echo"
inspect_timeout = "50ms"

[[pool]]
name = "echo"
servers = ["10.77.0.20:7", "[fd77::20]:7"]
"#;

/// Traffic that goes on until it is told to stop. A connection that is lost, or a wrong byte, fails the test.
struct Load {
    goes_on: Arc<AtomicBool>,
    /// What each stream has done.
    done: Vec<Arc<AtomicU64>>,
    threads: Vec<JoinHandle<()>>,
    idle: Vec<TcpStream>,
}

impl Load {
    fn start(client: &Namespace) -> Self {
        let mut load = Load {
            goes_on: Arc::new(AtomicBool::new(true)),
            done: Vec::new(),
            threads: Vec::new(),
            idle: Vec::new(),
        };
        let [v4, v6] = [VIRTUAL, "fd77::100"].map(|text| text.parse().unwrap());
        for address in [v4, v4, v4, v6] {
            load.idle.push(connect(client, address, 7));
        }
        for (address, port) in [(v4, 7), (v4, 80), (v6, 7)] {
            let stream = connect(client, address, port);
            load.add(move |number| talk(&stream, number));
            let stream = connect(client, address, port);
            load.add(move |number| transfer(&stream, number));
        }
        // Connections that are opened and closed, one after the other.
        let client = client.clone();
        load.add(move |number| {
            let port = if number % 2 == 0 { 7 } else { 80 };
            let mut stream = connect(&client, v4, port);
            talk(&stream, number);
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0, "more than was sent");
        });
        load
    }

    fn add(&mut self, mut once: impl FnMut(u64) + Send + 'static) {
        let done = Arc::new(AtomicU64::new(0));
        let (goes_on, counter) = (self.goes_on.clone(), done.clone());
        self.done.push(done);
        self.threads.push(thread::spawn(move || {
            while goes_on.load(Ordering::Relaxed) {
                once(counter.fetch_add(1, Ordering::Relaxed));
            }
        }));
    }

    /// Waits until every stream has done something more, a few times.
    fn goes_on(&self) {
        let before: Vec<u64> = self.done.iter().map(|d| d.load(Ordering::Relaxed)).collect();
        for (done, before) in self.done.iter().zip(before) {
            while done.load(Ordering::Relaxed) < before + 3 {
                let over = self.threads.iter().any(JoinHandle::is_finished);
                assert!(!over, "a stream has ended");
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn stop(mut self) {
        self.goes_on.store(false, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        for stream in &mut self.idle {
            say(stream, b"at last");
        }
    }
}

/// Asks, and expects the answer.
fn talk(mut stream: &TcpStream, number: u64) {
    let asked = number.to_be_bytes();
    stream.write_all(&asked).unwrap();
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, asked);
}

/// As much in both directions at once as the buffers take, and more.
fn transfer(stream: &TcpStream, number: u64) {
    const SIZE: usize = 4 << 20;
    let byte = move |i: usize| (i as u64 * 7 + number) as u8;
    let mut writer = stream.try_clone().unwrap();
    let writing = thread::spawn(move || {
        let bytes: Vec<u8> = (0..SIZE).map(byte).collect();
        writer.write_all(&bytes).unwrap();
    });
    let mut received = vec![0; SIZE];
    (&mut &*stream).read_exact(&mut received).unwrap();
    writing.join().unwrap();
    let wrong = received.iter().enumerate().find(|(i, got)| **got != byte(*i));
    assert_eq!(wrong, None);
}

fn hand_over(config: &Path) -> (bool, String) {
    let mut command = outlive();
    let output = command.arg("handover").arg("--config").arg(config).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn nobody_notices_that_the_nodes_take_turns() {
    let Some(network) = Network::new() else { return };
    let [a_host, b_host, client, server] = [1, 2, 10, 20].map(|number| network.host(number));
    echo_server(&server, "10.77.0.20:7");
    echo_server(&server, "[fd77::20]:7");
    let configs = [network.config("a", 1, 2, LISTENERS), network.config("b", 2, 1, LISTENERS)];
    let a = Node::start(&a_host, &configs[0]);
    a.is("active");
    // Without a standby it is refused, and says why.
    let (done, said) = hand_over(&configs[0]);
    assert!(!done && said.contains("the peer is not heard"), "{said}");
    let b = Node::start(&b_host, &configs[1]);
    b.is("standby");
    b.is_survivable();
    let (done, said) = hand_over(&configs[1]);
    assert!(!done && said.contains("not the active one"), "{said}");

    let load = Load::start(&client);
    let nodes = [a, b];
    for turn in 0..6 {
        load.goes_on();
        let [from, to] = [turn % 2, (turn + 1) % 2];
        nodes[from].is_survivable();
        let (done, said) = hand_over(&configs[from]);
        assert!(done, "turn {turn}: {said}");
        assert_eq!(nodes[to].is("active")["core"]["counters"]["takeovers"], turn / 2 + 1);
        nodes[from].is("standby");
    }
    load.goes_on();
    load.stop();
    for node in &nodes {
        let resets = &node.status()["core"]["counters"]["resets_sent"];
        assert_eq!(resets, 0, "somebody was reset");
    }
}

/// The procedure of `docs/operations.md`, with the same version in the part of the new one.
#[test]
fn both_nodes_are_upgraded_under_load() {
    let Some(network) = Network::new() else { return };
    let [a_host, b_host, client, server] = [1, 2, 10, 20].map(|number| network.host(number));
    echo_server(&server, "10.77.0.20:7");
    echo_server(&server, "[fd77::20]:7");
    let configs = [network.config("a", 1, 2, LISTENERS), network.config("b", 2, 1, LISTENERS)];
    let a = Node::start(&a_host, &configs[0]);
    a.is("active");
    let b = Node::start(&b_host, &configs[1]);
    b.is_survivable();
    let load = Load::start(&client);
    load.goes_on();

    // The standby first.
    assert_eq!(b.stop(), Some(0));
    load.goes_on();
    // One that is too new is refused, and the node that serves says so and serves on.
    let mut stranger = connect(&b_host, "10.77.0.1".parse().unwrap(), 7400);
    stranger.write_all(b"OLSC\x63\x01\0\0\0\0\0\0\0\0\0\x01").unwrap();
    a.until("a word about the version", |_| a.log().contains("version 99"));
    load.goes_on();
    let b = Node::start(&b_host, &configs[1]);
    b.is_survivable();

    // Then the active one: being told to stop, it hands over.
    a.is_survivable();
    assert_eq!(a.stop(), Some(0));
    b.is("active");
    load.goes_on();
    let a = Node::start(&a_host, &configs[0]);
    a.is_survivable();
    b.is_survivable();
    load.goes_on();

    // And whoever wants to may go back.
    let (done, said) = hand_over(&configs[1]);
    assert!(done, "{said}");
    a.is("active");
    load.goes_on();
    load.stop();
}
