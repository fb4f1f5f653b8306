//! A running node of Outlive, as a library.
#![forbid(unsafe_code)]

pub mod clock;
pub mod heartbeat;
pub mod key;
pub mod settings;
pub mod state;
