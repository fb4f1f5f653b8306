//! The byte pattern of verified streams, and the running hash of what passed.
//!
//! Every byte depends on its position and the stream's seed, so a byte that is wrong, missing or
//! there twice is noticed at the receiver when it is read, not at the end. The hash is kept beside
//! it because a user compares files by hash: both ends compute it and must agree.

use xxhash_rust::xxh3::Xxh3Default;

/// The endless byte sequence of one seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pattern {
    seed: u64,
}

impl Pattern {
    /// The sequence of `seed`; different seeds give unrelated sequences.
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds must not give sequences that are shifts of each other.
        Self { seed: (seed ^ 0x5851_f42d_4c95_7f2d).wrapping_mul(0xd134_2543_de82_ef95) }
    }

    /// Fills `buffer` with the sequence from byte `position` on.
    pub fn fill(self, position: u64, buffer: &mut [u8]) {
        let (head, words) = buffer.split_at_mut(head_len(position, buffer.len()));
        self.fill_partial(position, head);
        let mut index = (position + head.len() as u64) / 8;
        let mut chunks = words.chunks_exact_mut(8);
        for chunk in &mut chunks {
            chunk.copy_from_slice(&self.word(index).to_le_bytes());
            index += 1;
        }
        self.fill_partial(index * 8, chunks.into_remainder());
    }

    /// Compares `data` with the sequence from byte `position` on; the number of bytes that differ.
    pub fn count_wrong(self, position: u64, data: &[u8]) -> u64 {
        let (head, words) = data.split_at(head_len(position, data.len()));
        let first = (position + head.len() as u64) / 8;
        // The common case is decided without a branch in the loop; bytes are counted only if some
        // word differs.
        let (chunks, tail) = words.as_chunks::<8>();
        let mut difference = 0;
        for (index, chunk) in (first..).zip(chunks) {
            difference |= u64::from_le_bytes(*chunk) ^ self.word(index);
        }
        let tail_position = position + (data.len() - tail.len()) as u64;
        let mut wrong =
            self.partial_wrong(position, head) + self.partial_wrong(tail_position, tail);
        if difference != 0 {
            for (index, chunk) in (first..).zip(chunks) {
                wrong += self.partial_wrong(index * 8, chunk);
            }
        }
        wrong
    }

    fn word(self, index: u64) -> u64 {
        let mixed = (index ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 32)
    }

    fn byte(self, position: u64) -> u8 {
        self.word(position / 8).to_le_bytes()[(position % 8) as usize]
    }

    fn fill_partial(self, position: u64, buffer: &mut [u8]) {
        for (at, byte) in (position..).zip(buffer) {
            *byte = self.byte(at);
        }
    }

    fn partial_wrong(self, position: u64, data: &[u8]) -> u64 {
        (position..).zip(data).filter(|&(at, &byte)| byte != self.byte(at)).count() as u64
    }
}

/// Bytes before the next multiple of eight.
fn head_len(position: u64, len: usize) -> usize {
    ((8 - position % 8) % 8).min(len as u64) as usize
}

/// A running hash (XXH3, 64 bits) of everything that passed in one direction.
#[derive(Clone, Default)]
pub struct StreamHash(Xxh3Default);

impl StreamHash {
    /// Takes the next bytes of the stream.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The hash of all bytes so far.
    pub fn value(&self) -> u64 {
        self.0.digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_of_the_stream_verifies() {
        let pattern = Pattern::new(7);
        let mut whole = vec![0; 1000];
        pattern.fill(0, &mut whole);
        for start in 0..40 {
            for end in [start, start + 1, start + 7, start + 8, start + 9, 999] {
                let mut piece = vec![0; end - start];
                pattern.fill(start as u64, &mut piece);
                assert_eq!(piece, whole[start..end]);
                assert_eq!(pattern.count_wrong(start as u64, &piece), 0);
            }
        }
    }

    #[test]
    fn wrong_missing_and_repeated_bytes_are_noticed() {
        let pattern = Pattern::new(7);
        let mut data = vec![0; 4096];
        pattern.fill(3, &mut data);
        data[2000] ^= 1;
        assert_eq!(pattern.count_wrong(3, &data), 1);
        data[2000] ^= 1;
        assert!(pattern.count_wrong(4, &data) > 4000, "one byte missing");
        assert!(pattern.count_wrong(2, &data) > 4000, "one byte repeated");
        assert!(pattern.count_wrong(3 + 65536, &data) > 4000, "64 KiB missing");
        assert!(Pattern::new(8).count_wrong(3, &data) > 4000, "another stream's bytes");
    }

    #[test]
    fn the_hash_does_not_depend_on_how_the_stream_is_cut() {
        let mut data = vec![0; 5000];
        Pattern::new(1).fill(0, &mut data);
        let (mut one, mut many) = (StreamHash::default(), StreamHash::default());
        one.update(&data);
        for piece in data.chunks(77) {
            many.update(piece);
        }
        assert_eq!(one.value(), many.value());
    }
}
