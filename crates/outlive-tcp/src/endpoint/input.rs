//! What a segment does to a connection: SEGMENT ARRIVES of RFC 9293, section 3.10.7, step by step.

use super::{
    arrival::Arrival,
    connection::Connection,
    outcome::{Drop, End, Event, Verdict},
    path_mtu::{Claim, RAISE_AFTER},
    receiver::AckDemand,
    sender::AckInfo,
    state::State,
    timers::Timer,
};
use crate::{
    seq::Seq,
    time::Time,
    wire::{Flags, IcmpError, IcmpErrorKind},
};

/// The step after which a segment's processing ended, and with what.
type Step = Result<(), Verdict>;

impl Connection {
    /// Takes a segment whose checksum is right.
    pub fn handle_segment(&mut self, now: Time, segment: &Arrival) -> Verdict {
        if segment.tuple != self.tuple.reversed() {
            return Verdict::Dropped(Drop::OtherConnection);
        }
        let outcome = match self.state {
            State::Closed => self.part(segment).map_err(dropped),
            State::SynSent => self.arrive_in_syn_sent(now, segment),
            _ => self.arrive(now, segment),
        };
        self.check();
        outcome.err().unwrap_or(Verdict::Accepted)
    }

    /// Section 3.10.7.3.
    fn arrive_in_syn_sent(&mut self, now: Time, segment: &Arrival) -> Step {
        if let Some(ack) = segment.ack.filter(|&ack| ack != self.sender.nxt) {
            if !segment.has(Flags::RST) {
                self.reply_with_reset(ack);
            }
            return Err(dropped(Drop::BadAcknowledgment));
        }
        if segment.has(Flags::RST) {
            if segment.ack.is_none() {
                return Err(dropped(Drop::DoubtfulReset));
            }
            self.finish(End::Refused);
            return Ok(());
        }
        if !segment.has(Flags::SYN) {
            return Err(dropped(Drop::NoAcknowledgment));
        }
        self.take_syn(now, segment);
        if self.state != State::SynReceived && has_text(segment) {
            self.take_stream(now, segment)?;
        }
        Ok(())
    }

    /// Section 3.10.7.4, for all states but SYN-SENT.
    fn arrive(&mut self, now: Time, segment: &Arrival) -> Step {
        let mut segment = segment;
        let without_syn;
        if self.is_own_syn_again(segment) {
            if segment.ack.is_none() {
                self.handshake.due = true; // The SYN-ACK was lost.
                return Ok(());
            }
            without_syn = self.without_syn(segment);
            segment = &without_syn;
        }
        self.check_reopening(segment)?;
        self.check_timestamp(now, segment)?;
        self.check_sequence(now, segment)?;
        self.check_reset(now, segment)?;
        self.check_syn(now, segment)?;
        let Some(ack) = segment.ack else { return Err(dropped(Drop::NoAcknowledgment)) };
        self.note_life();
        if self.state == State::SynReceived {
            self.complete_handshake(now, segment, ack)?;
        }
        self.check_acknowledgment(now, ack)?;
        if self.agreed.timestamps {
            self.receiver.note_timestamp(now, segment);
        }
        self.take_acknowledgment(now, segment, ack);
        if self.state == State::Closed {
            return Ok(());
        }
        // Sixth, even if there is no room for data (MUST-66).
        if self.state.receives() && self.receiver.note_urgent(segment) {
            self.tell(Event::Urgent);
        }
        self.take_stream(now, segment)
    }

    /// In SYN-RECEIVED: the SYN again, or the SYN-ACK of a simultaneous open (figure 7).
    fn is_own_syn_again(&self, segment: &Arrival) -> bool {
        self.state == State::SynReceived
            && segment.has(Flags::SYN)
            && !segment.has(Flags::RST)
            && segment.seq == self.receiver.irs
    }

    fn without_syn(&self, segment: &Arrival) -> Arrival {
        let mut rest = segment.clone();
        rest.flags = rest.flags & !Flags::SYN;
        rest.seq += 1;
        rest
    }

    /// A new connection between the same ends may begin while this one is in TIME-WAIT, if its
    /// numbers are later (MAY-2; RFC 6191, section 2).
    fn check_reopening(&self, segment: &Arrival) -> Step {
        let opens = self.state == State::TimeWait
            && segment.has(Flags::SYN)
            && !segment.flags.intersects(Flags::RST | Flags::ACK);
        if !opens {
            return Ok(());
        }
        let later = match segment.options.timestamps {
            Some(timestamps) if self.agreed.timestamps => {
                let recent = self.receiver.paws.recent;
                timestamps.value != recent
                    && super::negotiation::timestamp_before(recent, timestamps.value)
            }
            _ => false,
        };
        if later || segment.seq.after(self.receiver.received()) {
            return Err(Verdict::Reopen { iss_after: self.sender.nxt });
        }
        Ok(())
    }

    /// PAWS (RFC 7323, section 5).
    fn check_timestamp(&mut self, now: Time, segment: &Arrival) -> Step {
        if !self.agreed.timestamps || segment.has(Flags::RST) {
            return Ok(());
        }
        let Some(timestamps) = segment.options.timestamps else {
            return Err(dropped(Drop::NoTimestamp));
        };
        if self.receiver.paws.is_old(now, timestamps) {
            self.answer_doubtful(now, segment);
            return Err(dropped(Drop::OldTimestamp));
        }
        Ok(())
    }

    /// First: the sequence number.
    fn check_sequence(&mut self, now: Time, segment: &Arrival) -> Step {
        if self.receiver.is_acceptable(segment) {
            return Ok(());
        }
        if segment.has(Flags::RST) {
            return Err(dropped(Drop::OutsideWindow));
        }
        if segment.has(Flags::SYN) && self.state.is_synchronized() {
            self.challenge(now);
            return Err(dropped(Drop::UnexpectedSyn));
        }
        self.note_stale(segment);
        self.answer_doubtful(now, segment);
        Err(dropped(Drop::OutsideWindow))
    }

    /// What an unacceptable segment of the other end still says: it has not heard our
    /// acknowledgment, or probes whether we live.
    fn note_stale(&mut self, segment: &Arrival) {
        self.receiver.note_old(segment);
        if self.state == State::TimeWait && segment.has(Flags::FIN) {
            self.timers.stop(Timer::Linger); // It starts anew.
        }
    }

    /// Second: a reset counts only if its number is exact (RFC 5961, section 3).
    fn check_reset(&mut self, now: Time, segment: &Arrival) -> Step {
        if !segment.has(Flags::RST) {
            return Ok(());
        }
        if !self.receiver.is_exact(segment.seq) {
            self.challenge(now);
            return Err(dropped(Drop::DoubtfulReset));
        }
        let end = match self.state {
            State::SynReceived if !self.handshake.passive => End::Refused,
            State::Closing | State::LastAck | State::TimeWait if self.sender.fin_acknowledged() => {
                End::Finished
            }
            State::TimeWait => End::Finished,
            _ => End::ResetByPeer,
        };
        self.finish(end);
        Err(Verdict::Accepted)
    }

    /// Fourth: a SYN in a connection draws a challenge (RFC 5961, section 4).
    fn check_syn(&mut self, now: Time, segment: &Arrival) -> Step {
        if !segment.has(Flags::SYN) {
            return Ok(());
        }
        self.challenge(now);
        Err(dropped(Drop::UnexpectedSyn))
    }

    /// Fifth, in SYN-RECEIVED.
    fn complete_handshake(&mut self, now: Time, segment: &Arrival, ack: Seq) -> Step {
        if ack != self.sender.nxt {
            self.reply_with_reset(ack);
            return Err(dropped(Drop::BadAcknowledgment));
        }
        let window = u32::from(segment.window) << self.agreed.send_scale;
        self.establish(now, segment.seq, window);
        Ok(())
    }

    /// Fifth, otherwise (RFC 5961, section 5).
    fn check_acknowledgment(&mut self, now: Time, ack: Seq) -> Step {
        if !self.sender.ack_is_acceptable(ack) {
            self.challenge(now);
            return Err(dropped(Drop::BadAcknowledgment));
        }
        if self.sender.is_of_another_output(ack) {
            self.give_up(End::OutputDiverged);
            return Err(Verdict::Accepted);
        }
        Ok(())
    }

    fn take_acknowledgment(&mut self, now: Time, segment: &Arrival, ack: Seq) {
        let info = AckInfo {
            seq: segment.seq,
            ack,
            len: segment.len(),
            window: u32::from(segment.window) << self.agreed.send_scale,
            sack: segment.options.sack.as_slice(),
            echo: segment.echo().filter(|_| self.agreed.timestamps),
            congestion: self.agreed.ecn && segment.has(Flags::ECE),
        };
        let had_something = !self.sender.is_idle();
        let outcome = self.sender.on_ack(now, &info, &mut self.timers);
        if outcome.progress > 0 {
            self.path.note_acknowledged(self.sender.una);
        }
        if outcome.progress > 0 {
            self.timers.stop(Timer::User);
        }
        if outcome.skipped > 0 {
            self.tell(Event::OutputSkipped(outcome.skipped));
        }
        if std::mem::take(&mut self.awaits_report) {
            self.sender.repeat_inherited();
        }
        if self.sender.take_writable() {
            self.tell(Event::Writable);
        }
        if had_something && self.sender.is_idle() {
            self.tell(Event::AllAcknowledged);
        }
        if self.sender.fin_acknowledged() {
            self.leave_after_fin();
        }
    }

    /// Our FIN is acknowledged.
    pub(super) fn leave_after_fin(&mut self) {
        self.state = match self.state.after_fin_acknowledged() {
            // The other end's FIN is still without its acknowledgment: it must be possible to
            // repeat that.
            State::Closed if !self.receiver.end_acknowledged() => State::TimeWait,
            State::Closed if self.state != State::Closed => {
                self.finish(End::Finished);
                State::Closed
            }
            state => state,
        };
    }

    /// Seventh and eighth: data and FIN.
    fn take_stream(&mut self, now: Time, segment: &Arrival) -> Step {
        if !has_text(segment) {
            // A probe of what the other end has sent and not heard of: it wants an answer.
            if segment.seq.before(self.receiver.received()) {
                self.challenge(now);
            }
            return Ok(());
        }
        if !self.state.receives() {
            return self.take_late(segment);
        }
        if self.deaf && self.brings_news(segment) {
            self.give_up(End::Aborted);
            return Ok(());
        }
        let progress = self.receiver.take(segment);
        if progress.readable {
            self.tell(Event::Readable);
        }
        if progress.finished {
            self.state = self.state.after_fin_received();
            self.receiver.ask_for_ack_of_end();
            self.settle_timers(now);
        }
        progress.dropped.map_or(Ok(()), |reason| Err(dropped(reason)))
    }

    /// After the other end's FIN: repeated segments are answered, and new data cannot be.
    fn take_late(&mut self, segment: &Arrival) -> Step {
        self.receiver.ask_for_ack(AckDemand::Now);
        self.note_stale(segment);
        let known = segment.end().at_or_before(self.receiver.received());
        if known { Ok(()) } else { Err(dropped(Drop::AfterEnd)) }
    }

    fn brings_news(&self, segment: &Arrival) -> bool {
        let end = segment.seq + segment.payload.len() as u32;
        end.after(self.receiver.received())
    }

    /// The other end is there.
    fn note_life(&mut self) {
        self.keep_alive_probes = 0;
        self.timers.stop(Timer::KeepAlive);
    }

    /// An acknowledgment in answer to an unacceptable segment. One with data is answered always:
    /// its sender waits.
    fn answer_doubtful(&mut self, now: Time, segment: &Arrival) {
        if segment.len() > 0 {
            self.receiver.ask_for_ack(AckDemand::Now);
        } else {
            self.challenge(now);
        }
    }

    fn challenge(&mut self, now: Time) {
        if self.state == State::SynReceived {
            self.handshake.due |= self.challenges.take(now);
        } else if self.challenges.take(now) {
            self.receiver.ask_for_ack(AckDemand::Now);
        }
    }

    /// `<SEQ=SEG.ACK><CTL=RST>`: the other end is in another connection.
    pub(super) fn reply_with_reset(&mut self, ack: Seq) {
        self.reply = Some(self.segment(ack, None, Flags::RST));
    }

    /// Takes an ICMP error about a packet that this connection sent (RFC 9293, section 3.9.2.2). A
    /// connection never ends by one, unless it was not established yet (RFC 5927, section 4).
    pub fn handle_icmp(&mut self, now: Time, error: &IcmpError) -> Verdict {
        if error.quoted != self.tuple {
            return dropped(Drop::OtherConnection);
        }
        let quoted = error.quoted_seq;
        let in_flight = quoted.at_or_after(self.sender.una) && quoted.before(self.sender.nxt);
        if !in_flight || self.state == State::Closed {
            return dropped(Drop::DoubtfulIcmp);
        }
        match error.what {
            IcmpErrorKind::TooBig { mtu } => return self.take_mtu(now, mtu, quoted),
            IcmpErrorKind::Unreachable | IcmpErrorKind::ParameterProblem
                if self.state == State::SynSent && error.is_hard() =>
            {
                self.finish(End::Refused);
            }
            _ => self.tell(Event::PathSuspect),
        }
        Verdict::Accepted
    }

    fn take_mtu(&mut self, now: Time, mtu: u32, quoted: Seq) -> Verdict {
        match self.path.claim(mtu, quoted) {
            Claim::Ignored => dropped(Drop::DoubtfulIcmp),
            Claim::Pending => Verdict::Accepted,
            Claim::Believed => {
                self.timers.set(Timer::PathRaise, now + RAISE_AFTER);
                self.update_mss(true);
                Verdict::Accepted
            }
        }
    }
}

/// "Segment text" and the FIN behind it.
fn has_text(segment: &Arrival) -> bool {
    !segment.payload.is_empty() || segment.has(Flags::FIN)
}

fn dropped(reason: Drop) -> Verdict {
    Verdict::Dropped(reason)
}
