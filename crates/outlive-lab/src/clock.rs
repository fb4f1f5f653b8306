//! The lab's clock: every time stamp in a report counts from the same start.

use std::time::{Duration, Instant, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use crate::error::LabError;

/// Time since the lab was built.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    pub fn now(self) -> Duration {
        self.0.elapsed()
    }

    /// What this clock showed at that time of day; zero for times before its start. As good as the
    /// machine's time of day is steady.
    pub fn at(self, time: SystemTime) -> Duration {
        let ago = SystemTime::now().duration_since(time).unwrap_or_default();
        self.now().saturating_sub(ago)
    }

    /// The start on the machine's monotonic clock, by which another process can
    /// [share](Self::shared) this clock.
    pub(crate) fn to_shared(self) -> Duration {
        monotonic().saturating_sub(self.now())
    }

    /// The clock of the process that [gave](Self::to_shared) its start.
    pub(crate) fn shared(start: Duration) -> Self {
        let running = monotonic().saturating_sub(start);
        Self(Instant::now().checked_sub(running).unwrap_or_else(Instant::now))
    }
}

/// Time since the machine started, for all of its processes.
fn monotonic() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Calls `ready` every few milliseconds until it holds or `limit` is over; whether it held.
pub fn wait_until(limit: Duration, mut ready: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if ready() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Calls `ready` every few milliseconds until it says yes, or fails, or `limit` is over; `what`
/// names what was waited for then.
pub fn retry_until(
    limit: Duration,
    what: &str,
    mut ready: impl FnMut() -> Result<bool, LabError>,
) -> Result<(), LabError> {
    let mut failure = None;
    let came = wait_until(limit, || match ready() {
        Ok(ready) => ready,
        Err(error) => {
            failure = Some(error);
            true
        }
    });
    match failure {
        Some(error) => Err(error),
        None if came => Ok(()),
        None => Err(LabError::TimedOut { what: what.to_owned(), seconds: limit.as_secs() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_clock_shows_the_same() {
        let clock = Clock(Instant::now() - Duration::from_secs(7));
        let same = Clock::shared(clock.to_shared());
        let (before, shown, after) = (clock.now(), same.now(), clock.now());
        let slack = Duration::from_micros(500);
        assert!(
            before <= shown + slack && shown <= after + slack,
            "{before:?} {shown:?} {after:?}"
        );
        assert!(clock.at(SystemTime::now() - Duration::from_secs(1)) >= Duration::from_secs(5));
        assert_eq!(clock.at(SystemTime::UNIX_EPOCH), Duration::ZERO);
    }
}
