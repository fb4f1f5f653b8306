//! One stream as fast as it goes, in either direction.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::Window;
use crate::error::LabError;
use crate::host::Host;
use crate::traffic::listen;

const BUFFER_LEN: usize = 256 << 10;

/// How often a blocked thread looks whether it should stop.
const LOOK: Duration = Duration::from_millis(50);

/// Where the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Upload,
    /// From the server to the client.
    Download,
}

/// A server that takes or gives bytes without end, as the first byte of a connection asks.
pub struct BulkServer {
    received: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl BulkServer {
    /// Listens at `port` of `host`.
    pub fn start(host: &Host, port: u16) -> Result<Self, LabError> {
        let failed = |error| LabError::Traffic("starting a bulk server", error);
        let listener = host.enter(|| listen(port))?.map_err(failed)?;
        let received = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (counter, stopped) = (received.clone(), stop.clone());
        let stop_later = stop.clone();
        host.spawn(
            "bulk",
            move || stop_later.store(true, Relaxed),
            move || {
                while !stopped.load(Relaxed) {
                    match listener.accept() {
                        Ok((stream, _)) => {
                            let (counter, stopped) = (counter.clone(), stopped.clone());
                            // A connection that breaks shows as missing bytes at the client.
                            thread::spawn(move || serve(stream.into(), &counter, &stopped));
                        }
                        Err(_) => thread::sleep(Duration::from_millis(5)),
                    }
                }
            },
        )?;
        Ok(Self { received, stop })
    }
}

impl BulkServer {
    /// Bytes that have arrived, over all connections.
    pub fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }
}

impl Drop for BulkServer {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

fn serve(mut stream: TcpStream, received: &AtomicU64, stop: &AtomicBool) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    match kind {
        [b'U'] => take(&mut stream, received, stop),
        _ => give(&mut stream, stop),
    }
}

/// Measures one stream from a client on `host`, in bits per second at its receiver.
pub fn measure_bulk(
    host: &Host,
    server: &BulkServer,
    to: SocketAddr,
    direction: Direction,
    window: Window,
) -> Result<f64, LabError> {
    let failed = |error| LabError::Traffic("measuring a bulk stream", error);
    let stop = AtomicBool::new(false);
    let own = AtomicU64::new(0);
    let received = if direction == Direction::Upload { &*server.received } else { &own };
    thread::scope(|scope| {
        let mover = scope.spawn(|| {
            host.enter(|| -> std::io::Result<()> {
                let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
                match direction {
                    Direction::Upload => {
                        stream.write_all(b"U")?;
                        give(&mut stream, &stop)
                    }
                    Direction::Download => {
                        stream.write_all(b"D")?;
                        take(&mut stream, &own, &stop)
                    }
                }
            })
        });
        thread::sleep(window.warm_up);
        let (start, before) = (Instant::now(), received.load(Relaxed));
        thread::sleep(window.length);
        let bytes = received.load(Relaxed) - before;
        let took = start.elapsed();
        stop.store(true, Relaxed);
        mover.join().expect("moving bytes does not panic")?.map_err(failed)?;
        Ok(bytes as f64 * 8.0 / took.as_secs_f64())
    })
}

fn take(stream: &mut TcpStream, received: &AtomicU64, stop: &AtomicBool) -> std::io::Result<()> {
    stream.set_read_timeout(Some(LOOK))?;
    let mut buffer = vec![0; BUFFER_LEN];
    while !stop.load(Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(bytes) => drop(received.fetch_add(bytes as u64, Relaxed)),
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn give(stream: &mut TcpStream, stop: &AtomicBool) -> std::io::Result<()> {
    stream.set_write_timeout(Some(LOOK))?;
    let buffer = vec![0; BUFFER_LEN];
    while !stop.load(Relaxed) {
        match stream.write(&buffer) {
            Ok(_) => {}
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
