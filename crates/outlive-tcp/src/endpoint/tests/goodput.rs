//! How fast, and how fair: bottlenecks in virtual time. Limits are loose; they are there to catch
//! what is broken, not to rank algorithms.

use std::time::Duration;

use super::{
    harness::ms,
    world::{Host, LinkConfig, Listener, Program, Work, World, pair},
};
use crate::{
    endpoint::{Acknowledge, Algorithm, Config, Connection, Opening},
    seq::Seq,
    testing,
};

fn config(congestion: Algorithm) -> Config {
    Config {
        acknowledge: Acknowledge::OnRead,
        receive_buffer: 4 << 20,
        withheld_limit: 4 << 20,
        send_buffer: 4 << 20,
        congestion,
        ..Config::default()
    }
}

const ENDLESS: Work = Work {
    send: u64::MAX,
    streams: (1, 1),
    read_size: 1 << 20,
    commit: Duration::ZERO,
    pause: Duration::ZERO,
};

fn receiver() -> Work {
    Work::default()
}

/// Bytes per second that arrive during `time`, after `warm_up`.
fn rates(world: &mut World<Host>, warm_up: Duration, time: Duration) -> Vec<u64> {
    let mut read_at = |when: Duration| -> Vec<u64> {
        let end = world.now + when;
        world.run(when * 2, |world| world.now >= end);
        world.ends.iter_mut().skip(1).step_by(2).map(|end| end.program().read).collect()
    };
    let before = read_at(warm_up);
    let after = read_at(time);
    let rate = |(before, after)| (after - before) * 1_000 / time.as_millis() as u64;
    before.into_iter().zip(after).map(rate).collect()
}

/// Several flows over one bottleneck.
fn flows(seed: u64, link: LinkConfig, algorithms: &[Algorithm]) -> World<Host> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut ends = Vec::new();
    for (i, &algorithm) in algorithms.iter().enumerate() {
        let tuple = testing::tuple(&format!("10.0.0.1:{}", 4_000 + i), "10.0.0.2:80");
        let opening = |tuple, random: &mut fastrand::Rng| Opening {
            tuple,
            iss: Seq(random.u32(..)),
            timestamp_offset: random.u32(..),
        };
        let client = Connection::connect(opening(tuple, &mut random), config(algorithm)).unwrap();
        ends.push(Host::Connected(Box::new(Program::new(client, ENDLESS))));
        let opening = opening(tuple.reversed(), &mut random);
        let (config, work) = (config(algorithm), receiver());
        ends.push(Host::Listening(Box::new(Listener { config, work, opening })));
    }
    World::new(random.u64(..), link, ends)
}

/// 10 Mbit/s, 40 ms round trip, a queue of one bandwidth-delay product.
fn bottleneck() -> LinkConfig {
    LinkConfig { delay: ms(20), rate: 1_250_000, queue: 50_000, ..LinkConfig::default() }
}

#[test]
fn one_flow_fills_a_bottleneck() {
    for algorithm in [Algorithm::Cubic, Algorithm::NewReno] {
        let mut world = flows(1, bottleneck(), &[algorithm]);
        let rate = rates(&mut world, Duration::from_secs(5), Duration::from_secs(20))[0];
        // Of 1,250,000 there are 1,448 payload bytes in each 1,500.
        assert!(rate > 1_080_000, "{algorithm:?}: {rate} bytes/s");
    }
}

#[test]
fn flows_share_a_bottleneck() {
    use Algorithm::{Cubic, NewReno};
    for (algorithms, least) in
        [([Cubic, Cubic], 25), ([NewReno, NewReno], 25), ([NewReno, Cubic], 15)]
    {
        let mut world = flows(2, bottleneck(), &algorithms);
        let rates = rates(&mut world, Duration::from_secs(10), Duration::from_secs(40));
        let total = rates[0] + rates[1];
        let share = 100 * rates[0].min(rates[1]) / total;
        assert!(total > 1_050_000, "{algorithms:?}: {rates:?}");
        assert!(share >= least, "{algorithms:?}: {rates:?}");
    }
}

/// Random loss of 1 % at 50 ms: what remains is near what the response functions say, 1.2 / sqrt(p) segments
/// per round trip for NewReno (RFC 3649, section 2), and no less for Cubic.
#[test]
fn random_loss_costs_what_the_response_function_says() {
    let link = LinkConfig { delay: ms(25), loss: 10, ..LinkConfig::default() };
    for algorithm in [Algorithm::Cubic, Algorithm::NewReno] {
        let mut world = flows(3, link, &[algorithm]);
        let rate = rates(&mut world, Duration::from_secs(5), Duration::from_secs(100))[0];
        let expected = 12 * 1_448 * 20; // bytes/s: windows of 12 segments, 20 a second
        assert!(rate > expected * 7 / 10, "{algorithm:?}: {rate} of {expected} bytes/s");
        assert!(rate < expected * 25 / 10, "{algorithm:?}: {rate} of {expected} bytes/s");
    }
}

/// Acknowledgments that come 100 ms late cost window / (RTT + delay), and no retransmission beyond
/// a probe now and then.
#[test]
fn late_acknowledgments_cost_their_delay() {
    let explicit = Config { acknowledge: Acknowledge::Explicitly, ..config(Algorithm::Cubic) };
    let work = Work { commit: ms(100), ..Work::default() };
    let send = Work { send: 10_000_000, ..Work::default() };
    let mut world =
        pair(4, LinkConfig::default(), (config(Algorithm::Cubic), send), (explicit, work));
    let start = world.now;
    assert!(world.run(Duration::from_secs(60), |world| world.ends.iter().all(Host::is_done)));
    assert!(world.now.since(start) < Duration::from_secs(63));
    let sent = world.ends[0].program().bytes_sent;
    assert!(sent < 10_100_000, "{sent} bytes for 10,000,000");
}
