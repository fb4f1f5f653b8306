//! A station on the switch that sends whatever frames it likes.

use outlive_net::MacAddress;
use outlive_net::tun::{Layer, Offload, Tun, VirtioNetHeader};

use super::segment::Segment;
use crate::error::LabError;
use crate::host::Host;
use crate::link;
use crate::topology::Lab;

/// The number of the station; no host has it.
const NUMBER: u8 = 254;

/// A port of the switch without a host behind it.
pub struct Injector {
    tap: Tun,
}

impl Injector {
    /// Attaches the station to the lab's switch. A lab has room for one.
    pub fn new(lab: &Lab) -> Result<Self, LabError> {
        let switch = lab.switch();
        let open = || Tun::open(Layer::Ethernet, "port-injector", Offload::empty());
        let tap = switch.namespace.run(open)??;
        switch.add_port(tap.name())?;
        link::wait_until_it_carries(&switch.netlink(), tap.name())?;
        Ok(Self { tap })
    }

    /// Sends the segment to a host, under the station's own Ethernet address: this forger is on
    /// the same network, but does not confuse the switch. Whether it could be sent.
    pub fn send(&self, segment: &Segment, to: &Host) -> bool {
        let macs = (link::mac_address(NUMBER), link::mac_address(to.number()));
        self.send_between(segment, macs.0, macs.1)
    }

    fn send_between(&self, segment: &Segment, from: MacAddress, to: MacAddress) -> bool {
        let Some(frame) = segment.to_frame(from, to) else { return false };
        let packet = [&VirtioNetHeader::default().emit()[..], &frame].concat();
        self.tap.send(&packet).is_ok()
    }
}
