//! A traffic process: one engine, driven by orders.

use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};

use super::SOCKET;
use super::message::{self, Charge, News, Order, Progress};
use crate::clock::Clock;
use crate::traffic::engine::Remote;
use crate::traffic::{Book, Client, Group, Server};

/// How often a process tells how far it is.
const TELL: Duration = Duration::from_millis(20);

/// Makes the calling process a traffic process if a scenario has started it as one: then this does
/// not return. Without effect otherwise.
///
/// Call it first thing in `main`, or in a test made for it.
pub fn serve_if_asked() {
    let Some(socket) = std::env::var_os(SOCKET) else { return };
    let code = match serve(Path::new(&socket)) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("a traffic process of the lab: {error}");
            1
        }
    };
    process::exit(code);
}

fn serve(socket: &Path) -> io::Result<()> {
    let stream = UnixStream::connect(socket)?;
    let mut orders = BufReader::new(stream.try_clone()?);
    let Some(charge) = message::read::<Charge>(&mut orders)? else { return Ok(()) };
    use_all_descriptors()?;
    let clock = Clock::shared(charge.clock_start);
    let book = Arc::new(Book::with_groups(charge.first_id, &charge.labels));
    let engine = Engine::start(&charge, &book, clock)?;
    let teller = Arc::new(Mutex::new(Teller::new(stream, book.clone(), charge.labels.len())));
    lock(&teller).tell(&News::Ready)?;
    let (ticking, remote) = (teller.clone(), engine.clone());
    thread::spawn(move || {
        loop {
            thread::sleep(TELL);
            // Whoever no longer listens has gone; the other thread notices it, too.
            if lock(&ticking).tell_progress(remote.remote().open()).is_err() {
                return;
            }
        }
    });
    while let Some(order) = message::read::<Order>(&mut orders)? {
        match order {
            Order::Open { group, count, to, plan } => {
                if let (Engine::Client(client), Some(label)) = (&*engine, charge.labels.get(group))
                {
                    client.open(label, count, to, &plan);
                }
            }
            Order::Senders => {
                let senders = engine.remote().senders();
                lock(&teller).tell(&News::Senders(senders))?;
            }
            Order::WindUp => {
                if let Engine::Client(client) = &*engine {
                    client.wind_up();
                }
            }
            Order::Stop => {
                engine.remote().stop(Duration::from_secs(30));
                return lock(&teller).tell_all();
            }
        }
    }
    Ok(())
}

fn lock(teller: &Mutex<Teller>) -> std::sync::MutexGuard<'_, Teller> {
    teller.lock().expect("no holder panics")
}

/// The soft limit is often far below the hard one.
fn use_all_descriptors() -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

enum Engine {
    Client(Client),
    Server(Server),
}

impl Engine {
    fn start(charge: &Charge, book: &Arc<Book>, clock: Clock) -> io::Result<Arc<Self>> {
        let engine = if charge.ports.is_empty() {
            Self::Client(Client::start_here(book, clock, charge.seed)?)
        } else {
            Self::Server(Server::start_here(book, clock, &charge.ports)?)
        };
        Ok(Arc::new(engine))
    }

    fn remote(&self) -> &Remote {
        match self {
            Self::Client(client) => client.remote(),
            Self::Server(server) => server.remote(),
        }
    }
}

/// Tells the scenario how far the book is.
struct Teller {
    stream: BufWriter<UnixStream>,
    book: Arc<Book>,
    told: Vec<Progress>,
    told_open: usize,
}

impl Teller {
    fn new(stream: UnixStream, book: Arc<Book>, groups: usize) -> Self {
        let told = (0..groups).map(|group| Progress { group, ..Progress::default() }).collect();
        Self { stream: BufWriter::new(stream), book, told, told_open: 0 }
    }

    fn tell(&mut self, news: &News) -> io::Result<()> {
        message::write(&mut self.stream, news)?;
        self.stream.flush()
    }

    fn tell_progress(&mut self, open: usize) -> io::Result<()> {
        let groups = self.book.groups();
        let mut changes = Vec::new();
        for (told, group) in self.told.iter_mut().zip(&groups) {
            let now = progress_of(group, told.group);
            if now != *told {
                changes.push(difference(now, *told));
                *told = now;
            }
        }
        if changes.is_empty() && open == self.told_open {
            return Ok(());
        }
        self.told_open = open;
        self.tell(&News::Progress { open, groups: changes })
    }

    /// Everything that is left to tell, once the engine has ended.
    fn tell_all(&mut self) -> io::Result<()> {
        self.tell_progress(0)?;
        for record in self.book.take_records() {
            message::write(&mut self.stream, &News::Record(record))?;
        }
        for (number, group) in self.book.groups().iter().enumerate() {
            let latency = group.latency.lock().expect("no holder panics");
            let recorded = latency.iter_recorded();
            let counts: Vec<(u64, u64)> =
                recorded.map(|value| (value.value_iterated_to(), value.count_at_value())).collect();
            if !counts.is_empty() {
                message::write(&mut self.stream, &News::Answers { group: number, counts })?;
            }
        }
        self.tell(&News::Over)
    }
}

fn progress_of(group: &Group, number: usize) -> Progress {
    // Of a connection that ends meanwhile, nothing may be missing that its end implies.
    let ended = group.ended.load(Acquire);
    Progress {
        group: number,
        established: group.established.load(Relaxed),
        ended,
        failed: group.failed.load(Relaxed),
        up: group.up.load(Relaxed),
        down: group.down.load(Relaxed),
    }
}

fn difference(now: Progress, before: Progress) -> Progress {
    Progress {
        group: now.group,
        established: now.established - before.established,
        ended: now.ended - before.ended,
        failed: now.failed - before.failed,
        up: now.up - before.up,
        down: now.down - before.down,
    }
}
