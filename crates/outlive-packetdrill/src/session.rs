//! Virtual time, and calls that wait in it.
//!
//! Time passes while the tool sleeps or waits for a packet. A call that the script lets wait is made
//! by a second thread of the tool; it sleeps here until something has changed. Time stands still
//! until it has looked, and, if it returns, until the tool has asked at what time it did.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, ThreadId},
    time::Duration,
};

use outlive_tcp::time::Time;

use crate::{
    settings::Settings,
    stack::{Errno, Stack},
};

/// In real time: how long a thread of the tool may take to look, before time goes on without it.
const PATIENCE: Duration = Duration::from_secs(2);

/// The stack, shared by the threads of the tool.
pub(crate) struct Session {
    state: Mutex<Shared>,
    changed: Condvar,
    /// The tool's first thread, on which time depends.
    main: ThreadId,
}

struct Shared {
    stack: Stack,
    /// Counts whatever a waiting call might be waiting for.
    changes: u64,
    waiter: Option<Waiter>,
    /// A call that has waited returns; the tool has not asked for the time yet.
    returning: bool,
}

struct Waiter {
    /// The changes that it has looked at.
    seen: u64,
    deadline: Option<Time>,
}

impl Session {
    /// A session, made by the tool's first thread.
    pub(crate) fn new(settings: Settings) -> Self {
        let stack = Stack::new(settings);
        Session {
            state: Mutex::new(Shared { stack, changes: 0, waiter: None, returning: false }),
            changed: Condvar::new(),
            main: thread::current().id(),
        }
    }

    /// Makes a call that does not wait.
    pub(crate) fn call<T>(&self, call: impl FnOnce(&mut Stack) -> T) -> T {
        let mut shared = self.lock();
        shared.changes += 1;
        let outcome = call(&mut shared.stack);
        self.changed.notify_all();
        outcome
    }

    /// Makes a call until it gives something else than `EAGAIN`, or, with `ETIMEDOUT`, until the
    /// deadline that it is told of. The first thread cannot wait, for time would stand still: `EDEADLK`.
    pub(crate) fn wait<T>(
        &self,
        timeout: Option<Duration>,
        mut call: impl FnMut(&mut Stack) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let mut shared = self.lock();
        let deadline = timeout.map(|timeout| shared.stack.now + timeout);
        loop {
            let outcome = match call(&mut shared.stack) {
                Err(libc::EAGAIN) if deadline.is_some_and(|due| due <= shared.stack.now) => {
                    Err(libc::ETIMEDOUT)
                }
                Err(libc::EAGAIN) if thread::current().id() == self.main => Err(libc::EDEADLK),
                Err(libc::EAGAIN) => {
                    shared.waiter = Some(Waiter { seen: shared.changes, deadline });
                    self.changed.notify_all();
                    shared = self.sleep(shared);
                    continue;
                }
                outcome => outcome,
            };
            shared.returning = shared.waiter.take().is_some();
            self.changed.notify_all();
            return outcome;
        }
    }

    /// What the time is. It passes a little, since the tool waits for a moment by asking in a loop.
    /// Not for a call that returns: that asks once.
    pub(crate) fn now(&self) -> Time {
        let mut shared = self.lock();
        let now = shared.stack.now;
        if thread::current().id() != self.main && shared.returning {
            shared.returning = false;
            self.changed.notify_all();
            return now;
        }
        drop(shared);
        let then = now + Duration::from_micros(1);
        self.advance(then);
        then
    }

    /// Time passes.
    pub(crate) fn sleep_for(&self, time: Duration) {
        let then = self.lock().stack.now + time;
        self.advance(then);
    }

    /// The next packet that leaves, however long that takes; none if nothing ever will.
    pub(crate) fn next_packet(&self) -> Option<(Time, Vec<u8>)> {
        let mut shared = self.settled(self.lock());
        loop {
            if let Some(packet) = shared.stack.sent() {
                return Some(packet);
            }
            let due = shared.deadline()?;
            shared.pass(due);
            shared = self.settled(shared);
        }
    }

    #[cfg(test)]
    pub(crate) fn has_waiter(&self) -> bool {
        self.lock().waiter.is_some()
    }

    fn advance(&self, until: Time) {
        let mut shared = self.settled(self.lock());
        while let Some(due) = shared.deadline().filter(|due| *due < until) {
            shared.pass(due);
            shared = self.settled(shared);
        }
        shared.pass(until);
        drop(self.settled(shared));
    }

    /// Waits until a waiting call has seen all that has changed.
    fn settled<'a>(&self, mut shared: MutexGuard<'a, Shared>) -> MutexGuard<'a, Shared> {
        while shared.is_unsettled() {
            self.changed.notify_all();
            let (guard, timeout) = self
                .changed
                .wait_timeout_while(shared, PATIENCE, |shared| shared.is_unsettled())
                .unwrap_or_else(PoisonError::into_inner);
            shared = guard;
            if timeout.timed_out() {
                break;
            }
        }
        shared
    }

    fn sleep<'a>(&self, shared: MutexGuard<'a, Shared>) -> MutexGuard<'a, Shared> {
        self.changed.wait(shared).unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn deadline(&self) -> Option<Time> {
        let waiter = self.waiter.as_ref().and_then(|waiter| waiter.deadline);
        [self.stack.deadline(), waiter].into_iter().flatten().min()
    }

    fn pass(&mut self, until: Time) {
        self.changes += 1;
        self.stack.advance(until);
    }

    fn is_unsettled(&self) -> bool {
        self.returning || self.waiter.as_ref().is_some_and(|waiter| waiter.seen < self.changes)
    }
}
