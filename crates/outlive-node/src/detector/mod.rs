//! The node's side of an external detector: a thread that tells it how the node is, and brings its orders to the event
//! loop.
//!
//! Questions are answered by the thread, from what the event loop last published, so that a busy node is not taken for
//! a dead one; and not at all when the event loop stands still, because a node that hangs serves nobody. Orders are
//! obeyed, or refused, by the core, in the event loop, which answers them itself.
//!
//! | part | is |
//! |---|---|
//! | [`wire`] | what is said, byte by byte |
//! | [`Responder`] | the event loop's side |
//! | `thread` | sockets, challenges |

#[cfg(test)]
mod tests;
mod thread;
pub mod wire;

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
use outlive_proxy::pair::{
    Epoch,
    order::{Order, Outcome},
};
use outlive_tcp::time::Time;

use self::wire::{Answer, NodeState, Question};
use crate::{clock::Clock, key::WatchKey};

/// Where and how questions are answered.
#[derive(Clone)]
pub struct ResponderConfig {
    /// Where detectors ask.
    pub listen: Vec<SocketAddr>,
    /// See [`PairKey::watch`](crate::key::PairKey::watch).
    pub key: WatchKey,
    /// If the event loop makes no progress for this long, nothing is answered.
    pub stall_timeout: Duration,
}

/// What has happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DetectorCounters {
    /// Questions answered, orders among them.
    pub questions: u64,
    /// Orders that the event loop was given.
    pub orders: u64,
    /// Datagrams that were not understood, not authentic, or meant for the other node.
    pub refused: u64,
    /// When a detector was last heard; `None`: never.
    pub last_heard: Option<Time>,
}

/// What detectors have said since the event loop last looked.
#[derive(Debug, Default)]
pub struct News {
    /// The highest epoch that they have seen.
    pub epoch: Epoch,
    /// The latest order, and how it is to be answered.
    pub order: Option<(Order, Pending)>,
}

/// An order that has not been answered yet.
#[derive(Debug)]
pub struct Pending {
    question: Question,
    challenge: u64,
    socket: usize,
    from: SocketAddr,
}

/// The event loop's side. Dropping it ends the thread.
pub struct Responder {
    shared: Arc<Shared>,
    published: NodeState,
    key: WatchKey,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

/// What the two sides share.
struct Shared {
    sockets: Vec<UdpSocket>,
    state: Mutex<NodeState>,
    /// Changes with every packet, so it is not worth a lock.
    sessions: AtomicU64,
    inbox: Mutex<News>,
    arrived: AtomicBool,
    /// When the event loop last showed that it lives, in microseconds of the node's clock.
    progress: AtomicU64,
    stop: AtomicBool,
    questions: AtomicU64,
    orders: AtomicU64,
    refused: AtomicU64,
    /// In microseconds plus one; zero: never.
    last_heard: AtomicU64,
}

impl Responder {
    /// Opens the sockets, in the network namespace of the calling thread, and starts the thread. `main` wakes the
    /// event loop.
    ///
    /// # Errors
    /// The number of the address that cannot be had, or `None` if the thread could not be started.
    pub fn start(
        config: ResponderConfig,
        clock: Clock,
        state: NodeState,
        main: Arc<Waker>,
    ) -> Result<Self, (Option<usize>, io::Error)> {
        let mut sockets = Vec::new();
        for (number, address) in config.listen.iter().enumerate() {
            sockets.push(UdpSocket::bind(*address).map_err(|error| (Some(number), error))?);
        }
        let shared = Shared {
            sockets,
            state: Mutex::new(state),
            sessions: AtomicU64::new(state.sessions),
            inbox: Mutex::default(),
            arrived: AtomicBool::new(false),
            progress: AtomicU64::new(clock.now().as_micros()),
            stop: AtomicBool::new(false),
            questions: AtomicU64::new(0),
            orders: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            last_heard: AtomicU64::new(0),
        };
        let shared = Arc::new(shared);
        let key = config.key.clone();
        let listener = thread::Listener::new(config, clock, shared.clone(), main)
            .map_err(|error| (None, error))?;
        let waker = listener.waker();
        let thread = std::thread::Builder::new()
            .name("detector".to_owned())
            .spawn(move || listener.run())
            .map_err(|error| (None, error))?;
        Ok(Responder { shared, published: state, key, waker, thread: Some(thread) })
    }

    /// The event loop lives, and this is how the node is. Cheap if nothing changed.
    pub fn publish(&mut self, now: Time, state: NodeState) {
        self.shared.progress.store(now.as_micros(), Ordering::Relaxed);
        self.shared.sessions.store(state.sessions, Ordering::Relaxed);
        let state = NodeState { sessions: 0, ..state };
        if state != self.published {
            self.published = state;
            *lock(&self.shared.state) = state;
        }
    }

    /// What has been said since the last call, if anything that the core has to know.
    pub fn take(&self) -> Option<News> {
        // Pairs with the thread's store after it filled the inbox.
        if !self.shared.arrived.swap(false, Ordering::Acquire) {
            return None;
        }
        Some(std::mem::take(&mut *lock(&self.shared.inbox)))
    }

    /// Answers an order. To be called when what it leads to has been [published](Self::publish).
    pub fn answer(&self, pending: &Pending, outcome: Outcome) {
        let sessions = self.shared.sessions.load(Ordering::Relaxed);
        let answer = Answer {
            number: pending.question.number,
            state: NodeState { sessions, ..self.published },
            challenge: pending.challenge,
            outcome: Some(outcome),
        };
        if let Some(socket) = self.shared.sockets.get(pending.socket) {
            // One that is lost is asked for again.
            let _ = socket.send_to(&answer.encode(&self.key), pending.from);
        }
    }

    /// What has happened since the start.
    pub fn counters(&self) -> DetectorCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DetectorCounters {
            questions: read(&self.shared.questions),
            orders: read(&self.shared.orders),
            refused: read(&self.shared.refused),
            last_heard: read(&self.shared.last_heard).checked_sub(1).map(Time::from_micros),
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // Without it the thread looks within a second.
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
