//! The layout: see `docs/endpoint-state.md`, which this file must agree with.

use std::{
    hash::Hasher,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use bytes::{Buf, BufMut, TryGetError};
use siphasher::sip::SipHasher24;

use crate::{
    endpoint::{negotiation::Negotiated, state::State},
    fields::GetFields,
    seq::Seq,
    wire::{Endpoint, FourTuple, MAX_WINDOW_SCALE},
};

const MAGIC: [u8; 4] = *b"OLTE";
const VERSION: u16 = 1;
/// Everything before the two streams' bytes.
const FIXED: usize = 148;
const CHECKSUM: usize = 8;
/// No stream has more in flight or in buffers.
const MOST_BYTES: u32 = 1 << 30;

const TIMESTAMPS: u8 = 1;
const SACK: u8 = 1 << 1;
const ECN: u8 = 1 << 2;
const IPV6: u8 = 1 << 3;
const ENDED: u8 = 1 << 4;
const PEER_ENDED: u8 = 1 << 5;
const END_READ: u8 = 1 << 6;
const OUTPUT_END_KNOWN: u8 = 1 << 7;

/// Why a connection cannot be captured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CaptureError {
    /// The handshake is not complete, or the connection is over.
    #[error("the connection is not established")]
    NotEstablished,
}

/// Why bytes are not the state of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RestoreError {
    /// Their number is not what they say.
    #[error("wrong length")]
    Length,
    /// They begin with something else.
    #[error("not the state of a connection")]
    Magic,
    /// A version that is not understood.
    #[error("version {0} is not understood")]
    Version(u16),
    /// They were damaged.
    #[error("wrong checksum")]
    Checksum,
    /// They say what cannot be.
    #[error("contradicts itself")]
    Invalid,
}

impl From<TryGetError> for RestoreError {
    fn from(_: TryGetError) -> Self {
        RestoreError::Length
    }
}

/// The state, as values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::endpoint) struct Snapshot {
    pub(in crate::endpoint) tuple: FourTuple,
    pub(in crate::endpoint) state: State,
    pub(in crate::endpoint) agreed: Negotiated,
    /// TSval at the capture.
    pub(in crate::endpoint) timestamp: u32,
    /// TS.Recent.
    pub(in crate::endpoint) timestamp_recent: u32,
    pub(in crate::endpoint) path_mtu: u16,

    pub(in crate::endpoint) iss: Seq,
    pub(in crate::endpoint) una: Seq,
    pub(in crate::endpoint) nxt: Seq,
    /// What the other end may acknowledge.
    pub(in crate::endpoint) ack_limit: Seq,
    /// The highest right edge there was.
    pub(in crate::endpoint) send_edge: Seq,
    pub(in crate::endpoint) send_window: u32,
    pub(in crate::endpoint) largest_window: u32,
    pub(in crate::endpoint) wl1: Seq,
    pub(in crate::endpoint) wl2: Seq,
    pub(in crate::endpoint) smoothed_rtt_us: u32,
    pub(in crate::endpoint) rtt_variation_us: u32,
    pub(in crate::endpoint) slow_start_threshold: u32,
    /// What the program still has to write that was acknowledged before.
    pub(in crate::endpoint) skip: u32,
    pub(in crate::endpoint) ended: bool,
    /// The former node's stream ended here, though `ended` is not set: the program will say so
    /// again.
    pub(in crate::endpoint) output_end: Option<Seq>,
    /// Written, not acknowledged; empty if the program will write it again.
    pub(in crate::endpoint) output: Vec<u8>,

    pub(in crate::endpoint) irs: Seq,
    pub(in crate::endpoint) acknowledged: Seq,
    pub(in crate::endpoint) read: Seq,
    /// The highest right edge that the other end was shown.
    pub(in crate::endpoint) receive_edge: Seq,
    /// No node has shown more than so much beyond an acknowledgment.
    pub(in crate::endpoint) receive_limit: u32,
    /// The FIN was received, right behind `input`.
    pub(in crate::endpoint) peer_ended: bool,
    pub(in crate::endpoint) end_read: bool,
    /// Received from `read` on, to be read.
    pub(in crate::endpoint) input: Vec<u8>,
}

impl Default for Snapshot {
    fn default() -> Self {
        let nobody = Endpoint::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let agreed = Negotiated {
            peer_mss: 536,
            own_mss: 536,
            send_scale: 0,
            receive_scale: 0,
            timestamps: false,
            sack: false,
            ecn: false,
        };
        let zero = Seq(0);
        Snapshot {
            tuple: FourTuple::new(nobody, nobody),
            state: State::Established,
            agreed,
            timestamp: 0,
            timestamp_recent: 0,
            path_mtu: 0,
            iss: zero,
            una: zero,
            nxt: zero,
            ack_limit: zero,
            send_edge: zero,
            send_window: 0,
            largest_window: 0,
            wl1: zero,
            wl2: zero,
            smoothed_rtt_us: 0,
            rtt_variation_us: 0,
            slow_start_threshold: 0,
            skip: 0,
            ended: false,
            output_end: None,
            output: Vec::new(),
            irs: zero,
            acknowledged: zero,
            read: zero,
            receive_edge: zero,
            receive_limit: 0,
            peer_ended: false,
            end_read: false,
            input: Vec::new(),
        }
    }
}

impl Snapshot {
    pub(super) fn encode(&self) -> Vec<u8> {
        let len = FIXED + self.output.len() + self.input.len() + CHECKSUM;
        let mut out = Vec::with_capacity(len);
        out.put_slice(&MAGIC);
        out.put_u16(VERSION);
        out.put_u8(state_code(self.state));
        out.put_u8(self.flags());
        out.put_u32(len as u32);
        out.put_slice(&self.tuple.to_bytes());
        for value in [self.agreed.peer_mss, self.agreed.own_mss, self.path_mtu] {
            out.put_u16(value);
        }
        out.put_slice(&[self.agreed.send_scale, self.agreed.receive_scale]);
        out.put_u32(self.timestamp);
        out.put_u32(self.timestamp_recent);
        for seq in [self.iss, self.una, self.nxt, self.ack_limit, self.send_edge] {
            out.put_u32(seq.0);
        }
        for value in [
            self.send_window,
            self.largest_window,
            self.wl1.0,
            self.wl2.0,
            self.smoothed_rtt_us,
            self.rtt_variation_us,
            self.slow_start_threshold,
            self.skip,
            self.output_end.unwrap_or_default().0,
            self.irs.0,
            self.acknowledged.0,
            self.read.0,
            self.receive_edge.0,
            self.receive_limit,
            self.output.len() as u32,
            self.input.len() as u32,
        ] {
            out.put_u32(value);
        }
        debug_assert_eq!(out.len(), FIXED);
        out.put_slice(&self.output);
        out.put_slice(&self.input);
        let checksum = checksum(&out);
        out.put_slice(&checksum);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, RestoreError> {
        let (body, mut fields) = open(bytes)?;
        let state = state_of(fields.try_get_u8()?).ok_or(RestoreError::Invalid)?;
        let flags = fields.try_get_u8()?;
        fields.try_get_u32()?; // The length, which was checked.
        let tuple = tuple_of(&fields.try_get_array()?, flags & IPV6 != 0);
        let (peer_mss, own_mss, path_mtu) =
            (fields.try_get_u16()?, fields.try_get_u16()?, fields.try_get_u16()?);
        let agreed = Negotiated {
            peer_mss,
            own_mss,
            send_scale: fields.try_get_u8()?,
            receive_scale: fields.try_get_u8()?,
            timestamps: flags & TIMESTAMPS != 0,
            sack: flags & SACK != 0,
            ecn: flags & ECN != 0,
        };
        let mut snapshot = Snapshot {
            tuple,
            state,
            agreed,
            path_mtu,
            timestamp: fields.try_get_u32()?,
            timestamp_recent: fields.try_get_u32()?,
            iss: fields.try_get_seq()?,
            una: fields.try_get_seq()?,
            nxt: fields.try_get_seq()?,
            ack_limit: fields.try_get_seq()?,
            send_edge: fields.try_get_seq()?,
            send_window: fields.try_get_u32()?,
            largest_window: fields.try_get_u32()?,
            wl1: fields.try_get_seq()?,
            wl2: fields.try_get_seq()?,
            smoothed_rtt_us: fields.try_get_u32()?,
            rtt_variation_us: fields.try_get_u32()?,
            slow_start_threshold: fields.try_get_u32()?,
            skip: fields.try_get_u32()?,
            ended: flags & ENDED != 0,
            output_end: Some(fields.try_get_seq()?).filter(|_| flags & OUTPUT_END_KNOWN != 0),
            output: Vec::new(),
            irs: fields.try_get_seq()?,
            acknowledged: fields.try_get_seq()?,
            read: fields.try_get_seq()?,
            receive_edge: fields.try_get_seq()?,
            receive_limit: fields.try_get_u32()?,
            peer_ended: flags & PEER_ENDED != 0,
            end_read: flags & END_READ != 0,
            input: Vec::new(),
        };
        let (output, input) = (fields.try_get_u32()?, fields.try_get_u32()?);
        let streams = &body[FIXED..];
        let fits = output <= MOST_BYTES
            && input <= MOST_BYTES
            && output as usize + input as usize == streams.len();
        if !fits {
            return Err(RestoreError::Invalid);
        }
        snapshot.output = streams[..output as usize].to_vec();
        snapshot.input = streams[output as usize..].to_vec();
        if snapshot.is_sound() { Ok(snapshot) } else { Err(RestoreError::Invalid) }
    }

    fn flags(&self) -> u8 {
        [
            (self.agreed.timestamps, TIMESTAMPS),
            (self.agreed.sack, SACK),
            (self.agreed.ecn, ECN),
            (self.tuple.source.addr.is_ipv6(), IPV6),
            (self.ended, ENDED),
            (self.peer_ended, PEER_ENDED),
            (self.end_read, END_READ),
            (self.output_end.is_some(), OUTPUT_END_KNOWN),
        ]
        .into_iter()
        .filter(|(set, _)| *set)
        .fold(0, |flags, (_, flag)| flags | flag)
    }

    /// The first byte written that is not acknowledged: `una`, but for the FIN.
    pub(in crate::endpoint) fn output_start(&self) -> Seq {
        if self.fin_acknowledged() { self.una - 1 } else { self.una }
    }

    /// Our FIN is acknowledged. The state tells.
    fn fin_acknowledged(&self) -> bool {
        matches!(self.state, State::FinWait2 | State::TimeWait)
    }

    /// Whether the numbers can be those of one connection: nothing that comes from here may make
    /// arithmetic go astray.
    pub(super) fn is_sound(&self) -> bool {
        let near = |low: Seq, high: Seq| high.distance(low) <= MOST_BYTES;
        // Right edges lie ahead, but for a FIN or a probe that went beyond one.
        let around = |mark: Seq, edge: Seq| near(mark, edge) || near(edge, mark);
        let output_end = self.output_start() + self.output.len() as u32 + u32::from(self.ended);
        let input_end = self.read + self.input.len() as u32;
        let received = input_end + u32::from(self.peer_ended);
        // The other end has acknowledged the FIN of a former node, and the program has not written so far again.
        let passed = |end: Seq| self.skip > 0 && end + 1 == self.una;
        let scales = self.agreed.send_scale.max(self.agreed.receive_scale) <= MAX_WINDOW_SCALE;
        let peer_ended_by_state = matches!(
            self.state,
            State::CloseWait | State::Closing | State::LastAck | State::TimeWait
        );
        let ended_by_state = !matches!(self.state, State::Established | State::CloseWait);
        scales
            && self.agreed.peer_mss >= 64
            && self.agreed.own_mss >= 64
            && self.path_mtu >= 128
            && self.ended == ended_by_state
            && self.peer_ended == peer_ended_by_state
            && (!self.end_read || (self.peer_ended && self.input.is_empty()))
            && (!self.fin_acknowledged() || self.output.is_empty())
            && near(self.una, self.nxt)
            && near(self.nxt, self.ack_limit)
            && near(self.una, output_end)
            && (self.output.is_empty() || self.nxt.at_or_before(output_end))
            && self.largest_window <= MOST_BYTES
            && self.send_window <= MOST_BYTES
            && around(self.una, self.send_edge)
            && self.skip <= MOST_BYTES
            && self.output_end.is_none_or(|end| !self.ended && (near(self.una, end) || passed(end)))
            && self.receive_limit <= MOST_BYTES
            && near(self.acknowledged.earlier(self.read), received)
            && self.acknowledged.at_or_before(received)
            && around(self.acknowledged, self.receive_edge)
    }
}

/// Checks what can be without reading the values. Gives the bytes without their checksum, and the
/// fields behind the version.
fn open(bytes: &[u8]) -> Result<(&[u8], &[u8]), RestoreError> {
    let header = bytes.get(..12).ok_or(RestoreError::Length)?;
    if header[..4] != MAGIC {
        return Err(RestoreError::Magic);
    }
    let version = u16::from_be_bytes([header[4], header[5]]);
    if version != VERSION {
        return Err(RestoreError::Version(version));
    }
    let len = u32::from_be_bytes([header[8], header[9], header[10], header[11]]) as usize;
    if len != bytes.len() || len < FIXED + CHECKSUM {
        return Err(RestoreError::Length);
    }
    let (body, sum) = bytes.split_at(len - CHECKSUM);
    if checksum(body) != sum {
        return Err(RestoreError::Checksum);
    }
    Ok((body, &body[6..FIXED]))
}

/// SipHash-2-4 under a key of zeros: against damage, not against forgery.
fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = SipHasher24::new();
    hasher.write(bytes);
    hasher.finish().to_be_bytes()
}

fn state_code(state: State) -> u8 {
    match state {
        State::Established => 1,
        State::FinWait1 => 2,
        State::FinWait2 => 3,
        State::CloseWait => 4,
        State::Closing => 5,
        State::LastAck => 6,
        State::TimeWait => 7,
        // Never captured.
        State::SynSent | State::SynReceived | State::Closed => 0,
    }
}

fn state_of(code: u8) -> Option<State> {
    use State::*;
    [Established, FinWait1, FinWait2, CloseWait, Closing, LastAck, TimeWait]
        .get(usize::from(code).checked_sub(1)?)
        .copied()
}

fn tuple_of(bytes: &[u8; FourTuple::BYTES], v6: bool) -> FourTuple {
    let addr = |at: usize| -> IpAddr {
        let mut octets = [0; 16];
        octets.copy_from_slice(&bytes[at..at + 16]);
        let addr = Ipv6Addr::from(octets);
        match addr.to_ipv4_mapped() {
            Some(v4) if !v6 => v4.into(),
            _ => addr.into(),
        }
    };
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    FourTuple::new(Endpoint::new(addr(0), port(32)), Endpoint::new(addr(16), port(34)))
}
