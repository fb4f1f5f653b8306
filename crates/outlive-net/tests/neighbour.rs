//! Virtual addresses claimed on a link, as the kernel of another host sees it.

mod common;

use std::{
    fs,
    net::{IpAddr, UdpSocket},
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use outlive_net::{
    MacAddress,
    neighbour::{Conflict, NeighbourError, NeighbourResponder, Queue},
    netlink::{AddressOptions, BridgeOptions, NeighbourState},
    netns::Namespace,
};

const CLAIMED: [&str; 2] = ["10.9.30.100", "fd09:30::100"];

fn claimed() -> [IpAddr; 2] {
    CLAIMED.map(|text| text.parse().unwrap())
}

/// A responder that a thread of its own serves.
struct Served {
    responder: Arc<Mutex<NeighbourResponder>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    fn start(namespace: &Namespace) -> Served {
        let responder = namespace.run(|| NeighbourResponder::open("eth0")).unwrap().unwrap();
        let responder = Arc::new(Mutex::new(responder));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (responder, stop) = (responder.clone(), stop.clone());
            move || serve(&responder, &stop)
        });
        Served { responder, stop, thread: Some(thread) }
    }

    fn with<T>(&self, action: impl FnOnce(&mut NeighbourResponder) -> T) -> T {
        action(&mut self.responder.lock().unwrap())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn serve(responder: &Mutex<NeighbourResponder>, stop: &AtomicBool) {
    let descriptors = responder.lock().unwrap().descriptors().map(|fd| fd.as_raw_fd());
    while !stop.load(Ordering::Acquire) {
        let mut poll = descriptors.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
        // SAFETY: as many descriptors as the count says.
        unsafe { libc::poll(poll.as_mut_ptr(), poll.len() as libc::nfds_t, 10) };
        while responder.lock().unwrap().on_readable() == Queue::MoreToCome {}
    }
}

/// A host on the bridge, with one interface, `eth0`.
fn host(switch: &Namespace, number: u8) -> Namespace {
    let host = Namespace::create().unwrap();
    let port = format!("port{number}");
    let netlink = switch.netlink().unwrap();
    netlink.add_veth(&port, "eth0", Some(&host)).unwrap();
    netlink.set_master(&port, Some("br0")).unwrap();
    netlink.set_up(&port, true).unwrap();
    let netlink = host.netlink().unwrap();
    let options = AddressOptions { no_dad: true, ..AddressOptions::default() };
    for address in [format!("10.9.30.{number}/24"), format!("fd09:30::{number}/64")] {
        netlink.add_address("eth0", address.parse().unwrap(), options).unwrap();
    }
    netlink.set_up("eth0", true).unwrap();
    host
}

fn switch() -> Option<Namespace> {
    let switch = common::namespace()?;
    let netlink = switch.netlink().unwrap();
    netlink.add_bridge("br0", BridgeOptions { multicast_snooping: true }).unwrap();
    netlink.set_up("br0", true).unwrap();
    Some(switch)
}

fn mac_of(host: &Namespace) -> MacAddress {
    host.netlink().unwrap().link("eth0").unwrap().mac.unwrap()
}

/// What the host believes about its neighbour.
fn entry(host: &Namespace, address: IpAddr) -> Option<(NeighbourState, MacAddress)> {
    let entries = host.netlink().unwrap().neighbours().unwrap();
    let entry = entries.into_iter().find(|entry| entry.address == address)?;
    Some((entry.state, entry.mac?))
}

/// Makes the host's kernel ask for the address.
fn touch(host: &Namespace, address: IpAddr) {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let send = || UdpSocket::bind(any)?.send_to(b"?", (address, 9));
    host.run(send).unwrap().unwrap();
}

#[track_caller]
fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited in vain for: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn claimed_addresses_resolve_and_others_do_not() {
    let Some(switch) = switch() else { return };
    let (client, node) = (host(&switch, 1), host(&switch, 2));
    let served = Served::start(&node);

    // A standby: it sees the questions and is silent.
    for address in claimed() {
        touch(&client, address);
    }
    // Nobody is asked for by neighbour solicitation before the group is joined.
    wait_for("the question", || served.with(|responder| responder.counters().ignored > 0));
    assert_eq!(entry(&client, claimed()[0]), None);

    served.with(|responder| responder.set_addresses(&claimed())).unwrap();
    for address in claimed() {
        wait_for("the answer", || {
            touch(&client, address);
            entry(&client, address).is_some_and(|(_, mac)| mac == mac_of(&node))
        });
    }
    let counters = served.with(|responder| responder.counters());
    assert!(counters.arp_answered > 0 && counters.solicitations_answered > 0, "{counters:?}");
    assert_eq!((counters.malformed, counters.conflicts, counters.failed), (0, 0, 0));

    let ignored = counters.ignored;
    let unclaimed = "10.9.30.101".parse().unwrap();
    touch(&client, unclaimed);
    wait_for("the other question", || {
        served.with(|responder| responder.counters().ignored > ignored)
    });
    assert_eq!(entry(&client, unclaimed), None);
}

#[test]
fn an_announcement_moves_the_entry_and_the_old_owner_notices() {
    let Some(switch) = switch() else { return };
    let (client, a, b) = (host(&switch, 1), host(&switch, 2), host(&switch, 3));
    let (served_a, served_b) = (Served::start(&a), Served::start(&b));
    served_a.with(|responder| responder.set_addresses(&claimed())).unwrap();
    for address in claimed() {
        wait_for("the answer", || {
            touch(&client, address);
            entry(&client, address).is_some_and(|(_, mac)| mac == mac_of(&a))
        });
    }

    served_b.with(|responder| {
        responder.set_addresses(&claimed()).unwrap();
        responder.announce();
        assert_eq!(responder.counters().announced, 2);
    });
    for address in claimed() {
        wait_for("the entry to move", || {
            entry(&client, address).is_some_and(|(_, mac)| mac == mac_of(&b))
        });
    }
    let mut conflicts = Vec::new();
    let seen = Mutex::new(&mut conflicts);
    wait_for("the old owner to notice", || {
        let mut seen = seen.lock().unwrap();
        seen.extend(served_a.with(NeighbourResponder::take_conflicts));
        seen.len() >= 2
    });
    for address in claimed() {
        assert!(conflicts.contains(&Conflict { address, mac: mac_of(&b) }), "{conflicts:?}");
    }
    assert_eq!(served_b.with(NeighbourResponder::take_conflicts), []);
}

#[test]
fn duplicate_address_detection_finds_the_claim() {
    let Some(switch) = switch() else { return };
    let (client, node) = (host(&switch, 1), host(&switch, 2));
    let served = Served::start(&node);
    served.with(|responder| responder.set_addresses(&claimed())).unwrap();
    let netlink = client.netlink().unwrap();
    let [_, v6] = claimed();
    netlink.add_address("eth0", v6.into(), AddressOptions::default()).unwrap();
    wait_for("the duplicate to be found", || {
        let addresses = netlink.addresses().unwrap();
        addresses.iter().any(|it| it.address.addr() == v6 && it.is_duplicate)
    });
}

#[test]
fn groups_are_joined_and_left_with_the_addresses() {
    let Some(switch) = switch() else { return };
    let node = host(&switch, 1);
    let mut responder = node.run(|| NeighbourResponder::open("eth0")).unwrap().unwrap();
    let memberships = || {
        let read = |path: &str| fs::read_to_string(path).unwrap();
        let read =
            || (read("/proc/thread-self/net/igmp6"), read("/proc/thread-self/net/dev_mcast"));
        let (reported, received) = node.run(read).unwrap();
        (reported.contains("ff0200000000000000000001ff001234"), received.contains("3333ff001234"))
    };
    assert_eq!(memberships(), (false, false));
    // Two addresses share a group: it is left with the last.
    let both = ["fd09:30::1234", "fd09:30:1::1234"].map(|text| text.parse().unwrap());
    responder.set_addresses(&both).unwrap();
    assert_eq!(memberships(), (true, true));
    responder.set_addresses(&both[..1]).unwrap();
    assert_eq!(memberships(), (true, true));
    responder.set_addresses(&[]).unwrap();
    assert_eq!(memberships(), (false, false));
}

#[test]
fn an_interface_without_neighbours_is_refused() {
    let Some(namespace) = common::namespace() else { return };
    let error = namespace.run(|| NeighbourResponder::open("lo")).unwrap().unwrap_err();
    assert_eq!(error, NeighbourError::NotEthernet("lo".to_owned()));
    let error = namespace.run(|| NeighbourResponder::open("nothing0")).unwrap().unwrap_err();
    assert_eq!(error.to_string(), "looking up interface nothing0: no such interface");
}
