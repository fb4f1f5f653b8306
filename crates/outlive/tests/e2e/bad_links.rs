//! All programs together over bad links: every host's cable loses, delays, doubles and reorders
//! frames; the active node is killed, and when the pair is whole again, the other one is cut off.

use outlive_lab::{impairment::Impairment, link::LinkKind};

use crate::{
    nginx::{Nginx, Place, download, publish, upload},
    postgres::{self, Database, copy_in, copy_out},
    rsync::{self, Daemon, copying, module, tree},
    ssh::{self, Sshd, typing},
    tls,
    world::{Fault, World, is_full, listener, pool, virtual_address},
};

#[test]
fn everything_outlives_a_kill_and_a_cut_over_bad_links() {
    let links = LinkKind::impaired(Impairment::bad());
    let programs =
        [&["nginx", "curl", "openssl", "rsync"], &ssh::PROGRAMS[..], &postgres::PROGRAMS].concat();
    let Some(mut world) = World::new(&programs, links.clone()) else { return };
    // With this loss a stream makes some 100 kB/s. There must be time for two faults, and for the pair to
    // find itself between them.
    let len = if is_full() { 3_000_000 } else { 600_000 };
    world.seconds = if is_full() { 30 } else { 12 };
    let web = [0, 1].map(|index| {
        let lines = "listen 80; listen [::]:80;".to_owned();
        let lines = lines + &tls::certify(&world, tls::NAMES[index]);
        Nginx::start(&world, &world.servers[index], &lines)
    });
    let daemon = Daemon::start(&world, &world.servers[0]);
    let sshd = Sshd::start(&world, &world.servers[1]);
    let database = Database::start(&world, &world.servers[1], len as u64 / postgres::ROW);
    database.ask("CREATE TABLE copied (LIKE source)");
    let first = [&world.servers[0]];
    let second = [&world.servers[1]];
    let text = listener(80, "direct", "web", "")
        + &listener(81, "inspect", "web", "")
        + &listener(22, "direct", "shell", "")
        + &listener(rsync::PORT, "direct", "rsync", "")
        + &listener(postgres::PORT, "inspect", "database", "")
        + &tls::configuration(&world)
        + &pool("web", &[first[0], second[0]], 80, "")
        + &pool("shell", &second, 22, "")
        + &pool("rsync", &first, rsync::PORT, "")
        + &pool("database", &second, postgres::PORT, "");
    world.start_pair(&links, &text);

    let source = publish(&world, &web.each_ref(), len);
    let there = tree(daemon.root.join("tree"), len);
    let pulled = world.path("pulled");
    let address = virtual_address;
    let direct = Place::http(address(false, 80));
    let inspected = Place::http(address(true, 81));
    let [named, other] =
        [(0, false), (1, true)].map(|(index, ipv6)| tls::place(&world, tls::NAMES[index], ipv6));
    let activities = vec![
        download(&world, "direct", &direct, &source),
        upload(&world, "inspected", &inspected, &source, &web.each_ref()),
        download(&world, "tls", &named, &source),
        upload(&world, "tls", &other, &source, &[&web[1]]),
        typing(&world, &sshd, "v6", address(true, 22)),
        copy_out(&world, &database, "out", address(false, postgres::PORT)),
        copy_in(&world, &database, "in", address(true, postgres::PORT), "copied"),
        copying(
            &world,
            "pull",
            (module(address(true, rsync::PORT), "tree/"), &there),
            (pulled.display().to_string(), pulled.clone()),
            |_| (),
        ),
    ];
    world.outlive(&[Fault::Kill, Fault::Cut], activities);
    assert_eq!(database.summary("copied"), database.summary("source"));
    for tally in world.client.link().tallies().expect("the link is impaired") {
        assert!(tally.lost > 0 && tally.duplicated > 0 && tally.reordered > 0, "{tally:?}");
    }
}
