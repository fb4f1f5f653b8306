//! The server learns the client's address by the PROXY protocol, in both versions, through both kinds
//! of listeners, on both sides of a kill.

use std::collections::BTreeMap;

use outlive_lab::{link::LinkKind, topology::addresses};

use crate::{
    nginx::{Nginx, Place, curl, download, publish, upload},
    program::run,
    world::{Fault, World, listener, megabytes, pool, virtual_address},
};

/// Mode of the listener, version of the protocol, port.
const LISTENERS: [(&str, &str, u16); 4] =
    [("direct", "v1", 81), ("direct", "v2", 82), ("inspect", "v1", 83), ("inspect", "v2", 84)];

fn the_client_is_told(fault: Fault) {
    let links = LinkKind::Plain;
    let Some(mut world) = World::new(&["nginx", "curl"], links.clone()) else { return };
    let lines = "listen 80 proxy_protocol; listen [::]:80 proxy_protocol;";
    let nginx = Nginx::start(&world, &world.servers[0], lines);
    let mut text = String::new();
    for (mode, version, port) in LISTENERS {
        let name = format!("{mode}-{version}");
        text += &listener(port, mode, &name, "");
        let proxy_protocol = format!("proxy_protocol = \"{version}\"");
        text += &pool(&name, &[&world.servers[0]], 80, &proxy_protocol);
    }
    world.start_pair(&links, &text);
    let source = publish(&world, &[&nginx], megabytes(10, 100));

    let each = || LISTENERS.into_iter().flat_map(|(_, _, port)| [(port, false), (port, true)]);
    let ask = |world: &World, when: &str| {
        for (port, ipv6) in each() {
            let mut ask = curl();
            ask.arg(format!("http://{}/who?{when}", virtual_address(ipv6, port)));
            assert_eq!(run(&world.client, &mut ask), "one");
        }
    };
    ask(&world, "before");
    let transfer = |(port, ipv6)| {
        let name = format!("{port}-{}", if ipv6 { "v6" } else { "v4" });
        let place = Place::http(virtual_address(ipv6, port));
        if port % 2 == 0 {
            download(&world, &name, &place, &source)
        } else {
            upload(&world, &name, &place, &source, &[&nginx])
        }
    };
    let activities = each().map(transfer).collect();
    world.outlive(&[fault], activities);
    ask(&world, "after");

    let told = std::fs::read_to_string(&nginx.access_log).unwrap();
    let clients = addresses(world.client.number()).map(|address| address.to_string());
    let mut seen = BTreeMap::new();
    for line in told.lines() {
        let client = line.split(' ').next().unwrap_or_default();
        let kind = ["before", "after"].into_iter().find(|kind| line.contains(kind));
        *seen.entry((client.to_owned(), kind.unwrap_or("transfer"))).or_insert(0) += 1;
    }
    let kinds = ["before", "after", "transfer"];
    let expected = clients
        .iter()
        .flat_map(|client| kinds.map(|kind| ((client.clone(), kind), LISTENERS.len())))
        .collect();
    assert_eq!(seen, expected, "{told}");
}

#[test]
fn servers_learn_the_client_across_a_kill() {
    the_client_is_told(Fault::Kill);
}

#[test]
fn servers_learn_the_client_across_a_cut() {
    the_client_is_told(Fault::Cut);
}
