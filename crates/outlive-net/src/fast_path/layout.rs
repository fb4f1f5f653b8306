//! What the program and the process share: the key of a packet, and the entry of a session, byte by byte.
//!
//! An entry has a serial and two [directions](Direction), each keyed by the end that sends in it. What is
//! written in a direction's second half is written by the kernel, packet by packet, while the process reads; every
//! field has one writer among the kernel's processors, because packets of one direction stay on one.

use std::net::IpAddr;

/// Bytes of a key: both addresses (IPv4 as IPv4-mapped), both ports, four zeros.
pub(super) const KEY_LEN: usize = 40;
/// Bytes of what a key leads to: place, serial, side, all 32 bits, and four zeros.
pub(super) const TARGET_LEN: usize = 16;

/// Bytes of an entry.
pub(super) const ENTRY_LEN: usize = DIRECTIONS + 2 * DIRECTION_LEN;
/// Tells the sessions apart that hold the same place one after the other.
pub(super) const SERIAL: usize = 0;
/// Not zero: nothing passes before the end of the first direction has acknowledged exactly what the other one's `ACKED` says.
pub(super) const OPENING: usize = 4;
/// The first direction.
pub(super) const DIRECTIONS: usize = 8;
/// Bytes of a direction.
pub(super) const DIRECTION_LEN: usize = 128;

/// Offsets within a direction. Addresses, ports and differences of checksums are as they stand in memory, numbers are
/// the machine's.
pub(super) mod direction {
    /// The addresses and ports that a packet gets.
    pub(in super::super) const SOURCE: usize = 0;
    pub(in super::super) const DESTINATION: usize = 16;
    pub(in super::super) const PORTS: usize = 32;
    /// What is added to its numbers.
    pub(in super::super) const SEQ_DELTA: usize = 36;
    pub(in super::super) const ACK_DELTA: usize = 40;
    pub(in super::super) const VALUE_DELTA: usize = 44;
    pub(in super::super) const ECHO_DELTA: usize = 48;
    /// How its window is scaled, and how it shall be.
    pub(in super::super) const WINDOW_FROM: usize = 52;
    pub(in super::super) const WINDOW_TO: usize = 56;
    /// The most payload in one segment.
    pub(in super::super) const SEGMENT_LIMIT: usize = 60;
    /// By how much the new addresses, and the new ports, change a sum.
    pub(in super::super) const ADDRESSES_SUM: usize = 64;
    pub(in super::super) const PORTS_SUM: usize = 68;

    /// The stream of the end that sends, as far as that end's packets tell.
    pub(in super::super) const NEXT: usize = 72;
    pub(in super::super) const FIN: usize = 76;
    pub(in super::super) const FIN_SEEN: usize = 80;
    /// ... and as far as the other end's acknowledgments do.
    pub(in super::super) const ACKED: usize = 84;
    pub(in super::super) const EDGE: usize = 88;
    pub(in super::super) const FIN_ACKED: usize = 92;
    pub(in super::super) const BYTES: usize = 96;
    /// When a packet last passed, by the monotonic clock, in nanoseconds; how many have, and their payload.
    pub(in super::super) const LAST_SEEN: usize = 104;
    pub(in super::super) const PACKETS: usize = 112;
    pub(in super::super) const PASSED: usize = 120;
}

/// Both ends of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Where it comes from: address and port.
    pub source: (IpAddr, u16),
    /// Where it goes to. Of the same IP version.
    pub destination: (IpAddr, u16),
}

impl Tuple {
    pub(super) fn key(&self) -> [u8; KEY_LEN] {
        let mut key = [0; KEY_LEN];
        key[..16].copy_from_slice(&octets(self.source.0));
        key[16..32].copy_from_slice(&octets(self.destination.0));
        key[32..36].copy_from_slice(&self.ports());
        key
    }

    pub(super) fn ports(&self) -> [u8; 4] {
        let ([a, b], [c, d]) = (self.source.1.to_be_bytes(), self.destination.1.to_be_bytes());
        [a, b, c, d]
    }
}

/// IPv4 as IPv4-mapped IPv6.
pub(super) fn octets(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// What becomes of the packets of one direction: all of it constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direction {
    /// Which packets.
    pub from: Tuple,
    /// Their new ends.
    pub to: Tuple,
    /// Added to SEG.SEQ.
    pub seq_delta: u32,
    /// Added to SEG.ACK and the edges of SACK blocks.
    pub ack_delta: u32,
    /// Added to TSval.
    pub value_delta: u32,
    /// Added to TSecr.
    pub echo_delta: u32,
    /// The scale of the window field as it comes; at most 14.
    pub window_from: u8,
    /// The scale that the receiver applies; at most 14.
    pub window_to: u8,
    /// Packets with longer segments are left to the process.
    pub segment_limit: u32,
}

/// How far the stream of one end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Stream {
    /// End of the highest segment that it sent.
    pub next: u32,
    /// Sequence number of its FIN, once it was sent.
    pub fin: Option<u32>,
    /// Highest acknowledgment that it got.
    pub acked: u32,
    /// Highest right edge of the window that it was shown.
    pub edge: u32,
    /// Its FIN was acknowledged.
    pub fin_acked: bool,
    /// Bytes acknowledged.
    pub bytes: u64,
}

/// The sum of `after` less that of `before`, as the kernel's checksum functions want it: of the bytes as they
/// stand in memory, in ones' complement, not folded below 32 bits.
pub(super) fn sum_change(before: &[u8], after: &[u8]) -> u32 {
    let words = |bytes: &[u8]| -> u64 {
        bytes.chunks_exact(4).map(|w| u64::from(u32::from_ne_bytes([w[0], w[1], w[2], w[3]]))).sum()
    };
    let removed: u64 = before
        .chunks_exact(4)
        .map(|w| u64::from(!u32::from_ne_bytes([w[0], w[1], w[2], w[3]])))
        .sum();
    let mut sum = words(after) + removed;
    while sum >> 32 != 0 {
        sum = (sum & 0xffff_ffff) + (sum >> 32);
    }
    sum as u32
}
