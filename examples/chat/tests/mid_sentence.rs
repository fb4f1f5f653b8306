//! Two nodes, people with ordinary sockets, and deaths in mid-sentence.
//!
//! In network namespaces that the test makes; without the privileges for that it says so and ends.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use outlive_net::{
    netlink::{AddressOptions, BridgeOptions},
    netns::Namespace,
    program::end_with_starter,
    sending::Sending,
    tun,
};

/// Against hanging, and for nothing else.
const PATIENCE: Duration = Duration::from_secs(60);
const SERVICE: &str = "10.9.62.100:4000";
const PROGRAM: &str = env!("CARGO_BIN_EXE_chat");

/// A switch; `None`, with a line that says so, if this user may make none.
fn switch() -> Option<Namespace> {
    if let Err(error) = tun::check_driver() {
        eprintln!("SKIPPED: this test needs a TUN device: {error}");
        return None;
    }
    let switch = Namespace::create()
        .inspect_err(|error| eprintln!("SKIPPED: this test needs a privileged user: {error}"))
        .ok()?;
    let netlink = switch.netlink().unwrap();
    netlink.add_bridge("br0", BridgeOptions { multicast_snooping: false }).unwrap();
    netlink.set_up("br0", true).unwrap();
    Some(switch)
}

fn machine(switch: &Namespace, number: u8) -> Namespace {
    let machine = Namespace::create().unwrap();
    let port = format!("port{number}");
    let netlink = switch.netlink().unwrap();
    netlink.add_veth(&port, "eth0", Some(&machine)).unwrap();
    netlink.set_master(&port, Some("br0")).unwrap();
    netlink.set_up(&port, true).unwrap();
    let netlink = machine.netlink().unwrap();
    let address = format!("10.9.62.{number}/24").parse().unwrap();
    netlink.add_address("eth0", address, AddressOptions::default()).unwrap();
    netlink.set_up("eth0", true).unwrap();
    machine
}

/// The program on one machine, killed when it is dropped.
struct Node {
    process: Child,
    said: mpsc::Receiver<String>,
}

impl Node {
    fn start(machine: &Namespace, number: u8, key: &Path) -> Self {
        let (own, peer) = (format!("10.9.62.{number}"), format!("10.9.62.{}", 3 - number));
        let mut command = Command::new(PROGRAM);
        command
            .args(["--interface", "eth0", "--listen", SERVICE])
            .args(["--node", if number == 1 { "a" } else { "b" }, "--key"])
            .arg(key)
            .args(["--state", &format!("{own}:7001={peer}:7001")])
            .args(["--heartbeat", &format!("{own}:7002={peer}:7002")])
            .stdout(Stdio::piped());
        machine.enclose(end_with_starter(&mut command));
        let mut process = command.spawn().unwrap();
        let out = BufReader::new(process.stdout.take().unwrap());
        let (say, said) = mpsc::channel();
        std::thread::spawn(move || {
            out.lines().map_while(Result::ok).try_for_each(|line| say.send(line))
        });
        Node { process, said }
    }

    fn becomes(&self, standing: &str) {
        loop {
            let said = self.said.recv_timeout(PATIENCE);
            let said = said.unwrap_or_else(|_| panic!("never {standing}"));
            if said.starts_with(standing) {
                return;
            }
        }
    }
}

impl Drop for Node {
    /// `kill -9`.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Somebody with a socket.
struct Person {
    socket: TcpStream,
    hears: BufReader<TcpStream>,
}

impl Person {
    fn connect(machine: &Namespace, name: &str) -> Self {
        let service: SocketAddr = SERVICE.parse().unwrap();
        let socket = machine.run(move || TcpStream::connect_timeout(&service, PATIENCE));
        let socket = socket.unwrap().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        let hears = BufReader::new(socket.try_clone().unwrap());
        let mut person = Person { socket, hears };
        person.expect("Who are you?");
        person.say(&format!("{name}\n"));
        person.expect(&format!("Hello, {name}. (/who tells who is here.)"));
        person
    }

    fn say(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until everything that was said is acknowledged.
    fn is_understood(&self) {
        let since = std::time::Instant::now();
        while Sending::of(&self.socket).unwrap().unacknowledged > 0 {
            assert!(since.elapsed() < PATIENCE, "never acknowledged");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn expect(&mut self, line: &str) {
        let mut heard = String::new();
        self.hears.read_line(&mut heard).unwrap();
        assert_eq!(heard.trim_end(), line);
    }

    fn go(mut self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
        let mut rest = String::new();
        self.hears.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "", "and then nothing");
    }
}

#[test]
fn people_go_on_in_mid_sentence() {
    let Some(switch) = switch() else { return };
    let machines = [1, 2].map(|number| machine(&switch, number));
    let clients = machine(&switch, 3);
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    outlive_socket::PairKey::generate().unwrap().save(&key).unwrap();
    let start = |number: u8| Node::start(&machines[usize::from(number) - 1], number, &key);

    let mut active = (1, start(1));
    let mut standby = (2, start(2));
    active.1.becomes("Protected");

    let mut ann = Person::connect(&clients, "ann");
    let mut bob = Person::connect(&clients, "bob");
    ann.expect("* bob comes in");
    for round in 0..4 {
        // Half a sentence that is acknowledged, and half a sentence that is not.
        ann.say(&format!("Is this {round} still "));
        ann.is_understood();
        bob.say("I said something\nand am not");
        let (number, dead) = active;
        drop(dead);
        bob.say(" done\n");
        ann.say("the same connection?\n");
        bob.expect(&format!("ann: Is this {round} still the same connection?"));
        ann.expect("bob: I said something");
        ann.expect("bob: and am not done");
        bob.say("/who\n");
        let mut names = String::new();
        bob.hears.read_line(&mut names).unwrap();
        assert!(names.contains("ann") && names.contains("bob"), "{names}");
        active = standby;
        standby = (number, start(number));
        active.1.becomes("Protected");
    }
    ann.go();
    bob.expect("* ann goes");
    bob.go();
}

/// Whenever the node dies: every line comes to everybody once, and those of each in order.
#[test]
fn every_line_is_heard_once() {
    const PEOPLE: usize = 4;
    const LINES: usize = 400;
    let Some(switch) = switch() else { return };
    let machines = [1, 2].map(|number| machine(&switch, number));
    let clients = machine(&switch, 3);
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    outlive_socket::PairKey::generate().unwrap().save(&key).unwrap();
    let start = |number: u8| Node::start(&machines[usize::from(number) - 1], number, &key);
    let mut active = (1, start(1));
    let mut standby = (2, start(2));
    active.1.becomes("Protected");

    let mut people: Vec<Person> = Vec::new();
    for number in 0..PEOPLE {
        let person = Person::connect(&clients, &number.to_string());
        people.iter_mut().for_each(|p| p.expect(&format!("* {number} comes in")));
        people.push(person);
    }
    let (heard, hears) = mpsc::channel();
    let talks: Vec<_> = people
        .into_iter()
        .enumerate()
        .map(|(number, mut person)| {
            let heard = heard.clone();
            std::thread::spawn(move || {
                let mut socket = person.socket.try_clone().unwrap();
                let speaks = std::thread::spawn(move || {
                    for line in 0..LINES {
                        socket.write_all(format!("line {line}\n").as_bytes()).unwrap();
                        std::thread::sleep(Duration::from_millis(1));
                    }
                });
                let mut next = [0; PEOPLE];
                while next.iter().enumerate().any(|(i, line)| i != number && *line < LINES) {
                    let mut text = String::new();
                    person.hears.read_line(&mut text).unwrap();
                    let (who, line) = text.trim_end().split_once(": line ").unwrap();
                    let who: usize = who.parse().unwrap();
                    assert_eq!(line, next[who].to_string(), "{number} hears {who}");
                    next[who] += 1;
                    let _ = heard.send(());
                }
                speaks.join().unwrap();
                person
            })
        })
        .collect();
    drop(heard);
    'deaths: for _ in 0..3 {
        for _ in 0..600 {
            if hears.recv_timeout(PATIENCE).is_err() {
                break 'deaths;
            }
        }
        let (number, dead) = active;
        drop(dead);
        active = standby;
        standby = (number, start(number));
        active.1.becomes("Protected");
    }
    let people: Vec<Person> = talks.into_iter().map(|talk| talk.join().unwrap()).collect();
    // Nobody has heard anything else.
    for mut person in people {
        person.say("/who\n");
        let mut names = String::new();
        person.hears.read_line(&mut names).unwrap();
        assert!(names.starts_with("* "), "{names}");
    }
}
