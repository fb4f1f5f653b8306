//! RACK: loss is told by time (RFC 8985, section 6).

use std::time::Duration;

use super::scoreboard::{Scoreboard, Sent};
use crate::{seq::Seq, time::Time};

/// Recoveries without a D-SACK after which a widened window shrinks again.
const PERSIST: u32 = 16;

/// The state of the detection.
#[derive(Clone, Debug)]
pub(in crate::endpoint) struct Rack {
    /// Of the segment sent latest among those that have arrived: when it was sent, where it ends,
    /// what its round trip took.
    at: Time,
    end: Seq,
    rtt: Duration,
    /// The highest sequence number that has arrived.
    highest: Seq,
    reordering_seen: bool,
    window_factor: u32,
    persist: u32,
    /// The end of the round trip in which a D-SACK has widened the window.
    dsack_round: Option<Seq>,
}

/// What bears on how long to wait for segments that may only be late.
#[derive(Clone, Copy, Debug)]
pub(in crate::endpoint) struct Patience {
    pub(in crate::endpoint) recovering: bool,
    /// Three segments or more have arrived out of order.
    pub(in crate::endpoint) many_sacked: bool,
    pub(in crate::endpoint) smoothed: Duration,
    pub(in crate::endpoint) minimum: Duration,
}

impl Rack {
    pub(in crate::endpoint) fn new(una: Seq) -> Self {
        Rack {
            at: Time::ZERO,
            end: una,
            rtt: Duration::ZERO,
            highest: una,
            reordering_seen: false,
            window_factor: 1,
            persist: 0,
            dsack_round: None,
        }
    }

    /// A segment has arrived, as an acknowledgment tells now. `may_be_first` says that the
    /// acknowledgment may be of an earlier transmission of it.
    pub(in crate::endpoint) fn update(
        &mut self,
        now: Time,
        sent: &Sent,
        minimum: Duration,
        may_be_first: bool,
    ) {
        if sent.end.after(self.highest) {
            self.highest = sent.end;
        } else if sent.end.before(self.highest) && !sent.retransmitted {
            self.reordering_seen = true;
        }
        if sent.inherited && !sent.retransmitted {
            return;
        }
        let rtt = now.since(sent.at);
        if sent.retransmitted && (may_be_first || rtt < minimum) {
            return;
        }
        self.rtt = rtt;
        if sent.sent_after(self.at, self.end) {
            (self.at, self.end) = (sent.at, sent.end);
        }
    }

    /// Marks that lie behind `una` mean nothing any more.
    pub(in crate::endpoint) fn forget_before(&mut self, una: Seq) {
        self.highest = self.highest.later(una);
        self.dsack_round = self.dsack_round.filter(|round| round.after(una));
    }

    /// The other end got something twice: the window was too small.
    pub(in crate::endpoint) fn duplicate_reported(&mut self, una: Seq, nxt: Seq) {
        if self.dsack_round.is_some_and(|round| una.before(round)) {
            return;
        }
        self.dsack_round = Some(nxt);
        self.window_factor = self.window_factor.saturating_add(1);
        self.persist = PERSIST;
    }

    /// A recovery is over.
    pub(in crate::endpoint) fn recovered(&mut self) {
        self.persist = self.persist.saturating_sub(1);
        if self.persist == 0 {
            self.window_factor = 1;
        }
    }

    /// How long a segment may be late (section 6.2, step 4).
    fn reordering_window(&self, patience: &Patience) -> Duration {
        if !self.reordering_seen && (patience.recovering || patience.many_sacked) {
            return Duration::ZERO;
        }
        (patience.minimum / 4 * self.window_factor).min(patience.smoothed)
    }

    /// Marks what is lost; gives how much, and how long until the next may be.
    pub(in crate::endpoint) fn detect(
        &self,
        now: Time,
        board: &mut Scoreboard,
        patience: &Patience,
    ) -> (u32, Option<Duration>) {
        let wait = self.rtt + self.reordering_window(patience);
        let mut longest = None;
        let lost = board.mark_lost(|sent| {
            if sent.sent_after(self.at, self.end) || (sent.at, sent.end) == (self.at, self.end) {
                return false;
            }
            let due = sent.at + wait;
            if due <= now {
                return true;
            }
            longest = longest.max(Some(due.since(now)));
            false
        });
        (lost, longest)
    }

    /// What is lost when the retransmission timer fires: the first segment, and all that should
    /// have been acknowledged by now (section 6.3).
    pub(in crate::endpoint) fn detect_on_timeout(
        &self,
        now: Time,
        board: &mut Scoreboard,
        patience: &Patience,
        mss: u32,
    ) {
        let wait = self.rtt + self.reordering_window(patience);
        board.mark_head_lost(mss);
        board.mark_lost(|sent| sent.at + wait <= now);
    }
}
