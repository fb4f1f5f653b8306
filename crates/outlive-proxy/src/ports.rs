//! Source ports (and addresses) for connections to servers.
//!
//! Each node takes ports from a half of its own, so that a connection that a node opens after a takeover
//! can never collide with one that the other had opened and nobody told it of.

use std::net::IpAddr;

use outlive_tcp::{
    fault::{self, Fault},
    wire::{Endpoint, FourTuple},
};

use crate::{balance::ServerId, config::NodeId};

const FIRST: u32 = 1_024;
const MIDDLE: u32 = 33_280;
const LAST: u32 = 65_535;
/// How many ports are tried before the server counts as exhausted from here. With 99 of 100 ports taken, the
/// odds of missing a free one are below 1 in 10^8.
const TRIES: u32 = 2_048;

/// What stands in the way of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Nothing.
    Free,
    /// A session that is over, and will give way if need be.
    GivesWay,
    /// A living one.
    InUse,
}

/// Chooses source ports: for each server in turn through the whole half, so that a port rests for as long
/// as possible before it is used again.
#[derive(Debug)]
pub(crate) struct Ports {
    first: u32,
    count: u32,
    sources: Vec<IpAddr>,
    /// By server: where to go on.
    next: Vec<u32>,
}

impl Ports {
    pub(crate) fn new(node: NodeId, sources: Vec<IpAddr>) -> Self {
        let (first, end) = match node {
            _ if fault::on(Fault::PortsOfTheOther) => (FIRST, MIDDLE),
            NodeId::A => (FIRST, MIDDLE),
            NodeId::B => (MIDDLE, LAST + 1),
        };
        Ports { first, count: end - first, sources, next: Vec::new() }
    }

    /// A source endpoint for a connection to `server`; `taken` tells what the tuple of the server's packets
    /// would meet. `start` decides where a server's first port lies (random, RFC 6056).
    pub(crate) fn choose(
        &mut self,
        server: ServerId,
        address: Endpoint,
        start: u32,
        mut taken: impl FnMut(&FourTuple) -> Taken,
    ) -> Option<Endpoint> {
        let server = usize::from(server.0);
        if server >= self.next.len() {
            self.next.resize(server + 1, start % self.count);
        }
        let v4 = address.addr.is_ipv4();
        let sources = self.sources.iter().filter(|a| a.is_ipv4() == v4);
        let mut gives_way = None;
        for _ in 0..TRIES.min(self.count) {
            let turn = self.next[server];
            self.next[server] = (turn + 1) % self.count;
            let port = (self.first + turn) as u16;
            for source in sources.clone() {
                let own = Endpoint::new(*source, port);
                match taken(&FourTuple { source: address, destination: own }) {
                    Taken::Free => return Some(own),
                    Taken::GivesWay => gives_way = gives_way.or(Some(own)),
                    Taken::InUse => {}
                }
            }
        }
        gives_way
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn server() -> Endpoint {
        Endpoint::new(IpAddr::from([10, 0, 0, 2]), 80)
    }

    fn ports(node: NodeId) -> Ports {
        Ports::new(node, vec![IpAddr::from([10, 0, 0, 1])])
    }

    #[test]
    fn each_node_has_a_half_of_its_own_and_uses_all_of_it() {
        let mut all = [BTreeSet::new(), BTreeSet::new()];
        for (node, used) in [NodeId::A, NodeId::B].into_iter().zip(&mut all) {
            let mut ports = ports(node);
            for _ in 0..ports.count {
                let own = ports.choose(ServerId(0), server(), 12_345, |t| {
                    if used.contains(&t.destination.port) { Taken::InUse } else { Taken::Free }
                });
                used.insert(own.expect("one is free").port);
            }
            let used = &*used;
            assert_eq!(ports.choose(ServerId(0), server(), 0, |_| Taken::InUse), None);
            assert!(used.iter().all(|p| *p >= 1_024));
        }
        assert_eq!(all[0].len() + all[1].len(), 65_536 - 1_024);
        assert!(all[0].is_disjoint(&all[1]));
    }

    #[test]
    fn what_is_over_gives_way_only_when_nothing_is_free() {
        let mut ports = ports(NodeId::A);
        let own = ports.choose(ServerId(0), server(), 0, |t| match t.destination.port {
            1_030 => Taken::Free,
            _ => Taken::GivesWay,
        });
        assert_eq!(own.map(|o| o.port), Some(1_030));
        assert!(ports.choose(ServerId(0), server(), 0, |_| Taken::GivesWay).is_some());
    }
}
