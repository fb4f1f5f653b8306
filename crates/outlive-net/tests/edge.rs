//! The routes of the virtual addresses, as a client and a restarted node see them.

mod common;

use std::{
    io::ErrorKind,
    net::{IpAddr, TcpStream},
    time::Duration,
};

use outlive_net::{
    edge::{BLACKHOLE_METRIC, EdgeError, Leftovers, VirtualAddresses},
    netlink::{AddressOptions, ROUTE_PROTOCOL, Route, RouteTarget},
    netns::Namespace,
    sysctl::{self, Requirement},
    tun::{BUFFER_LEN, Layer, Offload, Tun, VirtioNetHeader},
};

const ADDRESSES: [&str; 2] = ["10.9.21.100", "fd09:21::100"];

fn addresses() -> [IpAddr; 2] {
    ADDRESSES.map(|text| text.parse().unwrap())
}

/// A namespace with a TUN device that is up.
fn node() -> Option<(Namespace, Tun)> {
    let namespace = common::namespace_with_tun()?;
    let tun = tun(&namespace, "outl0");
    Some((namespace, tun))
}

fn tun(namespace: &Namespace, name: &str) -> Tun {
    let tun = namespace.run(|| Tun::open(Layer::Ip, name, Offload::TCP)).unwrap().unwrap();
    namespace.netlink().unwrap().set_up(name, true).unwrap();
    tun
}

fn install(
    namespace: &Namespace,
    device: &str,
) -> Result<(VirtualAddresses, Leftovers), EdgeError> {
    namespace.run(|| VirtualAddresses::install(device, &addresses())).unwrap()
}

fn own_routes(namespace: &Namespace) -> Vec<Route> {
    let routes = namespace.netlink().unwrap().routes().unwrap();
    routes.into_iter().filter(|route| route.protocol == ROUTE_PROTOCOL).collect()
}

#[test]
fn routes_come_and_go_with_the_role() {
    let Some((namespace, _tun)) = node() else { return };
    let (edge, leftovers) = install(&namespace, "outl0").unwrap();
    assert_eq!(leftovers, Leftovers::default());
    let blackholes = own_routes(&namespace);
    assert_eq!(blackholes.len(), 2);
    assert!(blackholes.iter().all(|route| route.target == RouteTarget::Blackhole));
    for _ in 0..2 {
        edge.activate().unwrap();
        let routes = own_routes(&namespace);
        let device = RouteTarget::Device("outl0".to_owned());
        assert_eq!(routes.iter().filter(|route| route.target == device).count(), 2);
        assert_eq!(routes.len(), 4);
    }
    for _ in 0..2 {
        edge.deactivate().unwrap();
        assert_eq!(own_routes(&namespace), blackholes);
    }
    edge.activate().unwrap();
    edge.cleanup().unwrap();
    assert_eq!(own_routes(&namespace), []);
}

#[test]
fn what_a_killed_process_left_is_replaced() {
    let Some((namespace, tun)) = node() else { return };
    let (edge, _) = install(&namespace, "outl0").unwrap();
    edge.activate().unwrap();
    let stray = Route::blackhole("10.9.21.101".parse().unwrap(), BLACKHOLE_METRIC);
    namespace.netlink().unwrap().add_route(&stray).unwrap();
    // As when the process is killed: nothing of its own is run, the device is closed.
    std::mem::forget(edge);
    drop(tun);
    assert_eq!(own_routes(&namespace).len(), 3, "the device took its own routes along");

    let _tun = self::tun(&namespace, "outl0");
    let (edge, leftovers) = install(&namespace, "outl0").unwrap();
    assert_eq!(leftovers.replaced.len(), 2);
    assert_eq!(leftovers.stray, std::slice::from_ref(&stray));
    edge.activate().unwrap();
    drop(edge);
    assert_eq!(own_routes(&namespace), [stray]);
}

#[test]
fn what_stands_in_the_way_is_named_and_nothing_is_changed() {
    let Some((namespace, _tun)) = node() else { return };
    let netlink = namespace.netlink().unwrap();
    let [v4, v6] = addresses();
    let refused = || {
        let error = install(&namespace, "outl0").map(|_| ()).unwrap_err();
        let own = own_routes(&namespace);
        assert!(own.iter().all(|route| route.target != RouteTarget::Blackhole), "{own:?}");
        error
    };

    for address in [v4, v6] {
        netlink.add_address("outl0", address.into(), AddressOptions::default()).unwrap();
        let interface = "outl0".to_owned();
        assert_eq!(refused(), EdgeError::Local { address, interface });
        netlink.delete_address("outl0", address.into()).unwrap();
    }

    let foreign = Route { protocol: 4, ..Route::blackhole(v4, 10) };
    netlink.add_route(&foreign).unwrap();
    assert_eq!(refused(), EdgeError::Routed(foreign.clone()));
    netlink.delete_route(&foreign).unwrap();

    let _other = tun(&namespace, "outl1");
    let served = Route::new(v4.into(), RouteTarget::Device("outl1".to_owned()));
    netlink.add_route(&served).unwrap();
    assert_eq!(refused(), EdgeError::Served { address: v4, device: "outl1".to_owned() });
    netlink.delete_route(&served).unwrap();

    assert!(install(&namespace, "outl0").is_ok());
    assert!(matches!(install(&namespace, "outl9"), Err(EdgeError::Netlink(_))));
}

/// A client whose SYN is answered with "unreachable" gives up at once; behind the blackhole it
/// waits, and may be served by the other node. While active, its packets come out of the TUN.
#[test]
fn a_client_sees_silence_where_no_node_is_active() {
    let (Some((node, tun)), Some(client)) = (node(), common::namespace()) else { return };
    // Without duplicate address detection, the node's link-local address works at once.
    let no_dad = Requirement::new("net/ipv6/conf/default/accept_dad", "0");
    node.run(|| no_dad.enforce()).unwrap().unwrap();
    let netlink = node.netlink().unwrap();
    netlink.add_veth("eth0", "eth0", Some(&client)).unwrap();
    for (host, addresses) in
        [(&node, ["10.9.20.1/24", "fd09:20::1/64"]), (&client, ["10.9.20.2/24", "fd09:20::2/64"])]
    {
        let netlink = host.netlink().unwrap();
        let options = AddressOptions { no_dad: true, ..AddressOptions::default() };
        for address in addresses {
            netlink.add_address("eth0", address.parse().unwrap(), options).unwrap();
        }
        netlink.set_up("eth0", true).unwrap();
    }
    for (address, gateway) in addresses().into_iter().zip(["10.9.20.1", "fd09:20::1"]) {
        let gateway = RouteTarget::Gateway { address: gateway.parse().unwrap(), device: None };
        client.netlink().unwrap().add_route(&Route::new(address.into(), gateway)).unwrap();
    }
    let forwarding = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];
    node.run(|| {
        for key in forwarding {
            let requirement = Requirement::new(key, "1");
            assert!(requirement.enforce().unwrap().is_some_and(|was| was.found == "0"));
            assert_eq!(requirement.check(), Ok(None));
        }
    })
    .unwrap();
    let outside = sysctl::read("net/ipv4/conf/eth0/forwarding");
    let inside = node.run(|| sysctl::read("net/ipv4/conf/eth0/forwarding")).unwrap();
    assert_ne!(outside, inside, "settings belong to the namespace");

    let connect = |address: IpAddr, ms| {
        let connect =
            || TcpStream::connect_timeout(&(address, 80).into(), Duration::from_millis(ms));
        client.run(connect).unwrap().unwrap_err().kind()
    };
    let unreachable = [ErrorKind::NetworkUnreachable, ErrorKind::HostUnreachable];
    // Long enough to never pass: these are answered.
    for address in addresses() {
        assert!(unreachable.contains(&connect(address, 30_000)), "{address}");
    }
    let (edge, _) = install(&node, "outl0").unwrap();
    for address in addresses() {
        assert_eq!(connect(address, 50), ErrorKind::TimedOut);
    }
    edge.activate().unwrap();
    for address in addresses() {
        assert_eq!(connect(address, 50), ErrorKind::TimedOut);
        assert!(syns(&tun).contains(&address), "{address} comes out of the device");
    }
    edge.deactivate().unwrap();
    for address in addresses() {
        assert_eq!(connect(address, 50), ErrorKind::TimedOut);
        assert!(!syns(&tun).contains(&address), "{address} still comes out of the device");
    }
}

/// The destinations of the TCP packets that are queued in the device.
fn syns(tun: &Tun) -> Vec<IpAddr> {
    let mut buffer = vec![0; BUFFER_LEN];
    let mut destinations = Vec::new();
    while let Ok(len) = tun.recv(&mut buffer) {
        let packet = &buffer[VirtioNetHeader::LEN..len];
        match (packet[0] >> 4, packet[6], packet[9]) {
            (4, _, 6) => {
                destinations.push(<[u8; 4]>::try_from(&packet[16..20]).unwrap().into());
            }
            (6, 6, _) => {
                destinations.push(<[u8; 16]>::try_from(&packet[24..40]).unwrap().into());
            }
            _ => {}
        }
    }
    destinations
}
