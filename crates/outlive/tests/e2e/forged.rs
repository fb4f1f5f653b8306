//! Forged segments against sessions of real programs: RST, FIN, SYN and data that do not fit the
//! window, and an RST that does but is not the next, from one who overhears the sequence numbers.
//! Nothing of it has an effect; the node counts what it saw.

use std::net::SocketAddr;

use outlive_lab::{
    attack::{ACK, Ear, FIN, Flow, Injector, PSH, RST, SYN, Segment},
    clock::wait_until,
    impairment::Impairment,
    link::LinkKind,
};

use crate::{
    nginx::{Nginx, Place, download, publish, upload},
    ssh::{self, Sshd, typing},
    world::{
        PATIENCE, World, counter, listener, megabytes, number, pool, virtual_address, wait_for,
    },
};

/// From the next byte expected: outside every window that Linux opens, near and far, both ways.
const OUTSIDE: [u32; 4] = [64 << 20, 1 << 30, (64u32 << 20).wrapping_neg(), 3 << 30];

const ROUNDS: usize = 8;

#[test]
fn forged_segments_have_no_effect_on_sessions() {
    let audible = LinkKind::impaired(Impairment::default());
    let programs = [&["nginx", "curl"], &ssh::PROGRAMS[..]].concat();
    let Some(mut world) = World::new(&programs, audible) else { return };
    world.seconds = 5;
    let nginx = Nginx::start(&world, &world.servers[0], "listen 80; listen [::]:80;");
    let sshd = Sshd::start(&world, &world.servers[0]);
    let text = listener(80, "direct", "web", "")
        + &listener(81, "inspect", "web", "")
        + &listener(22, "direct", "shell", "")
        + &listener(2222, "inspect", "shell", "")
        + &pool("web", &[&world.servers[0]], 80, "")
        + &pool("shell", &[&world.servers[0]], 22, "");
    world.start_pair(&LinkKind::Plain, &text);
    let source = publish(&world, &[&nginx], megabytes(10, 50));
    let mut ears = [&world.client, &world.servers[0]].map(|host| Ear::on(host).unwrap());
    let place = |ipv6, port| Place::http(virtual_address(ipv6, port));
    let mut activities = vec![
        download(&world, "direct", &place(false, 80), &source),
        download(&world, "inspected", &place(true, 81), &source),
        upload(&world, "direct", &place(true, 80), &source, &[&nginx]),
        upload(&world, "inspected", &place(false, 81), &source, &[&nginx]),
        typing(&world, &sshd, "direct", virtual_address(false, 22)),
        typing(&world, &sshd, "inspected", virtual_address(true, 2222)),
    ];
    let sessions = activities.len();
    let injector = Injector::new(&world.lab).unwrap();
    let (active, _) = world.by_role();

    let is_session = |flow: &Flow| {
        [80, 81, 22, 2222].iter().any(|&port| [flow.from, flow.to].iter().any(is_port(port)))
    };
    let mut resets = 0;
    for round in 0..ROUNDS {
        // They go on, under forged segments or not.
        let progress: Vec<u64> = activities.iter().map(|activity| (activity.progress)()).collect();
        let go_on = wait_until(PATIENCE, || {
            activities
                .iter()
                .zip(&progress)
                .all(|(activity, &before)| (activity.progress)() > before)
        });
        assert!(go_on, "a session stands still in round {round}");
        for ear in &mut ears {
            let flows: Vec<Flow> = ear.flows().into_iter().filter(is_session).collect();
            assert!(flows.len() >= sessions, "not every session was overheard: {flows:?}");
            for segment in flows.into_iter().flat_map(forgeries) {
                resets += u64::from(segment.flags & RST != 0);
                assert!(injector.send(&segment, active.host()));
            }
        }
    }
    for activity in &mut activities {
        assert!(!activity.is_over(), "{} was over too early", activity.name);
    }
    // All of them, whatever the node took the resets for at first.
    wait_for(active, "in charge of every session", |status| {
        let open = ["open", "establishing"].map(|state| number(status, &["core", state]));
        open.iter().sum::<u64>() == sessions as u64
    });
    let seen = counter(&active.status().unwrap(), "reset_outside_window");
    assert!(seen > resets / 2, "{seen} of {resets} forged resets were seen");
    activities.into_iter().for_each(|activity| activity.finish());
    wait_for(active, "without sessions", |status| number(status, &["core", "open"]) == 0);
}

fn is_port(port: u16) -> impl Fn(&SocketAddr) -> bool {
    move |address| address.port() == port
}

/// Everything that could end or spoil the connection if its place in the sequence space were not
/// looked at.
fn forgeries(flow: Flow) -> Vec<Segment> {
    let kinds: [(u8, usize); 6] =
        [(RST, 0), (RST | ACK, 0), (FIN | ACK, 0), (PSH | ACK, 100), (SYN, 0), (SYN | ACK, 0)];
    let forge = |offset: u32, flags, len| Segment {
        from: flow.from,
        to: flow.to,
        seq: flow.next_seq.wrapping_add(offset),
        ack: flow.ack,
        flags,
        payload: vec![0x5a; len],
    };
    let outside = OUTSIDE.iter().flat_map(|&offset| kinds.map(|kind| (offset, kind)));
    let mut all: Vec<_> = outside.map(|(offset, (flags, len))| forge(offset, flags, len)).collect();
    // Inside the window, but not the next byte: to be challenged, not obeyed (RFC 5961, section 3).
    // What is sent next is longer than a byte, so this is never next.
    all.push(forge(1, RST, 0));
    all
}
