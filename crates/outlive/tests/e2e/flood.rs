//! A SYN flood of forged addresses beside real clients: they are served all the time, and the nodes'
//! memory stays bounded.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

use outlive_lab::{
    attack::{Injector, SYN, Segment},
    link::LinkKind,
    node::Node,
};

use crate::{
    nginx::{Nginx, Place, curl, download, publish},
    program::run,
    world::{World, counter, listener, megabytes, number, pool, virtual_address},
};

const DIRECT: u16 = 80;
const INSPECT: u16 = 81;

/// Forged SYNs in all: enough to fill what has room for some ten thousand connections several times
/// over. At most this many go in one millisecond.
const SYNS: u64 = 120_000;
const AT_ONCE: u64 = 40;

/// What the flood may cost a node: far less than a session for each SYN would.
const ALLOWED_BYTES: u64 = 16 << 20;

#[test]
fn real_clients_are_served_during_a_flood() {
    let links = LinkKind::Plain;
    let Some(mut world) = World::new(&["nginx", "curl"], links.clone()) else { return };
    let lines = "listen 80; listen [::]:80;";
    let nginx = Nginx::start(&world, &world.servers[0], lines);
    let text = listener(DIRECT, "direct", "web", "")
        + &listener(INSPECT, "inspect", "web", "")
        + &pool("web", &[&world.servers[0]], 80, "");
    world.start_pair(&links, &text);
    // What the nodes answer to forged addresses goes here, and no further.
    let outside = world.lab.host("outside", 66, links).unwrap();
    for node in world.nodes() {
        for (destination, ipv6) in [("198.18.0.0/15", false), ("2001:db8::/32", true)] {
            let gateway = outside.socket(ipv6, 0).ip();
            node.host().add_route(destination.parse().unwrap(), gateway).unwrap();
        }
    }
    let each = [(DIRECT, false), (DIRECT, true), (INSPECT, false), (INSPECT, true)];
    let ask = |(port, ipv6)| {
        let mut ask = curl();
        ask.arg(format!("http://{}/who", virtual_address(ipv6, port)));
        assert_eq!(run(&world.client, &mut ask), "one", "port {port}, IPv6 {ipv6}");
    };
    // Everything that is allocated once is there, so that only growth is measured.
    each.into_iter().for_each(ask);
    let source = publish(&world, &[&nginx], megabytes(15, 100));
    let lasting: Vec<_> = each
        .map(|(port, ipv6)| {
            let place = Place::http(virtual_address(ipv6, port));
            download(&world, &format!("{port}-{ipv6}"), &place, &source)
        })
        .into();

    let injector = Injector::new(&world.lab).unwrap();
    let active = active_of(world.nodes());
    let before = world.nodes().iter().map(memory).max().unwrap();
    let cookies_before = counter(&active.status().unwrap(), "cookies_sent");
    let (sent, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut most = 0;
    let mut served = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = fastrand::Rng::with_seed(5);
            for nth in 0..SYNS {
                let (port, ipv6) = each[nth as usize % each.len()];
                let syn = forged_syn(&mut random, virtual_address(ipv6, port));
                sent.fetch_add(u64::from(injector.send(&syn, active.host())), Relaxed);
                if nth % AT_ONCE == 0 {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            over.store(true, Relaxed);
        });
        while !over.load(Relaxed) {
            each.into_iter().for_each(ask);
            served += each.len();
            most = most.max(world.nodes().iter().map(memory).max().unwrap());
        }
    });

    let status = active.status().unwrap();
    assert!(status.role == "active", "{status:?}");
    // Some are lost on the way in; many must have come, or this was no flood.
    let cookies = counter(&status, "cookies_sent") - cookies_before;
    let sent = sent.into_inner();
    eprintln!("{sent} SYNs sent, {cookies} cookies, {served} served, {before} to {most} bytes");
    assert!(cookies > SYNS / 4, "{cookies} cookies for {sent} SYNs");
    assert!(served >= 3 * each.len(), "only {served} served");
    let grown = most.saturating_sub(before);
    assert!(grown < ALLOWED_BYTES, "the nodes have grown by {grown} bytes");
    let held = number(&status, &["core", "openings"]) + number(&status, &["core", "establishing"]);
    assert!(held <= 1100, "{held} connections are held for addresses that do not exist");
    lasting.into_iter().for_each(|activity| activity.finish());
    each.into_iter().for_each(ask);
}

fn active_of(nodes: &[Node]) -> &Node {
    let active = |node: &&Node| node.status().is_ok_and(|status| status.role == "active");
    nodes.iter().find(active).expect("one is active")
}

/// Resident bytes of the node's process.
fn memory(node: &Node) -> u64 {
    let id = node.process_id().expect("it runs");
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says so");
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kilobytes * 1024
}

/// A SYN from an address that nobody has.
fn forged_syn(random: &mut fastrand::Rng, to: SocketAddr) -> Segment {
    let host = random.u32(..);
    let from: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::from_bits(0xc612_0000 | host >> 15).into(),
        SocketAddr::V6(_) => {
            Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(host) << 32 | 7).into()
        }
    };
    let from = SocketAddr::new(from, random.u16(1024..));
    Segment { from, to, seq: random.u32(..), ack: 0, flags: SYN, payload: Vec::new() }
}
