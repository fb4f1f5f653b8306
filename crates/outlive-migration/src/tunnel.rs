//! The client's packets on their way from the balancer to the target.
//!
//! Nothing is put around a packet: it gets other addresses, those of balancer and target in the tunnel, and its flow identifier
//! for ports. So it is as long as before, and is sent, cut, and joined by devices as any TCP packet is. At the target
//! the mapping table gives it its ends back. The other direction does not exist: the target answers the client directly.
//!
//! What such packets need of the path: that it looks at each by itself. A firewall that follows connections sees one without a
//! handshake.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use outlive_tcp::{
    fault::{self, Fault},
    translation::Untranslatable,
    wire::{
        Endpoint, FourTuple, Malformed, TcpPacket,
        icmp::{self, IcmpError, IcmpMessage, IcmpReaddress},
    },
};

use crate::flow::FlowId;

/// The two addresses of a tunnel, both of one IP version. They belong to the tunnel alone: were they a host's own, its TCP would answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Tunnel {
    /// The balancer's: where packets come from.
    pub balancer: IpAddr,
    /// The target's: where they go.
    pub target: IpAddr,
}

impl Tunnel {
    /// The ends of a tunnelled packet of `flow`.
    pub const fn ends(&self, flow: FlowId) -> FourTuple {
        let (upper, lower) = flow.ports();
        FourTuple::new(Endpoint::new(self.balancer, upper), Endpoint::new(self.target, lower))
    }

    /// Makes a packet of the client into one for the target.
    ///
    /// # Errors
    /// [`Untranslatable::Version`] if it is not of the tunnel's IP version.
    pub fn enter(&self, flow: FlowId, packet: &mut TcpPacket<'_>) -> Result<(), Untranslatable> {
        packet.readdress(&self.ends(flow))
    }

    /// How an ICMP error that came to the virtual address, about a packet of the target's, is led to the target.
    pub const fn error_for_target(&self, flow: FlowId) -> IcmpReaddress {
        IcmpReaddress {
            source: self.balancer,
            destination: self.target,
            // As if the target had sent the packet back through the tunnel.
            quoted: self.ends(flow).reversed(),
            seq_delta: 0,
            mtu_reduction: 0,
        }
    }

    /// How an ICMP error that came to the balancer's tunnel address, about a packet in the tunnel, becomes one about the client's. `ends`
    /// are those of the client's packets. For errors that say that a packet was too long: whatever else is wrong in the tunnel is
    /// none of the client's business.
    pub const fn error_for_client(ends: FourTuple) -> IcmpReaddress {
        IcmpReaddress {
            source: ends.destination.addr,
            destination: ends.source.addr,
            quoted: ends,
            seq_delta: 0,
            mtu_reduction: 0,
        }
    }
}

/// The encapsulation mapping table of a target: which connection a flow identifier stands for.
#[derive(Clone, Debug)]
pub struct Mappings {
    /// Tunnel addresses of the nodes of the pairs that are listened to.
    balancers: BTreeSet<IpAddr>,
    /// This target's tunnel addresses.
    own: BTreeSet<IpAddr>,
    flows: BTreeMap<FlowId, FourTuple>,
    limit: usize,
}

/// Why a packet that came out of the tunnel's device is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Stray {
    /// Not sent to a tunnel address of this target.
    #[error("not sent to a tunnel address")]
    Elsewhere,
    /// Not from a balancer.
    #[error("not from a balancer")]
    Stranger,
    /// No flow has this identifier, or none can have it.
    #[error("unknown flow")]
    UnknownFlow,
    /// The flow is of the other IP version.
    #[error("wrong IP version")]
    Version,
    /// An ICMP message, and not an error about a packet of a flow.
    #[error("not about a flow")]
    NotAnError,
    /// It does not parse.
    #[error("{0}")]
    Malformed(Malformed),
}

impl Mappings {
    /// An empty table for at most `limit` flows: packets from `balancers` to `own`.
    pub fn new(
        balancers: impl IntoIterator<Item = IpAddr>,
        own: impl IntoIterator<Item = IpAddr>,
        limit: usize,
    ) -> Self {
        Mappings {
            balancers: balancers.into_iter().collect(),
            own: own.into_iter().collect(),
            flows: BTreeMap::new(),
            limit,
        }
    }

    /// Enters a flow, with the ends of the client's packets. False if the table is full, or the identifier belongs to other ends.
    #[must_use]
    pub fn insert(&mut self, flow: FlowId, ends: FourTuple) -> bool {
        match self.flows.get(&flow) {
            Some(present) => *present == ends,
            None if self.flows.len() >= self.limit => false,
            None => {
                self.flows.insert(flow, ends);
                true
            }
        }
    }

    /// Removes a flow; its ends, if it was there.
    pub fn remove(&mut self, flow: FlowId) -> Option<FourTuple> {
        self.flows.remove(&flow)
    }

    /// The ends of a flow, as the client's packets have them.
    pub fn get(&self, flow: FlowId) -> Option<FourTuple> {
        self.flows.get(&flow).copied()
    }

    /// How many flows there are.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether there is no flow.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Which flow a tunnelled packet says that it belongs to: for probes, and for whoever looks before [`leave`](Self::leave).
    ///
    /// # Errors
    /// It does not come from a balancer to this target, or no flow can have that identifier.
    pub fn flow_of(&self, packet: &TcpPacket<'_>) -> Result<FlowId, Stray> {
        let ends = packet.tuple();
        if !self.own.contains(&ends.destination.addr) {
            return Err(Stray::Elsewhere);
        }
        let known = self.balancers.contains(&ends.source.addr);
        if !known && !fault::on(Fault::StrangersInTunnel) {
            return Err(Stray::Stranger);
        }
        FlowId::from_ports(ends.source.port, ends.destination.port).ok_or(Stray::UnknownFlow)
    }

    /// Makes a tunnelled packet into the client's again.
    ///
    /// # Errors
    /// Why it is to be dropped. It has not been changed.
    pub fn leave(&self, packet: &mut TcpPacket<'_>) -> Result<FlowId, Stray> {
        let flow = self.flow_of(packet)?;
        let ends = self.flows.get(&flow).ok_or(Stray::UnknownFlow)?;
        packet.readdress(ends).map_err(|_| Stray::Version)?;
        Ok(flow)
    }

    /// What becomes of an ICMP packet that came out of the tunnel's device: an error about a packet that this target has sent to
    /// a client. Appended to `out`, with the ends of the connection.
    ///
    /// # Errors
    /// Why it is to be dropped. `out` has not been changed.
    pub fn leave_error(&self, packet: &[u8], out: &mut Vec<u8>) -> Result<FlowId, Stray> {
        let (source, destination) =
            outlive_tcp::wire::addresses(packet).map_err(Stray::Malformed)?;
        if !self.own.contains(&destination) {
            return Err(Stray::Elsewhere);
        }
        if !self.balancers.contains(&source) {
            return Err(Stray::Stranger);
        }
        let IcmpMessage::Error(IcmpError { quoted, .. }) =
            icmp::parse_icmp(packet).map_err(Stray::Malformed)?
        else {
            return Err(Stray::NotAnError);
        };
        // The quoted packet goes the other way.
        let flow = FlowId::from_ports(quoted.destination.port, quoted.source.port)
            .filter(|_| quoted.source.addr == destination && quoted.destination.addr == source)
            .ok_or(Stray::UnknownFlow)?;
        let ends = *self.flows.get(&flow).ok_or(Stray::UnknownFlow)?;
        let how = IcmpReaddress {
            source,
            destination: ends.destination.addr,
            quoted: ends.reversed(),
            seq_delta: 0,
            mtu_reduction: 0,
        };
        icmp::readdress_error(packet, &how, out).map_err(Stray::Malformed)?;
        Ok(flow)
    }
}

#[cfg(test)]
mod tests;
