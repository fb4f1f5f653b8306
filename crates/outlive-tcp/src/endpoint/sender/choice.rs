//! Which segment is sent next.

use super::{Force, Sender, recovery::Phase, scoreboard::Sent};
use crate::{seq::Seq, time::Time};

/// What bounds a segment apart from the sender's own windows.
#[derive(Clone, Copy, Debug)]
pub(in crate::endpoint) struct SendLimits {
    /// Payload bytes of a segment with the options that it will have.
    pub(in crate::endpoint) segment: u32,
    /// Payload bytes of a super-segment.
    pub(in crate::endpoint) super_segment: u32,
    /// Small segments wait for each other.
    pub(in crate::endpoint) nagle: bool,
}

/// A segment, or super-segment, to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::endpoint) struct Piece {
    pub(in crate::endpoint) start: Seq,
    /// Payload bytes.
    pub(in crate::endpoint) len: u32,
    pub(in crate::endpoint) fin: bool,
    pub(in crate::endpoint) push: bool,
    /// It was sent before.
    pub(in crate::endpoint) repeated: bool,
    /// It says that the congestion window was reduced (RFC 3168).
    pub(in crate::endpoint) cwr: bool,
}

impl Piece {
    fn end(&self) -> Seq {
        self.start + self.len + u32::from(self.fin)
    }
}

impl Sender {
    /// The next segment, which is then in flight.
    pub(in crate::endpoint) fn next_piece(
        &mut self,
        now: Time,
        limits: &SendLimits,
    ) -> Option<Piece> {
        let mut limits = *limits;
        if self.urgent.is_some_and(|end| end.after(self.una)) {
            // Each segment has a pointer of its own.
            limits.super_segment = limits.segment;
        }
        let limits = &limits;
        let piece = match self.force.take() {
            Some(force) => self.forced(force, limits),
            None => None,
        };
        let piece =
            piece.or_else(|| self.lost_piece(limits)).or_else(|| self.new_piece(now, limits))?;
        Some(self.commit(now, piece, limits.segment))
    }

    fn forced(&mut self, force: Force, limits: &SendLimits) -> Option<Piece> {
        let segment = limits.segment;
        match force {
            Force::Head => {
                let head = *self.board.first()?;
                Some(self.repeat(&head, head.start, segment))
            }
            Force::Tail => self.tail_probe(limits),
            Force::Window => {
                let unsent = self.data_end().distance(self.nxt);
                let len = unsent.min(self.usable().max(1)).min(segment);
                let piece = Some(self.fresh(len)).filter(|piece| piece.len > 0 || piece.fin)?;
                self.beyond_window = Some(piece.end());
                Some(piece)
            }
        }
    }

    /// New data if there is some, regardless of the congestion window; or the last segment again
    /// (RFC 8985, section 7.3).
    fn tail_probe(&mut self, limits: &SendLimits) -> Option<Piece> {
        let unsent = if self.fin_unsent() || self.data_end().after(self.nxt) {
            self.data_end().distance(self.nxt)
        } else {
            0
        };
        let len = unsent.min(self.usable()).min(limits.segment);
        let fresh = self.fresh(len);
        let piece = if len > 0 {
            fresh
        } else {
            let last = *self.board.last()?;
            let len = last.len().min(limits.segment);
            self.repeat(&last, last.end - len, limits.segment)
        };
        self.probe_sent(piece.repeated, piece.end().later(self.nxt));
        Some(piece)
    }

    /// The first lost segments, as far as the congestion window allows.
    fn lost_piece(&mut self, limits: &SendLimits) -> Option<Piece> {
        let lost = *self.board.first_lost()?;
        let room = self.congestion.cwnd.saturating_sub(self.pipe());
        let segment = limits.segment;
        if room < lost.len().min(segment).min(self.mss) {
            return None;
        }
        // A window that moved left: what is beyond it waits for the timer (RFC 9293, section
        // 3.8.6).
        let edge = self.una + self.window.size;
        if lost.start != self.una && lost.start.after(edge) {
            return None;
        }
        let len = room.min(limits.super_segment).max(segment);
        let len = if len > segment { len / segment * segment } else { segment };
        Some(self.repeat(&lost, lost.start, len))
    }

    /// New data and the FIN, as far as both windows allow, in segments worth sending (RFC 9293,
    /// sections 3.7.4 and 3.8.6.2.1).
    fn new_piece(&mut self, now: Time, limits: &SendLimits) -> Option<Piece> {
        if self.data_end().before(self.nxt) {
            return None; // The FIN was sent.
        }
        let unsent = self.data_end().distance(self.nxt);
        if unsent == 0 && !self.fin_unsent() {
            return None;
        }
        self.restart_after_idle(now);
        let segment = limits.segment;
        let room = self.congestion.cwnd.saturating_sub(self.pipe());
        let usable = self.usable();
        let whole = unsent.min(segment);
        if room < whole.min(self.mss) {
            self.limited_until = self.nxt;
            return None;
        }
        let mut len =
            unsent.min(usable).min(limits.super_segment.max(segment)).min(room.max(whole));
        if len < unsent && len > segment {
            len -= len % segment;
        }
        if !self.is_worth_sending(len, unsent, limits) {
            // The full segments in front of a small one need not wait for it.
            len -= len % segment;
        }
        if len == 0 && (unsent > 0 || usable == 0) {
            return None;
        }
        Some(self.fresh(len))
    }

    /// Whether the small segment at the end of `len` bytes may be sent.
    fn is_worth_sending(&self, len: u32, unsent: u32, limits: &SendLimits) -> bool {
        if len.is_multiple_of(limits.segment) {
            return true;
        }
        if len == unsent {
            let small_in_flight = self.una.before(self.small_until);
            return !limits.nagle || self.ended || !small_in_flight;
        }
        len >= (self.window.largest / 2).max(1)
    }

    fn restart_after_idle(&mut self, now: Time) {
        let idle = now.since(self.last_sent) > self.rtt.rto();
        if idle && self.board.is_empty() && self.last_sent != Time::ZERO {
            self.congestion.after_idle();
        }
    }

    /// `len` bytes of new data, and the FIN if nothing else is left and it fits.
    fn fresh(&self, len: u32) -> Piece {
        let last = self.nxt + len == self.data_end();
        let fits = len < self.usable() || (len == 0 && self.usable() == 0);
        let fin = last && self.fin_unsent() && fits;
        Piece { start: self.nxt, len, fin, push: last && len > 0, repeated: false, cwr: false }
    }

    /// What was sent in `range`, again: from `start` on, `len` sequence numbers at most.
    fn repeat(&self, range: &Sent, start: Seq, len: u32) -> Piece {
        let data_end = self.data_end();
        let end = if range.end.distance(start) > len { start + len } else { range.end };
        let fin = end.after(data_end);
        let len = end.earlier(data_end).distance(start);
        let push = len > 0 && end.at_or_after(data_end);
        Piece { start, len, fin, push, repeated: true, cwr: false }
    }

    fn commit(&mut self, now: Time, mut piece: Piece, segment: u32) -> Piece {
        let len = piece.end().distance(piece.start);
        if piece.repeated {
            self.board.retransmit(piece.start, len, now);
            self.recovery.note_repeated(len, self.clock.value(now));
        } else {
            piece.cwr = std::mem::take(&mut self.cwr_pending) && piece.len > 0;
            self.push_range(now, piece.end());
            if !piece.len.is_multiple_of(segment) {
                self.small_until = self.nxt;
            }
        }
        if self.recovery.phase == Phase::Recovery {
            self.recovery.prr.out = self.recovery.prr.out.saturating_add(len);
        }
        self.last_sent = now;
        self.answered = false;
        piece
    }

    fn push_range(&mut self, now: Time, end: Seq) {
        self.board.push(Sent {
            start: self.nxt,
            end,
            at: now,
            retransmitted: false,
            inherited: false,
            sacked: false,
            lost: false,
        });
        self.nxt = end;
        self.ack_limit = self.ack_limit.later(end);
    }
}
