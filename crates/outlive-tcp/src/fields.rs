//! Fields of messages and of captured states, in network byte order: those that [`bytes`] has no name for.

use std::net::{IpAddr, Ipv6Addr};

use bytes::{Buf, BufMut, TryGetError};

use crate::{
    seq::Seq,
    wire::{Endpoint, mapped},
};

/// Appends fields.
pub trait PutFields: BufMut {
    /// 4 bytes.
    fn put_seq(&mut self, seq: Seq) {
        self.put_u32(seq.0);
    }

    /// 16 bytes; IPv4 as IPv4-mapped IPv6.
    fn put_addr(&mut self, addr: IpAddr) {
        self.put_slice(&mapped(addr).octets());
    }

    /// 18 bytes: the address, the port.
    fn put_endpoint(&mut self, endpoint: Endpoint) {
        self.put_addr(endpoint.addr);
        self.put_u16(endpoint.port);
    }
}

impl<B: BufMut + ?Sized> PutFields for B {}

/// Takes fields off the front.
///
/// # Errors
/// Of each: there are fewer bytes than it has.
#[allow(clippy::missing_errors_doc, reason = "said once for all of them")]
pub trait GetFields: Buf {
    /// So many bytes.
    fn try_get_array<const N: usize>(&mut self) -> Result<[u8; N], TryGetError> {
        let mut array = [0; N];
        self.try_copy_to_slice(&mut array)?;
        Ok(array)
    }

    /// 4 bytes.
    fn try_get_seq(&mut self) -> Result<Seq, TryGetError> {
        self.try_get_u32().map(Seq)
    }

    /// 16 bytes; what is IPv4-mapped is IPv4.
    fn try_get_addr(&mut self) -> Result<IpAddr, TryGetError> {
        self.try_get_array::<16>().map(|octets| Ipv6Addr::from(octets).to_canonical())
    }

    /// 18 bytes: the address, the port.
    fn try_get_endpoint(&mut self) -> Result<Endpoint, TryGetError> {
        Ok(Endpoint::new(self.try_get_addr()?, self.try_get_u16()?))
    }
}

impl<B: Buf + ?Sized> GetFields for B {}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn what_is_put_is_got() {
        for text in ["10.0.0.9:4660", "[fd00::9]:4660"] {
            let endpoint = Endpoint::from(text.parse::<SocketAddr>().unwrap());
            let mut bytes = Vec::new();
            bytes.put_endpoint(endpoint);
            bytes.put_seq(Seq(0x0102_0304));
            assert_eq!(bytes[16..], [0x12, 0x34, 1, 2, 3, 4]);
            let mut rest = bytes.as_slice();
            assert_eq!(rest.try_get_endpoint(), Ok(endpoint));
            assert_eq!(rest.try_get_seq(), Ok(Seq(0x0102_0304)));
            assert!(rest.try_get_array::<1>().is_err(), "there is nothing left");
        }
    }
}
