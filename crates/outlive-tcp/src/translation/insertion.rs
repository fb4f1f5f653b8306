//! Timestamps that the sender does not write, put in: the only translation that changes a length.
//!
//! The headers move into the headroom; the payload, which is longer, stays where it is.

use std::ops::Range;

use super::{Changes, TimestampTranslation, Untranslatable};
use crate::{
    checksum::Delta,
    wire::{FIXED_HEADER, IpVersion, NOP, TIMESTAMPS, TcpPacket, put_u16, put_u32, u16_at},
};

const MAX_HEADER: usize = 60;
const MAX_PACKET: usize = 65_535;
const SACK_BLOCK: usize = 8;

/// Length of what is inserted: two NOPs and the option, the layout that receivers look for first.
const INSERTED: usize = 12;

/// An insertion that is known to be possible.
pub(super) struct Insertion {
    value: u32,
    echo: u32,
    /// Where in the TCP header the last SACK blocks stand if they have to make room. Senders
    /// without timestamps may write four, while only three go with them (RFC 2018, section 3).
    spared: Range<usize>,
}

impl TcpPacket<'_> {
    /// Whether and how timestamps are to be inserted. Changes nothing.
    pub(super) fn plan_insertion(
        &self,
        how: &TimestampTranslation,
    ) -> Result<Option<Insertion>, Untranslatable> {
        let TimestampTranslation::Insert { value, echo } = *how else { return Ok(None) };
        if self.places.timestamps.is_some() {
            return Ok(None);
        }
        if self.start < INSERTED {
            return Err(Untranslatable::Headroom);
        }
        let spared = self.spare_sack_blocks().ok_or(Untranslatable::HeaderFull)?;
        if self.range().len() + INSERTED - spared.len() > MAX_PACKET {
            return Err(Untranslatable::TooLong);
        }
        Ok(Some(Insertion { value, echo, spared }))
    }

    pub(super) fn insert_timestamps(&mut self, insertion: Insertion, changes: &mut Changes) {
        let old_len = self.end - self.tcp;
        let old_offset = u16_at(self.header(), 12);
        if !insertion.spared.is_empty() {
            self.remove_options(insertion.spared, changes);
        }

        let end_of_fixed = self.tcp + FIXED_HEADER;
        self.buffer.copy_within(self.start..end_of_fixed, self.start - INSERTED);
        self.start -= INSERTED;
        self.tcp -= INSERTED;
        let header = self.header_mut();
        let option = &mut header[FIXED_HEADER..FIXED_HEADER + INSERTED];
        option[..4].copy_from_slice(&[NOP, NOP, TIMESTAMPS, 10]);
        put_u32(option, 4, insertion.value);
        put_u32(option, 8, insertion.echo);
        changes.segment.insert(option, FIXED_HEADER);

        let words = (header.len() / 4) as u16;
        let offset = old_offset & 0x0fff | words << 12;
        changes.segment.replace_u16(old_offset, offset);
        put_u16(header, 12, offset);
        self.places.timestamps = Some(FIXED_HEADER as u8 + 2);
        self.places.sack = self.places.sack.map(|place| place + INSERTED as u8);
        self.write_length(old_len, changes);
    }

    /// The SACK blocks that have to go so that the insertion fits, which may be none. `None` if not
    /// at least one block would be left: then it is other options that fill the header.
    fn spare_sack_blocks(&self) -> Option<Range<usize>> {
        let header = self.header();
        let excess = (header.len() + INSERTED).saturating_sub(MAX_HEADER);
        if excess == 0 {
            return Some(0..0);
        }
        let place = usize::from(self.places.sack?);
        let end = place + usize::from(header[place + 1]);
        let start = end.checked_sub(excess.next_multiple_of(SACK_BLOCK))?;
        (start >= place + 2 + SACK_BLOCK).then_some(start..end)
    }

    /// Takes the end of the SACK option out of the header; what is before it moves up. The blocks
    /// may have been translated to NOPs by now.
    fn remove_options(&mut self, spared: Range<usize>, changes: &mut Changes) {
        let place = self.places.sack.map(usize::from);
        let header = self.header_mut();
        changes.segment.remove(&header[spared.clone()], spared.start);
        if let Some(place) = place
            && place + usize::from(header[place + 1]) > spared.start
        {
            let shortened = [header[place], (spared.start - place) as u8];
            changes.segment.remove(&header[place..place + 2], place);
            changes.segment.insert(&shortened, place);
            header[place + 1] = shortened[1];
        }
        self.buffer.copy_within(self.start..self.tcp + spared.start, self.start + spared.len());
        self.start += spared.len();
        self.tcp += spared.len();
    }

    /// The packet's length as it is now, into the IP header. `old_len` is what the TCP segment had.
    fn write_length(&mut self, old_len: usize, changes: &mut Changes) {
        let (packet_len, segment_len) = (self.range().len(), self.end - self.tcp);
        // Neither is above 65,535: `plan_insertion` has seen to the new one, IP to the old one.
        changes.pseudo_header.replace_u16(old_len as u16, segment_len as u16);
        let ip = &mut self.buffer[self.start..self.tcp];
        match self.version {
            IpVersion::V4 => {
                let mut delta = Delta::default();
                delta.replace_u16(u16_at(ip, 2), packet_len as u16);
                put_u16(ip, 2, packet_len as u16);
                put_u16(ip, 10, delta.apply_to_checksum(u16_at(ip, 10)));
            }
            IpVersion::V6 => put_u16(ip, 4, (packet_len - IpVersion::V6.header_len()) as u16),
        }
    }
}
