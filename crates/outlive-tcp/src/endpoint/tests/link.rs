//! Two endpoints over a link that misbehaves: the streams are equal, and everything ends in time.

use std::time::Duration;

use super::{
    harness::ms,
    world::{Host, LinkConfig, Program, Work, World, client, pair},
};
use crate::{
    endpoint::{Acknowledge, Algorithm, Config, Connection, Opening},
    seq::Seq,
};

/// How long the link misbehaves.
const TROUBLE: Duration = Duration::from_secs(15);
/// How long everything may take afterwards: a timer at its longest, and what slow readers need.
const PATIENCE: Duration = Duration::from_secs(300);

/// First anything may happen. Then nothing bad happens any more, and it must come to its end.
fn transfer(seed: u64, link: LinkConfig, configs: [Config; 2], works: [Work; 2]) -> World<Host> {
    let mut world = pair(seed, link, (configs[0], works[0]), (configs[1], works[1]));
    let is_done = |world: &mut World<Host>| world.ends.iter().all(Host::is_done);
    if !world.run(TROUBLE, is_done) {
        world.link =
            LinkConfig { delay: link.delay, offload: link.offload, ..LinkConfig::default() };
        if !world.run(PATIENCE, is_done) {
            let now = world.now;
            let ends: Vec<_> =
                world.ends.iter_mut().map(|end| end.program().conn.clone()).collect();
            panic!("seed {seed}: not done at {now:?}: {ends:#?}");
        }
    }
    for i in 0..2 {
        let expected = works[1 - i].send;
        world.ends[i].program().assert_complete(expected);
    }
    world
}

fn works(send: [u64; 2]) -> [Work; 2] {
    [
        Work { send: send[0], streams: (1, 2), ..Work::default() },
        Work { send: send[1], streams: (2, 1), ..Work::default() },
    ]
}

#[test]
fn a_clean_link_needs_no_retransmission() {
    let link = LinkConfig::default();
    let mut world = transfer(1, link, [Config::default(); 2], works([1_000_000, 300_000]));
    assert_eq!(world.ends[0].program().bytes_sent, 1_000_000);
    assert_eq!(world.ends[1].program().bytes_sent, 300_000);
}

/// Both ends send their SYN before either has come.
#[test]
fn a_simultaneous_open_over_a_link() {
    for seed in 0..20 {
        let link = LinkConfig { loss: 5 * seed as u32, ..LinkConfig::default() };
        let mut random = fastrand::Rng::with_seed(seed);
        let [first, second] = works([50_000, 20_000]);
        let first = client(Config::default(), first, &mut random);
        let opening = Opening {
            tuple: first.conn.tuple().reversed(),
            iss: Seq(random.u32(..)),
            timestamp_offset: random.u32(..),
        };
        let second = Program::new(Connection::connect(opening, Config::default()).unwrap(), second);
        let mut world = World::new(seed, link, vec![first, second]);
        let done = world.run(PATIENCE, |world| world.ends.iter().all(Program::is_done));
        assert!(
            done,
            "seed {seed}: {:#?}",
            world.ends.iter().map(|end| &end.conn).collect::<Vec<_>>()
        );
        world.ends[0].assert_complete(20_000);
        world.ends[1].assert_complete(50_000);
    }
}

/// Whatever the seed says: settings, sizes, pauses, and what the link does.
fn any_transfer(seed: u64) {
    println!("OUTLIVE_TCP_SEED={seed}"); // Shown if it fails.
    let mut random = fastrand::Rng::with_seed(seed);
    let chance = |random: &mut fastrand::Rng, most: u32| {
        if random.bool() { random.u32(0..=most) } else { 0 }
    };
    let link = LinkConfig {
        delay: Duration::from_micros(random.u64(10..100_000)),
        jitter: Duration::from_micros(if random.bool() { random.u64(0..50_000) } else { 0 }),
        loss: chance(&mut random, 150),
        duplication: chance(&mut random, 100),
        corruption: chance(&mut random, 50),
        offload: random.bool(),
        ..LinkConfig::default()
    };
    let mut configs = [Config::default(); 2];
    let mut works = works([random.u64(0..400_000), random.u64(0..400_000)]);
    for (config, work) in configs.iter_mut().zip(&mut works) {
        config.sack = random.u32(0..4) > 0;
        config.timestamps = random.u32(0..4) > 0;
        config.window_scaling = random.bool();
        config.nagle = random.bool();
        config.ecn = random.bool();
        config.mtu = random.u16(600..9_000);
        config.receive_buffer = random.u32(2_000..500_000);
        config.withheld_limit = config.receive_buffer + random.u32(0..500_000);
        config.acknowledge = *random
            .choice(&[Acknowledge::Explicitly, Acknowledge::OnRead, Acknowledge::OnReceipt])
            .unwrap();
        config.congestion = *random.choice(&[Algorithm::Cubic, Algorithm::NewReno]).unwrap();
        work.read_size = random.usize(100..100_000);
        work.commit = if random.bool() { ms(random.u64(0..400)) } else { Duration::ZERO };
        work.pause = if random.u32(0..4) == 0 { ms(random.u64(0..20)) } else { Duration::ZERO };
    }
    transfer(seed, link, configs, works);
}

#[test]
fn streams_are_equal_whatever_happens() {
    match std::option_env!("OUTLIVE_TCP_SEED").map(str::parse) {
        Some(seed) => any_transfer(seed.unwrap()),
        None => (0..150).for_each(any_transfer),
    }
}
