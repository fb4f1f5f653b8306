//! A pair of Outlive nodes, and their configuration. This is the one place of the lab that knows
//! what a configuration looks like.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Map, Value};
use tempfile::TempDir;

use super::{Cluster, Machine, Subject};
use crate::clock::retry_until;
use crate::error::LabError;
use crate::host::Host;
use crate::link::INTERFACE;
use crate::node::{DIRECTORY, Node, Status};
use crate::scratch;
use crate::topology::{addresses, tunnel_addresses};

/// The last part of the virtual addresses: 10.77.0.100 and fd77::100.
pub const VIRTUAL: u8 = 100;

/// The last part of the addresses under which servers see the pair.
pub const SOURCE: u8 = 101;

/// The pair's key, in a directory of its own.
const KEY: &str = "pair.key";

/// In [`PairOptions::more_tables`], stands for the node's own addresses in the tunnel, as a list.
pub const OWN_TUNNEL: &str = "{tunnel}";

/// How long a pair may take to find itself.
pub const FORMING: Duration = Duration::from_secs(10);

/// How long a program may take to stop when it is asked to.
const STOPPING: Duration = Duration::from_secs(20);

/// What a pair is to do.
#[derive(Debug, Clone)]
pub struct PairOptions {
    /// Ports of the virtual addresses, each leading to the same port of the servers.
    pub ports: Vec<u16>,
    /// Ports whose listeners look at the first data before they choose a server.
    pub inspected_ports: Vec<u16>,
    /// The listeners of `ports` terminate connections instead of splicing them.
    pub terminate: bool,
    /// Further lines of the `[peer]` table, such as `detection_timeout = "100ms"`.
    pub peer_lines: String,
    /// Further lines of each listener.
    pub listener_lines: String,
    /// Further lines at the end of each pool.
    pub pool_lines: String,
    /// Further tables at the end.
    pub more_tables: String,
    /// Servers that are not hosts of the lab.
    pub far_servers: Vec<IpAddr>,
}

impl PairOptions {
    /// Direct listeners at `ports`, and otherwise what is usual.
    pub fn direct(ports: &[u16]) -> Self {
        Self {
            ports: ports.to_vec(),
            inspected_ports: Vec::new(),
            terminate: false,
            peer_lines: String::new(),
            listener_lines: String::new(),
            pool_lines: String::new(),
            more_tables: String::new(),
            far_servers: Vec::new(),
        }
    }
}

/// Two nodes that share the virtual addresses.
pub struct Pair {
    /// The node that calls itself a.
    pub a: Node,
    /// The node that calls itself b.
    pub b: Node,
    key: TempDir,
}

impl Pair {
    /// Starts `program` on both hosts and waits until one is active and the other synchronised.
    pub fn start(
        program: &Path,
        (a, b): (Host, Host),
        servers: &[&Host],
        options: &PairOptions,
    ) -> Result<Self, LabError> {
        let failed = |source| LabError::Program { program: program.display().to_string(), source };
        let key = scratch::directory().map_err(failed)?;
        let key_file = key.path().join(KEY);
        generate_key(program, &key_file)?;
        let configs = config_texts([a.number(), b.number()], &key_file, servers, options);
        let mut pair = Self {
            a: Node::new(a, program, &configs[0])?,
            b: Node::new(b, program, &configs[1])?,
            key,
        };
        pair.a.start()?;
        pair.b.start()?;
        retry_until(FORMING, "the pair to be formed", || pair.is_whole())?;
        Ok(pair)
    }

    /// Writes both nodes another configuration, and has them obey it.
    pub fn reconfigure(&self, servers: &[&Host], options: &PairOptions) -> Result<(), LabError> {
        let numbers = [self.a.host().number(), self.b.host().number()];
        let configs = config_texts(numbers, &self.key_file(), servers, options);
        self.a.configure(&configs[0])?;
        self.b.configure(&configs[1])?;
        self.a.reload()
    }

    /// The file with the key that both nodes share.
    pub fn key_file(&self) -> PathBuf {
        self.key.path().join(KEY)
    }

    /// Whether one node is active and the other could take over, by what both say.
    pub fn is_whole(&mut self) -> Result<bool, LabError> {
        let settled = |role: &str| role == "active" || role == "standby";
        let ready = |status: &Status| settled(&status.role) && status.survival.survives;
        Ok(self.a.is(ready)? && self.b.is(ready)?)
    }

    /// The active node and the other one, by what they say themselves.
    pub fn by_role(&mut self) -> Result<(&mut Node, &mut Node), LabError> {
        let active = |status: &Status| status.role == "active";
        if self.a.is(active)? {
            return Ok((&mut self.a, &mut self.b));
        }
        if self.b.is(active)? {
            return Ok((&mut self.b, &mut self.a));
        }
        Err(LabError::NobodyActive)
    }
}

/// One node without a standby.
pub struct Alone {
    node: Node,
    _idle: Host,
}

impl Alone {
    /// Starts `program` on the first of the hosts and waits until it serves.
    pub fn start(
        program: &Path,
        (a, b): (Host, Host),
        servers: &[&Host],
        options: &PairOptions,
    ) -> Result<Self, LabError> {
        let config = node_text("a", "") + &service_text(servers, options);
        let mut alone = Self { node: Node::new(a, program, &config)?, _idle: b };
        alone.node.start()?;
        retry_until(FORMING, "the node to serve", || {
            alone.node.is(|status| status.role == "active")
        })?;
        Ok(alone)
    }
}

impl Subject for Alone {
    fn name(&self) -> &str {
        "outlive, no standby"
    }

    fn address(&self, ipv6: bool, port: u16) -> SocketAddr {
        SocketAddr::new(addresses(VIRTUAL)[usize::from(ipv6)], port)
    }
}

impl Subject for Pair {
    fn name(&self) -> &str {
        "outlive"
    }

    fn address(&self, ipv6: bool, port: u16) -> SocketAddr {
        SocketAddr::new(addresses(VIRTUAL)[usize::from(ipv6)], port)
    }
}

impl Cluster for Pair {
    fn machines(&mut self) -> [&mut dyn Machine; 2] {
        [&mut self.a, &mut self.b]
    }

    fn is_whole(&mut self) -> Result<bool, LabError> {
        Pair::is_whole(self)
    }

    fn describe(&mut self) -> Result<Map<String, Value>, LabError> {
        let status = self.by_role()?.0.status()?;
        let mut map = Map::new();
        map.insert("epoch".to_owned(), status.epoch.clone().into());
        map.insert("counters".to_owned(), status.counters().into());
        Ok(map)
    }
}

impl Machine for Node {
    fn host(&self) -> &Host {
        Node::host(self)
    }

    fn host_mut(&mut self) -> &mut Host {
        Node::host_mut(self)
    }

    fn start(&mut self) -> Result<(), LabError> {
        Node::start(self)
    }

    fn kill(&mut self) -> Result<(), LabError> {
        Node::kill(self)
    }

    fn kill_all(&mut self) -> Result<(), LabError> {
        Node::kill_all(self)
    }

    fn stop(&mut self) -> Result<(), LabError> {
        self.terminate(STOPPING)
    }

    fn hand_over(&mut self) -> Result<(), LabError> {
        Node::hand_over(self)
    }

    fn freeze(&self) -> Result<(), LabError> {
        Node::freeze(self)
    }

    fn thaw(&self) -> Result<(), LabError> {
        Node::thaw(self)
    }

    fn serves(&mut self) -> Result<bool, LabError> {
        self.is(|status| status.role == "active")
    }

    fn log(&self) -> String {
        Node::log(self)
    }

    fn took_over_at(&self) -> Option<Duration> {
        Node::took_over_at(self)
    }
}

fn generate_key(program: &Path, to: &Path) -> Result<(), LabError> {
    let failed = |source| LabError::Program { program: program.display().to_string(), source };
    let output =
        Command::new(program).args(["keygen", "--output"]).arg(to).output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(failed(std::io::Error::other(format!("keygen: {}", said.trim()))))
}

/// The configurations of both nodes, which are hosts of these numbers.
fn config_texts(
    [a, b]: [u8; 2],
    key_file: &Path,
    servers: &[&Host],
    options: &PairOptions,
) -> [String; 2] {
    let text = |name, own, peer| config_text(name, own, peer, key_file, servers, options);
    [text("a", a, b), text("b", b, a)]
}

/// The configuration of one node of a pair.
fn config_text(
    name: &str,
    own: u8,
    peer: u8,
    key_file: &Path,
    servers: &[&Host],
    options: &PairOptions,
) -> String {
    let tunnel = tunnel_addresses(own).map(|address| format!("\"{address}\"")).join(", ");
    let [own, peer] = [own, peer].map(|number| addresses(number)[0]);
    let peer = format!(
        r#"
[peer]
state = {{ listen = "{own}:7400", peer = "{peer}:7400" }}
heartbeat = [{{ local = "{own}:7401", peer = "{peer}:7401" }}]
key_file = "{}"
{}
"#,
        key_file.display(),
        options.peer_lines,
    );
    node_text(name, &peer) + &service_text(servers, options).replace(OWN_TUNNEL, &tunnel)
}

/// What belongs to the node itself, and to its peer if there is one.
fn node_text(name: &str, peer: &str) -> String {
    let sources = addresses(SOURCE).map(|address| format!("\"{address}\"")).join(", ");
    format!(
        r#"[node]
name = "{name}"
interfaces = ["{INTERFACE}"]
set_sysctls = true
source_addresses = [{sources}]
admin_socket = "{DIRECTORY}/admin.sock"
{peer}"#
    )
}

/// What both nodes have in common: listeners and pools.
fn service_text(servers: &[&Host], options: &PairOptions) -> String {
    let mut text = String::new();
    let mode = if options.terminate { "terminate" } else { "direct" };
    let direct = options.ports.iter().map(|&port| (port, mode));
    let inspected = options.inspected_ports.iter().map(|&port| (port, "inspect"));
    for (port, mode) in direct.chain(inspected) {
        let listen = addresses(VIRTUAL).map(|ip| format!("\"{}\"", SocketAddr::new(ip, port)));
        let both =
            servers.iter().flat_map(|host| [host.socket(false, port), host.socket(true, port)]);
        let far = options.far_servers.iter().map(|&ip| SocketAddr::new(ip, port));
        let servers: Vec<String> = both.chain(far).map(|at| format!("\"{at}\"")).collect();
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            r#"
[[listener]]
name = "port-{port}"
address = [{}]
mode = "{mode}"
pool = "port-{port}"
{}

[[pool]]
name = "port-{port}"
servers = [{}]
{}
"#,
            listen.join(", "),
            options.listener_lines,
            servers.join(", "),
            options.pool_lines,
        );
    }
    text + "\n" + &options.more_tables
}
