//! The Internet checksum (RFC 1071): over bytes, over a pseudo-header, and after a change.
//!
//! A *sum* here is the ones' complement sum of 16-bit words; a *checksum* is its complement, as it
//! stands in a header. Zero has two representations in ones' complement, `0x0000` and `0xffff`.
//! [`fold`] gives `0x0000` only for a sum in which every word was zero, which no IP or TCP header
//! is. So what [`Delta`] computes is always equal to what a computation from scratch would give,
//! not only equivalent to it (the trap of RFC 1624, section 3).

/// The ones' complement sum of `bytes` as 16-bit words in network order; an odd last byte is
/// padded with a zero.
pub fn sum(bytes: &[u8]) -> u16 {
    let (chunks, rest) = bytes.as_chunks::<8>();
    let mut total = 0u64;
    for chunk in chunks {
        let word = u64::from_be_bytes(*chunk);
        total += (word >> 32) + (word & 0xffff_ffff);
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let word = u64::from_be_bytes(last);
    fold(total + (word >> 32) + (word & 0xffff_ffff))
}

/// Brings a sum of 16-bit (or 32-bit) words down to 16 bits by adding the carries.
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

/// The folded sum of a pseudo-header: of IPv4 (RFC 9293, section 3.1) if `addresses` are the 8
/// bytes of an IPv4 header that hold source and destination, of IPv6 (RFC 8200, section 8.1) if
/// they are 32. `len` is the length of the transport header and its payload in bytes.
///
/// This is what the checksum field of a packet holds whose checksum a device is to complete.
pub fn pseudo_header(addresses: &[u8], protocol: u8, len: usize) -> u16 {
    fold(u64::from(sum(addresses)) + u64::from(protocol) + len as u64)
}

/// What a change of some bytes does to the sum over all of them.
///
/// Collect the changes, then apply them to the checksum (or to the partial sum) once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delta(u64);

impl Delta {
    /// A 16-bit word at an even offset, or a quantity such as a length, changes.
    pub fn replace_u16(&mut self, old: u16, new: u16) {
        self.0 += u64::from(!old) + u64::from(new);
    }

    /// A 32-bit word changes. `offset` is where it begins, counted from the beginning of what is
    /// summed; only its parity matters.
    pub fn replace_u32(&mut self, old: u32, new: u32, offset: usize) {
        // A word at an odd offset contributes its bytes swapped, that is, times 256 modulo 65535;
        // a rotation by 8 bits is that multiplication for 32 bits as well.
        let rotation = 8 * (offset as u32 & 1);
        self.0 += u64::from((!old).rotate_left(rotation)) + u64::from(new.rotate_left(rotation));
    }

    /// Bytes that began at `offset` are no longer there. What follows must have moved by an even
    /// distance.
    pub fn remove(&mut self, bytes: &[u8], offset: usize) {
        self.0 += u64::from(!aligned(sum(bytes), offset));
    }

    /// Bytes are now at `offset`. What follows must have moved by an even distance.
    pub fn insert(&mut self, bytes: &[u8], offset: usize) {
        self.0 += u64::from(aligned(sum(bytes), offset));
    }

    /// Both changes.
    #[must_use]
    pub fn and(self, other: Delta) -> Delta {
        Delta(self.0 + other.0)
    }

    /// The checksum after the change (RFC 1624, equation 3).
    #[must_use]
    pub fn apply_to_checksum(self, checksum: u16) -> u16 {
        !self.apply_to_sum(!checksum)
    }

    /// The folded sum after the change.
    #[must_use]
    pub fn apply_to_sum(self, sum: u16) -> u16 {
        fold(u64::from(sum) + self.0)
    }
}

fn aligned(sum: u16, offset: usize) -> u16 {
    if offset.is_multiple_of(2) { sum } else { sum.swap_bytes() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071, section 3, worked example.
    #[test]
    fn sums_as_the_rfc_does() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
        assert_eq!(sum(&[0x00, 0x01, 0xf2]), 0xf201);
        assert_eq!(sum(&[]), 0);
        assert_eq!(sum(&vec![0xff; 65_535]), 0xff00);
    }

    /// RFC 1624, section 4: here equation 2 gave the other zero.
    #[test]
    fn a_valid_checksum_stays_valid_where_zero_is_ambiguous() {
        let mut delta = Delta::default();
        delta.replace_u16(0x5555, 0x3285);
        assert_eq!(delta.apply_to_checksum(0xdd2f), 0x0000);
    }

    proptest! {
        #[test]
        fn a_delta_is_a_recomputation(
            mut bytes in proptest::collection::vec(any::<u8>(), 12..80),
            at in any::<proptest::sample::Index>(),
            word in prop_oneof![any::<u32>(), Just(0), Just(u32::MAX)],
            block: [u8; 6],
        ) {
            bytes[0] = 0x45; // Not all zero: no header is.
            let mut partial = sum(&bytes);
            let mut checksum = !partial;

            let at_word = 1 + at.index(bytes.len() - 4);
            let mut delta = Delta::default();
            let old = u32::from_be_bytes(*bytes[at_word..].first_chunk().unwrap());
            delta.replace_u32(old, word, at_word);
            bytes[at_word..at_word + 4].copy_from_slice(&word.to_be_bytes());
            partial = delta.apply_to_sum(partial);
            checksum = delta.apply_to_checksum(checksum);
            prop_assert_eq!(partial, sum(&bytes));
            prop_assert_eq!(checksum, !sum(&bytes));

            let at_block = 1 + at.index(bytes.len() - 6);
            let mut delta = Delta::default();
            delta.remove(&bytes[at_block..at_block + 6], at_block);
            bytes[at_block..at_block + 6].copy_from_slice(&block);
            delta.insert(&block, at_block);
            prop_assert_eq!(delta.apply_to_checksum(checksum), !sum(&bytes));
        }
    }
}
