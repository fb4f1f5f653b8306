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
    Host, NodeId, PairConfig, PairKey, PeerConfig, Standing, Stream, StreamError, Transaction,
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

fn peer(node: NodeId, key: &PairKey) -> PeerConfig {
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
        let mut standing = self.host.standing();
        let changed = standing.wait_for(|standing| *standing == wanted);
        tokio::time::timeout(PATIENCE, changed).await.expect("in time").unwrap();
    }
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
