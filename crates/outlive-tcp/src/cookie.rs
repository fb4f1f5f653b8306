//! SYN cookies (RFC 4987, section 3.6): a handshake that costs no state, and that either node of a
//! pair can complete, for both have the key.
//!
//! The initial sequence number of the SYN-ACK is the cookie. What the client offered must be in it,
//! or be forgotten; if the client uses timestamps, its options other than the MSS ride in the low
//! bits of the SYN-ACK's TSval, which the client echoes. Most significant bit first:
//!
//! ```text
//! with timestamps     slot 1 | MSS 4 | MAC 27
//!            TSval    clock 26 | scale 4 | SACK 1 | zero 1
//! without             slot 1 | MSS 3 | SACK 1 | scale 4 | MAC 23
//! ```
//!
//! `scale` is 15 if the client offered no window scaling. `slot` is the lowest bit of the number of
//! the time slot, 32 s long, in which the cookie was made. The MAC is the low bits of SipHash-2-4
//! over the layout, the four-tuple, the client's initial sequence number, the slot's number and the
//! options.

use std::{fmt, time::Duration};

use siphasher::sip::SipHasher24;

use crate::{
    seq::Seq,
    wire::{FourTuple, MAX_WINDOW_SCALE},
};

/// Cookies are never accepted this long after they were made. They are accepted in the slot in
/// which they were made and in the next, so for at least half of it.
pub const COOKIE_LIFETIME: Duration = Duration::from_millis(2 * SLOT_MS);

const SLOT_MS: u64 = 32_000;

/// Segment sizes that a cookie can carry: those of common link types, so that few lose a byte by
/// rounding down. (VPN, PPPoE and cloud networks are behind the values between 1300 and 1460.)
const MSS_WITH_TIMESTAMPS: [u16; 16] =
    [88, 216, 536, 1024, 1220, 1300, 1340, 1360, 1380, 1400, 1420, 1432, 1440, 1452, 1460, 8960];
const MSS_WITHOUT: [u16; 8] = [216, 536, 1220, 1360, 1380, 1440, 1460, 8960];

const NO_SCALE: u8 = 15;
/// Bits of TSval that carry options.
const OPTION_BITS: u64 = 0x3f;

/// The secret that cookies are made with. Belongs to an epoch; both nodes hold it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CookieKey([u8; 16]);

/// What a cookie remembers of a SYN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CookieOptions {
    /// The client's maximum segment size, rounded down to a value of a table. Below the smallest
    /// (88 with timestamps, 216 without) it becomes the smallest.
    pub mss: u16,
    /// The window scale, at most 14, if the client offered one.
    pub window_scale: Option<u8>,
    /// The client permits SACK.
    pub sack_permitted: bool,
    /// The client uses timestamps.
    pub timestamps: bool,
}

/// What a SYN-ACK has to carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SynCookie {
    /// The initial sequence number.
    pub iss: Seq,
    /// TSval, if the client uses timestamps: the clock in milliseconds, at most 64 behind.
    pub timestamp: Option<u32>,
}

impl CookieKey {
    /// The key `key`, which must be random.
    pub const fn new(key: [u8; 16]) -> Self {
        CookieKey(key)
    }

    /// The key, to be given to the other node.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// The cookie for a SYN. `tuple` is as the client's packets have it; `irs` is the SYN's
    /// sequence number, `clock_ms` the clock that the pair shares.
    pub fn make(
        &self,
        tuple: FourTuple,
        irs: Seq,
        options: CookieOptions,
        clock_ms: u64,
    ) -> SynCookie {
        let scale = options.window_scale.map_or(NO_SCALE, |scale| scale.min(MAX_WINDOW_SCALE));
        let slot = clock_ms / SLOT_MS;
        let layout = if options.timestamps { Layout::Timestamps } else { Layout::Plain };
        let content = Content {
            mss_index: round_down(layout.mss_table(), options.mss),
            scale,
            sack: options.sack_permitted,
        };
        let iss =
            Seq(layout.assemble(&content, slot, self.mac(layout, tuple, irs, slot, &content)));
        let timestamp = options.timestamps.then(|| {
            let carrying = clock_ms & !OPTION_BITS | u64::from(content.option_bits());
            // Not ahead of the clock: what the connection sends later must not run back.
            let behind = if carrying > clock_ms { OPTION_BITS + 1 } else { 0 };
            carrying.wrapping_sub(behind) as u32
        });
        SynCookie { iss, timestamp }
    }

    /// What the client offered, if `iss` is a cookie that was made for it within the lifetime.
    ///
    /// From the client's ACK: `irs` is its sequence number minus one, `iss` its acknowledgment
    /// number minus one, `echo` its TSecr if it has timestamps. A forged ACK passes with a chance
    /// of 2^-27 with timestamps, 2^-23 without.
    pub fn check(
        &self,
        tuple: FourTuple,
        irs: Seq,
        iss: Seq,
        echo: Option<u32>,
        clock_ms: u64,
    ) -> Option<CookieOptions> {
        let current = clock_ms / SLOT_MS;
        let age = (current ^ u64::from(iss.0 >> 31)) & 1;
        let slot = current.checked_sub(age)?;
        let (layout, content) = Layout::dissect(iss.0, echo)?;
        let mac = self.mac(layout, tuple, irs, slot, &content);
        if layout.assemble(&content, slot, mac) != iss.0 {
            return None;
        }
        Some(CookieOptions {
            mss: *layout.mss_table().get(usize::from(content.mss_index))?,
            window_scale: Some(content.scale).filter(|&scale| scale != NO_SCALE),
            sack_permitted: content.sack,
            timestamps: layout == Layout::Timestamps,
        })
    }

    fn mac(&self, layout: Layout, tuple: FourTuple, irs: Seq, slot: u64, content: &Content) -> u64 {
        let mut message = [0; FourTuple::BYTES + 16];
        let (ends, rest) = message.split_at_mut(FourTuple::BYTES);
        ends.copy_from_slice(&tuple.to_bytes());
        rest[..4].copy_from_slice(&irs.0.to_be_bytes());
        rest[4..12].copy_from_slice(&slot.to_be_bytes());
        rest[12] = layout as u8;
        rest[13] = content.mss_index;
        rest[14] = content.scale;
        rest[15] = content.sack.into();
        SipHasher24::new_with_key(&self.0).hash(&message)
    }
}

/// The key itself is not shown.
impl fmt::Debug for CookieKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CookieKey(..)")
    }
}

/// Which of the two layouts; its number is part of the MAC.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    Plain = 0,
    Timestamps = 1,
}

/// What is in a cookie beside slot and MAC.
struct Content {
    mss_index: u8,
    scale: u8,
    sack: bool,
}

impl Layout {
    fn mss_table(self) -> &'static [u16] {
        match self {
            Layout::Plain => &MSS_WITHOUT,
            Layout::Timestamps => &MSS_WITH_TIMESTAMPS,
        }
    }

    fn assemble(self, content: &Content, slot: u64, mac: u64) -> u32 {
        let slot = ((slot & 1) as u32) << 31;
        let mss = u32::from(content.mss_index);
        let mac = mac as u32;
        match self {
            Layout::Timestamps => slot | mss << 27 | mac & 0x07ff_ffff,
            Layout::Plain => {
                let options = u32::from(content.sack) << 4 | u32::from(content.scale);
                slot | mss << 28 | options << 23 | mac & 0x007f_ffff
            }
        }
    }

    /// The layout that the client's ACK shows, and the content if it is one that can have been
    /// made.
    fn dissect(iss: u32, echo: Option<u32>) -> Option<(Layout, Content)> {
        let Some(echo) = echo else {
            let mss_index = (iss >> 28 & 7) as u8;
            let (scale, sack) = ((iss >> 23 & 15) as u8, iss >> 27 & 1 != 0);
            return Some((Layout::Plain, Content { mss_index, scale, sack }));
        };
        let mss_index = (iss >> 27 & 15) as u8;
        let (scale, sack) = ((echo >> 2 & 15) as u8, echo >> 1 & 1 != 0);
        (echo & 1 == 0).then_some((Layout::Timestamps, Content { mss_index, scale, sack }))
    }
}

impl Content {
    /// As the low bits of TSval.
    fn option_bits(&self) -> u8 {
        self.scale << 2 | u8::from(self.sack) << 1
    }
}

/// Index of the largest entry that is at most `mss`, or of the smallest entry.
fn round_down(table: &[u16], mss: u16) -> u8 {
    table.iter().rposition(|&entry| entry <= mss).unwrap_or(0) as u8
}

/// An initial sequence number for a connection that this node opens (RFC 6528): unpredictable to
/// those who do not know `key`, and for one four-tuple never running back while `clock_us`, the
/// clock that the pair shares, does not.
pub fn initial_sequence(key: &[u8; 16], tuple: FourTuple, clock_us: u64) -> Seq {
    let offset = SipHasher24::new_with_key(key).hash(&tuple.to_bytes()) as u32;
    Seq(offset) + (clock_us / 4) as u32
}

#[cfg(test)]
mod tests;
