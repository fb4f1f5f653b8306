//! The clock that both nodes of a pair share.
//!
//! Cookies, timestamps and initial sequence numbers come from it, so that for a peer they never run back,
//! whichever node makes them.

use std::time::Duration;

use outlive_tcp::{
    fault::{self, Fault},
    time::Time,
};

/// Added when a node takes over: more than the two clocks can have drifted apart between two heartbeats.
pub const TAKEOVER_MARGIN: Duration = Duration::from_secs(2);

/// Added when a node takes over as planned: it is told where the clock stands, so this only has to make up for the
/// way of the message. Small, because segments that the other node still translates must not look old beside it.
pub const HANDOVER_MARGIN: Duration = Duration::from_millis(5);

/// A node's idea of the pair's clock: its own monotonic clock plus an offset that only grows.
#[derive(Clone, Copy, Debug)]
pub struct PairClock {
    offset_us: u64,
}

impl PairClock {
    /// The clock of a node that knows no peer yet: it starts at the wall clock, so that a restarted lone
    /// node goes on later than where it stopped.
    pub fn new(unix_us: u64, now: Time) -> Self {
        PairClock { offset_us: unix_us.saturating_sub(now.as_micros()) }
    }

    /// Microseconds on the pair's clock.
    pub fn micros(&self, now: Time) -> u64 {
        now.as_micros().saturating_add(self.offset_us)
    }

    /// Milliseconds on the pair's clock.
    pub fn millis(&self, now: Time) -> u64 {
        self.micros(now) / 1_000
    }

    /// What timestamps (RFC 7323) of this node say: milliseconds, modulo 2^32.
    pub fn timestamp(&self, now: Time) -> u32 {
        self.millis(now) as u32
    }

    /// The active node said that its clock stands at `theirs`: never be behind it.
    pub fn follow(&mut self, now: Time, theirs: u64) {
        if fault::on(Fault::ClockRunsBack) {
            return;
        }
        self.offset_us = self.offset_us.max(theirs.saturating_sub(now.as_micros()));
    }

    /// This node takes over: go ahead of whatever the old one may have said last.
    pub fn take_over(&mut self) {
        if fault::on(Fault::ClockRunsBack) {
            return;
        }
        self.offset_us = self.offset_us.saturating_add(TAKEOVER_MARGIN.as_micros() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_runs_back() {
        let mut clock = PairClock::new(5_000_000, Time::from_micros(1_000));
        assert_eq!(clock.micros(Time::from_micros(1_000)), 5_000_000);
        clock.follow(Time::from_micros(1_000), 4_000_000);
        assert_eq!(clock.micros(Time::from_micros(1_000)), 5_000_000);
        clock.follow(Time::from_micros(1_000), 6_000_000);
        assert_eq!(clock.micros(Time::from_micros(2_000)), 6_001_000);
        clock.take_over();
        assert_eq!(clock.micros(Time::from_micros(2_000)), 8_001_000);
    }
}
