//! Building setups: the addresses, configurations and habits that scenarios share.

mod migration;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use outlive_proxy::config::{
    Balance, Config, Detector, Limits, Listener, NodeId, OpeningMode, PairConfig, Pool, PoolId,
    Protection, ProxyProtocol, Route, Server, Termination, Timeouts,
};
use outlive_tcp::wire::Endpoint;

use crate::{
    content::{FlowId, Preamble},
    host::Service,
    network::Link,
    script::{Pace, Step},
    setup::{Clocks, Fault, FlowSetup, HostSetup, Setup, Start},
    stack::StackSetup,
    world::{MEETING, WAITING},
};

/// The port that servers listen on.
const SERVER_PORT: u16 = 8_080;
/// The port of the first client of a scenario; five digits, so that all PROXY headers are equally long.
const FIRST_PORT: u16 = 40_000;

/// The machines were not started at the same time, and do not agree on what time it is.
const STANDBY_CLOCKS: Clocks = Clocks { boot: Duration::from_secs(25_000), wall_us: -3_000_000 };

/// A setup in the making: one listener, one client host, one server host, until told otherwise.
#[derive(Clone, Debug)]
pub struct Scenario {
    v6: bool,
    opening: OpeningMode,
    routes: Vec<Route>,
    proxy_protocol: Option<ProxyProtocol>,
    /// By pool: whether each of its servers accepts connections.
    pools: Vec<Vec<bool>>,
    client: StackSetup,
    server: StackSetup,
    script: Vec<Step>,
    client_pace: Pace,
    server_pace: Pace,
    flows: Vec<(Start, u16, Preamble, Vec<Step>)>,
    link: Link,
    faults: Vec<(Duration, Fault)>,
    /// When node B starts, if not with node A: so long after the beginning of the load.
    standby_joins: Option<Duration>,
    retry_after: Duration,
    protection: Protection,
    termination: Termination,
    fast_path: usize,
    detector: bool,
    clocks: [Clocks; 2],
    paths: u8,
    quiet_time: Duration,
    idle_timeout: Duration,
    timeouts: Timeouts,
    limits: Limits,
    aftermath: Duration,
    migration: Option<migration::Moves>,
}

impl Scenario {
    /// A direct listener, and a server that does `script` with every connection.
    pub fn direct(script: &[Step]) -> Self {
        Scenario {
            v6: false,
            opening: OpeningMode::Direct,
            routes: Vec::new(),
            proxy_protocol: None,
            pools: vec![vec![true]],
            client: StackSetup::default(),
            server: StackSetup::default(),
            script: script.to_vec(),
            client_pace: Pace::Eager,
            server_pace: Pace::Eager,
            flows: Vec::new(),
            link: Link::default(),
            faults: Vec::new(),
            standby_joins: None,
            retry_after: Duration::from_secs(5),
            protection: Protection::default(),
            termination: Termination::Splice,
            fast_path: 0,
            detector: false,
            clocks: [Clocks::default(), STANDBY_CLOCKS],
            paths: 1,
            quiet_time: PairConfig::default().quiet_time,
            idle_timeout: Duration::from_secs(600),
            timeouts: Timeouts::default(),
            limits: Limits {
                sessions: 1_000,
                openings: 1_000,
                half_open: 500,
                ..Limits::default()
            },
            aftermath: Duration::ZERO,
            migration: None,
        }
    }

    /// An inspecting listener.
    pub fn inspect(script: &[Step]) -> Self {
        let opening = OpeningMode::Inspect { limit: 4_096, timeout: Duration::from_secs(3) };
        Scenario { opening, ..Self::direct(script) }
    }

    /// A client that does `script`, beginning with this preamble, which is part of what it sends.
    #[must_use]
    pub fn client(mut self, start: Start, preamble: Preamble, script: &[Step]) -> Self {
        let port = FIRST_PORT + self.flows.len() as u16;
        self.flows.push((start, port, preamble, script.to_vec()));
        self
    }

    /// A client on the same port as the first one.
    #[must_use]
    pub fn client_on_first_port(
        mut self,
        start: Start,
        preamble: Preamble,
        script: &[Step],
    ) -> Self {
        self.flows.push((start, FIRST_PORT, preamble, script.to_vec()));
        self
    }

    /// What the listener does for its sessions' survival.
    #[must_use]
    pub fn protection(mut self, protection: Protection) -> Self {
        self.protection = protection;
        self
    }

    /// The listener terminates its sessions.
    #[must_use]
    pub fn terminate(mut self) -> Self {
        self.termination = Termination::Terminate;
        self
    }

    /// IPv6 instead of IPv4.
    #[must_use]
    pub fn v6(mut self) -> Self {
        self.v6 = true;
        self
    }

    /// Servers are told of the client.
    #[must_use]
    pub fn proxy_protocol(mut self, version: ProxyProtocol) -> Self {
        self.proxy_protocol = Some(version);
        self
    }

    /// What the first pool's servers do: accept connections, or refuse them.
    #[must_use]
    pub fn servers(mut self, accepting: &[bool]) -> Self {
        self.pools[0] = accepting.to_vec();
        self
    }

    /// One more pool with one server, and a route that leads there.
    #[must_use]
    pub fn route(mut self, route: Route) -> Self {
        self.pools.push(vec![true]);
        self.routes.push(Route { pool: PoolId(self.pools.len() as u16 - 1), ..route });
        self
    }

    /// The stacks of the client and of the servers.
    #[must_use]
    pub fn stacks(mut self, client: StackSetup, server: StackSetup) -> Self {
        (self.client, self.server) = (client, server);
        self
    }

    /// How clients and servers read.
    #[must_use]
    pub fn paces(mut self, client: Pace, server: Pace) -> Self {
        (self.client_pace, self.server_pace) = (client, server);
        self
    }

    /// The nodes leave established sessions to their kernels, which have room for so many.
    #[must_use]
    pub fn fast_path(mut self, sessions: usize) -> Self {
        self.fast_path = sessions;
        self
    }

    /// An external detector decides who serves.
    #[must_use]
    pub fn detector(mut self) -> Self {
        self.detector = true;
        self
    }

    /// All links.
    #[must_use]
    pub fn link(mut self, link: Link) -> Self {
        self.link = link;
        self
    }

    /// Something goes wrong so long after the beginning of the load.
    #[must_use]
    pub fn fault(mut self, at: Duration, fault: Fault) -> Self {
        self.faults.push((at, fault));
        self
    }

    /// Node B starts so long after the beginning of the load.
    #[must_use]
    pub fn standby_joins(mut self, at: Duration) -> Self {
        self.standby_joins = Some(at);
        self
    }

    /// The clocks of the two machines.
    #[must_use]
    pub fn clocks(mut self, clocks: [Clocks; 2]) -> Self {
        self.clocks = clocks;
        self
    }

    /// Sequence numbers and timestamps of everybody pass zero soon after the beginning of the load.
    #[must_use]
    pub fn wraps(mut self) -> Self {
        (self.client.wraps, self.server.wraps) = (true, true);
        // The pair's clock in milliseconds, modulo 2^32, is that of the world's time.
        let wall_ms = crate::world::UNIX_US / 1_000 + 2_300;
        let wall_us = (wall_ms.next_multiple_of(1 << 32) - wall_ms) as i64 * 1_000;
        self.clocks = self.clocks.map(|clocks| Clocks { wall_us, ..clocks });
        self
    }

    /// So many heartbeat paths.
    #[must_use]
    pub fn paths(mut self, paths: u8) -> Self {
        self.paths = paths;
        self
    }

    /// Nodes that have just become active are silent for so long about what they do not know.
    #[must_use]
    pub fn quiet_time(mut self, time: Duration) -> Self {
        self.quiet_time = time;
        self
    }

    /// Sessions in which nothing is said for so long are forgotten.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// How long nodes remember what is over.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// How much there may be of everything.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The world goes on for so long when everything is done.
    #[must_use]
    pub fn aftermath(mut self, aftermath: Duration) -> Self {
        self.aftermath = aftermath;
        self
    }

    fn address(&self, subnet: u8, host: u8) -> IpAddr {
        if self.v6 {
            Ipv6Addr::new(0xfd00, 0, 0, u16::from(subnet), 0, 0, 0, u16::from(host)).into()
        } else {
            Ipv4Addr::new(10, 0, subnet, host).into()
        }
    }

    fn virtual_address(&self) -> Endpoint {
        Endpoint::new(self.address(0, 100), 443)
    }

    fn server_address(&self, pool: usize, server: usize) -> Endpoint {
        Endpoint::new(self.address(2, (10 * pool + server) as u8 + 1), SERVER_PORT)
    }

    fn config(&self, node: NodeId) -> Config {
        let pools = self.pools.iter().enumerate().map(|(p, servers)| Pool {
            name: format!("pool{p}"),
            balance: Balance::RoundRobin,
            servers: (0..servers.len())
                .map(|s| Server { address: self.server_address(p, s) })
                .collect(),
            proxy_protocol: self.proxy_protocol,
            connect_timeout: self.connect_timeout(),
            retry_after: self.retry_after,
        });
        let listener = Listener {
            name: "listener".into(),
            address: self.virtual_address(),
            opening: self.opening,
            routes: self.routes.clone(),
            default_pool: Some(PoolId(0)),
            idle_timeout: self.idle_timeout,
            protection: self.protection,
            termination: self.termination,
        };
        let config = Config {
            node,
            listeners: vec![listener],
            pools: pools.collect(),
            source_addresses: vec![self.address(0, 101)],
            migration: self.migration_of(node),
            pair: PairConfig {
                paths: self.paths,
                quiet_time: self.quiet_time,
                detector: if self.detector { Detector::External } else { Detector::Automatic },
                ..PairConfig::default()
            },
            timeouts: self.timeouts.clone(),
            limits: self.limits.clone(),
            mtu: 1_500,
        };
        config.validate().expect("scenarios make sense");
        config
    }

    /// The setup that follows.
    pub fn setup(&self, seed: u64) -> Setup {
        let client = self.address(1, 1);
        let mut hosts =
            vec![HostSetup { address: client, stack: self.client, services: Vec::new() }];
        let prefix = self.proxy_protocol.map_or(0, |version| {
            let from = Endpoint::new(client, FIRST_PORT);
            crate::content::proxy_header(version, from, self.virtual_address()).len()
        });
        for (p, servers) in self.pools.iter().enumerate() {
            for (s, accepts) in servers.iter().enumerate() {
                let service = Service {
                    port: SERVER_PORT,
                    script: self.script.clone(),
                    pace: self.server_pace,
                    prefix,
                };
                hosts.push(HostSetup {
                    address: self.server_address(p, s).addr,
                    stack: self.server,
                    services: if *accepts { vec![service] } else { Vec::new() },
                });
            }
        }
        let targets = self.targets();
        let flows = self.flows.iter().map(|(start, port, preamble, script)| FlowSetup {
            start: *start,
            host: 0,
            port: *port,
            listener: self.virtual_address(),
            preamble: preamble.clone(),
            script: script.clone(),
            pace: self.client_pace,
            proxy_protocol: self.proxy_protocol,
        });
        // Who starts alone gives up waiting, or is told to serve by a detector that has observed for a while.
        let waits = self.standby_joins.is_some() || self.detector;
        Setup {
            seed,
            configs: [self.config(NodeId::A), self.config(NodeId::B)],
            prelude: if waits { WAITING } else { MEETING },
            starts: [Duration::ZERO, self.standby_joins.map_or(Duration::ZERO, |at| WAITING + at)],
            hosts,
            targets,
            flows: flows.collect(),
            link: self.link,
            faults: self.faults.clone(),
            crash: None,
            clocks: self.clocks,
            aftermath: self.aftermath,
            fast_path: self.fast_path,
            detector: self.detector,
            trace: false,
            capture: None,
        }
    }
}

/// Length of a preamble: all flows of a scenario have equally long ones.
pub(crate) fn len(preamble: &Preamble) -> usize {
    preamble.bytes(FlowId(0)).len()
}
