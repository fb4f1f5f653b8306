//! The fast path: whoever can translate the packets of an established session without this crate.
//!
//! A session is a constant, so its packets need no decision. [`Node::use_fast_path`](crate::Node::use_fast_path)
//! gives the data plane somebody to leave them to: the kernel on a real node, a model of it in the simulator.
//! To the data plane it is like memory: it holds what was put there, and tells how far the streams are.
//! It must do exactly what the data plane would do with a packet:
//!
//! * translate only segments with ACK and without SYN and RST, whose options it understands, and which do not begin
//!   beyond all that the end was seen to send (what is missing may be on its way to the data plane, and would be
//!   overtaken);
//! * hand everything else on, unchanged, to [`Node::handle_packet`](crate::Node::handle_packet);
//! * hand on what comes before the client has completed its handshake (see [`Splice::opening`]);
//! * follow the streams by the rules of [`StreamProgress`];
//! * call [`Node::handle_fast_path`](crate::Node::handle_fast_path) for a session whose client has completed its handshake, of
//!   which a FIN was acknowledged, or one of whose positions has crossed a multiple of 2^[`PROGRESS_SHIFT`];
//! * do nothing at all unless [`Node::serves`](crate::Node::serves), and for no longer than the
//!   detection timeout after it was last asked (a node whose loop stands still must stop, too).

mod model;

use std::{fmt::Debug, time::Duration};

use outlive_tcp::{seq::Seq, translation::Translation, wire::FourTuple};

pub use self::model::{Model, Outcome};

/// Positions are told to the standby at every multiple of this power of two (32 MiB), so that what it knows is never
/// half of the sequence space old; and so that it knows who is busy, and is to be woken up first when it takes over.
pub const PROGRESS_SHIFT: u32 = 25;

/// Translates the packets of established sessions. See the [module](self).
pub trait FastPath: Debug {
    /// Takes over the session in `slot`, which it does not have yet. False if it has no room.
    fn install(&mut self, slot: u32, splice: &Splice) -> bool;

    /// How far the session's streams are, the client's first, and how long ago a packet passed (`None`: none
    /// has).
    fn progress(&self, slot: u32) -> ([StreamProgress; 2], Option<Duration>);

    /// The data plane has itself passed a segment of the session and learnt that its streams are this far; so the
    /// client's handshake is complete. What was learnt here meanwhile, and is further, stays.
    fn learn(&mut self, slot: u32, streams: &[StreamProgress; 2]);

    /// Gives the session back: from now on its packets go to the data plane.
    fn withdraw(&mut self, slot: u32);
}

/// What has to be known of a session. The packets of the client come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Splice {
    /// Distinguishes the session from others that have had its slot; for
    /// [`Node::handle_fast_path`](crate::Node::handle_fast_path).
    pub serial: u32,
    /// The client has still to complete its handshake: everything is handed on, but for a segment of the client whose
    /// acknowledgment, translated, is exactly the server's `acked`. From that one on the session is like any other; it
    /// wants to be looked at then.
    pub opening: bool,
    /// The packets of the client, and those of the server.
    pub directions: [Direction; 2],
}

/// The packets that one end sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direction {
    /// Which they are.
    pub tuple: FourTuple,
    /// What becomes of them. Timestamps are shifted if they are there, SACK blocks are passed, there is no floor.
    pub translation: Translation,
    /// Packets whose segments carry more than that are not to be translated here.
    pub segment_limit: u32,
    /// How far the stream of that end is.
    pub stream: StreamProgress,
}

/// How far a stream is, in the sequence space of the end that sends it.
///
/// For a segment of the end, with `at` where its payload ends, and `end` where its FIN does:
/// `next` becomes `end` if that is later, and not beyond `edge` by more than two; the FIN is noted, at `at`, if none
/// was, and `acked` <= `at` <= `edge`. For an acknowledgment, translated, by the other end: if it is not before `acked`
/// and not after the later of `edge` and `next`, `acked` moves there (and `bytes` by as much), and `edge` to where
/// its window ends, if that is later; the FIN is acknowledged if it lies before. But nothing is learnt from the
/// acknowledgment of a segment that its receiver does not look at, in that segment's own stream and before it
/// has changed that: one with `at` before `acked`, or beginning after the later of `edge` and `next`, and one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct StreamProgress {
    /// End of the highest segment sent.
    pub next: Seq,
    /// Highest acknowledgment passed to the end.
    pub acked: Seq,
    /// Highest right edge of the window that it was shown.
    pub edge: Seq,
    /// Its FIN, if it has sent one.
    pub fin: Option<Seq>,
    /// The FIN was acknowledged.
    pub fin_acked: bool,
    /// Bytes acknowledged since this node first saw the stream.
    pub bytes: u64,
}
