//! How a connection begins: with a SYN of our own, with one that came, or with a handshake that is
//! over.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr},
};

use siphasher::sip::SipHasher24;

use super::{
    arrival::Arrival,
    challenge::ChallengeLimit,
    config::Config,
    connection::Connection,
    negotiation::{Negotiated, TimestampClock},
    outcome::{End, Event},
    path_mtu::PathMtu,
    receiver::{Paws, Receiver},
    sender::Sender,
    state::State,
    timers::{Timer, Timers},
};
use crate::{
    cookie::initial_sequence,
    seq::Seq,
    time::Time,
    wire::{Endpoint, Flags, FourTuple, Options},
};

/// The numbers that a new connection starts with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opening {
    /// The two ends, as packets sent will have them.
    pub tuple: FourTuple,
    /// The initial sequence number.
    pub iss: Seq,
    /// Added to `now` in milliseconds to make TSval.
    pub timestamp_offset: u32,
}

impl Opening {
    /// Numbers that nobody can guess who does not know `key` (RFC 6528; RFC 7323, section 5.4),
    /// and that do not run back for the same ends while `clock_us` does not: a clock in
    /// microseconds that is shared by all nodes that may serve the connection. `now` is this
    /// node's.
    pub fn keyed(key: &[u8; 16], tuple: FourTuple, clock_us: u64, now: Time) -> Self {
        let mut message = [0; FourTuple::BYTES + 1];
        message[..FourTuple::BYTES].copy_from_slice(&tuple.to_bytes());
        message[FourTuple::BYTES] = 1; // Apart from the hash of the initial sequence number.
        let offset = SipHasher24::new_with_key(key).hash(&message) as u32;
        let ahead = (clock_us / 1_000).wrapping_sub(now.as_millis()) as u32;
        Opening {
            tuple,
            iss: initial_sequence(key, tuple, clock_us),
            timestamp_offset: offset.wrapping_add(ahead),
        }
    }
}

/// A handshake that was completed elsewhere: by a listener with SYN cookies, or by the node that
/// hands the connection over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handshake {
    /// Ends, own initial sequence number, own clock.
    pub opening: Opening,
    /// The other end's initial sequence number.
    pub irs: Seq,
    /// What was agreed on.
    pub negotiated: Negotiated,
    /// The window that the other end's last segment shows, not scaled.
    pub window: u16,
    /// The timestamp that the other end's last segment had, if timestamps are used.
    pub timestamp: u32,
}

/// Why a connection cannot be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// An end has no port, or an address that is not one host's (RFC 9293, section 3.9.2.3). A SYN
    /// with such an address is dropped without an answer.
    #[error("not an address of one host")]
    Address,
    /// It is none, or has flags that no SYN of a client has.
    #[error("not a SYN that opens a connection")]
    NotASyn,
    /// Its ends are not those of the connection to be made.
    #[error("the SYN has other ends")]
    OtherEnds,
    /// It asks for authentication (RFC 2385, RFC 5925), which there is none of.
    #[error("the SYN is authenticated")]
    Authenticated,
}

/// What matters only until the handshake is complete.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Handshaking {
    /// A SYN or SYN-ACK is to be sent.
    pub(super) due: bool,
    /// How often one was sent.
    pub(super) attempts: u32,
    /// When, the last time.
    pub(super) sent_at: Time,
    /// The SYN came with window scaling, so the SYN-ACK may have it.
    pub(super) peer_scales: bool,
    /// The connection was opened by a SYN that came.
    pub(super) passive: bool,
}

impl Connection {
    /// Opens a connection: a SYN is to be sent.
    pub fn connect(opening: Opening, config: Config) -> Result<Self, OpenError> {
        check_ends(opening.tuple)?;
        let nothing = Options::default();
        let agreed = Negotiated::from_syn(&config, opening.tuple, &nothing, config.ecn);
        let mut connection = Self::unopened(opening, Seq(0), config, agreed, State::SynSent);
        connection.handshake.due = true;
        connection.sender.syn_sent();
        Ok(connection)
    }

    /// Accepts a connection: `syn` came, and a SYN-ACK is to be sent. Data in the SYN is not taken;
    /// it will come again.
    pub fn accept(
        now: Time,
        syn: &Arrival,
        opening: Opening,
        config: Config,
    ) -> Result<Self, OpenError> {
        if !syn.has(Flags::SYN) || syn.flags.intersects(Flags::ACK | Flags::RST | Flags::FIN) {
            return Err(OpenError::NotASyn);
        }
        if syn.tuple != opening.tuple.reversed() {
            return Err(OpenError::OtherEnds);
        }
        check_ends(opening.tuple)?;
        if syn.options.authenticated {
            return Err(OpenError::Authenticated);
        }
        let ecn = config.ecn && syn.has(Flags::ECE | Flags::CWR);
        let agreed = Negotiated::from_syn(&config, opening.tuple, &syn.options, ecn);
        let mut connection = Self::unopened(opening, syn.seq, config, agreed, State::SynReceived);
        connection.handshake.due = true;
        connection.handshake.passive = true;
        connection.sender.syn_sent();
        connection.note_syn(now, syn);
        Ok(connection)
    }

    /// Goes on from a handshake that is over. The other end may have sent data already: it will
    /// send it again.
    pub fn established(now: Time, handshake: &Handshake, config: Config) -> Self {
        let (opening, agreed) = (handshake.opening, handshake.negotiated);
        let mut connection =
            Self::unopened(opening, handshake.irs, config, agreed, State::SynReceived);
        connection.handshake.passive = true;
        connection.receiver.paws = Paws::start(handshake.timestamp, now);
        connection.establish(
            now,
            handshake.irs + 1,
            u32::from(handshake.window) << agreed.send_scale,
        );
        connection
    }

    pub(super) fn unopened(
        opening: Opening,
        irs: Seq,
        config: Config,
        agreed: Negotiated,
        state: State,
    ) -> Self {
        let clock = TimestampClock { offset: opening.timestamp_offset };
        Connection {
            tuple: opening.tuple,
            config,
            state,
            agreed,
            clock,
            handshake: Handshaking::default(),
            receiver: Receiver::new(&config, irs, &agreed),
            sender: Sender::new(&config, opening.iss, clock),
            timers: Timers::new(),
            path: PathMtu::new(opening.tuple, config.mtu),
            challenges: ChallengeLimit::new(),
            reply: None,
            reset_due: false,
            probe_due: false,
            awaits_report: false,
            parting: 0,
            keep_alive_probes: 0,
            deaf: false,
            events: VecDeque::new(),
            end: None,
        }
    }

    /// Takes what a SYN or SYN-ACK says beside its sequence number.
    fn note_syn(&mut self, now: Time, syn: &Arrival) {
        self.handshake.peer_scales = syn.options.window_scale.is_some();
        if let Some(timestamps) = syn.options.timestamps {
            self.receiver.paws = Paws::start(timestamps.value, now);
        }
        // The window of a SYN is not scaled (RFC 7323, section 2.2).
        self.sender.window.size = syn.window.into();
        self.sender.window.largest = syn.window.into();
        self.sender.window.wl1 = syn.seq;
    }

    /// The other end's SYN has come to our SYN, with an acknowledgment of it or without.
    pub(super) fn take_syn(&mut self, now: Time, syn: &Arrival) {
        let with_ack = syn.ack.is_some();
        let ecn = if with_ack {
            // ECE without CWR (RFC 3168, section 6.1.1).
            syn.has(Flags::ECE) && !syn.has(Flags::CWR) && self.handshake.attempts == 1
        } else {
            syn.has(Flags::ECE | Flags::CWR)
        };
        let ecn = ecn && self.config.ecn;
        self.agreed = Negotiated::from_syn(&self.config, self.tuple, &syn.options, ecn);
        self.receiver = Receiver::new(&self.config, syn.seq, &self.agreed);
        self.note_syn(now, syn);
        if with_ack {
            self.receiver.ask_for_ack(super::receiver::AckDemand::Now);
            self.establish(now, syn.seq, syn.window.into());
        } else {
            self.state = State::SynReceived;
            self.handshake = Handshaking { due: true, attempts: 0, ..self.handshake };
        }
    }

    /// The handshake is complete; `seq` and `window` are those of the segment that says so.
    pub(super) fn establish(&mut self, now: Time, seq: Seq, window: u32) {
        let repeated = self.handshake.attempts > 1;
        let mss = self.full_segment();
        self.sender.established(&self.config, &self.agreed, mss, repeated);
        if self.handshake.attempts == 1 {
            self.sender.rtt.sample(now, now.since(self.handshake.sent_at));
        }
        let una = self.sender.una;
        let send_window = &mut self.sender.window;
        (send_window.size, send_window.wl1, send_window.wl2) = (window, seq, una);
        send_window.largest = send_window.largest.max(window);
        send_window.edge = una + window;
        self.handshake.due = false;
        self.timers.stop(Timer::Retransmit);
        self.timers.stop(Timer::User);
        self.state = State::Established;
        if self.sender.ended() {
            self.state = self.state.after_shutdown();
        }
        self.tell(Event::Established);
    }

    /// A SYN or SYN-ACK was not answered in time.
    pub(super) fn repeat_syn(&mut self) {
        self.sender.rtt.back_off();
        self.handshake.due = true;
    }

    /// The handshake takes too long.
    pub(super) fn give_up_handshake(&mut self) {
        self.finish(End::ConnectTimeout);
    }
}

/// Both ends are single hosts, of one IP version (RFC 9293, MUST-46, MUST-57, MUST-63). A directed
/// broadcast cannot be told from a host here.
fn check_ends(tuple: FourTuple) -> Result<(), OpenError> {
    let is_host = |end: Endpoint| {
        let odd = end.addr.is_multicast() || end.addr.is_unspecified();
        !odd && end.addr != IpAddr::V4(Ipv4Addr::BROADCAST) && end.port != 0
    };
    let hosts = is_host(tuple.source) && is_host(tuple.destination);
    if hosts && tuple.version().is_some() { Ok(()) } else { Err(OpenError::Address) }
}
