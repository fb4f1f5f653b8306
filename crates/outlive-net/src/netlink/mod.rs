//! A synchronous rtnetlink client: links, addresses, routes, rules and neighbours.
//!
//! One [`Netlink`] is one socket, bound to the network namespace of the thread that opened it.
//! A call sends one request and waits for the kernel's answer, which comes within the call's
//! own system calls: nothing here ever blocks for long. The message formats are those of
//! `netlink-packet-route`, none of whose types are visible outside.
//!
//! Interfaces are addressed by name. Where a second call of the same thing should succeed, the
//! function says so (`replace_*`, `delete_*_if_present`).

mod address;
mod client;
mod link;
mod neighbour;
mod route;
mod rule;

use std::fmt;

pub use self::{
    address::{Address, AddressOptions},
    client::Netlink,
    link::{BridgeOptions, Link, LinkIndex, OperState, PortState},
    neighbour::{Neighbour, NeighbourState},
    route::{ROUTE_PROTOCOL, Route, RouteTarget, TABLE_MAIN},
    rule::Rule,
};
use crate::Errno;

/// A request that failed: what was tried, in words, and why it did not work.
///
/// Reads like "adding route 10.0.0.100/32 dev outl0: operation not permitted".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetlinkError {
    /// What was tried, as a phrase with the names and addresses concerned.
    pub operation: String,
    /// Why it failed.
    pub cause: Cause,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The kernel refused, with the hint it gave (extended acknowledgment), if any.
    Refused {
        /// The error number.
        errno: Errno,
        /// The kernel's own words.
        hint: Option<String>,
    },
    /// No interface has this name.
    NoSuchInterface,
    /// The socket itself failed.
    Socket(Errno),
    /// The kernel's answer was not understood, or there was none.
    Unintelligible,
}

impl NetlinkError {
    pub(crate) fn opening(errno: Errno) -> NetlinkError {
        NetlinkError {
            operation: "opening a netlink socket".to_owned(),
            cause: Cause::Socket(errno),
        }
    }

    /// The kernel's error number, if it refused.
    pub fn errno(&self) -> Option<Errno> {
        match self.cause {
            Cause::Refused { errno, .. } | Cause::Socket(errno) => Some(errno),
            Cause::NoSuchInterface => Some(Errno(libc::ENODEV)),
            Cause::Unintelligible => None,
        }
    }

    /// Whether the object was not there: a link, a route, an address, a rule.
    pub fn is_absent(&self) -> bool {
        matches!(
            self.errno(),
            Some(Errno(libc::ENODEV | libc::ESRCH | libc::ENOENT | libc::EADDRNOTAVAIL))
        )
    }

    /// Whether the object was there already.
    pub fn is_present(&self) -> bool {
        self.errno() == Some(Errno(libc::EEXIST))
    }

    /// Whether a capability (`CAP_NET_ADMIN`) was missing.
    pub fn is_permission(&self) -> bool {
        matches!(self.errno(), Some(Errno(libc::EPERM | libc::EACCES)))
    }
}

impl fmt::Display for NetlinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.operation)?;
        match &self.cause {
            Cause::Refused { errno, hint: Some(hint) } => write!(f, "{errno} ({hint})"),
            Cause::Refused { errno, hint: None } => write!(f, "{errno}"),
            Cause::NoSuchInterface => write!(f, "no such interface"),
            Cause::Socket(errno) => write!(f, "netlink socket: {errno}"),
            Cause::Unintelligible => write!(f, "the kernel's answer was not understood"),
        }
    }
}

impl std::error::Error for NetlinkError {}

/// Success also where the object to be removed was not there.
fn absent_is_fine(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match result {
        Err(error) if error.is_absent() => Ok(()),
        other => other,
    }
}
