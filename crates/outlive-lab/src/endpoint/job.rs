//! What one end of a connection does, and what it saw of the other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::traffic::pattern::Pattern;

/// Sends a stream of known bytes and ends it; takes the other end's, compares it, and waits for its
/// end.
#[derive(Debug, Clone)]
pub struct Job {
    /// Bytes to be sent.
    pub send: u64,
    /// The bytes sent, and the bytes expected.
    pub patterns: (Pattern, Pattern),
    /// Where is noted what comes.
    pub meter: Arc<Meter>,
}

impl Job {
    /// The jobs of both ends of a connection: what one sends the other one expects.
    pub fn pair(send: (u64, u64), seed: u64) -> (Job, Job) {
        let (one, other) = (Pattern::new(seed), Pattern::new(!seed));
        let job = |send, patterns| Job { send, patterns, meter: Arc::default() };
        (job(send.0, (one, other)), job(send.1, (other, one)))
    }
}

/// What one end saw.
#[derive(Debug, Default)]
pub struct Meter(Mutex<Seen>);

/// What one end saw until now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Bytes that came.
    pub received: u64,
    /// Those that were not what was sent.
    pub wrong: u64,
    /// The other end's stream has ended in order.
    pub complete: bool,
    /// The connection failed.
    pub failure: Option<String>,
    /// The longest time between two arrivals.
    pub longest_wait: Duration,
    last: Option<Duration>,
}

impl Meter {
    /// What was seen until now.
    pub fn seen(&self) -> Seen {
        self.lock().clone()
    }

    /// `data` came at `now`, and should be what `pattern` has there.
    pub(super) fn take(&self, now: Duration, pattern: Pattern, data: &[u8]) {
        let mut seen = self.lock();
        seen.wrong += pattern.count_wrong(seen.received, data);
        seen.received += data.len() as u64;
        seen.arrived(now);
    }

    pub(super) fn complete(&self, now: Duration) {
        let mut seen = self.lock();
        seen.complete = true;
        seen.arrived(now);
    }

    pub(super) fn fail(&self, reason: impl ToString) {
        self.lock().failure.get_or_insert(reason.to_string());
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn arrived(&mut self, now: Duration) {
        let last = self.last.replace(now).unwrap_or(now);
        self.longest_wait = self.longest_wait.max(now.saturating_sub(last));
    }
}
