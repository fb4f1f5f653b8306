//! What a connection sends.

use super::{
    connection::Connection,
    negotiation::{syn_ack_options, syn_options},
    receiver::AckDemand,
    sender::{Piece, SendLimits},
    state::State,
    timers::Timer,
    transmit::Transmit,
};
use crate::{
    seq::Seq,
    time::Time,
    wire::{Flags, Options, SackBlocks, Timestamps},
};

/// Room for headers in an IP packet of 65,535 bytes.
const HEADERS: u32 = 40 + 60;

/// The byte that a probe carries. Nobody reads it.
const GARBAGE: &[u8] = &[0];

impl Connection {
    /// The next segment, or super-segment, to be sent. See the type for when to ask.
    pub fn poll_transmit(&mut self, now: Time) -> Option<Transmit> {
        if std::mem::take(&mut self.reset_due) {
            return Some(self.reset(now));
        }
        if let Some(reply) = self.reply.take() {
            return Some(reply);
        }
        let transmit = match self.state {
            State::Closed => self.asks_in_parting(now).then(|| {
                let options = self.options(now);
                self.probe(options)
            }),
            State::SynSent | State::SynReceived => self.poll_handshake(now),
            _ => self.poll_stream(now),
        };
        if transmit.is_none() && self.state.is_synchronized() {
            self.settle_timers(now);
        }
        self.check();
        transmit
    }

    fn poll_handshake(&mut self, now: Time) -> Option<Transmit> {
        if !std::mem::take(&mut self.handshake.due) {
            return None;
        }
        self.handshake.attempts += 1;
        self.handshake.sent_at = now;
        self.timers.set(Timer::Retransmit, now + self.sender.rtt.rto());
        self.timers.start(Timer::User, now + self.config.connect_timeout);
        let value = self.clock.value(now);
        Some(if self.state == State::SynSent { self.syn(value) } else { self.syn_ack(value) })
    }

    fn syn(&mut self, value: u32) -> Transmit {
        // A middlebox that drops SYNs with ECN is not asked again (RFC 3168, section 6.1.1.1).
        let ecn = self.config.ecn && self.handshake.attempts == 1;
        let flags = if ecn { Flags::SYN | Flags::ECE | Flags::CWR } else { Flags::SYN };
        let window = self.config.receive_buffer.min(self.config.withheld_limit);
        let window = window.min(u16::MAX.into()) as u16;
        Transmit {
            window,
            options: syn_options(&self.config, self.tuple, value),
            ..self.segment(self.sender.iss, None, flags)
        }
    }

    fn syn_ack(&mut self, value: u32) -> Transmit {
        let flags = if self.agreed.ecn { Flags::SYN | Flags::ECE } else { Flags::SYN };
        let timestamps = Timestamps { value, echo: self.receiver.paws.recent };
        let scaling = self.handshake.peer_scales && self.config.window_scaling;
        let options = syn_ack_options(&self.config, self.tuple, &self.agreed, scaling, timestamps);
        let ack = self.receiver.acknowledged();
        let window = self.receiver.syn_window_field();
        Transmit { window, options, ..self.segment(self.sender.iss, Some(ack), flags) }
    }

    fn poll_stream(&mut self, now: Time) -> Option<Transmit> {
        let options = self.options(now);
        if let Some(piece) = self.sender.next_piece(now, &self.limits(&options)) {
            return Some(self.stream_segment(now, piece, options));
        }
        if std::mem::take(&mut self.probe_due) {
            return Some(self.probe(options));
        }
        (self.receiver.demand() == AckDemand::Now).then(|| self.acknowledgment(options))
    }

    fn limits(&self, options: &Options) -> SendLimits {
        let base = u32::from(self.agreed.peer_mss.min(self.path.mss()));
        let segment = base.saturating_sub(options.len() as u32).max(1);
        let most = u32::from(self.config.max_super_segment).min(u32::from(u16::MAX) - HEADERS);
        SendLimits {
            segment,
            super_segment: (most / segment * segment).max(segment),
            nagle: self.config.nagle,
        }
    }

    fn stream_segment(&mut self, now: Time, piece: Piece, options: Options) -> Transmit {
        let segment = self.limits(&options).segment;
        let mut flags = Flags::NONE;
        for (set, flag) in [
            (piece.fin, Flags::FIN),
            (piece.push, Flags::PSH),
            (piece.cwr && self.agreed.ecn, Flags::CWR),
        ] {
            if set {
                flags |= flag;
            }
        }
        let end = piece.start + piece.len;
        self.path.note_sent(end, piece.len >= segment);
        self.sender.arm(now, &mut self.timers);
        Transmit {
            payload: self.sender.data(piece.start, piece.len),
            segment_size: segment as u16,
            urgent: self.sender.urgent_pointer(piece.start),
            // Not what is sent again (RFC 3168, section 6.1.5).
            ecn_capable: self.agreed.ecn && !piece.repeated && piece.len > 0,
            ..self.acknowledging(piece.start, flags, options)
        }
    }

    fn acknowledgment(&mut self, options: Options) -> Transmit {
        self.acknowledging(self.sender.nxt, Flags::NONE, options)
    }

    /// One byte that the other end has: it answers with what it has (RFC 9293, section 3.8.4).
    fn probe(&mut self, options: Options) -> Transmit {
        Transmit {
            payload: vec![GARBAGE.into()],
            segment_size: 1,
            ..self.acknowledging(self.sender.una - 1, Flags::NONE, options)
        }
    }

    fn reset(&mut self, now: Time) -> Transmit {
        let options = Options { sack: SackBlocks::default(), ..self.options(now) };
        let ack = self.receiver.acknowledged();
        Transmit { options, ..self.segment(self.sender.nxt, Some(ack), Flags::RST) }
    }

    /// A segment of an established connection: all of them acknowledge.
    fn acknowledging(&mut self, seq: Seq, mut flags: Flags, options: Options) -> Transmit {
        if self.agreed.ecn && self.receiver.congestion_echo() {
            flags |= Flags::ECE;
        }
        let window = self.receiver.window_field();
        let ack = self.receiver.acknowledged();
        self.receiver.acknowledgment_sent();
        self.timers.stop(Timer::DelayedAck);
        Transmit { window, options, ..self.segment(seq, Some(ack), flags) }
    }

    pub(super) fn segment(&self, seq: Seq, ack: Option<Seq>, flags: Flags) -> Transmit {
        Transmit {
            tuple: self.tuple,
            seq,
            ack,
            flags,
            window: 0,
            urgent: None,
            options: Options::default(),
            payload: Vec::new(),
            segment_size: 0,
            ecn_capable: false,
            hop_limit: self.config.hop_limit,
            dscp: self.config.dscp & 0x3f,
        }
    }

    /// The options of a segment that is sent now.
    fn options(&self, now: Time) -> Options {
        let timestamps =
            Timestamps { value: self.clock.value(now), echo: self.receiver.paws.recent };
        Options {
            timestamps: self.agreed.timestamps.then_some(timestamps),
            sack: self.receiver.sack_blocks(if self.agreed.timestamps { 3 } else { 4 }),
            ..Options::default()
        }
    }
}
