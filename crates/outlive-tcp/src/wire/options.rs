//! TCP options: where they stand in a header, what they mean, and how Outlive writes them.
//!
//! Only options that matter to a splice have a meaning here. Fast Open, Multipath TCP, user timeout
//! and whatever else there is are passed over; since SYNs are written anew from [`Options`], they
//! vanish from them and so are never in use on a connection.

use super::{Malformed, u32_at};
use crate::seq::Seq;

const END: u8 = 0;
pub(crate) const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
pub(crate) const TIMESTAMPS: u8 = 8;
const MD5_SIGNATURE: u8 = 19;
const AUTHENTICATION: u8 = 29;

/// The largest window scale (RFC 7323, section 2.3).
pub const MAX_WINDOW_SCALE: u8 = 14;
/// Room for options in a TCP header.
const MAX_OPTIONS_LEN: usize = 40;

/// The timestamps option (RFC 7323, section 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timestamps {
    /// TSval: the sender's clock.
    pub value: u32,
    /// TSecr: the other end's clock, as the sender last saw it. Zero without an ACK flag.
    pub echo: u32,
}

/// One block of a SACK option (RFC 2018, section 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SackBlock {
    /// Its first sequence number (left edge).
    pub start: Seq,
    /// The sequence number after its last (right edge).
    pub end: Seq,
}

/// Up to four SACK blocks, in the order of the option.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SackBlocks {
    blocks: [SackBlock; Self::MAX],
    count: u8,
}

impl SackBlocks {
    /// As many as fit into a TCP header.
    pub const MAX: usize = 4;

    /// The blocks.
    pub fn as_slice(&self) -> &[SackBlock] {
        &self.blocks[..self.count.into()]
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a block behind the others; false if there is no room.
    pub fn push(&mut self, block: SackBlock) -> bool {
        let Some(slot) = self.blocks.get_mut(usize::from(self.count)) else { return false };
        *slot = block;
        self.count += 1;
        true
    }
}

/// The options of a segment that matter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Maximum segment size in bytes, never zero (RFC 9293, section 3.7.1). Means something in a
    /// SYN only.
    pub mss: Option<u16>,
    /// Window scale, at most 14 (RFC 7323, section 2). Means something in a SYN only.
    pub window_scale: Option<u8>,
    /// SACK permitted (RFC 2018, section 2). Means something in a SYN only.
    pub sack_permitted: bool,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// There is an MD5 signature (RFC 2385) or an authentication option (RFC 5925): no proxy can
    /// continue such a connection. Never written.
    pub authenticated: bool,
    /// SACK blocks.
    pub sack: SackBlocks,
}

impl Options {
    /// Reads the options region of a TCP header. Of an option that occurs twice the last counts;
    /// one of a known kind but another length than it should have is passed over, as Linux does.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut options = Options::default();
        for option in Walk::over(bytes) {
            options.take(option?);
        }
        Ok(options)
    }

    fn take(&mut self, option: RawOption<'_>) {
        match (option.kind, option.data) {
            (MSS, &[high, low]) => {
                self.mss = Some(u16::from_be_bytes([high, low])).filter(|&mss| mss > 0);
            }
            (WINDOW_SCALE, &[scale]) => self.window_scale = Some(scale.min(MAX_WINDOW_SCALE)),
            (SACK_PERMITTED, []) => self.sack_permitted = true,
            (TIMESTAMPS, data @ [_, _, _, _, _, _, _, _]) => {
                self.timestamps =
                    Some(Timestamps { value: u32_at(data, 0), echo: u32_at(data, 4) });
            }
            (SACK, data) if is_sack(data) => {
                self.sack = SackBlocks::default();
                for edges in data.chunks_exact(8) {
                    let (start, end) = (Seq(u32_at(edges, 0)), Seq(u32_at(edges, 4)));
                    self.sack.push(SackBlock { start, end });
                }
            }
            (MD5_SIGNATURE | AUTHENTICATION, _) => self.authenticated = true,
            _ => {}
        }
    }

    /// Length of what [`emit`](Self::emit) appends, in bytes: a multiple of 4, at most 40.
    pub fn len(&self) -> usize {
        let blocks = self.fitting_sack_blocks();
        self.len_without_sack() + if blocks.is_empty() { 0 } else { 4 + 8 * blocks.len() }
    }

    /// Whether nothing would be written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends the options in the layout and order that Linux uses, which receivers have fast paths
    /// for. SACK blocks that have no room any more are left out, the last first.
    pub fn emit(&self, out: &mut Vec<u8>) {
        if let Some(mss) = self.mss {
            out.extend_from_slice(&[MSS, 4]);
            out.extend_from_slice(&mss.to_be_bytes());
        }
        match (self.sack_permitted, self.timestamps) {
            (true, Some(_)) => out.extend_from_slice(&[SACK_PERMITTED, 2]),
            (true, None) => out.extend_from_slice(&[NOP, NOP, SACK_PERMITTED, 2]),
            (false, Some(_)) => out.extend_from_slice(&[NOP, NOP]),
            (false, None) => {}
        }
        if let Some(Timestamps { value, echo }) = self.timestamps {
            out.extend_from_slice(&[TIMESTAMPS, 10]);
            out.extend_from_slice(&value.to_be_bytes());
            out.extend_from_slice(&echo.to_be_bytes());
        }
        if let Some(scale) = self.window_scale {
            out.extend_from_slice(&[NOP, WINDOW_SCALE, 3, scale.min(MAX_WINDOW_SCALE)]);
        }
        let blocks = self.fitting_sack_blocks();
        if !blocks.is_empty() {
            out.extend_from_slice(&[NOP, NOP, SACK, 2 + 8 * blocks.len() as u8]);
            for block in blocks {
                out.extend_from_slice(&block.start.0.to_be_bytes());
                out.extend_from_slice(&block.end.0.to_be_bytes());
            }
        }
    }

    fn len_without_sack(&self) -> usize {
        let mss = if self.mss.is_some() { 4 } else { 0 };
        let timestamps = match (self.timestamps, self.sack_permitted) {
            (Some(_), _) => 12,
            (None, true) => 4,
            (None, false) => 0,
        };
        let window_scale = if self.window_scale.is_some() { 4 } else { 0 };
        mss + timestamps + window_scale
    }

    fn fitting_sack_blocks(&self) -> &[SackBlock] {
        let room = (MAX_OPTIONS_LEN - self.len_without_sack()).saturating_sub(4) / 8;
        let blocks = self.sack.as_slice();
        &blocks[..room.min(blocks.len())]
    }
}

/// Where in a TCP header the options stand that a translation changes: offsets of their kind byte
/// from the beginning of the header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct OptionPlaces {
    pub(crate) timestamps: Option<u8>,
    pub(crate) sack: Option<u8>,
}

impl OptionPlaces {
    /// The layout of nearly every segment there is: NOP, NOP, timestamps, and nothing else.
    const ALIGNED_TIMESTAMPS: [u8; 4] = [NOP, NOP, TIMESTAMPS, 10];

    /// Finds them in a TCP header, which ends where the slice does.
    ///
    /// A second timestamps or SACK option is refused: a receiver takes the one or the other, and no
    /// stack sends two.
    pub(crate) fn find(header: &[u8]) -> Result<Self, Malformed> {
        let mut places = OptionPlaces::default();
        let options = header.get(20..).unwrap_or_default();
        let mut rest = options;
        if options.starts_with(&Self::ALIGNED_TIMESTAMPS) && options.len() >= 12 {
            places.timestamps = Some(22);
            rest = &options[12..];
        }
        let base = header.len() - rest.len();
        for option in Walk::over(rest) {
            let option = option?;
            let place = match (option.kind, option.data) {
                (TIMESTAMPS, data) if data.len() == 8 => &mut places.timestamps,
                (SACK, data) if is_sack(data) => &mut places.sack,
                _ => continue,
            };
            if place.replace((base + option.at) as u8).is_some() {
                return Err(Malformed::OptionLayout);
            }
        }
        Ok(places)
    }
}

fn is_sack(data: &[u8]) -> bool {
    !data.is_empty() && data.len().is_multiple_of(8)
}

struct RawOption<'a> {
    /// Offset of the kind byte.
    at: usize,
    kind: u8,
    data: &'a [u8],
}

/// Walks over options, up to the end of the list or of the bytes. Ends after an error.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    fn over(bytes: &'a [u8]) -> Self {
        Walk { bytes, at: 0 }
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Result<RawOption<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.bytes.get(self.at) == Some(&NOP) {
            self.at += 1;
        }
        let at = self.at;
        let kind = *self.bytes.get(at)?;
        if kind == END {
            self.at = self.bytes.len();
            return None;
        }
        let len = self.bytes.get(at + 1).copied().unwrap_or(0);
        let Some(data) = self.bytes.get(at + 2..at + usize::from(len)) else {
            self.at = self.bytes.len();
            return Some(Err(Malformed::OptionLayout));
        };
        self.at = at + usize::from(len);
        Some(Ok(RawOption { at, kind, data }))
    }
}
