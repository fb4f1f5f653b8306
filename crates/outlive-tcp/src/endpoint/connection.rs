//! The connection, as its program sees it.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{
    challenge::ChallengeLimit,
    config::Config,
    negotiation::{Negotiated, TimestampClock},
    open::Handshaking,
    outcome::{AcknowledgeError, End, Event, Read, WriteError},
    path_mtu::PathMtu,
    receiver::{AckDemand, Receiver},
    sender::Sender,
    state::State,
    timers::{Timer, Timers},
    transmit::Transmit,
};
use crate::{seq::Seq, time::Time, wire::FourTuple};

/// One TCP connection (RFC 9293), without I/O and without a clock.
///
/// Input comes through [`handle_segment`](Self::handle_segment), [`handle_icmp`](Self::handle_icmp),
/// [`handle_timeout`](Self::handle_timeout) and the program's calls
/// ([`read`](Self::read), [`acknowledge`](Self::acknowledge), [`write`](Self::write),
/// [`shutdown`](Self::shutdown), [`close`](Self::close), [`abort`](Self::abort)). After any of
/// them, in this order:
///
/// 1. [`poll_transmit`](Self::poll_transmit) until it gives nothing: what it gives is to be sent
///    in that order. It also starts timers, so it must be asked even by who cannot send.
/// 2. [`poll_event`](Self::poll_event) until it gives nothing. What the program does about an event
///    begins at 1 again.
/// 3. [`poll_timeout`](Self::poll_timeout): when to call `handle_timeout` if nothing else happens.
///
/// `now` must not run back.
///
/// Once [`state`](Self::state) is [`State::Closed`] and `poll_transmit` gives nothing more, the
/// connection can be dropped; one that [is parting](Self::is_parting) only at the price that its other
/// end may not learn of the reset.
#[derive(Clone, Debug)]
pub struct Connection {
    pub(super) tuple: FourTuple,
    pub(super) config: Config,
    pub(super) state: State,
    pub(super) agreed: Negotiated,
    pub(super) clock: TimestampClock,
    pub(super) handshake: Handshaking,
    pub(super) receiver: Receiver,
    pub(super) sender: Sender,
    pub(super) timers: Timers,
    pub(super) path: PathMtu,
    pub(super) challenges: ChallengeLimit,
    /// An answer that stands outside of the stream: a reset for an impossible segment.
    pub(super) reply: Option<Transmit>,
    /// A reset ends the connection.
    pub(super) reset_due: bool,
    /// A segment that makes the other end answer.
    pub(super) probe_due: bool,
    /// After a restore: what a former node had in flight is sent again as soon as the other end has
    /// said what it has.
    pub(super) awaits_report: bool,
    /// How often the other end is still asked after a reset that may have missed.
    pub(super) parting: u8,
    pub(super) keep_alive_probes: u8,
    /// The program wants no more data.
    pub(super) deaf: bool,
    pub(super) events: VecDeque<Event>,
    pub(super) end: Option<End>,
}

impl Connection {
    /// The two ends, as packets sent have them.
    pub fn tuple(&self) -> FourTuple {
        self.tuple
    }

    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Why the connection is over, if it is.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// What was agreed on in the handshake. Until it is complete, what this end offers.
    pub fn negotiated(&self) -> &Negotiated {
        &self.agreed
    }

    /// The next bytes of the stream, `max` at most. They stay unacknowledged until
    /// [`acknowledge`](Self::acknowledge), unless the connection acknowledges by itself.
    pub fn read(&mut self, max: usize) -> Read {
        if let Some(data) = self.receiver.read(max) {
            self.check();
            return Read::Data(data);
        }
        if self.receiver.read_end() {
            return Read::End;
        }
        self.end.map_or(Read::Blocked, Read::Closed)
    }

    /// Lets the next `count` bytes that were read be acknowledged: the other end may forget them
    /// now. Fails, and does nothing, if so many were not read.
    pub fn acknowledge(&mut self, count: u32) -> Result<(), AcknowledgeError> {
        let outcome = self.receiver.acknowledge(count);
        self.check();
        outcome
    }

    /// Lets the end of the other end's stream be acknowledged, after all its bytes were and
    /// [`Read::End`] was given. Until then the other end repeats its FIN.
    pub fn acknowledge_end(&mut self) -> Result<(), AcknowledgeError> {
        self.receiver.acknowledge_end()
    }

    /// Says where this end stands, without waiting for company: what it has acknowledged, and its
    /// window.
    pub fn acknowledge_now(&mut self) {
        self.receiver.ask_for_ack(AckDemand::Now);
    }

    /// Makes the other end say where it stands and what its window is, though there is nothing to
    /// send: it may have said so in a segment that was lost.
    pub fn ask(&mut self) {
        self.probe_due |= self.state.is_synchronized() && self.state != State::TimeWait;
    }

    /// The other end shall not be shown a window beyond `edge`, whatever there is room for: the
    /// program passes the stream on, and whoever it is for takes no more. What was shown stays
    /// shown. To be called with every change of that edge; a later one opens the window.
    pub fn limit_window(&mut self, edge: Seq) {
        self.receiver.limit_window(edge);
    }

    /// Queues as much of `data` as there is room for, and gives how many bytes that are. If it was
    /// not all, [`Event::Writable`] will come. The bytes are shared, not copied, and held until the
    /// other end has acknowledged them.
    pub fn write(&mut self, data: Bytes) -> Result<usize, WriteError> {
        if self.state == State::Closed {
            return Err(WriteError::Closed);
        }
        if !self.state.may_write() || self.sender.ended() {
            return Err(WriteError::Ended);
        }
        if self.sender.goes_beyond_end(data.len()) {
            self.give_up(End::OutputDiverged);
            return Err(WriteError::Closed);
        }
        Ok(self.sender.write(data))
    }

    /// Small segments wait while others are in flight, or no longer do (RFC 9293, MUST-17): as
    /// [`Config::nagle`], while the connection lasts.
    pub fn set_nagle(&mut self, on: bool) {
        self.config.nagle = on;
    }

    /// As [`Config::user_timeout`], while the connection lasts. What waits for an acknowledgment has
    /// waited for as long as it has.
    pub fn set_user_timeout(&mut self, timeout: std::time::Duration) {
        if self.state.is_synchronized() && self.timers.is_set(Timer::User) {
            let since = self.timers.due(Timer::User) - self.config.user_timeout;
            self.timers.set(Timer::User, since + timeout);
        }
        self.config.user_timeout = timeout;
    }

    /// Calls urgent what was written so far (RFC 9293, section 3.8.5). The other end is told at
    /// once, the bytes stay in their order. Programs that are not bound to it by an old protocol
    /// should not use it (SHLD-13).
    pub fn mark_urgent(&mut self) {
        if self.state.may_write() {
            self.sender.mark_urgent();
        }
    }

    /// How many of the bytes that come next from [`read`](Self::read) the other end calls urgent;
    /// they need not all have come.
    pub fn urgent(&self) -> u32 {
        self.receiver.urgent()
    }

    /// After a restore without output: everything is written again that a former node's program had
    /// written. What is written from now on waits for the other end to say how far it is, and an
    /// acknowledgment of more than is sent here ends the connection with [`End::OutputDiverged`]: it is
    /// one of another output.
    ///
    /// Without this, or [`shutdown`](Self::shutdown), what the other end has of a former node's output
    /// is taken for what will be written next.
    pub fn output_is_complete(&mut self) {
        if self.state != State::Closed && !self.sender.complete_regeneration() {
            self.give_up(End::OutputDiverged);
        }
    }

    /// Ends the stream to the other end, behind what was written (a half close). Again does
    /// nothing.
    pub fn shutdown(&mut self) {
        if !self.state.may_write() || self.sender.ended() {
            return;
        }
        if !self.sender.end() {
            self.give_up(End::OutputDiverged);
            return;
        }
        self.state = self.state.after_shutdown();
        if self.sender.fin_acknowledged() {
            self.leave_after_fin();
        }
    }

    /// Ends the stream, and wants nothing more of the other end's. If bytes of it are unread or not
    /// acknowledged, or still come, the connection is reset (RFC 9293, section 3.6.1): so the
    /// other end knows that they were lost.
    pub fn close(&mut self) {
        if self.state == State::SynSent {
            self.finish(End::Aborted);
            return;
        }
        self.deaf = true;
        let missing = self.receiver.withheld() > u32::from(self.receiver.finished());
        if self.receiver.unread() > 0 || missing {
            self.abort();
            return;
        }
        self.receiver.acknowledge_from_now_on();
        self.shutdown();
    }

    /// Resets the connection. What was written and not acknowledged may be lost.
    pub fn abort(&mut self) {
        self.give_up(End::Aborted);
    }

    /// What the program may want to act on.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    /// Bytes that can be written now.
    pub fn write_capacity(&self) -> usize {
        if self.state.may_write() { self.sender.room() } else { 0 }
    }

    /// Bytes that can be read now.
    pub fn unread(&self) -> usize {
        self.receiver.unread()
    }

    /// Bytes that were received in order, read or not, and are not acknowledged.
    pub fn withheld(&self) -> u32 {
        let end = self.receiver.finished() && !self.receiver.end_acknowledged();
        self.receiver.withheld() - u32::from(end)
    }

    /// Bytes written that the other end has not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.sender.queued()
    }

    /// What is known of how the connection fares.
    pub fn statistics(&self) -> Statistics {
        let (congestion_window, slow_start_threshold) = self.sender.windows();
        Statistics {
            smoothed_rtt: self.sender.rtt.smoothed(),
            retransmission_timeout: self.sender.rtt.rto(),
            congestion_window,
            slow_start_threshold,
            send_window: self.sender.window.size,
            in_flight: self.sender.pipe(),
            path_mtu: self.path.mtu(),
        }
    }

    /// Whether the byte at `seq` has arrived while something before it has not.
    pub fn is_ahead(&self, seq: Seq) -> bool {
        self.receiver.is_ahead(seq)
    }

    /// The sequence numbers at which the connection stands.
    pub fn positions(&self) -> Positions {
        Positions {
            sent_acknowledged: self.sender.una,
            sent: self.sender.nxt,
            written: self.sender.data_end(),
            send_edge: self.sender.una + self.sender.window.size,
            acknowledged: self.receiver.acknowledged(),
            read: self.receiver.read_up_to(),
            received: self.receiver.received(),
        }
    }

    /// Tells an event, unless it waits to be told already.
    pub(super) fn tell(&mut self, event: Event) {
        if let (Event::OutputSkipped(more), Some(Event::OutputSkipped(count))) =
            (event, self.events.iter_mut().find(|e| matches!(e, Event::OutputSkipped(_))))
        {
            *count = count.saturating_add(more);
        } else if !self.events.contains(&event) {
            self.events.push_back(event);
        }
    }

    /// The connection is over, with a reset if the other end knows of it.
    pub(super) fn give_up(&mut self, end: End) {
        let known = self.state.is_synchronized() || self.state == State::SynReceived;
        self.reset_due = known && self.state != State::TimeWait;
        let may_miss = self.reset_due && self.awaits_report;
        self.finish(end);
        if may_miss {
            self.begin_parting();
        }
    }

    /// The connection is over.
    pub(super) fn finish(&mut self, end: End) {
        if self.state == State::Closed {
            return;
        }
        self.state = State::Closed;
        self.sender.stop(&mut self.timers);
        self.reply = None;
        self.probe_due = false;
        self.end = Some(end);
        self.tell(Event::Closed(end));
    }

    /// The path or the options have changed what a full segment is.
    pub(super) fn update_mss(&mut self, resend: bool) {
        let mss = self.full_segment();
        if self.sender.mss() != mss {
            self.sender.set_mss(mss, resend);
        }
    }

    /// Payload bytes of a segment with timestamps, if they are used, and no other options.
    pub(super) fn full_segment(&self) -> u32 {
        let timestamps = if self.agreed.timestamps { 12 } else { 0 };
        u32::from(self.agreed.peer_mss.min(self.path.mss())).saturating_sub(timestamps).max(1)
    }

    /// Starts and stops the timers that follow from the state.
    pub(super) fn settle_timers(&mut self, now: Time) {
        match self.receiver.demand() {
            AckDemand::Delayed => {
                self.timers.start(Timer::DelayedAck, now + self.config.delayed_ack)
            }
            _ => self.timers.stop(Timer::DelayedAck),
        }
        if self.sender.wants_persist() {
            self.timers.start(Timer::Persist, now + self.sender.rtt.rto());
        } else {
            self.timers.stop(Timer::Persist);
        }
        if self.sender.awaits_acknowledgment() {
            self.timers.start(Timer::User, now + self.config.user_timeout);
        } else {
            self.timers.stop(Timer::User);
        }
        if self.sender.is_idle() {
            self.settle_keep_alive(now);
        } else {
            self.timers.stop(Timer::KeepAlive);
        }
        self.settle_linger(now);
    }

    fn settle_keep_alive(&mut self, now: Time) {
        let lasting = matches!(self.state, State::Established | State::CloseWait | State::FinWait2);
        match self.config.keep_alive {
            Some(keep_alive) if lasting => {
                self.timers.start(Timer::KeepAlive, now + keep_alive.idle);
            }
            _ => self.timers.stop(Timer::KeepAlive),
        }
    }

    fn settle_linger(&mut self, now: Time) {
        match self.state {
            // The other end repeats its FIN until that is acknowledged; only then time runs.
            State::TimeWait if self.receiver.end_acknowledged() => {
                self.timers.start(Timer::Linger, now + self.config.time_wait);
            }
            State::FinWait2 if self.deaf => {
                self.timers.start(Timer::Linger, now + self.config.fin_wait);
            }
            _ => self.timers.stop(Timer::Linger),
        }
    }

    pub(super) fn check(&self) {
        debug_assert!(self.receiver.is_consistent(), "{:?}", self.receiver);
        debug_assert!(self.sender.is_consistent(), "{:?}", self.sender);
    }
}

/// How a connection fares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Statistics {
    /// SRTT, once measured.
    pub smoothed_rtt: Option<std::time::Duration>,
    /// RTO, with its backoff.
    pub retransmission_timeout: std::time::Duration,
    /// cwnd, bytes.
    pub congestion_window: u32,
    /// ssthresh, bytes.
    pub slow_start_threshold: u32,
    /// SND.WND, bytes.
    pub send_window: u32,
    /// Bytes that are estimated to be in the network.
    pub in_flight: u32,
    /// Bytes of an IP packet.
    pub path_mtu: u16,
}

/// Sequence numbers of a connection. Those of each direction are in order, on the circle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Positions {
    /// SND.UNA.
    pub sent_acknowledged: Seq,
    /// SND.NXT.
    pub sent: Seq,
    /// Behind the last byte written.
    pub written: Seq,
    /// The right edge of the other end's window.
    pub send_edge: Seq,
    /// SEG.ACK of what is sent.
    pub acknowledged: Seq,
    /// The first byte not read.
    pub read: Seq,
    /// RCV.NXT.
    pub received: Seq,
}
