//! One host.

use std::{
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    time::Duration,
};

use outlive_net::sending::Sending;
use outlive_socket::{Closed, CommitError, ListenError, StreamError, Transaction};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::network::{Network, V4, V6, client, config, data, service, start, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_echoed_to_its_last_byte() {
    let Some(network) = Network::new() else { return };
    let (server, clients) = (network.machine(1), network.machine(2));
    let host = start(&server, config());
    for address in [V4, V6] {
        let listener = host.listen(service(address)).unwrap();
        let echo = tokio::spawn(async move {
            let stream = listener.accept().await.unwrap();
            assert_eq!((stream.is_resumed(), stream.position()), (false, 0));
            let (mut read, mut write) = tokio::io::split(stream.acknowledging());
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let client = client(&clients, address, |mut stream| {
            let sent = data(5_000_000);
            let mut writer = stream.try_clone().unwrap();
            let half = sent.clone();
            let writing = std::thread::spawn(move || {
                writer.write_all(&half).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            writing.join().unwrap();
            assert!(got == sent, "{} bytes of {}", got.len(), sent.len());
        });
        tokio::task::spawn_blocking(|| client.join().unwrap().unwrap()).await.unwrap();
        echo.await.unwrap();
    }
    until("every connection is over", || host.connections() <= 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_acknowledged_stays_with_the_client() {
    let Some(network) = Network::new() else { return };
    let (server, clients) = (network.machine(1), network.machine(2));
    let host = start(&server, config());
    let listener = host.listen(service(V4)).unwrap();
    let (kept, held) = std::sync::mpsc::channel();
    let client = client(&clients, V4, move |mut stream| {
        stream.write_all(b"an order").unwrap();
        kept.send(stream.try_clone().unwrap()).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    });
    let mut stream = listener.accept().await.unwrap();
    let socket = tokio::task::spawn_blocking(move || held.recv().unwrap()).await.unwrap();
    let sending = || Sending::of(&socket).unwrap();

    let data = stream.read(100).await.unwrap().unwrap();
    assert_eq!((data.position, data.bytes.as_ref()), (0, &b"an order"[..]));
    // Its sender waits for longer than any delayed acknowledgment takes.
    until("the client says it again", || sending().retransmitted > 0).await;
    assert!(sending().unacknowledged > 0, "it was read, and not acknowledged");
    stream.commit(Transaction::new().acknowledge(8).write("booked").end()).await.unwrap();
    until("the client knows", || sending().unacknowledged == 0).await;
    drop(stream);
    drop(socket);
    tokio::task::spawn_blocking(|| client.join().unwrap().unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn misuse_is_a_typed_error() {
    let Some(network) = Network::new() else { return };
    let (server, clients) = (network.machine(1), network.machine(2));
    let host = start(&server, config());
    let elsewhere = "10.9.60.101:514".parse().unwrap();
    let error = host.listen(elsewhere).err();
    assert_eq!(error, Some(ListenError::NotOurs(elsewhere.ip())));
    let listener = host.listen(service(V4)).unwrap();
    assert!(matches!(host.listen(service(V4)).err(), Some(ListenError::InUse(_))));
    let client = client(&clients, V4, |mut stream| {
        stream.write_all(b"12345").unwrap();
        stream.read(&mut [0]).unwrap_err().kind()
    });
    let mut stream = listener.accept().await.unwrap();
    assert!(stream.read(100).await.unwrap().is_some());
    let beyond = CommitError::BeyondRead { wanted: 6, outstanding: 5 };
    assert_eq!(stream.acknowledge(6), Err(StreamError::Refused(beyond)));
    let too_long = stream.commit(Transaction::new().state(vec![0; 1 << 20])).await;
    assert!(matches!(too_long, Err(StreamError::Refused(CommitError::StateTooLong { .. }))));
    assert_eq!(stream.outstanding(), Ok(5));
    // A read that is given up has taken nothing.
    let given_up = tokio::time::timeout(Duration::from_millis(20), stream.read(100)).await;
    assert!(given_up.is_err());

    // The client has to know that its bytes went nowhere.
    drop(stream);
    let kind = tokio::task::spawn_blocking(|| client.join().unwrap().unwrap()).await.unwrap();
    assert_eq!(kind, ErrorKind::ConnectionReset);

    host.shutdown();
    assert!(listener.accept().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn back_pressure_reaches_both_sides() {
    let Some(network) = Network::new() else { return };
    let (server, clients) = (network.machine(1), network.machine(2));
    let mut config = config();
    (config.tcp.receive_buffer, config.tcp.withheld_limit) = (64 << 10, 64 << 10);
    config.tcp.send_buffer = 64 << 10;
    let host = start(&server, config);
    let listener = host.listen(service(V4)).unwrap();
    let sent = 3_000_000;
    let client = client(&clients, V4, move |mut stream| {
        stream.write_all(&data(sent)).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        got
    });
    let mut stream = listener.accept().await.unwrap();
    let mut got = Vec::new();
    while let Some(data) = stream.read(10_000).await.unwrap() {
        assert_eq!(data.position, got.len() as u64);
        got.extend_from_slice(&data.bytes);
        assert!(stream.outstanding().unwrap() <= 64 << 10);
        stream.acknowledge(data.bytes.len()).unwrap();
    }
    assert!(got == data(sent));
    // Far more than there is room for at once.
    stream.write_all(data(1_000_000)).await.unwrap();
    let too_much = stream.begin(Transaction::new().write(vec![0; (64 << 10) + 1]));
    assert!(matches!(too_much, Err(StreamError::Refused(CommitError::OutputTooLong { .. }))));
    stream.finish().await.unwrap();
    let got = tokio::task::spawn_blocking(|| client.join().unwrap().unwrap()).await.unwrap();
    assert!(got == data(1_000_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_takes_too_long_ends_the_connection() {
    let Some(network) = Network::new() else { return };
    let (server, clients) = (network.machine(1), network.machine(2));
    let mut config = config();
    let limit = Duration::from_millis(300);
    config.commit_timeout = Some(limit);
    let host = start(&server, config);
    let listener = host.listen(service(V4)).unwrap();
    let client = client(&clients, V4, |mut stream| {
        stream.write_all(b"12345").unwrap();
        stream.read(&mut [0]).unwrap_err().kind()
    });
    let mut stream = listener.accept().await.unwrap();
    assert!(AsyncReadExt::read(&mut stream, &mut [0; 10]).await.unwrap() > 0);
    // The next read waits, and learns of it.
    let error = stream.read(1).await.unwrap_err();
    assert_eq!(error.closed(), Some(Closed::CommitTimeout(limit)));
    let kind = tokio::task::spawn_blocking(|| client.join().unwrap().unwrap()).await.unwrap();
    assert_eq!(kind, ErrorKind::ConnectionReset);
}
