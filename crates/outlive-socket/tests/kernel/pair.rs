//! Two hosts with the same program.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use outlive_net::netns::Namespace;
use outlive_socket::{
    Closed, Host, Listener, NodeId, PairConfig, PairKey, PeerConfig, Standing, Stream, StreamError,
    Transaction,
};

use crate::network::{Network, PATIENCE, V4, address, client, service, start_with_peer};

/// Numbers the lines that come, and says so. Its state is the number, and the beginning of a line
/// that has not come whole: to leave that with the client would have it wait for its timer, for what
/// it writes in small pieces it sends in small pieces only once the one before is acknowledged
/// (RFC 896).
async fn number_lines(mut stream: Stream, resumed: Arc<AtomicUsize>) -> Result<(), StreamError> {
    resumed.fetch_add(usize::from(stream.is_resumed()), Ordering::Relaxed);
    let state = stream.state().clone();
    let (mut lines, rest) = match state.split_first_chunk() {
        Some((lines, rest)) => (u64::from_be_bytes(*lines), rest),
        None => (0, &[][..]),
    };
    let mut line = rest.to_vec();
    while let Some(data) = stream.read(4_096).await? {
        let mut answer = Vec::new();
        for byte in &data.bytes {
            line.push(*byte);
            if *byte == b'\n' {
                lines += 1;
                answer.extend(format!("{lines} ").as_bytes());
                answer.append(&mut line);
            }
        }
        let transaction = Transaction::new()
            .acknowledge(data.bytes.len() as u32)
            .write(answer)
            .state([&lines.to_be_bytes(), line.as_slice()].concat());
        stream.commit(transaction).await?;
    }
    stream.finish().await
}

pub(crate) fn peer(node: NodeId, key: &PairKey) -> PeerConfig {
    let (own, other) = if node == NodeId::A { (1, 2) } else { (2, 1) };
    let path = |port| (address(own, port), address(other, port));
    PeerConfig {
        node,
        key: key.clone(),
        state: path(7_001),
        heartbeat: vec![path(7_002)],
        watch: PairConfig::default(),
    }
}

/// A host that runs the program, until it is dropped.
struct Node {
    host: Host,
    resumed: Arc<AtomicUsize>,
}

impl Node {
    fn start(machine: &Namespace, node: NodeId, key: &PairKey) -> Self {
        let host = start_with_peer(machine, peer(node, key));
        let listener = host.listen(service(V4)).unwrap();
        let resumed = Arc::new(AtomicUsize::new(0));
        let counter = resumed.clone();
        tokio::spawn(async move {
            while let Ok(stream) = listener.accept().await {
                // Its end is the client's to judge.
                tokio::spawn(number_lines(stream, counter.clone()));
            }
        });
        Node { host, resumed }
    }

    async fn becomes(&self, wanted: Standing) {
        becomes(&self.host, wanted).await;
    }
}

pub(crate) async fn becomes(host: &Host, wanted: Standing) {
    let mut standing = host.standing();
    let changed = standing.wait_for(|standing| *standing == wanted);
    tokio::time::timeout(PATIENCE, changed).await.expect("in time").unwrap();
}

/// Both nodes with a listener, the first of them serving and protected.
pub(crate) async fn protected(one: &Namespace, other: &Namespace) -> [(Host, Listener); 2] {
    let key = PairKey::generate().unwrap();
    let start = |machine, node| {
        let host = start_with_peer(machine, peer(node, &key));
        let listener = host.listen(service(V4)).unwrap();
        (host, listener)
    };
    let a = start(one, NodeId::A);
    becomes(&a.0, Standing::Alone).await;
    let b = start(other, NodeId::B);
    becomes(&a.0, Standing::Protected).await;
    becomes(&b.0, Standing::Standby { synchronised: true }).await;
    [a, b]
}

/// Sends lines one by one, each when the one before was answered, until `told`, which counts them, is
/// at `enough`.
fn converse(stream: TcpStream, told: &AtomicUsize, enough: &AtomicUsize) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    let mut answer = String::new();
    for number in 1.. {
        if told.load(Ordering::Acquire) >= enough.load(Ordering::Acquire) {
            break;
        }
        writeln!(writer, "line {number}").unwrap();
        answer.clear();
        reader.read_line(&mut answer).unwrap();
        assert_eq!(answer, format!("{number} line {number}\n"));
        told.fetch_add(1, Ordering::Release);
    }
    writer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(reader.read_line(&mut answer).unwrap(), 0, "and then nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_go_on_at_the_standby_and_back() {
    let Some(network) = Network::new() else { return };
    let (one, other, clients) = (network.machine(1), network.machine(2), network.machine(3));
    let key = PairKey::generate().unwrap();
    let a = Node::start(&one, NodeId::A, &key);
    let b = Node::start(&other, NodeId::B, &key);
    a.becomes(Standing::Protected).await;
    b.becomes(Standing::Standby { synchronised: true }).await;

    let (told, enough) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(usize::MAX)));
    let talks: Vec<_> = (0..10)
        .map(|_| {
            let (told, enough) = (told.clone(), enough.clone());
            client(&clients, V4, move |stream| converse(stream, &told, &enough))
        })
        .collect();
    let further = async |lines: usize| {
        let wanted = told.load(Ordering::Acquire) + lines;
        crate::network::until("the talks go on", || told.load(Ordering::Acquire) >= wanted).await;
    };
    further(500).await;
    drop(a);
    further(500).await;
    assert_eq!(b.resumed.load(Ordering::Relaxed), 10);
    let a = Node::start(&one, NodeId::A, &key);
    b.becomes(Standing::Protected).await;
    a.becomes(Standing::Standby { synchronised: true }).await;
    further(500).await;
    drop(b);
    further(500).await;
    assert_eq!(a.resumed.load(Ordering::Relaxed), 10);
    enough.store(0, Ordering::Release);
    for talk in talks {
        tokio::task::spawn_blocking(|| talk.join().unwrap().unwrap()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_has_moved_away_says_so() {
    let Some(network) = Network::new() else { return };
    let (one, other, clients) = (network.machine(1), network.machine(2), network.machine(3));
    let [(a, listener_a), (b, listener_b)] = protected(&one, &other).await;
    let client = client(&clients, V4, |mut stream| {
        stream.write_all(b"first").unwrap();
        let mut answer = String::new();
        BufReader::new(&stream).read_line(&mut answer).unwrap();
        stream.write_all(b"second").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
        answer
    });
    let mut old = listener_a.accept().await.unwrap();
    assert_eq!(old.read(100).await.unwrap().unwrap().bytes.as_ref(), b"first");
    old.commit(Transaction::new().acknowledge(5).state("one")).await.unwrap();
    // Cut off, not dead: it still takes itself for the one that serves.
    network.connect(1, false);
    let mut new = listener_b.accept().await.unwrap();
    assert!(new.is_resumed());
    assert_eq!((new.id(), new.state().as_ref(), new.position()), (old.id(), &b"one"[..], 5));
    network.connect(1, true);
    becomes(&b, Standing::Protected).await;
    becomes(&a, Standing::Standby { synchronised: true }).await;

    assert_eq!(old.closed(), Some(Closed::Moved));
    let moved = Err(StreamError::from(Closed::Moved));
    assert_eq!(old.begin(Transaction::new().write("from the grave")), moved);
    assert_eq!(old.commit(Transaction::new()).await, moved);
    assert_eq!(old.acknowledge(0), moved);
    assert_eq!(old.flush().await, Ok(()), "what was committed before");
    assert_eq!(old.write(b"x").await, Err(Closed::Moved.into()));
    assert!(old.read(1).await.unwrap_err().has_moved());
    assert_eq!(old.shutdown(), moved);
    assert!(old.finish().await.unwrap_err().has_moved());

    new.write_all("hello\n").await.unwrap();
    let data = new.read(100).await.unwrap().unwrap();
    assert_eq!((data.position, data.bytes.as_ref()), (5, &b"second"[..]));
    new.acknowledge(6).unwrap();
    assert_eq!(new.read(100).await, Ok(None));
    new.finish().await.unwrap();
    let answer = tokio::task::spawn_blocking(|| client.join().unwrap().unwrap()).await.unwrap();
    assert_eq!(answer, "hello\n");
}
