//! A queue of bytes that shares the buffers they came in.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Below this, bytes are copied to the end of the chunk before them: a handle costs 32 bytes.
const SMALL: usize = 512;
/// Chunks of small pieces grow up to this.
const COALESCED: usize = 4_096;

/// Bytes in order, as shared chunks. What is taken off the front or pushed to the back is not
/// copied, apart from small pieces.
#[derive(Clone, Debug, Default)]
pub(super) struct ByteQueue {
    /// Each with its position; positions begin anywhere and go on without gaps.
    chunks: VecDeque<(u64, Bytes)>,
    front: u64,
    back: u64,
}

impl ByteQueue {
    pub(super) fn len(&self) -> usize {
        (self.back - self.front) as usize
    }

    pub(super) fn is_empty(&self) -> bool {
        self.front == self.back
    }

    pub(super) fn push(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let len = bytes.len() as u64;
        match self.chunks.back_mut() {
            Some((_, last)) if bytes.len() < SMALL && last.len() + bytes.len() <= COALESCED => {
                let mut joined = std::mem::take(last).try_into_mut().unwrap_or_else(|shared| {
                    let mut copy = BytesMut::with_capacity(COALESCED);
                    copy.extend_from_slice(&shared);
                    copy
                });
                joined.extend_from_slice(&bytes);
                *last = joined.freeze();
            }
            _ => self.chunks.push_back((self.back, bytes)),
        }
        self.back += len;
    }

    /// Takes the first chunk, or as much of it as `max` allows.
    pub(super) fn pop(&mut self, max: usize) -> Option<Bytes> {
        let (position, chunk) = self.chunks.front_mut()?;
        if chunk.len() <= max {
            let (_, chunk) = self.chunks.pop_front()?;
            self.front += chunk.len() as u64;
            return Some(chunk);
        }
        let head = chunk.split_to(max);
        *position += max as u64;
        self.front += max as u64;
        (max > 0).then_some(head)
    }

    /// Drops bytes from the front, all there are if `count` is more.
    pub(super) fn advance(&mut self, count: usize) {
        let mut left = count.min(self.len());
        while left > 0 {
            left -= self.pop(left).map_or(left, |chunk| chunk.len());
        }
    }

    /// References to `len` bytes from `offset` on, or to as many as there are.
    pub(super) fn slices(&self, offset: usize, len: usize) -> Vec<Bytes> {
        let from = self.front.saturating_add(offset as u64);
        let to = from.saturating_add(len as u64).min(self.back);
        let mut slices = Vec::new();
        let first = self.chunks.partition_point(|(at, chunk)| at + chunk.len() as u64 <= from);
        for (at, chunk) in self.chunks.range(first..) {
            if *at >= to {
                break;
            }
            let start = from.saturating_sub(*at) as usize;
            let end = ((to - at) as usize).min(chunk.len());
            slices.push(chunk.slice(start..end));
        }
        slices
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        Pop(usize),
        Advance(usize),
        Slices(usize, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let size = || prop_oneof![0usize..20, 400usize..600, 4_000usize..5_000];
        prop_oneof![
            size().prop_map(Step::Push),
            size().prop_map(Step::Push),
            size().prop_map(Step::Pop),
            size().prop_map(Step::Advance),
            (size(), size()).prop_map(|(offset, len)| Step::Slices(offset, len)),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_queue_of_bytes(steps in proptest::collection::vec(step(), 1..60)) {
            let (mut queue, mut model) = (ByteQueue::default(), VecDeque::<u8>::new());
            let mut held = vec![];
            let mut counter = 0u32;
            for step in steps {
                match step {
                    Step::Push(len) => {
                        let data: Vec<u8> = (0..len).map(|_| { counter += 1; counter as u8 }).collect();
                        model.extend(&data);
                        queue.push(data.into());
                    }
                    Step::Pop(max) => {
                        let chunk = queue.pop(max).unwrap_or_default();
                        prop_assert!(chunk.len() <= max);
                        prop_assert!(!chunk.is_empty() || model.is_empty() || max == 0);
                        prop_assert_eq!(&chunk[..], &model.drain(..chunk.len()).collect::<Vec<_>>());
                    }
                    Step::Advance(count) => {
                        queue.advance(count);
                        model.drain(..count.min(model.len()));
                    }
                    Step::Slices(offset, len) => {
                        let slices = queue.slices(offset, len);
                        let expected: Vec<u8> = model.iter().skip(offset).take(len).copied().collect();
                        prop_assert_eq!(slices.concat(), expected);
                        held.extend(slices);
                    }
                }
                prop_assert_eq!(queue.len(), model.len());
                prop_assert_eq!(queue.is_empty(), model.is_empty());
            }
        }
    }
}
