//! The window that is shown to the other end.
//!
//! Two limits bear on its right edge: what may wait to be read, and what may be without an
//! acknowledgment. Once shown it never moves left, beyond what the scale of the field cannot tell
//! (RFC 7323, section 2.4), and whatever is inside of the highest edge ever shown is taken.

use crate::seq::Seq;

/// The receive window.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// Scale of the field, once the handshake is over.
    pub(super) scale: u8,
    /// The right edge that is granted.
    granted: Seq,
    /// The highest right edge that the other end can have read off a field.
    pub(super) shown: Seq,
    buffer: u32,
    withheld: u32,
    /// No edge beyond this one, if there is one: not for want of room here.
    bound: Option<Seq>,
}

impl Window {
    /// Before anything was shown. `start` is the first byte expected.
    pub(super) fn new(start: Seq, scale: u8, buffer: u32, withheld: u32) -> Self {
        // Sequence numbers compare within half of the circle.
        let limit = 1 << 30;
        let (buffer, withheld) = (buffer.clamp(1, limit), withheld.clamp(1, limit));
        Window { scale, granted: start, shown: start, buffer, withheld, bound: None }
    }

    /// Goes on from a right edge that a former node may have shown.
    pub(super) fn resume(&mut self, edge: Seq) {
        (self.granted, self.shown) = (edge, edge);
    }

    /// From now on no edge beyond `bound` is granted. One that was, and that nobody was shown, is
    /// taken back.
    pub(super) fn limit_to(&mut self, bound: Seq) {
        self.bound = Some(bound);
        if self.granted.after(bound) {
            self.granted = bound.later(self.shown);
        }
    }

    /// How far beyond what is acknowledged the right edge may lie.
    pub(super) fn limit(&self) -> u32 {
        self.withheld.min(u32::from(u16::MAX) << self.scale)
    }

    /// The right edge that is granted.
    pub(super) fn granted(&self) -> Seq {
        self.granted
    }

    /// Moves the right edge to where the limits allow it, unless that would be a silly step (RFC
    /// 9293, section 3.8.6.2.2). `read` is the first byte not read, `ack` the first one not
    /// acknowledged.
    pub(super) fn update(&mut self, read: Seq, ack: Seq, mss: u32) {
        let edge = self.allowed(read, ack);
        let step = self.least_step(edge, mss);
        if edge.after(self.granted) && edge.distance(self.granted) >= step {
            self.granted = edge;
        }
    }

    /// Whether an update would open the window by so much that the other end should hear of it,
    /// which has sent up to `received`.
    pub(super) fn wants_update(&self, read: Seq, ack: Seq, received: Seq, mss: u32) -> bool {
        let edge = self.allowed(read, ack);
        let gain = if edge.after(self.shown) { edge.distance(self.shown) } else { 0 };
        let left = if self.shown.after(received) { self.shown.distance(received) } else { 0 };
        // The other end is stopped or about to be, or there is much to tell.
        gain >= self.least_step(edge, mss) && (left < 2 * mss || gain >= self.least_gain(mss))
    }

    /// The field for an acknowledgment of `ack`.
    pub(super) fn field(&mut self, ack: Seq) -> u16 {
        let window = if self.granted.after(ack) { self.granted.distance(ack) } else { 0 };
        let field = (window >> self.scale).min(u16::MAX.into());
        self.shown = self.shown.later(ack + (field << self.scale));
        field as u16
    }

    /// The field of a SYN or SYN-ACK, which has no scale.
    pub(super) fn syn_field(&mut self, ack: Seq) -> u16 {
        let scale = std::mem::take(&mut self.scale);
        let field = self.field(ack);
        self.scale = scale;
        field
    }

    fn allowed(&self, read: Seq, ack: Seq) -> Seq {
        let by_ack = ack + self.limit();
        let by_read = read + self.buffer;
        let by_room = by_ack.earlier(by_read);
        self.bound.map_or(by_room, |bound| bound.earlier(by_room))
    }

    /// Whoever bounds the window from elsewhere avoids silly steps there: their edge is followed.
    fn least_step(&self, edge: Seq, mss: u32) -> u32 {
        if self.bound == Some(edge) {
            return 1;
        }
        mss.min(self.buffer / 2).min(self.withheld / 2).max(1)
    }

    fn least_gain(&self, mss: u32) -> u32 {
        (self.buffer.min(self.withheld) / 4).max(2 * mss)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bound_is_followed_and_what_was_shown_stays() {
        let start = Seq(1_000);
        let mut window = Window::new(start, 0, 50_000, 50_000);
        window.update(start, start, 1_460);
        window.limit_to(start + 700);
        assert_eq!(window.field(start), 700, "granted, but not shown, before");
        window.limit_to(start + 900);
        assert!(window.wants_update(start, start, start + 700, 1_460));
        window.update(start, start, 1_460);
        assert_eq!(window.field(start), 900, "smaller steps than a segment");
        window.limit_to(start + 300);
        window.update(start, start, 1_460);
        assert_eq!(window.field(start), 900, "never to the left");
        window.limit_to(start + 90_000);
        window.update(start, start, 1_460);
        assert_eq!(window.field(start), 50_000, "and never beyond the room there is");
    }

    proptest! {
        /// However the program reads and acknowledges: no edge that the other end reads off the
        /// field is left of an earlier one by a unit of the scale, and none is beyond the limits.
        #[test]
        fn the_right_edge_stays(
            scale in 0u8..10,
            steps in proptest::collection::vec((0u32..5_000, 0u32..5_000, any::<bool>()), 1..100),
        ) {
            let (buffer, withheld) = (50_000, 80_000);
            let mut window = Window::new(Seq(u32::MAX - 9_000), scale, buffer, withheld);
            let (mut read, mut ack) = (window.granted, window.granted);
            let mut highest = ack;
            for (reads, acks, shows) in steps {
                read = read + reads.min(window.granted.distance(read));
                ack = ack + acks.min(read.distance(ack));
                window.update(read, ack, 1_460);
                if !shows {
                    continue;
                }
                let edge = ack + (u32::from(window.field(ack)) << scale);
                prop_assert!(edge.after(highest) || highest.distance(edge) < 1 << scale);
                prop_assert!(edge.distance(ack) <= withheld && edge.distance(read) <= buffer);
                highest = highest.later(edge);
                prop_assert_eq!(highest, window.shown);
            }
        }
    }
}
