//! The packet core.
#![forbid(unsafe_code)]
