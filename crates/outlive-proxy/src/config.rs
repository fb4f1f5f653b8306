//! What a node is told to do, already checked: the program parses a file into this.
//!
//! Nothing here can be contradictory in itself; what could be is refused by [`Config::validate`], whose
//! errors name the listener or pool at fault.

mod fingerprint;
mod migration;
mod protection;
mod termination;

use std::{collections::BTreeSet, net::IpAddr, ops::RangeInclusive, time::Duration};

use outlive_tcp::wire::Endpoint;

pub use self::migration::{Agent, Migration};
pub use self::protection::{Protection, Replication, Synchronise, WithoutStandby};
pub use self::termination::Termination;

/// Everything a node needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which of the two nodes this is.
    pub node: NodeId,
    /// What is listened on.
    pub listeners: Vec<Listener>,
    /// Where connections can go; listeners and routes refer to these by index ([`PoolId`]).
    pub pools: Vec<Pool>,
    /// Source addresses of the connections to servers; each family in use needs one.
    pub source_addresses: Vec<IpAddr>,
    /// Where connections are migrated to.
    pub migration: Migration,
    /// How the two nodes watch each other.
    pub pair: PairConfig,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How many of each thing there may be.
    pub limits: Limits,
    /// MTU towards clients and servers, in bytes: bounds the MSS of what Outlive says itself.
    pub mtu: u16,
}

/// One of the two nodes of a pair. The letter decides nothing but ties: who starts first when both start,
/// and which half of the source ports is whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NodeId {
    /// The node that becomes active when both start together.
    A,
    /// The other one.
    B,
}

impl NodeId {
    /// The peer's name.
    pub fn other(self) -> Self {
        match self {
            NodeId::A => NodeId::B,
            NodeId::B => NodeId::A,
        }
    }
}

/// Index of a pool in [`Config::pools`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct PoolId(pub u16);

/// A virtual address and port, and what happens to connections to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// For logs and counters.
    pub name: String,
    /// Where clients connect to.
    pub address: Endpoint,
    /// Whether the server is chosen before or after the client's first data.
    pub opening: OpeningMode,
    /// Tried in order; the first that matches decides. Only for [`OpeningMode::Inspect`].
    pub routes: Vec<Route>,
    /// Where connections go that match no route. `None`: they are reset.
    pub default_pool: Option<PoolId>,
    /// A session without a segment in either direction for this long is forgotten.
    pub idle_timeout: Duration,
    /// What becomes of its sessions when the active node fails.
    pub protection: Protection,
    /// What its sessions are.
    pub termination: Termination,
}

/// How a session is opened (see ARCHITECTURE.md, "Two ways to open a session").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpeningMode {
    /// The server's connection is opened first, then the client is answered.
    Direct,
    /// The client is answered first; its first data, unacknowledged, chooses the server.
    Inspect {
        /// How many bytes are looked at before the default is taken.
        limit: u16,
        /// How long the first data may take before the default is taken.
        timeout: Duration,
    },
}

/// A rule of an inspecting listener: all conditions that are present must hold.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Route {
    /// TLS server name, as `www.example.org` or `*.example.org`; compared without case.
    pub server_name: Option<NamePattern>,
    /// HTTP host (without port), likewise.
    pub host: Option<NamePattern>,
    /// Prefix of the HTTP path.
    pub path_prefix: Option<String>,
    /// HTTP method, as it is written.
    pub method: Option<String>,
    /// A header of the HTTP request: its name, compared without case, and its value, if that matters.
    pub header: Option<(String, Option<String>)>,
    /// A protocol that the TLS client offers (ALPN).
    pub alpn: Option<String>,
    /// How the data begins, whatever it is.
    pub first_bytes: Option<Vec<u8>>,
    /// Where matching connections go.
    pub pool: PoolId,
    /// They are migrated to the pool's servers, as far as those have agents that can be reached; else they are proxied.
    pub migrate: bool,
}

/// A DNS name, or all names below one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern {
    /// In lower case, without the leading `*.`.
    name: String,
    wildcard: bool,
}

impl NamePattern {
    /// Parses `name` or `*.name`. `None` if it is empty, or has a star anywhere else.
    pub fn parse(text: &str) -> Option<Self> {
        let (wildcard, name) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        (!name.is_empty() && !name.contains('*')).then_some(Self { name, wildcard })
    }

    /// Whether `name` is this name, or one below it where this is a wildcard. Compares without case;
    /// a trailing dot is ignored.
    pub fn matches(&self, name: &str) -> bool {
        let name = name.trim_end_matches('.').as_bytes();
        let pattern = self.name.as_bytes();
        if !self.wildcard {
            return name.eq_ignore_ascii_case(pattern);
        }
        name.len() > pattern.len() + 1
            && name[name.len() - pattern.len()..].eq_ignore_ascii_case(pattern)
            && name[name.len() - pattern.len() - 1] == b'.'
    }
}

/// Servers among which one is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// For logs and counters.
    pub name: String,
    /// How one is chosen.
    pub balance: Balance,
    /// The choice.
    pub servers: Vec<Server>,
    /// What the servers are told about the client.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// How long a server may take to answer a SYN before the next one is tried.
    pub connect_timeout: Duration,
    /// How long a server that refused or did not answer is passed over.
    pub retry_after: Duration,
}

/// A server of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where it listens.
    pub address: Endpoint,
}

/// How a server is chosen from a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Each in turn.
    RoundRobin,
    /// The one with the fewest sessions at the moment; ties go round.
    LeastConnections,
    /// By what the client's first data shows (server name, or host and path): the same content meets the same server, as long
    /// as that is there. Each in turn where it shows nothing.
    Content,
}

/// Version of the PROXY protocol header that precedes the client's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// One line of text.
    V1,
    /// Binary.
    V2,
}

/// Who finds out that the active node has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Detector {
    /// The standby itself, by the silence of its peer.
    #[default]
    Automatic,
    /// A third machine, which also redirects the packets: a node takes over only when it is told to
    /// ([`Order`](crate::pair::order::Order)).
    External,
}

/// How the nodes of a pair watch each other, and what they wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairConfig {
    /// `false`: this node has no peer and never waits for one.
    pub enabled: bool,
    /// Number of heartbeat paths to the peer.
    pub paths: u8,
    /// Who decides that a takeover is due.
    pub detector: Detector,
    /// Time between heartbeats.
    pub heartbeat_interval: Duration,
    /// Silence on every path for this long means that the peer is dead.
    pub detection_timeout: Duration,
    /// How long a starting node listens for its peer before it serves alone.
    pub join_timeout: Duration,
    /// After a takeover, how long segments of unknown connections are met with silence instead of a reset.
    pub quiet_time: Duration,
    /// A standby that does not confirm a record for this long is dropped and synchronised anew.
    pub confirm_timeout: Duration,
}

impl PairConfig {
    /// A node without a peer.
    pub fn alone() -> Self {
        PairConfig { enabled: false, paths: 0, ..Self::default() }
    }
}

impl Default for PairConfig {
    fn default() -> Self {
        PairConfig {
            enabled: true,
            paths: 1,
            detector: Detector::Automatic,
            heartbeat_interval: Duration::from_millis(20),
            detection_timeout: Duration::from_millis(100),
            join_timeout: Duration::from_millis(1_000),
            quiet_time: Duration::from_secs(5),
            confirm_timeout: Duration::from_millis(1_000),
        }
    }
}

/// How long things may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// How long a session is remembered after both ends closed it.
    pub time_wait: Duration,
    /// How long a session is remembered after a reset.
    pub reset_linger: Duration,
    /// How long a client may take to acknowledge the SYN-ACK of a direct listener.
    pub handshake: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            time_wait: Duration::from_secs(60),
            reset_linger: Duration::from_secs(10),
            handshake: Duration::from_secs(60),
        }
    }
}

/// Bounds on everything that strangers can make grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sessions, including those in TIME-WAIT (which give way to new ones).
    pub sessions: u32,
    /// Connections that are being opened and have a server to wait for, or first data to look at.
    pub openings: u32,
    /// Half-open connections of direct listeners above which clients are challenged with a cookie.
    pub half_open: u32,
    /// Bytes of one stream of a terminated session that are held: received, and not acknowledged by whom they are for.
    /// No sender is shown a larger window. Connections that are open keep room for what it was when they were opened, and a
    /// smaller value holds for them, too.
    pub terminated_stream_bytes: u32,
    /// Bytes that all terminated sessions hold together. From half of it on the windows shown shrink, and above it payload
    /// is dropped: its senders have it still.
    pub terminated_bytes: u64,
}

/// What may be chosen for [`Limits::terminated_stream_bytes`]: at least a window without scaling, at most what a connection
/// can be expected to have under way.
pub const TERMINATED_STREAM_BYTES: RangeInclusive<u32> = 64 << 10..=64 << 20;

impl Default for Limits {
    fn default() -> Self {
        Limits {
            sessions: 1_048_576,
            openings: 16_384,
            half_open: 1_024,
            terminated_stream_bytes: 2 << 20,
            terminated_bytes: 1 << 30,
        }
    }
}

/// Why a configuration cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Two listeners claim the same address and port.
    #[error("listeners \"{0}\" and \"{1}\" both listen on {2}")]
    OverlappingListeners(String, String, Endpoint),
    /// A listener or route names a pool that is not there.
    #[error("listener \"{0}\" refers to a pool that does not exist")]
    NoSuchPool(String),
    /// A pool has no servers.
    #[error("pool \"{0}\" has no servers")]
    EmptyPool(String),
    /// A direct listener cannot look at data.
    #[error("listener \"{0}\" has routes, which need the inspecting mode")]
    RoutesOnDirect(String),
    /// A listener leads nowhere.
    #[error("listener \"{0}\" has neither a default pool nor routes")]
    Nowhere(String),
    /// The client's and the server's address are of different families.
    #[error("listener \"{0}\" and a server of pool \"{1}\" are of different IP versions")]
    FamilyMismatch(String, String),
    /// There is no source address for connections to a server.
    #[error("pool \"{0}\" has a server at {1}, but there is no source address of that IP version")]
    NoSourceAddress(String, Endpoint),
    /// Times that contradict each other.
    #[error("the detection timeout must be at least twice the heartbeat interval")]
    DetectionTooShort,
    /// A record that comes with the first data cannot come before a connection of the node's own.
    #[error(
        "listener \"{0}\" terminates its sessions, so they are synchronised when they are established"
    )]
    TerminatesUntold(String),
    /// A listener that waits for no standby cannot insist on one.
    #[error(
        "listener \"{0}\" refuses connections without a standby, but replicates asynchronously"
    )]
    RefusesAsync(String),
    /// A listener would never take a connection.
    #[error("listener \"{0}\" refuses connections without a standby, and there is no peer")]
    RefusesAlone(String),
    /// A tunnel address is something else, too.
    #[error("{0} is a tunnel address, and a virtual or source address as well")]
    TunnelAddressTaken(IpAddr),
    /// Packets cannot be tunnelled to a server's agent.
    #[error(
        "server {0} has an agent, but the node or the agent has no tunnel address of that IP version"
    )]
    NoTunnelAddress(Endpoint),
    /// A target would take packets from a virtual address for its own.
    #[error(
        "server {0} has an agent, so it has the virtual addresses, too: connections to it must come from another source address"
    )]
    SourceIsVirtual(Endpoint),
    /// Nowhere to migrate to.
    #[error("listener \"{0}\" has a route that migrates to a pool in which no server has an agent")]
    NoAgent(String),
    /// A migrated connection has no place for a header.
    #[error(
        "listener \"{0}\" has a route that migrates to a pool with a PROXY header: the server sees the client's address as it is"
    )]
    HeaderOnMigration(String),
    /// A limit or MTU out of range.
    #[error("{0}")]
    OutOfRange(&'static str),
}

impl Config {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// The first contradiction found.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.validate_listeners()?;
        self.validate_pools()?;
        self.migration.validate(self)?;
        let pair = &self.pair;
        if pair.enabled && pair.detection_timeout < pair.heartbeat_interval * 2 {
            return Err(Invalid::DetectionTooShort);
        }
        if pair.enabled && pair.paths == 0 {
            return Err(Invalid::OutOfRange("a pair needs at least one heartbeat path"));
        }
        if self.mtu < 576 {
            return Err(Invalid::OutOfRange("the MTU must be at least 576"));
        }
        if self.limits.sessions == 0 || self.limits.sessions > 1 << 28 {
            return Err(Invalid::OutOfRange("the limit of sessions must be from 1 to 268435456"));
        }
        if self.limits.openings == 0 || self.limits.openings > 1 << 24 {
            return Err(Invalid::OutOfRange("the limit of openings must be from 1 to 16777216"));
        }
        if !TERMINATED_STREAM_BYTES.contains(&self.limits.terminated_stream_bytes) {
            let range = "terminated_stream_bytes must be from 65536 to 67108864";
            return Err(Invalid::OutOfRange(range));
        }
        if self.limits.terminated_bytes < u64::from(self.limits.terminated_stream_bytes) {
            let bound = "terminated_bytes must be at least terminated_stream_bytes";
            return Err(Invalid::OutOfRange(bound));
        }
        Ok(())
    }

    fn validate_listeners(&self) -> Result<(), Invalid> {
        for (i, listener) in self.listeners.iter().enumerate() {
            let name = || listener.name.clone();
            if let Some(other) = self.listeners[..i].iter().find(|o| o.address == listener.address)
            {
                return Err(Invalid::OverlappingListeners(
                    other.name.clone(),
                    name(),
                    listener.address,
                ));
            }
            if listener.opening == OpeningMode::Direct && !listener.routes.is_empty() {
                return Err(Invalid::RoutesOnDirect(name()));
            }
            if listener.termination == Termination::Terminate
                && listener.protection.synchronise == Synchronise::FirstData
            {
                return Err(Invalid::TerminatesUntold(name()));
            }
            if listener.protection.needs_standby() {
                if !listener.protection.waits() {
                    return Err(Invalid::RefusesAsync(name()));
                }
                if !self.pair.enabled {
                    return Err(Invalid::RefusesAlone(name()));
                }
            }
            let pools: BTreeSet<PoolId> =
                listener.routes.iter().map(|r| r.pool).chain(listener.default_pool).collect();
            if pools.is_empty() {
                return Err(Invalid::Nowhere(name()));
            }
            for id in pools {
                let pool = self.pool(id).ok_or_else(|| Invalid::NoSuchPool(name()))?;
                let v4 = listener.address.addr.is_ipv4();
                if pool.servers.iter().any(|s| s.address.addr.is_ipv4() != v4) {
                    return Err(Invalid::FamilyMismatch(name(), pool.name.clone()));
                }
            }
        }
        Ok(())
    }

    fn validate_pools(&self) -> Result<(), Invalid> {
        for pool in &self.pools {
            if pool.servers.is_empty() {
                return Err(Invalid::EmptyPool(pool.name.clone()));
            }
            for server in &pool.servers {
                let v4 = server.address.addr.is_ipv4();
                if !self.source_addresses.iter().any(|a| a.is_ipv4() == v4) {
                    return Err(Invalid::NoSourceAddress(pool.name.clone(), server.address));
                }
            }
        }
        Ok(())
    }

    /// The pool with that index.
    pub fn pool(&self, id: PoolId) -> Option<&Pool> {
        self.pools.get(usize::from(id.0))
    }

    /// Every address that the active node answers for: listeners' and source addresses, each once.
    pub fn virtual_addresses(&self) -> Vec<IpAddr> {
        let all =
            self.listeners.iter().map(|l| l.address.addr).chain(self.source_addresses.clone());
        all.collect::<BTreeSet<_>>().into_iter().collect()
    }
}
