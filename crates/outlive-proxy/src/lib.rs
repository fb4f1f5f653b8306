//! Outlive's proxy pair, without I/O: packets, messages, time and randomness come in as arguments; packets,
//! messages, timers and events go out.
//!
//! [`Node`] is the whole of it, and the only thing that a shell (or the simulator) drives.
//!
//! | module | owns |
//! |---|---|
//! | [`config`] | what a node is told to do |
//! | [`node`] | the composition, and the order of calls |
//! | `proxy` | the data plane: what happens to a packet |
//! | `opening` | connections on their way from a SYN to a session |
//! | `session` | established splices: record, streams, phase |
//! | [`fast_path`] | who may translate the packets of established sessions instead |
//! | `migration` | connections that are handed to a target |
//! | [`content`] | what first data says about where it belongs |
//! | `balance`, `ports` | which server, from which source port |
//! | [`pair`] | roles, epochs, heartbeats |
//! | `replication` | the conversation with the standby |
//! | [`counters`], [`event`], [`status`], [`survey`] | what can be seen from outside |
//!
//! What a pair is made of and does not depend on proxying serves `outlive-stack`, too: [`pair`], [`clock`], [`timer`],
//! the cookies' [`KeyRing`], and the memories [`SpentCookies`] and [`Suspects`].
#![forbid(unsafe_code)]

mod balance;
pub mod clock;
pub mod config;
pub mod content;
pub mod counters;
pub mod event;
pub mod fast_path;
mod flows;
mod migration;
pub mod node;
mod opening;
mod outbox;
pub mod pair;
mod ports;
mod proxy;
mod proxy_protocol;
mod replication;
mod session;
pub mod status;
pub mod survey;
pub mod timer;

pub use self::{
    flows::Side,
    migration::AgentError,
    node::{DrainRefusal, Entropy, HandoverProgress, HandoverRefusal, NoPlace, Node},
    opening::{
        keys::{EpochKey, KeyRing},
        memory::{SpentCookies, Suspects},
    },
    proxy::Verdict,
    replication::{MAX_STATE_MESSAGE, StateError},
};
