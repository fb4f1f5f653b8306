//! The sending half of a connection: what has not been acknowledged, and when it is said again.
//!
//! Simple on purpose: slow start and congestion avoidance (RFC 5681), recovery from SACK blocks (in the
//! manner of RFC 6675), the retransmission timer of RFC 6298 with Linux's bounds, one loss probe (RFC 8985).

use std::{collections::VecDeque, time::Duration};

use outlive_tcp::{seq::Seq, time::Time, wire::SackBlock};

const MIN_RTO: Duration = Duration::from_millis(200);
const MAX_RTO: Duration = Duration::from_secs(120);
const FIRST_RTO: Duration = Duration::from_secs(1);
const MIN_PROBE: Duration = Duration::from_millis(10);

/// Which timer runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    /// The last segment is sent again, in the hope of an answer.
    Probe,
    /// Everything unacknowledged counts as lost.
    Retransmission,
    /// The window is closed: ask whether it has opened.
    Persist,
}

/// What a segment says about our stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acknowledgment<'a> {
    /// SEG.SEQ.
    pub(super) seq: Seq,
    /// SEG.ACK, within what was sent.
    pub(super) ack: Seq,
    /// The window in bytes.
    pub(super) window: u32,
    /// It carries data, so it is not a duplicate.
    pub(super) has_data: bool,
    pub(super) sack: &'a [SackBlock],
    /// A round-trip time, if it tells one.
    pub(super) sample: Option<Duration>,
}

/// A segment to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) seq: Seq,
    pub(super) payload: Vec<u8>,
    pub(super) fin: bool,
}

/// Bytes on their way to the other end.
#[derive(Debug)]
pub(super) struct Sender {
    /// SND.UNA.
    pub(super) una: Seq,
    /// SND.NXT: the end of what was ever sent.
    pub(super) nxt: Seq,
    window: u32,
    /// SND.WL1, SND.WL2.
    updated_by: (Seq, Seq),
    /// Scale of the windows that the other end shows.
    pub(super) scale: u8,
    /// From SND.UNA on, without SYN and FIN.
    data: VecDeque<u8>,
    /// Sequence number of the first byte of `data`.
    start: Seq,
    closing: bool,
    pub(super) mss: usize,
    congestion_window: usize,
    threshold: usize,
    sacked: Vec<(Seq, Seq)>,
    duplicates: u32,
    /// Recovery ends when this is acknowledged.
    recovery: Option<Seq>,
    /// Retransmission goes on from here.
    again: Option<Seq>,
    rtt: Option<(Duration, Duration)>,
    backoff: u32,
    timer: Option<(Time, Timer)>,
    probed: bool,
    /// Send this again, whatever the windows say.
    force: Option<Timer>,
}

impl Sender {
    pub(super) fn new(iss: Seq) -> Self {
        let una = iss + 1;
        Sender {
            una,
            nxt: una,
            window: 0,
            updated_by: (Seq(0), una),
            scale: 0,
            data: VecDeque::new(),
            start: una,
            closing: false,
            mss: 536,
            congestion_window: 0,
            threshold: usize::MAX,
            sacked: Vec::new(),
            duplicates: 0,
            recovery: None,
            again: None,
            rtt: None,
            backoff: 0,
            timer: None,
            probed: false,
            force: None,
        }
    }

    /// The handshake is over.
    pub(super) fn established(&mut self, mss: usize, window: u32, seq: Seq) {
        self.mss = mss;
        self.congestion_window = 10 * mss;
        self.window = window;
        self.updated_by = (seq, self.una);
    }

    pub(super) fn room(&self) -> usize {
        (256usize << 10).saturating_sub(self.data.len())
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        debug_assert!(!self.closing, "nothing is written after the end");
        self.data.extend(bytes);
    }

    pub(super) fn close(&mut self) {
        self.closing = true;
    }

    fn end(&self) -> Seq {
        self.start + self.data.len() as u32
    }

    /// The other end has acknowledged our FIN.
    pub(super) fn fin_acknowledged(&self) -> bool {
        self.closing && self.una == self.end() + 1
    }

    fn outstanding(&self) -> bool {
        self.una != self.nxt
    }

    /// The other end acknowledges.
    pub(super) fn acknowledged(&mut self, now: Time, news: &Acknowledgment<'_>) {
        let Acknowledgment { seq, ack, window, has_data, sack, sample } = *news;
        let same_window = window == self.window;
        let newer = self.updated_by.0.before(seq)
            || self.updated_by.0 == seq && self.updated_by.1.at_or_before(ack);
        if newer || ack.after(self.una) {
            self.window = window;
            self.updated_by = (seq, ack);
        }
        for block in sack.iter().filter(|b| b.start.after(ack) && b.end.at_or_before(self.nxt)) {
            self.sacked.push((block.start, block.end));
        }
        if ack.after(self.una) {
            self.progress(now, ack, sample);
        } else if ack == self.una && self.outstanding() && !has_data && same_window {
            self.duplicates += 1;
        }
        self.detect_loss();
        if self.window > 0 && matches!(self.timer, Some((_, Timer::Persist))) {
            self.timer = None;
            self.backoff = 0;
        }
    }

    fn progress(&mut self, now: Time, ack: Seq, sample: Option<Duration>) {
        let bytes = ack.distance(self.una) as usize;
        self.una = ack;
        let data = (ack.distance(self.start) as usize).min(self.data.len());
        self.data.drain(..data);
        self.start += data as u32;
        self.sacked.retain(|(_, end)| end.after(ack));
        self.again = self.again.map(|again| again.later(ack));
        self.duplicates = 0;
        self.backoff = 0;
        self.probed = false;
        if let Some(sample) = sample {
            self.measure(sample);
        }
        match self.recovery {
            Some(recovery) if ack.before(recovery) => {
                // A partial acknowledgment: the next hole is lost, too.
                if self.sacked.is_empty() {
                    self.again = Some(ack);
                }
            }
            _ => {
                self.recovery = None;
                let growth = if self.congestion_window < self.threshold {
                    bytes
                } else {
                    self.mss * self.mss / self.congestion_window.max(1)
                };
                self.congestion_window = (self.congestion_window + growth).min(1 << 20);
            }
        }
        self.timer = None;
        if self.outstanding() {
            self.arm(now);
        }
    }

    fn detect_loss(&mut self) {
        let sacked: u32 = self.sacked.iter().map(|(s, e)| e.distance(*s)).sum();
        let lost = self.duplicates >= 3 || sacked as usize >= 3 * self.mss;
        if lost && self.recovery.is_none() && self.outstanding() {
            self.recovery = Some(self.nxt);
            let flight = self.nxt.distance(self.una) as usize;
            self.threshold = (flight / 2).max(2 * self.mss);
            self.congestion_window = self.threshold + 3 * self.mss;
            self.again = Some(self.una);
        }
    }

    /// The round trip of the handshake.
    pub(super) fn first_sample(&mut self, sample: Duration) {
        self.measure(sample);
    }

    /// RFC 6298, section 2, with Linux's bounds.
    fn measure(&mut self, sample: Duration) {
        self.rtt = Some(match self.rtt {
            None => (sample, sample / 2),
            Some((smoothed, variation)) => {
                let difference = smoothed.abs_diff(sample);
                (smoothed * 7 / 8 + sample / 8, variation * 3 / 4 + difference / 4)
            }
        });
    }

    fn rto(&self) -> Duration {
        let rto = self
            .rtt
            .map_or(FIRST_RTO, |(smoothed, variation)| smoothed + (variation * 4).max(MIN_RTO));
        (rto * 2u32.pow(self.backoff.min(10))).min(MAX_RTO)
    }

    fn arm(&mut self, now: Time) {
        let probe = self.rtt.map(|(smoothed, _)| (smoothed * 2).max(MIN_PROBE));
        let idle = self.recovery.is_none() && self.again.is_none() && self.backoff == 0;
        self.timer = Some(match probe.filter(|_| idle && !self.probed) {
            Some(probe) if probe < self.rto() => (now + probe, Timer::Probe),
            _ => (now + self.rto(), Timer::Retransmission),
        });
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.timer.map(|(at, _)| at)
    }

    pub(super) fn expire(&mut self, now: Time) {
        let Some((at, timer)) = self.timer else { return };
        if at > now {
            return;
        }
        self.timer = None;
        match timer {
            Timer::Probe => {
                self.probed = true;
                self.force = Some(Timer::Probe);
                self.timer = Some((now + self.rto(), Timer::Retransmission));
            }
            Timer::Retransmission => {
                let flight = self.nxt.distance(self.una) as usize;
                self.threshold = (flight / 2).max(2 * self.mss);
                self.congestion_window = self.mss;
                self.sacked.clear();
                self.recovery = None;
                self.duplicates = 0;
                self.again = Some(self.una);
                self.backoff += 1;
                self.force = Some(Timer::Retransmission);
                self.timer = Some((now + self.rto(), Timer::Retransmission));
            }
            Timer::Persist => {
                self.backoff += 1;
                self.force = Some(Timer::Persist);
                self.timer = Some((now + self.rto(), Timer::Persist));
            }
        }
    }

    /// The next segment that may be sent.
    pub(super) fn next(&mut self, now: Time) -> Option<Chunk> {
        match self.force.take() {
            Some(Timer::Probe) if self.outstanding() => {
                let last = self.nxt - (self.mss as u32).min(self.nxt.distance(self.una));
                return Some(self.repeat(last, self.mss));
            }
            Some(Timer::Retransmission) if self.outstanding() => {
                let chunk = self.repeat(self.una, self.mss);
                self.again = Some(self.una + length(&chunk));
                return Some(chunk);
            }
            // An old sequence number: it will be answered.
            Some(Timer::Persist) => {
                return Some(Chunk { seq: self.una - 1, payload: Vec::new(), fin: false });
            }
            _ => {}
        }
        let chunk = self.lost().or_else(|| self.fresh(now))?;
        if self.timer.is_none() || matches!(self.timer, Some((_, Timer::Probe))) {
            self.arm(now);
        }
        Some(chunk)
    }

    /// What counts as lost.
    fn lost(&mut self) -> Option<Chunk> {
        let mut again = self.again?;
        let highest = self.sacked.iter().map(|(_, end)| *end).max_by(|a, b| a.compare(*b));
        let limit = match (self.recovery, highest) {
            (Some(_), Some(highest)) => highest,
            (Some(_), None) => self.una + self.mss as u32,
            (None, _) => self.nxt,
        };
        loop {
            let skip = self.sacked.iter().find(|(s, e)| s.at_or_before(again) && again.before(*e));
            let Some((_, end)) = skip else { break };
            again = *end;
        }
        let limit = if limit.after(self.nxt) { self.nxt } else { limit };
        if !again.before(limit) {
            self.again = None;
            return None;
        }
        if again.distance(self.una) as usize >= self.congestion_window {
            return None;
        }
        let next_sacked = self.sacked.iter().map(|(start, _)| *start).filter(|s| s.after(again));
        let hole = next_sacked.map(|s| s.distance(again) as usize).min().unwrap_or(self.mss);
        let chunk = self.repeat(again, hole.min(self.mss));
        self.again = Some(again + length(&chunk).max(1));
        Some(chunk)
    }

    /// What was never sent.
    fn fresh(&mut self, now: Time) -> Option<Chunk> {
        if self.again.is_some() && self.recovery.is_none() {
            return None;
        }
        let flight = self.nxt.distance(self.una) as usize;
        let unsent = self.end().distance(self.start) as usize;
        let unsent = unsent.saturating_sub(self.nxt.distance(self.start) as usize);
        let fin_sent = self.nxt == self.end() + 1;
        let window = (self.window as usize).min(self.congestion_window);
        let room = window.saturating_sub(flight).min(self.mss);
        if unsent > 0 && !fin_sent && room > 0 && (room >= self.mss.min(unsent) || flight == 0) {
            let chunk = self.chunk(self.nxt, room);
            self.nxt += length(&chunk);
            return Some(chunk);
        }
        if self.closing && !fin_sent && unsent == 0 {
            let chunk = Chunk { seq: self.nxt, payload: Vec::new(), fin: true };
            self.nxt += 1;
            return Some(chunk);
        }
        if unsent > 0 && !fin_sent && self.window == 0 && flight == 0 && self.timer.is_none() {
            self.timer = Some((now + self.rto(), Timer::Persist));
        }
        None
    }

    /// At most `len` bytes of what was sent at `seq`, with the FIN if it comes next.
    fn repeat(&self, seq: Seq, len: usize) -> Chunk {
        let chunk = self.chunk(seq, len.min(self.nxt.distance(seq) as usize));
        let fin = chunk.fin && self.nxt == self.end() + 1;
        Chunk { fin, ..chunk }
    }

    /// At most `len` bytes of data at `seq`, with the FIN if it comes next.
    fn chunk(&self, seq: Seq, len: usize) -> Chunk {
        let at = (seq.distance(self.start) as usize).min(self.data.len());
        let len = len.min(self.data.len() - at);
        let payload = self.data.iter().skip(at).take(len).copied().collect();
        let at_end = at + len == self.data.len();
        Chunk { seq, payload, fin: self.closing && at_end }
    }
}

fn length(chunk: &Chunk) -> u32 {
    chunk.payload.len() as u32 + u32::from(chunk.fin)
}
