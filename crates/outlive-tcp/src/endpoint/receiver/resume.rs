//! What a snapshot says of the receiving half, and going on from one.

use super::Receiver;
use crate::endpoint::capture::Snapshot;

impl Receiver {
    /// Writes itself down. What is not acknowledged goes along if `unacknowledged`; otherwise it
    /// counts as not received. Gives whether the other end's FIN is part of it, if it was received.
    pub(in crate::endpoint) fn describe(
        &self,
        snapshot: &mut Snapshot,
        unacknowledged: bool,
    ) -> bool {
        snapshot.irs = self.irs;
        snapshot.acknowledged = self.acknowledged;
        snapshot.receive_edge = self.window.shown;
        snapshot.receive_limit = self.window.limit();
        let keeps_end = unacknowledged || self.end_acknowledged();
        if keeps_end || self.acknowledged.after(self.read) {
            snapshot.read = self.read;
            let end = if unacknowledged { self.received } else { self.acknowledged };
            let len = end.distance(self.read) as usize; // One more than there is, with a FIN.
            snapshot.input = self.queue.slices(0, len).concat();
        } else {
            snapshot.read = self.acknowledged;
        }
        snapshot.peer_ended = keeps_end && self.finished();
        snapshot.end_read = snapshot.peer_ended && self.end_read;
        keeps_end
    }

    /// Goes on from a snapshot; `self` is new.
    ///
    /// The right edge is where any node can have put it that acknowledged this far: so it does not
    /// move left, whatever was shown after the capture.
    pub(in crate::endpoint) fn resume(&mut self, snapshot: Snapshot) {
        self.acknowledged = snapshot.acknowledged;
        self.last_ack_sent = snapshot.acknowledged;
        self.read = snapshot.read;
        self.received = snapshot.read + snapshot.input.len() as u32;
        self.queue.push(snapshot.input.into());
        if snapshot.peer_ended {
            (self.fin, self.fin_seen) = (Some(self.received), Some(self.received));
            self.received += 1;
            self.end_read = snapshot.end_read;
        }
        let reach = self.acknowledged + snapshot.receive_limit;
        self.window.resume(snapshot.receive_edge.later(reach));
        self.update_window();
    }
}
