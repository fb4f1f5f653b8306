//! What the balancer and the target of a connection migration agree on, without I/O.
//!
//! A migration moves one end of an established connection to another machine: its state as bytes, a conversation that makes
//! sure that exactly one machine speaks, and packets that are led to where the connection is now. The course of it and every
//! format is in [`docs/migration.md`].
//!
//! | module | owns |
//! |---|---|
//! | [`id`] | which reign, which migration |
//! | [`flow`] | flow identifiers |
//! | [`blob`] | the state of a connection as bytes |
//! | [`message`] | what balancer and target say to each other |
//! | [`tunnel`] | packets between balancer and target |
//! | [`target`] | what a target answers, and when it speaks |
//!
//! [`docs/migration.md`]: ../../../../docs/migration.md
#![forbid(unsafe_code)]

pub mod blob;
pub mod flow;
pub mod id;
pub mod message;
pub mod target;
pub mod tunnel;
mod wire;
