//! For servers: accepts the connections that Outlive migrates to this machine, beside the server's own.
//!
//! A migrated connection was accepted elsewhere, looked at, and moved here by `outlive host`. It arrives as an ordinary connected
//! TCP socket: its peer is the client, and what the client has sent so far is there to be read. A server that accepts from an
//! [`Incoming`] instead of a `TcpListener` need not know more:
//!
//! ```no_run
//! # use std::{io::Write, net::TcpListener};
//! use outlive_accept::Incoming;
//!
//! let incoming = Incoming::new(TcpListener::bind("0.0.0.0:8080")?, "/run/hello.sock")?;
//! loop {
//!     let (mut connection, client) = incoming.accept()?;
//!     writeln!(connection, "hello, {client}")?;
//! }
//! # #[allow(unreachable_code)]
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! | type | is |
//! |---|---|
//! | [`Incoming`] | a `TcpListener` and a [`Migrated`] together |
//! | [`Migrated`] | the socket on which migrated connections arrive: for servers with an event loop of their own |
//! | [`Courier`] | the other side: hands connections over |
//! | [`Announcement`] | what comes with each of them |
//!
//! The protocol is one datagram for each connection, and simple enough for a few lines of any language: `docs/accept.md`.
#![forbid(unsafe_code)]

mod announcement;
mod courier;
mod incoming;
mod migrated;

pub use self::{
    announcement::{Announcement, InvalidAnnouncement},
    courier::{Courier, NotHandedOver},
    incoming::Incoming,
    migrated::Migrated,
};
