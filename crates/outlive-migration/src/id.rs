//! Which reign, which migration.

use std::fmt;

/// The number of a reign of the balancer pair. A higher one is later; what a lower one says is not obeyed any more. Targets have no
/// epoch of their own: they repeat the highest that they have heard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {}", self.0)
    }
}

/// Which node of the pair.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Balancer {
    /// Node a.
    A,
    /// Node b.
    B,
}

impl Balancer {
    /// 0 or 1.
    pub const fn index(self) -> usize {
        match self {
            Balancer::A => 0,
            Balancer::B => 1,
        }
    }
}

/// One attempt to migrate one connection to one target. An attempt at the next target has another one.
///
/// Made from the pair's clock, which never runs back, and the node: so never the same twice, not even by a node that was started
/// again, and of two by the same node the higher is the later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MigrationId(pub u64);

impl MigrationId {
    /// The identifier behind `last`, the one that this node made last, at `clock_us` on the pair's clock.
    #[must_use]
    pub fn next(node: Balancer, last: Option<MigrationId>, clock_us: u64) -> Self {
        let after = last.map_or(0, |last| (last.0 >> 1) + 1);
        MigrationId(clock_us.max(after) << 1 | node.index() as u64)
    }

    /// Who made it.
    pub const fn maker(self) -> Balancer {
        if self.0 & 1 == 0 { Balancer::A } else { Balancer::B }
    }
}

impl fmt::Debug for MigrationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "migration {:x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_rise_even_when_the_clock_stands() {
        let first = MigrationId::next(Balancer::B, None, 1_000);
        let second = MigrationId::next(Balancer::B, Some(first), 1_000);
        let third = MigrationId::next(Balancer::B, Some(second), 5_000);
        assert!(first < second && second < third);
        assert_eq!(third, MigrationId(10_001));
        assert_eq!(MigrationId::next(Balancer::A, None, 5_000).maker(), Balancer::A);
        assert_eq!(third.maker(), Balancer::B);
    }
}
