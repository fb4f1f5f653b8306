//! The network between hosts and nodes: delay, loss, cuts, and who is believed to have the virtual addresses.

use std::{collections::BTreeSet, time::Duration};

use outlive_tcp::time::Time;

use crate::rng::Rng;

/// Index of a node: 0 is node A, 1 is node B.
pub type NodeIndex = usize;

/// Somewhere on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A host, by its index.
    Host(usize),
    /// A node.
    Node(NodeIndex),
    /// The external detector.
    Detector,
    /// A migration target, by its index.
    Target(usize),
}

impl Place {
    pub(crate) fn is_target(self) -> bool {
        matches!(self, Place::Target(_))
    }
}

/// How packets fare between two places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Each takes at least this long.
    pub delay: Duration,
    /// And up to this much longer.
    pub jitter: Duration,
    /// Out of 1,000, so many are lost.
    pub loss: u32,
    /// Out of 1,000, so many come twice.
    pub duplication: u32,
    /// Out of 1,000, so many may be overtaken.
    pub reordering: u32,
    /// Out of 1,000, so many have a bit flipped.
    pub corruption: u32,
    /// So many bytes pass in a millisecond; zero: as many as there are.
    pub rate: u32,
}

/// What would wait longer than this for its turn on a link is dropped instead.
const QUEUE: Duration = Duration::from_millis(25);

impl Link {
    /// The same link, on which nothing goes wrong.
    pub(crate) fn calm(self) -> Self {
        Link { delay: self.delay, rate: self.rate, ..Link::default() }
    }
}

impl Default for Link {
    fn default() -> Self {
        Link {
            delay: Duration::from_micros(500),
            jitter: Duration::ZERO,
            loss: 0,
            duplication: 0,
            reordering: 0,
            corruption: 0,
            rate: 0,
        }
    }
}

/// How long a host believes an answer to "who has this address?" without asking again.
const NEIGHBOUR_LIFETIME: Duration = Duration::from_secs(30);

/// The network.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) link: Link,
    /// Nothing goes from the first to the second.
    cuts: BTreeSet<(Place, Place)>,
    /// Heartbeats of that node do not arrive on that path.
    path_cuts: BTreeSet<(NodeIndex, usize)>,
    /// By host: which node is believed to have the virtual addresses, and since when.
    neighbours: Vec<Option<(NodeIndex, Time)>>,
    /// A router leads packets to this node, whoever says that it has the virtual addresses.
    led_to: Option<NodeIndex>,
    /// By pair of places: when the last packet arrives, for links that keep the order.
    last: std::collections::BTreeMap<(Place, Place), Time>,
    /// By pair of places: until when a link with a limited rate is taken.
    taken: std::collections::BTreeMap<(Place, Place), Time>,
    /// A link had no room.
    pub(crate) was_full: bool,
}

impl Network {
    pub(crate) fn new(link: Link, hosts: usize) -> Self {
        Network {
            link,
            cuts: BTreeSet::new(),
            path_cuts: BTreeSet::new(),
            neighbours: vec![None; hosts],
            led_to: None,
            last: Default::default(),
            taken: Default::default(),
            was_full: false,
        }
    }

    pub(crate) fn cut(&mut self, from: Place, to: Place) {
        self.cuts.insert((from, to));
    }

    pub(crate) fn cut_path(&mut self, from: NodeIndex, path: usize) {
        self.path_cuts.insert((from, path));
    }

    pub(crate) fn is_path_cut(&self, from: NodeIndex, path: usize) -> bool {
        self.path_cuts.contains(&(from, path))
    }

    /// From now on a router leads every packet to this node.
    pub(crate) fn lead_to(&mut self, node: NodeIndex) {
        self.led_to = Some(node);
    }

    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
        self.path_cuts.clear();
    }

    pub(crate) fn is_cut(&self, from: Place, to: Place) -> bool {
        self.cuts.contains(&(from, to))
    }

    /// When copies of a packet of `len` bytes arrive; none if it is lost.
    pub(crate) fn arrivals(
        &mut self,
        now: Time,
        rng: &mut Rng,
        (from, to): (Place, Place),
        len: usize,
        out: &mut Vec<Time>,
    ) {
        let link = self.link;
        if self.is_cut(from, to) || rng.chance(link.loss) {
            return;
        }
        let Some(now) = self.turn(now, (from, to), len) else { return };
        let copies = 1 + usize::from(rng.chance(link.duplication));
        for _ in 0..copies {
            let mut at = now + link.delay + rng.duration(link.jitter);
            let last = self.last.entry((from, to)).or_default();
            if rng.chance(link.reordering) {
                at = at + link.delay + rng.duration(link.delay * 2);
            } else {
                at = at.max(*last);
                *last = at;
            }
            out.push(at);
        }
    }

    /// When a packet has passed a link of limited rate; `None` if too many wait before it.
    fn turn(&mut self, now: Time, way: (Place, Place), len: usize) -> Option<Time> {
        if self.link.rate == 0 {
            return Some(now);
        }
        let taken = self.taken.entry(way).or_default();
        let begins = now.max(*taken);
        if begins.since(now) > QUEUE {
            self.was_full = true;
            return None;
        }
        *taken = begins + Duration::from_micros(len as u64 * 1_000 / u64::from(self.link.rate));
        Some(*taken)
    }

    /// Which node a packet of `host` to a virtual address goes to. `claims` tells which nodes answer for
    /// the virtual addresses at the moment.
    pub(crate) fn neighbour(
        &mut self,
        now: Time,
        host: usize,
        claims: [bool; 2],
    ) -> Option<NodeIndex> {
        if let Some(node) = self.led_to {
            return Some(node);
        }
        if let Some((node, since)) = self.neighbours[host]
            && now.since(since) < NEIGHBOUR_LIFETIME
        {
            return Some(node);
        }
        let reachable =
            |node: &usize| claims[*node] && !self.is_cut(Place::Host(host), Place::Node(*node));
        let node = [0, 1].into_iter().find(reachable);
        self.neighbours[host] = node.map(|node| (node, now));
        node
    }

    /// `host` hears that `node` has the virtual addresses. As Linux does, an entry that does not exist is
    /// not created.
    pub(crate) fn announced(&mut self, now: Time, host: usize, node: NodeIndex) {
        if self.neighbours[host].is_some() {
            self.neighbours[host] = Some((node, now));
        }
    }
}
