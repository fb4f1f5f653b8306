//! What stands between clients and servers: the thing that is tested or compared.

pub mod haproxy;
pub mod outlive;
pub mod routing;

use std::net::SocketAddr;

/// Something through which clients reach the services of a server.
pub trait Subject {
    /// What it is called in reports.
    fn name(&self) -> &str;

    /// Where a client finds the service of that port.
    fn address(&self, ipv6: bool, port: u16) -> SocketAddr;
}
