//! Loss: how it is found, and the phases in which it is repaired.
//!
//! ```text
//!          loss found                      timer fires
//!   Open ───────────────▶ Recovery ───────────────────────▶ Loss
//!     ▲  everything in flight then is acknowledged │            │
//!     └──────────────────◀─────────────────────────┴─────◀──────┘
//! ```
//!
//! A repair that turns out to have been needless is undone (RFC 4015 by timestamps, RFC 3708 by
//! duplicate reports).

use std::time::Duration;

use super::{
    Force, Sender,
    ack::{AckInfo, AckView, Arrivals},
    probe::TailProbe,
    prr::Prr,
    rack::Patience,
};
use crate::{
    endpoint::{
        congestion::Congestion,
        negotiation::timestamp_before,
        timers::{Timer, Timers},
    },
    seq::Seq,
    time::Time,
};

/// DupThresh (RFC 5681, section 3.2).
const DUPLICATES: u32 = 3;

/// The phase of the sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::endpoint) enum Phase {
    /// Nothing is known to be lost.
    Open,
    /// Something is lost, and acknowledgments still come.
    Recovery,
    /// The retransmission timer has fired.
    Loss,
}

/// The state of loss recovery.
#[derive(Clone, Debug)]
pub(super) struct Recovery {
    pub(super) phase: Phase,
    /// What was in flight when the phase began ends here.
    point: Seq,
    pub(super) prr: Prr,
    /// Duplicate acknowledgments in a row, of an end without SACK.
    duplicates: u32,
    undo: Option<Undo>,
}

/// What is needed to undo a reduction.
#[derive(Clone, Debug)]
struct Undo {
    before: Congestion,
    /// TSval of the first retransmission.
    stamp: Option<u32>,
    /// What was sent again, and what of it the other end reports to have had.
    repeated: u32,
    reported: u32,
}

impl Recovery {
    pub(super) fn new(start: Seq) -> Self {
        let prr = Prr::start(0);
        Recovery { phase: Phase::Open, point: start, prr, duplicates: 0, undo: None }
    }

    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// What must have arrived for duplicate acknowledgments to come, at an end without SACK.
    pub(super) fn arrived_unseen(&self, mss: u32) -> u32 {
        self.duplicates.saturating_mul(mss)
    }

    /// Something is sent again.
    pub(super) fn note_repeated(&mut self, len: u32, stamp: u32) {
        if let Some(undo) = &mut self.undo {
            undo.stamp.get_or_insert(stamp);
            undo.repeated = undo.repeated.saturating_add(len);
        }
    }

    /// What is in flight is to be repaired though there is no congestion.
    pub(super) fn repair_without_reduction(&mut self, nxt: Seq) {
        (self.phase, self.point) = (Phase::Loss, nxt);
        self.undo = None;
    }

    fn enter(&mut self, phase: Phase, point: Seq, before: &Congestion) {
        (self.phase, self.point) = (phase, point);
        self.undo = Some(Undo { before: before.clone(), stamp: None, repeated: 0, reported: 0 });
    }
}

impl Sender {
    /// Finds losses, moves between the phases, and sets the congestion window.
    pub(super) fn recover(
        &mut self,
        now: Time,
        info: &AckInfo<'_>,
        view: &AckView,
        timers: &mut Timers,
    ) {
        let arrivals = &view.arrivals;
        self.undo_if_needless(info, view);
        if !self.recovery.is_open() && self.una.at_or_after(self.recovery.point) {
            self.leave_recovery();
        }
        self.count_duplicates(arrivals, view.pure && view.in_flight > 0);
        let lost = self.detect_losses(now, timers);
        match self.recovery.phase {
            Phase::Open if self.board.lost() > 0 => {
                self.enter_recovery(arrivals.delivered, view.in_flight);
            }
            Phase::Recovery => {
                let grows = arrivals.progress > 0 && lost == 0;
                self.reduce_proportionally(arrivals.delivered, grows, 0);
            }
            // Not for one that notifies of congestion (RFC 3168, section 6.1.2).
            Phase::Open | Phase::Loss if arrivals.progress > 0 && !info.congestion => {
                let rtt = self.rtt.smoothed().unwrap_or_default();
                let limited = view.limited || self.recovery.phase == Phase::Loss;
                self.congestion.on_ack(now, arrivals.progress, rtt, limited);
            }
            _ => {}
        }
    }

    fn enter_recovery(&mut self, delivered: u32, in_flight: u32) {
        self.recovery.enter(Phase::Recovery, self.nxt, &self.congestion);
        self.congestion.on_congestion(in_flight);
        self.recovery.prr = Prr::start(in_flight);
        self.probe = None;
        self.cwr_pending = true;
        // The first retransmission always goes out.
        self.reduce_proportionally(delivered, false, self.mss);
    }

    /// Sets the window to what may be in flight now, `least` more than is at the least.
    fn reduce_proportionally(&mut self, delivered: u32, grows: bool, least: u32) {
        let (pipe, ssthresh) = (self.pipe(), self.congestion.ssthresh);
        let delivered = if self.sack { delivered } else { delivered.max(self.mss) };
        let allowed = self.recovery.prr.allowance(delivered, pipe, ssthresh, self.mss, grows);
        self.congestion.cwnd = pipe + allowed.max(least);
    }

    fn leave_recovery(&mut self) {
        if self.recovery.phase == Phase::Recovery {
            self.congestion.cwnd = self.congestion.ssthresh;
            self.congestion.settle();
            self.rack.recovered();
        }
        self.recovery.phase = Phase::Open;
        self.recovery.duplicates = 0;
        // A report that all was needless may still come, and is still believed.
    }

    /// Without SACK, three duplicate acknowledgments say that the first segment is lost, and a
    /// partial acknowledgment during the repair that the next one is (RFC 5681, RFC 6582).
    fn count_duplicates(&mut self, arrivals: &Arrivals, duplicate: bool) {
        if self.sack {
            return;
        }
        let recovery = &mut self.recovery;
        if arrivals.progress > 0 {
            let arrived = arrivals.progress.saturating_sub(self.mss).div_ceil(self.mss.max(1));
            recovery.duplicates = match recovery.phase {
                Phase::Recovery => recovery.duplicates.saturating_sub(arrived),
                _ => 0,
            };
            if recovery.phase == Phase::Recovery {
                self.board.mark_head_lost(self.mss);
            }
        } else if duplicate && recovery.phase != Phase::Loss {
            let most = self.nxt.distance(self.una) / self.mss.max(1);
            recovery.duplicates = (recovery.duplicates + 1).min(most);
            if recovery.phase == Phase::Open && recovery.duplicates >= DUPLICATES {
                self.board.mark_head_lost(self.mss);
            }
        }
    }

    /// Asks RACK; gives how much is newly lost.
    fn detect_losses(&mut self, now: Time, timers: &mut Timers) -> u32 {
        if !self.sack {
            return 0;
        }
        let patience = self.patience();
        let (lost, wait) = self.rack.detect(now, &mut self.board, &patience);
        match wait {
            Some(wait) => timers.set(Timer::Reorder, now + wait),
            None => timers.stop(Timer::Reorder),
        }
        lost
    }

    fn patience(&self) -> Patience {
        Patience {
            recovering: !self.recovery.is_open(),
            many_sacked: self.board.sacked() >= DUPLICATES * self.mss,
            smoothed: self.rtt.smoothed().unwrap_or(Duration::from_secs(1)),
            minimum: self.rtt.minimum().unwrap_or_default(),
        }
    }

    /// The timer that waited for segments that were perhaps only late.
    pub(in crate::endpoint) fn on_reorder_timeout(&mut self, now: Time, timers: &mut Timers) {
        let in_flight = self.nxt.distance(self.una);
        let lost = self.detect_losses(now, timers);
        if lost == 0 {
            return;
        }
        match self.recovery.phase {
            Phase::Open => self.enter_recovery(0, in_flight),
            Phase::Recovery => self.reduce_proportionally(0, false, self.mss),
            Phase::Loss => {}
        }
        self.rearm(now, true, timers);
    }

    /// The retransmission timer has fired (RFC 6298, section 5; RFC 8985, section 6.3). With a
    /// closed window this is a probe of it, and says nothing about congestion.
    pub(in crate::endpoint) fn on_retransmit_timeout(&mut self, now: Time, timers: &mut Timers) {
        if self.board.is_empty() {
            return;
        }
        self.rtt.back_off();
        timers.stop(Timer::TailProbe);
        timers.stop(Timer::Reorder);
        self.probe = None;
        self.force = Some(Force::Head);
        if self.window.size > 0 {
            self.start_over(now);
        }
        timers.set(Timer::Retransmit, now + self.rtt.rto());
    }

    fn start_over(&mut self, now: Time) {
        let in_flight = self.nxt.distance(self.una);
        if self.recovery.phase != Phase::Loss {
            self.recovery.enter(Phase::Loss, self.nxt, &self.congestion);
            self.congestion.on_congestion(in_flight);
        }
        self.recovery.duplicates = 0;
        self.recovery.point = self.nxt;
        self.congestion.collapse();
        if self.board.first().is_some_and(|first| first.sacked) {
            self.board.forget_sacks(); // It has dropped what it had.
        }
        if self.sack {
            let patience = self.patience();
            self.rack.detect_on_timeout(now, &mut self.board, &patience, self.mss);
        } else {
            self.board.mark_lost(|_| true);
        }
    }

    /// The tail loss probe is due.
    pub(in crate::endpoint) fn on_probe_timeout(&mut self, now: Time, timers: &mut Timers) {
        if self.probe.is_none() && self.recovery.is_open() && !self.board.is_empty() {
            self.force = Some(Force::Tail);
            timers.set(Timer::Retransmit, now + self.rtt.rto());
        }
    }

    pub(super) fn probe_sent(&mut self, repeated: bool, end: Seq) {
        self.probe = Some(TailProbe { end, repeated });
    }

    /// Sets the timers after something was sent.
    pub(in crate::endpoint) fn arm(&mut self, now: Time, timers: &mut Timers) {
        timers.start(Timer::Retransmit, now + self.rtt.rto());
        self.arm_probe(now, timers);
    }

    /// Sets the timers after an acknowledgment.
    pub(super) fn rearm(&mut self, now: Time, progress: bool, timers: &mut Timers) {
        if self.board.is_empty() {
            timers.stop(Timer::Retransmit);
            timers.stop(Timer::TailProbe);
            timers.stop(Timer::Reorder);
            return;
        }
        if progress {
            timers.set(Timer::Retransmit, now + self.rtt.rto());
            self.arm_probe(now, timers);
        }
    }

    fn arm_probe(&mut self, now: Time, timers: &mut Timers) {
        let wanted = self.sack
            && self.probe.is_none()
            && self.recovery.is_open()
            && self.board.sacked() == 0
            && self.window.size > 0
            && self.rtt.backoff() == 0;
        let lone = self.nxt.distance(self.una) <= self.mss;
        let due = now + TailProbe::timeout(self.rtt.smoothed(), lone);
        if wanted {
            // Where the retransmission timer is the earlier one, it gives way to the probe and
            // starts anew behind it (RFC 8985, section 7.2).
            timers.set(Timer::TailProbe, due.min(timers.due(Timer::Retransmit)));
        } else {
            timers.stop(Timer::TailProbe);
        }
    }

    /// An acknowledgment shows that what was sent again had not been lost.
    fn undo_if_needless(&mut self, info: &AckInfo<'_>, view: &AckView) {
        let Some(undo) = &mut self.recovery.undo else { return };
        if let Some(block) = view.duplicate {
            undo.reported = undo.reported.saturating_add(block.end.distance(block.start));
        }
        let by_reports = undo.repeated > 0 && undo.reported >= undo.repeated;
        // The acknowledgment is of something sent before the first retransmission.
        let by_time = self.recovery.phase != Phase::Open
            && view.arrivals.progress > 0
            && undo.stamp.zip(info.echo).is_some_and(|(stamp, echo)| timestamp_before(echo, stamp));
        if !by_reports && !by_time {
            return;
        }
        let cwnd = self.congestion.cwnd;
        if let Some(undo) = self.recovery.undo.take() {
            self.congestion = undo.before;
            self.congestion.cwnd = self.congestion.cwnd.max(cwnd);
            self.congestion.set_mss(self.mss);
        }
        if !self.recovery.is_open() {
            self.board.forget_losses();
            self.recovery.phase = Phase::Open;
        }
    }
}
