//! The admin socket: a running node answers questions on a Unix socket, in lines of JSON.
//!
//! | part | is |
//! |---|---|
//! | [`AdminServer`] | the node's end, driven by the event loop |
//! | [`ask`], [`order`] | the other end, for commands |
//! | [`Report`] | what `status` is answered with |
//!
//! A request is an object such as `{"command":"status"}`. An answer is one object: the report, `{"done":"..."}`, or
//! `{"error":"..."}`. Several requests may follow each other on a connection.

mod client;
pub(crate) mod gather;
pub(crate) mod report;
mod server;

pub use client::{AskError, ask, order};
pub use report::{
    CoreReport, DetectorReport, FastPathReport, ListenerReport, PacketReport, PathReport,
    PeerReport, Report, ServerReport, Survival, TargetReport,
};
pub use server::{AdminServer, OpenError};

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A question to a node, or an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How is it? Answered with a [`Report`].
    Status,
    /// Read the configuration file again and obey it, and have the peer do the same.
    Reload,
    /// Give the server at `server` (address with port) of the pool of that name no new sessions.
    Drain {
        /// The pool.
        pool: String,
        /// The server.
        server: SocketAddr,
    },
    /// Give it some again.
    Undrain {
        /// The pool.
        pool: String,
        /// The server.
        server: SocketAddr,
    },
    /// Move everything to the standby. Answered when it has begun; how it ends is seen in the report.
    #[serde(rename = "handover")]
    HandOver,
}

/// What a node answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// How it is.
    Report(Box<Report>),
    /// It was done, or has begun.
    Done(Done),
    /// It was not done.
    Refusal(Refusal),
}

/// What a node says that has done what it was told to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// What it has done, in words.
    pub done: String,
}

impl Answer {
    /// Done.
    pub fn done(done: impl Into<String>) -> Self {
        Answer::Done(Done { done: done.into() })
    }

    /// Not done.
    pub fn refusal(reason: impl ToString) -> Self {
        Answer::Refusal(Refusal { error: reason.to_string() })
    }
}

impl From<Box<Report>> for Answer {
    fn from(report: Box<Report>) -> Self {
        Answer::Report(report)
    }
}

/// What a node says to a request that it does not understand, or cannot fulfil.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Why.
    pub error: String,
}
