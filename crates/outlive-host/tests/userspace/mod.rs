//! Connections migrated into a program built on `outlive-socket`, which takes them without an agent.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use outlive_migration::message::{HowEnded, Message, Refusal};
use outlive_socket::{Closed, Host, HostConfig, MigrationConfig, StartError, Stream, Transaction};
use tokio::runtime::Runtime;

use crate::{
    content, courses, refused,
    stage::{
        CHANNEL, PATIENCE, Stage, TUNNEL_BALANCER, TUNNEL_TARGET, VIRTUAL,
        balancer::{Balancer, Course},
        virtual_address,
    },
};

fn migration(stage: &Stage) -> MigrationConfig {
    let all = |addresses: [&str; 2]| addresses.map(|it| it.parse().unwrap()).to_vec();
    MigrationConfig {
        addresses: all(VIRTUAL),
        listen: CHANNEL.parse().unwrap(),
        key: stage.key.host("web1"),
        nodes: vec!["10.77.0.1".parse().unwrap()],
        tunnel: all(TUNNEL_TARGET),
        tunnel_nodes: all(TUNNEL_BALANCER),
        patience: Duration::from_secs(60),
    }
}

fn start(stage: &Stage) -> Host {
    let config = HostConfig::for_migration(migration(stage));
    stage.target.run(|| Host::start(config)).unwrap().unwrap()
}

fn client(stage: &Stage, ipv6: bool, port: u16) -> TcpStream {
    let to = virtual_address(ipv6, port);
    let stream = stage.client.run(|| TcpStream::connect_timeout(&to, PATIENCE));
    let stream = stream.unwrap().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends back what comes, acknowledging it once it has been sent.
async fn echo(mut stream: Stream) {
    let mut position = stream.position();
    while let Some(data) = stream.read(20_000).await.unwrap() {
        assert_eq!(data.position, position);
        position += data.bytes.len() as u64;
        let len = data.bytes.len() as u32;
        stream.commit(Transaction::new().acknowledge(len).write(data.bytes)).await.unwrap();
    }
    stream.finish().await.unwrap();
}

fn exchanges(stream: &mut TcpStream, len: usize) {
    let sent = content(len);
    let mut writer = stream.try_clone().unwrap();
    let half = sent.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&half).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    writing.join().unwrap();
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
}

fn migrated(balancer: &Balancer) {
    assert!(matches!(balancer.answer(), Message::Prepared { .. }));
    assert!(matches!(balancer.answer(), Message::Committed { .. }));
}

/// How the connection has ended of which nothing was read yet.
fn ended(balancer: &Balancer) -> HowEnded {
    loop {
        match balancer.answer() {
            Message::Prepared { .. } | Message::Committed { .. } => {}
            Message::Ended { how, .. } => return how,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_program_goes_on_with_a_connection() {
    let Some(stage) = Stage::new() else { return };
    let runtime = Runtime::new().unwrap();
    let host = start(&stage);
    let balancer = Balancer::start(&stage);
    for ipv6 in [false, true] {
        let listener = host.listen(virtual_address(ipv6, 80)).unwrap();
        for course in courses() {
            balancer.course(course);
            let mut client = client(&stage, ipv6, 80);
            let own = client.local_addr().unwrap();
            let serving = async {
                let stream = listener.accept().await.unwrap();
                assert_eq!(
                    (stream.peer_addr(), stream.local_addr()),
                    (own, virtual_address(ipv6, 80))
                );
                assert_eq!((stream.position(), stream.is_resumed()), (0, false));
                echo(stream).await;
            };
            let talking = std::thread::spawn(move || exchanges(&mut client, 300_000));
            runtime.block_on(serving);
            talking.join().unwrap();
            assert_eq!(ended(&balancer), HowEnded::Closed);
        }
    }
    assert_eq!(host.counters().resets_sent, 0);
}

#[test]
fn packets_to_a_program_may_be_lost_doubled_and_reordered() {
    let Some(stage) = Stage::new() else { return };
    let runtime = Runtime::new().unwrap();
    let host = start(&stage);
    let balancer = Balancer::start(&stage);
    balancer.course(Course { bad_link: true, twice: true, ..Course::default() });
    for ipv6 in [false, true] {
        let listener = host.listen(virtual_address(ipv6, 80)).unwrap();
        let mut client = client(&stage, ipv6, 80);
        let talking = std::thread::spawn(move || exchanges(&mut client, 500_000));
        runtime.block_on(async { echo(listener.accept().await.unwrap()).await });
        talking.join().unwrap();
    }
}

#[test]
fn what_nobody_listens_for_is_refused_before_commit() {
    let Some(stage) = Stage::new() else { return };
    let host = start(&stage);
    let balancer = Balancer::start(&stage);
    let mut first = client(&stage, false, 80);
    first.write_all(b"hello").unwrap();
    assert_eq!(refused(&balancer), Refusal::NotHere);
    let _listener = host.listen_with_backlog(virtual_address(false, 80), 1).unwrap();
    let mut second = client(&stage, false, 80);
    second.write_all(b"hello").unwrap();
    migrated(&balancer);
    let mut third = client(&stage, false, 80);
    third.write_all(b"hello").unwrap();
    assert_eq!(refused(&balancer), Refusal::Full);
    host.drain(true);
    // The loop has to have turned; until it has, the answer is the same as before.
    loop {
        let mut fourth = client(&stage, false, 80);
        fourth.write_all(b"hello").unwrap();
        match refused(&balancer) {
            Refusal::Draining => break,
            other => assert_eq!(other, Refusal::Full),
        }
    }
    assert_eq!(host.connections(), 1);
}

#[test]
fn an_aborted_connection_never_reached_the_program() {
    let Some(stage) = Stage::new() else { return };
    let runtime = Runtime::new().unwrap();
    let host = start(&stage);
    let listener = host.listen(virtual_address(false, 80)).unwrap();
    let balancer = Balancer::start(&stage);
    balancer.course(Course { commits: false, ..Course::default() });
    let mut first = client(&stage, false, 80);
    first.write_all(b"first").unwrap();
    assert!(matches!(balancer.answer(), Message::Prepared { .. }));
    balancer.course(Course::default());
    let mut second = client(&stage, false, 80);
    second.write_all(b"second").unwrap();
    let mut stream = runtime.block_on(listener.accept()).unwrap();
    assert_eq!(stream.peer_addr(), second.local_addr().unwrap());
    assert!(listener.try_accept().unwrap().is_none());
    assert_eq!(host.connections(), 1);
    first.set_nonblocking(true).unwrap();
    let nothing = (&first).read(&mut [0]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock, "not a word to the client");
    let data = runtime.block_on(stream.read(100)).unwrap().unwrap();
    assert_eq!(data.bytes.as_ref(), b"second");
}

#[test]
fn balancers_are_told_how_it_ended() {
    let Some(stage) = Stage::new() else { return };
    let runtime = Runtime::new().unwrap();
    let host = start(&stage);
    let listener = host.listen(virtual_address(false, 80)).unwrap();
    let balancer = Balancer::start(&stage);
    let begin = || {
        let mut client = client(&stage, false, 80);
        client.write_all(b"hello").unwrap();
        let stream = runtime.block_on(listener.accept()).unwrap();
        migrated(&balancer);
        (client, stream)
    };
    // The program has not acknowledged what it was given.
    let (mut one, stream) = begin();
    drop(stream);
    assert_eq!(one.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(ended(&balancer), HowEnded::Reset);

    let (two, mut stream) = begin();
    runtime.block_on(stream.read(100)).unwrap();
    stream.acknowledge(5).unwrap();
    socket2::SockRef::from(&two).set_linger(Some(Duration::ZERO)).unwrap();
    drop(two);
    let error = runtime.block_on(stream.read(100)).unwrap_err();
    assert_eq!(error.closed(), Some(Closed::ResetByPeer));
    assert_eq!(ended(&balancer), HowEnded::Reset);

    let (_three, _stream) = begin();
    host.shutdown();
    assert_eq!(ended(&balancer), HowEnded::Lost);
}

#[test]
fn a_host_with_a_peer_takes_no_migrations() {
    let Some(stage) = Stage::new() else { return };
    let own = "10.77.0.7:0".parse().unwrap();
    let peer = outlive_socket::PeerConfig {
        node: outlive_socket::NodeId::A,
        key: stage.key.clone(),
        state: (own, own),
        heartbeat: vec![(own, own)],
        watch: outlive_socket::PairConfig::default(),
    };
    let config = HostConfig::for_migration(migration(&stage)).with_peer(peer);
    let error = stage.target.run(|| Host::start(config)).unwrap().err();
    assert!(matches!(error, Some(StartError::MigrationWithPeer)));
}
