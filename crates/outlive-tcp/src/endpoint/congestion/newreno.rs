//! Congestion avoidance as RFC 5681 has it: one segment per round trip.

/// What is left over of increases smaller than a byte.
#[derive(Clone, Debug, Default)]
pub(super) struct NewReno {
    credit: u64,
}

impl NewReno {
    /// By how much the window grows for `acked` bytes (RFC 5681, equation 3, by bytes counted).
    pub(super) fn growth(&mut self, cwnd: u32, mss: u32, acked: u32) -> u32 {
        self.credit += u64::from(acked) * u64::from(mss);
        let growth = self.credit / u64::from(cwnd.max(1));
        self.credit -= growth * u64::from(cwnd.max(1));
        growth as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_of_acknowledgments_is_a_segment() {
        let mut newreno = NewReno::default();
        let (mut cwnd, mss) = (10 * 1_000, 1_000);
        (0..100).for_each(|_| cwnd += newreno.growth(cwnd, mss, 100));
        // A little less: the window grows while it is acknowledged.
        assert!((10_900..=11_000).contains(&cwnd), "{cwnd}");
    }
}
