//! The network's side: reads, has it written down, acknowledges.

use std::{
    collections::VecDeque,
    io::{self, Write},
    net::SocketAddr,
    path::Path,
};

use anyhow::Result;
use outlive_socket::{Host, HostConfig, Stream};
use tokio::signal::unix::{SignalKind, signal};

use crate::log::{Log, Underway};

/// Bytes taken at once of one connection.
pub(crate) const CHUNK: usize = 64 << 10;

/// Receives until the process is told to stop.
pub(crate) async fn run(config: HostConfig, listen: SocketAddr, path: &Path) -> Result<()> {
    let log = Log::open(path)?;
    let host = Host::start(config)?;
    let listener = host.listen(listen)?;
    let mut standing = host.standing();
    let told = tokio::spawn(async move {
        loop {
            // For whoever waits for it: a test, or an operator.
            println!("{:?}", *standing.borrow_and_update());
            let _ = std::io::stdout().flush();
            if standing.changed().await.is_err() {
                return;
            }
        }
    });
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            stream = listener.accept() => {
                let (stream, log) = (stream?, log.clone());
                tokio::spawn(async move {
                    let (id, peer) = (stream.id(), stream.peer_addr());
                    if let Err(error) = receive(stream, &log).await {
                        eprintln!("{id} from {peer}: {error}");
                    }
                });
            }
        }
    }
    // Before the tasks end: so their connections go on at the other node.
    host.shutdown();
    told.abort();
    Ok(())
}

/// Every byte of a stream goes to the disk with the stream's name and its position; then the sender
/// may forget it. A byte that comes again, because the node that had it died before it was
/// acknowledged, has the same name and position in the other node's log.
///
/// What comes while the disk is busy is read and queued behind: so one `fsync` covers all of it.
async fn receive(mut stream: Stream, log: &Log) -> Result<()> {
    let id = stream.id();
    let mut end = stream.position();
    let mut ended = false;
    // Read, and not acknowledged: at most what the stream lets be read without that.
    let mut underway: VecDeque<(usize, Underway)> = VecDeque::new();
    while !ended || !underway.is_empty() {
        tokio::select! {
            biased;
            durable = first(&mut underway) => {
                let mut len = durable?;
                while let Some((next, entry)) = underway.front_mut() && entry.is_durable() {
                    len += *next;
                    underway.pop_front();
                }
                stream.acknowledge(len)?;
            }
            data = stream.read(CHUNK), if !ended => match data? {
                Some(data) => {
                    let len = data.bytes.len();
                    end = data.position + len as u64;
                    underway.push_back((len, log.begin(id, data.position, data.bytes).await?));
                }
                None => ended = true,
            },
        }
    }
    // That it ended here, too.
    log.append(id, end, bytes::Bytes::new()).await?;
    Ok(stream.finish().await?)
}

/// Waits until the first of these is on the disk, and gives how many bytes that are; for ever, if there is none.
async fn first(underway: &mut VecDeque<(usize, Underway)>) -> io::Result<usize> {
    let Some((len, entry)) = underway.front_mut() else { return std::future::pending().await };
    entry.wait().await?;
    let len = *len;
    underway.pop_front();
    Ok(len)
}
