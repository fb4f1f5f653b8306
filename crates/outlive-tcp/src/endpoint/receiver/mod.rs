//! The receiving half of a connection: what has come, what was read, what is acknowledged.
//!
//! Receiving and acknowledging are two things here. Four numbers tell where the stream is, each at
//! or before the next:
//!
//! ```text
//! acknowledged          what SEG.ACK says: the program has released everything before
//! read                  the program has everything before
//! received              in order and complete up to here: RCV.NXT of RFC 9293
//! window.shown          the other end may send up to here
//! ```
//!
//! (`acknowledged` is ahead of `read` where the connection acknowledges by itself.) To the other
//! end, SEG.ACK is RCV.NXT; so segments are judged by that, and what lies between is data it may
//! send again, and the program already has.
//!
//! Whether to send is decided here; what else is in the segment is not.

mod paws;
mod reassembly;
mod resume;
mod window;

use bytes::{Buf, Bytes};

pub(super) use self::paws::Paws;
use self::{
    reassembly::{Insertion, Reassembly},
    window::Window,
};
use super::{
    arrival::Arrival,
    byte_queue::ByteQueue,
    config::{Acknowledge, Config},
    negotiation::{Negotiated, timestamp_before},
    outcome::{AcknowledgeError, Drop},
};
use crate::{
    seq::Seq,
    time::Time,
    wire::{Flags, SackBlock, SackBlocks},
};

/// The receiving half.
#[derive(Clone, Debug)]
pub(super) struct Receiver {
    pub(super) irs: Seq,
    acknowledged: Seq,
    read: Seq,
    received: Seq,
    /// What the last segment sent acknowledged.
    last_ack_sent: Seq,
    /// Sequence number of the other end's FIN, once everything before it has come.
    fin: Option<Seq>,
    /// The same, as soon as it was seen.
    fin_seen: Option<Seq>,
    /// The program has read the end of the stream.
    end_read: bool,
    queue: ByteQueue,
    ahead: Reassembly,
    pieces_limit: usize,
    window: Window,
    pub(super) paws: Paws,
    policy: Acknowledge,
    /// RCV.UP: urgent data ends here.
    urgent: Option<Seq>,
    /// The latest segment that filled a hole and is not acknowledged: where, and its timestamp.
    filler: Option<(Seq, Paws)>,
    demand: AckDemand,
    duplicate: Option<SackBlock>,
    /// The largest segment seen: the unit of the other end's acknowledgment clock.
    segment_size: u32,
    own_mss: u32,
    sack: bool,
    /// ECN echo is on (RFC 3168, section 6.1.3).
    congestion_echo: bool,
}

/// Whether an acknowledgment is to be sent, and how soon.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum AckDemand {
    None,
    /// It may wait for company.
    Delayed,
    Now,
}

/// What came of a segment's data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Progress {
    /// There is more to read.
    pub(super) readable: bool,
    /// The other end's FIN is in order.
    pub(super) finished: bool,
    /// Something was not taken.
    pub(super) dropped: Option<Drop>,
}

impl Receiver {
    pub(super) fn new(config: &Config, irs: Seq, agreed: &Negotiated) -> Self {
        let start = irs + 1;
        let window =
            Window::new(start, agreed.receive_scale, config.receive_buffer, config.withheld_limit);
        let mut receiver = Receiver {
            irs,
            acknowledged: start,
            read: start,
            received: start,
            last_ack_sent: start,
            fin: None,
            fin_seen: None,
            end_read: false,
            queue: ByteQueue::default(),
            ahead: Reassembly::default(),
            pieces_limit: config.reassembly_pieces.into(),
            window,
            paws: Paws::default(),
            policy: config.acknowledge,
            urgent: None,
            filler: None,
            demand: AckDemand::None,
            duplicate: None,
            segment_size: 0,
            own_mss: agreed.own_mss.into(),
            sack: agreed.sack,
            congestion_echo: false,
        };
        receiver.update_window();
        receiver
    }

    /// SEG.ACK of whatever is sent.
    pub(super) fn acknowledged(&self) -> Seq {
        self.acknowledged
    }

    /// RCV.NXT: the first sequence number that has not come.
    pub(super) fn received(&self) -> Seq {
        self.received
    }

    /// The first byte that was not read.
    pub(super) fn read_up_to(&self) -> Seq {
        self.read
    }

    /// The other end's FIN was received, and is acknowledged.
    pub(super) fn end_acknowledged(&self) -> bool {
        self.fin.is_some_and(|fin| fin.before(self.acknowledged))
    }

    /// The other end's FIN was received in order.
    pub(super) fn finished(&self) -> bool {
        self.fin.is_some()
    }

    /// Bytes that wait to be read.
    pub(super) fn unread(&self) -> usize {
        self.queue.len()
    }

    /// Bytes, read or not, that are not acknowledged.
    pub(super) fn withheld(&self) -> u32 {
        self.received.distance(self.acknowledged)
    }

    pub(super) fn demand(&self) -> AckDemand {
        self.demand
    }

    pub(super) fn ask_for_ack(&mut self, demand: AckDemand) {
        self.demand = self.demand.max(demand);
    }

    /// Whether a segment lies in what the other end may send (RFC 9293, section 3.10.7.4; an end
    /// below the window or a start at its right edge still count, as is needed for
    /// acknowledgments while the window is closed).
    pub(super) fn is_acceptable(&self, segment: &Arrival) -> bool {
        let inside = !segment.end().before(self.acknowledged);
        let empty_or_reaching = segment.len() == 0 || segment.end().after(self.acknowledged);
        inside && empty_or_reaching && segment.seq.at_or_before(self.window.shown)
    }

    /// Whether a reset has exactly a sequence number at which the other end can stand (RFC 5961,
    /// section 3.2). There are more than one while acknowledgments are withheld: its SND.NXT, or
    /// what it was told is RCV.NXT.
    pub(super) fn is_exact(&self, seq: Seq) -> bool {
        seq == self.acknowledged || seq == self.received || Some(seq) == self.ahead.end()
    }

    /// Takes over the timestamp of an acceptable segment, now or when what it brings is
    /// acknowledged.
    ///
    /// What fills a hole while the bytes before are withheld must not be acknowledged with an older
    /// timestamp than its own: the other end would take the loss that it has repaired for none (RFC
    /// 7323, section 4.3, case C; RFC 3522).
    pub(super) fn note_timestamp(&mut self, now: Time, segment: &Arrival) {
        let Some(timestamps) = segment.options.timestamps else { return };
        self.paws.update(now, timestamps, segment.seq, self.last_ack_sent);
        let fills = !self.ahead.is_empty()
            && segment.seq.at_or_before(self.received)
            && segment.end().after(self.received);
        if fills && segment.seq.after(self.last_ack_sent) {
            self.filler = Some((self.received, Paws::start(timestamps.value, now)));
        }
    }

    /// Takes the data and the FIN of an acceptable segment.
    pub(super) fn take(&mut self, segment: &Arrival) -> Progress {
        let mut progress = Progress::default();
        if segment.len() == 0 {
            return progress;
        }
        self.note_congestion(segment);
        let start = segment.seq + u32::from(segment.has(Flags::SYN));
        if !segment.payload.is_empty() {
            let size = u32::from(segment.segment_size).min(segment.payload.len() as u32);
            self.segment_size = self.segment_size.max(size.min(self.own_mss));
            self.take_data(start, segment.payload.clone(), &mut progress);
        }
        if segment.has(Flags::FIN) {
            self.note_fin(start + segment.payload.len() as u32, &mut progress);
        }
        self.complete_fin(&mut progress);
        self.release_automatically();
        self.update_window();
        progress
    }

    fn take_data(&mut self, mut start: Seq, mut data: Bytes, progress: &mut Progress) {
        let end = start + data.len() as u32;
        if start.before(self.received) {
            let known = self.received.distance(start).min(data.len() as u32);
            self.note_duplicate(start, start + known);
            data.advance(known as usize);
            start += known;
        }
        let limit = self.fin_seen.filter(|fin| fin.before(self.window.shown));
        let limit = limit.unwrap_or(self.window.shown);
        if end.after(limit) {
            let beyond = end.distance(limit) as usize;
            data.truncate(data.len().saturating_sub(beyond));
            progress.dropped =
                Some(if self.fin_seen.is_some() { Drop::AfterEnd } else { Drop::NoRoom });
            self.ask_for_ack(AckDemand::Now);
        }
        if data.is_empty() {
            return;
        }
        // Part of it has come before (RFC 2883, section 4.1).
        if let Some(overlap) = self.ahead.overlap(start, start + data.len() as u32)
            && self.duplicate.is_none()
        {
            self.note_duplicate(overlap.start, overlap.end);
        }
        if start == self.received {
            self.append(data);
            self.drain_ahead();
            progress.readable = true;
        } else {
            self.hold(start, data, progress);
        }
    }

    /// Whether the byte at `seq` is held, behind a gap.
    pub(super) fn is_ahead(&self, seq: Seq) -> bool {
        self.ahead.block_at(seq).is_some()
    }

    fn append(&mut self, data: Bytes) {
        self.received += data.len() as u32;
        self.queue.push(data);
    }

    /// What was held and follows now. Filling a hole is told at once (RFC 5681, section 4.2).
    fn drain_ahead(&mut self) {
        if self.ahead.is_empty() {
            return;
        }
        while let Some(piece) = self.ahead.pop(self.received) {
            self.append(piece);
        }
        self.ahead.forget_before(self.received);
        self.ask_for_ack(AckDemand::Now);
    }

    fn hold(&mut self, start: Seq, data: Bytes, progress: &mut Progress) {
        match self.ahead.insert(start, data, self.pieces_limit) {
            Insertion::Held | Insertion::Duplicate => {}
            Insertion::NoRoom => progress.dropped = Some(Drop::NoRoom),
        }
        // Without SACK a duplicate acknowledgment says: send me what begins here. While that is
        // withheld and not missing, it would be wrong.
        if self.sack || self.acknowledged == self.received {
            self.ask_for_ack(AckDemand::Now);
        }
    }

    fn note_duplicate(&mut self, start: Seq, end: Seq) {
        self.duplicate = Some(SackBlock { start, end });
        self.ask_for_ack(AckDemand::Now);
    }

    fn note_fin(&mut self, fin: Seq, progress: &mut Progress) {
        if fin.before(self.received) || self.fin.is_some() {
            self.ask_for_ack(AckDemand::Now);
        } else if fin.after(self.window.shown) || self.ahead.end().is_some_and(|end| end.after(fin))
        {
            progress.dropped = Some(Drop::NoRoom);
        } else {
            self.fin_seen.get_or_insert(fin);
        }
    }

    fn complete_fin(&mut self, progress: &mut Progress) {
        if self.fin.is_none() && self.fin_seen == Some(self.received) {
            self.fin = self.fin_seen;
            self.received += 1;
            self.ahead.clear();
            progress.finished = true;
            progress.readable = true;
        }
    }

    /// ECN (RFC 3168, section 6.1.3): the echo lasts until the other end says that it has reduced
    /// its window.
    fn note_congestion(&mut self, segment: &Arrival) {
        if segment.has(Flags::CWR) {
            self.congestion_echo = false;
        }
        if segment.congestion_experienced && !segment.payload.is_empty() {
            self.congestion_echo = true;
            self.ask_for_ack(AckDemand::Now);
        }
    }

    pub(super) fn congestion_echo(&self) -> bool {
        self.congestion_echo
    }

    /// Takes over the urgent pointer (RFC 9293, section 3.8.5). Gives whether it is news.
    pub(super) fn note_urgent(&mut self, segment: &Arrival) -> bool {
        let Some(pointer) = segment.urgent else { return false };
        let end = segment.seq + u32::from(pointer);
        let news = end.after(self.urgent.unwrap_or(self.read).later(self.read));
        if news {
            self.urgent = Some(end);
        }
        news
    }

    /// How many bytes from the next one read on are urgent.
    pub(super) fn urgent(&self) -> u32 {
        self.urgent.filter(|end| end.after(self.read)).map_or(0, |end| end.distance(self.read))
    }

    /// The next bytes, `max` at most.
    pub(super) fn read(&mut self, max: usize) -> Option<Bytes> {
        let data = self.queue.pop(max)?;
        self.read += data.len() as u32;
        self.urgent = self.urgent.filter(|end| end.after(self.read));
        self.after_read();
        Some(data)
    }

    /// The end of the stream, if it is next.
    pub(super) fn read_end(&mut self) -> bool {
        let at_end = self.fin == Some(self.read);
        if at_end && !self.end_read {
            self.end_read = true;
            self.after_read();
        }
        self.end_read
    }

    fn after_read(&mut self) {
        self.release_automatically();
        self.announce_room();
    }

    /// The program acknowledges `count` bytes that it has read.
    pub(super) fn acknowledge(&mut self, count: u32) -> Result<(), AcknowledgeError> {
        self.require_explicit()?;
        let outstanding = self.read.distance(self.acknowledged.earlier(self.read));
        if count > outstanding {
            return Err(AcknowledgeError::BeyondRead { outstanding });
        }
        if count > 0 {
            self.acknowledged += count;
            self.demand = AckDemand::Now;
            self.release_timestamp();
            self.update_window();
        }
        Ok(())
    }

    fn release_timestamp(&mut self) {
        if let Some((_, paws)) = self.filler.filter(|(at, _)| at.before(self.acknowledged)) {
            self.filler = None;
            if timestamp_before(self.paws.recent, paws.recent) {
                self.paws = paws;
            }
        }
    }

    /// The program acknowledges the end of the stream. Again is no error.
    pub(super) fn acknowledge_end(&mut self) -> Result<(), AcknowledgeError> {
        self.require_explicit()?;
        if self.end_acknowledged() {
            return Ok(());
        }
        if !self.end_read || self.fin != Some(self.acknowledged) {
            return Err(AcknowledgeError::NotAtEnd);
        }
        self.acknowledged += 1;
        self.demand = AckDemand::Now;
        Ok(())
    }

    fn require_explicit(&self) -> Result<(), AcknowledgeError> {
        match self.policy {
            Acknowledge::Explicitly => Ok(()),
            _ => Err(AcknowledgeError::Automatic),
        }
    }

    /// The program has gone: what still comes is acknowledged as it comes.
    pub(super) fn acknowledge_from_now_on(&mut self) {
        self.policy = Acknowledge::OnReceipt;
        self.release_automatically();
    }

    /// The other end's FIN came: it is acknowledged at once, unless it is withheld.
    pub(super) fn ask_for_ack_of_end(&mut self) {
        if self.end_acknowledged() {
            self.ask_for_ack(AckDemand::Now);
        }
    }

    /// A segment came that lies before what is acknowledged: its copy is reported (RFC 2883).
    pub(super) fn note_old(&mut self, segment: &Arrival) {
        let end = segment.seq + segment.payload.len() as u32;
        if !segment.payload.is_empty() && end.at_or_before(self.acknowledged) {
            self.duplicate = Some(SackBlock { start: segment.seq, end });
        }
    }

    /// What the connection acknowledges without being told.
    fn release_automatically(&mut self) {
        let target = match self.policy {
            Acknowledge::Explicitly => return,
            Acknowledge::OnReceipt => self.received,
            Acknowledge::OnRead if self.end_read => self.received,
            Acknowledge::OnRead => self.read,
        };
        if !target.after(self.acknowledged) {
            return;
        }
        self.acknowledged = target;
        self.release_timestamp();
        // Every second full segment (RFC 9293, SHLD-19), and a FIN at once.
        let untold = self.acknowledged.distance(self.last_ack_sent);
        let much = untold >= 2 * self.segment_size.max(1);
        self.ask_for_ack(if much || self.finished() { AckDemand::Now } else { AckDemand::Delayed });
    }

    /// The other end is told of room when that matters to it.
    fn announce_room(&mut self) {
        let mss = self.own_mss;
        if self.window.wants_update(self.read, self.acknowledged, self.received, mss) {
            self.ask_for_ack(AckDemand::Now);
        }
        self.update_window();
    }

    /// The window's right edge may not lie beyond `edge`. The other end is told when it may send
    /// more and has not much left.
    pub(super) fn limit_window(&mut self, edge: Seq) {
        self.window.limit_to(edge);
        self.announce_room();
    }

    pub(super) fn update_window(&mut self) {
        self.window.update(self.read, self.acknowledged, self.own_mss);
    }

    /// The window field for what is sent now.
    pub(super) fn window_field(&mut self) -> u16 {
        self.window.field(self.acknowledged)
    }

    /// The window field for a SYN or SYN-ACK.
    pub(super) fn syn_window_field(&mut self) -> u16 {
        self.window.syn_field(self.acknowledged)
    }

    /// A segment with the acknowledgment leaves.
    pub(super) fn acknowledgment_sent(&mut self) {
        self.last_ack_sent = self.acknowledged;
        self.demand = AckDemand::None;
        self.duplicate = None;
    }

    /// The SACK blocks for what is sent now (RFC 2018, section 4; RFC 2883).
    ///
    /// Once there is a hole, what is withheld in front of it is told as well, except for its first
    /// segment: a sender takes what is below a block and not in one for lost, and a block that
    /// begins at SEG.ACK is ignored. Without a hole nothing is told of it, for the same reason.
    ///
    /// There are `most` at most: what has room beside the other options.
    pub(super) fn sack_blocks(&self, most: usize) -> SackBlocks {
        let mut blocks = SackBlocks::default();
        if !self.sack {
            return blocks;
        }
        let withheld = self.withheld_block();
        if let Some(duplicate) = self.duplicate {
            self.push_duplicate(&mut blocks, duplicate, withheld);
        }
        let mut push = |block: SackBlock| {
            let room = blocks.as_slice().len() < most;
            if room && !blocks.as_slice().iter().skip(1).any(|known| *known == block) {
                blocks.push(block);
            }
        };
        let mut ahead = self.ahead.blocks();
        ahead.next().into_iter().chain(withheld).chain(ahead).for_each(&mut push);
        blocks
    }

    /// The duplicate, if the other end can tell that it is one: it lies below SEG.ACK, or in the
    /// block that follows (RFC 2883, section 4).
    fn push_duplicate(
        &self,
        blocks: &mut SackBlocks,
        duplicate: SackBlock,
        withheld: Option<SackBlock>,
    ) {
        if duplicate.end.at_or_before(self.acknowledged) {
            blocks.push(duplicate);
            return;
        }
        let around = [self.ahead.block_at(duplicate.start), withheld];
        let contains = |around: &SackBlock| {
            around.start.at_or_before(duplicate.start) && duplicate.end.at_or_before(around.end)
        };
        if let Some(around) = around.into_iter().flatten().find(contains) {
            blocks.push(duplicate);
            blocks.push(around);
        }
    }

    fn withheld_block(&self) -> Option<SackBlock> {
        let start = self.acknowledged + self.segment_size.max(1);
        let told = !self.ahead.is_empty() && start.before(self.received);
        told.then_some(SackBlock { start, end: self.received })
    }

    /// Whether everything is as it must be: for `debug_assert!`.
    pub(super) fn is_consistent(&self) -> bool {
        let unread = self.queue.len() as u32 + u32::from(self.finished());
        self.acknowledged.at_or_before(self.received)
            && self.read.at_or_before(self.received)
            && self.received.distance(self.read) == unread
            && self.last_ack_sent.at_or_before(self.acknowledged)
            && self.window.granted().distance(self.window.shown) as i32 > -(1 << 30)
    }
}
