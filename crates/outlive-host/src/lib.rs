//! The agent on a server's machine: connections are migrated to it, and go on there.
//!
//! | module | owns |
//! |---|---|
//! | [`settings`] | the configuration file |
//! | [`edge`] | what is set up on the machine: device, addresses, routes, rules |
//! | [`channel`] | the connections with the balancers |
//! | [`agent`] | the event loop, and what becomes of each packet and each connection |
//! | [`replay`] | a connection in front of a server that knows nothing of it, without I/O |
//! | `kernel` | a connection into the kernel's TCP, and to a server that accepts it |
//! | [`status`] | how the agent is, for people and for Prometheus |
//!
//! What may be done when is decided in `outlive-migration`; this crate does it. `docs/host.md` says how it is used.
#![forbid(unsafe_code)]

pub mod agent;
pub mod channel;
pub mod edge;
mod kernel;
pub mod replay;
pub mod settings;
pub mod status;
