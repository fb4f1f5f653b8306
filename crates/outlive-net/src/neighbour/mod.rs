//! Answers ARP requests and IPv6 neighbour solicitations for the virtual addresses, in the
//! process.
//!
//! Not left to the kernel's proxy entries: those go on answering for a frozen process, answer
//! late, and do not override what neighbours believe. So a node that is not active, or not
//! alive, claims nothing.
//!
//! A [`NeighbourResponder`] serves one Ethernet interface and owns its packet sockets; the
//! caller polls [`NeighbourResponder::descriptors`] and calls
//! [`NeighbourResponder::on_readable`]. It has no timers: how often
//! [`NeighbourResponder::announce`] is repeated is the caller's decision. Reading and writing
//! frames is in [`arp`] and [`ndp`], both pure.

pub mod arp;
mod claims;
pub mod ndp;
mod socket;

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv6Addr},
    os::fd::{AsFd, BorrowedFd},
};

use self::{
    arp::Arp,
    claims::{Claims, Verdict},
    socket::{GroupMemberships, PacketSocket, Received},
};
use crate::{
    Errno, MacAddress,
    netlink::{Netlink, NetlinkError},
};

/// Frames that one call of [`NeighbourResponder::on_readable`] takes off each socket at most.
const FRAMES_PER_CALL: usize = 64;
/// Conflicts that are kept until the caller asks for them.
const CONFLICTS_KEPT: usize = 64;
/// Longer than any solicitation: the Ethernet MTU and header.
const FRAME_LEN: usize = 1514;

/// Claims virtual addresses on one interface.
#[derive(Debug)]
pub struct NeighbourResponder {
    interface: String,
    claims: Claims,
    arp: PacketSocket,
    ndp: PacketSocket,
    /// `None` where IPv6 is switched off.
    groups: Option<GroupMemberships>,
    joined: BTreeSet<Ipv6Addr>,
    conflicts: Vec<Conflict>,
    counters: Counters,
}

/// Another station claims an address of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The address.
    pub address: IpAddr,
    /// The Ethernet address that it is claimed for. The pair's other node after a takeover, or
    /// a stranger.
    pub mac: MacAddress,
}

/// Whether a call of [`NeighbourResponder::on_readable`] has emptied the queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Wait for the descriptors.
    Empty,
    /// Call again soon: an edge-triggered poll would not tell.
    MoreToCome,
}

/// What a responder has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// ARP requests answered.
    pub arp_answered: u64,
    /// Neighbour solicitations answered.
    pub solicitations_answered: u64,
    /// Gratuitous requests and unsolicited advertisements sent.
    pub announced: u64,
    /// Claims of others to an address of ours.
    pub conflicts: u64,
    /// Frames about other addresses.
    pub ignored: u64,
    /// Frames that are not valid.
    pub malformed: u64,
    /// Frames that could not be sent or received: the interface is down, or its queue full.
    pub failed: u64,
}

impl NeighbourResponder {
    /// Opens the sockets on an interface of the calling thread's network namespace. No address
    /// is claimed yet.
    ///
    /// The interface's Ethernet address is read once. A responder outlives its interface being
    /// set down and up, but not a change of that address, nor the interface being removed: open
    /// another one then.
    pub fn open(interface: &str) -> Result<NeighbourResponder, NeighbourError> {
        let link = Netlink::open()?.link(interface)?;
        let mac = link.mac.filter(|_| link.is_ethernet);
        let mac = mac.ok_or_else(|| NeighbourError::NotEthernet(interface.to_owned()))?;
        let failed = |error| NeighbourError::socket(interface, &error);
        Ok(NeighbourResponder {
            interface: interface.to_owned(),
            claims: Claims::new(mac),
            arp: PacketSocket::arp(link.index).map_err(failed)?,
            ndp: PacketSocket::ndp(link.index).map_err(failed)?,
            groups: GroupMemberships::open(link.index).ok(),
            joined: BTreeSet::new(),
            conflicts: Vec::new(),
            counters: Counters::default(),
        })
    }

    /// The interface.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The Ethernet address under which the addresses are claimed.
    pub fn mac(&self) -> MacAddress {
        self.claims.mac
    }

    /// Claims these addresses from now on, and no others; none: silence, as on a standby.
    ///
    /// Nothing is sent: see [`NeighbourResponder::announce`]. The error is that of the first
    /// group that could not be joined; the addresses are claimed nevertheless.
    pub fn set_addresses(&mut self, addresses: &[IpAddr]) -> Result<(), NeighbourError> {
        self.claims.set(addresses);
        let v6 = self.claims.addresses().iter().filter_map(|address| match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(ndp::solicited_node_group(*address)),
        });
        let wanted: BTreeSet<_> = v6.collect();
        let mut first = Ok(());
        for &group in self.joined.difference(&wanted) {
            // The membership is gone with the interface at the latest; nobody misses it.
            let _ = self.ndp.set_membership(MacAddress::of_ipv6_multicast(group), false);
            self.report(group, false);
        }
        self.joined.retain(|group| wanted.contains(group));
        for group in wanted {
            if self.joined.contains(&group) {
                continue;
            }
            match self.ndp.set_membership(MacAddress::of_ipv6_multicast(group), true) {
                Ok(()) => {
                    self.report(group, true);
                    self.joined.insert(group);
                }
                Err(error) => first = first.and(Err(error)),
            }
        }
        first.map_err(|error| NeighbourError::socket(&self.interface, &error))
    }

    /// Has the kernel tell switches that snoop. Best effort: other switches need no report.
    fn report(&self, group: Ipv6Addr, member: bool) {
        if let Some(groups) = &self.groups {
            let _ = groups.set(group, member);
        }
    }

    /// The addresses claimed, sorted.
    pub fn addresses(&self) -> &[IpAddr] {
        self.claims.addresses()
    }

    /// Tells every station on the link that the addresses are here: gratuitous ARP requests and
    /// unsolicited, overriding neighbour advertisements, one per address.
    ///
    /// Entries that neighbours have change at once; entries that they do not have are not made.
    /// Frames that cannot be sent are counted.
    pub fn announce(&mut self) {
        for &address in self.claims.addresses() {
            let sent = match address {
                IpAddr::V4(v4) => self.arp.send(&Arp::announcement(self.claims.mac, v4)),
                IpAddr::V6(v6) => self.ndp.send(&ndp::announcement(self.claims.mac, v6)),
            };
            count(sent, &mut self.counters.announced, &mut self.counters.failed);
        }
    }

    /// Answers what is queued, up to a bound.
    pub fn on_readable(&mut self) -> Queue {
        let mut buffer = [0; FRAME_LEN];
        let mut queue = Queue::Empty;
        for is_arp in [true, false] {
            let drained = (0..FRAMES_PER_CALL).any(|_| self.handle_one(is_arp, &mut buffer));
            if !drained {
                queue = Queue::MoreToCome;
            }
        }
        queue
    }

    /// Takes one frame off a queue. Returns whether there was none.
    fn handle_one(&mut self, is_arp: bool, buffer: &mut [u8]) -> bool {
        let socket = if is_arp { &self.arp } else { &self.ndp };
        let counters = &mut self.counters;
        let frame = match socket.receive(buffer) {
            Ok(Received::Frame(len)) => &buffer[..len],
            Ok(Received::NotForUs) => return false,
            Ok(Received::Nothing) => return true,
            Err(_) => {
                // The interface went down. The socket says so once, and works again when the
                // interface is up.
                counters.failed += 1;
                return false;
            }
        };
        let verdict =
            if is_arp { self.claims.judge_arp(frame) } else { self.claims.judge_ndp(frame) };
        match verdict {
            Verdict::Ignore => counters.ignored += 1,
            Verdict::Malformed => counters.malformed += 1,
            Verdict::AnswerArp(answer) => {
                count(socket.send(&answer), &mut counters.arp_answered, &mut counters.failed);
            }
            Verdict::AnswerNdp(answer) => {
                let answered = &mut counters.solicitations_answered;
                count(socket.send(&answer), answered, &mut counters.failed);
            }
            Verdict::Conflict(conflict) => {
                counters.conflicts += 1;
                let is_new = !self.conflicts.contains(&conflict);
                if is_new && self.conflicts.len() < CONFLICTS_KEPT {
                    self.conflicts.push(conflict);
                }
            }
        }
        false
    }

    /// The conflicts seen since the last call, each once, and no more than a bounded number;
    /// [`Counters::conflicts`] counts all.
    pub fn take_conflicts(&mut self) -> Vec<Conflict> {
        std::mem::take(&mut self.conflicts)
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The descriptors to poll for readability.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.arp.as_fd(), self.ndp.as_fd()]
    }
}

fn count(result: io::Result<()>, done: &mut u64, failed: &mut u64) {
    match result {
        Ok(()) => *done += 1,
        Err(_) => *failed += 1,
    }
}

/// Why addresses cannot be claimed on an interface.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NeighbourError {
    /// The interface is not there, or could not be looked up.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The interface has no neighbours: it is not an Ethernet interface.
    #[error("interface {0} is not an Ethernet interface: no address can be claimed there")]
    NotEthernet(String),
    /// `CAP_NET_RAW` is missing.
    #[error("packet sockets on interface {0} may not be opened: CAP_NET_RAW is missing")]
    MayNotOpen(String),
    /// Something else about the sockets.
    #[error("packet socket on interface {interface}: {errno}")]
    Socket {
        /// The interface.
        interface: String,
        /// What happened.
        errno: Errno,
    },
}

impl NeighbourError {
    fn socket(interface: &str, error: &io::Error) -> NeighbourError {
        let interface = interface.to_owned();
        match Errno::of(error) {
            Errno(libc::EPERM | libc::EACCES) => NeighbourError::MayNotOpen(interface),
            errno => NeighbourError::Socket { interface, errno },
        }
    }
}
