//! What a bad link does to frames, decided without a clock.
//!
//! Owns: one direction of an impaired link, that is, which frame is lost, doubled, delayed or
//! overtaken, and the frames on their way. Does not own: devices, threads, time. The caller
//! (`wire`) passes the time since some start of its own; chance comes from the seed, so the same
//! frames at the same times have the same fate.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// The properties of one direction of a link. The default is a perfect one without a limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Impairment {
    /// Time every frame spends on the way.
    pub delay: Duration,
    /// Up to this much is added to `delay`, equally distributed. Order is kept; see `reorder`.
    pub jitter: Duration,
    /// Share of the segments lost, 0 to 1.
    pub loss: f64,
    /// Share of the segments delivered twice, 0 to 1.
    pub duplicate: f64,
    /// Share of the segments held back by `reorder_by`, so that later ones overtake them, 0 to 1.
    pub reorder: f64,
    /// How long a reordered segment is held back.
    pub reorder_by: Duration,
    /// Bits of frame per second, or as fast as it goes.
    pub rate: Option<u64>,
    /// Bytes that may wait for their turn at `rate`; what comes on top is dropped.
    pub queue: usize,
}

impl Default for Impairment {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_by: Duration::from_millis(2),
            rate: None,
            queue: 1 << 20,
        }
    }
}

impl Impairment {
    /// A link that is only long: `one_way` in each direction that has it.
    pub fn delayed(one_way: Duration) -> Self {
        Self { delay: one_way, ..Self::default() }
    }

    /// The bad link of the issue: 1 % loss, delay with 5 ms of jitter, reordering, duplication.
    pub fn bad() -> Self {
        Self {
            delay: Duration::from_millis(1),
            jitter: Duration::from_millis(5),
            loss: 0.01,
            duplicate: 0.01,
            reorder: 0.01,
            ..Self::default()
        }
    }

    /// Whether chance strikes single segments, so that super-segments must be cut up first.
    pub fn strikes_segments(&self) -> bool {
        self.loss > 0.0 || self.duplicate > 0.0 || self.reorder > 0.0
    }
}

/// Frames that a direction may hold at once, in bytes; a bound on memory, not a property of the
/// link: 1 s at 1 Gbit/s.
const IN_FLIGHT_LIMIT: usize = 128 << 20;

/// What became of the frames of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames offered.
    pub offered: u64,
    /// Frames given to the other end, copies included.
    pub delivered: u64,
    /// Frames lost by chance.
    pub lost: u64,
    /// Frames delivered a second time.
    pub duplicated: u64,
    /// Frames held back.
    pub reordered: u64,
    /// Frames that found the queue full.
    pub overflowed: u64,
    /// Frames dropped because the link was cut.
    pub cut: u64,
}

/// One direction of a link with the frames `F` on their way.
///
/// Call [`push`](Self::push) for each frame that enters, then [`pop`](Self::pop) until it is empty,
/// then wait until [`next_due`](Self::next_due).
#[derive(Debug)]
pub struct Direction<F> {
    config: Impairment,
    random: fastrand::Rng,
    cut: bool,
    /// When the last bit of the last accepted frame has left at `rate`.
    line_free: Duration,
    /// No frame that keeps its place in the order is due before this.
    in_order: Duration,
    in_flight: BinaryHeap<Reverse<InFlight<F>>>,
    in_flight_bytes: usize,
    sequence: u64,
    tally: Tally,
}

impl<F: Clone> Direction<F> {
    /// An empty direction; `seed` decides which frames chance strikes.
    pub fn new(config: Impairment, seed: u64) -> Self {
        Self {
            config,
            random: fastrand::Rng::with_seed(seed),
            cut: false,
            line_free: Duration::ZERO,
            in_order: Duration::ZERO,
            in_flight: BinaryHeap::new(),
            in_flight_bytes: 0,
            sequence: 0,
            tally: Tally::default(),
        }
    }

    /// Cuts or restores the direction. What is on the way when it is cut is gone.
    pub fn set_cut(&mut self, cut: bool) {
        if cut {
            self.tally.cut += self.in_flight.len() as u64;
            self.in_flight.clear();
            self.in_flight_bytes = 0;
        }
        self.cut = cut;
    }

    /// A frame of `len` bytes enters at `now`.
    pub fn push(&mut self, now: Duration, frame: F, len: usize) {
        self.tally.offered += 1;
        if self.cut {
            self.tally.cut += 1;
            return;
        }
        if self.strikes(self.config.loss) {
            self.tally.lost += 1;
            return;
        }
        let Some(sent) = self.transmit(now, len) else {
            self.tally.overflowed += 1;
            return;
        };
        let mut due = sent + self.config.delay + self.config.jitter.mul_f64(self.random.f64());
        if self.strikes(self.config.reorder) {
            self.tally.reordered += 1;
            due += self.config.reorder_by;
        } else {
            due = due.max(self.in_order);
            self.in_order = due;
        }
        if self.strikes(self.config.duplicate) {
            self.tally.duplicated += 1;
            self.hold(due, frame.clone(), len);
        }
        self.hold(due, frame, len);
    }

    /// The next frame that has arrived by `now`.
    pub fn pop(&mut self, now: Duration) -> Option<F> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse(arrived) = self.in_flight.pop()?;
        self.in_flight_bytes -= arrived.len;
        self.tally.delivered += 1;
        Some(arrived.frame)
    }

    /// When the next frame arrives.
    pub fn next_due(&self) -> Option<Duration> {
        self.in_flight.peek().map(|Reverse(next)| next.due)
    }

    /// What became of the frames so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// When the frame's last bit is on the line, or nothing if there is no room to wait.
    fn transmit(&mut self, now: Duration, len: usize) -> Option<Duration> {
        if self.in_flight_bytes + len > IN_FLIGHT_LIMIT {
            return None;
        }
        let Some(rate) = self.config.rate else { return Some(now) };
        let waiting = self.line_free.saturating_sub(now);
        let waiting_bytes = waiting.as_secs_f64() * rate as f64 / 8.0;
        if waiting_bytes + len as f64 > self.config.queue as f64 {
            return None;
        }
        self.line_free = now + waiting + Duration::from_secs_f64(len as f64 * 8.0 / rate as f64);
        Some(self.line_free)
    }

    fn hold(&mut self, due: Duration, frame: F, len: usize) {
        self.sequence += 1;
        self.in_flight_bytes += len;
        self.in_flight.push(Reverse(InFlight { due, sequence: self.sequence, len, frame }));
    }

    fn strikes(&mut self, share: f64) -> bool {
        share > 0.0 && self.random.f64() < share
    }
}

/// A frame on its way, ordered by arrival, then by entry.
#[derive(Debug)]
struct InFlight<F> {
    due: Duration,
    sequence: u64,
    len: usize,
    frame: F,
}

impl<F> InFlight<F> {
    fn key(&self) -> (Duration, u64) {
        (self.due, self.sequence)
    }
}

impl<F> PartialEq for InFlight<F> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<F> Eq for InFlight<F> {}

impl<F> PartialOrd for InFlight<F> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<F> Ord for InFlight<F> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

#[cfg(test)]
mod tests;
