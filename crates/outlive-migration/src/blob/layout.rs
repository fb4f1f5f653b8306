//! The layout: see `docs/migration.md`, which this file must agree with.

use std::hash::Hasher;

use outlive_tcp::wire::{IpVersion, MAX_WINDOW_SCALE};
use siphasher::sip::SipHasher24;

use super::{Blob, Mapping, Scales, TcpState, TimestampState};
use crate::{
    flow::FlowId,
    wire::{Reader, Writer},
};

const MAGIC: [u8; 4] = *b"OLMB";
const VERSION: u16 = 1;
/// Everything but the data: what the blob of an idle connection takes, in bytes.
pub const FIXED_LEN: usize = BEFORE_DATA + CHECKSUM;
const BEFORE_DATA: usize = 140;
const CHECKSUM: usize = 8;
/// As much as there may be of data, in bytes: a balancer shows no larger first window.
pub const MAX_DATA: usize = 16_384;
/// No window is larger (RFC 7323, section 2.3).
const MOST_WINDOW: u32 = 1 << 30;

const IPV6: u16 = 1;
const TIMESTAMPS: u16 = 1 << 1;
const SACK: u16 = 1 << 2;
const SCALING: u16 = 1 << 3;
const ALL_FLAGS: u16 = (1 << 4) - 1;

/// Why bytes are not the state of a connection that can be gone on with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BlobError {
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

impl Blob {
    /// The bytes of it.
    ///
    /// # Errors
    /// [`BlobError::Invalid`] if it contradicts itself: nothing is written that [`decode`](Self::decode) would refuse.
    pub fn encode(&self) -> Result<Vec<u8>, BlobError> {
        if !self.is_consistent() {
            return Err(BlobError::Invalid);
        }
        let mut bytes = Vec::with_capacity(FIXED_LEN + self.data.len());
        let out = &mut Writer(&mut bytes);
        out.bytes(&MAGIC);
        out.u16(VERSION);
        out.u16(self.flags());
        out.u32((FIXED_LEN + self.data.len()) as u32);
        out.u32(self.data.len() as u32);
        self.tcp.encode(out);
        out.tuple(self.ends);
        out.u32(self.mapping.flow.value());
        out.addr(self.mapping.tunnel);
        debug_assert_eq!(out.0.len(), BEFORE_DATA);
        out.bytes(&self.data);
        let sum = checksum(out.0);
        out.bytes(&sum);
        Ok(bytes)
    }

    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with the bytes; nothing of them may be used then.
    pub fn decode(bytes: &[u8]) -> Result<Self, BlobError> {
        let body = check(bytes)?;
        // There are enough bytes for every field: the length was checked.
        let blob = Self::read(body).ok_or(BlobError::Invalid)?;
        if blob.is_consistent() { Ok(blob) } else { Err(BlobError::Invalid) }
    }

    fn read(body: &[u8]) -> Option<Self> {
        let mut input = Reader(&body[6..]);
        let flags = input.u16()?;
        let (_len, data_len) = (input.u32()?, input.u32()?);
        let tcp = TcpState::read(&mut input, flags)?;
        let ends = input.tuple()?;
        let mapping = Mapping { flow: FlowId::new(input.u32()?)?, tunnel: input.addr()? };
        let data = input.rest().to_vec();
        let v6 = ends.version()? == IpVersion::V6;
        let told = flags & !ALL_FLAGS == 0
            && v6 == (flags & IPV6 != 0)
            && data.len() == usize::try_from(data_len).ok()?;
        told.then_some(Blob { tcp, ends, mapping, data })
    }

    fn flags(&self) -> u16 {
        let bits = [
            (self.ends.version() == Some(IpVersion::V6), IPV6),
            (self.tcp.timestamps.is_some(), TIMESTAMPS),
            (self.tcp.sack, SACK),
            (self.tcp.scales.is_some(), SCALING),
        ];
        bits.iter().filter(|(set, _)| *set).fold(0, |flags, (_, bit)| flags | bit)
    }

    /// Whether a connection can be in such a state.
    pub(super) fn is_consistent(&self) -> bool {
        let tcp = &self.tcp;
        let version = self.ends.version();
        version == Some(IpVersion::of(self.mapping.tunnel))
            && self.ends.source.port != 0
            && self.ends.destination.port != 0
            && self.data.len() <= MAX_DATA
            && tcp.rcv_nxt == tcp.rcv_acked + self.data.len() as u32
            && tcp.rcv_nxt.distance(tcp.rcv_acked) <= tcp.rcv_wnd
            && tcp.snd_nxt.distance(tcp.snd_una) <= tcp.snd_wnd_max
            && tcp.snd_una.distance(tcp.iss) != 0
            && tcp.rcv_acked.distance(tcp.irs) != 0
            && tcp.snd_wnd <= tcp.snd_wnd_max
            && tcp.snd_wnd_max <= MOST_WINDOW
            && tcp.rcv_wnd <= MOST_WINDOW
            && tcp.client_mss > 0
            && tcp.own_mss > 0
            && tcp.scales.is_none_or(|scales| scales.snd.max(scales.rcv) <= MAX_WINDOW_SCALE)
            && tcp.timestamps.is_none_or(|t| t.clock.wrapping_sub(t.echoed) < 1 << 31)
    }
}

impl TcpState {
    fn encode(&self, out: &mut Writer<'_>) {
        for seq in [self.iss, self.snd_una, self.snd_nxt] {
            out.seq(seq);
        }
        out.u32(self.snd_wnd);
        out.u32(self.snd_wnd_max);
        for seq in [self.snd_wl1, self.snd_wl2, self.irs, self.rcv_acked, self.rcv_nxt] {
            out.seq(seq);
        }
        out.u32(self.rcv_wnd);
        out.u16(self.client_mss);
        out.u16(self.own_mss);
        let scales = self.scales.unwrap_or(Scales { snd: 0, rcv: 0 });
        out.u8(scales.snd);
        out.u8(scales.rcv);
        out.u16(0);
        let timestamps =
            self.timestamps.unwrap_or(TimestampState { recent: 0, echoed: 0, clock: 0 });
        out.u32(timestamps.recent);
        out.u32(timestamps.echoed);
        out.u32(timestamps.clock);
        out.u32(0);
    }

    fn read(input: &mut Reader<'_>, flags: u16) -> Option<Self> {
        let (iss, snd_una, snd_nxt) = (input.seq()?, input.seq()?, input.seq()?);
        let (snd_wnd, snd_wnd_max) = (input.u32()?, input.u32()?);
        let (snd_wl1, snd_wl2) = (input.seq()?, input.seq()?);
        let (irs, rcv_acked, rcv_nxt) = (input.seq()?, input.seq()?, input.seq()?);
        let rcv_wnd = input.u32()?;
        let (client_mss, own_mss) = (input.u16()?, input.u16()?);
        let scales = Scales { snd: input.u8()?, rcv: input.u8()? };
        let reserved = input.u16()?;
        let timestamps =
            TimestampState { recent: input.u32()?, echoed: input.u32()?, clock: input.u32()? };
        let reserved = u32::from(reserved) | input.u32()?;
        let has = |flag| flags & flag != 0;
        // What is not negotiated is zero, and so is what is reserved.
        let blank = (has(SCALING) || scales == Scales { snd: 0, rcv: 0 })
            && (has(TIMESTAMPS) || timestamps == TimestampState { recent: 0, echoed: 0, clock: 0 })
            && reserved == 0;
        blank.then_some(TcpState {
            iss,
            snd_una,
            snd_nxt,
            snd_wnd,
            snd_wnd_max,
            snd_wl1,
            snd_wl2,
            irs,
            rcv_acked,
            rcv_nxt,
            rcv_wnd,
            client_mss,
            own_mss,
            scales: has(SCALING).then_some(scales),
            sack: has(SACK),
            timestamps: has(TIMESTAMPS).then_some(timestamps),
        })
    }
}

/// Checks what can be without reading the values. Gives the bytes without their checksum.
fn check(bytes: &[u8]) -> Result<&[u8], BlobError> {
    let header = bytes.first_chunk::<12>().ok_or(BlobError::Length)?;
    if header[..4] != MAGIC {
        return Err(BlobError::Magic);
    }
    let version = u16::from_be_bytes([header[4], header[5]]);
    if version != VERSION {
        return Err(BlobError::Version(version));
    }
    let len = u32::from_be_bytes([header[8], header[9], header[10], header[11]]) as usize;
    if len != bytes.len() || len < FIXED_LEN {
        return Err(BlobError::Length);
    }
    let (body, sum) = bytes.split_at(len - CHECKSUM);
    if checksum(body) == sum { Ok(body) } else { Err(BlobError::Checksum) }
}

/// SipHash-2-4 under a key of zeros: against damage, not against forgery.
pub(super) fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = SipHasher24::new();
    hasher.write(bytes);
    hasher.finish().to_be_bytes()
}
