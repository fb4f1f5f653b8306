//! What a host is told to do.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use outlive_node::key::{HostKey, PairKey};
pub use outlive_proxy::config::{NodeId, PairConfig};
use outlive_stack::StackConfig;
pub use outlive_tcp::endpoint::Config as TcpConfig;

/// Settings of a [`Host`](crate::Host).
///
/// ```
/// use outlive_socket::HostConfig;
///
/// let mut config = HostConfig::new("192.0.2.10".parse()?, "eth0");
/// config.tcp.receive_buffer = 256 << 10;
/// config.commit_timeout = Some(std::time::Duration::from_secs(20));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone)]
pub struct HostConfig {
    /// The virtual addresses: those that clients connect to. No interface has them; the host answers
    /// for them while it serves.
    pub addresses: Vec<IpAddr>,
    /// The interfaces on which neighbours (clients, or the router in front of them) ask for the
    /// addresses. None if a router has routes to this machine instead.
    pub interfaces: Vec<String>,
    /// Name of the TUN device; `%d` becomes a number.
    pub device: String,
    /// The kernel has to forward packets between the interfaces and the device. If it does not, the
    /// host switches that on; otherwise it refuses to start.
    pub enable_forwarding: bool,
    /// Settings of each connection. When bytes are acknowledged is not among them.
    pub tcp: TcpConfig,
    /// Connections there may be.
    pub connections: usize,
    /// Bytes of a program's state for one connection.
    pub state_limit: usize,
    /// How long bytes that have come may be without an acknowledgment of the program before the
    /// connection is reset.
    ///
    /// [What withholding costs](crate#what-withholding-costs) says why there should be one, in general.
    /// The program is told [`Closed::CommitTimeout`](crate::Closed::CommitTimeout), the client gets a reset.
    pub commit_timeout: Option<Duration>,
    /// The other node. Without one, nothing survives this process.
    pub peer: Option<PeerConfig>,
    /// Connections that a balancer migrates come here, too. Not together with a peer: a connection that
    /// has come here would not be found at the other node.
    pub migration: Option<MigrationConfig>,
}

/// A host to which Outlive nodes migrate connections: they have looked at a
/// client's first data, and this program goes on with the connection from there.
///
/// The host answers the clients directly, from the nodes' virtual address: [`Host::listen`](crate::Host::listen) there. It needs a
/// route to the clients, and the packets that come from the nodes routed to its tunnel address. What `docs/host.md` says of an
/// agent holds for this program, but for the configuration file.
///
/// ```no_run
/// use std::time::Duration;
/// use outlive_socket::{Host, HostConfig, HostKey, MigrationConfig};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let config = HostConfig::for_migration(MigrationConfig {
///     addresses: vec!["192.0.2.10".parse()?],
///     listen: "10.0.0.7:7410".parse()?,
///     key: HostKey::load("web1.key".as_ref())?,
///     nodes: vec!["10.0.0.1".parse()?, "10.0.0.2".parse()?],
///     tunnel: vec!["10.79.0.7".parse()?],
///     tunnel_nodes: vec!["10.79.0.1".parse()?, "10.79.0.2".parse()?],
///     patience: Duration::from_secs(60),
/// });
/// let host = Host::start(config)?;
/// let listener = host.listen("192.0.2.10:80".parse()?)?;
/// while let Ok(stream) = listener.accept().await {
///     // What the node has looked at is read first; it is not acknowledged.
///     tokio::spawn(async move { stream.peer_addr() });
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct MigrationConfig {
    /// The virtual addresses of the balancer: this host listens there, but does not answer for them.
    pub addresses: Vec<IpAddr>,
    /// Where the nodes of the balancer connect to.
    pub listen: SocketAddr,
    /// The key that they share with this target: `outlive keygen --host` makes it.
    pub key: HostKey,
    /// Where they connect from.
    pub nodes: Vec<IpAddr>,
    /// This host's addresses in the tunnel, at most one of each IP version. No interface has them.
    pub tunnel: Vec<IpAddr>,
    /// The nodes' addresses in the tunnel.
    pub tunnel_nodes: Vec<IpAddr>,
    /// How long a connection that was prepared waits until it may speak.
    pub patience: Duration,
}

/// The other node of a pair, on which the same program runs with the same settings.
///
/// ```no_run
/// use outlive_socket::{HostConfig, NodeId, PairConfig, PairKey, PeerConfig};
///
/// // Here: 10.0.0.1. On the other machine node B, and each pair of addresses the other way round.
/// let peer = PeerConfig {
///     node: NodeId::A,
///     key: PairKey::load("key".as_ref())?, // `outlive keygen` makes one.
///     state: ("10.0.0.1:7001".parse()?, "10.0.0.2:7001".parse()?),
///     heartbeat: vec![("10.0.0.1:7002".parse()?, "10.0.0.2:7002".parse()?)],
///     watch: PairConfig::default(),
/// };
/// let config = HostConfig::new("192.0.2.10".parse()?, "eth0").with_peer(peer);
/// # let _ = config;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct PeerConfig {
    /// Which of the two this node is.
    pub node: NodeId,
    /// The secret that both share.
    pub key: PairKey,
    /// Own and peer's address of the state connection.
    pub state: (SocketAddr, SocketAddr),
    /// Own and peer's address of each path of heartbeats.
    pub heartbeat: Vec<(SocketAddr, SocketAddr)>,
    /// How the two watch each other. What is there about paths does not count.
    pub watch: PairConfig,
}

impl HostConfig {
    /// One virtual address, answered for on one interface, no peer.
    pub fn new(address: IpAddr, interface: &str) -> Self {
        let stack = StackConfig::default();
        HostConfig {
            addresses: vec![address],
            interfaces: vec![interface.to_owned()],
            device: "outlive%d".to_owned(),
            enable_forwarding: true,
            tcp: stack.tcp,
            connections: stack.connections,
            state_limit: stack.state_limit,
            commit_timeout: stack.commit_timeout,
            peer: None,
            migration: None,
        }
    }

    /// No address of its own: connections come from a balancer only.
    pub fn for_migration(migration: MigrationConfig) -> Self {
        let mut config = HostConfig::new(IpAddr::from([0; 4]), "");
        (config.addresses, config.interfaces) = (Vec::new(), Vec::new());
        config.migration = Some(migration);
        config
    }

    /// With that peer.
    #[must_use]
    pub fn with_peer(mut self, peer: PeerConfig) -> Self {
        self.peer = Some(peer);
        self
    }

    /// All addresses for which packets come out of the device.
    pub(crate) fn routed(&self) -> Vec<IpAddr> {
        let migration = self.migration.iter();
        let more = migration.flat_map(|it| it.addresses.iter().chain(&it.tunnel));
        self.addresses.iter().chain(more).copied().collect()
    }

    pub(crate) fn stack(&self) -> StackConfig {
        let (node, pair) = match &self.peer {
            None => (NodeId::A, PairConfig::alone()),
            Some(peer) => {
                let paths = u8::try_from(peer.heartbeat.len()).unwrap_or(u8::MAX);
                (peer.node, PairConfig { enabled: true, paths, ..peer.watch.clone() })
            }
        };
        StackConfig {
            node,
            pair,
            tcp: self.tcp,
            connections: self.connections,
            state_limit: self.state_limit,
            commit_timeout: self.commit_timeout,
        }
    }
}
