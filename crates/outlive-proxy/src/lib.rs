//! The proxy pair, without I/O.
#![forbid(unsafe_code)]
