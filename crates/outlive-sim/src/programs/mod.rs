//! A pair of hosts whose programs end connections themselves ([`outlive_stack`]), and clients that know nothing of it.
//!
//! The program writes down what it reads, by the connection's name and position, as one does that stores records; and it
//! answers each byte with one that depends on all bytes before it, so that whoever goes on needs the right state. A
//! node dies after any of its steps, as in [`crash_points`](crate::crash_points).
//!
//! | module | owns |
//! |---|---|
//! | `world` | virtual time, the two nodes, what is said between them, who dies when |
//! | `program` | a node: the stack, and what its program does |
//! | `client` | clients, and the rules: what they may be told, and by whom |

mod client;
mod program;
mod world;

use std::time::Duration;

pub use self::world::run;
use crate::{setup::CrashPoint, stack::Kind};

/// What clients do.
#[derive(Clone, Debug)]
pub struct Load {
    /// By client: its TCP, and how many bytes it says before it closes.
    pub clients: Vec<(Kind, usize)>,
    /// A client begins so long after the one before it.
    pub apart: Duration,
    /// What was read is decided on so much later.
    pub decides_after: Duration,
    /// Out of 1,000 packets so many are lost.
    pub loss: u32,
}

/// A world of this kind.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The load.
    pub load: Load,
    /// Decides everything that chance decides.
    pub seed: u64,
    /// The death of a node at a point of its own doing.
    pub crash: Option<CrashPoint>,
    /// Print what happens.
    pub trace: bool,
}

/// Every load, by name.
pub fn all() -> Vec<(&'static str, Load)> {
    use Kind::{Linux, Outlive, Smoltcp};
    let load = |clients: &[(Kind, usize)]| Load {
        clients: clients.to_vec(),
        apart: Duration::from_micros(700),
        decides_after: Duration::from_micros(400),
        loss: 0,
    };
    vec![
        ("program-echo", load(&[(Linux, 30_000)])),
        ("program-smoltcp", load(&[(Smoltcp, 9_000)])),
        ("program-several", load(&[(Linux, 3_000), (Smoltcp, 2_000), (Outlive, 2_000)])),
        ("program-short", load(&[(Linux, 1), (Smoltcp, 10), (Linux, 100), (Outlive, 1_000)])),
        ("program-one-word", load(&[(Linux, 10)])),
        (
            "program-slow",
            Load { decides_after: Duration::from_millis(12), ..load(&[(Linux, 24_000)]) },
        ),
        ("program-loss", Load { loss: 40, ..load(&[(Linux, 4_000), (Smoltcp, 2_000)]) }),
    ]
}

/// The load of that name.
pub fn named(name: &str) -> Option<Load> {
    all().into_iter().find(|(n, _)| *n == name).map(|(_, load)| load)
}

impl Load {
    /// A world with this load, in which nobody dies.
    pub fn setup(&self, seed: u64) -> Setup {
        Setup { load: self.clone(), seed, crash: None, trace: false }
    }
}
