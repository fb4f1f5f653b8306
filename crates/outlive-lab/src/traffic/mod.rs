//! Traffic of real kernel sockets, verified at both ends.
//!
//! Owns: what lab clients and servers say to each other, and the book in which every connection's
//! fate is written. One thread per client or server runs any number of connections
//! (`engine`); a [`Plan`] says what one connection does; the [`Book`] holds what became of all
//! of them. Does not own: where the threads run (a [`Host`](crate::host::Host)) and what stands
//! between the two ends.

pub mod book;
mod client;
mod conversation;
mod echo;
pub(crate) mod engine;
pub mod pattern;
mod plan;
mod protocol;
mod requests;
pub mod series;
mod server;
mod transfer;
mod waits;

pub use book::{Book, Failure, Group, Record, Side};
pub use client::Client;
pub use plan::{Plan, Reader, Transfer};
pub use server::Server;
pub(crate) use server::listen;
pub use waits::Wait;
