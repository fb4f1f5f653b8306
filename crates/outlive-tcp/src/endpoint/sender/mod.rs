//! The sending half of a connection: what was written, what of it is in flight, and what may be
//! sent next.
//!
//! | module | owns |
//! |---|---|
//! | [`scoreboard`] | what is in flight, and what is known of each part |
//! | [`ack`] | what an acknowledgment says |
//! | [`recovery`] | loss: its detection, the phases of its repair, the retransmission timer |
//! | [`choice`] | which segment is sent next |
//! | [`resume`] | what a snapshot says of it, and going on from one |
//! | [`regenerate`] | output that is computed again after that |
//! | [`rack`], [`probe`], [`prr`], [`rtt`] | the algorithms behind them |
//!
//! ```text
//! una            acknowledged by the other end up to here
//! nxt            sent, and on the scoreboard, up to here
//! data_end()     written up to here; the FIN has this number
//! ack_limit      what the other end may acknowledge: nxt, or what a former node may have sent
//! edge           the right edge of the other end's window
//! ```

mod ack;
mod choice;
mod probe;
mod prr;
mod rack;
mod recovery;
mod regenerate;
mod resume;
mod rtt;
mod scoreboard;

use bytes::Bytes;

pub(super) use self::{
    ack::AckInfo,
    choice::{Piece, SendLimits},
};
use self::{
    probe::TailProbe, rack::Rack, recovery::Recovery, regenerate::Regeneration, rtt::RttEstimator,
    scoreboard::Scoreboard,
};
use super::{
    byte_queue::ByteQueue,
    config::Config,
    congestion::Congestion,
    negotiation::{Negotiated, TimestampClock},
    timers::Timers,
};
use crate::{seq::Seq, time::Time};

/// The sending half.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    pub(super) iss: Seq,
    pub(super) una: Seq,
    pub(super) nxt: Seq,
    ack_limit: Seq,
    /// What is written and not acknowledged, from `queue_start` on.
    queue: ByteQueue,
    queue_start: Seq,
    capacity: u32,
    /// The program has ended the stream.
    ended: bool,
    /// After a restore without output: what the program writes next was acknowledged already.
    skip: u32,
    /// After a restore without output: where the former node's program has ended the stream.
    output_end: Option<Seq>,
    regeneration: Regeneration,
    /// SND.UP: urgent data ends here.
    urgent: Option<Seq>,
    /// The program found no room and wants to be told of some.
    writer_waits: bool,
    pub(super) window: SendWindow,
    board: Scoreboard,
    pub(super) rtt: RttEstimator,
    rack: Rack,
    probe: Option<TailProbe>,
    recovery: Recovery,
    congestion: Congestion,
    clock: TimestampClock,
    /// Payload bytes of a full segment: the unit of congestion control.
    mss: u32,
    sack: bool,
    /// What is sent next regardless of windows.
    force: Option<Force>,
    /// The end of what was sent into a closed window, and hardly taken.
    beyond_window: Option<Seq>,
    /// The window was full when this was the next to be sent.
    limited_until: Seq,
    /// The other end, with its window closed, has answered what was sent last: it lives.
    answered: bool,
    /// The end of the last segment that was not full: one at a time (Nagle, as Minshall has it).
    small_until: Seq,
    last_sent: Time,
    /// ECN: no further reduction before this is acknowledged; CWR goes with the next data.
    cwr_until: Seq,
    cwr_pending: bool,
    /// Echoed timestamps before this are from before a restore.
    echo_floor: Option<u32>,
}

/// What the other end lets us send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SendWindow {
    /// SND.WND, scaled.
    pub(super) size: u32,
    /// SND.WL1 and SND.WL2: the segment that last changed it.
    pub(super) wl1: Seq,
    pub(super) wl2: Seq,
    /// MAX.SND.WND.
    pub(super) largest: u32,
    /// The highest right edge there was.
    pub(super) edge: Seq,
}

/// A transmission that a timer demands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Force {
    /// The first segment in flight, again.
    Head,
    /// A tail loss probe.
    Tail,
    /// A zero-window probe, or what fits into a silly window.
    Window,
}

impl Sender {
    pub(super) fn new(config: &Config, iss: Seq, clock: TimestampClock) -> Self {
        let start = iss + 1;
        Sender {
            iss,
            una: iss,
            nxt: iss,
            ack_limit: iss,
            queue: ByteQueue::default(),
            queue_start: start,
            capacity: config.send_buffer.clamp(1, 1 << 30),
            ended: false,
            skip: 0,
            output_end: None,
            regeneration: Regeneration::default(),
            urgent: None,
            writer_waits: false,
            window: SendWindow { size: 0, wl1: Seq(0), wl2: iss, largest: 0, edge: start },
            board: Scoreboard::default(),
            rtt: RttEstimator::new(config.min_rto),
            rack: Rack::new(start),
            probe: None,
            recovery: Recovery::new(start),
            congestion: Congestion::new(config.congestion, 536),
            clock,
            mss: 536,
            sack: false,
            force: None,
            beyond_window: None,
            limited_until: start,
            answered: false,
            small_until: start,
            last_sent: Time::ZERO,
            cwr_until: start,
            cwr_pending: false,
            echo_floor: None,
        }
    }

    /// A SYN was sent, for the first time or again.
    pub(super) fn syn_sent(&mut self) {
        self.nxt = self.iss + 1;
        self.ack_limit = self.nxt;
    }

    /// The handshake is complete: the other end has acknowledged the SYN. `repeated` says that a
    /// SYN had to be sent again; `rtt` is what the handshake took otherwise.
    pub(super) fn established(
        &mut self,
        config: &Config,
        agreed: &Negotiated,
        mss: u32,
        repeated: bool,
    ) {
        self.syn_sent();
        self.una = self.nxt;
        self.sack = agreed.sack;
        self.mss = mss;
        self.congestion = Congestion::new(config.congestion, mss);
        if repeated {
            self.rtt.syn_was_repeated();
            self.congestion.after_syn_loss();
        }
    }

    /// Takes as much of `data` as there is room for; gives how much that is.
    pub(super) fn write(&mut self, mut data: Bytes) -> usize {
        let skipped = data.split_to(data.len().min(self.skip as usize)).len();
        self.skip -= skipped as u32;
        let taken = data.len().min(self.room());
        self.writer_waits = taken < data.len();
        data.truncate(taken);
        self.queue.push(data);
        skipped + taken
    }

    /// How many bytes can be written now.
    pub(super) fn room(&self) -> usize {
        (self.capacity as usize).saturating_sub(self.queue.len())
    }

    /// Whether a writer that found no room should try again now. Asks once.
    pub(super) fn take_writable(&mut self) -> bool {
        let enough = self.room() >= (self.capacity as usize / 2).min(2 * self.mss as usize).max(1);
        self.writer_waits && enough && std::mem::take(&mut self.writer_waits)
    }

    /// The program ends the stream. False, and nothing is done, if the former node's program has
    /// not ended it here: then it is another stream.
    pub(super) fn end(&mut self) -> bool {
        match self.output_end {
            // The other end has acknowledged the FIN as well.
            Some(end) if self.skip == 1 && end + 1 == self.una => {
                self.skip = 0;
                self.queue_start = end;
            }
            Some(end) if end != self.data_end() => return false,
            _ if self.skip > 0 => return false,
            _ => {}
        }
        self.ended = true;
        true
    }

    /// Whether a stream `len` bytes longer would not be the one that the former node's program has
    /// ended.
    pub(super) fn goes_beyond_end(&self, len: usize) -> bool {
        self.output_end.is_some_and(|end| {
            let written = self.data_end() - self.skip;
            len > end.distance(written) as usize
        })
    }

    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// What was written so far is urgent.
    pub(super) fn mark_urgent(&mut self) {
        self.urgent = Some(self.data_end());
    }

    /// The urgent pointer of a segment that begins at `start`.
    pub(super) fn urgent_pointer(&self, start: Seq) -> Option<u16> {
        let end = self.urgent.filter(|end| end.after(start))?;
        Some(end.distance(start).min(u16::MAX.into()) as u16)
    }

    /// The sequence number behind the last byte written: that of a FIN.
    pub(super) fn data_end(&self) -> Seq {
        self.queue_start + self.queue.len() as u32
    }

    /// Our FIN was sent and acknowledged.
    pub(super) fn fin_acknowledged(&self) -> bool {
        self.ended && self.una.after(self.data_end())
    }

    /// Everything that was written is acknowledged, and the end, if there is one.
    pub(super) fn is_idle(&self) -> bool {
        self.board.is_empty() && self.queue.is_empty() && (!self.ended || self.fin_acknowledged())
    }

    /// The other end owes an acknowledgment. Not if it answers the probes of its closed window,
    /// however long that takes (RFC 9293, MUST-37).
    pub(super) fn awaits_acknowledgment(&self) -> bool {
        let answers_probes = self.window.size == 0 && self.answered;
        !self.is_idle() && !answers_probes
    }

    /// Something is in flight.
    pub(super) fn in_flight(&self) -> bool {
        !self.board.is_empty()
    }

    /// Bytes written and not acknowledged.
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Data from `start` on, `len` bytes of it, shared.
    pub(super) fn data(&self, start: Seq, len: u32) -> Vec<Bytes> {
        self.queue.slices(start.distance(self.queue_start) as usize, len as usize)
    }

    /// Sequence numbers in the network, as far as is known (RFC 6675, section 4).
    pub(super) fn pipe(&self) -> u32 {
        let out = self.nxt.distance(self.una);
        out.saturating_sub(
            self.board.sacked() + self.board.lost() + self.recovery.arrived_unseen(self.mss),
        )
    }

    /// Congestion window and threshold, in bytes.
    pub(super) fn windows(&self) -> (u32, u32) {
        (self.congestion.cwnd, self.congestion.ssthresh)
    }

    /// What can be sent at all: how far the other end's window reaches beyond `nxt`.
    pub(super) fn usable(&self) -> u32 {
        let edge = self.usable_edge();
        if edge.after(self.nxt) { edge.distance(self.nxt) } else { 0 }
    }

    /// The path takes smaller or larger segments now. What was sent in larger ones is sent again
    /// at once if `resend`, for it has not arrived; that is no congestion.
    pub(super) fn set_mss(&mut self, mss: u32, resend: bool) {
        self.mss = mss;
        self.congestion.set_mss(mss);
        if resend {
            self.board.mark_lost(|_| true);
            self.recovery.repair_without_reduction(self.nxt);
        }
    }

    /// What a former node had in flight, and the other end has not acknowledged, is sent again.
    pub(super) fn repeat_inherited(&mut self) {
        if self.board.mark_lost(|sent| sent.inherited) > 0 {
            self.recovery.repair_without_reduction(self.nxt);
        }
    }

    /// The first segment in flight is one of full size.
    pub(super) fn head_is_full(&self) -> bool {
        self.board.first().is_some_and(|first| first.len() >= self.mss)
    }

    /// Size of the largest segment that is in flight, at most.
    pub(super) fn mss(&self) -> u32 {
        self.mss
    }

    /// Data or a FIN waits, nothing is in flight, and the window does not let it out: a timer must
    /// (RFC 9293, section 3.8.6.1).
    pub(super) fn wants_persist(&self) -> bool {
        let waiting = self.data_end().after(self.nxt) || self.fin_unsent();
        let small = self.usable() < self.mss.min((self.window.largest / 2).max(1));
        waiting && !self.in_flight() && small && self.force.is_none()
    }

    pub(super) fn fin_unsent(&self) -> bool {
        self.ended && self.nxt.at_or_before(self.data_end())
    }

    /// The persist timer has fired.
    pub(super) fn on_persist(&mut self) {
        self.rtt.back_off();
        self.force = Some(Force::Window);
    }

    /// The connection is over: nothing is sent any more.
    pub(super) fn stop(&mut self, timers: &mut Timers) {
        timers.stop_all();
        self.force = None;
    }

    /// Whether everything is as it must be: for `debug_assert!`.
    pub(super) fn is_consistent(&self) -> bool {
        // The SYN is not on the scoreboard.
        let in_flight_from = self.una.later(self.queue_start);
        self.una.at_or_before(self.nxt)
            && self.nxt.at_or_before(self.ack_limit)
            && self.board.is_consistent(in_flight_from, self.nxt)
    }
}
