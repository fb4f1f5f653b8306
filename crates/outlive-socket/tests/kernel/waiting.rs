//! What waiting costs, and what becomes of waiting that is given up.

use std::{
    future::Future,
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    time::Duration,
};

use outlive_net::sending::Sending;
use outlive_socket::{Closed, Standing, Transaction};

use crate::{
    network::{Network, V4, client, config, data, service, start, until},
    pair::{becomes, protected},
};

/// Polls a future once, and drops it. `None`: it was not ready.
async fn once<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        value = future => Some(value),
        () = std::future::ready(()) => None,
    }
}

/// A commit that takes longer than the sender's timer costs repetitions, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_commit_costs_repetitions() {
    let Some(network) = Network::new() else { return };
    let (server, clients) = (network.machine(1), network.machine(2));
    let host = start(&server, config());
    let listener = host.listen(service(V4)).unwrap();
    let (told, hears) = std::sync::mpsc::channel();
    let client = client(&clients, V4, move |mut stream| {
        stream.write_all(&data(5_000)).unwrap();
        told.send(stream.try_clone().unwrap()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    });
    let socket = tokio::task::spawn_blocking(move || hears.recv().unwrap()).await.unwrap();
    let repeated = || Sending::of(&socket).unwrap().retransmitted;
    let mut stream = listener.accept().await.unwrap();
    let mut got = Vec::new();
    while got.len() < 5_000 {
        got.extend_from_slice(&stream.read(10_000).await.unwrap().unwrap().bytes);
    }
    until("it was asked for three times", || repeated() >= 3).await;
    stream.commit(Transaction::new().acknowledge(5_000).write("safe").end()).await.unwrap();
    until("the client knows", || Sending::of(&socket).unwrap().unacknowledged == 0).await;
    assert!(got == data(5_000), "nothing came twice");
    assert_eq!(stream.closed(), None);
    drop(socket);
    let answer = tokio::task::spawn_blocking(|| client.join().unwrap().unwrap()).await.unwrap();
    assert_eq!(answer, b"safe");
}

/// One that takes longer than the sender's user timeout costs the connection, and both are told.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_beyond_the_senders_patience_costs_the_connection() {
    let Some(network) = Network::new() else { return };
    let (server, clients) = (network.machine(1), network.machine(2));
    let host = start(&server, config());
    let listener = host.listen(service(V4)).unwrap();
    let client = client(&clients, V4, |mut stream| {
        let patience = Some(Duration::from_millis(500));
        socket2::SockRef::from(&stream).set_tcp_user_timeout(patience).unwrap();
        stream.write_all(b"12345").unwrap();
        stream.read(&mut [0]).unwrap_err().kind()
    });
    let mut stream = listener.accept().await.unwrap();
    assert_eq!(stream.read(100).await.unwrap().unwrap().bytes.len(), 5);
    let kind = tokio::task::spawn_blocking(|| client.join().unwrap().unwrap()).await.unwrap();
    assert_eq!(kind, ErrorKind::TimedOut, "the client has given up");
    // Too late. The client's machine says so.
    stream.commit(Transaction::new().acknowledge(5)).await.unwrap();
    let error = stream.read(1).await.unwrap_err();
    assert_eq!(error.closed(), Some(Closed::ResetByPeer));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_is_done_or_not() {
    let Some(network) = Network::new() else { return };
    let (one, other, clients) = (network.machine(1), network.machine(2), network.machine(3));
    let [(a, listener), (_b, _listener_b)] = protected(&one, &other).await;
    assert!(once(listener.accept()).await.is_none());
    let client = client(&clients, V4, |mut stream| {
        stream.write_all(b"12345").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    });
    // The accept that was given up has lost no connection.
    let mut stream = listener.accept().await.unwrap();
    let data = stream.read(3).await.unwrap().unwrap();
    assert_eq!((data.position, data.bytes.len()), (0, 3));
    // A commit that is given up while the standby is asked takes effect all the same. (It may have answered already.)
    let _ = once(stream.commit(Transaction::new().acknowledge(3).write("one "))).await;
    assert_eq!(stream.outstanding(), Ok(0));
    stream.flush().await.unwrap();
    let data = stream.read(100).await.unwrap().unwrap();
    assert_eq!((data.position, data.bytes.len()), (3, 2));
    stream.commit(Transaction::new().acknowledge(2).write("two")).await.unwrap();
    assert_eq!(stream.read(1).await, Ok(None));
    stream.finish().await.unwrap();
    let answer = tokio::task::spawn_blocking(|| client.join().unwrap().unwrap()).await.unwrap();
    assert_eq!(answer, b"one two");
    becomes(&a, Standing::Protected).await;
}

/// A write or commit that is given up for want of room has not begun.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_room_can_be_given_up() {
    let Some(network) = Network::new() else { return };
    let (server, clients) = (network.machine(1), network.machine(2));
    let mut config = config();
    config.tcp.send_buffer = 30_000;
    let host = start(&server, config);
    let listener = host.listen(service(V4)).unwrap();
    let (go, waits) = std::sync::mpsc::channel();
    let client = client(&clients, V4, move |mut stream| {
        waits.recv().unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        got
    });
    let mut stream = listener.accept().await.unwrap();
    // The client does not read: in the end its window is closed, and the buffer full.
    let piece = data(20_000);
    let mut sent = Vec::new();
    while let Some(count) = once(stream.write(&piece)).await {
        sent.extend_from_slice(&piece[..count.unwrap()]);
    }
    while once(stream.commit(Transaction::new().write(piece.clone()))).await.is_some() {
        sent.extend_from_slice(&piece);
    }
    go.send(()).unwrap();
    stream.shutdown().unwrap();
    let got = tokio::task::spawn_blocking(|| client.join().unwrap().unwrap()).await.unwrap();
    assert!(got == sent, "{} of {}", got.len(), sent.len());
}
