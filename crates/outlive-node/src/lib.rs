//! A running node of Outlive, as a library.
#![forbid(unsafe_code)]

pub mod admin;
pub mod clock;
pub mod edge;
pub mod heartbeat;
pub mod key;
pub mod packets;
pub mod preflight;
pub mod runtime;
pub mod settings;
pub mod state;
