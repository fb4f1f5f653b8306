//! Two connections joined: what one end says goes to the other, and is acknowledged when the other has
//! acknowledged it.
//!
//! Nothing here knows of nodes or standbys. The caller hands in segments, calls [`Joined::pump`], fetches what the two
//! connections want sent, and decides when the end of a stream may be passed on ([`Joined::pass_end`]).

use bytes::Bytes;
use outlive_tcp::{
    endpoint::{Config, Connection, End, Event, Midstream, Negotiated, Read, State},
    fault::{self, Fault},
    seq::Seq,
    time::Time,
};

use crate::{
    flows::Side,
    session::record::{Leg, Record},
};

pub(super) const SIDES: [Side; 2] = [Side::Client, Side::Server];

/// What an end has said of itself after a takeover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// What it will send next, or the end of something that it has sent.
    pub(super) seq: Seq,
    /// Which of the two.
    pub(super) next: bool,
    /// What it has received.
    pub(super) ack: Seq,
    /// Its window, in bytes.
    pub(super) window: u32,
    /// Its clock, if it uses timestamps.
    pub(super) timestamp: u32,
}

/// Where the end of a stream is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It has not come.
    Open,
    /// It has, and waits for leave to go on.
    Waits,
    /// It was passed on, or will be as soon as it comes.
    Passes,
}

/// How the two connections ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Both streams came to their ends, and both ends know.
    Finished,
    /// One connection ended otherwise; the other has been reset.
    Broken(Side, End),
}

/// A client's and a server's connection.
#[derive(Debug)]
pub(super) struct Joined {
    client: Connection,
    server: Connection,
    /// By whose stream it is: from its sender's sequence numbers to the receiver's.
    shift: [u32; 2],
    endings: [Ending; 2],
}

impl Joined {
    /// Joins two connections that have just been opened.
    pub(super) fn new(record: &Record, client: Connection, server: Connection) -> Self {
        Joined {
            client,
            server,
            shift: SIDES.map(|side| shift(record, side)),
            endings: [Ending::Open; 2],
        }
    }

    /// Sends the server what comes before the client's first byte; before any of those is passed on.
    pub(super) fn insert(&mut self, prefix: &[u8]) {
        if !prefix.is_empty() {
            // There is room: nothing was written before. It can fail only if the server is gone, which shows.
            let _ = self.server.write(Bytes::copy_from_slice(prefix));
        }
    }

    /// Goes on where the ends have said that they are. `None` if they contradict each other, or the record: one of
    /// the reports is old, or a stranger's.
    ///
    /// What an end has received is acknowledged to the other: it has no use for it any more, and no node has to hold
    /// it. What it has not received is still with the other, for no node has acknowledged it.
    pub(super) fn resumed(now: Time, at: &Resumption<'_>) -> Option<Self> {
        let record = at.record;
        let start = |side: Side| record.leg(side).end_isn + 1;
        let shifts = SIDES.map(|side| shift(record, side));
        let mut prefix: &[u8] = &[];
        // By whose stream it is: how far it has come, in its sender's numbers.
        let mut passed =
            SIDES.map(|side| at.reports[side.other() as usize].ack - shifts[side as usize]);
        if passed[0].before(start(Side::Client)) && !at.prefix.is_empty() {
            let missing = start(Side::Client).distance(passed[0]) as usize;
            prefix = at.prefix.get(at.prefix.len().checked_sub(missing)?..)?;
            passed[0] = start(Side::Client);
        }
        if fault::on(Fault::TerminatedResumedAhead) {
            passed = SIDES.map(|side| at.reports[side as usize].seq);
        }
        if fault::on(Fault::TerminatedPrefixRepeated) {
            prefix = at.prefix;
        }
        for side in SIDES {
            let (said, passed) = (&at.reports[side as usize], passed[side as usize]);
            let reach = reach(record.leg(side));
            // What is sent again may lie before what has arrived.
            let ahead = said.seq.at_or_after(passed) && said.seq.distance(passed) <= reach;
            let again = !said.next && passed.distance(said.seq) <= reach;
            if !ahead && !again {
                return None;
            }
        }
        let ended = SIDES.map(|side| {
            at.endings[side as usize].map(|fin| fin + 1) == Some(passed[side as usize])
        });
        let connection = |side: Side| {
            let (own, other) = (side as usize, side.other() as usize);
            let report = &at.reports[own];
            let room = at.reports[other].ack + at.reports[other].window - shifts[own];
            let leg = record.leg(side);
            let midstream = Midstream {
                tuple: leg.tuple().reversed(),
                negotiated: negotiated(leg, at.mss),
                timestamp: at.timestamp,
                sent: report.ack,
                sent_end: ended[other],
                received: passed[own],
                received_end: ended[own],
                receive_edge: room.earlier(passed[own] + at.config.withheld_limit),
                window: report.window,
                timestamp_recent: report.timestamp,
            };
            Connection::midstream(now, &midstream, at.config)
        };
        let ending = |side: Side| match at.endings[side as usize] {
            Some(_) => Ending::Passes,
            None => Ending::Open,
        };
        let mut joined = Joined {
            client: connection(Side::Client),
            server: connection(Side::Server),
            shift: shifts,
            endings: SIDES.map(ending),
        };
        joined.insert(prefix);
        Some(joined)
    }

    pub(super) fn end(&self, side: Side) -> &Connection {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    pub(super) fn end_mut(&mut self, side: Side) -> &mut Connection {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    /// Passes on whatever can be: bytes, acknowledgments, windows, resets. No end is shown a window of more than `share`
    /// bytes. To be called after every input, before the connections are asked what to send.
    pub(super) fn pump(&mut self, share: u32) {
        for side in SIDES {
            self.pass(side, share);
        }
        for side in SIDES {
            // Silence on one side is no reason to say anything to the other (invariant 5).
            let broken = |end| !matches!(end, End::Finished | End::UserTimeout(_));
            if self.end(side).end().is_some_and(broken) {
                let other = self.end_mut(side.other());
                if other.state() != State::Closed {
                    other.abort();
                }
            }
        }
    }

    fn pass(&mut self, side: Side, share: u32) {
        let shift = self.shift[side as usize];
        let ending = &mut self.endings[side as usize];
        let (from, to) = match side {
            Side::Client => (&mut self.client, &mut self.server),
            Side::Server => (&mut self.server, &mut self.client),
        };
        loop {
            match from.read(to.write_capacity()) {
                // There is as much room, unless the connection is over: then both are.
                Read::Data(data) => drop(to.write(data)),
                Read::End if *ending == Ending::Open => *ending = Ending::Waits,
                Read::End if *ending == Ending::Passes => {
                    to.shutdown();
                    break;
                }
                _ => break,
            }
        }
        let (there, here) = (to.positions(), from.positions());
        let safe = match fault::on(Fault::TerminatedAcknowledgesEarly) {
            true => there.written,
            false => there.sent_acknowledged,
        };
        let passed = (safe - shift).earlier(here.read);
        if passed.after(here.acknowledged) {
            // Not more than was read.
            let _ = from.acknowledge(passed.distance(here.acknowledged));
        }
        let early = fault::on(Fault::TerminatedEndAcknowledgedEarly);
        if *ending == Ending::Passes && (early || there.sent_acknowledged.after(there.written)) {
            // Too early if bytes before it are not acknowledged, and done again then.
            let _ = from.acknowledge_end();
        }
        let room = there.send_edge - shift;
        from.limit_window(room.earlier(from.positions().acknowledged + share));
    }

    /// The stream of `side` has come to its end, which waits for leave to be passed on: its sequence number, in its
    /// sender's numbers.
    pub(super) fn ending(&self, side: Side) -> Option<Seq> {
        let waits = self.endings[side as usize] == Ending::Waits;
        waits.then(|| self.end(side).positions().read)
    }

    /// The end of that stream may be passed on.
    pub(super) fn pass_end(&mut self, side: Side) {
        if self.endings[side as usize] == Ending::Waits {
            self.endings[side as usize] = Ending::Passes;
        }
    }

    /// What each end's stream is acknowledged up to, in its own numbers.
    pub(super) fn acknowledged(&self) -> [Seq; 2] {
        SIDES.map(|side| self.end(side).positions().acknowledged)
    }

    /// The server has acknowledged everything that was put before the client's first byte.
    pub(super) fn prefix_acknowledged(&self, record: &Record) -> bool {
        let first = record.client.end_isn + 1 + self.shift[0];
        self.server.positions().sent_acknowledged.at_or_after(first)
    }

    /// Bytes that are held: received, and not acknowledged.
    pub(super) fn held(&self) -> usize {
        SIDES.iter().map(|side| self.end(*side).withheld() as usize).sum()
    }

    /// Forgets what the connections have to tell; whether an end has acknowledged what was not passed on here, but by a
    /// former node: then only the ends know where the streams stand.
    pub(super) fn drain_events(&mut self) -> bool {
        let mut skipped = false;
        for side in SIDES {
            while let Some(event) = self.end_mut(side).poll_event() {
                skipped |= matches!(event, Event::OutputSkipped(_));
            }
        }
        skipped
    }

    /// Whether both connections are over, and how.
    pub(super) fn over(&self) -> Option<Over> {
        let broken = |side: &Side| match self.end(*side).end() {
            Some(End::Finished | End::Aborted) | None => None,
            Some(end) => Some(Over::Broken(*side, end)),
        };
        if let Some(over) = SIDES.iter().find_map(broken) {
            return Some(over);
        }
        let finished = |side: &Side| {
            let at = self.end(*side).positions();
            at.acknowledged.after(at.read)
        };
        SIDES.iter().all(finished).then_some(Over::Finished)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        SIDES.iter().filter_map(|side| self.end(*side).poll_timeout()).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Time) {
        for side in SIDES {
            self.end_mut(side).handle_timeout(now);
        }
    }
}

/// What is known when the ends have said where they are.
#[derive(Debug)]
pub(super) struct Resumption<'a> {
    pub(super) record: &'a Record,
    /// Put before the client's first byte, and not known to be acknowledged.
    pub(super) prefix: &'a [u8],
    /// Of the client and of the server.
    pub(super) reports: [Report; 2],
    /// Sequence numbers of the FINs that were seen.
    pub(super) endings: [Option<Seq>; 2],
    pub(super) config: Config,
    /// Our own MSS.
    pub(super) mss: u16,
    /// Our clock.
    pub(super) timestamp: u32,
}

/// How far an end can be ahead of what was passed on: the largest window that it can have been shown, whatever the node
/// that showed it was told to hold; and a probe beyond it.
fn reach(leg: &Leg) -> u32 {
    (u32::from(u16::MAX) << leg.own_scale.min(14)) + u32::from(u16::MAX)
}

/// From the sequence numbers of `side`'s stream to those under which it goes on.
pub(super) fn shift(record: &Record, side: Side) -> u32 {
    let (from, to) = (record.leg(side), record.leg(side.other()));
    let prefix = if side == Side::Client { u32::from(record.prefix_len) } else { 0 };
    to.own_isn.distance(from.end_isn).wrapping_add(prefix)
}

/// What the record says of a leg's handshake.
pub(super) fn negotiated(leg: &Leg, mss: u16) -> Negotiated {
    Negotiated {
        peer_mss: leg.mss,
        own_mss: mss,
        send_scale: leg.end_scale,
        receive_scale: leg.own_scale,
        timestamps: leg.timestamps,
        sack: leg.sack,
        ecn: false,
    }
}
