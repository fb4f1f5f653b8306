//! The lab's clock: every time stamp in a report counts from the same start.

use std::time::{Duration, Instant};

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
