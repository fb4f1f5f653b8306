//! Senders that know nothing of a pair: `nc`, `logger`, `bash` and plain sockets, one connection each.
//!
//! None of them tries again. What they are given goes to the socket as it comes; the kernel has it until it is
//! acknowledged.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Map, Value};

use super::records::record;
use crate::clock::wait_until;
use crate::error::LabError;
use crate::host::{Host, Program};

/// What sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// A socket of the kernel and a thread that writes to it.
    Kernel,
    Netcat,
    Logger,
    Bash,
}

const KINDS: [Kind; 4] = [Kind::Kernel, Kind::Netcat, Kind::Logger, Kind::Bash];

impl Kind {
    /// The program, and what it is told; none for a plain socket.
    fn command(self, service: SocketAddr) -> Option<Command> {
        let (ip, port) = (service.ip().to_string(), service.port().to_string());
        let (program, arguments): (&str, &[&str]) = match self {
            Kind::Kernel => return None,
            Kind::Netcat => ("nc", &["-N", &ip, &port]),
            Kind::Logger => {
                ("logger", &["--tcp", "--rfc3164", "--size", "8192", "-n", &ip, "-P", &port])
            }
            Kind::Bash => ("bash", &["-c", "exec cat >/dev/tcp/$0/$1", &ip, &port]),
        };
        let mut command = Command::new(program);
        command.args(arguments);
        Some(command)
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Kernel => "kernel",
            Kind::Netcat => "nc",
            Kind::Logger => "logger",
            Kind::Bash => "bash",
        }
    }

    fn is_installed(self) -> bool {
        let found = |directory| Path::new(directory).join(self.name()).is_file();
        self == Kind::Kernel || ["/usr/bin", "/bin"].into_iter().any(found)
    }
}

/// Many senders at one host, and what each was given so far.
pub(crate) struct Senders {
    senders: Vec<Sender>,
    stop: Arc<AtomicBool>,
}

struct Sender {
    kind: Kind,
    /// Nothing for a plain socket.
    program: Option<Program>,
    given: Arc<AtomicU64>,
    thread: JoinHandle<io::Result<()>>,
}

impl Senders {
    /// Starts `count` of them, kind after kind of those that are installed here. Each is given a record `every` so
    /// often, from now on until they are [told to finish](Self::finish).
    ///
    /// The programs end with the calling thread.
    pub(crate) fn start(
        host: &Host,
        service: SocketAddr,
        count: usize,
        every: Duration,
    ) -> Result<Self, LabError> {
        let stop = Arc::new(AtomicBool::new(false));
        let kinds: Vec<Kind> = KINDS.into_iter().filter(|kind| kind.is_installed()).collect();
        let mut senders = Vec::new();
        for number in 0..count {
            let kind = kinds[number % kinds.len()];
            let (program, sink) = match kind.command(service) {
                Some(mut command) => {
                    let mut program = host.start(command.stdin(Stdio::piped()))?;
                    let pipe = program.take_stdin().expect("its command has a pipe there");
                    (Some(program), Sink::Pipe(pipe))
                }
                None => {
                    let connect = || TcpStream::connect(service);
                    let failed = |error| LabError::Traffic("connecting a sender", error);
                    (None, Sink::Socket(host.enter(connect)?.map_err(failed)?))
                }
            };
            let given = Arc::new(AtomicU64::new(0));
            let (count, stop) = (given.clone(), stop.clone());
            let thread = thread::Builder::new()
                .name(format!("sender-{number}"))
                .spawn(move || sink.send(number, every, &count, &stop))
                .map_err(|error| LabError::Traffic("starting a thread", error))?;
            senders.push(Sender { kind, program, given, thread });
        }
        Ok(Senders { senders, stop })
    }

    /// How many there are of each kind.
    pub(crate) fn kinds(&self) -> Map<String, Value> {
        let count = |kind| self.senders.iter().filter(|sender| sender.kind == kind).count();
        let counts = KINDS.map(|kind| (kind.name().to_owned(), count(kind).into()));
        counts.into_iter().collect()
    }

    /// Lets them come to their ends, and waits at most `limit` until all have, and until nothing of theirs is left with
    /// `host`'s kernel: records given to each, and what went wrong with whom.
    pub(crate) fn finish(
        self,
        host: &Host,
        service: SocketAddr,
        limit: Duration,
    ) -> Result<(Vec<u64>, Vec<String>), LabError> {
        self.stop.store(true, Ordering::Release);
        let deadline = Instant::now() + limit;
        let mut given = Vec::new();
        let mut failures = Vec::new();
        for (number, mut sender) in self.senders.into_iter().enumerate() {
            let is_over = |sender: &mut Sender| {
                let thread = sender.thread.is_finished();
                thread && sender.program.as_mut().is_none_or(|program| !program.is_running())
            };
            wait_until(deadline.saturating_duration_since(Instant::now()), || is_over(&mut sender));
            let outcome = match sender.program.as_mut().map(Program::ended) {
                _ if !sender.thread.is_finished() => Err("did not come to its end".to_owned()),
                Some(None) => Err("did not end".to_owned()),
                Some(Some(status)) if !status.success() => Err(status.to_string()),
                _ => match sender.thread.join() {
                    Ok(outcome) => outcome.map_err(|error| error.to_string()),
                    Err(_) => Err("has panicked".to_owned()),
                },
            };
            if let Err(failure) = outcome {
                failures.push(format!("sender {number} ({}): {failure}", sender.kind.name()));
            }
            given.push(sender.given.load(Ordering::Acquire));
        }
        let mut left = Ok(0);
        wait_until(deadline.saturating_duration_since(Instant::now()), || {
            left = open_connections(host, service);
            !matches!(left, Ok(1..))
        });
        if let left @ 1.. = left? {
            failures.push(format!("{left} connections did not come to their ends"));
        }
        Ok((given, failures))
    }
}

/// Connections of a host to an IPv4 service that are not over, those of programs that have ended included.
fn open_connections(host: &Host, service: SocketAddr) -> Result<usize, LabError> {
    let table = || fs::read_to_string("/proc/thread-self/net/tcp");
    let failed = |error| LabError::Traffic("reading the table of connections", error);
    let table = host.enter(table)?.map_err(failed)?;
    Ok(table.lines().filter(|line| is_open_to(line, service)).count())
}

/// Whether a line of that table is about a connection to `service` that is not over (but perhaps in TIME-WAIT).
fn is_open_to(line: &str, service: SocketAddr) -> bool {
    const TIME_WAIT: &str = "06";
    let IpAddr::V4(ip) = service.ip() else { return false };
    // The kernel writes an address as the number that its bytes are in memory.
    let remote = format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), service.port());
    let mut fields = line.split_whitespace().skip(2);
    fields.next() == Some(remote.as_str()) && fields.next() != Some(TIME_WAIT)
}

/// Where a sender's records go.
enum Sink {
    Socket(TcpStream),
    Pipe(std::process::ChildStdin),
}

impl Sink {
    fn send(
        self,
        sender: usize,
        every: Duration,
        given: &AtomicU64,
        stop: &AtomicBool,
    ) -> io::Result<()> {
        let mut number = 0;
        while !stop.load(Ordering::Acquire) {
            let line = record(sender, number) + "\n";
            match &self {
                Sink::Socket(socket) => (&*socket).write_all(line.as_bytes())?,
                Sink::Pipe(pipe) => (&*pipe).write_all(line.as_bytes())?,
            }
            number += 1;
            given.store(number, Ordering::Release);
            thread::sleep(every);
        }
        match self {
            Sink::Pipe(pipe) => drop(pipe),
            Sink::Socket(mut socket) => {
                socket.shutdown(Shutdown::Write)?;
                let mut said = Vec::new();
                socket.read_to_end(&mut said)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn connections_are_found_in_the_table_until_they_are_over() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let service = listener.local_addr().unwrap();
        let open = || {
            let table = fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
            table.lines().filter(|line| is_open_to(line, service)).count()
        };
        assert_eq!(open(), 0);
        let here = TcpStream::connect(service).unwrap();
        let there = listener.accept().unwrap().0;
        assert_eq!(open(), 1);
        drop(here);
        assert_eq!(open(), 1, "the other end is still open");
        drop(there);
        assert!(wait_until(Duration::from_secs(60), || open() == 0));
    }
}
