//! The cable between a host and the switch.
//!
//! A plain cable is a veth pair: as fast as the kernel. An impaired one is two TAP devices with a
//! user-space wire between them. Both can be cut: frames are dropped, while both ends go on
//! seeing a carrier, as with a switch that has failed somewhere behind the next one.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use outlive_net::MacAddress;
use outlive_net::netlink::{Netlink, OperState, PortState};
use outlive_net::netns::Namespace;

use crate::clock::wait_until;
use crate::error::LabError;
use crate::impairment::{Impairment, Tally};
use crate::topology::Switch;
use crate::wire::Wire;

/// The name of every host's interface to the switch.
pub const INTERFACE: &str = "eth0";

/// What a host's cable is like.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum LinkKind {
    /// As fast and as good as the kernel can.
    #[default]
    Plain,
    /// With these properties, in user space.
    Impaired {
        /// From the host to the switch.
        out: Impairment,
        /// From the switch to the host.
        back: Impairment,
    },
}

impl LinkKind {
    /// The same properties both ways.
    pub fn impaired(impairment: Impairment) -> Self {
        Self::Impaired { out: impairment.clone(), back: impairment }
    }
}

/// Which frames a cut takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// All.
    Both,
    /// Those that the host sends. It still hears everything.
    FromHost,
    /// Those for the host. It is still heard.
    ToHost,
}

/// A host's cable.
pub struct Link {
    switch: Arc<Switch>,
    /// The interface at the switch.
    port: String,
    wire: Option<Wire>,
}

impl Link {
    /// Makes the cable of host `name`, with [`INTERFACE`] at the host's end; both ends are up.
    ///
    /// The Ethernet address follows from `number`, so that a host that replaces another one (as
    /// the same machine after a repair does) is found at once by those that knew the first.
    pub(crate) fn attach(
        name: &str,
        number: u8,
        kind: LinkKind,
        switch: &Arc<Switch>,
        host: &Namespace,
        seed: u64,
    ) -> Result<Self, LabError> {
        let port = format!("port-{name}");
        let wire = match kind {
            LinkKind::Plain => {
                switch.netlink().add_veth(&port, INTERFACE, Some(host))?;
                None
            }
            LinkKind::Impaired { out, back } => {
                Some(Wire::new((host, INTERFACE), (&switch.namespace, &port), out, back, seed)?)
            }
        };
        switch.add_port(&port)?;
        let netlink = host.netlink()?;
        netlink.set_mac(INTERFACE, mac_address(number))?;
        netlink.set_up(INTERFACE, true)?;
        wait_until_it_carries(&netlink, INTERFACE)?;
        wait_until_it_carries(&switch.netlink(), &port)?;
        Ok(Self { switch: switch.clone(), port, wire })
    }

    /// Drops these frames from now on, including those on their way. The carrier stays.
    pub fn cut(&self, cut: Cut) -> Result<(), LabError> {
        match &self.wire {
            Some(wire) => wire.set_cut(cut != Cut::ToHost, cut != Cut::FromHost),
            None => self.set_port(match cut {
                Cut::Both => PortState::Disabled,
                Cut::FromHost => PortState::DroppingIncoming,
                Cut::ToHost => PortState::DroppingOutgoing,
            })?,
        }
        Ok(())
    }

    /// Drops what comes from, or goes to, another host that is kept apart; all others hear this one.
    pub fn keep_apart(&self) -> Result<(), LabError> {
        self.set_port(PortState::Isolated)
    }

    /// Lets all frames pass again.
    pub fn restore(&self) -> Result<(), LabError> {
        if let Some(wire) = &self.wire {
            wire.set_cut(false, false);
        }
        self.set_port(PortState::Forwarding)
    }

    /// What became of the frames of an impaired link so far: from the host, to the host.
    pub fn tallies(&self) -> Option<[Tally; 2]> {
        self.wire.as_ref().map(Wire::tallies)
    }

    /// The headers of all frames that the host sends from now on; nothing on a plain link. Frames
    /// that nobody takes in time are left out.
    pub(crate) fn overhear(&self) -> Option<Receiver<Vec<u8>>> {
        self.wire.as_ref().map(Wire::overhear)
    }

    fn set_port(&self, state: PortState) -> Result<(), LabError> {
        Ok(self.switch.netlink().set_port_state(&self.port, state)?)
    }
}

/// The Ethernet address of the host of that number.
pub(crate) fn mac_address(number: u8) -> MacAddress {
    MacAddress([0x02, b'l', b'a', b'b', 0, number])
}

/// Between setting a link up and its first frame the kernel has things to do, some of them later;
/// frames sent meanwhile vanish, and with them a second of the life of each early connection.
pub(crate) fn wait_until_it_carries(netlink: &Netlink, name: &str) -> Result<(), LabError> {
    let ready = || {
        let link = netlink.link(name);
        link.is_ok_and(|link| link.has_carrier && link.oper_state != OperState::Down)
    };
    let limit = Duration::from_secs(5);
    wait_until(limit, ready).then_some(()).ok_or_else(|| LabError::TimedOut {
        what: format!("{name} to carry frames"),
        seconds: limit.as_secs(),
    })
}

impl Drop for Link {
    fn drop(&mut self) {
        // A TAP goes with its descriptor; a veth pair would otherwise stay until the host's
        // namespace is cleaned up, some time later, and its name with it.
        if self.wire.is_none() {
            let _ = self.switch.netlink().delete_link_if_present(&self.port);
        }
    }
}
