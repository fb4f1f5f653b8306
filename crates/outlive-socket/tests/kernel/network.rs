//! A switch with machines on it.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    thread::JoinHandle,
    time::Duration,
};

use outlive_net::{
    netlink::{AddressOptions, BridgeOptions},
    netns::Namespace,
    tun,
};
use outlive_socket::{Host, HostConfig, PeerConfig};

/// Against hanging, and for nothing else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const V4: &str = "10.9.60.100";
pub(crate) const V6: &str = "fd09:60::100";
const PORT: u16 = 514;

pub(crate) struct Network {
    switch: Namespace,
}

/// Where clients connect to.
pub(crate) fn service(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), PORT)
}

pub(crate) fn address(number: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from([10, 9, 60, number]), port)
}

impl Network {
    /// `None`, with a line that says so, if this user may make none.
    pub(crate) fn new() -> Option<Self> {
        if let Err(error) = tun::check_driver() {
            eprintln!("SKIPPED: this test needs a TUN device: {error}");
            return None;
        }
        let switch = match Namespace::create() {
            Ok(switch) => switch,
            Err(error) => {
                eprintln!("SKIPPED: this test needs a privileged user: {error}");
                return None;
            }
        };
        let netlink = switch.netlink().unwrap();
        netlink.add_bridge("br0", BridgeOptions { multicast_snooping: false }).unwrap();
        netlink.set_up("br0", true).unwrap();
        Some(Network { switch })
    }

    /// Pulls the cable of a machine, or puts it in again.
    pub(crate) fn connect(&self, number: u8, connected: bool) {
        self.switch.netlink().unwrap().set_up(&format!("port{number}"), connected).unwrap();
    }

    /// A machine with one interface, `eth0`.
    pub(crate) fn machine(&self, number: u8) -> Namespace {
        let machine = Namespace::create().unwrap();
        let port = format!("port{number}");
        let netlink = self.switch.netlink().unwrap();
        netlink.add_veth(&port, "eth0", Some(&machine)).unwrap();
        netlink.set_master(&port, Some("br0")).unwrap();
        netlink.set_up(&port, true).unwrap();
        let netlink = machine.netlink().unwrap();
        let options = AddressOptions { no_dad: true, ..AddressOptions::default() };
        for address in [format!("10.9.60.{number}/24"), format!("fd09:60::{number}/64")] {
            netlink.add_address("eth0", address.parse().unwrap(), options).unwrap();
        }
        netlink.set_up("eth0", true).unwrap();
        machine
    }
}

/// Both addresses, on `eth0`.
pub(crate) fn config() -> HostConfig {
    let mut config = HostConfig::new(V4.parse().unwrap(), "eth0");
    config.addresses.push(V6.parse().unwrap());
    config
}

pub(crate) fn start(machine: &Namespace, config: HostConfig) -> Host {
    machine.run(|| Host::start(config)).unwrap().unwrap()
}

pub(crate) fn start_with_peer(machine: &Namespace, peer: PeerConfig) -> Host {
    start(machine, config().with_peer(peer))
}

/// A client on `machine`: a thread with a connection to the service.
pub(crate) fn client<T: Send + 'static>(
    machine: &Namespace,
    to: &str,
    action: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> JoinHandle<io::Result<T>> {
    let to = service(to);
    let connect = move || {
        let stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        action(stream)
    };
    machine.spawn("client", connect).unwrap()
}

/// What no two positions share within a period.
pub(crate) fn data(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 253) as u8).collect()
}

/// Looks again until it is so.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let looks = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looks).await.unwrap_or_else(|_| panic!("never: {what}"));
}
