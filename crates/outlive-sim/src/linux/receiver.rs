//! The receiving half of a connection: what has come, in order or not, and the window.

use std::collections::{BTreeMap, VecDeque};

use outlive_tcp::{
    seq::Seq,
    wire::{SackBlock, SackBlocks},
};

/// Bytes on their way to the application.
#[derive(Debug)]
pub(super) struct Receiver {
    /// RCV.NXT.
    pub(super) nxt: Seq,
    /// The right edge that was shown last: it never moves left.
    edge: Seq,
    buffer: VecDeque<u8>,
    capacity: usize,
    /// What lies ahead, by its distance from the initial sequence number.
    ahead: BTreeMap<u32, Vec<u8>>,
    irs: Seq,
    /// Where the FIN is, if it was seen.
    fin: Option<Seq>,
    /// The FIN has been consumed.
    pub(super) ended: bool,
    /// Scale of the windows that are shown.
    pub(super) scale: u8,
    /// A duplicate to be reported (RFC 2883).
    pub(super) duplicate: Option<SackBlock>,
    latest: Option<u32>,
}

/// What a segment brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Nothing.
    Nothing,
    /// The next bytes, and nothing waits behind them.
    InOrder,
    /// Something that has to be acknowledged at once: a gap, a copy, the end of a gap, the end.
    Notable,
}

impl Receiver {
    pub(super) fn new(irs: Seq, capacity: usize, scale: u8) -> Self {
        Receiver {
            nxt: irs + 1,
            edge: irs + 1,
            buffer: VecDeque::new(),
            capacity,
            ahead: BTreeMap::new(),
            irs,
            fin: None,
            ended: false,
            scale,
            duplicate: None,
            latest: None,
        }
    }

    /// The window in bytes: what is free, in steps of the scale, but never less than was shown.
    pub(super) fn window(&self) -> u32 {
        let waiting: usize = self.ahead.values().map(Vec::len).sum();
        let free = self.capacity.saturating_sub(self.buffer.len() + waiting) as u32;
        let free = free.min(0xffff << self.scale) >> self.scale << self.scale;
        if self.edge.after(self.nxt + free) { self.edge.distance(self.nxt) } else { free }
    }

    /// The window as a header field; from now on it has been shown.
    pub(super) fn show_window(&mut self) -> u16 {
        let window = self.window().min(0xffff << self.scale);
        let field = window >> self.scale;
        self.edge = self.edge.later(self.nxt + (field << self.scale));
        field as u16
    }

    /// Whether showing the window again would help the sender.
    pub(super) fn has_opened(&self, mss: usize) -> bool {
        let shown = self.edge.distance(self.nxt) as usize;
        let now = self.window() as usize;
        now >= shown + (2 * mss).min(self.capacity / 2) && shown < self.capacity / 2
    }

    /// Bytes at `seq`, with a FIN behind them if `fin`.
    pub(super) fn take(&mut self, seq: Seq, payload: &[u8], fin: bool) -> Arrival {
        let end = seq + payload.len() as u32;
        let mut notable = false;
        if seq.before(self.nxt) && !payload.is_empty() {
            let known = if end.before(self.nxt) { end } else { self.nxt };
            self.duplicate = Some(SackBlock { start: seq, end: known });
            notable = true;
        }
        let limit = self.nxt + self.window();
        let from = seq.later(self.nxt);
        let to = if end.after(limit) { limit } else { end };
        if fin && !end.after(limit) && self.fin.is_none() {
            self.fin = Some(end);
        }
        if to.after(from) {
            let news = payload[from.distance(seq) as usize..to.distance(seq) as usize].to_vec();
            notable |= from.after(self.nxt) || !self.ahead.is_empty();
            self.latest = Some(from.distance(self.irs));
            let place = self.ahead.entry(from.distance(self.irs)).or_default();
            if place.len() < news.len() {
                *place = news;
            }
        } else if payload.is_empty() && !fin {
            return Arrival::Nothing;
        } else if !fin {
            notable = true;
        }
        self.collect();
        if fin || notable { Arrival::Notable } else { Arrival::InOrder }
    }

    /// Moves what continues the stream to the application's buffer.
    fn collect(&mut self) {
        while let Some(entry) = self.ahead.first_entry() {
            let start = self.irs + *entry.key();
            if start.after(self.nxt) {
                break;
            }
            let bytes = entry.remove();
            let known = self.nxt.distance(start) as usize;
            if let Some(news) = bytes.get(known..) {
                self.buffer.extend(news);
                self.nxt += news.len() as u32;
            }
        }
        if !self.ended && self.fin == Some(self.nxt) {
            self.nxt += 1;
            self.ended = true;
        }
    }

    /// The application reads.
    pub(super) fn read(&mut self, out: &mut [u8]) -> usize {
        let count = out.len().min(self.buffer.len());
        for (slot, byte) in out.iter_mut().zip(self.buffer.drain(..count)) {
            *slot = byte;
        }
        count
    }

    pub(super) fn unread(&self) -> usize {
        self.buffer.len()
    }

    /// What to report: a copy first, then the gap that was last widened, then the others (RFC 2018, 4).
    pub(super) fn sack(&mut self) -> SackBlocks {
        let mut blocks = SackBlocks::default();
        let copy = self.duplicate.take();
        copy.into_iter().for_each(|block| {
            blocks.push(block);
        });
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for (start, bytes) in &self.ahead {
            let end = start + bytes.len() as u32;
            match ranges.last_mut() {
                Some((_, last)) if *start <= *last => *last = (*last).max(end),
                _ => ranges.push((*start, end)),
            }
        }
        if let Some(latest) = self.latest
            && let Some(i) = ranges.iter().position(|(s, e)| *s <= latest && latest < *e)
        {
            ranges[..=i].rotate_right(1);
        }
        for (start, end) in ranges.into_iter().take(3) {
            blocks.push(SackBlock { start: self.irs + start, end: self.irs + end });
        }
        blocks
    }
}
