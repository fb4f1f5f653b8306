//! Heartbeats: a thread of its own that says that this node lives, and hears whether the peer does.
//!
//! It goes on while the packet path is busy, and stops when the event loop makes no progress: a node
//! whose loop hangs serves nobody and must not be taken for alive. It judges nothing: what the
//! core believes goes out, what was heard goes in, with the time at which it arrived.
//!
//! | part | is |
//! |---|---|
//! | [`Heartbeats`] | the event loop's side |
//! | `thread` | sockets and the schedule |
//! | `replay` | which heartbeats are news |
//!
//! The two sides share a mailbox with one place for each path, in which newer heartbeats replace
//! older ones, and a cell with what shall be said. The event loop is woken for news only: changed
//! beliefs, the end of a silence, an answer that it waits for. Everything else it finds in the
//! mailbox whenever it looks.

mod replay;
#[cfg(test)]
mod tests;
mod thread;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use mio::{Waker, net::UdpSocket};
use outlive_proxy::pair::heartbeat::{Beliefs, Heartbeat, HeartbeatKey};
use outlive_tcp::time::Time;

use crate::clock::Clock;

/// How and between whom heartbeats go.
#[derive(Clone)]
pub struct HeartbeatConfig {
    /// Own and peer's address of each path.
    pub paths: Vec<(SocketAddr, SocketAddr)>,
    /// See [`PairKey::heartbeat`](crate::key::PairKey::heartbeat).
    pub key: HeartbeatKey,
    /// Time between heartbeats.
    pub interval: Duration,
    /// If the event loop makes no progress for this long, no heartbeats are sent.
    pub stall_timeout: Duration,
}

/// What heartbeats shall say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The core's beliefs.
    pub beliefs: Beliefs,
    /// Whether an answer is wanted at once.
    pub asks: bool,
    /// The pair's clock in microseconds when the monotonic clock was zero (modulo 2^64).
    pub clock_offset_us: u64,
}

/// What has happened on a path since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathCounters {
    /// Heartbeats sent.
    pub sent: u64,
    /// Heartbeats that could not be sent.
    pub send_failures: u64,
    /// Heartbeats of the peer that were news.
    pub received: u64,
    /// Datagrams with a wrong tag, version, length or sender.
    pub refused: u64,
    /// Heartbeats that were not news: duplicated, overtaken or recorded ones.
    pub replayed: u64,
    /// When what was last heard of the peer here arrived; `None`: never.
    pub last_heard: Option<Time>,
}

/// The event loop's side of the heartbeat thread. Dropping it ends the thread.
pub struct Heartbeats {
    shared: Arc<Shared>,
    published: Outgoing,
    /// Wakes the thread.
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

/// What is said, and the number of the last heartbeat that said something: under one lock, so that it is certain
/// which heartbeats asked.
struct Say {
    outgoing: Outgoing,
    counter: u64,
}

/// What the two sides share.
struct Shared {
    /// One for each path.
    sockets: Vec<UdpSocket>,
    say: Mutex<Say>,
    inbox: Mutex<Vec<Option<(Time, Heartbeat)>>>,
    /// Something in the inbox has not been taken.
    arrived: AtomicBool,
    /// When the event loop last showed that it lives, in microseconds of the node's clock.
    progress: AtomicU64,
    stop: AtomicBool,
    counters: Vec<Counters>,
}

#[derive(Default)]
struct Counters {
    sent: AtomicU64,
    send_failures: AtomicU64,
    received: AtomicU64,
    refused: AtomicU64,
    replayed: AtomicU64,
    /// In microseconds plus one; zero: never.
    last_heard: AtomicU64,
}

impl Heartbeats {
    /// Opens the sockets, in the network namespace of the calling thread, and starts the thread.
    /// `main` wakes the event loop.
    ///
    /// # Errors
    /// The path whose address cannot be had, or `None` if the thread could not be started.
    pub fn start(
        config: HeartbeatConfig,
        clock: Clock,
        outgoing: Outgoing,
        main: Arc<Waker>,
    ) -> Result<Self, (Option<usize>, io::Error)> {
        // A random start makes our counters unknown to whoever does not hear us: see `replay`.
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| (None, io::Error::other(error)))?;
        let counter = u64::from_be_bytes(random) >> 2;
        let mut sockets = Vec::new();
        for (number, &(local, _)) in config.paths.iter().enumerate() {
            sockets.push(thread::open(local).map_err(|error| (Some(number), error))?);
        }
        let shared = Arc::new(Shared {
            sockets,
            say: Mutex::new(Say { outgoing, counter }),
            inbox: Mutex::new(vec![None; config.paths.len()]),
            arrived: AtomicBool::new(false),
            progress: AtomicU64::new(clock.now().as_micros()),
            stop: AtomicBool::new(false),
            counters: config.paths.iter().map(|_| Counters::default()).collect(),
        });
        let beater = thread::Beater::new(config, clock, shared.clone(), main)?;
        let waker = beater.waker();
        let thread = std::thread::Builder::new()
            .name("heartbeat".to_owned())
            .spawn(move || beater.run())
            .map_err(|error| (None, error))?;
        Ok(Heartbeats { shared, published: outgoing, waker, thread: Some(thread) })
    }

    /// Says something else from now on; at once if it is more than the clock that changed. Cheap if
    /// nothing changed. If heartbeats begin to ask: the number of the last one that did not.
    pub fn publish(&mut self, outgoing: Outgoing) -> Option<u64> {
        if outgoing == self.published {
            return None;
        }
        let before = self.published;
        self.published = outgoing;
        let counter = {
            let mut say = lock(&self.shared.say);
            say.outgoing = outgoing;
            say.counter
        };
        if outgoing != (Outgoing { clock_offset_us: outgoing.clock_offset_us, ..before }) {
            // Without it the next interval does.
            let _ = self.waker.wake();
        }
        (outgoing.asks && !before.asks).then_some(counter)
    }

    /// The event loop lives.
    pub fn progress(&self, now: Time) {
        self.shared.progress.store(now.as_micros(), Ordering::Relaxed);
    }

    /// Hands over what arrived since the last call, the latest of each path: path, time, heartbeat.
    pub fn take(&self, mut hand_over: impl FnMut(usize, Time, &Heartbeat)) {
        // Pairs with the thread's store after it filled the inbox.
        if !self.shared.arrived.swap(false, Ordering::Acquire) {
            return;
        }
        let mut inbox = lock(&self.shared.inbox);
        for (path, place) in inbox.iter_mut().enumerate() {
            if let Some((at, heartbeat)) = place.take() {
                hand_over(path, at, &heartbeat);
            }
        }
    }

    /// When the peer was last heard on any path; `None`: never.
    pub fn last_heard(&self) -> Option<Time> {
        let last = |counters: &Counters| counters.last_heard.load(Ordering::Relaxed);
        let latest = self.shared.counters.iter().map(last).max()?;
        latest.checked_sub(1).map(Time::from_micros)
    }

    /// Whether something has arrived that the thread has not read yet: on a machine so busy that even this thread has to
    /// wait, the peer must not be taken for silent before. Makes a system call for each path.
    pub fn overlooks(&self) -> bool {
        self.shared.arrived.load(Ordering::Acquire)
            || self.shared.sockets.iter().any(|socket| socket.peek(&mut [0]).is_ok())
    }

    /// What has happened on each path.
    pub fn counters(&self) -> Vec<PathCounters> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let of_path = |counters: &Counters| PathCounters {
            sent: read(&counters.sent),
            send_failures: read(&counters.send_failures),
            received: read(&counters.received),
            refused: read(&counters.refused),
            replayed: read(&counters.replayed),
            last_heard: read(&counters.last_heard).checked_sub(1).map(Time::from_micros),
        };
        self.shared.counters.iter().map(of_path).collect()
    }
}

impl Drop for Heartbeats {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // The thread looks at the next interval at the latest.
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by itself.
            let _ = thread.join();
        }
    }
}

/// A panic of the other side leaves nothing half-written that could mislead.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
