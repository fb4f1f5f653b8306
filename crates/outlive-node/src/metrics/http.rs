//! As much of HTTP/1.1 as a scraper needs: one request for each connection, one connection after the other, each within
//! a time that a slow or hostile one cannot stretch.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd,
    sync::{Arc, atomic::Ordering, mpsc},
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, Waker, unix::SourceFd};
use tracing::warn;

use super::{Shared, text};
use crate::admin::Report;

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
/// From the first byte of a request to the last of the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// What of it is kept for the answer, however long the event loop takes.
const FOR_THE_ANSWER: Duration = Duration::from_millis(500);
/// A request's line and headers; what is longer is no scraper's.
const LONGEST: usize = 8_192;
const TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) struct Server {
    listener: TcpListener,
    shared: Arc<Shared>,
    reports: mpsc::Receiver<Report>,
    /// Wakes the event loop.
    main: Arc<Waker>,
    poll: Poll,
    waker: Arc<Waker>,
}

impl Server {
    pub(super) fn new(
        listener: TcpListener,
        shared: Arc<Shared>,
        reports: mpsc::Receiver<Report>,
        main: Arc<Waker>,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let poll = Poll::new()?;
        let descriptor = listener.as_raw_fd();
        poll.registry().register(&mut SourceFd(&descriptor), LISTENER, Interest::READABLE)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        Ok(Server { listener, shared, reports, main, poll, waker })
    }

    pub(super) fn waker(&self) -> Arc<Waker> {
        self.waker.clone()
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(4);
        while !self.shared.stop.load(Ordering::Acquire) {
            match self.listener.accept() {
                // A client that goes away is its own business.
                Ok((stream, _)) => drop(self.serve(stream)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // A second, so that a lost wake-up does no harm; a signal may interrupt it.
                    let _ = self.poll.poll(&mut events, Some(Duration::from_secs(1)));
                }
                Err(error) => {
                    warn!(%error, "metrics cannot be asked for");
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
        }
    }

    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        // Accepted sockets do not inherit it everywhere.
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        let request = read_request(&mut stream, deadline)?;
        let (status, body) = match path(&request) {
            Some("/metrics" | "/") => match self.report(deadline) {
                Some(report) => ("200 OK", text::render(&report)),
                None => ("503 Service Unavailable", "the event loop stands still\n".to_owned()),
            },
            Some(_) => ("404 Not Found", "there is only /metrics\n".to_owned()),
            None => ("400 Bad Request", "only GET is understood\n".to_owned()),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {TYPE}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let answer = [head.as_bytes(), body.as_bytes()].concat();
        let mut rest = &answer[..];
        while !rest.is_empty() {
            stream.set_write_timeout(Some(left(deadline)?))?;
            match stream.write(rest) {
                Ok(len) => rest = &rest[len..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// How the node is now.
    fn report(&self, deadline: Instant) -> Option<Report> {
        // What was too late for the one before.
        while self.reports.try_recv().is_ok() {}
        self.shared.wanted.store(true, Ordering::Release);
        // Without it the event loop looks at its next turn.
        let _ = self.main.wake();
        let left = deadline.saturating_duration_since(Instant::now());
        self.reports.recv_timeout(left.saturating_sub(FOR_THE_ANSWER)).ok()
    }
}

/// What is left of a connection's time.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn read_request(stream: &mut TcpStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut request = Vec::new();
    let mut buffer = [0; 1_024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if request.len() > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => request.extend_from_slice(&buffer[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(request)
}

/// The path of a GET request, without its query.
fn path(request: &[u8]) -> Option<&str> {
    let line = request.split(|byte| *byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (Some("GET"), Some(target), Some(version)) = (words.next(), words.next(), words.next())
    else {
        return None;
    };
    version.starts_with("HTTP/1.").then(|| target.split('?').next().unwrap_or(target))
}
