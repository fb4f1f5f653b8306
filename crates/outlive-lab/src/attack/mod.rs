//! What strangers can do: forged segments, put on the switch as if from anybody, by one who may
//! even overhear the real ones.

mod ear;
mod injector;
mod segment;

pub use ear::{Ear, Flow};
pub use injector::Injector;
pub use segment::{ACK, FIN, PSH, RST, SYN, Segment};
