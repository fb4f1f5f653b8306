//! Links: the interfaces of a namespace.

use std::{
    fmt,
    os::fd::{AsFd, AsRawFd},
};

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{
        BridgePortState, BridgeStpState, InfoBridge, InfoData, InfoKind, InfoVeth, LinkAttribute,
        LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkProtoInfoBridge, State,
    },
};

use super::{Cause, Netlink, NetlinkError, absent_is_fine};
use crate::MacAddress;

/// Attribute of a bridge port's settings; the format library does not name it.
const IFLA_BRPORT_STATE: u16 = 1;
const IFLA_BRPORT_LEARNING: u16 = 8;
const IFLA_BRPORT_UNICAST_FLOOD: u16 = 9;
const IFLA_BRPORT_FLUSH: u16 = 24;
const IFLA_BRPORT_MCAST_FLOOD: u16 = 27;
const IFLA_BRPORT_BCAST_FLOOD: u16 = 30;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_BRPORT_LOCKED: u16 = 39;

/// The number under which a namespace knows an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkIndex(pub u32);

impl fmt::Display for LinkIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// An interface, as it was when asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: LinkIndex,
    /// Its name.
    pub name: String,
    /// Its Ethernet address; `None` for those without (TUN).
    pub mac: Option<MacAddress>,
    /// Whether frames on it are Ethernet frames; the loopback interface is not counted.
    pub is_ethernet: bool,
    /// Largest packet in bytes, without the Ethernet header.
    pub mtu: u32,
    /// Whether it is set up (`IFF_UP`).
    pub is_up: bool,
    /// Whether the other end of the wire is there (`IFF_LOWER_UP`).
    pub has_carrier: bool,
    /// RFC 2863's operational state.
    pub oper_state: OperState,
    /// The bridge (or bond) it belongs to.
    pub master: Option<LinkIndex>,
    /// Packets that its queue holds.
    pub tx_queue_len: u32,
    /// Largest super-segment that GRO makes of IPv6 in bytes (of IPv4: up to 65,536 always,
    /// unless set otherwise).
    pub gro_max_size: Option<u32>,
    /// Largest super-segment that may be sent, in bytes.
    pub gso_max_size: Option<u32>,
}

/// The operational state of an interface (RFC 2863, `ifOperStatus`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperState {
    /// Usable.
    Up,
    /// Not usable: set down, or without carrier.
    Down,
    /// The driver does not say (TUN, loopback): usable if the interface is up.
    Unknown,
    /// Waits for something else (802.1X), is tested, or lacks a part.
    Other,
}

/// What a new bridge does by itself; the default is nothing: forward at once, flood all
/// multicast, no spanning tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BridgeOptions {
    /// Whether multicast goes only to ports that asked for it (IGMP and MLD snooping).
    pub multicast_snooping: bool,
}

/// What a port of a bridge does with frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortState {
    /// Drops all, both ways, while the carrier stays: a cut cable that nobody notices.
    Disabled,
    /// Passes what goes out of it, drops what comes in: its host hears, but is not heard.
    DroppingIncoming,
    /// Passes what comes in, drops what goes out of it: its host is heard, but does not hear.
    DroppingOutgoing,
    /// Passes all but what comes from, or goes to, another isolated port: two hosts that cannot hear
    /// each other, while all others hear both.
    Isolated,
    /// Passes all.
    Forwarding,
}

impl PortState {
    fn word(self) -> &'static str {
        match self {
            PortState::Disabled => "disabled",
            PortState::DroppingIncoming => "dropping incoming frames",
            PortState::DroppingOutgoing => "dropping outgoing frames",
            PortState::Isolated => "isolated",
            PortState::Forwarding => "forwarding",
        }
    }

    /// A bridge has no switch for one direction. But a locked port takes frames only from
    /// addresses that are known to be behind it, and frames leave a port only if their
    /// destination is known to be behind it or they are flooded; so where nothing is known, nor
    /// learnt, it comes to the same.
    fn attributes(self) -> Vec<LinkProtoInfoBridge> {
        let attribute = |kind, value| LinkProtoInfoBridge::Other(DefaultNla::new(kind, value));
        let flag = |kind, on: bool| attribute(kind, vec![u8::from(on)]);
        let state = |state| attribute(IFLA_BRPORT_STATE, vec![u8::from(state)]);
        if self == PortState::Disabled {
            return vec![state(BridgePortState::Disabled)];
        }
        let floods = self != PortState::DroppingOutgoing;
        let learns = matches!(self, PortState::Isolated | PortState::Forwarding);
        let mut attributes = vec![
            state(BridgePortState::Forwarding),
            flag(IFLA_BRPORT_LEARNING, learns),
            flag(IFLA_BRPORT_ISOLATED, self == PortState::Isolated),
            flag(IFLA_BRPORT_LOCKED, self == PortState::DroppingIncoming),
            flag(IFLA_BRPORT_UNICAST_FLOOD, floods),
            flag(IFLA_BRPORT_MCAST_FLOOD, floods),
            flag(IFLA_BRPORT_BCAST_FLOOD, floods),
        ];
        if !learns {
            attributes.push(attribute(IFLA_BRPORT_FLUSH, Vec::new()));
        }
        attributes
    }
}

impl Netlink {
    /// All interfaces.
    pub fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        self.dump(
            RouteNetlinkMessage::GetLink(LinkMessage::default()),
            || "listing interfaces".to_owned(),
            link_of,
        )
    }

    /// The interface of that name.
    pub fn link(&self, name: &str) -> Result<Link, NetlinkError> {
        let operation = || format!("looking up interface {name}");
        let found = self.query(RouteNetlinkMessage::GetLink(named(name)), operation, link_of);
        missing_means_no_such_interface(found)?
            .ok_or_else(|| NetlinkError { operation: operation(), cause: Cause::Unintelligible })
    }

    /// The interface of that number.
    pub fn link_by_index(&self, index: LinkIndex) -> Result<Link, NetlinkError> {
        let operation = || format!("looking up interface number {index}");
        let mut message = LinkMessage::default();
        message.header.index = index.0;
        let found = self.query(RouteNetlinkMessage::GetLink(message), operation, link_of);
        missing_means_no_such_interface(found)?
            .ok_or_else(|| NetlinkError { operation: operation(), cause: Cause::Unintelligible })
    }

    /// The number of the interface of that name.
    pub fn index_of(&self, name: &str) -> Result<LinkIndex, NetlinkError> {
        self.link(name).map(|link| link.index)
    }

    /// Makes a pair of interfaces joined like the two ends of a cable.
    ///
    /// `peer_namespace`: where the second end appears; here if `None`. Both are down. `EEXIST`
    /// if either name is taken.
    pub fn add_veth(
        &self,
        name: &str,
        peer: &str,
        peer_namespace: Option<&dyn AsFd>,
    ) -> Result<(), NetlinkError> {
        let mut peer_message = named(peer);
        if let Some(namespace) = peer_namespace {
            let fd = namespace.as_fd().as_raw_fd();
            peer_message.attributes.push(LinkAttribute::NetNsFd(fd));
        }
        let data = InfoData::Veth(InfoVeth::Peer(peer_message));
        self.add_link(name, InfoKind::Veth, Some(data), || {
            format!("creating veth pair {name} and {peer}")
        })
    }

    /// Makes a bridge without spanning tree, down.
    pub fn add_bridge(&self, name: &str, options: BridgeOptions) -> Result<(), NetlinkError> {
        let data = InfoData::Bridge(vec![
            InfoBridge::StpState(BridgeStpState::Disabled),
            InfoBridge::ForwardDelay(0),
            InfoBridge::MulticastSnooping(options.multicast_snooping),
        ]);
        self.add_link(name, InfoKind::Bridge, Some(data), || format!("creating bridge {name}"))
    }

    /// Removes an interface; of a veth pair, both ends.
    pub fn delete_link(&self, name: &str) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::DelLink(named(name));
        self.request(message, 0, || format!("removing interface {name}"))
    }

    /// Removes an interface if there is one of that name.
    pub fn delete_link_if_present(&self, name: &str) -> Result<(), NetlinkError> {
        absent_is_fine(self.delete_link(name))
    }

    /// Sets an interface up or down.
    pub fn set_up(&self, name: &str, up: bool) -> Result<(), NetlinkError> {
        let mut message = named(name);
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        message.header.change_mask = LinkFlags::Up;
        let word = if up { "up" } else { "down" };
        self.request(RouteNetlinkMessage::SetLink(message), 0, || {
            format!("setting interface {name} {word}")
        })
    }

    /// Sets the largest packet, in bytes without the Ethernet header.
    pub fn set_mtu(&self, name: &str, mtu: u32) -> Result<(), NetlinkError> {
        self.set_link(name, LinkAttribute::Mtu(mtu), || {
            format!("setting the MTU of interface {name} to {mtu}")
        })
    }

    /// Sets the Ethernet address.
    pub fn set_mac(&self, name: &str, mac: MacAddress) -> Result<(), NetlinkError> {
        self.set_link(name, LinkAttribute::Address(mac.0.to_vec()), || {
            format!("setting the address of interface {name} to {mac}")
        })
    }

    /// Sets how many packets the queue holds. Works on a TUN device in use.
    pub fn set_tx_queue_len(&self, name: &str, packets: u32) -> Result<(), NetlinkError> {
        self.set_link(name, LinkAttribute::TxQueueLen(packets), || {
            format!("setting the queue length of interface {name} to {packets}")
        })
    }

    /// Limits the super-segments that GRO makes, in bytes. More than 65,536 (BIG TCP) never
    /// gets through a TUN device.
    pub fn set_gro_max_size(&self, name: &str, bytes: u32) -> Result<(), NetlinkError> {
        self.set_link(name, LinkAttribute::GroMaxSize(bytes), || {
            format!("setting gro_max_size of interface {name} to {bytes}")
        })
    }

    /// Limits the super-segments that are sent, in bytes.
    pub fn set_gso_max_size(&self, name: &str, bytes: u32) -> Result<(), NetlinkError> {
        self.set_link(name, LinkAttribute::GsoMaxSize(bytes), || {
            format!("setting gso_max_size of interface {name} to {bytes}")
        })
    }

    /// Makes an interface a port of a bridge, or of none.
    pub fn set_master(&self, name: &str, bridge: Option<&str>) -> Result<(), NetlinkError> {
        let index = bridge.map_or(Ok(LinkIndex(0)), |bridge| self.index_of(bridge))?;
        self.set_link(name, LinkAttribute::Controller(index.0), || match bridge {
            Some(bridge) => format!("making interface {name} a port of {bridge}"),
            None => format!("removing interface {name} from its bridge"),
        })
    }

    /// Moves an interface into another network namespace, where it appears under the same
    /// name, down and without addresses.
    pub fn move_to_namespace(&self, name: &str, namespace: &dyn AsFd) -> Result<(), NetlinkError> {
        let fd = namespace.as_fd().as_raw_fd();
        self.set_link(name, LinkAttribute::NetNsFd(fd), || {
            format!("moving interface {name} to another namespace")
        })
    }

    /// Makes a port of a bridge pass frames, or drop them without the carrier going away.
    ///
    /// The bridge itself sets a port to forwarding again at whatever it takes for a change of
    /// the carrier, a change of the port's settings included.
    pub fn set_port_state(&self, name: &str, state: PortState) -> Result<(), NetlinkError> {
        // Through the bridge's own family: a change as "port data" of an ordinary link message
        // ends with an event at which the bridge enables the port again (seen on Linux 6.18).
        let mut message = LinkMessage::default();
        message.header.interface_family = AddressFamily::Bridge;
        message.header.index = self.index_of(name)?.0;
        message.attributes.push(LinkAttribute::ProtoInfoBridge(state.attributes()));
        self.request(RouteNetlinkMessage::SetLink(message), 0, || {
            format!("setting bridge port {name} to {}", state.word())
        })
    }

    fn add_link(
        &self,
        name: &str,
        kind: InfoKind,
        data: Option<InfoData>,
        operation: impl Fn() -> String,
    ) -> Result<(), NetlinkError> {
        let mut message = named(name);
        let mut info = vec![LinkInfo::Kind(kind)];
        info.extend(data.map(LinkInfo::Data));
        message.attributes.push(LinkAttribute::LinkInfo(info));
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.request(RouteNetlinkMessage::NewLink(message), flags, operation)
    }

    fn set_link(
        &self,
        name: &str,
        attribute: LinkAttribute,
        operation: impl Fn() -> String,
    ) -> Result<(), NetlinkError> {
        let mut message = named(name);
        message.attributes.push(attribute);
        self.request(RouteNetlinkMessage::SetLink(message), 0, operation)
    }
}

/// A message about the interface of that name; the kernel looks it up.
fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn missing_means_no_such_interface<T>(result: Result<T, NetlinkError>) -> Result<T, NetlinkError> {
    result.map_err(|error| match error.is_absent() {
        true => NetlinkError { cause: Cause::NoSuchInterface, ..error },
        false => error,
    })
}

fn link_of(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let flags = message.header.flags;
    let mut link = Link {
        index: LinkIndex(message.header.index),
        name: String::new(),
        mac: None,
        is_ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        mtu: 0,
        is_up: flags.contains(LinkFlags::Up),
        has_carrier: flags.contains(LinkFlags::LowerUp),
        oper_state: OperState::Unknown,
        master: None,
        tx_queue_len: 0,
        gro_max_size: None,
        gso_max_size: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(MacAddress),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::OperState(state) => link.oper_state = oper_state_of(state),
            LinkAttribute::Controller(index) => link.master = Some(LinkIndex(index)),
            LinkAttribute::TxQueueLen(packets) => link.tx_queue_len = packets,
            LinkAttribute::GroMaxSize(bytes) => link.gro_max_size = Some(bytes),
            LinkAttribute::GsoMaxSize(bytes) => link.gso_max_size = Some(bytes),
            _ => {}
        }
    }
    Some(link)
}

fn oper_state_of(state: State) -> OperState {
    match state {
        State::Up => OperState::Up,
        State::Down | State::LowerLayerDown => OperState::Down,
        State::Unknown => OperState::Unknown,
        _ => OperState::Other,
    }
}
