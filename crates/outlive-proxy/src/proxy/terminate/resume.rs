//! Going on after a takeover.
//!
//! The standby knows who talks to whom and under which numbers, and roughly how far they are. Exactly how far the two
//! ends know: each is sent one byte below what it has received, and answers with what it has received and what it
//! will send next. Then both connections are made anew, as of now: what an end has received is acknowledged to the
//! other, what it has not received the other still has.

use std::time::Duration;

use outlive_tcp::{
    segment::{DEFAULT_HOP_LIMIT, Segment},
    seq::Seq,
    time::Time,
    wire::{Flags, Options, TcpPacket, Timestamps},
};

use super::{
    joined::{Joined, Report, Resumption, SIDES, shift},
    table::Stage,
};
use crate::{
    counters::Counter,
    event::End,
    flows::Side,
    proxy::{Proxy, Verdict},
    replication::change::Change,
    session::Phase,
};

/// Sessions resumed in one go, and the time until the next.
const BATCH: usize = 256;
const PAUSE: Duration = Duration::from_millis(1);
/// First repetition of a question that was not answered, and the longest pause.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// No end is further ahead of what the standby was told (which is told it every 32 MiB), nor of what was passed on.
pub(super) const KNOWN_WITHIN: u32 = 1 << 30;

/// The ends are being asked where they stand.
#[derive(Debug)]
pub(super) struct Resuming {
    /// What the client and the server have answered.
    reports: [Option<Report>; 2],
    asked: u32,
    /// When they are asked again.
    pub(super) due: Time,
}

impl Proxy {
    /// Begins to resume every session.
    pub(crate) fn resume_all_terminated(&mut self, now: Time) {
        // Connections of an earlier reign say nothing about what the other node has done since.
        let slots: Vec<usize> = self.terminated.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            let entry = &self.terminated[slot];
            // Of what the other node was not told it has done nothing.
            let own = !entry.told || matches!(entry.stage, Stage::Unconfirmed(_));
            if !own && !entry.is_over() {
                self.set_down(slot);
            }
        }
        self.terminated.next_resumed = Some((0, now));
        self.resume_some(now);
    }

    pub(super) fn resume_some(&mut self, now: Time) {
        let Some((mut slot, _)) = self.terminated.next_resumed.take_if(|(_, at)| *at <= now) else {
            return;
        };
        for _ in 0..BATCH {
            let Some((found, entry)) = self.terminated.next_from(slot) else { return };
            slot = found + 1;
            if matches!(entry.stage, Stage::Held) {
                self.resume_terminated(now, found);
            }
        }
        self.terminated.next_resumed = Some((slot, now + PAUSE));
    }

    /// Asks the ends of a session where they stand.
    pub(super) fn resume_terminated(&mut self, now: Time, slot: usize) {
        let resuming = Resuming { reports: [None; 2], asked: 0, due: now };
        self.terminated[slot].stage = Stage::Resuming(Box::new(resuming));
        self.counters.count(Counter::WakeUps);
        self.ask_again(now, slot);
    }

    pub(super) fn ask_again(&mut self, now: Time, slot: usize) {
        let Stage::Resuming(resuming) = &mut self.terminated[slot].stage else { return };
        let pause = FIRST_PAUSE * 2u32.pow(resuming.asked.min(8));
        resuming.asked += 1;
        resuming.due = now + pause.min(LAST_PAUSE);
        let unanswered = resuming.reports.map(|report| report.is_none());
        for side in SIDES {
            if unanswered[side as usize] {
                self.ask(now, slot, side);
            }
        }
        self.arm_terminated(now, slot);
    }

    /// One byte below what the end has received: it is answered always, and nothing else of it is looked at.
    fn ask(&mut self, now: Time, slot: usize, side: Side) {
        let segment = Segment {
            seq: self.received_by(slot, side) - 2,
            ack: Some(self.arrived_from(slot, side)),
            payload: &[0],
            ..self.plain_segment(now, slot, side)
        };
        self.outbox.send(&segment);
    }

    /// How much of an end's stream the other has: what that has said, or what the standby was told last. There are
    /// ends that answer nothing that acknowledges less than they have heard before.
    fn arrived_from(&self, slot: usize, side: Side) -> Seq {
        let entry = &self.terminated[slot];
        let told = entry.positions[side as usize];
        let Stage::Resuming(resuming) = &entry.stage else { return told };
        let said = resuming.reports[side.other() as usize];
        said.map_or(told, |report| told.later(report.ack - shift(&entry.record, side)))
    }

    /// What the end is known to have received of the other's stream.
    fn received_by(&self, slot: usize, side: Side) -> Seq {
        let entry = &self.terminated[slot];
        if side == Side::Server && !entry.prefix.is_empty() {
            return entry.record.server.own_isn + 1;
        }
        entry.positions[side.other() as usize] + shift(&entry.record, side.other())
    }

    /// A segment to an end that says where it was when the standby was told last.
    fn plain_segment(&self, now: Time, slot: usize, side: Side) -> Segment<'static> {
        let entry = &self.terminated[slot];
        let leg = entry.record.leg(side);
        // An end whose handshake is not complete looks at the echo.
        let echo = match side {
            Side::Client => entry.record.syn_ack.echo,
            Side::Server => entry.record.syn_ack.timestamp,
        };
        let timestamps = Timestamps { value: self.clock.timestamp(now), echo };
        Segment {
            tuple: leg.tuple().reversed(),
            seq: self.received_by(slot, side),
            ack: Some(entry.positions[side as usize]),
            flags: Flags::NONE,
            window: 0,
            options: Options {
                timestamps: leg.timestamps.then_some(timestamps),
                ..Options::default()
            },
            payload: &[],
            hop_limit: DEFAULT_HOP_LIMIT,
        }
    }

    /// A segment of an end that is being asked where it stands.
    pub(super) fn resuming_packet(
        &mut self,
        now: Time,
        slot: usize,
        side: Side,
        packet: &TcpPacket<'_>,
    ) -> Verdict {
        let flags = packet.flags();
        if flags.contains(Flags::SYN) {
            return self.resuming_syn(now, slot, side, packet);
        }
        if flags.contains(Flags::RST) {
            return self.resuming_reset(now, slot, side, packet);
        }
        if !flags.contains(Flags::ACK) {
            return self.drop(Counter::DropUnconfirmed);
        }
        let entry = &self.terminated[slot];
        let leg = entry.record.leg(side);
        let known = |seq: Seq, low: Seq| seq.at_or_after(low) && seq.distance(low) <= KNOWN_WITHIN;
        let plausible = known(packet.seq(), entry.positions[side as usize])
            && known(packet.ack(), self.received_by(slot, side))
            && packet.timestamps().is_some() == leg.timestamps;
        if !plausible {
            return self.drop(Counter::DropForeign);
        }
        let len = packet.payload_len() + u32::from(flags.contains(Flags::FIN));
        let report = Report {
            seq: packet.seq() + len,
            next: len == 0,
            ack: packet.ack(),
            window: u32::from(packet.window()) << leg.end_scale,
            timestamp: packet.timestamps().unwrap_or_default().value,
        };
        let Stage::Resuming(resuming) = &mut self.terminated[slot].stage else {
            return Verdict::Done;
        };
        let news = resuming.reports[side as usize].replace(report).is_none();
        if resuming.reports[side.other() as usize].is_some() {
            self.go_on(now, slot);
        } else if news {
            // Now it can be told what its peer has.
            self.ask(now, slot, side.other());
        }
        match self.terminated[slot].stage {
            Stage::Live(_) if len > 0 => self.live_packet(now, slot, side, packet),
            _ => Verdict::Done,
        }
    }

    /// Makes the connections anew once both ends have answered.
    fn go_on(&mut self, now: Time, slot: usize) {
        let entry = &self.terminated[slot];
        let Stage::Resuming(resuming) = &entry.stage else { return };
        let [Some(client), Some(server)] = resuming.reports else { return };
        let resumption = Resumption {
            record: &entry.record,
            prefix: &entry.prefix,
            reports: [client, server],
            endings: entry.endings,
            config: self.endpoint_config(entry.listener),
            mss: self.own_mss(entry.record.client.end().addr.is_ipv4()),
            timestamp: self.clock.timestamp(now),
        };
        let Some(joined) = Joined::resumed(now, &resumption) else {
            // One of the two is from before; both will answer the next question.
            if let Stage::Resuming(resuming) = &mut self.terminated[slot].stage {
                resuming.reports = [None; 2];
            }
            return;
        };
        self.terminated[slot].stage = Stage::Live(Box::new(joined));
        self.advance_terminated(now, slot);
    }

    fn resuming_syn(
        &mut self,
        now: Time,
        slot: usize,
        side: Side,
        packet: &TcpPacket<'_>,
    ) -> Verdict {
        let entry = &self.terminated[slot];
        let record = &entry.record;
        let leg = record.leg(side);
        let repeated = packet.seq() == leg.end_isn;
        let timestamps = packet
            .timestamps()
            .filter(|_| leg.timestamps)
            .map(|said| Timestamps { value: self.clock.timestamp(now), echo: said.value });
        let plain = self.plain_segment(now, slot, side);
        let plain = Segment { options: Options { timestamps, ..Options::default() }, ..plain };
        let segment = match (side, packet.flags().contains(Flags::ACK)) {
            // It has not been answered, or did not hear it.
            (Side::Client, false) if repeated && !record.answered => Segment {
                seq: leg.own_isn,
                ack: Some(leg.end_isn + 1),
                flags: Flags::SYN,
                window: record.syn_ack.window,
                options: Options {
                    mss: Some(self.own_mss(leg.end().addr.is_ipv4())),
                    window_scale: leg.scaling.then_some(leg.own_scale),
                    sack_permitted: leg.sack,
                    timestamps: packet
                        .timestamps()
                        .filter(|_| leg.timestamps)
                        .map(|t| Timestamps { value: self.clock.timestamp(now), echo: t.value }),
                    ..Options::default()
                },
                ..plain
            },
            // Our acknowledgment of it was lost; or it is a new connection's, and the end must say so (RFC 5961,
            // section 4).
            (Side::Server, true) if repeated => plain,
            (Side::Client, false) if !repeated => plain,
            _ => return self.drop(Counter::DropForeign),
        };
        self.outbox.send(&segment);
        Verdict::Done
    }

    /// An end knows nothing of the connection any more. If both streams had come to their ends, that is all there is to
    /// say; else the other end has to know.
    fn resuming_reset(
        &mut self,
        now: Time,
        slot: usize,
        side: Side,
        packet: &TcpPacket<'_>,
    ) -> Verdict {
        let entry = &self.terminated[slot];
        let Stage::Resuming(resuming) = &entry.stage else { return Verdict::Done };
        let asked_with = [entry.positions[side as usize], self.arrived_from(slot, side)];
        let next = resuming.reports[side as usize].map(|report| report.seq);
        if !asked_with.contains(&packet.seq()) && Some(packet.seq()) != next {
            return self.drop(Counter::ResetOutside);
        }
        if entry.endings.iter().all(Option::is_some) {
            self.counters.count(Counter::ProbeResets);
            self.report_terminated(slot, |client| Change::Ended { client, phase: Phase::TimeWait });
            self.set_terminated_over(now, slot);
            return Verdict::Done;
        }
        let other = side.other();
        let plain = self.plain_segment(now, slot, other);
        let report = resuming.reports[other as usize];
        let reset = Segment {
            seq: report.map_or(plain.seq, |report| report.ack),
            ack: Some(
                report.map_or(self.terminated[slot].positions[other as usize], |report| report.seq),
            ),
            flags: Flags::RST,
            ..plain
        };
        self.outbox.send(&reset);
        self.end_terminated(now, slot, End::Reset(side));
        Verdict::Done
    }
}
