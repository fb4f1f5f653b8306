//! What is in flight: which parts were sent when, and what the other end says of them (RFC 6675,
//! section 3; the per-segment state of RFC 8985, section 5.2).

use std::collections::VecDeque;

use crate::{seq::Seq, time::Time, wire::SackBlock};

/// A range of sequence numbers that was sent at once, possibly as a super-segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::endpoint) struct Sent {
    pub(in crate::endpoint) start: Seq,
    pub(in crate::endpoint) end: Seq,
    /// When, the last time.
    pub(in crate::endpoint) at: Time,
    /// More than once.
    pub(in crate::endpoint) retransmitted: bool,
    /// By a former node: when, is not known.
    pub(in crate::endpoint) inherited: bool,
    /// The other end has it, it says.
    pub(in crate::endpoint) sacked: bool,
    /// It is taken for lost, and was not sent since.
    pub(in crate::endpoint) lost: bool,
}

impl Sent {
    pub(in crate::endpoint) fn len(&self) -> u32 {
        self.end.distance(self.start)
    }

    /// Whether it was sent later than `(at, end)`, the end deciding among simultaneous ones (RFC
    /// 8985, section 6.2).
    pub(in crate::endpoint) fn sent_after(&self, at: Time, end: Seq) -> bool {
        self.at > at || (self.at == at && self.end.after(end))
    }
}

/// The ranges in flight, in order, without gaps between SND.UNA and SND.NXT.
#[derive(Clone, Debug, Default)]
pub(in crate::endpoint) struct Scoreboard {
    ranges: VecDeque<Sent>,
    sacked: u32,
    lost: u32,
}

impl Scoreboard {
    pub(in crate::endpoint) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Sequence numbers that the other end has out of order.
    pub(in crate::endpoint) fn sacked(&self) -> u32 {
        self.sacked
    }

    /// Sequence numbers that are to be sent again.
    pub(in crate::endpoint) fn lost(&self) -> u32 {
        self.lost
    }

    #[cfg(test)]
    pub(in crate::endpoint) fn iter(&self) -> impl DoubleEndedIterator<Item = &Sent> {
        self.ranges.iter()
    }

    pub(in crate::endpoint) fn first(&self) -> Option<&Sent> {
        self.ranges.front()
    }

    pub(in crate::endpoint) fn last(&self) -> Option<&Sent> {
        self.ranges.back()
    }

    /// Something new is in flight, behind all else.
    pub(in crate::endpoint) fn push(&mut self, sent: Sent) {
        debug_assert!(self.last().is_none_or(|last| last.end == sent.start));
        self.ranges.push_back(sent);
    }

    /// Everything before `ack` has arrived; `each` is told of what was in flight of it.
    pub(in crate::endpoint) fn acknowledge(&mut self, ack: Seq, mut each: impl FnMut(&Sent)) {
        while let Some(first) = self.ranges.front_mut() {
            if !first.start.before(ack) {
                break;
            }
            let mut gone = *first;
            if first.end.at_or_before(ack) {
                self.ranges.pop_front();
            } else {
                gone.end = ack;
                first.start = ack;
            }
            self.uncount(&gone);
            each(&gone);
        }
    }

    /// The other end has `block`; `each` is told of what it had not told before.
    pub(in crate::endpoint) fn sack(&mut self, block: SackBlock, mut each: impl FnMut(&Sent)) {
        let mut i = self.position(block.start);
        while i < self.ranges.len() && self.ranges[i].start.before(block.end) {
            if self.ranges[i].sacked {
                i += 1;
                continue;
            }
            if self.ranges[i].start.before(block.start) {
                self.split(i, block.start);
                i += 1;
            }
            if self.ranges[i].end.after(block.end) {
                self.split(i, block.end);
            }
            let range = &mut self.ranges[i];
            let told = *range;
            (range.sacked, range.lost) = (true, false);
            if told.lost {
                self.lost -= told.len();
            }
            self.sacked += told.len();
            each(&told);
            i += 1;
        }
    }

    /// Takes for lost what `is_lost` says so of, among what is in flight and not known to have
    /// arrived. Gives how much that is.
    pub(in crate::endpoint) fn mark_lost(&mut self, mut is_lost: impl FnMut(&Sent) -> bool) -> u32 {
        let mut marked = 0;
        for range in &mut self.ranges {
            if !range.sacked && !range.lost && is_lost(range) {
                range.lost = true;
                marked += range.len();
            }
        }
        self.lost += marked;
        marked
    }

    /// Takes at most `len` from the front for lost, if it is not yet.
    pub(in crate::endpoint) fn mark_head_lost(&mut self, len: u32) -> u32 {
        let Some(first) = self.ranges.front().filter(|first| !first.sacked && !first.lost) else {
            return 0;
        };
        if first.len() > len && len > 0 {
            self.split(0, first.start + len);
        }
        self.ranges[0].lost = true;
        self.lost += self.ranges[0].len();
        self.ranges[0].len()
    }

    /// The other end has dropped what it said it had (RFC 2018, section 8), or may have.
    pub(in crate::endpoint) fn forget_sacks(&mut self) {
        self.ranges.iter_mut().for_each(|range| range.sacked = false);
        self.sacked = 0;
    }

    /// Nothing is lost after all.
    pub(in crate::endpoint) fn forget_losses(&mut self) {
        self.ranges.iter_mut().for_each(|range| range.lost = false);
        self.lost = 0;
    }

    /// The first range that is to be sent again.
    pub(in crate::endpoint) fn first_lost(&self) -> Option<&Sent> {
        if self.lost == 0 {
            return None;
        }
        self.ranges.iter().find(|range| range.lost)
    }

    /// The range from `start` on, `len` long at most, is sent again now.
    pub(in crate::endpoint) fn retransmit(&mut self, start: Seq, len: u32, now: Time) {
        let mut i = self.position(start);
        if i < self.ranges.len() && self.ranges[i].start.before(start) {
            self.split(i, start);
            i += 1;
        }
        let Some(range) = self.ranges.get(i) else { return };
        if range.len() > len {
            let at = range.start + len;
            self.split(i, at);
        }
        let range = &mut self.ranges[i];
        if range.lost {
            self.lost -= range.len();
        }
        range.lost = false;
        range.retransmitted = true;
        range.at = now;
    }

    /// Index of the first range that ends after `seq`.
    fn position(&self, seq: Seq) -> usize {
        self.ranges.partition_point(|range| range.end.at_or_before(seq))
    }

    fn split(&mut self, i: usize, at: Seq) {
        let mut head = self.ranges[i];
        head.end = at;
        self.ranges[i].start = at;
        self.ranges.insert(i, head);
    }

    fn uncount(&mut self, range: &Sent) {
        if range.sacked {
            self.sacked -= range.len();
        }
        if range.lost {
            self.lost -= range.len();
        }
    }

    /// Whether the counters are what the ranges say: for `debug_assert!`.
    pub(in crate::endpoint) fn is_consistent(&self, una: Seq, nxt: Seq) -> bool {
        let sum = |which: fn(&Sent) -> bool| -> u32 {
            self.ranges.iter().filter(|range| which(range)).map(Sent::len).sum()
        };
        let mut expected = una;
        let contiguous = self.ranges.iter().all(|range| {
            let fits = range.start == expected && range.len() > 0;
            expected = range.end;
            fits
        });
        contiguous
            && expected == nxt
            && self.sacked == sum(|range| range.sacked)
            && self.lost == sum(|range| range.lost)
            && self.ranges.iter().all(|range| !(range.sacked && range.lost))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sent(start: u32, end: u32) -> Sent {
        Sent {
            start: Seq(start),
            end: Seq(end),
            at: Time::ZERO,
            retransmitted: false,
            inherited: false,
            sacked: false,
            lost: false,
        }
    }

    proptest! {
        /// Against one flag per sequence number.
        #[test]
        fn it_agrees_with_a_plain_model(
            steps in proptest::collection::vec((0u8..5, 0u32..300, 1u32..100), 1..40),
        ) {
            const BASE: u32 = u32::MAX - 120;
            let at = |offset: u32| Seq(BASE.wrapping_add(offset));
            let mut board = Scoreboard::default();
            (0..3).for_each(|i| board.push(sent(at(100 * i).0, at(100 * i + 100).0)));
            let (mut una, mut sacked, mut lost) = (0usize, [false; 300], [false; 300]);
            for (kind, offset, len) in steps {
                let start = (offset as usize).max(una);
                let end = (start + len as usize).min(300);
                let block = SackBlock { start: at(start as u32), end: at(end as u32) };
                match kind {
                    0 => {
                        let mut told = 0;
                        board.acknowledge(at(start as u32), |range| told += range.len() as usize);
                        prop_assert_eq!(told, start - una);
                        una = start;
                    }
                    1 if start < end => {
                        let mut told = 0;
                        board.sack(block, |range| told += range.len());
                        let new = sacked[start..end].iter().filter(|s| !**s).count();
                        prop_assert_eq!(told as usize, new);
                        sacked[start..end].fill(true);
                        lost[start..end].fill(false);
                    }
                    2 => {
                        board.mark_lost(|range| range.end.at_or_before(at(start as u32)));
                        // Ranges are lost as a whole; take over which.
                        for range in board.iter().filter(|range| range.lost) {
                            let from = range.start.distance(at(0)) as usize;
                            lost[from..from + range.len() as usize].fill(true);
                        }
                    }
                    3 => if let Some(range) = board.first_lost().copied() {
                        board.retransmit(range.start, len, Time::ZERO);
                        let from = range.start.distance(at(0)) as usize;
                        lost[from..from + range.len().min(len) as usize].fill(false);
                    },
                    _ => {
                        board.forget_sacks();
                        sacked.fill(false);
                    }
                }
                prop_assert!(board.is_consistent(at(una as u32), at(300)));
                prop_assert_eq!(board.sacked() as usize, sacked[una..].iter().filter(|s| **s).count());
                prop_assert_eq!(board.lost() as usize, lost[una..].iter().filter(|l| **l).count());
            }
        }
    }
}
