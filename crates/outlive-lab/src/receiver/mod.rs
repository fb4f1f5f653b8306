//! The durable log receiver (`examples/log-receiver`) as a pair, and what a test of it needs.
//!
//! | module | owns |
//! |---|---|
//! | [`machine`] | a host with the receiver, its log, and everything that can be done to them |
//! | [`disk`] | its disk, which can lose its power |
//! | [`senders`] | ordinary programs that send records |
//! | [`records`] | the records, and what became of each |
//! | [`tap`] | a listener between them |
//! | [`evidence`] | what it has heard, held against what was durable |
//!
//! The scenario that plays with them is [`log_receiver`](crate::scenario).

pub(crate) mod disk;
pub(crate) mod evidence;
pub(crate) mod machine;
pub(crate) mod records;
pub(crate) mod senders;
pub(crate) mod tap;
