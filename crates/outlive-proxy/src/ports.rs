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
    /// By server: ports of this node's half that are in use.
    used: Vec<Used>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Used {
    ports: u32,
    /// It has been said that they are nearly used up.
    told: bool,
}

/// In tenths of what there is: ports are nearly used up, and are not any more.
const LOW: u64 = 9;
const RELIEVED: u64 = 8;

impl Ports {
    pub(crate) fn new(node: NodeId, sources: Vec<IpAddr>) -> Self {
        let (first, end) = match node {
            _ if fault::on(Fault::PortsOfTheOther) => (FIRST, MIDDLE),
            NodeId::A => (FIRST, MIDDLE),
            NodeId::B => (MIDDLE, LAST + 1),
        };
        Ports { first, count: end - first, sources, next: Vec::new(), used: Vec::new() }
    }

    /// How many connections this node can open to a server of that IP version.
    pub(crate) fn capacity(&self, ipv4: bool) -> u32 {
        let sources = self.sources.iter().filter(|a| a.is_ipv4() == ipv4).count();
        self.count * sources as u32
    }

    /// A connection from `own` to `server` is there. Returns how many there are now if the ports of this node are
    /// nearly used up, and that is news.
    pub(crate) fn began(&mut self, server: ServerId, own: Endpoint) -> Option<u32> {
        let capacity = u64::from(self.capacity(own.addr.is_ipv4()));
        let used = self.used_by(server, own)?;
        used.ports += 1;
        let low = u64::from(used.ports) * 10 >= capacity * LOW;
        let news = low && !used.told;
        used.told |= low;
        news.then_some(used.ports)
    }

    /// A connection from `own` to `server` is gone, or gives way.
    pub(crate) fn ended(&mut self, server: ServerId, own: Endpoint) {
        let capacity = u64::from(self.capacity(own.addr.is_ipv4()));
        let Some(used) = self.used_by(server, own) else { return };
        used.ports = used.ports.saturating_sub(1);
        used.told &= u64::from(used.ports) * 10 >= capacity * RELIEVED;
    }

    /// `None`: the port is of the other node's half.
    fn used_by(&mut self, server: ServerId, own: Endpoint) -> Option<&mut Used> {
        let mine = self.first..self.first + self.count;
        let server = usize::from(server.0);
        if server >= self.used.len() {
            self.used.resize(server + 1, Used::default());
        }
        mine.contains(&u32::from(own.port)).then(|| &mut self.used[server])
    }

    /// From now on, connections to servers come from these addresses.
    pub(crate) fn take_from(&mut self, sources: Vec<IpAddr>) {
        self.sources = sources;
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
        // Not even those that give way are left: there is no need to look.
        if self.used.get(server).is_some_and(|used| used.ports >= self.capacity(v4)) {
            return None;
        }
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
    fn it_is_said_once_that_ports_are_nearly_used_up() {
        let sources = [1, 2].map(|host| IpAddr::from([10, 0, 0, host]));
        let mut ports = Ports::new(NodeId::A, sources.to_vec());
        let capacity = ports.capacity(true);
        assert_eq!((capacity, ports.capacity(false)), (2 * 32_256, 0));
        let own = |port| Endpoint::new(sources[0], port);
        let mut told = Vec::new();
        for _ in 0..capacity {
            // What the other node has opened is of its half.
            assert_eq!(ports.began(ServerId(3), own(60_000)), None);
            told.extend(ports.began(ServerId(3), own(2_000)));
        }
        assert_eq!(told, [(capacity * 9).div_ceil(10)], "at nine tenths");
        assert_eq!(ports.choose(ServerId(3), server(), 0, |_| Taken::Free), None, "all are in use");
        assert!(ports.choose(ServerId(2), server(), 0, |_| Taken::Free).is_some());
        for _ in 0..capacity / 10 * 3 {
            ports.ended(ServerId(3), own(2_000));
        }
        let again = (0..capacity / 4).filter_map(|_| ports.began(ServerId(3), own(2_000)));
        assert_eq!(again.count(), 1);
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
