//! Connections on which not much happens while harm is done: an end that does not read, one that has
//! closed its half, and one that says nothing. Kernel sockets at both ends, driven by the test.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use outlive_lab::{clock::wait_until, host::Host, link::LinkKind};

use crate::world::{Fault, PATIENCE, World, is_full, listener, pool, virtual_address};

const DIRECT: u16 = 7000;
const INSPECT: u16 = 7001;
/// The port of the servers.
const PORT: u16 = 7000;

/// Counters of a sender's kernel that tell that it has lost patience with its peer.
const IMPATIENCE: [&str; 3] = ["TCPTimeouts", "TCPAbortOnTimeout", "TCPRetransFail"];

/// Both ends of a connection through the pair.
struct Ends {
    client: TcpStream,
    server: TcpStream,
}

impl Ends {
    /// Opens a connection to `address`. Both ends say a word, so that it is established throughout.
    fn open(world: &World, accepting: &TcpListener, address: SocketAddr) -> Self {
        let connect = || TcpStream::connect_timeout(&address, PATIENCE);
        let mut client = world.client.enter(connect).unwrap().unwrap();
        // An inspecting listener connects to the server only with the first data.
        client.write_all(b"hello").unwrap();
        let (mut server, _) = accepting.accept().unwrap();
        for end in [&client, &server] {
            end.set_read_timeout(Some(PATIENCE)).unwrap();
            end.set_write_timeout(Some(PATIENCE)).unwrap();
        }
        expect(&mut server, b"hello");
        server.write_all(b"welcome").unwrap();
        expect(&mut client, b"welcome");
        Ends { client, server }
    }

    /// Each end must hear the other.
    fn talk(&mut self, text: &str) {
        self.client.write_all(text.as_bytes()).unwrap();
        expect(&mut self.server, text.as_bytes());
        self.server.write_all(text.as_bytes()).unwrap();
        expect(&mut self.client, text.as_bytes());
    }
}

fn expect(stream: &mut TcpStream, text: &[u8]) {
    let mut said = vec![0; text.len()];
    stream.read_exact(&mut said).unwrap();
    assert_eq!(String::from_utf8_lossy(&said), String::from_utf8_lossy(text));
}

fn expect_end(stream: &mut TcpStream) {
    let mut more = Vec::new();
    stream.read_to_end(&mut more).unwrap();
    assert!(more.is_empty(), "{more:?}");
}

/// The pair with one server behind both kinds of listener, and the server's listening sockets for
/// both IP versions.
fn set_up(links: &LinkKind) -> Option<(World, [TcpListener; 2])> {
    let mut world = World::new(&[], links.clone())?;
    let server = &world.servers[0];
    let listening = [false, true].map(|ipv6| {
        let address = server.socket(ipv6, PORT);
        server.enter(|| TcpListener::bind(address)).unwrap().unwrap()
    });
    let text = listener(DIRECT, "direct", "server", "")
        + &listener(INSPECT, "inspect", "server", "")
        + &pool("server", &[server], PORT, "");
    world.start_pair(links, &text);
    Some((world, listening))
}

/// A connection for each kind of listener and each IP version.
fn open_each(world: &World, listening: &[TcpListener; 2]) -> Vec<Ends> {
    [(DIRECT, false), (DIRECT, true), (INSPECT, false), (INSPECT, true)]
        .map(|(port, ipv6)| {
            let accepting = &listening[usize::from(ipv6)];
            Ends::open(world, accepting, virtual_address(ipv6, port))
        })
        .into()
}

fn impatience(host: &Host) -> Vec<u64> {
    IMPATIENCE.map(|name| host.counter(name).unwrap().expect("the kernel counts it")).into()
}

/// One end of each connection does not read while the other one sends as much as it can. Everything
/// sent is acknowledged, so the sender has nothing to lose patience with; not even when the active node is
/// killed in the middle of it.
///
/// A proxy that withheld acknowledgments would be seen at once: the sender's first timeout comes
/// after 0.2 s, and is counted. Its last, after which it aborts, comes 13.3 s after (with
/// `tcp_retries2=5`); so only the 30 s of a full run show in addition that a sender would have lived
/// through it. Zero-window probes go on meanwhile in both.
fn nobody_reads(server_reads: bool) {
    let links = LinkKind::Plain;
    let Some((mut world, listening)) = set_up(&links) else { return };
    let sender = if server_reads { &world.servers[0] } else { &world.client };
    sender.sysctl("net/ipv4/tcp_retries2", "5").unwrap();
    let ends = open_each(&world, &listening);
    let before = impatience(sender);

    const LEN: usize = 24_000_000;
    let (senders, receivers): (Vec<TcpStream>, Vec<TcpStream>) = ends
        .into_iter()
        .map(
            |Ends { client, server }| {
                if server_reads { (server, client) } else { (client, server) }
            },
        )
        .unzip();
    let byte = |at: usize| (at % 251) as u8;
    let sending: Vec<_> = senders
        .into_iter()
        .map(|mut stream| {
            // It waits for as long as the other end does not read.
            stream.set_write_timeout(None).unwrap();
            thread::spawn(move || {
                let content: Vec<u8> = (0..LEN).map(byte).collect();
                stream.write_all(&content).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                stream
            })
        })
        .collect();
    // The standstill itself: all buffers are full, and nothing is sent but probes.
    let stands_still = || {
        let sent = || sender.counter("OutSegs").unwrap();
        let before = sent();
        thread::sleep(Duration::from_millis(100));
        sent() == before
    };
    assert!(wait_until(PATIENCE, stands_still), "it goes on sending");
    let half = Duration::from_secs(if is_full() { 15 } else { 4 });
    thread::sleep(half);
    world.harm(Fault::Kill);
    thread::sleep(half);
    assert!(sending.iter().all(|thread| !thread.is_finished()), "the buffers took everything");
    let sender = if server_reads { &world.servers[0] } else { &world.client };
    assert_eq!(impatience(sender), before, "{IMPATIENCE:?}");

    for mut stream in receivers {
        let mut received = Vec::with_capacity(LEN);
        stream.read_to_end(&mut received).unwrap();
        assert_eq!(received.len(), LEN);
        assert!(received.iter().enumerate().all(|(at, &is)| is == byte(at)), "bytes were changed");
    }
    sending.into_iter().for_each(|thread| drop(thread.join().unwrap()));
    let [aborts_before, aborts] = [&before, &impatience(sender)].map(|counts| counts[1]);
    assert_eq!(aborts, aborts_before, "TCPAbortOnTimeout");
}

#[test]
fn a_server_that_stops_reading_is_waited_for() {
    nobody_reads(false);
}

#[test]
fn a_client_that_stops_reading_is_waited_for() {
    nobody_reads(true);
}

/// Of each kind of connection one is half-closed by its client and one by its server. The other half
/// goes on over the fault, and ends well.
fn half_closed(fault: Fault) {
    let links = LinkKind::Plain;
    let Some((mut world, listening)) = set_up(&links) else { return };
    let mut by_client = open_each(&world, &listening);
    let mut by_server = open_each(&world, &listening);
    for ends in &mut by_client {
        ends.client.shutdown(Shutdown::Write).unwrap();
        expect_end(&mut ends.server);
    }
    for ends in &mut by_server {
        ends.server.shutdown(Shutdown::Write).unwrap();
        expect_end(&mut ends.client);
    }
    let mut halves: Vec<(&mut TcpStream, &mut TcpStream)> = Vec::new();
    halves.extend(by_client.iter_mut().map(|ends| (&mut ends.server, &mut ends.client)));
    halves.extend(by_server.iter_mut().map(|ends| (&mut ends.client, &mut ends.server)));
    let mut say = |text: &[u8]| {
        for (sender, receiver) in &mut halves {
            sender.write_all(text).unwrap();
            expect(receiver, text);
        }
    };
    say(b"before");
    world.harm(fault);
    say(b"after");
    world.heal();
    say(b"when everything is in order again");
    for (sender, receiver) in halves {
        sender.shutdown(Shutdown::Write).unwrap();
        expect_end(receiver);
    }
}

#[test]
fn half_closed_connections_outlive_a_kill() {
    half_closed(Fault::Kill);
}

#[test]
fn half_closed_connections_outlive_a_cut() {
    half_closed(Fault::Cut);
}

/// Connections that are idle before, during and after the fault for much longer than it takes to
/// detect it; and after the next one, too.
#[test]
fn idle_connections_outlive_a_kill_and_a_cut() {
    let links = LinkKind::Plain;
    let Some((mut world, listening)) = set_up(&links) else { return };
    let [mut all, mut once] = [(); 2].map(|()| open_each(&world, &listening));
    // Three times the detection timeout.
    let idle = || thread::sleep(Duration::from_millis(600));
    idle();
    world.harm(Fault::Kill);
    idle();
    all.iter_mut().for_each(|ends| ends.talk("after the kill"));
    world.heal();
    idle();
    world.harm(Fault::Cut);
    idle();
    all.iter_mut().for_each(|ends| ends.talk("after the cut"));
    // These have said nothing since the beginning.
    once.iter_mut().for_each(|ends| ends.talk("after both"));
    world.heal();
    all.iter_mut().chain(&mut once).for_each(|ends| ends.talk("at the end"));
}
