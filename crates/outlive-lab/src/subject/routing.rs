//! Plain kernel routing: what the machine can do without any proxy.
//!
//! All hosts are on one switch and could talk directly. So the server gets a further address that
//! the client reaches only through the node, and answers go the same way back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Subject;
use crate::error::LabError;
use crate::host::Host;
use crate::topology::addresses;

/// A node that forwards between clients and a server.
pub struct Router {
    server: u8,
}

impl Router {
    /// Makes `node` the only way between `clients` and the service addresses of `server`.
    pub fn between(node: &Host, clients: &[&Host], server: &Host) -> Result<Self, LabError> {
        node.forward_packets()?;
        for (index, via) in addresses(node.number()).into_iter().enumerate() {
            let service = service_address(server.number(), via.is_ipv6());
            let prefix = if via.is_ipv6() { 128 } else { 32 };
            server.add_address(service, prefix)?;
            node.add_route(service.into(), addresses(server.number())[index])?;
            for client in clients {
                client.add_route(service.into(), via)?;
                server.add_route(addresses(client.number())[index].into(), via)?;
            }
        }
        Ok(Self { server: server.number() })
    }
}

impl Subject for Router {
    fn name(&self) -> &str {
        "routing"
    }

    fn address(&self, ipv6: bool, port: u16) -> SocketAddr {
        SocketAddr::new(service_address(self.server, ipv6), port)
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
