//! A running node of Outlive, as a library: what stands between the pure core and a Linux machine.
//!
//! | module | owns |
//! |---|---|
//! | [`settings`] | the configuration file: parsed, checked, every problem with its place |
//! | [`preflight`] | what the machine lacks for it, found without changing anything |
//! | `reload` | obeying a changed file while the node runs |
//! | [`runtime`] | the event loop, and the order of a turn |
//! | [`edge`] | TUN device, routes and neighbours of the virtual addresses: taken, given up, removed |
//! | [`fast_path`] | established sessions left to the kernel |
//! | [`packets`] | the packet path between the TUN device and the core |
//! | [`state`] | the state connection: TCP, Noise, frames; who dials; whether the peer refuses |
//! | [`targets`] | the connections with the agents of migration targets |
//! | [`heartbeat`] | the thread that says that this node lives and hears whether the peer does |
//! | [`detector`] | what an external detector is told, and its orders |
//! | [`key`] | the key that both nodes share |
//! | [`admin`] | the admin socket, and the report it gives |
//! | [`metrics`] | the same for Prometheus, over HTTP |
//! | [`clock`] | the clocks that the core is given |
//!
//! A node's life: [`Settings::load`](settings::Settings::load), [`preflight::inspect`],
//! [`Runtime::start`](runtime::Runtime::start), [`Runtime::run`](runtime::Runtime::run). Only the third
//! changes anything on the machine, and dropping what it gives undoes that. What a packet, a message or
//! a silence means is decided in `outlive-proxy`; system calls that need `unsafe` are made in `outlive-net`.
#![forbid(unsafe_code)]

pub mod admin;
pub mod clock;
pub mod detector;
pub mod edge;
pub mod fast_path;
pub mod heartbeat;
pub mod key;
pub mod metrics;
pub mod packets;
pub mod preflight;
mod reload;
pub mod runtime;
pub mod settings;
pub mod state;
pub mod targets;

/// What the simulator breaks on purpose must not be in a node that serves anybody.
const _: () = assert!(!outlive_tcp::fault::POSSIBLE, "a node is not built with deliberate faults");
