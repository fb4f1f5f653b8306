//! Outlive's simulator: a world of hosts, links and two nodes, in which time is a number and one seed decides
//! everything.
//!
//! | module | owns |
//! |---|---|
//! | [`world`] | virtual time, the queue of events, and what they happen to |
//! | `pair`, `machine` | the two nodes, driven as a process drives them; their deaths |
//! | `channel`, `records` | the state connection, and what it tells |
//! | [`network`] | links, cuts, and who is believed to have the virtual addresses |
//! | [`host`], [`script`] | TCP end systems (`smoltcp`) and their applications |
//! | [`content`], [`ledger`], `wire` | what has to be said, and the rules |
//! | [`setup`], [`scenario`], [`scenarios`] | worlds to be run |
//! | [`crash_points`] | the death of the active node after each of its steps |
#![forbid(unsafe_code)]

pub mod channel;
pub mod content;
pub mod crash_points;
pub mod host;
pub mod ledger;
mod machine;
pub mod network;
mod packet;
mod pair;
mod records;
pub mod rng;
pub mod scenario;
pub mod scenarios;
pub mod script;
pub mod setup;
mod wire;
pub mod world;
