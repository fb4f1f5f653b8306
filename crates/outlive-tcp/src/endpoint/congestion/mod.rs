//! How much may be in flight: the congestion window, and what makes it grow and shrink.
//!
//! The algorithms say what the window becomes; when there is congestion, the sender decides.
//! Windows are in bytes. The arithmetic is in integers, so that it is the same on every machine.

mod cubic;
mod newreno;

use std::time::Duration;

use self::{cubic::Cubic, newreno::NewReno};
use super::config::Algorithm;
use crate::time::Time;

/// The initial window in segments (RFC 6928).
const INITIAL_SEGMENTS: u32 = 10;
/// The loss window: what remains after the retransmission timer has fired (RFC 5681, section 3.1).
const LOSS_SEGMENTS: u32 = 1;
/// The window is never reduced below that by anything else.
const LEAST_SEGMENTS: u32 = 2;
/// "Arbitrarily high" (RFC 5681, section 3.1).
const NO_THRESHOLD: u32 = u32::MAX;
/// Larger windows than sequence numbers allow make no sense.
const LARGEST_WINDOW: u32 = 1 << 30;

/// Congestion window, threshold, and the algorithm behind them.
#[derive(Clone, Debug)]
pub(super) struct Congestion {
    pub(super) cwnd: u32,
    pub(super) ssthresh: u32,
    mss: u32,
    algorithm: State,
}

#[derive(Clone, Debug)]
enum State {
    Cubic(Cubic),
    NewReno(NewReno),
}

impl Congestion {
    pub(super) fn new(algorithm: Algorithm, mss: u32) -> Self {
        let algorithm = match algorithm {
            Algorithm::Cubic => State::Cubic(Cubic::default()),
            Algorithm::NewReno => State::NewReno(NewReno::default()),
        };
        Congestion { cwnd: initial_window(mss), ssthresh: NO_THRESHOLD, mss, algorithm }
    }

    /// The MSS has changed; the window stays the same in bytes, but has room for a segment.
    pub(super) fn set_mss(&mut self, mss: u32) {
        self.mss = mss;
        self.cwnd = self.cwnd.max(mss);
    }

    pub(super) fn in_slow_start(&self) -> bool {
        self.cwnd < self.ssthresh
    }

    /// `acked` bytes were acknowledged outside of a recovery. `limited` says that the window was
    /// what kept the sender from sending: otherwise it does not grow (RFC 7661, section 4).
    pub(super) fn on_ack(&mut self, now: Time, acked: u32, rtt: Duration, limited: bool) {
        if !limited {
            if let State::Cubic(cubic) = &mut self.algorithm {
                cubic.pause(now);
            }
            return;
        }
        let mut acked = acked;
        if self.in_slow_start() {
            // Whole acknowledgments count, for one of a super-segment stands for many (RFC 3465).
            let grows = acked.min(self.ssthresh - self.cwnd);
            self.cwnd = (self.cwnd + grows).min(LARGEST_WINDOW);
            acked -= grows;
        }
        if acked > 0 {
            let growth = match &mut self.algorithm {
                State::Cubic(cubic) => cubic.growth(now, self.cwnd, self.mss, acked, rtt),
                State::NewReno(newreno) => newreno.growth(self.cwnd, self.mss, acked),
            };
            self.cwnd = self.cwnd.saturating_add(growth).min(LARGEST_WINDOW);
        }
    }

    /// There is congestion: a loss, or its explicit notification. Sets the threshold; the window
    /// follows as the sender sees fit. `flight` bytes are in flight.
    pub(super) fn on_congestion(&mut self, flight: u32) {
        let reduced = match &mut self.algorithm {
            State::Cubic(cubic) => cubic.reduce(self.cwnd, self.mss),
            State::NewReno(_) => flight / 2,
        };
        self.ssthresh = reduced.max(LEAST_SEGMENTS * self.mss);
    }

    /// The window becomes the threshold: a recovery is over, or congestion was notified.
    pub(super) fn settle(&mut self) {
        self.cwnd = self.cwnd.min(self.ssthresh).max(self.mss);
    }

    /// The retransmission timer has fired.
    pub(super) fn collapse(&mut self) {
        self.cwnd = LOSS_SEGMENTS * self.mss;
    }

    /// Nothing was sent for longer than the retransmission timeout (RFC 5681, section 4.1).
    pub(super) fn after_idle(&mut self) {
        self.cwnd = self.cwnd.min(initial_window(self.mss));
        if let State::Cubic(cubic) = &mut self.algorithm {
            cubic.forget_epoch();
        }
    }

    /// The handshake had to be repeated (RFC 5681, section 3.1).
    pub(super) fn after_syn_loss(&mut self) {
        self.cwnd = self.mss;
    }
}

fn initial_window(mss: u32) -> u32 {
    INITIAL_SEGMENTS * mss
}
