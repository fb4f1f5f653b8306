//! What the packet loop and the program's tasks share: the stack, and who waits for what.
//!
//! It is one lock. The queues between the two are the stack's own buffers, each with its limit; both
//! sides hold the lock for one step of the stack and never across a system call, and a task that finds
//! nothing to do leaves its waker.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
};

use outlive_node::clock::Clock;
use outlive_stack::{ConnectionId, Event, Stack, Standing};
use outlive_tcp::wire::Endpoint;
use tokio::sync::watch;

use crate::error::HostEnded;

/// Both sides have one.
pub(crate) struct Shared {
    core: Mutex<Core>,
    pub(crate) clock: Clock,
    /// Wakes the loop.
    waker: Arc<mio::Waker>,
    pub(crate) standing: watch::Sender<Standing>,
}

/// What the lock is for.
pub(crate) struct Core {
    pub(crate) stack: Stack,
    listeners: HashMap<Endpoint, Waiting>,
    streams: HashMap<ConnectionId, StreamWaiting>,
    pub(crate) stop: bool,
    /// No connections are to be migrated here.
    pub(crate) draining: bool,
    pub(crate) ended: bool,
}

/// The tasks that wait for one stream, at most one for each reason.
#[derive(Default)]
struct StreamWaiting {
    readable: Waiting,
    writable: Waiting,
    committed: Waiting,
}

/// A task that waits, if one does.
#[derive(Default)]
pub(crate) struct Waiting(Option<Waker>);

/// What a task waits for at a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    Data,
    Room,
    Commit,
}

impl Waiting {
    fn wait(&mut self, context: &Context<'_>) {
        match &mut self.0 {
            Some(waker) => waker.clone_from(context.waker()),
            None => self.0 = Some(context.waker().clone()),
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.0.take() {
            waker.wake();
        }
    }
}

impl Shared {
    pub(crate) fn new(stack: Stack, clock: Clock, waker: Arc<mio::Waker>) -> Arc<Self> {
        let (standing, _) = watch::channel(stack.standing());
        let core = Core {
            stack,
            listeners: HashMap::new(),
            streams: HashMap::new(),
            stop: false,
            draining: false,
            ended: false,
        };
        Arc::new(Shared { core: Mutex::new(core), clock, waker, standing })
    }

    /// Nothing is left half done by a panic that could mislead.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For tasks: an error once there is no loop any more.
    pub(crate) fn use_stack(&self) -> Result<MutexGuard<'_, Core>, HostEnded> {
        let core = self.lock();
        if core.ended { Err(HostEnded) } else { Ok(core) }
    }

    /// The loop has something to do.
    pub(crate) fn wake_loop(&self) {
        // It turns soon in any case.
        let _ = self.waker.wake();
    }
}

impl Core {
    pub(crate) fn wait_for_connection(&mut self, local: Endpoint, context: &Context<'_>) {
        self.listeners.entry(local).or_default().wait(context);
    }

    pub(crate) fn wait_at(&mut self, id: ConnectionId, what: For, context: &Context<'_>) {
        let waiting = self.streams.entry(id).or_default();
        match what {
            For::Data => waiting.readable.wait(context),
            For::Room => waiting.writable.wait(context),
            For::Commit => waiting.committed.wait(context),
        }
    }

    pub(crate) fn forget_stream(&mut self, id: ConnectionId) {
        self.streams.remove(&id);
    }

    pub(crate) fn forget_listener(&mut self, local: Endpoint) {
        self.listeners.remove(&local);
    }

    /// Wakes whom the event concerns; gives it back if it is the shell's.
    pub(crate) fn dispatch(&mut self, event: Event) -> Option<Event> {
        match event {
            Event::Acceptable(local) => self.listeners.entry(local).or_default().wake(),
            Event::Readable(id) => self.wake_stream(id, |waiting| waiting.readable.wake()),
            Event::Writable(id) => self.wake_stream(id, |waiting| waiting.writable.wake()),
            Event::Committed(id) => self.wake_stream(id, |waiting| waiting.committed.wake()),
            Event::Closed(id) => self.wake_stream(id, StreamWaiting::wake_all),
            shell => return Some(shell),
        }
        None
    }

    fn wake_stream(&mut self, id: ConnectionId, wake: impl FnOnce(&mut StreamWaiting)) {
        if let Some(waiting) = self.streams.get_mut(&id) {
            wake(waiting);
        }
    }

    /// There is no loop any more.
    pub(crate) fn end(&mut self) {
        self.ended = true;
        self.listeners.values_mut().for_each(Waiting::wake);
        self.streams.values_mut().for_each(StreamWaiting::wake_all);
    }
}

impl StreamWaiting {
    fn wake_all(&mut self) {
        self.readable.wake();
        self.writable.wake();
        self.committed.wake();
    }
}
