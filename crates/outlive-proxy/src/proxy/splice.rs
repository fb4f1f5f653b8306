//! The packets of a session: translated and passed on.

use std::time::Duration;

use outlive_tcp::{
    fault::{self, Fault},
    segment::Segment,
    time::Time,
    translation::TimestampTranslation,
    wire::{Flags, FourTuple, Options, TcpPacket, Timestamps},
};

use super::{FirstData, Proxy, Verdict};
use crate::{
    counters::Counter,
    event::{End, LogEvent},
    flows::Side,
    opening::SHOWN_SCALE,
    replication::change::Change,
    session::{Phase, Seconds, Session, track::News},
};

/// First repetition of an unacknowledged prefix (RFC 6298, 2.1 allows less than a second where the path is
/// known; these are servers close by).
const PREFIX_TIMEOUT: Duration = Duration::from_millis(200);
const MAX_PREFIX_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes that the node itself put before the client's first, until they are acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Prefix {
    pub(crate) bytes: Vec<u8>,
    pub(crate) repeated: u32,
    /// It has been sent; before, nothing is repeated.
    pub(crate) sent: bool,
}

impl Proxy {
    pub(crate) fn session_packet(
        &mut self,
        now: Time,
        slot: usize,
        side: Side,
        packet: TcpPacket<'_>,
    ) -> Verdict {
        self.catch_up(now, slot);
        let flags = packet.flags();
        let phase = self.sessions[slot].phase;
        if phase == Phase::Unconfirmed {
            return self.withhold(slot, side, &packet);
        }
        if flags.contains(Flags::SYN) {
            return self.session_syn(now, slot, side, &packet);
        }
        if flags.contains(Flags::RST) {
            return self.session_reset(now, slot, side, packet);
        }
        if side == Side::Client && self.begins_anew(now, slot, &packet) {
            self.recycle_session(now, slot);
            return self.stranger(now, &packet);
        }
        if phase.is_over() && fault::on(Fault::DeafAfterTheEnd) {
            return self.drop(Counter::DropForeign);
        }
        if phase == Phase::Answering && !self.client_answered(now, slot, side, &packet) {
            return self.drop(Counter::DropOpening);
        }
        if matches!(phase, Phase::Answering | Phase::Quiet)
            && let Some(verdict) = self.first_data(now, slot, side, &packet)
        {
            return verdict;
        }
        self.pass(now, slot, side, packet)
    }

    /// Whether a segment on a session that is over, or whose end may have been told to nobody, belongs to the
    /// next connection from the same port: a client whose SYN the other node answered with a cookie.
    fn begins_anew(&self, now: Time, slot: usize, packet: &TcpPacket<'_>) -> bool {
        let session = &self.sessions[slot];
        let irs = packet.seq() - 1;
        let over = session.phase.is_over();
        // What was learnt of an inherited session may have been learnt from the new connection.
        let unsure = session.is_inherited() && self.cookies_may_be_the_others(now);
        let fits = over && session.streams.sent_by(Side::Client).in_window(packet.seq());
        let known = fits || irs == session.record.client.end_isn;
        if known || !(over || unsure) || !packet.flags().contains(Flags::ACK) {
            return false;
        }
        let echo = packet.timestamps().map(|t| t.echo);
        let clock = self.clock.millis(now);
        self.keys.check(packet.tuple(), irs, packet.ack() - 1, echo, clock).is_some()
    }

    /// Translates a packet and learns from it what there is to learn.
    fn pass(&mut self, now: Time, slot: usize, side: Side, mut packet: TcpPacket<'_>) -> Verdict {
        let timestamp = self.clock.timestamp(now);
        // Only until then: the same numbers come again every 4 GiB, and are the client's own bytes then.
        let prefix_pending = side == Side::Server && self.prefixes.contains_key(&slot);
        let session = &mut self.sessions[slot];
        session.last_seen = Seconds::of(now);
        // What stands elsewhere is passed on, but nothing is learnt from it: whoever is not on the path could
        // guess an acknowledgment more easily than a place in the window.
        let acceptable = session.streams.sent_by(side).accepts(packet.seq(), packet.payload_len());
        if side == Side::Client
            && acceptable
            && let Some(timestamps) = packet.timestamps()
        {
            session.client_timestamp = timestamps.value;
        }
        let mut translation = session.record.translation(side, timestamp, session.client_timestamp);
        let flags = packet.flags();
        let fin = flags.contains(Flags::FIN);
        session.streams.sent_by_mut(side).sent(packet.seq(), packet.payload_len(), fin);

        let mut news = News::default();
        let mut prefix_done = false;
        if flags.contains(Flags::ACK) {
            let mut ack = packet.ack() + translation.ack_delta;
            if prefix_pending {
                let into = packet.ack().distance(session.prefix_start());
                if into < u32::from(session.record.prefix_len) {
                    ack = session.record.client.end_isn + 1;
                    if !fault::on(Fault::PrefixNotClamped) {
                        translation.ack_floor = Some(ack);
                    }
                } else {
                    prefix_done = acceptable && into < 1 << 31;
                }
            }
            if acceptable {
                let window = u32::from(packet.window()) << session.record.leg(side).end_scale;
                news = session.streams.sent_by_mut(side.other()).acknowledged(ack, window);
            }
        }
        if packet.translate(&translation).is_err() {
            return self.drop(Counter::DropMalformed);
        }
        if session.record.answered {
            // The sender may have been shown a larger MSS than this end announced.
            packet.limit_segments(session.record.segment_limit(side.other()));
        }
        if prefix_done {
            self.prefix_acknowledged(now, slot);
        }
        self.tell(now, slot, side.other(), news);
        self.delegate(now, slot);
        self.forward(&packet)
    }

    /// What was learnt of the stream of `side` and concerns others.
    pub(crate) fn tell(&mut self, now: Time, slot: usize, side: Side, news: News) {
        if news.progressed {
            self.report_progress(slot);
        }
        if news.fin_acked {
            self.half_closed(now, slot, side);
        }
    }

    pub(crate) fn forward(&mut self, packet: &TcpPacket<'_>) -> Verdict {
        self.counters.count(Counter::Forwarded);
        Verdict::Forward { range: packet.range(), offload: packet.offload() }
    }

    /// A segment of a session that a direct listener has answered: whether it may pass. The first
    /// acceptable one of the client completes the handshake.
    fn client_answered(
        &mut self,
        now: Time,
        slot: usize,
        side: Side,
        packet: &TcpPacket<'_>,
    ) -> bool {
        let session = &mut self.sessions[slot];
        // Of a session that was taken over it is not known how far it is.
        let inherited = session.is_inherited();
        if side == Side::Server {
            return inherited;
        }
        let acceptable = packet.flags().contains(Flags::ACK)
            && packet.ack() == session.record.client.own_isn + 1;
        if !inherited && !acceptable {
            return false;
        }
        if let Some(timestamps) = packet.timestamps() {
            session.client_timestamp = timestamps.value;
        }
        let told = session.told;
        self.client_is_there(now, slot);
        // Of an inherited session it is not known whether it arrived.
        if told {
            self.send_prefix(now, slot);
        }
        true
    }

    /// The client of a direct listener has completed its handshake.
    pub(super) fn client_is_there(&mut self, now: Time, slot: usize) {
        let session = &mut self.sessions[slot];
        session.phase = if session.told { Phase::Open } else { Phase::Quiet };
        self.sessions.is_complete(slot);
        self.arm_idle(now, slot);
    }

    /// A SYN or SYN-ACK of a session that exists. (A SYN on one that is over was taken for a new connection
    /// before it came here.)
    fn session_syn(
        &mut self,
        now: Time,
        slot: usize,
        side: Side,
        packet: &TcpPacket<'_>,
    ) -> Verdict {
        let session = &self.sessions[slot];
        let record = &session.record;
        let repeated = packet.seq() == record.leg(side).end_isn;
        match (side, packet.flags().contains(Flags::ACK)) {
            (Side::Client, false) if session.phase.is_over() => {
                self.recycle_session(now, slot);
                return self.stranger(now, packet);
            }
            (Side::Client, false) if repeated && !record.answered => {
                if session.phase == Phase::Answering {
                    self.send_syn_ack(slot);
                }
            }
            (Side::Client, false) if !repeated => self.challenge(slot),
            (Side::Server, true) if repeated && session.phase == Phase::Answering => {
                self.send_syn_ack(slot);
            }
            // Our acknowledgment of it was lost.
            (Side::Server, true) if repeated => {
                if !self.send_prefix(now, slot) {
                    self.send_first(now, slot, Side::Client, &FirstData::default());
                }
            }
            _ => return self.drop(Counter::DropForeign),
        }
        Verdict::Done
    }

    /// RFC 5961, section 4: whoever says SYN on an established connection is told where it stands.
    fn challenge(&mut self, slot: usize) {
        let position = self.sessions[slot].streams.sent_by_mut(Side::Client).challenge();
        let session = &self.sessions[slot];
        let leg = &session.record.client;
        let to_client = session.record.translation(Side::Server, 0, 0);
        let segment = Segment {
            tuple: leg.tuple().reversed(),
            seq: session.streams.sent_by(Side::Server).next + to_client.seq_delta,
            ack: Some(position),
            flags: Flags(0),
            window: 0,
            options: Options::default(),
            payload: &[],
            hop_limit: outlive_tcp::segment::DEFAULT_HOP_LIMIT,
        };
        self.outbox.send(&segment);
    }

    /// A reset. The end judges it; it ends the session here only if the end will believe it.
    fn session_reset(
        &mut self,
        now: Time,
        slot: usize,
        side: Side,
        mut packet: TcpPacket<'_>,
    ) -> Verdict {
        let session = &self.sessions[slot];
        let record = session.record;
        let stream = session.streams.sent_by(side);
        let valid = stream.is_next(packet.seq()) || fault::on(Fault::ResetOutsideBelieved);
        if self.provoked_by_probe(now, slot, side, &packet, valid) {
            return self.drop(Counter::ProbeResets);
        }
        let phase = session.phase;
        if valid && !phase.is_over() {
            self.end_session(now, slot, Phase::Reset(side), End::Reset(side));
        }
        if !valid {
            self.counters.count(Counter::ResetOutside);
        } else if phase == Phase::Answering && side == Side::Server {
            // The client is still in SYN-SENT: it believes only a reset that acknowledges its SYN.
            self.refuse(record.client.tuple(), record.client.end_isn);
            return Verdict::Done;
        }
        let translation = record.translation(side, self.clock.timestamp(now), 0);
        if packet.translate(&translation).is_err() {
            return self.drop(Counter::DropMalformed);
        }
        self.forward(&packet)
    }

    /// This node has seen the session end.
    pub(crate) fn end_session(&mut self, now: Time, slot: usize, phase: Phase, end: End) {
        if !self.set_over(now, slot, phase) {
            return;
        }
        let counter = match phase {
            Phase::Reset(_) => Counter::SessionsReset,
            _ => Counter::SessionsFinished,
        };
        self.counters.count(counter);
        self.report(slot, |client| Change::Ended { client, phase });
        self.log_closed(now, slot, end);
    }

    /// Tells the standby what became of a session, if it was told of it at all.
    pub(crate) fn report(
        &mut self,
        slot: usize,
        change: impl FnOnce(FourTuple) -> Change<'static>,
    ) {
        let session = &self.sessions[slot];
        if session.told {
            self.journal.append(&change(session.tuple(Side::Client)));
        }
    }

    /// The FIN of `side` was acknowledged.
    fn half_closed(&mut self, now: Time, slot: usize, side: Side) {
        let session = &self.sessions[slot];
        if session.phase.is_over() {
            return;
        }
        if session.streams.finished() {
            // The other one's was acknowledged before.
            let first = side.other();
            self.end_session(now, slot, Phase::TimeWait, End::Finished { first });
        } else {
            self.report(slot, |client| Change::HalfClosed { client, side });
        }
    }

    /// The reset was not the end's, or not accepted: the connection goes on.
    pub(crate) fn revive(&mut self, now: Time, slot: usize) {
        let session = &mut self.sessions[slot];
        session.phase = Phase::Open;
        session.told = true;
        let (server, record) = (session.server, session.record);
        self.connection_began(server, record.server.own());
        self.arm_idle(now, slot);
        self.journal.append(&Change::Opened { record: &record, prefix: &[] });
        self.report_progress(slot);
    }

    pub(crate) fn log_closed(&mut self, now: Time, slot: usize, end: End) {
        let session = &self.sessions[slot];
        let event = LogEvent::SessionClosed {
            client: session.record.client.end(),
            listener: session.record.client.own(),
            server: session.record.server.end(),
            end,
            from_client: session.streams.sent_by(Side::Client).bytes(),
            from_server: session.streams.sent_by(Side::Server).bytes(),
            lasted: now.since(session.since.time()),
        };
        self.log(event);
    }

    pub(crate) fn arm_idle(&mut self, now: Time, slot: usize) {
        let deadline = self.idle_deadline(slot, now);
        self.sessions.set_timer(slot, deadline);
    }

    /// Tells the standby where the streams stand (a hint; see [`PROGRESS_SHIFT`](crate::fast_path::PROGRESS_SHIFT)).
    fn report_progress(&mut self, slot: usize) {
        let session = &self.sessions[slot];
        let positions =
            [Side::Client, Side::Server].map(|side| session.streams.sent_by(side).acked);
        self.report(slot, |client| Change::Progress { client, positions });
    }

    fn prefix_acknowledged(&mut self, now: Time, slot: usize) {
        if self.prefixes.remove(&slot).is_some() {
            self.arm_idle(now, slot);
            self.report(slot, |client| Change::PrefixDone { client });
        }
    }

    /// Sends the prefix, if there is one that is not acknowledged, and sets the timer for its repetition.
    pub(crate) fn send_prefix(&mut self, now: Time, slot: usize) -> bool {
        let Some(prefix) = self.prefixes.get_mut(&slot) else { return false };
        let session = &self.sessions[slot];
        if prefix.sent {
            self.counters.count(Counter::PrefixRepeated);
        }
        let timeout = PREFIX_TIMEOUT * 2u32.pow(prefix.repeated.min(6));
        prefix.sent = true;
        prefix.repeated += 1;
        let segment = Segment {
            seq: session.prefix_start(),
            flags: Flags::PSH,
            payload: &prefix.bytes,
            ..segment_to(session, Side::Server)
        };
        self.outbox.send(&segment);
        self.sessions.set_timer(slot, now + timeout.min(MAX_PREFIX_TIMEOUT));
        true
    }

    /// Sends on, in the name of `from`, what that end has said so far, which may be nothing: then only what it
    /// has acknowledged.
    pub(crate) fn send_first(&mut self, now: Time, slot: usize, from: Side, first: &FirstData) {
        let to = from.other();
        let timestamp = self.clock.timestamp(now);
        let session = &self.sessions[slot];
        let size = usize::from(session.record.segment_limit(to));
        let mut plain = segment_to(session, to);
        let recent = session.client_timestamp;
        match (session.record.timestamp_translation(from, timestamp, recent), first.timestamps) {
            (TimestampTranslation::Insert { value, echo }, _) => {
                plain.options.timestamps = Some(Timestamps { value, echo });
            }
            (TimestampTranslation::Shift { value_delta, echo_delta }, Some(said)) => {
                let value = said.value.wrapping_add(value_delta);
                let echo = said.echo.wrapping_add(echo_delta);
                plain.options.timestamps = Some(Timestamps { value, echo });
            }
            _ => {}
        }
        let start = match to {
            Side::Server => plain.seq + u32::from(session.record.prefix_len),
            Side::Client => plain.seq,
        };
        if first.data.is_empty() {
            let flags = if first.fin { Flags::FIN } else { Flags(0) };
            self.outbox.send(&Segment { seq: start, flags, ..plain });
        }
        let count = first.data.len().div_ceil(size);
        for (i, chunk) in first.data.chunks(size).enumerate() {
            let last = i + 1 == count;
            let flags = match (last, first.fin) {
                (true, true) => Flags::PSH | Flags::FIN,
                (true, false) => Flags::PSH,
                _ => Flags(0),
            };
            let seq = start + (i * size) as u32;
            self.outbox.send(&Segment { seq, flags, payload: chunk, ..plain });
        }
        if !first.is_empty() {
            let start = session.record.leg(from).end_isn + 1;
            let len = first.data.len() as u32;
            self.sessions[slot].streams.sent_by_mut(from).sent(start, len, first.fin);
        }
    }

    /// The SYN-ACK that a direct listener's client waits for, from the record.
    pub(crate) fn send_syn_ack(&mut self, slot: usize) {
        let record = &self.sessions[slot].record;
        let (client, syn_ack) = (&record.client, &record.syn_ack);
        let timestamps = Timestamps { value: syn_ack.timestamp, echo: syn_ack.echo };
        let segment = Segment {
            tuple: client.tuple().reversed(),
            seq: client.own_isn,
            ack: Some(client.end_isn + 1),
            flags: if syn_ack.ecn { Flags::SYN | Flags::ECE } else { Flags::SYN },
            window: syn_ack.window,
            options: Options {
                mss: Some(record.server.mss.min(self.own_mss(client.end().addr.is_ipv4()))),
                window_scale: client.scaling.then_some(client.own_scale),
                sack_permitted: client.sack,
                timestamps: client.timestamps.then_some(timestamps),
                ..Options::default()
            },
            payload: &[],
            hop_limit: outlive_tcp::segment::DEFAULT_HOP_LIMIT,
        };
        self.outbox.send(&segment);
    }

    /// The largest segment that fits the configured MTU.
    pub(crate) fn own_mss(&self, ipv4: bool) -> u16 {
        self.config.mtu - if ipv4 { 40 } else { 60 }
    }

    /// Refuses a connection of which only the SYN, with sequence number `irs`, is there.
    pub(crate) fn refuse(&mut self, client: FourTuple, irs: outlive_tcp::seq::Seq) {
        let segment = Segment {
            tuple: client.reversed(),
            seq: outlive_tcp::seq::Seq(0),
            ack: Some(irs + 1),
            flags: Flags::RST,
            window: 0,
            options: Options::default(),
            payload: &[],
            hop_limit: outlive_tcp::segment::DEFAULT_HOP_LIMIT,
        };
        self.outbox.send(&segment);
    }
}

/// A segment to `end` in the other one's name, at the beginning of its stream; sequence number, flags and
/// payload are the caller's.
fn segment_to(session: &Session, end: Side) -> Segment<'static> {
    let record = &session.record;
    let leg = record.leg(end);
    let stream = session.streams.sent_by(end);
    let timestamps = match end {
        Side::Server => Timestamps {
            value: session.client_timestamp.wrapping_add(record.client_timestamp_delta),
            echo: session.server_timestamp(),
        },
        Side::Client => {
            Timestamps { value: record.syn_ack.timestamp, echo: session.client_timestamp }
        }
    };
    Segment {
        tuple: leg.tuple().reversed(),
        seq: leg.own_isn + 1,
        // Of an inherited session it is only believed. To say less than is true does no harm.
        ack: Some(if stream.is_certain() { stream.acked } else { leg.end_isn + 1 }),
        flags: Flags(0),
        window: session.window_towards(end),
        options: Options { timestamps: leg.timestamps.then_some(timestamps), ..Options::default() },
        payload: &[],
        hop_limit: outlive_tcp::segment::DEFAULT_HOP_LIMIT,
    }
}

/// What the client of a cookie handshake is told of our windows' scale.
pub(crate) fn shown_scale(offered: Option<u8>) -> Option<u8> {
    offered.map(|_| SHOWN_SCALE)
}
