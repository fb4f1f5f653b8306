//! The external failure detector: a program for a third machine that watches a pair of nodes, redirects the packets to
//! the standby when the active node has failed, and then tells it to take over.
//!
//! | module | is |
//! |---|---|
//! | [`settings`] | its configuration file: parsed, checked, every problem with its place |
//! | [`decide`] | what follows from what was heard: pure, with time as an argument |
//! | [`switch`] | those that redirect packets: routes of a Linux router, any command |
//! | [`check`] | connections through the virtual address, from end to end |
//! | [`watcher`] | the loop that puts them together |
//!
//! What is said between it and a node is laid down in
//! [`outlive_node::detector::wire`], and in `docs/external-detector.md`.
#![forbid(unsafe_code)]

pub mod check;
pub mod decide;
pub mod settings;
pub mod switch;
pub mod watcher;
