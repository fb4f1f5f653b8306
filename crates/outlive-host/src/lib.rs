//! The agent on a server's machine: connections are migrated to it.
#![forbid(unsafe_code)]

pub mod replay;
