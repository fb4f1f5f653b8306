//! The targets. Each says at its top what is fed to what, and what must hold.

pub mod channel;
pub mod cookies;
pub mod heartbeats;
pub mod icmp;
pub mod inspection;
pub mod packets;
pub mod replication;
pub mod settings;
pub mod translation;
