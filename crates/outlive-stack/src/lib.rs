//! A host of many TCP endpoints that acknowledge when their program says so, and a pair of such hosts,
//! without I/O, clock or randomness.
//!
//! [`Stack`] is the whole of it. Its program listens, accepts, reads bytes that stay with their sender,
//! and decides in [`Transaction`]s: acknowledge so much, send this, my state of the connection is that.
//! With a standby, a transaction has its effects when the standby has confirmed that it knows. If the
//! node dies, the standby's program is given every connection as of its last transaction, under the same
//! [`ConnectionId`], and the bytes of unfinished ones again, at the same positions.
//!
//! | module | owns |
//! |---|---|
//! | `stack` | what comes in and goes out; the state that the others work on |
//! | `opening` | from a SYN to a connection: cookies, bounds, strangers |
//! | `admission` | connections that come here in the middle |
//! | `program` | what a program does with listeners and connections |
//! | `conn`, `transaction` | a connection, and what waits at it |
//! | `regenerate` | output that the standby need not hold |
//! | `replication` | what is told to the standby, and its copy |
//! | `role`, `takeover` | who serves, and what follows |
//! | `table`, `listener`, `id`, `config`, `outcome` | what their names say |
//!
//! ```
//! use outlive_proxy::node::Entropy;
//! use outlive_stack::{DEFAULT_BACKLOG, Event, Stack, StackConfig};
//! use outlive_tcp::{time::Time, wire::Endpoint};
//!
//! let now = Time::from_micros(1_000_000);
//! let mut stack = Stack::new(StackConfig::default(), Entropy([7; 32]), 1_800_000_000_000_000, now);
//! let local = Endpoint::new([192, 0, 2, 1].into(), 514);
//! stack.listen(local, DEFAULT_BACKLOG)?;
//! stack.handle_timeout(now);
//! while let Some(event) = stack.poll_event() {
//!     match event {
//!         Event::Activate(_) => { /* take the addresses */ }
//!         Event::Acceptable(local) => drop(stack.accept(now, local)),
//!         _ => {}
//!     }
//! }
//! assert!(stack.poll_transmit(now).is_none());
//! # Ok::<(), outlive_stack::ListenError>(())
//! ```
#![forbid(unsafe_code)]

mod admission;
mod config;
mod conn;
mod id;
mod listener;
mod opening;
mod outcome;
mod program;
mod regenerate;
mod replication;
mod role;
mod stack;
mod table;
mod takeover;
mod transaction;

pub use self::{
    admission::{Arriving, NotAdmitted},
    config::{DEFAULT_BACKLOG, StackConfig},
    id::{ConnectionId, NotAnId},
    outcome::{Accepted, Chunk, Closed, CommitError, Event, ListenError, LogEvent, Standing},
    replication::{MAX_STATE_MESSAGE, StateError},
    role::Backlog,
    stack::{Counters, Stack},
    transaction::Transaction,
};
