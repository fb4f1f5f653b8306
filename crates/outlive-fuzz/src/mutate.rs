//! Seeded mutations of corpus files: a poor relation of libFuzzer's, blind but the same everywhere, for the run
//! that ordinary tests can afford.

/// Makes new inputs out of old ones. The seed decides everything.
#[derive(Debug)]
pub struct Mutator(u64);

impl Mutator {
    /// A mutator that makes the same of the same.
    pub fn new(seed: u64) -> Self {
        Mutator(seed)
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014).
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// One of `corpus`, changed in a few places, at most `max_len` bytes.
    pub fn mutate(&mut self, corpus: &[Vec<u8>], max_len: usize) -> Vec<u8> {
        let pick = self.below(corpus.len());
        let mut data = corpus.get(pick).cloned().unwrap_or_default();
        for _ in 0..=self.below(5) {
            let at = self.below(data.len());
            let value = self.next() as u8;
            match (self.below(6), data.get_mut(at)) {
                (0, Some(byte)) => *byte = value,
                (1, Some(byte)) => *byte ^= 1 << (value & 7),
                (2, Some(byte)) => *byte = byte.wrapping_add(1 | (value & 0xf0)),
                (3, Some(_)) => {
                    drop(data.drain(at..data.len().min(at + 1 + usize::from(value & 7))))
                }
                (4, _) => data.insert(at.min(data.len()), value),
                _ => {
                    // The end of another input.
                    let other = self.below(corpus.len());
                    let tail = corpus.get(other).map_or(&[][..], |o| &o[self.below(o.len())..]);
                    data.truncate(at);
                    data.extend_from_slice(tail);
                }
            }
        }
        data.truncate(max_len);
        data
    }
}
