//! Fields in network byte order.

use std::net::{IpAddr, Ipv6Addr};

use outlive_tcp::{
    seq::Seq,
    wire::{Endpoint, FourTuple},
};

/// Appends fields.
pub(crate) struct Writer<'a>(pub(crate) &'a mut Vec<u8>);

impl Writer<'_> {
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn seq(&mut self, value: Seq) {
        self.u32(value.0);
    }

    /// 16 bytes, IPv4 as IPv4-mapped.
    pub(crate) fn addr(&mut self, addr: IpAddr) {
        let v6 = match addr {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        self.bytes(&v6.octets());
    }

    /// 36 bytes: both addresses, both ports.
    pub(crate) fn tuple(&mut self, tuple: FourTuple) {
        self.bytes(&tuple.to_bytes());
    }
}

/// Takes fields off the front; `None` when there are too few bytes.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn seq(&mut self) -> Option<Seq> {
        self.u32().map(Seq)
    }

    /// What was IPv4-mapped is IPv4.
    pub(crate) fn addr(&mut self) -> Option<IpAddr> {
        self.array::<16>().map(|octets| Ipv6Addr::from(octets).to_canonical())
    }

    pub(crate) fn tuple(&mut self) -> Option<FourTuple> {
        let (source, destination) = (self.addr()?, self.addr()?);
        let (source_port, port) = (self.u16()?, self.u16()?);
        Some(FourTuple::new(Endpoint::new(source, source_port), Endpoint::new(destination, port)))
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}
