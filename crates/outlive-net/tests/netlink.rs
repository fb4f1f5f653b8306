//! The netlink client against a real kernel, in namespaces that the tests make.

mod common;

use std::{
    net::{TcpListener, TcpStream},
    process::Command,
};

use ipnet::IpNet;
use outlive_net::{
    Errno, MacAddress,
    netlink::{
        AddressOptions, BridgeOptions, Cause, NeighbourState, Netlink, OperState, PortState,
        ROUTE_PROTOCOL, Route, RouteTarget, Rule, TABLE_MAIN,
    },
    netns::Namespace,
};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

const NO_DAD: AddressOptions =
    AddressOptions { no_dad: true, no_prefix_route: false, host_scope: false };

#[test]
fn a_namespace_is_empty_but_for_its_loopback() {
    let Some(namespace) = common::namespace() else { return };
    let netlink = namespace.netlink().unwrap();
    let links = netlink.links().unwrap();
    let names: Vec<_> = links.iter().map(|link| link.name.as_str()).collect();
    assert!(names.contains(&"lo"), "{names:?}");
    assert!(netlink.link("lo").unwrap().is_up);
    assert!(!links.iter().any(|link| link.is_ethernet && link.is_up), "{links:?}");
    let error = netlink.link("nothing0").unwrap_err();
    assert_eq!(error.cause, Cause::NoSuchInterface);
    assert_eq!(error.to_string(), "looking up interface nothing0: no such interface");
}

#[test]
fn programs_and_threads_run_inside() {
    let Some(namespace) = common::namespace() else { return };
    let netlink = namespace.netlink().unwrap();
    netlink.add_bridge("inside0", BridgeOptions::default()).unwrap();
    let output = namespace.enclose(Command::new("cat").arg("/proc/net/dev")).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("inside0"));
    let thread = namespace.spawn("inside", || Netlink::open().unwrap().link("inside0")).unwrap();
    assert!(thread.join().unwrap().unwrap().is_ok());
    assert!(Netlink::open().unwrap().link("inside0").is_err(), "this thread has not moved");
}

#[test]
fn a_published_namespace_is_found_by_its_name_until_it_is_dropped() {
    let Some(namespace) = common::namespace() else { return };
    let netlink = namespace.netlink().unwrap();
    netlink.add_bridge("inside0", BridgeOptions::default()).unwrap();
    let name = format!("outlive-test-{}", std::process::id());
    let published = namespace.publish(&name).unwrap();
    let path = published.path().to_owned();
    let found = Namespace::open(&path).unwrap();
    assert!(found.netlink().unwrap().link("inside0").is_ok());
    assert_eq!(namespace.publish(&name).unwrap_err().errno, Errno(libc::EEXIST));
    drop(published);
    assert!(!path.exists());
    assert!(found.netlink().unwrap().link("inside0").is_ok(), "the namespace itself goes on");

    let ours = Namespace::of_process(std::process::id()).unwrap();
    let links = |namespace: &Namespace| namespace.netlink().unwrap().links().unwrap().len();
    assert_eq!(links(&ours), links(&Namespace::current().unwrap()));
}

#[test]
fn two_hosts_on_a_bridge_talk_until_the_cable_is_cut() {
    let (Some(switch), Some(a), Some(b)) =
        (common::namespace(), common::namespace(), common::namespace())
    else {
        return;
    };
    let bridge = switch.netlink().unwrap();
    bridge.add_bridge("br0", BridgeOptions::default()).unwrap();
    bridge.set_up("br0", true).unwrap();
    for (host, port, address) in
        [(&a, "a", ["10.9.0.1/24", "fd09::1/64"]), (&b, "b", ["10.9.0.2/24", "fd09::2/64"])]
    {
        bridge.add_veth(port, "eth0", Some(host)).unwrap();
        bridge.set_master(port, Some("br0")).unwrap();
        bridge.set_up(port, true).unwrap();
        let netlink = host.netlink().unwrap();
        for address in address {
            netlink.add_address("eth0", net(address), NO_DAD).unwrap();
        }
        netlink.set_up("eth0", true).unwrap();
        assert_eq!(netlink.link("eth0").unwrap().oper_state, OperState::Up);
    }
    let master = bridge.link("a").unwrap().master.unwrap();
    assert_eq!(bridge.link_by_index(master).unwrap().name, "br0");
    for address in ["10.9.0.1:0", "[fd09::1]:0"] {
        let listener = a.run(|| TcpListener::bind(address)).unwrap().unwrap();
        let target = listener.local_addr().unwrap();
        b.run(|| TcpStream::connect(target)).unwrap().unwrap();
    }

    bridge.set_port_state("a", PortState::Disabled).unwrap();
    assert!(a.netlink().unwrap().link("eth0").unwrap().has_carrier);
    let target = "10.9.0.1:9".parse().unwrap();
    let waiting = std::time::Duration::from_millis(50);
    let cut = b.run(|| TcpStream::connect_timeout(&target, waiting)).unwrap();
    assert_eq!(cut.unwrap_err().kind(), std::io::ErrorKind::TimedOut);

    bridge.set_port_state("a", PortState::Forwarding).unwrap();
    let refused = || b.run(|| TcpStream::connect(target)).unwrap().unwrap_err().kind();
    assert_eq!(refused(), std::io::ErrorKind::ConnectionRefused);

    // One isolated port hears all others; two of them do not hear each other.
    bridge.set_port_state("a", PortState::Isolated).unwrap();
    assert_eq!(refused(), std::io::ErrorKind::ConnectionRefused);
    bridge.set_port_state("b", PortState::Isolated).unwrap();
    let apart = b.run(|| TcpStream::connect_timeout(&target, waiting)).unwrap();
    assert_eq!(apart.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    bridge.set_port_state("a", PortState::Forwarding).unwrap();
    assert_eq!(refused(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn settings_of_a_link_read_back() {
    let Some(namespace) = common::namespace() else { return };
    let netlink = namespace.netlink().unwrap();
    netlink.add_veth("v0", "v1", None).unwrap();
    assert!(netlink.add_veth("v0", "v2", None).unwrap_err().is_present());
    let mac = MacAddress([2, 0, 0, 0, 0, 0x17]);
    netlink.set_mac("v0", mac).unwrap();
    netlink.set_mtu("v0", 1400).unwrap();
    netlink.set_tx_queue_len("v0", 5000).unwrap();
    netlink.set_gro_max_size("v0", 60_000).unwrap();
    netlink.set_gso_max_size("v0", 50_000).unwrap();
    let link = netlink.link("v0").unwrap();
    assert_eq!((link.mac, link.mtu, link.tx_queue_len), (Some(mac), 1400, 5000));
    assert_eq!((link.gro_max_size, link.gso_max_size), (Some(60_000), Some(50_000)));
    assert!(link.is_ethernet && !link.is_up && !link.has_carrier);

    let elsewhere = Namespace::create().unwrap();
    netlink.move_to_namespace("v1", &elsewhere).unwrap();
    assert!(netlink.link("v1").is_err());
    assert!(elsewhere.netlink().unwrap().link("v1").is_ok());
    netlink.delete_link("v0").unwrap();
    netlink.delete_link_if_present("v0").unwrap();
    assert!(elsewhere.netlink().unwrap().link("v1").is_err(), "both ends are gone");
}

#[test]
fn addresses_come_and_go() {
    let Some(namespace) = common::namespace() else { return };
    let netlink = namespace.netlink().unwrap();
    netlink.add_bridge("d0", BridgeOptions::default()).unwrap();
    netlink.set_up("d0", true).unwrap();
    let index = netlink.index_of("d0").unwrap();
    for address in [net("10.9.1.1/24"), net("fd09:1::1/64")] {
        netlink.add_address("d0", address, NO_DAD).unwrap();
        assert!(netlink.add_address("d0", address, NO_DAD).unwrap_err().is_present());
        netlink.replace_address("d0", address, NO_DAD).unwrap();
        let listed = netlink.addresses().unwrap();
        let ours: Vec<_> = listed.iter().filter(|it| it.address == address).collect();
        assert_eq!(ours.len(), 1);
        assert_eq!((ours[0].link, ours[0].is_tentative), (index, false));
        netlink.delete_address("d0", address).unwrap();
        assert!(netlink.delete_address("d0", address).unwrap_err().is_absent());
        netlink.delete_address_if_present("d0", address).unwrap();
    }
}

#[test]
fn routes_read_back_as_they_were_added() {
    let Some(namespace) = common::namespace() else { return };
    let netlink = namespace.netlink().unwrap();
    netlink.add_bridge("d0", BridgeOptions::default()).unwrap();
    netlink.set_up("d0", true).unwrap();
    for address in ["10.9.2.1/24", "fd09:2::1/64"] {
        netlink.add_address("d0", net(address), NO_DAD).unwrap();
    }
    let device = || RouteTarget::Device("d0".to_owned());
    let gateway = |address: &str| RouteTarget::Gateway {
        address: address.parse().unwrap(),
        device: Some("d0".to_owned()),
    };
    for route in [
        Route::new(net("10.9.3.100/32"), device()),
        Route::new(net("fd09:3::100/128"), device()).with_metric(77),
        Route::new(net("0.0.0.0/0"), gateway("10.9.2.254")).in_table(1000),
        Route::new(net("::/0"), gateway("fd09:2::fe")).in_table(1000).with_metric(5),
        Route::blackhole("10.9.3.100".parse().unwrap(), 4096),
        Route::blackhole("fd09:3::100".parse().unwrap(), 4096),
    ] {
        netlink.add_route(&route).unwrap();
        assert!(netlink.add_route(&route).unwrap_err().is_present(), "{route}");
        netlink.replace_route(&route).unwrap();
        let listed = netlink.routes().unwrap();
        assert_eq!(listed.iter().filter(|it| **it == route).count(), 1, "{route}: {listed:#?}");
        assert_eq!(route.protocol, ROUTE_PROTOCOL);
    }
    let ours = |routes: Vec<Route>| routes.into_iter().filter(|it| it.protocol == ROUTE_PROTOCOL);
    for route in ours(netlink.routes().unwrap()) {
        netlink.delete_route(&route).unwrap();
        netlink.delete_route_if_present(&route).unwrap();
    }
    assert_eq!(ours(netlink.routes().unwrap()).count(), 0);

    let unreachable = Route::new(net("10.9.4.0/24"), gateway("10.99.0.1"));
    let error = netlink.add_route(&unreachable).unwrap_err();
    assert_eq!(
        error.to_string(),
        "adding route 10.9.4.0/24 via 10.99.0.1 dev d0: network is unreachable \
         (Nexthop has invalid gateway)"
    );
    let nowhere = Route::new(net("10.9.4.0/24"), RouteTarget::Device("nothing0".to_owned()));
    let error = netlink.add_route(&nowhere).unwrap_err();
    assert_eq!(error.to_string(), "adding route 10.9.4.0/24 dev nothing0: no such interface");
    assert_eq!(nowhere.table, TABLE_MAIN);
}

#[test]
fn rules_and_permanent_neighbours_read_back() {
    let Some(namespace) = common::namespace() else { return };
    let netlink = namespace.netlink().unwrap();
    netlink.add_veth("v0", "v1", None).unwrap();
    for (from, tcp_source_port) in [
        ("10.9.5.0/24", None),
        ("0.0.0.0/0", Some(80)),
        ("::/0", None),
        ("fd09:5::1/128", Some(443)),
    ] {
        let incoming = Some("v0".to_owned());
        let rule = Rule { priority: 100, from: net(from), incoming, tcp_source_port, table: 1000 };
        netlink.add_rule(&rule).unwrap();
        assert!(netlink.add_rule(&rule).unwrap_err().is_present());
        assert_eq!(netlink.own_rules().unwrap(), std::slice::from_ref(&rule));
        netlink.delete_rule(&rule).unwrap();
        netlink.delete_rule_if_present(&rule).unwrap();
    }
    assert_eq!(netlink.own_rules().unwrap(), []);

    netlink.set_up("v0", true).unwrap();
    let mac = MacAddress([2, 0, 0, 0, 0, 0x18]);
    for address in ["10.9.6.2", "fd09:6::2"] {
        let address = address.parse().unwrap();
        netlink.replace_permanent_neighbour("v0", address, mac).unwrap();
        netlink.replace_permanent_neighbour("v0", address, mac).unwrap();
        let listed = netlink.neighbours().unwrap();
        let entry = listed.iter().find(|it| it.address == address).unwrap();
        assert_eq!((entry.mac, entry.state), (Some(mac), NeighbourState::Permanent));
        netlink.delete_neighbour("v0", address).unwrap();
    }
}
