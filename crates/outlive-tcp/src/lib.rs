//! Outlive's packet core, without I/O, clock or randomness.
//!
//! | module | owns |
//! |---|---|
//! | [`time`] | instants on the caller's clock |
//! | [`seq`] | sequence numbers and their wrapping arithmetic |
//!
//! The full endpoint (withheld acknowledgment, capture and restore) will stand beside them as `endpoint`.
#![forbid(unsafe_code)]

pub mod seq;
pub mod time;
