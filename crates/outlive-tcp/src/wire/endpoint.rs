//! Who talks to whom: an address with a port, and two of them.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use super::IpVersion;

/// An address and a port: one end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// The address. IPv4-mapped IPv6 addresses are IPv6: a packet never turns into the other
    /// version.
    pub addr: IpAddr,
    /// The port.
    pub port: u16,
}

impl Endpoint {
    /// The end at `addr` and `port`.
    pub const fn new(addr: IpAddr, port: u16) -> Self {
        Endpoint { addr, port }
    }
}

impl From<SocketAddr> for Endpoint {
    /// An IPv6 flow label or scope is lost: packets have none that identifies a connection.
    fn from(socket: SocketAddr) -> Self {
        Endpoint::new(socket.ip(), socket.port())
    }
}

impl From<Endpoint> for SocketAddr {
    fn from(end: Endpoint) -> Self {
        SocketAddr::new(end.addr, end.port)
    }
}

/// `10.0.0.1:80` or `[fd00::1]:80`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::from(*self).fmt(f)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The two ends of a connection, as a packet of one direction has them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FourTuple {
    /// Who sends.
    pub source: Endpoint,
    /// Who is to receive.
    pub destination: Endpoint,
}

impl FourTuple {
    /// Length of [`to_bytes`](Self::to_bytes).
    pub const BYTES: usize = 36;

    /// From `source` to `destination`.
    pub const fn new(source: Endpoint, destination: Endpoint) -> Self {
        FourTuple { source, destination }
    }

    /// The other direction.
    #[must_use]
    pub const fn reversed(self) -> Self {
        FourTuple { source: self.destination, destination: self.source }
    }

    /// The IP version of both ends; `None` if they differ, which no packet's ends do.
    pub fn version(&self) -> Option<IpVersion> {
        match (self.source.addr, self.destination.addr) {
            (IpAddr::V4(_), IpAddr::V4(_)) => Some(IpVersion::V4),
            (IpAddr::V6(_), IpAddr::V6(_)) => Some(IpVersion::V6),
            _ => None,
        }
    }

    /// A fixed layout for hashing: source address, destination address (16 bytes each, IPv4 as
    /// IPv4-mapped), source port, destination port.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..16].copy_from_slice(&mapped(self.source.addr).octets());
        bytes[16..32].copy_from_slice(&mapped(self.destination.addr).octets());
        bytes[32..34].copy_from_slice(&self.source.port.to_be_bytes());
        bytes[34..].copy_from_slice(&self.destination.port.to_be_bytes());
        bytes
    }
}

/// `10.0.0.1:4000 -> 10.0.0.2:80`.
impl fmt::Display for FourTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.source, self.destination)
    }
}

impl fmt::Debug for FourTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `addr` as IPv6: an IPv4 address becomes IPv4-mapped.
pub(crate) fn mapped(addr: IpAddr) -> Ipv6Addr {
    match addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}
