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
//! | [`crowd`] | the same in many processes, for many connections |
//! | [`synthetic`] | peers without sockets, for very many |
//! | [`endpoint`] | Outlive's own TCP against the kernel's |
//! | [`migration`] | connections that are handed to the machine that should have them |
//! | [`load`] | as much as goes, counted, for benchmarks |
//! | `receiver` | the durable log receiver, and senders of records |
//! | [`attack`] | forged segments and an eavesdropper |
//! | [`node`], [`subject`] | the program on a host; what stands between clients and servers |
//! | [`processor`] | how much processor time something takes |
//! | [`report`] | one JSON object for each run |
//! | [`scenario`] | what the command can run |
//! | [`demo`] | what a newcomer sees first |
//!
//! A scenario in short, without a proxy:
//!
//! ```no_run
//! # use std::{sync::Arc, time::Duration};
//! # use outlive_lab::{link::{Cut, LinkKind}, report::Report, topology::Lab};
//! # use outlive_lab::traffic::{Book, Client, Plan, Server};
//! let lab = Lab::new(1)?;
//! let one = lab.host("one", 10, LinkKind::Plain)?;
//! let other = lab.host("other", 20, LinkKind::Plain)?;
//! let book = Arc::new(Book::default());
//! let server = Server::start(&other, &book, &[7000])?;
//! let client = Client::start(&one, &book, lab.seed())?;
//! client.open("bulk", 1, other.socket(false, 7000), &Plan::download(1 << 30));
//! client.open("idle", 100, other.socket(true, 7000), &Plan::Idle);
//! other.link().cut(Cut::Both)?;
//! other.link().restore()?;
//! client.finish(Duration::from_secs(30));
//! server.finish(Duration::from_secs(5));
//! let mut report = Report::new("in short", &lab);
//! report.add_book(&book);
//! println!("{}", report.to_json());
//! # Ok::<(), outlive_lab::error::LabError>(())
//! ```
#![forbid(unsafe_code)]

pub mod attack;
pub mod clock;
mod congestion;
pub mod crowd;
pub mod demo;
pub mod endpoint;
pub mod error;
pub mod host;
pub mod impairment;
pub mod link;
pub mod load;
pub mod migration;
pub mod node;
pub mod picture;
pub mod privilege;
pub mod processor;
pub(crate) mod receiver;
pub mod report;
pub mod scenario;
mod scratch;
mod segment;
mod steering;
pub mod subject;
pub mod synthetic;
pub mod topology;
pub mod traffic;
mod wire;
