//! Sequence numbers (RFC 9293, section 3.4).

use std::{
    cmp::Ordering,
    fmt,
    ops::{Add, AddAssign, Sub},
};

/// A 32-bit TCP sequence number; arithmetic wraps.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Seq(pub u32);

impl Seq {
    /// `self` comes before `other` in the half of the circle that ends at `other`.
    pub fn before(self, other: Seq) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// `self == other`, or [`before`](Self::before) it.
    pub fn at_or_before(self, other: Seq) -> bool {
        (self.0.wrapping_sub(other.0) as i32) <= 0
    }

    /// `other.before(self)`.
    pub fn after(self, other: Seq) -> bool {
        other.before(self)
    }

    /// `other.at_or_before(self)`.
    pub fn at_or_after(self, other: Seq) -> bool {
        other.at_or_before(self)
    }

    /// The later of the two.
    pub fn later(self, other: Seq) -> Seq {
        if self.before(other) { other } else { self }
    }

    /// The earlier of the two.
    pub fn earlier(self, other: Seq) -> Seq {
        if other.before(self) { other } else { self }
    }

    /// Compares on the circle; the two must be less than 2^31 apart for it to mean anything.
    pub fn compare(self, other: Seq) -> Ordering {
        (self.0.wrapping_sub(other.0) as i32).cmp(&0)
    }

    /// Bytes from `earlier` to `self`, modulo 2^32.
    pub fn distance(self, earlier: Seq) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }
}

impl Add<u32> for Seq {
    type Output = Seq;

    fn add(self, n: u32) -> Seq {
        Seq(self.0.wrapping_add(n))
    }
}

impl Sub<u32> for Seq {
    type Output = Seq;

    fn sub(self, n: u32) -> Seq {
        Seq(self.0.wrapping_sub(n))
    }
}

impl AddAssign<u32> for Seq {
    fn add_assign(&mut self, n: u32) {
        *self = *self + n;
    }
}

impl fmt::Debug for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_survives_the_wrap() {
        let (earlier, later) = (Seq(u32::MAX - 5), Seq(10));
        assert!(earlier.before(later) && later.after(earlier));
        assert!(!later.before(earlier) && !earlier.before(earlier));
        assert!(earlier.at_or_before(earlier));
        assert_eq!((earlier.later(later), later.later(earlier)), (later, later));
        assert_eq!((earlier.earlier(later), later.earlier(earlier)), (earlier, earlier));
        assert_eq!(earlier.compare(later), Ordering::Less);
        assert_eq!(later.distance(earlier), 16);
        assert_eq!((earlier + 16, later - 16), (later, earlier));
    }
}
