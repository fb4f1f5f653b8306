//! Fuzzing: what strangers and peers can send, made from arbitrary bytes, and what must hold whatever it is.
//!
//! A target is a function of bytes that panics if something is wrong. It reaches the other crates only through
//! what they export, as a shell does, so what it finds can be found by somebody out there. Three things run
//! targets: the tests of this crate (every file of every corpus, and mutations of them), `./fuzz` (libFuzzer,
//! guided by coverage), and whoever wants to see a finding again (`./fuzz TARGET FILE`).
//!
//! | module | owns |
//! |---|---|
//! | [`targets`] | one module for each target |
//! | `world` | the packets target's small world: a pair of nodes, its clients and servers |
//! | `input` | values read off arbitrary bytes |
//! | `judge` | what every packet that leaves must be, computed without the code under test |
//! | [`mutate`] | seeded mutations of a corpus, for a short run without libFuzzer |

mod input;
mod judge;
pub mod mutate;
pub mod targets;
mod world;

/// Something to be fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its directory in `corpus`.
    pub name: &'static str,
    /// Panics if the bytes show a fault.
    pub run: fn(&[u8]),
    /// Longer inputs show nothing more.
    pub max_len: usize,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "packets", run: targets::packets::run, max_len: 512 },
    Target { name: "replication", run: targets::replication::run, max_len: 2_048 },
    Target { name: "channel", run: targets::channel::run, max_len: 1_024 },
    Target { name: "heartbeats", run: targets::heartbeats::run, max_len: 512 },
    Target { name: "inspection", run: targets::inspection::run, max_len: 2_048 },
    Target { name: "icmp", run: targets::icmp::run, max_len: 512 },
    Target { name: "translation", run: targets::translation::run, max_len: 512 },
    Target { name: "cookies", run: targets::cookies::run, max_len: 128 },
    Target { name: "endpoint", run: targets::endpoint::run, max_len: 1_024 },
    Target { name: "blob", run: targets::blob::run, max_len: 512 },
    Target { name: "migration", run: targets::migration::run, max_len: 1_024 },
    Target { name: "tunnel", run: targets::tunnel::run, max_len: 512 },
    Target { name: "stack", run: targets::stack::run, max_len: 512 },
    Target { name: "settings", run: targets::settings::run, max_len: 2_048 },
];

/// The target of that name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
