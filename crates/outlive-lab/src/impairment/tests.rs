//! The fate of frames on a virtual clock.

use super::*;

const FRAMES: u64 = 20_000;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Sends `FRAMES` numbered frames of 1500 bytes, one every 100 µs; what arrives, with its time.
fn run(config: Impairment, seed: u64) -> (Vec<(Duration, u64)>, Tally) {
    let mut direction = Direction::new(config, seed);
    let mut arrived = Vec::new();
    for number in 0..FRAMES {
        let now = Duration::from_micros(number * 100);
        collect(&mut direction, now, &mut arrived);
        direction.push(now, number, 1500);
    }
    collect(&mut direction, Duration::MAX, &mut arrived);
    (arrived, direction.tally())
}

fn collect(direction: &mut Direction<u64>, now: Duration, arrived: &mut Vec<(Duration, u64)>) {
    while let Some(due) = direction.next_due().filter(|&due| due <= now) {
        arrived.push((due, direction.pop(now).expect("something is due")));
    }
}

#[test]
fn a_perfect_link_delivers_at_once_and_in_order() {
    let (arrived, tally) = run(Impairment::default(), 1);
    assert_eq!(arrived.len() as u64, FRAMES);
    for (number, &(at, frame)) in (0..).zip(&arrived) {
        assert_eq!((at, frame), (Duration::from_micros(number * 100), number));
    }
    assert_eq!(tally.delivered, FRAMES);
}

#[test]
fn delay_and_jitter_stay_in_their_bounds_and_keep_the_order() {
    let config = Impairment { delay: ms(10), jitter: ms(5), ..Impairment::default() };
    let (arrived, _) = run(config, 2);
    let mut spread = (Duration::MAX, Duration::ZERO);
    for (number, &(at, frame)) in (0..).zip(&arrived) {
        assert_eq!(frame, number, "jitter alone does not reorder");
        let took = at - Duration::from_micros(number * 100);
        assert!(took >= ms(10) && took <= ms(15), "{took:?}");
        spread = (spread.0.min(took), spread.1.max(took));
    }
    assert!(spread.1 - spread.0 > ms(3), "there is jitter: {spread:?}");
}

#[test]
fn loss_duplication_and_reordering_have_their_shares() {
    let config = Impairment { loss: 0.01, duplicate: 0.02, reorder: 0.03, ..Impairment::default() };
    let (arrived, tally) = run(config, 3);
    let near = |count: u64, share: f64| {
        let expected = FRAMES as f64 * share;
        (count as f64 - expected).abs() < expected * 0.3
    };
    assert!(near(tally.lost, 0.01), "{tally:?}");
    assert!(near(tally.duplicated, 0.02), "{tally:?}");
    assert!(near(tally.reordered, 0.03), "{tally:?}");
    assert_eq!(tally.delivered, FRAMES - tally.lost + tally.duplicated);
    assert_eq!(arrived.len() as u64, tally.delivered);
    let overtaken = arrived.windows(2).filter(|pair| pair[0].1 > pair[1].1).count() as u64;
    assert!(overtaken >= tally.reordered / 2, "{overtaken} of {}", tally.reordered);
}

#[test]
fn the_same_seed_gives_the_same_fate_and_another_does_not() {
    assert_eq!(run(Impairment::bad(), 4), run(Impairment::bad(), 4));
    assert_ne!(run(Impairment::bad(), 4).0, run(Impairment::bad(), 5).0);
}

#[test]
fn the_rate_holds_and_a_full_queue_drops() {
    // 1500 bytes every 100 µs are 120 Mbit/s; half of it gets through.
    let config = Impairment { rate: Some(60_000_000), queue: 15_000, ..Impairment::default() };
    let (arrived, tally) = run(config, 6);
    let seconds = arrived.last().expect("frames arrive").0.as_secs_f64();
    let rate = arrived.len() as f64 * 1500.0 * 8.0 / seconds;
    assert!((rate - 60e6).abs() < 0.6e6, "{rate}");
    assert_eq!(tally.overflowed + tally.delivered, FRAMES);
    // Ten frames fit into the queue: none waits longer than they take.
    for &(at, number) in &arrived {
        let took = at - Duration::from_micros(number * 100);
        assert!(took <= Duration::from_micros(2001), "{took:?}");
    }
}

#[test]
fn a_cut_takes_what_is_on_the_way_and_what_comes_until_it_is_restored() {
    let mut direction = Direction::new(Impairment::delayed(ms(10)), 7);
    direction.push(ms(0), "on the way", 100);
    direction.set_cut(true);
    direction.push(ms(1), "while cut", 100);
    assert_eq!(direction.pop(ms(100)), None);
    direction.set_cut(false);
    direction.push(ms(100), "after", 100);
    assert_eq!(direction.pop(ms(109)), None);
    assert_eq!(direction.pop(ms(110)), Some("after"));
    assert_eq!(direction.tally().cut, 2);
}
