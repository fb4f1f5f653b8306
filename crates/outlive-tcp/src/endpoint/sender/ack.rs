//! What an acknowledgment says: what has arrived, how long it took, what the window is now.

use std::time::Duration;

use super::{Sender, probe::ProbeOutcome, scoreboard::Sent};
use crate::{
    endpoint::{negotiation::timestamp_before, timers::Timers},
    seq::Seq,
    time::Time,
    wire::SackBlock,
};

/// The acknowledgment in a segment.
#[derive(Clone, Copy, Debug)]
pub(in crate::endpoint) struct AckInfo<'a> {
    /// SEG.SEQ.
    pub(in crate::endpoint) seq: Seq,
    /// SEG.ACK.
    pub(in crate::endpoint) ack: Seq,
    /// SEG.LEN.
    pub(in crate::endpoint) len: u32,
    /// SEG.WND, scaled.
    pub(in crate::endpoint) window: u32,
    /// The SACK blocks.
    pub(in crate::endpoint) sack: &'a [SackBlock],
    /// TSecr.
    pub(in crate::endpoint) echo: Option<u32>,
    /// ECN echo.
    pub(in crate::endpoint) congestion: bool,
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(in crate::endpoint) struct AckOutcome {
    /// Sequence numbers that are newly acknowledged.
    pub(in crate::endpoint) progress: u32,
    /// Bytes that a former node sent, and that are not held here.
    pub(in crate::endpoint) skipped: u32,
}

/// What has arrived, as one acknowledgment tells.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arrivals {
    /// Sequence numbers that were not known to have arrived.
    pub(super) delivered: u32,
    /// SND.UNA moved by so much.
    pub(super) progress: u32,
    /// When the oldest segment was sent whose acknowledgment can be told.
    sent_first: Option<Time>,
    /// Something that was sent twice is among it.
    ambiguous: bool,
    /// Something that was sent again, though it was the first copy that arrived.
    needless: bool,
}

/// An acknowledgment as loss recovery looks at it.
#[derive(Clone, Copy, Debug)]
pub(super) struct AckView {
    pub(super) arrivals: Arrivals,
    /// The other end reports that it got this twice.
    pub(super) duplicate: Option<SackBlock>,
    /// It says nothing new about data or window, and carries no data: a duplicate acknowledgment of
    /// RFC 5681, if something is in flight.
    pub(super) pure: bool,
    /// Sequence numbers from SND.UNA to SND.NXT, before it came.
    pub(super) in_flight: u32,
    /// The congestion window was what kept the sender from sending.
    pub(super) limited: bool,
}

impl Sender {
    /// Whether an acknowledgment number can be (RFC 5961, section 5.2). After a restore, whatever a
    /// former node can have sent counts as sent.
    pub(in crate::endpoint) fn ack_is_acceptable(&self, ack: Seq) -> bool {
        let oldest = self.una - self.window.largest.min(1 << 30);
        oldest.at_or_before(ack) && ack.at_or_before(self.ack_limit)
    }

    /// Takes an acceptable acknowledgment.
    pub(in crate::endpoint) fn on_ack(
        &mut self,
        now: Time,
        info: &AckInfo<'_>,
        timers: &mut Timers,
    ) -> AckOutcome {
        if info.ack.before(self.una) {
            self.take_late_report(now, info, timers);
            return AckOutcome::default();
        }
        self.answered = true;
        let in_flight = self.nxt.distance(self.una);
        let limited = self.una.before(self.limited_until);
        let window_changed = self.update_window(info);
        let duplicate = duplicate_report(info);
        let skipped = self.skip_unwritten(info.ack);
        let arrivals = self.take_arrivals(now, info);
        self.measure(now, info, &arrivals);
        if duplicate.is_some() {
            self.rack.duplicate_reported(self.una, self.nxt);
        }
        let pure = info.len == 0 && !window_changed && arrivals.progress == 0;
        let view = AckView { arrivals, duplicate, pure, in_flight, limited };
        self.judge_probe(info, &view);
        self.note_congestion(info, in_flight);
        self.recover(now, info, &view, timers);
        self.rearm(now, arrivals.progress > 0, timers);
        self.forget_old_marks();
        self.note_report(info);
        AckOutcome { progress: arrivals.progress, skipped }
    }

    /// An acknowledgment that was overtaken by a later one still says what has arrived beyond that.
    fn take_late_report(&mut self, now: Time, info: &AckInfo<'_>, timers: &mut Timers) {
        let info = AckInfo { ack: self.una, congestion: false, ..*info };
        let in_flight = self.nxt.distance(self.una);
        let arrivals = self.take_arrivals(now, &info);
        if arrivals.delivered > 0 {
            let limited = self.una.before(self.limited_until);
            let view = AckView { arrivals, duplicate: None, pure: false, in_flight, limited };
            self.recover(now, &info, &view, timers);
        }
    }

    /// SND.WND, unless an older segment tells it (RFC 9293, section 3.10.7.4). Gives whether it
    /// changed.
    fn update_window(&mut self, info: &AckInfo<'_>) -> bool {
        let window = &mut self.window;
        let newer = window.wl1.before(info.seq)
            || (window.wl1 == info.seq && window.wl2.at_or_before(info.ack));
        if !newer {
            return false;
        }
        let changed = window.size != info.window;
        (window.size, window.wl1, window.wl2) = (info.window, info.seq, info.ack);
        window.largest = window.largest.max(info.window);
        window.edge = window.edge.later(info.ack + info.window);
        if info.window > 0 && changed {
            self.window_opened(info.ack);
        }
        changed
    }

    /// Backing off was for the closed window, and what was sent into it was not taken, unless this
    /// acknowledges it.
    fn window_opened(&mut self, ack: Seq) {
        if self.board.is_empty() {
            self.rtt.end_backoff();
        }
        if self.beyond_window.take().is_some_and(|end| ack.before(end)) {
            self.rtt.end_backoff();
            self.board.mark_lost(|_| true);
            self.recovery.repair_without_reduction(self.nxt);
        }
    }

    /// An acknowledgment of bytes that a former node sent and that are not held here: the program
    /// will write them, and they must not be sent.
    fn skip_unwritten(&mut self, ack: Seq) -> u32 {
        let end = self.data_end() + u32::from(self.ended);
        if !ack.after(end) {
            return 0;
        }
        let skipped = ack.distance(end);
        self.skip += skipped;
        skipped
    }

    fn take_arrivals(&mut self, now: Time, info: &AckInfo<'_>) -> Arrivals {
        let mut arrivals =
            Arrivals { progress: info.ack.distance(self.una), ..Arrivals::default() };
        let (rack, clock) = (&mut self.rack, self.clock);
        let minimum = self.rtt.minimum().unwrap_or(Duration::ZERO);
        let mut arrived = |sent: &Sent| {
            if sent.sacked {
                return;
            }
            let of_earlier =
                info.echo.is_some_and(|echo| timestamp_before(echo, clock.value(sent.at)));
            rack.update(now, sent, minimum, of_earlier);
            arrivals.delivered += sent.len();
            if sent.retransmitted || sent.inherited {
                arrivals.ambiguous = true;
                arrivals.needless |= sent.retransmitted && of_earlier;
            } else {
                arrivals.sent_first.get_or_insert(sent.at);
            }
        };
        self.board.acknowledge(info.ack, &mut arrived);
        if self.sack {
            // From left to right, or they would look reordered.
            let mut blocks: Vec<_> =
                info.sack.iter().filter(|b| is_new(b, info.ack, self.nxt)).collect();
            blocks.sort_by(|a, b| a.start.compare(b.start));
            for block in blocks {
                self.board.sack(*block, &mut arrived);
            }
        }
        self.una = info.ack;
        self.nxt = self.nxt.later(self.una);
        let data = self.una.distance(self.queue_start).min(self.queue.len() as u32);
        if self.una.after(self.queue_start) {
            self.queue.advance(data as usize);
            self.queue_start += data;
        }
        if self.una.after(self.data_end() + u32::from(self.ended)) {
            self.queue_start = self.una;
        }
        arrivals
    }

    /// What lies behind SND.UNA means nothing any more, and 2^31 bytes later would seem to lie
    /// ahead.
    fn forget_old_marks(&mut self) {
        let una = self.una;
        for mark in [&mut self.limited_until, &mut self.small_until, &mut self.cwr_until] {
            *mark = mark.later(una);
        }
        self.urgent = self.urgent.filter(|end| end.after(una));
        self.rack.forget_before(una);
    }

    /// Takes a sample of the round-trip time: from a segment that was sent once, or by its
    /// timestamp (RFC 7323, section 4).
    fn measure(&mut self, now: Time, info: &AckInfo<'_>, arrivals: &Arrivals) {
        if let Some(sent) = arrivals.sent_first.filter(|_| !arrivals.ambiguous) {
            self.rtt.sample(now, now.since(sent));
            return;
        }
        // An acknowledgment of a first copy, after a second was sent, may repeat one that was lost:
        // then it measures the timer.
        if arrivals.progress == 0 || arrivals.needless {
            return;
        }
        let Some(echo) = info.echo.filter(|&echo| self.echo_counts(now, echo)) else { return };
        let elapsed = self.clock.value(now).wrapping_sub(echo);
        self.rtt.sample(now, Duration::from_millis(elapsed.into()));
    }

    /// An echo from before a restore measures the outage; one from the future nothing.
    fn echo_counts(&self, now: Time, echo: u32) -> bool {
        let old = self.echo_floor.is_some_and(|floor| timestamp_before(echo, floor));
        echo != 0 && !old && !timestamp_before(self.clock.value(now), echo)
    }

    fn judge_probe(&mut self, info: &AckInfo<'_>, view: &AckView) {
        let Some(probe) = self.probe else { return };
        let pure = view.pure && info.sack.is_empty();
        match probe.judge(info.ack, view.duplicate.is_some(), pure) {
            ProbeOutcome::Open => return,
            ProbeOutcome::Done => {}
            ProbeOutcome::LossRepaired if self.recovery.is_open() => {
                self.congestion.on_congestion(view.in_flight);
                self.congestion.settle();
            }
            ProbeOutcome::LossRepaired => {}
        }
        self.probe = None;
    }

    /// ECN echo: the window is reduced, once in a round trip (RFC 3168, section 6.1.2).
    fn note_congestion(&mut self, info: &AckInfo<'_>, in_flight: u32) {
        if !info.congestion || info.ack.before(self.cwr_until) || !self.recovery.is_open() {
            return;
        }
        self.congestion.on_congestion(in_flight);
        self.congestion.settle();
        self.cwr_until = self.nxt;
        self.cwr_pending = true;
    }
}

/// A block that reports something in flight.
fn is_new(block: &SackBlock, ack: Seq, nxt: Seq) -> bool {
    block.start.before(block.end) && block.start.after(ack) && block.end.at_or_before(nxt)
}

/// The block that reports a duplicate, if the first one does (RFC 2883, section 4).
fn duplicate_report(info: &AckInfo<'_>) -> Option<SackBlock> {
    let first = *info.sack.first()?;
    let below = first.end.at_or_before(info.ack);
    let inside = info.sack.get(1).is_some_and(|second| {
        second.start.at_or_before(first.start) && first.end.at_or_before(second.end)
    });
    (first.start.before(first.end) && (below || inside)).then_some(first)
}
