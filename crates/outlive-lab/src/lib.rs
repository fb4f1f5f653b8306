//! The lab: hosts, links and faults, with real kernels in network namespaces.
//!
//! Used by the demo, the end-to-end tests and the benchmarks, and as a command of its own. A
//! scenario builds a [`Lab`](topology::Lab) and attaches [`Host`](host::Host)s, starts a
//! [`Server`](traffic::Server) and [`Client`](traffic::Client)s that write into one
//! [`Book`](traffic::Book), does harm (cuts a [`Link`](link::Link), kills a program), winds the
//! traffic up, and turns the book into a [`Report`](report::Report).
//!
//! | module | is |
//! |---|---|
//! | [`topology`], [`host`], [`link`] | namespaces, addresses, cables that can be cut |
//! | [`impairment`] | the fate of frames on a bad link, without a clock |
//! | [`traffic`] | verified connections of all kinds, with the waits of each |
//! | [`load`] | as much as goes, counted, for benchmarks |
//! | [`attack`] | forged segments and an eavesdropper |
//! | [`node`], [`subject`] | the program on a host; what stands between clients and servers |
//! | [`report`] | one JSON object for each run |
//! | [`scenario`] | what the command can run |
//! | [`demo`] | what a newcomer sees first |
#![forbid(unsafe_code)]

pub mod attack;
pub mod clock;
mod congestion;
pub mod demo;
pub mod error;
pub mod host;
pub mod impairment;
pub mod link;
pub mod load;
pub mod node;
pub mod picture;
pub mod privilege;
pub mod report;
pub mod scenario;
mod segment;
pub mod subject;
pub mod topology;
pub mod traffic;
mod wire;
