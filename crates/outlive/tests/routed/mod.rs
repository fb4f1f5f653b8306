//! Two nodes that share no segment, behind a router on which a detector runs and moves the routes.
//!
//! ```text
//!   client ── 10.81.1.0/24 ──┐          ┌── 10.81.2.0/24 ── node a
//!                          router (detector)
//!   server ── 10.81.4.0/24 ──┘          └── 10.81.3.0/24 ── node b
//! ```
//!
//! The virtual address and the source address are in none of these networks, so nobody asks for them by ARP.

mod traffic;

use std::{
    fs,
    net::IpAddr,
    path::PathBuf,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use outlive_net::{
    netlink::{AddressOptions, BridgeOptions, Netlink, PortState, Route, RouteTarget},
    netns::Namespace,
};
use tempfile::TempDir;

use self::traffic::Traffic;
use crate::common::{Node, connect, echo_server, may, outlive, say};

const NODES: &str = r#"
[[listener]]
name = "echo"
address = ["10.81.100.1:7", "[fd81:100::1]:7"]
pool = "echo"

[[pool]]
name = "echo"
servers = ["10.81.4.1:7", "[fd81:4::1]:7"]
"#;

/// The router, the hosts around it, and their files. Host `n` is in network `n`.
struct World {
    router: Namespace,
    hosts: [Namespace; 4],
    directory: TempDir,
}

const CLIENT: u8 = 1;
const A: u8 = 2;
const B: u8 = 3;
const SERVER: u8 = 4;

impl World {
    fn new() -> Option<Self> {
        if !may() {
            return None;
        }
        let router = usable_at_once();
        let sysctls = || {
            for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
                fs::write(format!("/proc/sys/{key}"), "1").unwrap();
            }
            // Bridges show their frames to the firewall where the kernel has it so.
            for key in ["net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"]
            {
                let _ = fs::write(format!("/proc/sys/{key}"), "0");
            }
        };
        router.run(sysctls).unwrap();
        let hosts = [CLIENT, A, B, SERVER].map(|number| host(&router, number));
        let world = World { router, hosts, directory: tempfile::tempdir().unwrap() };
        let key = world.path("pair.key");
        let made = outlive().arg("keygen").arg("--output").arg(&key).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let watch = world.path("watch.key");
        let made =
            outlive().arg("keygen").arg("--watch").arg(&key).arg("--output").arg(watch).output();
        assert!(made.unwrap().status.success());
        Some(world)
    }

    fn host(&self, number: u8) -> &Namespace {
        &self.hosts[usize::from(number - 1)]
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Lets frames of this host pass, or drops them without a change of the carrier.
    fn cable(&self, number: u8, passes: bool) {
        let state = if passes { PortState::Forwarding } else { PortState::Disabled };
        let port = format!("port{number}");
        self.router.netlink().unwrap().set_port_state(&port, state).unwrap();
    }

    /// Waits until packets for the virtual address are led to this host.
    fn leads_to(&self, number: u8) {
        let netlink = self.router.netlink().unwrap();
        let (destination, node) = ("10.81.100.1/32".parse::<IpNet>().unwrap(), number);
        let via: IpAddr = format!("10.81.{node}.1").parse().unwrap();
        let leads = |route: &Route| {
            let gateway = |target: &RouteTarget| matches!(target, RouteTarget::Gateway { address, .. } if *address == via);
            route.destination == destination && gateway(&route.target)
        };
        let start = Instant::now();
        while !netlink.routes().unwrap().iter().any(leads) {
            assert!(start.elapsed() < Duration::from_secs(20), "no route to host {number}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn start_node(&self, number: u8) -> Node {
        let (name, peer) = if number == A { ("a", B) } else { ("b", A) };
        let config = self.path(&format!("{name}.toml"));
        let socket = self.path(&format!("{name}.sock"));
        let text = format!(
            r#"
[node]
name = "{name}"
interfaces = ["eth0"]
edge = "routed"
set_sysctls = true
source_addresses = ["10.81.100.2", "fd81:100::2"]
admin_socket = "{}"

[peer]
state = {{ listen = "10.81.{number}.1:7400", peer = "10.81.{peer}.1:7400" }}
heartbeat = [{{ local = "10.81.{number}.1:7401", peer = "10.81.{peer}.1:7401" }}]
key_file = "pair.key"
detector = "external"
detection_timeout = "200ms"

[watch]
listen = ["10.81.{number}.1:7402"]
{NODES}"#,
            socket.display()
        );
        fs::write(&config, text).unwrap();
        Node::start(self.host(number), &config)
    }

    fn start_detector(&self) -> Detector {
        let config = self.path("watch.toml");
        // Patient: the machine may be busy with other tests, and what is slow has not failed.
        let text = r#"
[watch]
key_file = "watch.key"
interval = "100ms"
timeout = "300ms"
failures = 4
when_standby_hears = "switch"

[node.a]
addresses = ["10.81.2.1:7402"]

[node.b]
addresses = ["10.81.3.1:7402"]

[[switch]]
driver = "route"
destinations = ["10.81.100.1", "10.81.100.2", "fd81:100::/64"]
via = { a = ["10.81.2.1", "fd81:2::1"], b = ["10.81.3.1", "fd81:3::1"] }
"#;
        fs::write(&config, text).unwrap();
        let log = fs::File::options().create(true).append(true).open(self.path("watch.log"));
        let mut command = outlive();
        command.arg("watch").arg("--config").arg(config);
        command.stdin(Stdio::null()).stderr(log.unwrap());
        let child = self.router.enclose(&mut command).spawn().unwrap();
        Detector { child, log: self.path("watch.log") }
    }
}

/// A namespace in which IPv6 addresses may be used without the detection of duplicates.
fn usable_at_once() -> Namespace {
    let namespace = Namespace::create().unwrap();
    let key = "/proc/sys/net/ipv6/conf/default/accept_dad";
    namespace.run(|| fs::write(key, "0")).unwrap().unwrap();
    namespace
}

fn host(router: &Namespace, number: u8) -> Namespace {
    let host = usable_at_once();
    let (at_router, at_host) = (router.netlink().unwrap(), host.netlink().unwrap());
    let (bridge, port) = (format!("br{number}"), format!("port{number}"));
    at_router.add_bridge(&bridge, BridgeOptions { multicast_snooping: false }).unwrap();
    at_router.add_veth(&port, "eth0", Some(&host)).unwrap();
    at_router.set_master(&port, Some(&bridge)).unwrap();
    let address = |netlink: &Netlink, device: &str, text: String| {
        let options = AddressOptions { no_dad: true, ..AddressOptions::default() };
        netlink.add_address(device, text.parse().unwrap(), options).unwrap();
    };
    address(&at_router, &bridge, format!("10.81.{number}.254/24"));
    address(&at_router, &bridge, format!("fd81:{number}::ff/64"));
    address(&at_host, "eth0", format!("10.81.{number}.1/24"));
    address(&at_host, "eth0", format!("fd81:{number}::1/64"));
    at_router.set_up(&port, true).unwrap();
    at_router.set_up(&bridge, true).unwrap();
    at_host.set_up("eth0", true).unwrap();
    for (net, via) in [
        ("0.0.0.0/0".to_owned(), format!("10.81.{number}.254")),
        ("::/0".to_owned(), format!("fd81:{number}::ff")),
    ] {
        let target = RouteTarget::Gateway { address: via.parse().unwrap(), device: None };
        let route = Route { protocol: 4, ..Route::new(net.parse::<IpNet>().unwrap(), target) };
        at_host.add_route(&route).unwrap();
    }
    host
}

/// A running detector, killed when dropped.
struct Detector {
    child: Child,
    log: PathBuf,
}

impl Drop for Detector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of the detector:\n{}", fs::read_to_string(&self.log).unwrap());
        }
    }
}

/// Both nodes, whole, with traffic through them.
fn start(world: &World) -> (Node, Node, Traffic) {
    for address in ["10.81.4.1:7", "[fd81:4::1]:7"] {
        echo_server(world.host(SERVER), address);
    }
    let (a, b) = (world.start_node(A), world.start_node(B));
    a.is("active");
    b.is("standby");
    a.is_survivable();
    b.is_survivable();
    world.leads_to(A);
    let addresses = ["10.81.100.1".parse().unwrap(), "fd81:100::1".parse().unwrap()];
    (a, b, Traffic::start(world.host(CLIENT), addresses, 7, 20))
}

#[test]
fn nodes_in_different_networks_are_replaced_by_a_detector() {
    let Some(world) = World::new() else { return };
    let _detector = world.start_detector();
    let (mut a, mut b, traffic) = start(&world);

    a.kill();
    b.is("active");
    traffic.goes_on();

    // It comes back as standby; then the other one dies.
    let a = world.start_node(A);
    a.is("standby");
    a.is_survivable();
    b.kill();
    a.is("active");
    traffic.goes_on();
    assert_eq!(traffic.finish(), 0);

    // Whoever watches may go: the packets are led where they were.
    drop(_detector);
    let mut stream = connect(world.host(CLIENT), "10.81.100.1".parse().unwrap(), 7);
    say(&mut stream, b"nobody watches");
    assert_eq!(a.stop(), Some(0));
}

#[test]
fn a_node_that_is_cut_off_is_replaced_and_yields() {
    let Some(world) = World::new() else { return };
    let _detector = world.start_detector();
    let (a, b, traffic) = start(&world);

    world.cable(A, false);
    b.is("active");
    traffic.goes_on();
    // It has gone on alone, and hears now that it was replaced.
    world.cable(A, true);
    a.is("standby");
    a.is_survivable();
    traffic.goes_on();

    world.cable(B, false);
    a.is("active");
    traffic.goes_on();
    world.cable(B, true);
    b.is("standby");
    b.is_survivable();
    assert_eq!(traffic.finish(), 0);
}

#[test]
fn silence_alone_moves_nothing_and_a_frozen_node_yields() {
    let Some(world) = World::new() else { return };
    let detector = world.start_detector();
    let (a, b, traffic) = start(&world);
    drop(detector);

    // Nobody watches: the standby hears that its peer is silent, and waits to be told.
    a.signal("STOP");
    let heard = |status: &serde_json::Value| status["peer"]["alive"] == false;
    b.until("the silence", heard);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(b.status()["role"], "standby");

    let _detector = world.start_detector();
    b.is("active");
    traffic.goes_on();
    a.signal("CONT");
    a.is("standby");
    b.is_survivable();
    traffic.goes_on();
    assert_eq!(traffic.finish(), 0);
    for node in [&a, &b] {
        let log = node.log();
        assert!(!log.contains(" ERROR "), "{log}");
    }
}
