//! Proportional rate reduction (RFC 9937): how much may be sent during a recovery.

/// The state of a recovery.
#[derive(Clone, Copy, Debug)]
pub(in crate::endpoint) struct Prr {
    /// RecoverFS.
    flight: u32,
    delivered: u32,
    /// What was sent since the recovery began.
    pub(in crate::endpoint) out: u32,
}

impl Prr {
    pub(in crate::endpoint) fn start(flight: u32) -> Self {
        Prr { flight: flight.max(1), delivered: 0, out: 0 }
    }

    /// How many bytes may be sent now. `delivered` have arrived, as the acknowledgment says;
    /// `pipe` are in flight; `progress` says that SND.UNA moved and nothing more was found lost, so
    /// that the window may grow as in slow start.
    pub(in crate::endpoint) fn allowance(
        &mut self,
        delivered: u32,
        pipe: u32,
        ssthresh: u32,
        mss: u32,
        progress: bool,
    ) -> u32 {
        self.delivered = self.delivered.saturating_add(delivered);
        if pipe > ssthresh {
            let target = u64::from(self.delivered) * u64::from(ssthresh);
            let target = target.div_ceil(u64::from(self.flight)).min(u32::MAX.into()) as u32;
            return target.saturating_sub(self.out);
        }
        // What leaves the network may be replaced, whatever was sent too early.
        let mut limit = self.delivered.saturating_sub(self.out).max(delivered);
        if progress {
            limit = limit.saturating_add(mss);
        }
        limit.min(ssthresh - pipe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twenty segments in flight, the first lost, the window to be halved: every second arrival
    /// lets one out (RFC 9937, section 6).
    #[test]
    fn arrivals_let_out_a_proportion() {
        let mut prr = Prr::start(20);
        let mut pipe = 19;
        let mut sent = 0;
        for _ in 0..19 {
            pipe -= 1;
            let allowed = prr.allowance(1, pipe, 10, 1, false);
            prr.out += allowed;
            pipe += allowed;
            sent += allowed;
        }
        assert_eq!((sent, pipe), (10, 10));
    }

    /// Most of a flight lost: the window grows again towards the threshold, not at once.
    #[test]
    fn heavy_loss_does_not_burst() {
        let mut prr = Prr::start(20);
        assert_eq!(prr.allowance(1, 4, 10, 1, false), 1);
        prr.out += 1;
        assert_eq!(prr.allowance(1, 4, 10, 1, true), 2);
        assert_eq!(Prr::start(20).allowance(8, 4, 10, 1, true), 6);
    }

    /// The first retransmission goes out before anything is delivered, if a timer has found the
    /// loss: each arrival lets one out nevertheless.
    #[test]
    fn what_was_sent_early_holds_nothing_back() {
        let mut prr = Prr::start(10);
        prr.out += 1;
        for _ in 0..3 {
            assert_eq!(prr.allowance(1, 3, 7, 1, false), 1);
            prr.out += 1;
        }
    }
}
