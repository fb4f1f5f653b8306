//! Flow identifiers: what stands in the two port fields of a packet on its way from the balancer to the target.

use std::fmt;

use crate::id::Balancer;

/// Names a migrated connection in the packets that are led to its target: 32 bits, of which neither the upper nor the lower half is
/// zero, for a port number of zero does not pass everywhere.
///
/// The upper bit tells which node of the pair has chosen it, so the two never choose the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(u32);

impl FlowId {
    /// The identifier with that value; `None` if a half of it is zero.
    pub const fn new(value: u32) -> Option<Self> {
        if value >> 16 == 0 || value as u16 == 0 { None } else { Some(FlowId(value)) }
    }

    /// Its value.
    pub const fn value(self) -> u32 {
        self.0
    }

    /// From the source and the destination port of a packet.
    pub const fn from_ports(source: u16, destination: u16) -> Option<Self> {
        Self::new((source as u32) << 16 | destination as u32)
    }

    /// What stands in the source port and in the destination port: the upper and the lower half.
    pub const fn ports(self) -> (u16, u16) {
        ((self.0 >> 16) as u16, self.0 as u16)
    }

    /// Which node has chosen it.
    pub const fn chosen_by(self) -> Balancer {
        if self.0 >> 31 == 0 { Balancer::A } else { Balancer::B }
    }
}

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "flow {self}")
    }
}

/// The connection counter: it counts through this node's half of the identifiers.
#[derive(Clone, Copy, Debug)]
pub struct FlowCounter {
    node: Balancer,
    /// 31 bits.
    count: u32,
}

const COUNT: u32 = (1 << 31) - 1;

impl FlowCounter {
    /// How many identifiers are looked at before a search is given up: more than there are in a row with a half of zero.
    const PATIENCE: u32 = 1 << 17;

    /// Counts on from `start`, of which 31 bits count. A random one makes it improbable that a node that was started again begins with
    /// identifiers that a target remembers.
    pub const fn new(node: Balancer, start: u32) -> Self {
        FlowCounter { node, count: start & COUNT }
    }

    /// The next identifier that is not `taken`; `None` if so many in a row are taken that it is not worth the search.
    pub fn next(&mut self, taken: impl Fn(FlowId) -> bool) -> Option<FlowId> {
        for _ in 0..Self::PATIENCE {
            self.count = (self.count + 1) & COUNT;
            let value = (self.node.index() as u32) << 31 | self.count;
            if let Some(id) = FlowId::new(value)
                && !taken(id)
            {
                return Some(id);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn neither_half_is_ever_zero() {
        assert_eq!(FlowId::new(0x1234), None);
        assert_eq!(FlowId::new(0x1234_0000), None);
        assert_eq!(FlowId::from_ports(0, 80), None);
        let id = FlowId::from_ports(0x8001, 0x00ff).unwrap();
        assert_eq!((id.ports(), id.value()), ((0x8001, 0x00ff), 0x8001_00ff));
        // Over both ends of the range of each node.
        for node in [Balancer::A, Balancer::B] {
            let mut counter = FlowCounter::new(node, COUNT - 10);
            for _ in 0..70_000 {
                let (upper, lower) = counter.next(|_| false).unwrap().ports();
                assert!(upper != 0 && lower != 0);
            }
        }
    }

    #[test]
    fn live_identifiers_are_passed_over_and_the_nodes_never_meet() {
        let mut live = BTreeSet::new();
        for node in [Balancer::A, Balancer::B] {
            for _ in 0..3 {
                let mut counter = FlowCounter::new(node, 0xfff0);
                for _ in 0..1_000 {
                    let id = counter.next(|id| live.contains(&id)).unwrap();
                    assert_eq!(id.chosen_by(), node);
                    assert!(live.insert(id));
                }
            }
        }
    }

    #[test]
    fn a_search_among_taken_identifiers_ends() {
        assert_eq!(FlowCounter::new(Balancer::A, 0).next(|_| true), None);
    }
}
