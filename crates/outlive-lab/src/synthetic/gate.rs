//! Where synthetic peers meet the network: a TUN device, and the addresses behind it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use outlive_net::netlink::{Route, RouteTarget};
use outlive_net::tun::{BUFFER_LEN, Layer, Offload, Tun, VirtioNetHeader};

use crate::attack::Segment;
use crate::error::LabError;
use crate::host::Host;
use crate::topology;

/// Packets in the device's queue, for bursts that come while nobody reads.
const QUEUE_LEN: u32 = 50_000;

/// The device.
const NAME: &str = "peers";

/// A range of addresses: 10.n.0.0/16 and fdnn::/64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range(u8);

/// Where clients are.
pub const CLIENTS: Range = Range(80);

/// Where servers are.
pub const SERVERS: Range = Range(81);

impl Range {
    /// The address of that number, below 50,000.
    pub fn address(self, number: u16, ipv6: bool) -> IpAddr {
        let (high, low) = (number / 250, number % 250 + 1);
        if ipv6 {
            Ipv6Addr::new(0xfd00 | u16::from(self.0), 0, 0, 0, 0, 0, high, low).into()
        } else {
            Ipv4Addr::new(10, self.0, high as u8, low as u8).into()
        }
    }

    /// The number of an address, if it is one of these.
    pub(super) fn number(self, address: IpAddr) -> Option<u16> {
        let (high, low) = match address {
            IpAddr::V4(ip) => (u16::from(ip.octets()[2]), u16::from(ip.octets()[3])),
            IpAddr::V6(ip) => (ip.segments()[6], ip.segments()[7]),
        };
        let number = high.checked_mul(250)?.checked_add(low.checked_sub(1)?)?;
        (self.address(number, address.is_ipv6()) == address).then_some(number)
    }

    fn networks(self) -> [IpNet; 2] {
        [
            IpNet::new_assert(Ipv4Addr::new(10, self.0, 0, 0).into(), 16),
            IpNet::new_assert(self.address(0, true), 64).trunc(),
        ]
    }

    /// Leads what `host` sends to these addresses through the host of that number.
    pub fn route(self, host: &Host, through: u8) -> Result<(), LabError> {
        let ways = self.networks().into_iter().zip(topology::addresses(through));
        ways.into_iter().try_for_each(|(network, via)| host.add_route(network, via))
    }
}

/// A device behind a host.
pub struct Gate {
    tun: Tun,
    buffer: Vec<u8>,
    /// Packets that the device did not take.
    refused: u64,
}

impl Gate {
    /// Makes `host` the way to the addresses of `range`, which are behind the gate.
    pub fn open(host: &Host, range: Range) -> Result<Self, LabError> {
        let tun = host.enter(|| Tun::open(Layer::Ip, NAME, Offload::empty()))??;
        let netlink = host.namespace().netlink()?;
        netlink.set_tx_queue_len(NAME, QUEUE_LEN)?;
        netlink.set_up(NAME, true)?;
        for network in range.networks() {
            netlink.add_route(&Route::new(network, RouteTarget::Device(NAME.to_owned())))?;
        }
        host.forward_packets()?;
        Ok(Self { tun, buffer: vec![0; BUFFER_LEN], refused: 0 })
    }

    /// The device itself, for who brings peers of another kind.
    pub(crate) fn into_device(self) -> Tun {
        self.tun
    }

    /// The next segment that has arrived; what is no TCP segment is passed over.
    pub(super) fn receive(&mut self) -> Option<Segment> {
        loop {
            let len = self.tun.recv(&mut self.buffer).ok()?;
            let packet = self.buffer.get(VirtioNetHeader::LEN..len)?;
            if let Some(segment) = Segment::parse_packet(packet) {
                return Some(segment);
            }
        }
    }

    /// Sends a segment; one that the kernel does not take is lost, as on any cable.
    pub(super) fn send(&mut self, segment: &Segment) {
        let Some(packet) = segment.to_packet() else { return };
        let packet = [&VirtioNetHeader::default().emit()[..], &packet].concat();
        self.refused += u64::from(self.tun.send(&packet).is_err());
    }
}
