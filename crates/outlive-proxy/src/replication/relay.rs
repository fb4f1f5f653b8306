//! Packets that one node has and the other has to handle, whole, as the device gave them.
//!
//! While a node hands over, and for a while afterwards, packets still reach it that only the active node may act on.
//! They are kept here, go to the peer in parts that fit a message, and come out at its end as if its own device had
//! given them. Everything is bounded: what finds no room is lost, as packets may be, and its sender repeats it.

use std::{collections::VecDeque, time::Duration};

use outlive_tcp::{
    time::Time,
    wire::{Checksum, Offload, Segmentation},
};

/// Bytes of packets that wait at most, and their number.
const MAX_BYTES: usize = 8 << 20;
const MAX_PACKETS: usize = 8_192;
/// The largest packet that there is.
const MAX_PACKET: usize = 65_535;
/// Bytes of a part before the packet's own.
pub(crate) const PART_HEAD: usize = 3;

const VERIFIED: u8 = 1;
const PARTIAL: u8 = 2;
const SEGMENTED: u8 = 4;
const ECN: u8 = 8;
const LAST: u8 = 16;

/// A part of a packet. Layout: flags (1), payload bytes of each segment of a super-segment (2), bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RelayPart<'a> {
    /// What the device said of the packet; the same in each part.
    pub(crate) offload: Offload,
    /// Nothing of the packet follows.
    pub(crate) last: bool,
    pub(crate) bytes: &'a [u8],
}

impl<'a> RelayPart<'a> {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let checksum = match self.offload.checksum {
            Checksum::Full => 0,
            Checksum::Verified => VERIFIED,
            Checksum::Partial => PARTIAL,
        };
        let (segmentation, size) = match self.offload.segmentation {
            Segmentation::None => (0, 0),
            Segmentation::Tcp { size, ecn } => (SEGMENTED | if ecn { ECN } else { 0 }, size),
        };
        out.push(checksum | segmentation | if self.last { LAST } else { 0 });
        out.extend(size.to_be_bytes());
        out.extend_from_slice(self.bytes);
    }

    pub(crate) fn decode(body: &'a [u8]) -> Option<Self> {
        let ([flags, high, low], bytes) = body.split_first_chunk::<PART_HEAD>()?;
        let checksum = match flags & (VERIFIED | PARTIAL) {
            0 => Checksum::Full,
            VERIFIED => Checksum::Verified,
            PARTIAL => Checksum::Partial,
            _ => return None,
        };
        let size = u16::from_be_bytes([*high, *low]);
        let segmentation = match flags & (SEGMENTED | ECN) {
            0 if size == 0 => Segmentation::None,
            SEGMENTED => Segmentation::Tcp { size, ecn: false },
            flags if flags == SEGMENTED | ECN => Segmentation::Tcp { size, ecn: true },
            _ => return None,
        };
        let known = VERIFIED | PARTIAL | SEGMENTED | ECN | LAST;
        let offload = Offload { checksum, segmentation };
        (flags & !known == 0).then_some(RelayPart { offload, last: flags & LAST != 0, bytes })
    }
}

/// A packet that has waited for longer is worth nothing: its sender has repeated it, and its connection may be over.
const MAX_AGE: Duration = Duration::from_millis(200);

/// Packets that wait, in order.
#[derive(Debug, Default)]
pub(crate) struct PacketQueue {
    packets: VecDeque<Waiting>,
    bytes: usize,
    /// What of the first packet has left in parts.
    sent: usize,
}

#[derive(Debug)]
struct Waiting {
    since: Time,
    packet: Vec<u8>,
    offload: Offload,
}

impl PacketQueue {
    /// Appends a packet; false if there is no room for it.
    pub(crate) fn push(&mut self, now: Time, packet: Vec<u8>, offload: Offload) -> bool {
        let room = self.bytes + packet.len() <= MAX_BYTES && self.packets.len() < MAX_PACKETS;
        if room {
            self.bytes += packet.len();
            self.packets.push_back(Waiting { since: now, packet, offload });
        }
        room
    }

    /// The oldest packet. One of which a part has left is whole again.
    pub(crate) fn pop(&mut self, now: Time) -> Option<(Vec<u8>, Offload)> {
        self.sent = 0;
        self.drop_stale(now);
        self.remove()
    }

    fn remove(&mut self) -> Option<(Vec<u8>, Offload)> {
        let Waiting { packet, offload, .. } = self.packets.pop_front()?;
        self.bytes -= packet.len();
        self.sent = 0;
        Some((packet, offload))
    }

    fn drop_stale(&mut self, now: Time) {
        // One of which a part has left is sent to its end.
        while self.sent == 0 && self.packets.front().is_some_and(|w| w.since + MAX_AGE < now) {
            self.remove();
        }
    }

    /// Hands the next part of at most `room` bytes, head included, to `write`; false if nothing waits.
    pub(crate) fn part(
        &mut self,
        now: Time,
        room: usize,
        write: impl FnOnce(RelayPart<'_>),
    ) -> bool {
        self.drop_stale(now);
        let Some(Waiting { packet, offload, .. }) = self.packets.front() else { return false };
        let rest = &packet[self.sent..];
        let len = rest.len().min(room.saturating_sub(PART_HEAD).max(1));
        let last = len == rest.len();
        write(RelayPart { offload: *offload, last, bytes: &rest[..len] });
        self.sent += len;
        if last {
            self.remove();
        }
        true
    }

    /// The connection on which parts went is gone: the first packet goes again, as a whole.
    pub(crate) fn rewind(&mut self) {
        self.sent = 0;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        *self = PacketQueue::default();
    }
}

/// Puts parts together again.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    bytes: Vec<u8>,
}

impl Assembly {
    /// Takes a part; gives the packet back when it is whole. `Err`: it is larger than any packet.
    pub(crate) fn add(&mut self, part: RelayPart<'_>) -> Result<Option<(Vec<u8>, Offload)>, ()> {
        if self.bytes.len() + part.bytes.len() > MAX_PACKET {
            return Err(());
        }
        self.bytes.extend_from_slice(part.bytes);
        Ok(part.last.then(|| (std::mem::take(&mut self.bytes), part.offload)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_micros(1_000_000);

    #[test]
    fn what_has_waited_for_long_is_not_delivered() {
        let mut queue = PacketQueue::default();
        queue.push(NOW, vec![1], Offload::default());
        queue.push(NOW + MAX_AGE, vec![2], Offload::default());
        let later = NOW + MAX_AGE + Duration::from_millis(1);
        assert_eq!(queue.pop(later).map(|(packet, _)| packet), Some(vec![2]));
        assert_eq!((queue.pop(later), queue.bytes), (None, 0));
    }

    #[test]
    fn a_packet_arrives_whole_however_it_was_cut() {
        let offload = Offload {
            checksum: Checksum::Verified,
            segmentation: Segmentation::Tcp { size: 1_448, ecn: false },
        };
        let packets = [vec![7; 60_000], vec![8; 40], Vec::from_iter(0..=255)];
        for room in [PART_HEAD + 1, 100, 32_000, 100_000] {
            let (mut queue, mut assembly) = (PacketQueue::default(), Assembly::default());
            for packet in &packets {
                assert!(queue.push(NOW, packet.clone(), offload));
            }
            let mut arrived = Vec::new();
            loop {
                let mut bytes = Vec::new();
                if !queue.part(NOW, room, |part| part.encode(&mut bytes)) {
                    break;
                }
                assert!(bytes.len() <= room);
                let part = RelayPart::decode(&bytes).unwrap();
                arrived.extend(assembly.add(part).unwrap());
            }
            let expected: Vec<_> = packets.iter().map(|p| (p.clone(), offload)).collect();
            assert!(arrived == expected, "in parts of {room}");
        }
    }

    #[test]
    fn nothing_grows_without_limit() {
        let mut queue = PacketQueue::default();
        let taken =
            (0..1_000).filter(|_| queue.push(NOW, vec![0; 65_000], Offload::default())).count();
        assert_eq!(taken, MAX_BYTES / 65_000);
        let mut many = PacketQueue::default();
        let taken = (0..10_000).filter(|_| many.push(NOW, vec![0; 40], Offload::default())).count();
        assert_eq!(taken, MAX_PACKETS);
        let part = RelayPart { offload: Offload::default(), last: false, bytes: &[0; 30_000] };
        let mut assembly = Assembly::default();
        assert_eq!(assembly.add(part), Ok(None));
        assert_eq!(assembly.add(part), Ok(None));
        assert_eq!(assembly.add(part), Err(()));
    }

    #[test]
    fn a_part_with_meaningless_flags_is_refused() {
        for flags in [VERIFIED | PARTIAL, ECN, 32] {
            assert_eq!(RelayPart::decode(&[flags, 0, 0, 1]), None);
        }
        assert_eq!(RelayPart::decode(&[0, 0, 9, 1]), None);
        assert_eq!(RelayPart::decode(&[0, 0]), None);
    }
}
