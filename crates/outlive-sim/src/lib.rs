//! Outlive's simulator: a world of hosts, links and two nodes, in which time is a number and one seed decides
//! everything.
//!
//! | module | owns |
//! |---|---|
//! | [`world`] | virtual time, the queue of events, and what they happen to |
//! | `pair`, `machine` | the two nodes, driven as a process drives them |
//! | `faults`, `forge` | what befalls them; what strangers send |
//! | `roles` | what their roles mean for the flows, and what must be true of them |
//! | `channel`, `records` | the state connection, and what it tells |
//! | [`network`] | links, cuts, and who is believed to have the virtual addresses |
//! | [`host`], [`script`] | hosts and their applications |
//! | [`stack`], `linux`, `smoltcp`, `endpoint` | their TCP |
//! | [`targets`] | migration targets: their agents, what is behind them, and the rules of migrations |
//! | `detector` | the external detector, and what is said between it and the nodes |
//! | `device` | what a TUN device does to packets |
//! | `capture` | a file of packets for Wireshark |
//! | [`content`], [`ledger`], `wire` | what has to be said, and the rules |
//! | [`setup`], [`scenario`], [`scenarios`] | worlds to be run |
//! | [`crash_points`] | the death of the active node after each of its steps |
//! | [`explore`], `situations` | random worlds, and what they have shown |
//! | [`programs`] | another world: hosts whose programs end connections themselves |
//! | `mutants` | whether all this would notice a fault; only with the feature `deliberate-faults` |
//!
//! The commands (`cargo run --release -p outlive-sim -- ...`): `crash-points`, `explore` and `mutants`, each with
//! `--json`. What goes wrong is reported with the command that shows it: `--trace` prints what happens,
//! `--pcap FILE` writes the packets for Wireshark. `mutants` builds itself once more, with the feature
//! `deliberate-faults` and into `deliberate-faults` within the target directory, and hunts each of the faults
//! that `outlive_tcp::fault` lists; `--fault NAME` commits one in a single world.
#![forbid(unsafe_code)]

mod capture;
pub mod channel;
pub mod content;
pub mod crash_points;
mod detector;
mod device;
mod endpoint;
pub mod explore;
mod faults;
mod forge;
pub mod host;
mod kernel;
pub mod ledger;
mod linux;
mod machine;
#[cfg(feature = "deliberate-faults")]
pub mod mutants;
pub mod network;
mod packet;
mod pair;
pub mod programs;
mod records;
pub mod rng;
mod roles;
pub mod scenario;
pub mod scenarios;
pub mod script;
pub mod setup;
mod situations;
mod smoltcp;
pub mod stack;
pub mod targets;
mod wire;
pub mod world;
