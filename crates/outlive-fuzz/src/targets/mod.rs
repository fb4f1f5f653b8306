//! The targets. Each says at its top what is fed to what, and what must hold.

pub mod blob;
pub mod channel;
pub mod cookies;
pub mod endpoint;
pub mod heartbeats;
pub mod icmp;
pub mod inspection;
pub mod migration;
pub mod packets;
pub mod replication;
pub mod settings;
pub mod stack;
pub mod translation;
pub mod tunnel;
