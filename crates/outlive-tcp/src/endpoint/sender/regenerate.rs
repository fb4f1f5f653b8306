//! Output that is computed again after a restore: when the program has written all of it, and what
//! tells that it is another one.
//!
//! Until the program says that it is complete, an acknowledgment of what is not written here is one of
//! what will be. Afterwards it is one of a stream that is not this one: the connection must end then,
//! for what follows would be spliced to it. Nothing new leaves before the other end has said, since the
//! restore, how far it is.

use super::{AckInfo, Sender};
use crate::{endpoint::negotiation::timestamp_before, seq::Seq};

/// How far the program's second writing of its output is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Regeneration {
    /// Everything that a former node can have sent lies before this.
    complete_at: Option<Seq>,
    /// The other end has not said since the restore where it stands.
    unheard: bool,
}

impl Sender {
    /// A former node had the connection.
    pub(super) fn expect_report(&mut self) {
        self.regeneration.unheard = true;
    }

    /// Everything that a former node's program had written is written again. False if the other end
    /// has more than that.
    pub(in crate::endpoint) fn complete_regeneration(&mut self) -> bool {
        if self.skip > 0 {
            return false;
        }
        let told_end = self.ended && self.output_end.is_some();
        let end = self.data_end() + u32::from(told_end);
        self.regeneration.complete_at.get_or_insert(end);
        true
    }

    /// Whether an acknowledgment is one of what neither this node nor the program's output of before
    /// can have been.
    pub(in crate::endpoint) fn is_of_another_output(&self, ack: Seq) -> bool {
        self.regeneration.complete_at.is_some_and(|end| ack.after(end) && ack.after(self.nxt))
    }

    /// What is behind the output of before waits for the other end to say how far it is.
    pub(in crate::endpoint) fn awaits_report(&self) -> bool {
        self.regeneration.unheard && self.regeneration.complete_at.is_some()
    }

    /// The other end's window, as far as it may be used.
    pub(super) fn usable_edge(&self) -> Seq {
        let edge = self.una + self.window.size;
        match self.regeneration.complete_at.filter(|_| self.regeneration.unheard) {
            Some(end) => edge.earlier(end.later(self.una)),
            None => edge,
        }
    }

    /// An acknowledgment has come. One that echoes what was sent before the restore was on its way
    /// already.
    pub(super) fn note_report(&mut self, info: &AckInfo<'_>) {
        let old = |echo| self.echo_floor.is_some_and(|floor| timestamp_before(echo, floor));
        if self.regeneration.unheard && !info.echo.is_some_and(old) {
            self.regeneration.unheard = false;
        }
        if let Some(end) = &mut self.regeneration.complete_at {
            // What lies behind SND.UNA would seem to lie ahead, 2^31 bytes later.
            *end = end.later(self.una);
        }
    }
}
