//! The durable log receiver (`examples/log-receiver`) as a pair, and what a test of it needs.
//!
//! | module | owns |
//! |---|---|
//! | [`machine`] | a host with the receiver, its log, and everything that can be done to them |
//! | [`senders`] | ordinary programs that send records |
//! | [`records`] | the records, and what became of each |
//!
//! The scenario that plays with them is [`log_receiver`](crate::scenario).

pub(crate) mod machine;
pub mod records;
pub(crate) mod senders;
