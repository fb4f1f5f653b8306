//! The same job with the kernel's sockets, a thread for each direction.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use super::job::Job;
use crate::clock::{Clock, wait_until};
use crate::error::LabError;
use crate::host::Host;

/// How often a thread looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(200);
/// How long a connection may take to be there.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes read or written at once.
const CHUNK: usize = 64 << 10;

/// Takes one connection to `at`, which is an address of `host`, and does a job on it.
pub fn listen(host: &Host, at: SocketAddr, job: Job) -> Result<(), LabError> {
    let failed = |error| LabError::Traffic("a listener", error);
    let listener = host.enter(|| TcpListener::bind(at))?.map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    start(host, job, move |stop| {
        let mut accepted = Err(io::Error::from(ErrorKind::TimedOut));
        wait_until(PATIENCE, || {
            if let Ok((stream, _)) = listener.accept() {
                accepted = stream.set_nonblocking(false).map(|()| stream);
            }
            accepted.is_ok() || stop.load(Relaxed)
        });
        accepted
    })
}

/// Connects from `host` to `to`, and does a job.
pub fn connect(host: &Host, to: SocketAddr, job: Job) -> Result<(), LabError> {
    start(host, job, move |_| TcpStream::connect_timeout(&to, PATIENCE))
}

fn start(
    host: &Host,
    job: Job,
    open: impl FnOnce(&AtomicBool) -> io::Result<TcpStream> + Send + 'static,
) -> Result<(), LabError> {
    let clock = host.clock();
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    let action = move || {
        let done = open(&asked).and_then(|stream| run(&stream, &job, clock, &asked));
        if let Err(error) = done {
            job.meter.fail(error);
        }
    };
    host.spawn("kernel", move || stop.store(true, Relaxed), action)
}

fn run(stream: &TcpStream, job: &Job, clock: Clock, stop: &AtomicBool) -> io::Result<()> {
    stream.set_read_timeout(Some(LOOK))?;
    stream.set_write_timeout(Some(LOOK))?;
    thread::scope(|scope| {
        let writing = scope.spawn(|| write(stream, job, stop));
        let reading = read(stream, job, clock, stop);
        writing.join().expect("writing does not panic").and(reading)
    })
}

fn write(mut stream: &TcpStream, job: &Job, stop: &AtomicBool) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut written = 0;
    while written < job.send && !stop.load(Relaxed) {
        let len = (job.send - written).min(CHUNK as u64) as usize;
        job.patterns.0.fill(written, &mut buffer[..len]);
        match stream.write(&buffer[..len]) {
            Ok(count) => written += count as u64,
            Err(error) if is_only_late(&error) => {}
            Err(error) => return Err(error),
        }
    }
    if written == job.send { stream.shutdown(Shutdown::Write) } else { Ok(()) }
}

fn read(mut stream: &TcpStream, job: &Job, clock: Clock, stop: &AtomicBool) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    while !stop.load(Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => {
                job.meter.complete(clock.now());
                return Ok(());
            }
            Ok(count) => job.meter.take(clock.now(), job.patterns.1, &buffer[..count]),
            Err(error) if is_only_late(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_only_late(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
