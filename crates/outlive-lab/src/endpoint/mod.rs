//! Outlive's own TCP endpoint as a peer on the lab's network, and the kernel's TCP to hold it against.
//!
//! Owns: transfers between any two of them, and what the receivers saw. Does not own: links and what
//! they do to packets, and the judgement about it (the scenario's).
//!
//! | part | is |
//! |---|---|
//! | [`Job`], [`Meter`] | what one end of a connection does; what it saw |
//! | [`Stack`] | the endpoint: a thread, a TUN device behind a host, the clock |
//! | [`kernel`] | the same job with the kernel's sockets |
//! | `device` | packets in and out of the device, super-segments whole |

mod device;
mod job;
pub mod kernel;
mod stack;

pub use self::job::{Job, Meter, Seen};
pub use self::stack::Stack;
