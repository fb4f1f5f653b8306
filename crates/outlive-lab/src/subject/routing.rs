//! Plain kernel routing: what the machine can do without any proxy.
//!
//! All hosts are on one switch and could talk directly. So the server gets a further address that
//! the client reaches only through the node, and answers go the same way back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::error::LabError;
use crate::host::Host;
use crate::topology::addresses;

/// A node that forwards between a client and a server.
pub struct Router<'a> {
    node: &'a Host,
    server: u8,
}

impl<'a> Router<'a> {
    /// Makes `node` the only way between `client` and the service addresses of `server`.
    pub fn between(node: &'a Host, client: &Host, server: &Host) -> Result<Self, LabError> {
        node.forward_packets()?;
        for (index, via) in addresses(node.number()).into_iter().enumerate() {
            let service = service_address(server.number(), via.is_ipv6());
            let prefix = if via.is_ipv6() { 128 } else { 32 };
            server.add_address(service, prefix)?;
            node.add_route(service.into(), addresses(server.number())[index])?;
            client.add_route(service.into(), via)?;
            server.add_route(addresses(client.number())[index].into(), via)?;
        }
        Ok(Self { node, server: server.number() })
    }

    /// Where the client finds the server.
    pub fn server(&self, ipv6: bool, port: u16) -> SocketAddr {
        SocketAddr::new(service_address(self.server, ipv6), port)
    }

    /// IPv4 packets that the node has forwarded.
    pub fn forwarded(&self) -> Result<u64, LabError> {
        Ok(self.node.counter("ForwDatagrams")?.unwrap_or(0))
    }
}

/// The service address of host `number`: 10.78.0.n or fd78::n.
fn service_address(number: u8, ipv6: bool) -> IpAddr {
    if ipv6 {
        Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, u16::from(number)).into()
    } else {
        Ipv4Addr::new(10, 78, 0, number).into()
    }
}
