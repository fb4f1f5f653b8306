//! A full TCP endpoint (RFC 9293), without I/O, clock or randomness.
//!
//! It differs from others in one thing: **receiving is not acknowledging**. What
//! [`Connection::read`] gives stays with its sender until [`Connection::acknowledge`]; so a
//! program that dies has lost nothing that was acknowledged, and another one, restored from
//! [`Connection::capture`], is sent the rest again.
//!
//! | module | owns |
//! |---|---|
//! | `connection` | the type, and what its program does with it |
//! | `open` | connect, accept, or go on from a handshake that is over |
//! | `input`, `output`, `timeout` | SEGMENT ARRIVES; what is sent; what happens in time |
//! | `receiver` | what has come, what was read, what is acknowledged, the window shown |
//! | `sender` | what was written, what is in flight, loss and its repair |
//! | `congestion` | the congestion window: Cubic, NewReno |
//! | `path_mtu`, `challenge`, `negotiation`, `timers`, `state` | what their names say |
//! | `capture` | the state of a connection in a fixed layout, and a connection from it |
//! | `arrival`, `transmit`, `byte_queue` | segments in and out; bytes that are shared, not copied |
//!
//! Routing packets to connections, listening, and sending are the caller's.

mod arrival;
mod byte_queue;
mod capture;
mod challenge;
mod config;
mod congestion;
mod connection;
mod input;
mod negotiation;
mod open;
mod outcome;
mod output;
mod path_mtu;
mod receiver;
mod sender;
mod state;
#[cfg(test)]
mod tests;
mod timeout;
mod timers;
mod transmit;

pub use arrival::Arrival;
pub use capture::{CaptureError, Contents, RestoreError, RestoreOptions};
pub use config::{Acknowledge, Algorithm, Config, KeepAlive};
pub use connection::{Connection, Positions, Statistics};
pub use negotiation::Negotiated;
pub use open::{AcceptError, Handshake, Opening};
pub use outcome::{AcknowledgeError, Drop, End, Event, Read, Verdict, WriteError};
pub use state::State;
pub use transmit::Transmit;
