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
//! ```
//! use bytes::Bytes;
//! use outlive_tcp::{
//!     endpoint::{Arrival, Config, Connection, Event, Opening, Read},
//!     time::Time,
//!     wire::{Endpoint, FourTuple, Offload, TcpPacket},
//! };
//!
//! /// Everything that one end wants sent, given to the other.
//! fn pass(now: Time, from: &mut Connection, to: &mut Connection) {
//!     while let Some(transmit) = from.poll_transmit(now) {
//!         let mut packet = Vec::new();
//!         let offload = transmit.emit(&mut packet);
//!         let len = packet.len();
//!         let parsed = TcpPacket::parse(&mut packet, 0, len, offload).unwrap();
//!         assert!(parsed.checksum_ok());
//!         to.handle_segment(now, &Arrival::copied(&parsed));
//!     }
//! }
//!
//! let ends = FourTuple::new(
//!     Endpoint::new([192, 0, 2, 1].into(), 40_000),
//!     Endpoint::new([192, 0, 2, 2].into(), 80),
//! );
//! let (now, key, clock_us) = (Time::from_micros(1_000), [7; 16], 5_000_000);
//! let opening = |ends| Opening::keyed(&key, ends, clock_us, now);
//!
//! // The SYN makes the other end.
//! let mut client = Connection::connect(opening(ends), Config::default())?;
//! let mut packet = Vec::new();
//! client.poll_transmit(now).unwrap().emit(&mut packet);
//! let len = packet.len();
//! let syn = Arrival::copied(&TcpPacket::parse(&mut packet, 0, len, Offload::default())?);
//! let mut server = Connection::accept(now, &syn, opening(ends.reversed()), Config::default())?;
//! pass(now, &mut server, &mut client);
//! assert_eq!(client.poll_event(), Some(Event::Established));
//!
//! // What the server reads stays with the client until the server acknowledges it.
//! client.write(Bytes::from_static(b"an order"))?;
//! pass(now, &mut client, &mut server);
//! assert_eq!(server.read(100), Read::Data(Bytes::from_static(b"an order")));
//! pass(now, &mut server, &mut client);
//! assert_eq!(client.unacknowledged(), 8);
//! server.acknowledge(8)?; // It is on the disk now.
//! pass(now, &mut server, &mut client);
//! assert_eq!(client.unacknowledged(), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Routing packets to connections, listening, sending, and resets for connections
//! that nobody knows ([`reset_for`](crate::segment::reset_for)) are the caller's.
//! `docs/conformance.md` says which requirement is met where, and which is not.

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
mod parting;
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
pub use capture::{
    CaptureError, Contents, Midstream, NotPortable, Portable, RestoreError, RestoreOptions,
};
pub use config::{Acknowledge, Algorithm, Config, KeepAlive};
pub use connection::{Connection, Positions, Statistics};
pub use negotiation::Negotiated;
pub use open::{Handshake, OpenError, Opening};
pub use outcome::{AcknowledgeError, Drop, End, Event, Read, Verdict, WriteError};
pub use state::State;
pub use transmit::Transmit;
