//! CUBIC (RFC 9438).
//!
//! C is 0.4 segments per second cubed, beta is 0.7. Times are milliseconds, windows bytes.

use std::time::Duration;

use crate::time::Time;

/// The state of the algorithm.
#[derive(Clone, Debug, Default)]
pub(super) struct Cubic {
    /// W_max: the window before the last reduction, or less (fast convergence, section 4.7).
    w_max: u32,
    epoch: Option<Epoch>,
    credit: u64,
}

/// A stretch of congestion avoidance.
#[derive(Clone, Debug)]
struct Epoch {
    start: Time,
    /// When the window grew or was used last: time in which the sender had nothing to send does
    /// not count (section 5.8).
    last: Time,
    k_ms: u64,
    origin: u32,
    /// W_est, in thousandths of a byte.
    reno_milli: u64,
}

impl Cubic {
    /// By how much the window grows for `acked` bytes (section 4.2 to 4.4).
    pub(super) fn growth(
        &mut self,
        now: Time,
        cwnd: u32,
        mss: u32,
        acked: u32,
        rtt: Duration,
    ) -> u32 {
        let w_max = self.w_max;
        let epoch = self.epoch.get_or_insert_with(|| Epoch::start(now, cwnd, w_max, mss));
        epoch.last = now;
        epoch.grow_reno(cwnd, mss, acked);

        let elapsed = now.since(epoch.start);
        let reno = (epoch.reno_milli / 1_000) as u32;
        let target = if epoch.window_at(elapsed, mss) < reno {
            reno
        } else {
            epoch.window_at(elapsed + rtt, mss)
        };
        let target = target.clamp(cwnd, cwnd + cwnd / 2);
        if target == reno {
            self.credit = 0;
            return target - cwnd;
        }
        self.credit += u64::from(target - cwnd) * u64::from(acked);
        let growth = self.credit / u64::from(cwnd.max(1));
        self.credit -= growth * u64::from(cwnd.max(1));
        growth as u32
    }

    /// There is congestion: gives the reduced window (sections 4.6 and 4.7).
    pub(super) fn reduce(&mut self, cwnd: u32, mss: u32) -> u32 {
        self.w_max = if cwnd + mss < self.w_max {
            (u64::from(cwnd) * 17 / 20) as u32 // (1 + beta) / 2
        } else {
            cwnd
        };
        self.forget_epoch();
        (u64::from(cwnd) * 7 / 10) as u32
    }

    /// The window was not what kept the sender from sending.
    pub(super) fn pause(&mut self, now: Time) {
        if let Some(epoch) = &mut self.epoch {
            epoch.start = epoch.start + now.since(epoch.last);
            epoch.last = now;
        }
    }

    /// Congestion avoidance begins anew with the next acknowledgment.
    pub(super) fn forget_epoch(&mut self) {
        self.epoch = None;
        self.credit = 0;
    }
}

impl Epoch {
    fn start(now: Time, cwnd: u32, w_max: u32, mss: u32) -> Self {
        // K = cbrt((W_max - cwnd_epoch) / C) with windows in segments; in ms, times 10^3.
        let below = u64::from(w_max.saturating_sub(cwnd));
        let k_ms = cube_root(u128::from(below) * 10_000_000_000 / (4 * u128::from(mss.max(1))));
        let origin = w_max.max(cwnd);
        Epoch { start: now, last: now, k_ms, origin, reno_milli: u64::from(cwnd) * 1_000 }
    }

    /// W_est: what NewReno would have with the same reduction (section 4.3).
    ///
    /// Alpha is 3 * (1 - beta) / (1 + beta), also once W_est has caught up, where it should be 1. Linux
    /// does as this does; with 1, a connection gets a quarter more than Linux's where one packet in
    /// a hundred is lost.
    fn grow_reno(&mut self, cwnd: u32, mss: u32, acked: u32) {
        const ALPHA_MILLI: u128 = 529;
        let growth = ALPHA_MILLI * u128::from(acked) * u128::from(mss) / u128::from(cwnd.max(1));
        self.reno_milli += growth as u64;
    }

    /// W_cubic after `elapsed`.
    fn window_at(&self, elapsed: Duration, mss: u32) -> u32 {
        // Beyond a day it is larger than any window.
        let offset = elapsed.as_millis().min(86_400_000) as i128 - i128::from(self.k_ms);
        let delta = offset.pow(3) * 4 * i128::from(mss) / 10_000_000_000;
        (i128::from(self.origin) + delta).clamp(0, i128::from(u32::MAX / 2)) as u32
    }
}

/// The integer cube root, rounded down.
fn cube_root(n: u128) -> u64 {
    let (mut low, mut high) = (0u64, 1 << 40);
    while low < high {
        let middle = (low + high).div_ceil(2);
        if u128::from(middle).pow(3) <= n { low = middle } else { high = middle - 1 }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1_000;
    const RTT: Duration = Duration::from_millis(100);

    #[test]
    fn cube_roots() {
        for n in [0, 1, 7, 8, 26, 27, 1_000_000_000, u64::MAX.into()] {
            let root = u128::from(cube_root(n));
            assert!(root.pow(3) <= n && (root + 1).pow(3) > n, "{n}");
        }
    }

    /// After a reduction from 100 segments the window is back there after K = cbrt(30 / 0.4) =
    /// 4.2 s: slower and slower towards it, then faster and faster away from it.
    #[test]
    fn the_plateau_is_where_the_loss_was() {
        let mut cubic = Cubic::default();
        let mut cwnd = cubic.reduce(100 * MSS, MSS);
        assert_eq!(cwnd, 70 * MSS);
        let mut now = Time::ZERO;
        let mut at = vec![];
        for _ in 0..80 {
            at.push(cwnd / MSS);
            for _ in 0..10 {
                now = now + RTT / 10;
                cwnd += cubic.growth(now, cwnd, MSS, cwnd / 10, RTT);
            }
        }
        assert!((80..=90).contains(&at[10]), "{at:?}");
        assert!((98..=101).contains(&at[42]), "{at:?}");
        assert!((115..=135).contains(&at[79]), "{at:?}");
    }

    /// On a short path NewReno would be faster than the cubic function; the window follows it, and
    /// is no faster than Linux's.
    #[test]
    fn it_is_never_slower_than_newreno_with_the_same_reduction() {
        let mut cubic = Cubic::default();
        let mut cwnd = cubic.reduce(10 * MSS, MSS);
        let mut now = Time::ZERO;
        for _ in 0..100 {
            now = now + Duration::from_millis(1);
            cwnd += cubic.growth(now, cwnd, MSS, cwnd, Duration::from_millis(1));
        }
        // From 7 on, 0.529 of a segment in each round trip.
        assert!((59 * MSS..61 * MSS).contains(&cwnd), "{cwnd}");
    }

    #[test]
    fn a_flow_that_lost_again_before_its_plateau_gives_room() {
        let mut cubic = Cubic::default();
        cubic.reduce(100 * MSS, MSS);
        cubic.reduce(80 * MSS, MSS);
        assert_eq!(cubic.w_max, 68 * MSS);
    }
}
