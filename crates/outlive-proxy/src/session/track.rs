//! What a node has seen of a session's two streams: enough to tell a forged segment from a real one and to
//! know when the session is over. Never needed to translate, and not replicated: a node that takes over
//! learns it from the first segments.

use outlive_tcp::{
    fault::{self, Fault},
    seq::Seq,
};

use super::record::Record;
use crate::{
    fast_path::{PROGRESS_SHIFT, StreamProgress},
    flows::Side,
};

/// One stream, in the sequence space of the end that sends it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stream {
    /// Highest acknowledgment that was passed to the sender.
    pub(crate) acked: Seq,
    /// Highest right edge of the window that was passed to it.
    pub(crate) edge: Seq,
    /// End of the highest segment that it sent.
    pub(crate) next: Seq,
    /// Sequence number of its FIN.
    fin: Seq,
    /// Bytes acknowledged since this node first saw the stream.
    bytes: Count,
    facts: Facts,
}

/// A 64-bit number without the alignment of one: there are two for each session.
#[derive(Clone, Copy, Debug, Default)]
struct Count([u32; 2]);

impl Count {
    fn of(number: u64) -> Self {
        Count([(number >> 32) as u32, number as u32])
    }

    fn value(self) -> u64 {
        u64::from(self.0[0]) << 32 | u64::from(self.0[1])
    }
}

/// What is known of a stream, a bit for each.
#[derive(Clone, Copy, Debug, Default)]
struct Facts(u8);

/// `acked` and `edge` mean something.
const KNOWN: u8 = 1;
/// They have been followed since the handshake; else they are what some segment said.
const CERTAIN: u8 = 1 << 1;
/// `fin` is what a segment said before anything was known.
const FIN_CLAIMED: u8 = 1 << 2;
const FIN_SEEN: u8 = 1 << 3;
const FIN_ACKED: u8 = 1 << 4;
const CHALLENGED: u8 = 1 << 5;

impl Facts {
    fn has(self, fact: u8) -> bool {
        self.0 & fact != 0
    }

    fn set(&mut self, fact: u8, is: bool) {
        self.0 = if is { self.0 | fact } else { self.0 & !fact };
    }

    fn add(&mut self, fact: u8, is: bool) {
        self.set(fact, is || self.has(fact));
    }
}

impl Stream {
    /// A stream whose end has sent its SYN with `isn`.
    pub(crate) fn new(isn: Seq) -> Self {
        let next = isn + 1;
        Stream { acked: next, edge: next, next, ..Stream::default() }
    }

    /// The sender sent `len` bytes at `seq`, with a FIN behind them if `fin`.
    pub(crate) fn sent(&mut self, seq: Seq, len: u32, fin: bool) {
        let at = seq + len;
        let end = at + u32::from(fin);
        // Nobody sends further than the right edge (and one byte of a window probe, and a FIN).
        if !self.facts.has(KNOWN) || end.at_or_before(self.edge + 2) {
            self.next = self.next.later(end);
        }
        // A FIN beyond the window, or below what is acknowledged, is not the sender's. Where the window
        // lies may have to be learnt first: see `acknowledged`.
        let plausible = self.acked.at_or_before(at) && at.at_or_before(self.edge);
        if fin
            && !fault::on(Fault::ForgetFin)
            && !self.facts.has(FIN_SEEN)
            && (plausible || !self.facts.has(KNOWN))
        {
            self.fin = at;
            self.facts.set(FIN_SEEN, self.facts.has(KNOWN));
            self.facts.set(FIN_CLAIMED, !self.facts.has(KNOWN));
        }
    }

    /// The receiver acknowledged everything before `ack` and offered `window` bytes.
    pub(crate) fn acknowledged(&mut self, ack: Seq, window: u32) -> News {
        let progressed = self.crossed(ack);
        let fits = self.acked.at_or_before(ack) && ack.at_or_before(self.edge.later(self.next));
        // Whoever's segment came first after a takeover may have lied: until the truth is certain, the next one
        // that contradicts it is believed.
        if !self.facts.has(KNOWN) || !fits && !self.facts.has(CERTAIN) {
            self.facts.set(KNOWN, true);
            (self.acked, self.edge) = (ack, ack + window);
            // What seemed to be sent before may have been anybody's.
            if self.next.before(ack) || self.next.after(self.edge + 2) {
                self.next = ack;
            }
            // A FIN that came before the first acknowledgment (which may be the FIN's own) is the sender's
            // if it lies in the window that is known now.
            let plausible = ack.at_or_before(self.fin + 1) && self.fin.at_or_before(self.edge);
            self.facts.add(FIN_SEEN, self.facts.has(FIN_CLAIMED) && plausible);
            self.facts.set(FIN_CLAIMED, false);
        } else if fits {
            self.bytes = Count::of(self.bytes() + u64::from(ack.distance(self.acked)));
            self.acked = ack;
            self.edge = self.edge.later(ack + window);
        } else {
            return News::default();
        }
        let fin_acked =
            self.facts.has(FIN_SEEN) && !self.facts.has(FIN_ACKED) && ack.after(self.fin);
        self.facts.add(FIN_ACKED, fin_acked);
        News { fin_acked, progressed }
    }

    /// The other node says that the stream was acknowledged up to `position`.
    pub(crate) fn move_to(&mut self, position: Seq) {
        self.acked = position;
        self.next = position;
        self.facts.set(KNOWN, false);
    }

    /// Whether the receiver looks at a segment of `len` bytes at `seq` at all (RFC 9293, section 3.10.7.4): it
    /// does not at what ends before all that was acknowledged, or begins beyond the window.
    pub(crate) fn accepts(&self, seq: Seq, len: u32) -> bool {
        !self.facts.has(KNOWN)
            || self.acked.at_or_before(seq + len)
                && seq.at_or_before(self.edge.later(self.next) + 1)
    }

    /// Whether something that the sender has said before `seq` was not seen here.
    pub(crate) fn has_gap_before(&self, seq: Seq) -> bool {
        seq.after(self.next)
    }

    /// Whether `seq` lies in the window that the sender was last shown.
    pub(crate) fn in_window(&self, seq: Seq) -> bool {
        self.facts.has(KNOWN) && self.acked.at_or_before(seq) && seq.at_or_before(self.edge)
    }

    /// Whether a reset at `seq` is one that the receiver will believe: it must stand at the next byte that
    /// the receiver expects (RFC 5961, section 3.2), which is what was acknowledged last, or the end of what
    /// was sent since. Any other within the window is challenged by the receiver, and a sender that meant it
    /// answers the challenge with one that stands there.
    pub(crate) fn is_next(&self, seq: Seq) -> bool {
        self.facts.has(KNOWN) && (seq == self.acked || seq == self.next)
            || self.facts.has(CHALLENGED) && seq == self.acked
    }

    /// The sender was told that it stands at `acked`, because it said SYN: if it has forgotten the connection
    /// it answers with a reset there (RFC 5961, section 4), and is to be believed even if nothing else is
    /// known of the stream.
    pub(crate) fn challenge(&mut self) -> Seq {
        self.facts.set(CHALLENGED, true);
        self.acked
    }

    /// Somebody else may have followed the stream further: the next that contradicts what is known is believed.
    fn doubt(&mut self) {
        self.facts.set(CERTAIN, false);
    }

    /// The other node says that the stream is complete.
    pub(crate) fn finish(&mut self) {
        self.facts.set(FIN_SEEN, true);
        self.facts.set(FIN_ACKED, true);
    }

    /// What the fast path has to know; `None` as long as nothing is known here.
    pub(crate) fn progress(&self) -> Option<StreamProgress> {
        self.facts.has(KNOWN).then(|| StreamProgress {
            next: self.next,
            acked: self.acked,
            edge: self.edge,
            fin: self.facts.has(FIN_SEEN).then_some(self.fin),
            fin_acked: self.facts.has(FIN_ACKED),
            bytes: self.bytes(),
        })
    }

    /// A stream that is this far.
    pub(crate) fn of(progress: &StreamProgress) -> Self {
        let mut stream = Stream { facts: Facts(KNOWN | CERTAIN), ..Stream::default() };
        stream.follow(progress);
        stream
    }

    /// Somebody else has seen the stream, too: the further counts.
    pub(crate) fn raise(&mut self, further: &StreamProgress) {
        self.next = self.next.later(further.next);
        self.acked = self.acked.later(further.acked);
        self.edge = self.edge.later(further.edge);
        if let Some(fin) = further.fin.filter(|_| !self.facts.has(FIN_SEEN)) {
            self.fin = fin;
            self.facts.add(FIN_SEEN, true);
        }
        self.facts.add(FIN_ACKED, further.fin_acked);
        self.bytes = Count::of(self.bytes().max(further.bytes));
    }

    /// The fast path has followed the stream to here.
    pub(crate) fn follow(&mut self, progress: &StreamProgress) -> News {
        let news = News {
            fin_acked: progress.fin_acked && !self.facts.has(FIN_ACKED),
            progressed: self.crossed(progress.acked),
        };
        (self.next, self.acked, self.edge) = (progress.next, progress.acked, progress.edge);
        self.facts.add(FIN_SEEN, progress.fin.is_some());
        self.fin = progress.fin.unwrap_or(self.fin);
        self.facts.add(FIN_ACKED, progress.fin_acked);
        self.bytes = Count::of(progress.bytes);
        news
    }

    /// Whether the standby has to be told that `acked` is `to` now.
    fn crossed(&self, to: Seq) -> bool {
        (self.acked.0 ^ to.0) >> PROGRESS_SHIFT != 0
    }

    /// Whether it is known how far it is.
    pub(crate) fn is_known(&self) -> bool {
        self.facts.has(KNOWN)
    }

    /// Whether that has been followed since the handshake.
    pub(crate) fn is_certain(&self) -> bool {
        self.facts.has(CERTAIN)
    }

    /// Bytes acknowledged since this node first saw the stream.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.value()
    }

    /// Whether the sender has sent a FIN and got it acknowledged.
    pub(crate) fn finished(&self) -> bool {
        self.facts.has(FIN_ACKED)
    }
}

/// What somebody else has to be told of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Its FIN was acknowledged, for the first time.
    pub(crate) fin_acked: bool,
    /// It has come so far that the standby has to know.
    pub(crate) progressed: bool,
}

/// Both streams of a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streams {
    client: Stream,
    server: Stream,
}

impl Streams {
    pub(crate) fn new(client_isn: Seq, server_isn: Seq) -> Self {
        Streams { client: Stream::new(client_isn), server: Stream::new(server_isn) }
    }

    /// Streams of a session that has just been established: both ends' SYNs are acknowledged, and their
    /// first windows, in bytes, known.
    pub(crate) fn established(record: &Record, client_window: u32, server_window: u32) -> Self {
        let mut streams = Streams::new(record.client.end_isn, record.server.end_isn);
        let client = streams.client.acked;
        streams.client.acknowledged(client, server_window);
        let server = streams.server.acked;
        streams.server.acknowledged(server, client_window);
        streams.client.facts.set(CERTAIN, true);
        streams.server.facts.set(CERTAIN, true);
        streams
    }

    /// The stream that `side` sends.
    pub(crate) fn sent_by(&self, side: Side) -> &Stream {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    /// Likewise.
    pub(crate) fn sent_by_mut(&mut self, side: Side) -> &mut Stream {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    /// Somebody else may have followed both further.
    pub(crate) fn doubt(&mut self) {
        self.client.doubt();
        self.server.doubt();
    }

    /// Both, the client's first, as the fast path has to know them.
    pub(crate) fn progress(&self) -> Option<[StreamProgress; 2]> {
        Some([self.client.progress()?, self.server.progress()?])
    }

    /// Both ends have closed, and both know it.
    pub(crate) fn finished(&self) -> bool {
        self.client.finished() && self.server.finished()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fin_counts_when_it_is_acknowledged() {
        let mut stream = Stream::new(Seq(u32::MAX - 3));
        assert!(!stream.acknowledged(Seq(u32::MAX - 2), 1_000).fin_acked);
        stream.sent(Seq(u32::MAX - 2), 10, true);
        assert!(!stream.acknowledged(Seq(7), 1_000).fin_acked, "the data, not the FIN");
        assert!(stream.acknowledged(Seq(8), 1_000).fin_acked);
        assert!(stream.finished());
        assert!(!stream.acknowledged(Seq(8), 1_000).fin_acked, "only once");
        assert_eq!(stream.bytes(), 11);
    }

    /// A session whose handshake this node has seen: its streams are certain.
    fn certain(isn: u32) -> Stream {
        Stream { facts: Facts(CERTAIN), ..Stream::new(Seq(isn)) }
    }

    #[test]
    fn what_was_learnt_after_a_takeover_is_unlearnt_when_it_is_contradicted() {
        let mut stream = Stream::new(Seq(1_000));
        stream.acknowledged(Seq(3_000_000_000), 500);
        stream.sent(Seq(2_001), 100, true);
        stream.acknowledged(Seq(2_001), 500);
        assert_eq!((stream.acked, stream.edge, stream.bytes()), (Seq(2_001), Seq(2_501), 0));
        stream.sent(Seq(2_001), 100, true);
        assert!(stream.acknowledged(Seq(2_102), 500).fin_acked);
    }

    #[test]
    fn a_forged_fin_or_acknowledgment_has_no_effect() {
        let mut stream = certain(1_000);
        stream.acknowledged(Seq(1_001), 500);
        stream.sent(Seq(9_000), 0, true);
        stream.sent(Seq(900), 0, true);
        assert!(!stream.acknowledged(Seq(70_000), 500).fin_acked);
        assert!(!stream.acknowledged(Seq(900), 500).fin_acked);
        assert_eq!((stream.acked, stream.edge), (Seq(1_001), Seq(1_501)));
        assert!(stream.is_next(Seq(1_001)));
        assert!(!stream.is_next(Seq(1_000)) && !stream.is_next(Seq(1_002)));
        stream.sent(Seq(1_001), 100, false);
        assert!(stream.is_next(Seq(1_001)) && stream.is_next(Seq(1_101)));
        assert!(!stream.is_next(Seq(1_050)) && !stream.is_next(Seq(1_501)));
    }

    #[test]
    fn what_stands_outside_the_window_is_not_looked_at() {
        let mut stream = Stream::new(Seq(u32::MAX - 100));
        assert!(stream.accepts(Seq(77), 0), "nothing is known yet");
        stream.acknowledged(Seq(u32::MAX - 50), 500);
        stream.sent(Seq(u32::MAX - 50), 200, false);
        for (seq, len) in [(u32::MAX - 50, 0), (u32::MAX - 50, 200), (u32::MAX - 90, 60), (449, 9)]
        {
            assert!(stream.accepts(Seq(seq), len), "{seq} {len}");
        }
        for (seq, len) in [(u32::MAX - 51, 0), (u32::MAX - 90, 30), (452, 0), (1 << 31, 9)] {
            assert!(!stream.accepts(Seq(seq), len), "{seq} {len}");
        }
    }

    /// After a takeover: a segment that anybody may have sent must not become the place at which a reset is
    /// believed.
    #[test]
    fn what_was_sent_before_the_window_is_known_has_to_fit_it() {
        let mut stream = Stream::new(Seq(1_000));
        stream.sent(Seq(500_000), 1, false);
        stream.acknowledged(Seq(9_000), 500);
        assert!(!stream.is_next(Seq(500_001)));
        assert!(stream.is_next(Seq(9_000)));

        let mut its_own = Stream::new(Seq(1_000));
        its_own.sent(Seq(9_000), 200, false);
        its_own.acknowledged(Seq(9_000), 500);
        assert!(its_own.is_next(Seq(9_200)));
    }

    #[test]
    fn a_fin_that_comes_before_the_first_acknowledgment_counts() {
        let mut stream = Stream::new(Seq(1_000));
        stream.sent(Seq(70_000), 500, true);
        assert!(!stream.acknowledged(Seq(70_000), 900).fin_acked);
        assert!(stream.acknowledged(Seq(70_501), 900).fin_acked);

        let mut its_own = Stream::new(Seq(1_000));
        its_own.sent(Seq(70_000), 500, true);
        assert!(its_own.acknowledged(Seq(70_501), 900).fin_acked);

        let mut forged = Stream::new(Seq(1_000));
        forged.sent(Seq(60_000), 0, true);
        assert!(!forged.acknowledged(Seq(70_000), 900).fin_acked);
        assert!(!forged.finished());
    }

    #[test]
    fn the_answer_to_a_challenge_is_believed() {
        let mut stream = Stream::new(Seq(1_000));
        let position = stream.challenge();
        assert!(stream.is_next(position));
        assert!(!stream.is_next(position + 1) && !stream.is_next(position - 1));
    }

    #[test]
    fn nothing_is_believed_of_a_stream_that_was_not_seen() {
        let mut stream = Stream::new(Seq(1_000));
        assert!(!stream.is_next(Seq(1_001)));
        stream.acknowledged(Seq(77_000), 500);
        assert!(stream.is_next(Seq(77_000)));
        assert_eq!(stream.bytes(), 0);
    }
}
