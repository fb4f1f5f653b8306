//! Listeners that terminate: uploads and downloads between curl and nginx, with and without a look at the first data
//! and a PROXY header, across a kill and a cut, over good links and bad ones.

use outlive_lab::link::LinkKind;

use crate::{
    nginx::{Nginx, Place, curl, download, publish, upload},
    program::run,
    world::{Fault, World, counter, listener, megabytes, pool, virtual_address},
};

/// Port and further lines of the listener.
const LISTENERS: [(u16, &str); 2] = [(80, ""), (81, "inspect_limit = 4096")];

fn transfers(faults: &[Fault], proxied: bool) {
    let links = LinkKind::Plain;
    let Some(mut world) = World::new(&["nginx", "curl"], links.clone()) else { return };
    let told = if proxied { "proxy_protocol" } else { "" };
    let lines = format!("listen 80 {told}; listen [::]:80 {told};");
    let [one, two] = [0, 1].map(|index| Nginx::start(&world, &world.servers[index], &lines));
    let hosts = [&world.servers[0], &world.servers[1]];
    let header = if proxied { "proxy_protocol = \"v2\"" } else { "" };
    let text = LISTENERS.map(|(port, more)| listener(port, "terminate", "web", more)).concat()
        + &pool("web", &hosts, 80, header);
    world.start_pair(&links, &text);

    let servers = [&one, &two];
    let source = publish(&world, &servers, megabytes(20, 200));
    let mut activities = Vec::new();
    for (port, ipv6) in LISTENERS.iter().flat_map(|(port, _)| [(*port, false), (*port, true)]) {
        let name = format!("{port}-{}", if ipv6 { "v6" } else { "v4" });
        let place = Place::http(virtual_address(ipv6, port));
        activities.push(download(&world, &name, &place, &source));
        activities.push(upload(&world, &name, &place, &source, &servers));
    }
    world.outlive(faults, activities);

    // Nothing was translated.
    let (active, _) = world.by_role();
    assert_eq!(counter(&active.status().unwrap(), "packets_forwarded"), 0);
    for (port, _) in LISTENERS {
        let mut ask = curl();
        ask.arg(format!("http://{}/who", virtual_address(false, port)));
        let answer = run(&world.client, &mut ask);
        assert!(["one", "two"].contains(&answer.as_str()), "{answer}");
    }
}

#[test]
fn terminated_transfers_outlive_a_kill() {
    transfers(&[Fault::Kill], false);
}

#[test]
fn terminated_transfers_outlive_a_cut() {
    transfers(&[Fault::Cut], false);
}

#[test]
fn terminated_transfers_outlive_two_kills_behind_a_header() {
    transfers(&[Fault::Kill, Fault::Kill], true);
}
