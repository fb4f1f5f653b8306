//! What a world is made of: machines, hosts, load and faults. Plain data, made by scenarios.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use outlive_proxy::config::{Config, ProxyProtocol};
use outlive_tcp::wire::Endpoint;

use crate::{
    channel::Tail,
    content::Preamble,
    host::Service,
    network::{Link, NodeIndex, Place},
    script::{Pace, Step},
    stack::StackSetup,
    targets::{TargetFault, TargetSetup},
};

/// A world before its first event.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Decides everything that chance decides.
    pub seed: u64,
    /// Of node A and of node B.
    pub configs: [Config; 2],
    /// The world begins so long before the load.
    pub prelude: Duration,
    /// When each node starts, from the beginning of the world.
    pub starts: [Duration; 2],
    /// Hosts: clients and servers.
    pub hosts: Vec<HostSetup>,
    /// Migration targets.
    pub targets: Vec<TargetSetup>,
    /// The load.
    pub flows: Vec<FlowSetup>,
    /// All links.
    pub link: Link,
    /// What goes wrong, from the beginning of the load.
    pub faults: Vec<(Duration, Fault)>,
    /// The death of a node at a point of its own doing.
    pub crash: Option<CrashPoint>,
    /// The clocks of the two machines.
    pub clocks: [Clocks; 2],
    /// The world goes on for so long when everything is done, so that its end can be looked at.
    pub aftermath: Duration,
    /// Sessions for which the kernel of each node has room; zero: no node leaves any to it.
    pub fast_path: usize,
    /// An external detector watches the pair, and a router leads the packets where it says.
    pub detector: bool,
    /// Print what happens.
    pub trace: bool,
    /// Write every packet to this file.
    pub capture: Option<PathBuf>,
}

/// What the clocks of a machine say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    /// The monotonic clock is so far ahead of the world's.
    pub boot: Duration,
    /// The wall clock is wrong by so many microseconds. A process looks at it when it starts.
    pub wall_us: i64,
}

/// A host.
#[derive(Clone, Debug)]
pub struct HostSetup {
    /// Its address.
    pub address: IpAddr,
    /// Its TCP.
    pub stack: StackSetup,
    /// What it serves; nothing if it is a client.
    pub services: Vec<Service>,
}

/// When a flow begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// So long after the beginning of the load.
    At(Duration),
    /// When that flow is finished.
    After(usize),
}

/// A client's connection.
#[derive(Clone, Debug)]
pub struct FlowSetup {
    /// When it begins.
    pub start: Start,
    /// Index of the client's host.
    pub host: usize,
    /// The client's port.
    pub port: u16,
    /// Where it connects to.
    pub listener: Endpoint,
    /// What it says first.
    pub preamble: Preamble,
    /// What it does. The preamble is the beginning of what it sends.
    pub script: Vec<Step>,
    /// How it reads.
    pub pace: Pace,
    /// What the server has to see before the client's words.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// Something that goes wrong, or right again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process dies.
    Kill(NodeIndex),
    /// The machine dies.
    PowerOff(NodeIndex),
    /// The process stops.
    Freeze(NodeIndex),
    /// It goes on.
    Resume(NodeIndex),
    /// A new process starts in place of a dead one.
    Restart(NodeIndex),
    /// It is told to hand over to the other node, if it is the active one and can.
    Handover(NodeIndex),
    /// Nothing goes from one place to another.
    Cut(Place, Place),
    /// Heartbeats of a node do not arrive on one of the paths.
    CutPath(NodeIndex, usize),
    /// Every cut is mended.
    Heal,
    /// The state connection is reset; what is under way on it is lost.
    BreakState,
    /// The process does not serve its state connection.
    Wedge(NodeIndex),
    /// It does again.
    Unwedge(NodeIndex),
    /// Messages on the state connection take so much longer to a node.
    SlowState(NodeIndex, Duration),
    /// The wall clock of a machine jumps by so many microseconds.
    WallClock(NodeIndex, i64),
    /// Somebody else says something.
    Forge(Forgery),
    /// From now on, links are like this.
    Links(Link),
    /// Something befalls a migration.
    Target(TargetFault),
}

/// What strangers send, or the network sends again. It goes to the node that answers for the virtual
/// addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgery {
    /// In the name of both ends of every living flow: resets that lie in the window, and do not stand where
    /// the stream does.
    ResetInside,
    /// Resets far from the window.
    ResetOutside,
    /// SYNs in the name of clients that have connections.
    Syn,
    /// Segments of connections that never were.
    Stray,
    /// So many SYNs of clients that do not exist.
    Flood(u16),
    /// ICMP errors about what a node sent last to each end.
    Unreachable,
    /// What each client said first, once more.
    FirstWords,
}

/// The death of a node after its so-and-so-manyth output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashPoint {
    /// Which node; from [`FIRST_TARGET`](crate::targets::FIRST_TARGET) on, which target.
    pub node: NodeIndex,
    /// After so many of its steps, from the beginning of the load. A step is an output, or the end of an
    /// event.
    pub point: u64,
    /// What becomes of the state messages under way from it.
    pub tail: Tail,
    /// The machine dies, not only the process.
    pub off: bool,
    /// A new process starts so long afterwards.
    pub restart: Option<Duration>,
    /// What it has sent and is under way is lost with it.
    pub queues_lost: bool,
    /// The other node dies after so many steps of its own, counted from then on: its messages that are under way
    /// are lost, and a new process starts soon.
    pub then: Option<u64>,
}
