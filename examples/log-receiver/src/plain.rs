//! For comparison: the same receiver on sockets of the kernel, which acknowledges whatever has arrived, long before it is
//! on the disk.

use std::{
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::Result;
use bytes::BytesMut;
use outlive_socket::ConnectionId;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{log::Log, receiver::CHUNK};

/// Receives until the process ends.
pub(crate) async fn run(listen: SocketAddr, path: &Path) -> Result<()> {
    let log = Log::open(path)?;
    let listener = TcpListener::bind(listen).await?;
    let serial = AtomicU64::new(0);
    // As the other one says: it serves, and no failure would be survived.
    println!("Alone");
    loop {
        let (stream, peer) = listener.accept().await?;
        let process = u64::from(std::process::id());
        let id = ConnectionId { process, serial: serial.fetch_add(1, Ordering::Relaxed) };
        let log = log.clone();
        tokio::spawn(async move {
            if let Err(error) = receive(stream, id, &log).await {
                eprintln!("{id} from {peer}: {error}");
            }
        });
    }
}

async fn receive(mut stream: TcpStream, id: ConnectionId, log: &Log) -> Result<()> {
    let mut position = 0;
    loop {
        let mut data = BytesMut::with_capacity(CHUNK);
        let len = stream.read_buf(&mut data).await? as u64;
        let mut entry = log.begin(id, position, data.freeze()).await?;
        // An entry without bytes says that it ended there. All others are before it.
        if len == 0 {
            entry.wait().await?;
            return Ok(stream.shutdown().await?);
        }
        position += len;
    }
}
