//! The clocks that the pure crates are given.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use outlive_tcp::time::Time;

/// The monotonic clock of one node; copies agree with each other.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock whose origin is now.
    pub fn start() -> Self {
        Clock { origin: Instant::now() }
    }

    /// The present instant.
    pub fn now(&self) -> Time {
        let elapsed = self.origin.elapsed().as_micros();
        Time::from_micros(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }
}

/// Wall clock, microseconds since 1970; zero if the machine believes to be before that.
pub fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
