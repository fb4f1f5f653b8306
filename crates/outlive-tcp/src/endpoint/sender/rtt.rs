//! Round-trip time and the retransmission timeout (RFC 6298).

use std::time::Duration;

use crate::time::Time;

/// Before anything was measured.
const INITIAL_RTO: Duration = Duration::from_secs(1);
/// If the SYN had to be repeated (RFC 6298, rule 5.7).
const INITIAL_RTO_AFTER_SYN_LOSS: Duration = Duration::from_secs(3);
/// The least maximum that RFC 6298, rule 2.5 allows.
const MAX_RTO: Duration = Duration::from_secs(60);
/// How long a minimum is believed: paths change.
const MINIMUM_LASTS: Duration = Duration::from_secs(300);

/// The estimator.
#[derive(Clone, Debug)]
pub(in crate::endpoint) struct RttEstimator {
    smoothed: Option<Duration>,
    variation: Duration,
    timeout: Duration,
    backoff: u32,
    minimum: Option<(Duration, Time)>,
    min_rto: Duration,
}

impl RttEstimator {
    pub(in crate::endpoint) fn new(min_rto: Duration) -> Self {
        RttEstimator {
            smoothed: None,
            variation: Duration::ZERO,
            timeout: INITIAL_RTO,
            backoff: 0,
            minimum: None,
            min_rto,
        }
    }

    /// Goes on from what a former node had measured.
    pub(in crate::endpoint) fn resume(&mut self, smoothed: Duration, variation: Duration) {
        if !smoothed.is_zero() {
            (self.smoothed, self.variation) = (Some(smoothed), variation);
            self.compute_timeout();
        }
    }

    /// A valid sample: of a segment that was sent once, or told apart by timestamps (RFC 6298,
    /// section 3). Ends the backoff.
    pub(in crate::endpoint) fn sample(&mut self, now: Time, rtt: Duration) {
        self.backoff = 0;
        match self.smoothed {
            None => (self.smoothed, self.variation) = (Some(rtt), rtt / 2),
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(rtt)) / 4;
                self.smoothed = Some((smoothed * 7 + rtt) / 8);
            }
        }
        self.note_minimum(now, rtt);
        self.compute_timeout();
    }

    fn note_minimum(&mut self, now: Time, rtt: Duration) {
        let lasts =
            |&(minimum, at): &(Duration, Time)| rtt > minimum && now.since(at) < MINIMUM_LASTS;
        if !self.minimum.as_ref().is_some_and(lasts) {
            self.minimum = Some((rtt, now));
        }
    }

    /// The least timeout is added to the round trip instead of bounding the sum: so delayed
    /// acknowledgments do not make timers fire on long paths.
    fn compute_timeout(&mut self) {
        let smoothed = self.smoothed.unwrap_or_default();
        self.timeout = smoothed + (self.variation * 4).max(self.min_rto);
    }

    /// The timeout, backed off.
    pub(in crate::endpoint) fn rto(&self) -> Duration {
        self.timeout.saturating_mul(1 << self.backoff.min(12)).min(MAX_RTO)
    }

    /// The timer has fired (rule 5.5).
    pub(in crate::endpoint) fn back_off(&mut self) {
        self.backoff += 1;
    }

    /// The other end has answered after all.
    pub(in crate::endpoint) fn end_backoff(&mut self) {
        self.backoff = 0;
    }

    /// How often the timer has fired in a row.
    pub(in crate::endpoint) fn backoff(&self) -> u32 {
        self.backoff
    }

    /// The handshake is complete, and its SYN was repeated.
    pub(in crate::endpoint) fn syn_was_repeated(&mut self) {
        self.backoff = 0;
        if self.smoothed.is_none() {
            self.timeout = INITIAL_RTO_AFTER_SYN_LOSS;
        }
    }

    pub(in crate::endpoint) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// RTTVAR.
    pub(in crate::endpoint) fn variation(&self) -> Duration {
        self.variation
    }

    pub(in crate::endpoint) fn minimum(&self) -> Option<Duration> {
        self.minimum.map(|(minimum, _)| minimum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_first_sample_counts_fully_and_later_ones_are_smoothed() {
        let mut rtt = RttEstimator::new(MS);
        assert_eq!(rtt.rto(), 1_000 * MS);
        rtt.sample(Time::ZERO, 100 * MS);
        assert_eq!((rtt.smoothed(), rtt.rto()), (Some(100 * MS), 300 * MS));
        rtt.sample(Time::ZERO, 180 * MS);
        // RTTVAR = 3/4 * 50 + 1/4 * 80, SRTT = 7/8 * 100 + 1/8 * 180.
        assert_eq!(
            (rtt.smoothed(), rtt.rto()),
            (Some(110 * MS), 110 * MS + 4 * Duration::from_micros(57_500))
        );
        assert_eq!(rtt.minimum(), Some(100 * MS));
    }

    #[test]
    fn the_timeout_doubles_up_to_a_limit_and_a_sample_ends_that() {
        let mut rtt = RttEstimator::new(200 * MS);
        rtt.sample(Time::ZERO, 100 * MS);
        let timeout = rtt.rto();
        rtt.back_off();
        rtt.back_off();
        assert_eq!(rtt.rto(), 4 * timeout);
        (0..100).for_each(|_| rtt.back_off());
        assert_eq!(rtt.rto(), MAX_RTO);
        rtt.sample(Time::ZERO, 100 * MS);
        assert!(rtt.rto() <= timeout);
    }
}
