//! Many connections: traffic in processes of their own, each on a host of its own.
//!
//! A process has only so many descriptors, and one thread serves only so many connections; so a
//! crowd is several processes, each with one engine of [`traffic`](crate::traffic). What they count
//! flows into one [`Book`], so that a scenario need not know that it is not its own. Owns: the
//! processes and what is said to them. They end with it, however it ends.

mod message;
mod worker;

use std::io::{self, BufReader};
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::Release};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use self::message::{Charge, News, Order, Progress};
use crate::clock::{Clock, wait_until};
use crate::error::LabError;
use crate::host::{Host, Program};
use crate::scratch;
use crate::traffic::engine::Sender;
use crate::traffic::{Book, Group, Plan, Side};

pub use self::worker::serve_if_asked;

/// The variable of the environment that makes a program a traffic process: its socket.
const SOCKET: &str = "OUTLIVE_LAB_WORKER";

/// Connection numbers are this far apart between processes.
const ID_SPAN: u64 = 1 << 32;

/// How long a process may take to start, or to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program that calls [`serve_if_asked`] when it is started like this.
#[derive(Debug, Clone)]
pub struct WorkerProgram {
    /// The program.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl WorkerProgram {
    /// The running program itself, with these arguments: a test names its test that serves.
    pub fn this(arguments: &[&str]) -> Self {
        let path = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
        Self { path, arguments: arguments.iter().map(|&argument| argument.to_owned()).collect() }
    }
}

/// What the processes of a crowd have in common.
pub struct CrowdOptions<'a> {
    /// What they run.
    pub program: &'a WorkerProgram,
    /// Where everything is counted.
    pub book: &'a Arc<Book>,
    /// The groups, the same for clients and servers.
    pub labels: &'a [&'a str],
    /// Decides the patterns of the connections.
    pub seed: u64,
}

/// Processes that are all clients, or all servers.
pub struct Crowd {
    workers: Vec<Worker>,
    groups: Vec<Arc<Group>>,
    /// Which of the workers is next.
    turn: usize,
}

impl Crowd {
    /// Starts a client process on each of the hosts.
    pub fn clients(hosts: &[Host], options: &CrowdOptions<'_>) -> Result<Self, LabError> {
        Self::start(hosts, options, &[], Side::Client)
    }

    /// Starts a server process on each of the hosts, listening at `ports`.
    pub fn servers(
        hosts: &[Host],
        options: &CrowdOptions<'_>,
        ports: &[u16],
    ) -> Result<Self, LabError> {
        Self::start(hosts, options, ports, Side::Server)
    }

    fn start(
        hosts: &[Host],
        options: &CrowdOptions<'_>,
        ports: &[u16],
        side: Side,
    ) -> Result<Self, LabError> {
        let groups: Vec<_> = options.labels.iter().map(|label| options.book.group(label)).collect();
        let charge = |index: usize, clock: Clock| Charge {
            ports: ports.to_vec(),
            labels: options.labels.iter().map(|&label| label.to_owned()).collect(),
            first_id: index as u64 * ID_SPAN,
            seed: options.seed,
            clock_start: clock.to_shared(),
        };
        let start = |(index, host): (usize, &Host)| {
            let charge = charge(index, host.clock());
            let ledger = Ledger { book: options.book.clone(), groups: groups.clone(), side };
            Worker::start(host, options.program, &charge, ledger)
        };
        let workers = hosts.iter().enumerate().map(start).collect::<Result<_, _>>()?;
        Ok(Self { workers, groups, turn: 0 })
    }

    /// Opens `count` connections to `to` that follow `plan`, evenly spread over the processes; they
    /// are counted in the group `label`, which must be one of the crowd's.
    pub fn open(&mut self, label: &str, count: u64, to: SocketAddr, plan: &Plan) -> Arc<Group> {
        let group = self.groups.iter().position(|group| &*group.label == label);
        let group = group.expect("the scenario names its groups beforehand");
        self.groups[group].opened.fetch_add(count, Relaxed);
        let workers = self.workers.len() as u64;
        for nth in 0..workers.min(count) {
            let count = count / workers + u64::from(nth < count % workers);
            let turn = self.turn % self.workers.len();
            self.workers[turn].send(&Order::Open { group, count, to, plan: plan.clone() });
            self.turn += 1;
        }
        self.groups[group].clone()
    }

    /// All connections that have data on the way now, as their kernels see them.
    pub fn senders(&mut self) -> Vec<Sender> {
        self.workers.iter_mut().for_each(|worker| worker.send(&Order::Senders));
        let answers = self.workers.iter().map(|worker| worker.answers.recv_timeout(PATIENCE));
        // A process that has ended has nothing on the way.
        answers.flat_map(Result::unwrap_or_default).collect()
    }

    /// Brings everything endless to its end.
    pub fn wind_up(&mut self) {
        self.workers.iter_mut().for_each(|worker| worker.send(&Order::WindUp));
    }

    /// Connections that are open, as last told.
    pub fn open_connections(&self) -> usize {
        self.workers.iter().map(|worker| worker.open.load(Relaxed)).sum()
    }

    /// How many processes there are.
    pub fn processes(&self) -> usize {
        self.workers.len()
    }

    /// Waits at most `limit` until no connection is open, ends what still is, and puts everything
    /// into the book.
    pub fn finish(&mut self, limit: Duration) -> Result<(), LabError> {
        wait_until(limit, || self.open_connections() == 0);
        self.workers.iter_mut().for_each(|worker| worker.send(&Order::Stop));
        self.workers.iter().try_for_each(Worker::finish)
    }
}

/// One process, as the scenario sees it.
struct Worker {
    name: String,
    orders: UnixStream,
    answers: mpsc::Receiver<Vec<Sender>>,
    open: Arc<AtomicUsize>,
    /// How it ended, once it has told everything.
    end: mpsc::Receiver<io::Result<()>>,
    /// Dropped last: it kills the process.
    _program: Program,
    _directory: TempDir,
}

impl Worker {
    fn start(
        host: &Host,
        program: &WorkerProgram,
        charge: &Charge,
        ledger: Ledger,
    ) -> Result<Self, LabError> {
        let failed = |error| LabError::Traffic("starting a traffic process", error);
        let directory = scratch::directory().map_err(failed)?;
        let socket = directory.path().join("socket");
        let listener = UnixListener::bind(&socket).map_err(failed)?;
        let mut command = Command::new(&program.path);
        command.args(&program.arguments).env(SOCKET, &socket);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut process = host.start(&mut command)?;
        let mut orders = accept(&listener, &mut process)?;
        message::write(&mut orders, charge).map_err(failed)?;
        let mut news = BufReader::new(orders.try_clone().map_err(failed)?);
        // Not before it listens.
        message::read::<News>(&mut news).map_err(failed)?;
        let (sender, answers) = mpsc::channel();
        let open = Arc::new(AtomicUsize::new(0));
        let (told, clock) = (open.clone(), host.clock());
        let (ended, end) = mpsc::channel();
        let listen = move || {
            // Nobody wants to know of a crowd that is gone.
            let _ = ended.send(ledger.keep(&mut news, clock, &told, &sender));
        };
        let thread = thread::Builder::new().name(format!("{}-news", host.name()));
        thread.spawn(listen).map_err(failed)?;
        let name = host.name().to_owned();
        Ok(Self { name, orders, answers, open, end, _program: process, _directory: directory })
    }

    /// A process that has ended takes no orders; its connections show in the book.
    fn send(&mut self, order: &Order) {
        let _ = message::write(&mut self.orders, order);
    }

    /// Waits until it has told everything.
    fn finish(&self) -> Result<(), LabError> {
        let mut ended = Err(io::ErrorKind::TimedOut.into());
        wait_until(PATIENCE, || self.end.try_recv().map(|end| ended = end).is_ok());
        ended.map_err(|source| LabError::Program { program: self.name.clone(), source })
    }
}

fn accept(listener: &UnixListener, process: &mut Program) -> Result<UnixStream, LabError> {
    let failed = |error| LabError::Traffic("starting a traffic process", error);
    listener.set_nonblocking(true).map_err(failed)?;
    let mut accepted = None;
    wait_until(PATIENCE, || {
        accepted = listener.accept().ok();
        accepted.is_some() || !process.is_running()
    });
    let (stream, _) = accepted.ok_or_else(|| failed(io::ErrorKind::NotConnected.into()))?;
    stream.set_nonblocking(false).map_err(failed)?;
    Ok(stream)
}

/// Where the news of a process is written down.
struct Ledger {
    book: Arc<Book>,
    groups: Vec<Arc<Group>>,
    side: Side,
}

impl Ledger {
    /// Until the process has told everything; an error if it ends before.
    fn keep(
        self,
        news: &mut BufReader<UnixStream>,
        clock: Clock,
        open: &AtomicUsize,
        senders: &mpsc::Sender<Vec<Sender>>,
    ) -> io::Result<()> {
        loop {
            match message::read(news)?.ok_or(io::ErrorKind::UnexpectedEof)? {
                News::Ready => {}
                News::Progress { open: now, groups } => {
                    groups.iter().for_each(|progress| self.count(progress, clock.now()));
                    open.store(now, Relaxed);
                }
                News::Senders(told) => {
                    // Whoever asked may have lost patience.
                    let _ = senders.send(told);
                }
                News::Record(record) => self.book.close(record),
                News::Answers { group, counts } => {
                    let Some(group) = self.groups.get(group) else { continue };
                    let mut latency = group.latency.lock().expect("no holder panics");
                    for (micros, count) in counts {
                        latency.saturating_record_n(micros, count);
                    }
                }
                News::Over => return Ok(()),
            }
        }
    }

    fn count(&self, progress: &Progress, now: Duration) {
        let Some(group) = self.groups.get(progress.group) else { return };
        let arrived = match self.side {
            Side::Client => progress.down,
            Side::Server => progress.up,
        };
        if arrived > 0 {
            group.arrived(self.side, now, arrived);
        }
        group.established.fetch_add(progress.established, Relaxed);
        group.failed.fetch_add(progress.failed, Relaxed);
        group.ended.fetch_add(progress.ended, Release);
    }
}
