//! A client, a balancer, and a machine with the agent, each in a namespace of its own.

pub(crate) mod balancer;

use std::{
    env, fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use outlive_host::{
    agent::{Agent, Stopper},
    settings::Settings,
    status,
};
use outlive_net::{
    netlink::{AddressOptions, BridgeOptions, Netlink, Route, RouteTarget},
    netns::Namespace,
    program::end_with_starter,
    sysctl, tun,
};
use outlive_node::key::PairKey;
use serde_json::Value;
use tempfile::TempDir;

/// IPv4, IPv6.
pub(crate) const CLIENT: [&str; 2] = ["10.77.0.10", "fd77::10"];
const BALANCER: [&str; 2] = ["10.77.0.1", "fd77::1"];
const TARGET: [&str; 2] = ["10.77.0.7", "fd77::7"];
/// A client behind a router, and the router's two sides.
pub(crate) const FAR_CLIENT: [&str; 2] = ["10.88.0.10", "fd88::10"];
const ROUTER: [&str; 2] = ["10.77.0.3", "fd77::3"];
const ROUTER_FAR: [&str; 2] = ["10.88.0.3", "fd88::3"];
pub(crate) const VIRTUAL: [&str; 2] = ["10.78.0.100", "fd78::100"];
pub(crate) const TUNNEL_BALANCER: [&str; 2] = ["10.79.0.1", "fd79::1"];
pub(crate) const TUNNEL_TARGET: [&str; 2] = ["10.79.0.7", "fd79::7"];
pub(crate) const CHANNEL: &str = "10.77.0.7:7410";
const AGENT: &str = "OUTLIVE_TEST_AGENT";
/// Only against hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Stage {
    pub(crate) client: Namespace,
    pub(crate) balancer: Namespace,
    pub(crate) target: Namespace,
    bridge: Namespace,
    pub(crate) directory: TempDir,
    pub(crate) key: PairKey,
}

/// Whether this user may make what these tests need; if not, a line says so.
fn may() -> bool {
    let namespace = Namespace::create().map(drop).map_err(|error| error.to_string());
    let reason = tun::check_driver().map_err(|error| error.to_string()).and(namespace);
    if let Err(reason) = &reason {
        eprintln!("SKIPPED: this test needs a privileged user: {reason}");
    }
    reason.is_ok()
}

/// Whether a program is there; if not, a line says so.
pub(crate) fn has(program: &str) -> bool {
    let there = Command::new(program).arg("-V").output().is_ok();
    if !there {
        eprintln!("SKIPPED: this test needs {program}");
    }
    there
}

/// A host on the bridge.
fn host(bridge: &Namespace, number: u8, addresses: [&str; 2]) -> Namespace {
    let host = Namespace::create().unwrap();
    let (netlink, there) = (bridge.netlink().unwrap(), host.netlink().unwrap());
    let port = format!("port{number}");
    netlink.add_veth(&port, "eth0", Some(&host)).unwrap();
    netlink.set_master(&port, Some("br0")).unwrap();
    netlink.set_up(&port, true).unwrap();
    there.set_up("eth0", true).unwrap();
    addresses.iter().for_each(|it| address(&there, "eth0", it));
    host
}

fn address(netlink: &Netlink, dev: &str, address: &str) {
    let address: IpAddr = address.parse().unwrap();
    let net = IpNet::new_assert(address, if address.is_ipv4() { 24 } else { 64 });
    let options = AddressOptions { no_dad: true, ..AddressOptions::default() };
    netlink.add_address(dev, net, options).unwrap();
}

fn lead(from: &Namespace, to: &str, via: &str) {
    let to: IpAddr = to.parse().unwrap();
    let target = RouteTarget::Gateway { address: via.parse().unwrap(), device: None };
    from.netlink().unwrap().add_route(&Route::new(to.into(), target)).unwrap();
}

fn forward() {
    for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        sysctl::write(key, "1").unwrap();
    }
}

impl Stage {
    pub(crate) fn new() -> Option<Self> {
        may().then(|| {
            let bridge = Namespace::create().unwrap();
            let netlink = bridge.netlink().unwrap();
            netlink.add_bridge("br0", BridgeOptions::default()).unwrap();
            netlink.set_up("br0", true).unwrap();
            let stage = Stage {
                client: host(&bridge, 10, CLIENT),
                balancer: host(&bridge, 1, BALANCER),
                target: host(&bridge, 7, TARGET),
                bridge,
                directory: tempfile::tempdir().unwrap(),
                key: PairKey::generate().unwrap(),
            };
            stage.lead();
            stage.key.host("web1").save(&stage.path("web1.key")).unwrap();
            stage
        })
    }

    fn lead(&self) {
        for version in [0, 1] {
            lead(&self.client, VIRTUAL[version], BALANCER[version]);
            lead(&self.balancer, TUNNEL_TARGET[version], TARGET[version]);
            lead(&self.target, TUNNEL_BALANCER[version], BALANCER[version]);
        }
        self.balancer.run(forward).unwrap();
        // As strict as some distributions are.
        let strict = || sysctl::write("net/ipv4/conf/all/rp_filter", "1");
        self.target.run(strict).unwrap().unwrap();
    }

    /// A client behind a router: the router, with the interface `far` to the client, and the client.
    pub(crate) fn far(&self) -> [Namespace; 2] {
        let (router, client) = (host(&self.bridge, 3, ROUTER), Namespace::create().unwrap());
        let (near, there) = (router.netlink().unwrap(), client.netlink().unwrap());
        near.add_veth("far", "eth0", Some(&client)).unwrap();
        near.set_up("far", true).unwrap();
        there.set_up("eth0", true).unwrap();
        router.run(forward).unwrap();
        for version in [0, 1] {
            address(&near, "far", ROUTER_FAR[version]);
            address(&there, "eth0", FAR_CLIENT[version]);
            lead(&router, VIRTUAL[version], BALANCER[version]);
            lead(&client, VIRTUAL[version], ROUTER_FAR[version]);
            for host in [&self.balancer, &self.target] {
                lead(host, FAR_CLIENT[version], ROUTER[version]);
            }
        }
        [router, client]
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes the agent's configuration, with these services.
    fn configure(&self, services: &str) -> PathBuf {
        let text = format!(
            r#"
[host]
listen = "{CHANNEL}"
key_file = "web1.key"
nodes = ["10.77.0.1"]
set_sysctls = true
status_socket = "host.sock"
[tunnel]
addresses = ["10.79.0.7", "fd79::7"]
nodes = ["10.79.0.1", "fd79::1"]
[timeouts]
linger = "50ms"
{services}
"#
        );
        let file = self.path("host.toml");
        fs::write(&file, &text).unwrap();
        file
    }

    /// Starts the agent as a process of its own, by running this test program again for the test `name`, which is to call
    /// [`be_agent`].
    pub(crate) fn agent_process(&self, name: &str, services: &str) -> Process {
        let file = self.configure(services);
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", name, "--nocapture"]).env(AGENT, &file);
        let command = end_with_starter(self.target.enclose(&mut command));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let process = Process { socket: self.path("host.sock"), child };
        let begin = Instant::now();
        while status::ask(&process.socket).is_err() {
            assert!(begin.elapsed() < PATIENCE, "the agent does not begin");
            std::thread::yield_now();
        }
        process
    }

    /// Starts the agent, with these services.
    pub(crate) fn agent(&self, services: &str) -> Running {
        let file = self.configure(services);
        let settings = Settings::load(&file).unwrap_or_else(|problems| panic!("{}", problems[0]));
        let socket = settings.status_socket.clone();
        let agent = self.target.run(|| Agent::start(settings)).unwrap().unwrap();
        let stopper = agent.stopper();
        let thread = self.target.spawn("agent", move || agent.run().unwrap()).unwrap();
        Running { socket, stopper, thread: Some(thread) }
    }

    /// Runs curl at the client, to one of the services.
    pub(crate) fn curl(&self, ipv6: bool, rest: &[&str]) -> Output {
        let mut command = Command::new("curl");
        command.args(["-sS", "--fail", "--max-time", "60", "--noproxy", "*", "-g"]);
        command.arg(if ipv6 { "-6" } else { "-4" }).args(rest);
        self.client.enclose(&mut command).output().unwrap()
    }

    /// The start of a URL.
    pub(crate) fn url(&self, ipv6: bool, port: u16) -> String {
        format!("http://{}", virtual_address(ipv6, port))
    }
}

pub(crate) fn virtual_address(ipv6: bool, port: u16) -> SocketAddr {
    SocketAddr::new(VIRTUAL[usize::from(ipv6)].parse().unwrap(), port)
}

/// An agent that runs.
pub(crate) struct Running {
    socket: PathBuf,
    stopper: Stopper,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

/// An agent that runs as a process of its own. Dropping it kills it.
pub(crate) struct Process {
    socket: PathBuf,
    child: Child,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// If [`Stage::agent_process`] has started this process, is its agent until it is killed.
pub(crate) fn be_agent() {
    let Some(file) = env::var_os(AGENT) else { return };
    let settings = Settings::load(Path::new(&file)).unwrap_or_else(|all| panic!("{}", all[0]));
    Agent::start(settings).unwrap().run().unwrap();
}

/// What is asked of an agent.
pub(crate) trait Asked {
    fn socket(&self) -> &Path;

    fn status(&self) -> Value {
        serde_json::from_str(&status::ask(self.socket()).unwrap()).unwrap()
    }

    /// A number of the status: `packets.mute`.
    fn number(&self, path: &str) -> u64 {
        let status = self.status();
        let found = path.split('.').fold(&status, |value, key| &value[key]);
        found.as_u64().unwrap_or_else(|| panic!("{path} in {status}"))
    }

    /// Waits until a number of the status is this.
    fn wait(&self, path: &str, wanted: u64) {
        self.wait_for(path, |found| found == wanted);
    }

    /// Waits until a number of the status is as wanted.
    fn wait_for(&self, path: &str, wanted: impl Fn(u64) -> bool) {
        let begin = Instant::now();
        while !wanted(self.number(path)) {
            assert!(begin.elapsed() < PATIENCE, "{path} does not become so: {}", self.status());
            std::thread::yield_now();
        }
    }
}

impl Asked for Running {
    fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Asked for Process {
    fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Running {
    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of its own has been told already.
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}
