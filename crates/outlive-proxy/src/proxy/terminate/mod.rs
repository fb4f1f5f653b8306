//! Sessions of listeners with `mode = "terminate"`: two full TCP endpoints joined for life.
//!
//! | module | owns |
//! |---|---|
//! | [`joined`] | the two connections: bytes, acknowledgments, windows, ends and resets from one to the other |
//! | [`table`] | all such sessions, their timers, the memory that they may hold |
//! | [`open`] | the moment at which an opening becomes one |
//! | [`packets`] | what segments and timers do to one, and what it sends |
//! | [`records`] | what the standby is told, and what it holds |
//! | [`resume`] | going on after a takeover, from where the two ends say that they are |
//!
//! They share flows, ports, pools, openings and the journal with the spliced sessions, and nothing of the packet path of
//! those is touched. What has to be at the standby when, and why that is enough, is in `docs/terminate.md`.

mod joined;
mod open;
mod packets;
mod records;
mod resume;
mod table;

pub(crate) use self::table::Terminated;
