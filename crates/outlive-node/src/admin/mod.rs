//! The admin socket: a running node answers questions on a Unix socket, in lines of JSON.
//!
//! | part | is |
//! |---|---|
//! | [`AdminServer`] | the node's end, driven by the event loop |
//! | [`ask`] | the other end, for commands |
//! | [`Report`] | what `status` is answered with |
//!
//! A request is `{"command":"status"}`. An answer is one object: the report, or
//! `{"error":"..."}`. Several requests may follow each other on a connection.

mod client;
mod report;
mod server;

pub use client::{AskError, ask};
pub use report::{
    CoreReport, FastPathReport, PacketReport, PathReport, PeerReport, Report, ServerReport,
    Survival,
};
pub use server::{AdminServer, OpenError};

use serde::{Deserialize, Serialize};

/// A question to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How is it? Answered with a [`Report`].
    Status,
}

/// What a node says to a request that it does not understand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Why.
    pub error: String,
}
