//! Output that the program computes again after a takeover.

use std::{
    io::{ErrorKind, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use outlive_socket::{Closed, Standing, Stream, StreamError, Transaction};

use crate::{
    network::{Network, V4, client, data, until},
    pair::{becomes, protected},
};

const LEN: usize = 12_000_000;

/// Sends `file`, wherever the connection is; then waits for a word, acknowledges it, and ends.
async fn send(mut stream: Stream, file: Vec<u8>) -> Result<(), StreamError> {
    if !stream.regenerates_output() {
        stream.regenerate_output()?;
    }
    let from = (stream.written() as usize).min(file.len());
    stream.write_all(file[from..].to_vec()).await?;
    while let Some(data) = stream.read(100).await? {
        let thanks = Transaction::new().acknowledge(data.bytes.len() as u32).state("thanked");
        stream.commit(thanks).await?;
    }
    stream.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_goes_on_that_no_standby_held() {
    let Some(network) = Network::new() else { return };
    let (one, other, clients) = (network.machine(1), network.machine(2), network.machine(3));
    let [(a, listener_a), (b, listener_b)] = protected(&one, &other).await;
    let got = Arc::new(AtomicUsize::new(0));
    let count = got.clone();
    let client = client(&clients, V4, move |mut stream| {
        let mut whole = Vec::new();
        let mut piece = vec![0; 10_000];
        while whole.len() < LEN {
            let read = stream.read(&mut piece).unwrap();
            assert_ne!(read, 0, "it ends early");
            whole.extend_from_slice(&piece[..read]);
            count.store(whole.len(), Ordering::Release);
        }
        stream.write_all(b"thanks").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(stream.read_to_end(&mut whole).unwrap(), 0);
        whole
    });
    let sending = tokio::spawn(send(listener_a.accept().await.unwrap(), data(LEN)));
    until("a part has arrived", || got.load(Ordering::Acquire) > LEN / 4).await;
    assert!(a.counters().records < 20, "{:?}", a.counters());
    drop(a);
    sending.abort();
    let stream = listener_b.accept().await.unwrap();
    assert!(stream.is_resumed() && stream.regenerates_output());
    send(stream, data(LEN)).await.unwrap();
    let whole = tokio::task::spawn_blocking(|| client.join().unwrap().unwrap()).await.unwrap();
    assert!(whole == data(LEN));
    drop(b);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_output_ends_with_a_reset() {
    let Some(network) = Network::new() else { return };
    let (one, other, clients) = (network.machine(1), network.machine(2), network.machine(3));
    let [(a, listener_a), (b, listener_b)] = protected(&one, &other).await;
    let (told, hears) = tokio::sync::oneshot::channel();
    let client = client(&clients, V4, move |mut stream| {
        let mut whole = vec![0; 10_000];
        stream.read_exact(&mut whole).unwrap();
        told.send(()).unwrap();
        stream.write_all(b"thanks").unwrap();
        (whole, stream.read(&mut [0]).unwrap_err().kind())
    });
    let mut stream = listener_a.accept().await.unwrap();
    stream.regenerate_output().unwrap();
    stream.write_all(data(10_000)).await.unwrap();
    hears.await.unwrap();
    drop(a);
    drop(stream);
    let stream = listener_b.accept().await.unwrap();
    becomes(&b, Standing::Alone).await;
    // It has less to say than before, and does not know.
    let error = send(stream, data(9_000)).await.unwrap_err();
    assert_eq!(error.closed(), Some(Closed::OutputDiverged));
    let (whole, kind) =
        tokio::task::spawn_blocking(|| client.join().unwrap().unwrap()).await.unwrap();
    assert!(whole == data(10_000));
    assert_eq!(kind, ErrorKind::ConnectionReset);
}
