//! What a program decides about a connection before it begins.

use std::time::Duration;

use crate::segment::DEFAULT_HOP_LIMIT;

/// Settings of a connection. All of them are local: nothing here has to agree with the other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Bytes of the largest IP packet that may be sent before anything is known of the path; the
    /// MSS that is announced comes from it too. At least 576 (IPv4) or 1,280 (IPv6) make sense.
    pub mtu: u16,
    /// Received bytes that may wait to be read. They are the memory of the receiving side, together
    /// with what came out of order.
    pub receive_buffer: u32,
    /// Received bytes that may be without an acknowledgment, read ones included. What is above
    /// [`receive_buffer`](Self::receive_buffer) costs no memory here, only at the sender.
    pub withheld_limit: u32,
    /// Written bytes that the other end need not have acknowledged yet.
    pub send_buffer: u32,
    /// Pieces that may be held out of order. Each keeps the buffer alive that it came in, so the
    /// memory is bounded by what the caller's buffers are, times this.
    pub reassembly_pieces: u16,
    /// When received bytes are acknowledged.
    pub acknowledge: Acknowledge,
    /// How long an acknowledgment may wait for company. Must be below 500 ms (RFC 9293, MUST-40).
    pub delayed_ack: Duration,
    /// Small segments wait while others are in flight (RFC 896).
    pub nagle: bool,
    /// Explicit congestion notification is offered and accepted (RFC 3168).
    pub ecn: bool,
    /// Selective acknowledgment is offered and accepted (RFC 2018).
    pub sack: bool,
    /// Timestamps are offered and accepted (RFC 7323).
    pub timestamps: bool,
    /// Window scaling is offered and accepted (RFC 7323).
    pub window_scaling: bool,
    /// How the congestion window grows and shrinks.
    pub congestion: Algorithm,
    /// Probing of an idle connection; off by default (RFC 9293, MUST-25).
    pub keep_alive: Option<KeepAlive>,
    /// How long what was sent may be without an acknowledgment before the connection is given up
    /// (RFC 5482; R2 of RFC 9293, section 3.8.3).
    pub user_timeout: Duration,
    /// The same for SYN and SYN-ACK. RFC 9293, MUST-23 asks for three minutes at least.
    pub connect_timeout: Duration,
    /// How long TIME-WAIT lasts: two maximum segment lifetimes.
    pub time_wait: Duration,
    /// How long FIN-WAIT-2 lasts once the program has closed both directions.
    pub fin_wait: Duration,
    /// The least retransmission timeout. RFC 6298 recommends one second; Linux and others take
    /// 200 ms, and so does the default.
    pub min_rto: Duration,
    /// TTL or hop limit of what is sent.
    pub hop_limit: u8,
    /// Differentiated services code point of what is sent (RFC 2474), 6 bits.
    pub dscp: u8,
    /// Payload bytes of one [`Transmit`](super::Transmit) at most: several segments, which a device
    /// or [`Transmit::segments`](super::Transmit::segments) cuts. Below two segments there are no
    /// super-segments.
    pub max_super_segment: u16,
}

/// When received bytes are acknowledged to their sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acknowledge {
    /// When the program says so, with [`Connection::acknowledge`](super::Connection::acknowledge).
    Explicitly,
    /// When the program has read them.
    OnRead,
    /// When they have arrived, as every other TCP does.
    OnReceipt,
}

/// Algorithms of congestion control.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// RFC 9438.
    Cubic,
    /// RFC 5681 and RFC 6582.
    NewReno,
}

/// Probing of an idle connection (RFC 9293, section 3.8.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeepAlive {
    /// Silence before the first probe. RFC 9293, MUST-28 wants two hours as the default of systems.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Probes without an answer before the connection is given up.
    pub probes: u8,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            mtu: 1_500,
            receive_buffer: 1 << 20,
            withheld_limit: 1 << 20,
            send_buffer: 1 << 20,
            reassembly_pieces: 1_024,
            acknowledge: Acknowledge::Explicitly,
            delayed_ack: Duration::from_millis(40),
            nagle: true,
            ecn: false,
            sack: true,
            timestamps: true,
            window_scaling: true,
            congestion: Algorithm::Cubic,
            keep_alive: None,
            user_timeout: Duration::from_secs(120),
            connect_timeout: Duration::from_secs(180),
            time_wait: Duration::from_secs(60),
            fin_wait: Duration::from_secs(60),
            min_rto: Duration::from_millis(200),
            hop_limit: DEFAULT_HOP_LIMIT,
            dscp: 0,
            max_super_segment: u16::MAX,
        }
    }
}

impl Default for KeepAlive {
    fn default() -> Self {
        let (idle, interval) = (Duration::from_secs(7_200), Duration::from_secs(75));
        KeepAlive { idle, interval, probes: 9 }
    }
}

impl Config {
    /// The scale for the receive window that is offered: the smallest with which the field can tell
    /// the whole window.
    pub(super) fn window_scale(&self) -> u8 {
        let window = self.receive_buffer.max(self.withheld_limit);
        (0..crate::wire::MAX_WINDOW_SCALE)
            .find(|&scale| u32::from(u16::MAX) << scale >= window)
            .unwrap_or(crate::wire::MAX_WINDOW_SCALE)
    }
}
