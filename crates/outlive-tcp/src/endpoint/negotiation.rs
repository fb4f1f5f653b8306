//! What the two ends agree on in their SYNs.

use super::config::Config;
use crate::{
    time::Time,
    wire::{FourTuple, IpVersion, Options, Timestamps},
};

/// The least MSS that is believed. A smaller one would make a few bytes cost a packet each.
const LEAST_MSS: u16 = 64;

/// What both ends agreed on, as one of them sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Negotiated {
    /// The MSS that the other end announced, or the default of its IP version (RFC 9293, MUST-15).
    pub peer_mss: u16,
    /// The MSS that this end announced.
    pub own_mss: u16,
    /// The scale of windows that the other end announces.
    pub send_scale: u8,
    /// The scale of windows that this end announces.
    pub receive_scale: u8,
    /// Both use timestamps.
    pub timestamps: bool,
    /// Both permit SACK.
    pub sack: bool,
    /// Both do ECN.
    pub ecn: bool,
}

impl Negotiated {
    /// What comes of `peer`'s options, if this end offered all that `config` has.
    pub(super) fn from_syn(config: &Config, tuple: FourTuple, peer: &Options, ecn: bool) -> Self {
        let scaling = config.window_scaling.then_some(peer.window_scale).flatten();
        Negotiated {
            peer_mss: peer.mss.unwrap_or(default_mss(tuple)).max(LEAST_MSS),
            own_mss: own_mss(config, tuple),
            send_scale: scaling.unwrap_or(0),
            receive_scale: scaling.map_or(0, |_| config.window_scale()),
            timestamps: config.timestamps && peer.timestamps.is_some(),
            sack: config.sack && peer.sack_permitted,
            ecn,
        }
    }
}

/// The options of a SYN.
pub(super) fn syn_options(config: &Config, tuple: FourTuple, value: u32) -> Options {
    Options {
        mss: Some(own_mss(config, tuple)),
        window_scale: config.window_scaling.then(|| config.window_scale()),
        sack_permitted: config.sack,
        timestamps: config.timestamps.then_some(Timestamps { value, echo: 0 }),
        ..Options::default()
    }
}

/// The options of a SYN-ACK: what the SYN offered, and this end accepts.
pub(super) fn syn_ack_options(
    config: &Config,
    tuple: FourTuple,
    agreed: &Negotiated,
    scaling: bool,
    timestamps: Timestamps,
) -> Options {
    Options {
        mss: Some(own_mss(config, tuple)),
        window_scale: scaling.then_some(agreed.receive_scale),
        sack_permitted: agreed.sack,
        timestamps: agreed.timestamps.then_some(timestamps),
        ..Options::default()
    }
}

/// Bytes of an IP and a TCP header without options.
pub(super) fn headers_len(tuple: FourTuple) -> u16 {
    20 + ip_header_len(tuple)
}

/// Bytes of an IP header without options.
fn ip_header_len(tuple: FourTuple) -> u16 {
    tuple.version().unwrap_or(IpVersion::V6).header_len() as u16
}

/// The MSS to announce: options do not count (RFC 6691).
pub(super) fn own_mss(config: &Config, tuple: FourTuple) -> u16 {
    config.mtu.saturating_sub(headers_len(tuple)).max(LEAST_MSS)
}

/// The MSS of an end that does not say (RFC 9293, section 3.7.1).
fn default_mss(tuple: FourTuple) -> u16 {
    match tuple.version() {
        Some(IpVersion::V4) => 536,
        _ => 1_220,
    }
}

/// The clock of timestamps (RFC 7323, section 5.4): milliseconds, from an offset of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TimestampClock {
    pub(super) offset: u32,
}

impl TimestampClock {
    pub(super) fn value(self, now: Time) -> u32 {
        (now.as_millis() as u32).wrapping_add(self.offset)
    }
}

/// `a` is earlier than `b`, on the circle.
pub(super) fn timestamp_before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}
