//! Tests of the endpoint as a whole. Each file has its own view:
//!
//! | file | view |
//! |---|---|
//! | [`states`] | one segment after the other, state by state |
//! | [`agreement`] | what the ends agree on, and what follows from it |
//! | [`loss`] | loss and its repair, windows, one acknowledgment after the other |
//! | [`withheld`] | what the other end is told while acknowledgments are withheld |
//! | [`link`] | two endpoints over a link that loses, reorders, duplicates, delays and corrupts |
//! | [`smoltcp`] | the same against an independent TCP |
//! | [`defences`] | what strangers may send |
//! | [`path`] | path MTU, ECN, keep-alive |
//! | [`takeover`] | another node goes on, at every event of a transfer |
//! | [`goodput`] | how fast, and how fair |

mod agreement;
mod defences;
mod goodput;
mod harness;
mod link;
mod loss;
mod path;
mod smoltcp;
mod states;
mod takeover;
mod withheld;
mod world;
