//! Data that came before what precedes it.

use bytes::{Buf, Bytes};

use crate::{seq::Seq, wire::SackBlock};

/// Blocks whose order of arrival is remembered: more than an option has room for are of no use.
const REMEMBERED: usize = 8;

/// Pieces of the stream, sorted, disjoint, each behind the next expected byte.
///
/// Bytes are bounded by the receive window, pieces by a limit of their own.
#[derive(Clone, Debug, Default)]
pub(super) struct Reassembly {
    pieces: Vec<(Seq, Bytes)>,
    /// A sequence number in each of the latest blocks, the latest first.
    recent: Vec<Seq>,
}

/// What became of data out of order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Insertion {
    /// It is held.
    Held,
    /// All of it was there.
    Duplicate,
    /// Part or all of it is dropped: too many pieces.
    NoRoom,
}

impl Reassembly {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Holds what of `data` is not there yet. At most `limit` pieces will be held.
    pub(super) fn insert(&mut self, mut start: Seq, mut data: Bytes, limit: usize) -> Insertion {
        self.remember(start);
        let mut outcome = Insertion::Duplicate;
        let mut i = self
            .pieces
            .partition_point(|(at, piece)| (*at + piece.len() as u32).at_or_before(start));
        while !data.is_empty() {
            let gap = match self.pieces.get(i) {
                Some((at, piece)) if at.at_or_before(start) => {
                    // What is there already.
                    let known = (*at + piece.len() as u32).distance(start) as usize;
                    let known = known.min(data.len());
                    data.advance(known);
                    start += known as u32;
                    i += 1;
                    continue;
                }
                Some((at, _)) => (at.distance(start) as usize).min(data.len()),
                None => data.len(),
            };
            if self.pieces.len() >= limit {
                return Insertion::NoRoom;
            }
            self.pieces.insert(i, (start, data.split_to(gap)));
            start += gap as u32;
            i += 1;
            outcome = Insertion::Held;
        }
        outcome
    }

    /// Takes the piece that begins at or before `next`, without what of it is before that.
    pub(super) fn pop(&mut self, next: Seq) -> Option<Bytes> {
        while let Some((at, _)) = self.pieces.first().filter(|(at, _)| at.at_or_before(next)) {
            let known = next.distance(*at) as usize;
            let (_, mut piece) = self.pieces.remove(0);
            if known < piece.len() {
                piece.advance(known);
                return Some(piece);
            }
        }
        None
    }

    /// The blocks, the one that data came to last first; at most as many as are remembered.
    pub(super) fn blocks(&self) -> impl Iterator<Item = SackBlock> + '_ {
        let by_position = |seq: &Seq| self.block_at(*seq);
        let mut given: Vec<SackBlock> = Vec::new();
        self.recent.iter().filter_map(by_position).filter(move |block| {
            let new = !given.contains(block);
            given.push(*block);
            new
        })
    }

    /// The block that `seq` is in.
    pub(super) fn block_at(&self, seq: Seq) -> Option<SackBlock> {
        let i = self.pieces.partition_point(|(at, _)| at.at_or_before(seq)).checked_sub(1)?;
        let end_of = |(at, piece): &(Seq, Bytes)| *at + piece.len() as u32;
        if end_of(&self.pieces[i]).at_or_before(seq) {
            return None;
        }
        let touching = |pair: &[(Seq, Bytes)]| end_of(&pair[0]) == pair[1].0;
        let first = (1..=i).rev().take_while(|&j| touching(&self.pieces[j - 1..=j])).last();
        let last = (i + 1..self.pieces.len())
            .take_while(|&j| touching(&self.pieces[j - 1..=j]))
            .last()
            .unwrap_or(i);
        let first = first.map_or(i, |j| j - 1);
        Some(SackBlock { start: self.pieces[first].0, end: end_of(&self.pieces[last]) })
    }

    /// The first stretch of what is held that lies between `start` and `end`.
    pub(super) fn overlap(&self, start: Seq, end: Seq) -> Option<SackBlock> {
        let end_of = |(at, piece): &(Seq, Bytes)| *at + piece.len() as u32;
        let i = self.pieces.partition_point(|held| end_of(held).at_or_before(start));
        let first = self.pieces.get(i)?.0.later(start);
        let block = self.block_at(first).filter(|_| first.before(end))?;
        Some(SackBlock { start: first, end: block.end.earlier(end) })
    }

    /// The sequence number behind all that is held.
    pub(super) fn end(&self) -> Option<Seq> {
        self.pieces.last().map(|(at, piece)| *at + piece.len() as u32)
    }

    /// Forgets that of the order which is before `next`.
    pub(super) fn forget_before(&mut self, next: Seq) {
        self.recent.retain(|seq| !seq.before(next));
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        *self = Reassembly::default();
    }

    fn remember(&mut self, start: Seq) {
        if let Some(block) = self.block_at(start) {
            self.recent.retain(|seq| seq.before(block.start) || !seq.before(block.end));
        }
        self.recent.insert(0, start);
        self.recent.truncate(REMEMBERED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(start: u32, end: u32) -> SackBlock {
        SackBlock { start: Seq(start), end: Seq(end) }
    }

    fn insert(held: &mut Reassembly, range: std::ops::Range<u32>) -> Insertion {
        let data: Bytes = range.clone().map(|i| i as u8).collect();
        held.insert(Seq(range.start), data, 5)
    }

    #[test]
    fn overlaps_are_trimmed_and_the_latest_block_stands_first() {
        let mut held = Reassembly::default();
        assert_eq!(insert(&mut held, 10..20), Insertion::Held);
        assert_eq!(insert(&mut held, 30..40), Insertion::Held);
        assert_eq!(held.blocks().collect::<Vec<_>>(), [block(30, 40), block(10, 20)]);
        assert_eq!(insert(&mut held, 12..18), Insertion::Duplicate);
        assert_eq!(held.blocks().collect::<Vec<_>>(), [block(10, 20), block(30, 40)]);
        assert_eq!(insert(&mut held, 5..45), Insertion::Held);
        assert_eq!(held.blocks().collect::<Vec<_>>(), [block(5, 45)]);
        assert_eq!(held.block_at(Seq(45)), None);
        let mut whole = vec![];
        let mut next = Seq(7);
        while let Some(piece) = held.pop(next) {
            next += piece.len() as u32;
            whole.extend_from_slice(&piece);
        }
        assert_eq!(whole, (7..45).collect::<Vec<u8>>());
        assert!(held.is_empty());
    }

    #[test]
    fn pieces_are_limited() {
        let mut held = Reassembly::default();
        for i in 1..=5 {
            assert_eq!(insert(&mut held, 10 * i..10 * i + 5), Insertion::Held);
        }
        assert_eq!(insert(&mut held, 60..65), Insertion::NoRoom);
        assert_eq!(insert(&mut held, 11..14), Insertion::Duplicate);
        assert_eq!(held.end(), Some(Seq(55)));
    }
}
