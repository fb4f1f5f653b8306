//! Outlive's packet core, without I/O, clock or randomness.
//!
//! | module | owns |
//! |---|---|
//! | [`time`] | instants on the caller's clock |
//! | [`seq`] | sequence numbers and their wrapping arithmetic |
//! | [`fields`] | fields of messages and captured states |
//! | [`checksum`] | the Internet checksum: whole, incremental, partial |
//! | [`wire`] | checked views over packets, and what they mean: IP, TCP, options, ICMP |
//! | [`segment`] | segments that a node makes itself |
//! | [`cookie`] | SYN cookies: a handshake that costs no state |
//! | [`translation`] | the splice: one packet of one connection made into a packet of the other |
//! | [`endpoint`] | a full TCP endpoint that acknowledges what its program lets it |
#![forbid(unsafe_code)]

pub mod checksum;
pub mod cookie;
pub mod endpoint;
#[doc(hidden)]
pub mod fault;
pub mod fields;
pub mod segment;
pub mod seq;
#[cfg(test)]
mod testing;
pub mod time;
pub mod translation;
pub mod wire;
