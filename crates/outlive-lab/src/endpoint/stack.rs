//! The endpoint's thread: packets, time and jobs, one after the other.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use outlive_net::tun::Offload;
use outlive_tcp::endpoint::{
    Arrival, Config, Connection, End, Event, Opening, Read, State, Verdict,
};
use outlive_tcp::segment::Segment;
use outlive_tcp::seq::Seq;
use outlive_tcp::time::Time;
use outlive_tcp::wire::{Endpoint, Flags, FourTuple, Options};

use super::device::{Device, Input};
use super::job::Job;
use crate::clock::Clock;
use crate::error::LabError;
use crate::host::Host;
use crate::synthetic::{Gate, Range};

const DEVICE: Token = Token(0);
const WAKER: Token = Token(1);

/// Packets taken off the device before anything else has its turn.
const BATCH: usize = 64;
/// Bytes written at once.
const CHUNK: u64 = 64 << 10;
/// Bytes that may wait in either direction, as much as a kernel would let them.
const BUFFER: u32 = 4 << 20;
/// Nobody in the lab guesses sequence numbers of these connections.
const KEY: [u8; 16] = [0x1a; 16];

/// A running endpoint, behind a host. It ends with the host.
pub struct Stack {
    range: Range,
    commands: Mutex<Sender<Command>>,
    waker: Arc<Waker>,
}

enum Command {
    Listen(Endpoint, Job, Sender<()>),
    Connect(FourTuple, Job),
    Stop,
}

impl Stack {
    /// An endpoint that has the addresses of `range`, reached through `host`. `settings` are those of
    /// all its connections, but for buffers and the way of acknowledging.
    pub fn start(host: &Host, range: Range, settings: Config) -> Result<Self, LabError> {
        let failed = |error| LabError::Traffic("the endpoint's loop", error);
        let tun = Gate::open(host, range)?.into_device();
        tun.set_offload(Offload::TCP)?;
        let device = Device::new(tun);
        let poll = Poll::new().map_err(failed)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(failed)?);
        poll.registry()
            .register(&mut SourceFd(&device.raw_fd()), DEVICE, Interest::READABLE)
            .map_err(failed)?;
        let (sender, commands) = mpsc::channel();
        let config = Config { receive_buffer: BUFFER, withheld_limit: BUFFER, ..settings };
        let worker = Worker {
            device,
            poll,
            commands,
            clock: host.clock(),
            config: Config { send_buffer: BUFFER, ..config },
            listeners: HashMap::new(),
            connections: HashMap::new(),
        };
        let (stop, wake) = (sender.clone(), waker.clone());
        let stop = move || {
            let _ = stop.send(Command::Stop);
            let _ = wake.wake();
        };
        host.spawn("endpoint", stop, move || worker.run())?;
        Ok(Self { range, commands: Mutex::new(sender), waker })
    }

    /// Its address.
    pub fn address(&self, ipv6: bool) -> IpAddr {
        self.range.address(0, ipv6)
    }

    /// Takes connections to that port from now on, to do the same job each.
    pub fn listen(&self, ipv6: bool, port: u16, job: Job) {
        let (done, listening) = mpsc::channel();
        self.command(Command::Listen(Endpoint::new(self.address(ipv6), port), job, done));
        let _ = listening.recv();
    }

    /// Connects from that port, and does a job.
    pub fn connect(&self, port: u16, to: SocketAddr, job: Job) {
        let from = Endpoint::new(self.address(to.is_ipv6()), port);
        self.command(Command::Connect(FourTuple::new(from, to.into()), job));
    }

    fn command(&self, command: Command) {
        // Without a thread to take it, nothing comes, which the meters show.
        let _ = self.commands.lock().expect("no holder panics").send(command);
        let _ = self.waker.wake();
    }
}

struct Worker {
    device: Device,
    poll: Poll,
    commands: Receiver<Command>,
    clock: Clock,
    config: Config,
    listeners: HashMap<Endpoint, Job>,
    /// By their ends, as they send. A few dozen: looking at all of them for the next timer is cheap.
    connections: HashMap<FourTuple, Working>,
}

/// A connection at work.
struct Working {
    conn: Connection,
    job: Job,
    written: u64,
}

impl Worker {
    fn run(mut self) {
        let mut events = Events::with_capacity(4);
        loop {
            let now = self.now();
            let due = self.connections.values().filter_map(|work| work.conn.poll_timeout()).min();
            // The poll's own clock counts milliseconds, and rounds up.
            let timeout = due.map(|due| due.since(now));
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != std::io::ErrorKind::Interrupted
            {
                return;
            }
            while let Ok(command) = self.commands.try_recv() {
                match command {
                    Command::Listen(end, job, done) => {
                        self.listeners.insert(end, job);
                        let _ = done.send(());
                    }
                    Command::Connect(tuple, job) => self.connect(tuple, job),
                    Command::Stop => return,
                }
            }
            while self.take_batch() {
                self.expire();
            }
            self.expire();
        }
    }

    fn now(&self) -> Time {
        // Not at the origin, which the endpoint takes for long ago.
        Time::from_micros(1_000_000 + self.clock.now().as_micros() as u64)
    }

    /// Takes packets until there are none, or many; whether there may be more.
    fn take_batch(&mut self) -> bool {
        let mut touched = Vec::new();
        let mut more = true;
        for _ in 0..BATCH {
            let Some(input) = self.device.receive() else {
                more = false;
                break;
            };
            let tuple = match input {
                Input::Segment(arrival) => self.take_segment(&arrival),
                Input::Icmp(error) => {
                    let now = self.now();
                    self.connections.get_mut(&error.quoted).map(|work| {
                        work.conn.handle_icmp(now, &error);
                        error.quoted
                    })
                }
                Input::Other => None,
            };
            touched.extend(tuple.filter(|tuple| !touched.contains(tuple)));
        }
        for tuple in touched {
            self.work(tuple);
        }
        more
    }

    fn take_segment(&mut self, arrival: &Arrival) -> Option<FourTuple> {
        let (now, tuple) = (self.now(), arrival.tuple.reversed());
        if let Some(work) = self.connections.get_mut(&tuple) {
            let verdict = work.conn.handle_segment(now, arrival);
            debug_assert!(!matches!(verdict, Verdict::Reopen { .. }), "each port is used once");
            return Some(tuple);
        }
        if let Some(job) = self.listeners.get(&tuple.source)
            && let Ok(conn) = Connection::accept(now, arrival, opening(tuple, now), self.config)
        {
            self.connections.insert(tuple, Working { conn, job: job.clone(), written: 0 });
            return Some(tuple);
        }
        if !arrival.flags.contains(Flags::RST) {
            self.device.send_segment(&reset(arrival));
        }
        None
    }

    fn connect(&mut self, tuple: FourTuple, job: Job) {
        let now = self.now();
        match Connection::connect(opening(tuple, now), self.config) {
            Ok(conn) => {
                self.connections.insert(tuple, Working { conn, job, written: 0 });
                self.work(tuple);
            }
            Err(error) => job.meter.fail(error),
        }
    }

    /// Timers that are due.
    fn expire(&mut self) {
        let now = self.now();
        let is_due = |work: &Working| work.conn.poll_timeout().is_some_and(|due| due <= now);
        let due: Vec<FourTuple> = self
            .connections
            .iter()
            .filter(|(_, work)| is_due(work))
            .map(|(tuple, _)| *tuple)
            .collect();
        for tuple in due {
            if let Some(work) = self.connections.get_mut(&tuple) {
                work.conn.handle_timeout(now);
                self.work(tuple);
            }
        }
    }

    /// Does what there is to do on a connection, and sends what it wants sent.
    fn work(&mut self, tuple: FourTuple) {
        let (now, at) = (self.now(), self.clock.now());
        let Some(work) = self.connections.get_mut(&tuple) else { return };
        loop {
            work.write();
            work.read(at);
            while let Some(transmit) = work.conn.poll_transmit(now) {
                self.device.send(&transmit);
            }
            match work.conn.poll_event() {
                Some(Event::Closed(end)) if end != End::Finished => {
                    work.job.meter.fail(format!("{end:?}"))
                }
                Some(_) => {}
                None => break,
            }
        }
        if work.conn.state() == State::Closed {
            self.connections.remove(&tuple);
        }
    }
}

impl Working {
    fn write(&mut self) {
        loop {
            let left = self.job.send - self.written;
            let len = left.min(CHUNK).min(self.conn.write_capacity() as u64);
            if left == 0 {
                self.conn.shutdown();
            }
            if len == 0 {
                return;
            }
            let mut chunk = vec![0; len as usize];
            self.job.patterns.0.fill(self.written, &mut chunk);
            match self.conn.write(Bytes::from(chunk)) {
                Ok(taken) => self.written += taken as u64,
                Err(_) => return,
            }
        }
    }

    /// What was compared may be forgotten by its sender.
    fn read(&mut self, at: Duration) {
        let meter = &self.job.meter;
        loop {
            let acknowledged = match self.conn.read(CHUNK as usize) {
                Read::Data(data) => {
                    meter.take(at, self.job.patterns.1, &data);
                    self.conn.acknowledge(data.len() as u32)
                }
                Read::End if meter.seen().complete => return,
                Read::End => {
                    meter.complete(at);
                    self.conn.acknowledge_end()
                }
                Read::Blocked | Read::Closed(_) => return,
            };
            if let Err(error) = acknowledged {
                meter.fail(error);
                return;
            }
        }
    }
}

fn opening(tuple: FourTuple, now: Time) -> Opening {
    Opening::keyed(&KEY, tuple, now.as_micros(), now)
}

/// The answer to a segment of a connection that is over, or was never there.
fn reset(arrival: &Arrival) -> Segment<'static> {
    let len = arrival.payload.len() as u32
        + u32::from(arrival.flags.contains(Flags::SYN))
        + u32::from(arrival.flags.contains(Flags::FIN));
    let (seq, ack) = match arrival.ack {
        Some(ack) => (ack, None),
        None => (Seq(0), Some(arrival.seq + len)),
    };
    Segment {
        tuple: arrival.tuple.reversed(),
        seq,
        ack,
        flags: Flags::RST,
        window: 0,
        options: Options::default(),
        payload: &[],
        hop_limit: 64,
    }
}
