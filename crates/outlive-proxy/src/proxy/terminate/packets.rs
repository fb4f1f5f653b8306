//! What segments and timers do to a terminated session, and what it sends.

use outlive_tcp::{
    endpoint::{Arrival, Drop, End as Cause, State, Transmit, Verdict as Heard},
    segment::{DEFAULT_HOP_LIMIT, Segment},
    seq::Seq,
    time::Time,
    wire::{Flags, IcmpError, Options, TcpPacket, Timestamps},
};

use super::{
    joined::{Over, SIDES, shift},
    resume::KNOWN_WITHIN,
    table::{Awaited, Stage},
};
use crate::{
    counters::Counter,
    event::{End, LogEvent},
    flows::{Flow, Side},
    proxy::{Proxy, Verdict},
    replication::change::Change,
    session::{Phase, Seconds},
};

/// What is due at a session that is not this node's to decide on is looked at again after so long.
const LATER: std::time::Duration = std::time::Duration::from_millis(50);

impl Proxy {
    pub(crate) fn terminated_packet(
        &mut self,
        now: Time,
        slot: usize,
        side: Side,
        packet: &TcpPacket<'_>,
    ) -> Verdict {
        self.terminated[slot].last_seen = Seconds::of(now);
        if matches!(self.terminated[slot].stage, Stage::Held) {
            // Its turn had not come.
            self.resume_terminated(now, slot);
        }
        match self.terminated[slot].stage {
            Stage::Over => self.late_packet(now, slot, side, packet),
            Stage::Resuming(_) => self.resuming_packet(now, slot, side, packet),
            _ => self.live_packet(now, slot, side, packet),
        }
    }

    pub(super) fn live_packet(
        &mut self,
        now: Time,
        slot: usize,
        side: Side,
        packet: &TcpPacket<'_>,
    ) -> Verdict {
        if packet.payload_len() > 0 && self.terminated.is_exhausted() {
            return self.drop(Counter::DropTerminatedMemory);
        }
        let entry = &mut self.terminated[slot];
        let Some(joined) = entry.joined_mut() else { return Verdict::Done };
        let repeated = packet.payload_len() > 0 && joined.end(side).is_ahead(packet.seq());
        let heard = joined.end_mut(side).handle_segment(now, &Arrival::copied(packet));
        if heard == Heard::Dropped(Drop::DoubtfulReset)
            || heard == Heard::Dropped(Drop::OutsideWindow) && packet.flags().contains(Flags::RST)
        {
            self.counters.count(Counter::ResetOutside);
        }
        // A window that is shut because the other end's is. That may have opened, and the word of it been lost.
        let shut = [Drop::NoRoom, Drop::OutsideWindow].map(Heard::Dropped).contains(&heard);
        // And who repeats what lies behind a gap may have been told, by another node, that there is none: the other
        // end knows.
        if shut && packet.payload_len() > 0 || repeated {
            joined.end_mut(side.other()).ask();
        }
        if heard == Heard::Dropped(Drop::BadAcknowledgment)
            && self.speaks_of_another(slot, side, packet.ack())
        {
            self.set_down(slot);
            self.resume_terminated(now, slot);
            return Verdict::Done;
        }
        if side == Side::Client && self.terminated[slot].half_open {
            let shown = self.terminated[slot]
                .joined()
                .is_some_and(|j| j.end(side).state() != State::SynReceived);
            if shown {
                self.terminated.is_complete(slot);
                let entry = &mut self.terminated[slot];
                let prefix = std::mem::take(&mut entry.prefix);
                if let Some(joined) = entry.joined_mut() {
                    joined.insert(&prefix);
                }
                entry.prefix = prefix;
            }
        }
        self.advance_terminated(now, slot);
        Verdict::Done
    }

    /// Whether an end acknowledges what this node has not sent, but could have: another node has, which was active
    /// while this one did not hear it.
    fn speaks_of_another(&self, slot: usize, side: Side, ack: Seq) -> bool {
        let Stage::Live(joined) = &self.terminated[slot].stage else { return false };
        let sent = joined.end(side).positions().sent;
        self.config.pair.enabled && ack.after(sent) && ack.distance(sent) <= KNOWN_WITHIN
    }

    /// Passes on what can be, sends what there is to send, tells the standby what it has to know, and sets the timer.
    pub(super) fn advance_terminated(&mut self, now: Time, slot: usize) {
        let share = self.terminated.share();
        loop {
            let Some(joined) = self.terminated.get_mut(slot).and_then(|e| e.joined_mut()) else {
                return;
            };
            joined.pump(share);
            if joined.drain_events() {
                // An end has what a former node sent it: only the ends know now where the streams stand.
                self.set_down(slot);
                return self.resume_terminated(now, slot);
            }
            self.flush_terminated(now, slot);
            if !self.tell_endings(now, slot) {
                break;
            }
        }
        self.terminated.note_held(slot);
        self.note_terminated_prefix(slot);
        self.report_terminated_progress(slot);
        let Stage::Live(joined) = &self.terminated[slot].stage else {
            return self.arm_terminated(now, slot);
        };
        match joined.over() {
            None => self.arm_terminated(now, slot),
            Some(Over::Finished) => self.terminated_finished(now, slot),
            Some(Over::Broken(side, cause)) => self.terminated_broken(now, slot, side, cause),
        }
    }

    /// Sends what the connections want sent, once the session may have effects.
    fn flush_terminated(&mut self, now: Time, slot: usize) {
        let whole = self.terminated.segmentation;
        let Stage::Live(joined) = &mut self.terminated[slot].stage else { return };
        for side in SIDES {
            while let Some(transmit) = joined.end_mut(side).poll_transmit(now) {
                if whole || !transmit.is_super_segment() {
                    self.outbox.append_with(|bytes| transmit.emit(bytes));
                } else {
                    transmit.segments().for_each(|segment: Transmit| {
                        self.outbox.append_with(|bytes| segment.emit(bytes));
                    });
                }
            }
        }
    }

    /// The end of a stream has to be at the standby before it is passed on (invariant 11): so a node that takes over
    /// can tell what an acknowledgment acknowledges. Gives whether something can be passed on now.
    fn tell_endings(&mut self, now: Time, slot: usize) -> bool {
        let mut waits = [None; 2];
        if let Stage::Live(joined) = &self.terminated[slot].stage {
            waits = SIDES.map(|side| joined.ending(side));
        }
        let mut passes = false;
        for (side, at) in SIDES.into_iter().zip(waits) {
            let told = self.terminated[slot].endings[side as usize];
            let (Some(at), None) = (at, told) else { continue };
            self.terminated[slot].endings[side as usize] = Some(at);
            let change = self.report_terminated(slot, |client| Change::Ending { client, side, at });
            if self.passes_at_once(slot) {
                if let Some(joined) = self.terminated[slot].joined_mut() {
                    joined.pass_end(side);
                }
                passes = true;
            } else {
                self.await_terminated(now, slot, change, Awaited::Ending(side));
            }
        }
        passes
    }

    fn note_terminated_prefix(&mut self, slot: usize) {
        let entry = &mut self.terminated[slot];
        let acknowledged =
            entry.joined().is_some_and(|joined| joined.prefix_acknowledged(&entry.record));
        if acknowledged && !entry.prefix.is_empty() {
            entry.prefix = Vec::new();
            self.report_terminated(slot, |client| Change::PrefixDone { client });
        }
    }

    fn terminated_finished(&mut self, now: Time, slot: usize) {
        let first = match self.terminated[slot].joined().map(|j| j.end(Side::Client).state()) {
            // Whoever closed first waits for late segments.
            Some(State::TimeWait) => Side::Server,
            _ => Side::Client,
        };
        self.counters.count(Counter::SessionsFinished);
        self.report_terminated(slot, |client| Change::Ended { client, phase: Phase::TimeWait });
        self.log_terminated(now, slot, End::Finished { first });
        self.set_terminated_over(now, slot);
    }

    fn terminated_broken(&mut self, now: Time, slot: usize, side: Side, cause: Cause) {
        let end = match cause {
            Cause::ConnectTimeout => End::NotAcknowledged,
            Cause::UserTimeout(_) => End::Idle,
            _ => End::Reset(side),
        };
        self.end_terminated(now, slot, end);
    }

    /// The session is no more, and the standby is told.
    pub(super) fn end_terminated(&mut self, now: Time, slot: usize, end: End) {
        let counter = match end {
            End::Reset(_) => Counter::SessionsReset,
            End::Finished { .. } => Counter::SessionsFinished,
            End::Idle | End::NotAcknowledged => Counter::SessionsIdle,
        };
        self.counters.count(counter);
        self.log_terminated(now, slot, end);
        self.report_terminated(slot, |client| Change::Forgotten { client });
        self.forget_terminated(now, slot);
    }

    /// Both streams are complete, and both ends know.
    pub(super) fn set_terminated_over(&mut self, now: Time, slot: usize) {
        let entry = &mut self.terminated[slot];
        if entry.is_over() {
            return;
        }
        entry.stage = Stage::Over;
        let (server, own) = (entry.server, entry.record.server.own());
        self.terminated.note_held(slot);
        self.terminated.is_complete(slot);
        self.terminated.is_over(slot);
        self.terminated.set_timer(slot, now + self.config.timeouts.time_wait);
        self.connection_ended(server, own);
    }

    /// Removes a session, without a word to anybody.
    pub(crate) fn forget_terminated(&mut self, now: Time, slot: usize) {
        let Some(entry) = self.terminated.get(slot) else { return };
        let (over, server, own) = (entry.is_over(), entry.server, entry.record.server.own());
        let had_effect = !matches!(entry.stage, Stage::Unconfirmed(_));
        let (answered, irs) = (entry.record.answered, entry.record.client.end_isn);
        let client = entry.tuple(Side::Client);
        for side in SIDES {
            let tuple = self.terminated.tuple(slot, side);
            self.leave_flow(&tuple, Flow::Terminated(slot, side));
        }
        if answered && had_effect {
            self.spent.insert(now, &client, irs);
        }
        if !over {
            self.connection_ended(server, own);
        }
        self.terminated.remove(slot);
    }

    /// Forgets a session whose tuple is wanted for a new one.
    pub(crate) fn recycle_terminated(&mut self, now: Time, slot: usize) {
        self.counters.count(Counter::SessionsRecycled);
        for side in SIDES {
            self.given_way.note(self.journal.last(), self.terminated.tuple(slot, side));
        }
        self.forget_terminated(now, slot);
    }

    /// A segment of a session that is over: an end may not have heard our last acknowledgment.
    fn late_packet(
        &mut self,
        now: Time,
        slot: usize,
        side: Side,
        packet: &TcpPacket<'_>,
    ) -> Verdict {
        let flags = packet.flags();
        if side == Side::Client && (opens(flags) || self.begins_anew_after(now, slot, packet)) {
            self.recycle_terminated(now, slot);
            return self.stranger(now, packet);
        }
        let repeats = packet.payload_len() > 0 || flags.contains(Flags::FIN);
        let entry = &self.terminated[slot];
        let ends = [entry.endings[side as usize], entry.endings[side.other() as usize]];
        let (true, [Some(theirs), Some(ours)]) = (repeats && !flags.contains(Flags::RST), ends)
        else {
            return self.drop(Counter::DropForeign);
        };
        let leg = entry.record.leg(side);
        let timestamps = packet.timestamps().filter(|_| leg.timestamps);
        let value = self.clock.timestamp(now);
        let segment = Segment {
            tuple: leg.tuple().reversed(),
            seq: ours + 1 + shift(&entry.record, side.other()),
            ack: Some(theirs + 1),
            flags: Flags::NONE,
            window: 0,
            options: Options {
                timestamps: timestamps.map(|t| Timestamps { value, echo: t.value }),
                ..Options::default()
            },
            payload: &[],
            hop_limit: DEFAULT_HOP_LIMIT,
        };
        self.outbox.send(&segment);
        Verdict::Done
    }

    /// Whether a segment on a session that is over is the first of the next connection from the same port, whose SYN was
    /// answered with a cookie.
    fn begins_anew_after(&self, now: Time, slot: usize, packet: &TcpPacket<'_>) -> bool {
        let irs = packet.seq() - 1;
        if irs == self.terminated[slot].record.client.end_isn
            || !packet.flags().contains(Flags::ACK)
        {
            return false;
        }
        let echo = packet.timestamps().map(|t| t.echo);
        let clock = self.clock.millis(now);
        self.keys.check(packet.tuple(), irs, packet.ack() - 1, echo, clock).is_some()
    }

    /// An ICMP error about a packet that was sent to that end.
    pub(crate) fn terminated_icmp(
        &mut self,
        now: Time,
        slot: usize,
        side: Side,
        error: &IcmpError,
    ) -> Verdict {
        if let Some(joined) = self.terminated[slot].joined_mut() {
            joined.end_mut(side).handle_icmp(now, error);
            self.advance_terminated(now, slot);
        }
        Verdict::Done
    }

    /// What is due.
    pub(crate) fn expire_terminated(&mut self, now: Time) {
        let mut slots = Vec::new();
        self.terminated.timers.expire(now, &mut slots);
        for slot in slots {
            self.terminated_expired(now, slot);
        }
        self.resume_some(now);
    }

    fn terminated_expired(&mut self, now: Time, slot: usize) {
        let Some(entry) = self.terminated.get_mut(slot) else { return };
        entry.due = Time::NEVER;
        if entry.is_over() {
            return self.forget_terminated(now, slot);
        }
        if !self.decides() {
            return self
                .terminated
                .set_timer(slot, now + LATER.max(self.config.timeouts.time_wait / 4));
        }
        let entry = &self.terminated[slot];
        if entry.last_seen.time() + self.idle_timeout_of(entry.listener) <= now {
            return self.end_terminated(now, slot, End::Idle);
        }
        if matches!(entry.stage, Stage::Resuming(_)) {
            return self.ask_again(now, slot);
        }
        if let Some(joined) = self.terminated[slot].joined_mut() {
            joined.handle_timeout(now);
        }
        self.advance_terminated(now, slot);
    }

    /// Sets the timer to what is due next.
    pub(super) fn arm_terminated(&mut self, now: Time, slot: usize) {
        let entry = &self.terminated[slot];
        let idle = entry.last_seen.time() + self.idle_timeout_of(entry.listener);
        let own = match &entry.stage {
            Stage::Live(joined) => joined.poll_timeout(),
            Stage::Resuming(resuming) => Some(resuming.due),
            _ => None,
        };
        let due = own.map_or(idle, |own| own.min(idle)).max(now);
        self.terminated.set_timer(slot, due);
    }

    fn log_terminated(&mut self, now: Time, slot: usize, end: End) {
        let entry = &self.terminated[slot];
        let bytes = |side: Side| {
            let start = entry.record.leg(side).end_isn + 1;
            u64::from(entry.acknowledged()[side as usize].distance(start))
        };
        let event = LogEvent::SessionClosed {
            client: entry.record.client.end(),
            listener: entry.record.client.own(),
            server: entry.record.server.end(),
            end,
            from_client: bytes(Side::Client),
            from_server: bytes(Side::Server),
            lasted: now.since(entry.since.time()),
        };
        self.log(event);
    }
}

/// A SYN that opens a connection.
fn opens(flags: Flags) -> bool {
    flags.contains(Flags::SYN) && !flags.intersects(Flags::ACK | Flags::RST)
}
