//! Terminated sessions: through one node, and across the death of it at every millisecond.

mod joined;

use joined::{Work, World, config, inspecting, server_address};
use outlive_proxy::{
    config::{OpeningMode, ProxyProtocol, Server},
    counters::Counter,
};
use outlive_tcp::{
    segment::Segment,
    seq::Seq,
    wire::{Endpoint, Flags, FourTuple, Options},
};

const BOTH: [fn() -> OpeningMode; 2] = [|| OpeningMode::Direct, inspecting];

fn world(opening: OpeningMode, client: Work, server: Work) -> World {
    let mut world = World::new(config(opening), client, server);
    world.start_client();
    world
}

#[test]
fn both_streams_arrive_and_both_ends_close() {
    for opening in BOTH {
        let mut world =
            world(opening(), Work::sending(300_000, 0), Work::sending(500_000, 300_000));
        world.finish();
        assert_eq!(world.sessions(0)[1], 0, "it is over");
        assert_eq!(world.counter(0, Counter::SessionsFinished), 1);
        world.run(20);
        assert_eq!(world.sessions(1)[1], 0, "for the standby, too");
        world.run(61_000);
        assert_eq!(world.sessions(0), [0, 0, 0]);
    }
}

/// What the ends do, by the name of what is told of it.
fn works() -> Vec<(&'static str, Work, Work)> {
    let slow = |work: Work| Work { reads: 1_000, buffer: 20_000, ..work };
    vec![
        ("download", Work::sending(100, 0), Work::sending(200_000, 100)),
        ("upload", Work::sending(200_000, 0), Work::sending(100, 200_000)),
        ("request, response", Work::sending(100, 5_000), Work::sending(5_000, 100)),
        ("the server closes first", Work::sending(30_000, 20_000), Work::sending(20_000, 0)),
        ("both ways", Work::sending(100_000, 0), Work::sending(100_000, 0)),
        ("a slow client", Work::sending(100, 0), slow(Work::sending(60_000, 0))),
        ("a slow server", slow(Work::sending(60_000, 0)), Work::sending(100, 0)),
    ]
}

/// The slow one is the other: whoever reads.
fn swapped((name, client, server): (&'static str, Work, Work)) -> (&'static str, Work, Work) {
    let reads = |work: Work, like: Work| Work { reads: like.reads, buffer: like.buffer, ..work };
    (name, reads(client, server), reads(server, client))
}

#[test]
fn a_session_goes_on_whenever_the_active_node_dies() {
    for (name, client, server) in works().into_iter().map(swapped) {
        for opening in BOTH {
            for at in (0..30).chain((30..160).step_by(7)) {
                let mut world = world(opening(), client, server);
                world.run(at);
                world.kill(0);
                println!("{name}, killed after {at} ms");
                world.finish();
                world.run(2_000);
                assert_eq!(world.sessions(1)[1], 0, "{name}, {at}: it is over");
            }
        }
    }
}

#[test]
fn a_session_goes_on_across_several_deaths_and_losses() {
    for (name, client, server) in works().into_iter().map(swapped) {
        for every in [7, 23, 50] {
            let mut world = world(OpeningMode::Direct, client, server).lossy(every);
            for round in 0..4 {
                world.run(150);
                println!("{name}, one of {every} is lost, death {round}");
                world.kill(round % 2);
                world.run(300);
                world.restart(round % 2);
            }
            world.finish();
        }
    }
}

#[test]
fn a_session_goes_on_when_it_is_handed_over() {
    for (name, client, server) in works().into_iter().map(swapped) {
        for at in [0, 3, 10, 50] {
            let mut world = world(OpeningMode::Direct, client, server);
            world.run(at);
            println!("{name}, handed over after {at} ms");
            world.hand_over(0);
            world.run(200);
            assert!(world.is_paired());
            world.hand_over(1);
            world.finish();
        }
    }
}

#[test]
fn the_proxy_header_comes_before_everything_and_survives() {
    for opening in BOTH {
        for at in [None, Some(0), Some(1), Some(2), Some(3), Some(20)] {
            let mut config = config(opening());
            config.pools[0].proxy_protocol = Some(ProxyProtocol::V1);
            let mut world = World::new(config, Work::sending(50_000, 0), Work::sending(50_000, 0));
            world.prefix = b"PROXY TCP4 10.0.0.10 10.0.0.100 10000 80\r\n".len();
            world.start_client();
            if let Some(at) = at {
                world.run(at);
                world.kill(0);
            }
            world.finish();
            assert!(world.servers.last().unwrap().read.starts_with(b"PROXY TCP4 10.0.0.10 "));
        }
    }
}

#[test]
fn a_client_that_has_not_shown_that_it_exists_is_not_announced() {
    let mut config = config(OpeningMode::Direct);
    config.pools[0].proxy_protocol = Some(ProxyProtocol::V2);
    let silent = Work::sending(0, usize::MAX);
    let mut world = World::new(config, silent, silent);
    let syn = Segment {
        tuple: FourTuple::new(Endpoint::new([10, 0, 0, 11].into(), 10_000), joined::listener()),
        seq: Seq(1_000),
        ack: None,
        flags: Flags::SYN,
        window: 20_000,
        options: Options::default(),
        payload: &[],
        hop_limit: 64,
    };
    let mut packet = Vec::new();
    syn.emit(&mut packet);
    world.hand_to_node(&packet);
    world.run(20);
    assert_eq!(world.servers.len(), 1);
    assert!(world.servers[0].read.is_empty());
}

#[test]
fn a_server_that_refuses_is_passed_over() {
    for opening in BOTH {
        let mut config = config(opening());
        let servers = [0, 1].map(|n| Server { address: server_address(n) });
        config.pools[0].servers = servers.to_vec();
        let mut world = World::new(config, Work::sending(1_000, 0), Work::sending(1_000, 0));
        world.refusing = vec![server_address(0)];
        world.start_client();
        world.finish();
        assert_eq!(world.counter(0, Counter::ServerRefused), 1);
    }
}

#[test]
fn the_standby_is_told_nothing_for_a_byte() {
    let mut world = world(
        OpeningMode::Direct,
        Work::sending(100, usize::MAX),
        Work::sending(5_000_000, usize::MAX),
    );
    world.run(50);
    let before = world.messages;
    world.run(100);
    assert!(world.client.as_ref().unwrap().read.len() > 1_000_000);
    assert_eq!(world.messages, before);
}

#[test]
fn a_slow_reader_is_shown_to_the_sender_as_one() {
    let reader = Work { reads: 0, buffer: 20_000, ..Work::sending(0, usize::MAX) };
    let mut world = world(OpeningMode::Direct, Work::sending(500_000, 0), reader);
    world.run(5_000);
    let client = &world.client.as_ref().unwrap().connection;
    assert_eq!(client.statistics().send_window, 0, "its window is closed");
    let at = client.positions();
    assert_eq!(at.sent, at.sent_acknowledged, "nothing of what it sent looks lost");
    world.kill(0);
    world.run(3_000);
    let client = &world.client.as_ref().unwrap().connection;
    assert_eq!(client.statistics().send_window, 0, "nor does the other node open it");
}

/// The largest window that either end is shown while both send as much as they may.
fn widest_windows(world: &mut World, ticks: usize) -> u32 {
    let mut widest = 0;
    for _ in 0..ticks {
        world.run(1);
        let ends = world.client.iter().chain(&world.servers);
        widest = ends.map(|end| end.connection.statistics().send_window).fold(widest, u32::max);
    }
    widest
}

/// Ends that have room for everything that comes.
fn roomy(sends: usize, closes_after: usize) -> Work {
    Work { buffer: 4_000_000, ..Work::sending(sends, closes_after) }
}

#[test]
fn no_window_is_larger_than_what_a_stream_may_hold() {
    for opening in BOTH {
        let mut config = config(opening());
        config.limits.terminated_stream_bytes = 100_000;
        let mut world = World::new(config, roomy(1_000_000, 500_000), roomy(500_000, 1_000_000));
        world.start_client();
        // What is shown is a multiple of the scale.
        let widest = widest_windows(&mut world, 20);
        assert!((90_000..=100_000).contains(&widest), "{widest}");
        world.kill(0);
        world.finish();
    }
}

#[test]
fn a_session_goes_on_at_a_node_that_may_hold_less() {
    let mut world =
        World::new(config(OpeningMode::Direct), roomy(8_000_000, 100), roomy(100, 8_000_000));
    world.start_client();
    while world.servers.first().is_none_or(|server| server.read.len() < 100_000) {
        world.tick();
    }
    world.deaf = true;
    world.run(30);
    let at = world.client.as_ref().unwrap().connection.positions();
    let ahead = at.sent.distance(at.sent_acknowledged);
    assert!(ahead > 500_000, "{ahead}");
    world.deaf = false;
    for node in [0, 1] {
        world.reconfigure(node, |config| config.limits.terminated_stream_bytes = 64 << 10);
    }
    world.kill(0);
    world.finish();
}

#[test]
fn when_memory_is_short_streams_become_slower_and_go_on() {
    let mut config = config(OpeningMode::Direct);
    config.limits.terminated_stream_bytes = 64 << 10;
    config.limits.terminated_bytes = 64 << 10;
    let reads = Work { reads: 4_000, buffer: 20_000, ..Work::sending(400_000, 0) };
    let mut world = World::new(config, roomy(400_000, 0), reads).lossy(50);
    world.start_client();
    world.run(200);
    world.kill(0);
    world.finish();
}

#[test]
fn a_reset_ends_the_other_connection_too() {
    for killed in [false, true] {
        for client_resets in [false, true] {
            let forever = Work::sending(1_000, usize::MAX);
            let mut world = world(OpeningMode::Direct, forever, forever);
            world.run(50);
            if killed {
                world.kill(0);
                world.run(300);
            }
            let client = world.client.as_mut().unwrap();
            let (reset, other) = match client_resets {
                true => (&mut client.connection, &world.servers[0].connection),
                false => (&mut world.servers[0].connection, &client.connection),
            };
            let other = other.tuple();
            reset.abort();
            world.run(50);
            let ends = [&world.client.as_ref().unwrap().connection, &world.servers[0].connection];
            let told = ends.iter().find(|end| end.tuple() == other).unwrap();
            assert_eq!(told.end(), Some(outlive_tcp::endpoint::End::ResetByPeer));
            let node = usize::from(killed);
            assert_eq!(world.sessions(node), [0, 0, 0]);
        }
    }
}
