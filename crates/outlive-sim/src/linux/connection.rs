//! One connection: what a segment does to it (RFC 9293, section 3.10.7, with what Linux was seen to do).

use std::time::Duration;

use outlive_tcp::{
    segment::{DEFAULT_HOP_LIMIT, Segment},
    seq::Seq,
    time::Time,
    wire::{Flags, FourTuple, Options, Timestamps},
};

use super::{
    receiver::{Arrival, Receiver},
    sender::{Acknowledgment, Sender},
};
use crate::packet::Seen;

/// States of RFC 9293, section 3.3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    SynSent,
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    Closing,
    TimeWait,
    CloseWait,
    LastAck,
    Closed,
}

const TIME_WAIT: Duration = Duration::from_secs(60);
/// Answers to segments that are not acceptable and carry nothing (`tcp_invalid_ratelimit`).
const INVALID_PAUSE: Duration = Duration::from_millis(500);
const DELAYED_ACK: Duration = Duration::from_millis(40);
const FIRST_SYN_TIMEOUT: Duration = Duration::from_secs(1);
const SYNS: u32 = 7;

/// What a host is made with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    pub(super) buffer: usize,
    pub(super) scale: u8,
    pub(super) timestamps: bool,
    pub(super) sack: bool,
    pub(super) mss: u16,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// The tuple of what it sends.
    pub(super) tuple: FourTuple,
    pub(super) state: State,
    habits: Habits,
    pub(super) iss: Seq,
    sender: Sender,
    receiver: Receiver,
    scaling: bool,
    sack: bool,
    timestamps: bool,
    /// Added to milliseconds to get TSval.
    clock_offset: u32,
    /// TS.Recent, and RCV.NXT as it was acknowledged last.
    recent: u32,
    acked: Seq,
    /// TSval of the first and of the last SYN.
    syn_stamps: (u32, u32),
    syns: u32,
    syn_timer: Option<Time>,
    delayed_ack: Option<Time>,
    unacked_segments: u32,
    ack_now: bool,
    invalid_answered: Option<Time>,
    time_wait_until: Time,
    /// Fully made packets.
    pub(super) out: Vec<Vec<u8>>,
}

impl Connection {
    /// A client's connection; its SYN is ready to be sent.
    pub(super) fn connect(
        tuple: FourTuple,
        habits: Habits,
        iss: Seq,
        clock_offset: u32,
        now: Time,
    ) -> Self {
        let mut connection = Self::new(tuple, habits, iss, clock_offset, State::SynSent, Seq(0));
        connection.send_syn(now);
        connection
    }

    /// A server's connection that `syn` asks for; the answer is ready to be sent.
    pub(super) fn accept(
        syn: &Seen,
        habits: Habits,
        iss: Seq,
        clock_offset: u32,
        now: Time,
    ) -> Self {
        let tuple = syn.tuple.reversed();
        let mut connection =
            Self::new(tuple, habits, iss, clock_offset, State::SynReceived, syn.seq);
        connection.negotiate(syn);
        connection.send_syn(now);
        connection
    }

    fn new(
        tuple: FourTuple,
        habits: Habits,
        iss: Seq,
        clock_offset: u32,
        state: State,
        irs: Seq,
    ) -> Self {
        Connection {
            tuple,
            state,
            habits,
            iss,
            sender: Sender::new(iss),
            receiver: Receiver::new(irs, habits.buffer, habits.scale),
            scaling: true,
            sack: habits.sack,
            timestamps: habits.timestamps,
            clock_offset,
            recent: 0,
            acked: irs + 1,
            syn_stamps: (0, 0),
            syns: 0,
            syn_timer: None,
            delayed_ack: None,
            unacked_segments: 0,
            ack_now: false,
            invalid_answered: None,
            time_wait_until: Time::NEVER,
            out: Vec::new(),
        }
    }

    fn stamp(&self, now: Time) -> u32 {
        (now.as_millis() as u32).wrapping_add(self.clock_offset)
    }

    /// Takes over what the other end's SYN says.
    fn negotiate(&mut self, syn: &Seen) {
        let options = &syn.options;
        self.scaling = options.window_scale.is_some();
        self.sack &= options.sack_permitted;
        self.timestamps &= options.timestamps.is_some();
        let scale = if self.scaling { self.habits.scale } else { 0 };
        self.receiver = Receiver::new(syn.seq, self.habits.buffer, scale);
        self.sender.scale = options.window_scale.unwrap_or(0);
        self.recent = options.timestamps.unwrap_or_default().value;
        self.acked = syn.seq + 1;
        let overhead = if self.timestamps { 12 } else { 0 };
        let mss = options.mss.unwrap_or(536).min(self.habits.mss) - overhead;
        // The window of a SYN is not scaled.
        self.sender.established(usize::from(mss), u32::from(syn.window), syn.seq);
    }

    // ── the application

    pub(super) fn read(&mut self, out: &mut [u8]) -> usize {
        let count = self.receiver.read(out);
        self.ack_now |= count > 0 && self.receiver.has_opened(self.sender.mss);
        count
    }

    pub(super) fn unread(&self) -> usize {
        self.receiver.unread()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.receiver.ended
    }

    pub(super) fn room(&self) -> usize {
        match self.state {
            State::Established | State::CloseWait => self.sender.room(),
            _ => 0,
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.sender.write(bytes);
    }

    pub(super) fn close(&mut self) {
        self.sender.close();
        self.state = match self.state {
            State::Established => State::FinWait1,
            State::CloseWait => State::LastAck,
            other => other,
        };
    }

    /// Whether a SYN may take the place of this connection, which is in TIME-WAIT (RFC 6191).
    pub(super) fn gives_way(&self, syn: &Seen) -> bool {
        let later = syn.seq.after(self.receiver.nxt);
        let newer = syn
            .options
            .timestamps
            .filter(|_| self.timestamps)
            .is_some_and(|t| (t.value.wrapping_sub(self.recent) as i32) > 0);
        later || newer
    }

    // ── segments

    pub(super) fn receive(&mut self, now: Time, seen: &Seen, payload: &[u8]) {
        match self.state {
            State::SynSent => self.in_syn_sent(now, seen),
            State::Closed => {}
            State::SynReceived => self.in_syn_received(now, seen, payload),
            _ => self.synchronised(now, seen, payload),
        }
    }

    fn in_syn_sent(&mut self, now: Time, seen: &Seen) {
        let good = seen.ack == Some(self.iss + 1);
        if seen.has(Flags::RST) {
            if good {
                self.state = State::Closed;
            }
            return;
        }
        if let Some(ack) = seen.ack.filter(|_| !good || !self.echo_is_ours(seen)) {
            return self.send_reset(ack);
        }
        if good && seen.has(Flags::SYN) {
            self.negotiate(seen);
            self.state = State::Established;
            self.syn_timer = None;
            self.sample_syn(now, seen);
            self.ack_now = true;
        }
    }

    /// The echo of a handshake must be one of the timestamps that were sent in it.
    fn echo_is_ours(&self, seen: &Seen) -> bool {
        let (first, last) = self.syn_stamps;
        seen.options.timestamps.is_none_or(|t| {
            !self.timestamps || t.echo.wrapping_sub(first) <= last.wrapping_sub(first)
        })
    }

    /// The handshake's round trip, if it was not repeated.
    fn sample_syn(&mut self, now: Time, seen: &Seen) {
        let sample = seen
            .options
            .timestamps
            .filter(|_| self.timestamps)
            .map(|t| Duration::from_millis(u64::from(self.stamp(now).wrapping_sub(t.echo))));
        let window = u32::from(seen.window);
        let window = if seen.has(Flags::SYN) { window } else { window << self.sender.scale };
        let una = self.sender.una;
        let news =
            Acknowledgment { seq: seen.seq, ack: una, window, has_data: false, sack: &[], sample };
        self.sender.acknowledged(now, &news);
        if let Some(sample) = sample {
            self.sender.first_sample(sample);
        }
    }

    fn in_syn_received(&mut self, now: Time, seen: &Seen, payload: &[u8]) {
        if seen.has(Flags::RST) {
            if seen.seq == self.receiver.nxt {
                self.state = State::Closed;
            }
            return;
        }
        if seen.has(Flags::SYN) {
            return self.send_syn(now);
        }
        let Some(ack) = seen.ack else { return };
        if ack != self.iss + 1 {
            return self.send_reset(ack);
        }
        if !self.echo_is_ours(seen) {
            // Linux says nothing.
            return;
        }
        self.state = State::Established;
        self.syn_timer = None;
        self.sample_syn(now, seen);
        self.synchronised(now, seen, payload);
    }

    fn synchronised(&mut self, now: Time, seen: &Seen, payload: &[u8]) {
        let reset = seen.has(Flags::RST);
        let stamps = seen.options.timestamps.filter(|_| self.timestamps);
        // PAWS (RFC 7323, section 5).
        if stamps.is_some_and(|t| (t.value.wrapping_sub(self.recent) as i32) < 0) && !reset {
            if seen.len() > 0 || seen.has(Flags::FIN) || seen.has(Flags::SYN) {
                self.ack_now = true;
            }
            return;
        }
        let end = seen.seq + seen.len() as u32 + u32::from(seen.has(Flags::FIN));
        let right = self.receiver.nxt + self.receiver.window();
        if end.before(self.acked) || seen.seq.after(right) {
            if !reset {
                self.unacceptable(now, seen);
            }
            return;
        }
        if reset {
            if self.state == State::TimeWait {
                // What was received stays readable, so it makes no difference to the application.
            } else if seen.seq == self.receiver.nxt {
                self.state = State::Closed;
            } else {
                self.challenge(now);
            }
            return;
        }
        if seen.has(Flags::SYN) {
            return self.challenge(now);
        }
        let Some(ack) = seen.ack else { return };
        if ack.after(self.sender.nxt) {
            return self.challenge(now);
        }
        if let Some(stamps) = stamps
            && seen.seq.at_or_before(self.acked)
        {
            self.recent = stamps.value;
        }
        let sample =
            stamps.map(|t| Duration::from_millis(u64::from(self.stamp(now).wrapping_sub(t.echo))));
        let window = u32::from(seen.window) << self.sender.scale;
        if self.sender.una.at_or_before(ack) {
            let sack = if self.sack { seen.options.sack.as_slice() } else { &[] };
            let has_data = seen.len() > 0;
            self.sender.acknowledged(
                now,
                &Acknowledgment { seq: seen.seq, ack, window, has_data, sack, sample },
            );
        }
        self.our_fin(now);
        self.their_bytes(now, seen, payload);
    }

    fn our_fin(&mut self, now: Time) {
        if !self.sender.fin_acknowledged() {
            return;
        }
        self.state = match self.state {
            State::FinWait1 => State::FinWait2,
            State::Closing => self.begin_time_wait(now),
            State::LastAck => State::Closed,
            other => other,
        };
    }

    fn begin_time_wait(&mut self, now: Time) -> State {
        self.time_wait_until = now + TIME_WAIT;
        State::TimeWait
    }

    fn their_bytes(&mut self, now: Time, seen: &Seen, payload: &[u8]) {
        let fin = seen.has(Flags::FIN);
        if self.receiver.ended {
            // Everything is there already: a copy.
            self.ack_now |= !payload.is_empty() || fin;
            if self.state == State::TimeWait && fin {
                self.time_wait_until = now + TIME_WAIT;
            }
            return;
        }
        match self.receiver.take(seen.seq, payload, fin) {
            Arrival::Nothing => {}
            Arrival::InOrder => {
                self.unacked_segments += 1;
                self.ack_now |= self.unacked_segments >= 2;
                self.delayed_ack.get_or_insert(now + DELAYED_ACK);
            }
            Arrival::Notable => self.ack_now = true,
        }
        if self.receiver.ended {
            self.state = match self.state {
                State::Established => State::CloseWait,
                State::FinWait1 => State::Closing,
                State::FinWait2 => self.begin_time_wait(now),
                other => other,
            };
            self.our_fin(now);
        }
    }

    /// An answer to a segment outside the window: at once if it carries something, else now and then.
    fn unacceptable(&mut self, now: Time, seen: &Seen) {
        if seen.len() == 0 && !seen.has(Flags::FIN) {
            return self.challenge(now);
        }
        if self.sack && seen.seq.before(self.receiver.nxt) {
            let end = seen.seq + seen.len() as u32;
            self.receiver.duplicate = Some(outlive_tcp::wire::SackBlock { start: seen.seq, end });
        }
        if self.state == State::TimeWait && seen.has(Flags::FIN) {
            self.time_wait_until = now + TIME_WAIT;
        }
        self.ack_now = true;
    }

    fn challenge(&mut self, now: Time) {
        if self.invalid_answered.is_none_or(|at| now.since(at) >= INVALID_PAUSE) {
            self.invalid_answered = Some(now);
            self.ack_now = true;
        }
    }

    // ── time

    pub(super) fn deadline(&self) -> Option<Time> {
        let time_wait = (self.state == State::TimeWait).then_some(self.time_wait_until);
        let alive = !matches!(self.state, State::TimeWait | State::Closed);
        let sender = self.sender.deadline().filter(|_| alive);
        [time_wait, sender, self.syn_timer, self.delayed_ack].into_iter().flatten().min()
    }

    /// Does what is due, and makes the packets that may be sent.
    pub(super) fn poll(&mut self, now: Time) {
        if self.state == State::TimeWait && now >= self.time_wait_until {
            self.state = State::Closed;
        }
        if self.syn_timer.is_some_and(|at| at <= now) {
            if self.syns >= SYNS {
                self.state = State::Closed;
            } else {
                self.send_syn(now);
            }
        }
        if self.delayed_ack.is_some_and(|at| at <= now) {
            self.ack_now = true;
        }
        if matches!(self.state, State::Closed) {
            self.syn_timer = None;
            self.delayed_ack = None;
            return;
        }
        if !matches!(self.state, State::SynSent | State::SynReceived) {
            self.sender.expire(now);
            if self.state != State::TimeWait {
                while let Some(chunk) = self.sender.next(now) {
                    let fin = if chunk.fin { Flags::FIN } else { Flags::NONE };
                    self.send(now, chunk.seq, fin, &chunk.payload);
                }
            }
            if self.ack_now {
                let nxt = self.sender.nxt;
                self.send(now, nxt, Flags::NONE, &[]);
            }
        }
    }

    fn send_syn(&mut self, now: Time) {
        let stamp = self.stamp(now);
        self.syn_stamps = (if self.syns == 0 { stamp } else { self.syn_stamps.0 }, stamp);
        self.syn_timer = Some(now + FIRST_SYN_TIMEOUT * 2u32.pow(self.syns.min(6)));
        self.syns += 1;
        let answer = self.state == State::SynReceived;
        let scale = self.scaling.then_some(self.habits.scale);
        let options = Options {
            mss: Some(self.habits.mss),
            window_scale: scale,
            sack_permitted: self.sack,
            timestamps: self.timestamps.then_some(Timestamps { value: stamp, echo: self.recent }),
            ..Options::default()
        };
        let window = self.receiver.window().min(0xffff) as u16;
        let segment = Segment {
            tuple: self.tuple,
            seq: self.iss,
            ack: answer.then_some(self.receiver.nxt),
            flags: Flags::SYN,
            window,
            options,
            payload: &[],
            hop_limit: DEFAULT_HOP_LIMIT,
        };
        let mut packet = Vec::new();
        segment.emit(&mut packet);
        self.out.push(packet);
    }

    fn send_reset(&mut self, seq: Seq) {
        self.out.push(reset(self.tuple, seq, None));
    }

    fn send(&mut self, now: Time, seq: Seq, flags: Flags, payload: &[u8]) {
        let stamps = Timestamps { value: self.stamp(now), echo: self.recent };
        let sack = if self.sack { self.receiver.sack() } else { Default::default() };
        let segment = Segment {
            tuple: self.tuple,
            seq,
            ack: Some(self.receiver.nxt),
            flags,
            window: self.receiver.show_window(),
            options: Options {
                timestamps: self.timestamps.then_some(stamps),
                sack,
                ..Options::default()
            },
            payload,
            hop_limit: DEFAULT_HOP_LIMIT,
        };
        let mut packet = Vec::new();
        segment.emit(&mut packet);
        self.out.push(packet);
        self.acked = self.receiver.nxt;
        self.ack_now = false;
        self.delayed_ack = None;
        self.unacked_segments = 0;
    }
}

/// A bare reset.
pub(super) fn reset(tuple: FourTuple, seq: Seq, ack: Option<Seq>) -> Vec<u8> {
    let mut packet = Vec::new();
    let segment = Segment {
        tuple,
        seq,
        ack,
        flags: Flags::RST,
        window: 0,
        options: Options::default(),
        payload: &[],
        hop_limit: DEFAULT_HOP_LIMIT,
    };
    segment.emit(&mut packet);
    packet
}
