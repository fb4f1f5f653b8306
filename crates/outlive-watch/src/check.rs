//! Connections through the virtual address, from end to end: what a client would find.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use mio::Waker;

/// What connections are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckConfig {
    /// Where to: a virtual address.
    pub address: SocketAddr,
    /// Time from the begin of one to the begin of the next.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// Sent when it is established; then an answer, of whatever content, belongs to its success.
    pub send: Option<String>,
}

/// A thread that makes one connection after the other. Dropping it ends it, after the present one.
pub struct Check {
    results: mpsc::Receiver<bool>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Check {
    /// Starts the thread, in the network namespace of the calling one. `main` is woken for each result.
    ///
    /// # Errors
    /// There can be no thread.
    pub fn start(config: CheckConfig, main: Arc<Waker>) -> io::Result<Self> {
        let (sender, results) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let work = move || {
            while !stopped.load(Ordering::Acquire) {
                let start = Instant::now();
                if sender.send(connect(&config).is_ok()).is_err() {
                    return;
                }
                // Without it the loop looks at its next turn.
                let _ = main.wake();
                thread::park_timeout(config.interval.saturating_sub(start.elapsed()));
            }
        };
        let thread = thread::Builder::new().name("check".to_owned()).spawn(work)?;
        Ok(Check { results, stop, thread: Some(thread) })
    }

    /// The next result: whether the connection succeeded.
    pub fn poll(&self) -> Option<bool> {
        self.results.try_recv().ok()
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic there has been reported by itself.
            let _ = thread.join();
        }
    }
}

fn connect(config: &CheckConfig) -> io::Result<()> {
    let start = Instant::now();
    let mut stream = TcpStream::connect_timeout(&config.address, config.timeout)?;
    let Some(text) = &config.send else { return Ok(()) };
    // Zero would mean: for ever.
    let left = config.timeout.saturating_sub(start.elapsed()).max(Duration::from_millis(1));
    stream.set_write_timeout(Some(left))?;
    stream.set_read_timeout(Some(left))?;
    stream.write_all(text.as_bytes())?;
    match stream.read(&mut [0; 1])? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use mio::{Events, Poll, Token};

    use super::*;

    /// Results of a check of what listens at `address`, until there is one that is `wanted`.
    fn comes_to(wanted: bool, address: SocketAddr, send: Option<&str>) {
        let mut poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let config = CheckConfig {
            address,
            interval: Duration::from_millis(10),
            timeout: Duration::from_millis(500),
            send: send.map(str::to_owned),
        };
        let check = Check::start(config, waker).unwrap();
        let start = Instant::now();
        loop {
            poll.poll(&mut Events::with_capacity(4), Some(Duration::from_secs(5))).unwrap();
            match check.poll() {
                Some(result) => return assert_eq!(result, wanted),
                None => assert!(start.elapsed() < Duration::from_secs(20), "no result"),
            }
        }
    }

    #[test]
    fn what_answers_succeeds_and_what_does_not_fails() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        comes_to(true, address, None);
        // The kernel accepts, but nobody answers.
        comes_to(false, address, Some("hi"));
        let answering = thread::spawn(move || {
            // Those above have said their last word, or none.
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
                if stream.read_exact(&mut [0; 5]).is_ok() && stream.write_all(b"x").is_ok() {
                    return;
                }
            }
        });
        comes_to(true, address, Some("hello"));
        answering.join().unwrap();
        comes_to(false, address, None);
    }
}
