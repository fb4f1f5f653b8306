//! What a session costs its standby: memory, and bytes on the state connection.

mod duo;

use duo::{Duo, config};
use outlive_proxy::config::Protection;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const SESSIONS: usize = 100_000;

/// What is promised, per session, everything included.
const MEMORY: usize = 256;
const MESSAGES: usize = 256;

/// A million fit into a quarter of a gigabyte.
#[test]
fn a_session_costs_its_standby_little() {
    let mut config = config(Protection::default());
    config.limits.sessions = SESSIONS as u32;
    config.limits.openings = 1_000;
    let addresses = (1..=4).map(|host| [10, 0, 1, host].into());
    config.source_addresses = addresses.collect();
    let mut duo = Duo::apart(config);
    duo.careful = false;
    for number in 0..SESSIONS {
        duo.open_from(0, number);
    }
    let standby_before = ALLOCATOR.current_usage();
    duo.connect();
    let mut told = 0;
    while duo.speak(0) + duo.speak(1) + duo.under_way(0).len() + duo.under_way(1).len() > 0 {
        told += duo.under_way(1).iter().map(Vec::len).sum::<usize>();
        duo.hear(0, usize::MAX);
        duo.hear(1, usize::MAX);
    }
    assert!(duo.is_paired());
    assert_eq!(duo.sessions(1).iter().sum::<usize>(), SESSIONS);
    let memory = (ALLOCATOR.current_usage() - standby_before) / SESSIONS + INDEX;
    let messages = told / SESSIONS;
    assert!(memory <= MEMORY, "{memory} bytes of memory for each session");
    assert!(messages <= MESSAGES, "{messages} bytes of messages for each session");
    println!("{memory} bytes of memory and {messages} bytes of messages for each session");
}

/// What the index of connections costs, which is allocated when the node starts: two entries of five bytes, of which
/// at least seven in sixteen are in use.
const INDEX: usize = 2 * 5 * 16 / 7;
