//! SACK blocks and timestamps that are there: shifted, clamped, or blanked out.
//!
//! A header keeps its length: what goes is overwritten by NOPs.

use super::{Changes, TimestampTranslation, Translation};
use crate::{
    fault::{self, Fault},
    seq::Seq,
    wire::{Flags, NOP, TcpPacket, put_u32, u32_at},
};

const TIMESTAMPS_LEN: usize = 10;
const BLOCK: usize = 8;

impl TcpPacket<'_> {
    pub(super) fn translate_sack(&mut self, translation: &Translation, changes: &mut Changes) {
        let Some(place) = self.places.sack.map(usize::from) else { return };
        let header = self.header_mut();
        let len = usize::from(header[place + 1]);
        let option = &mut header[place..place + len];

        changes.segment.remove(option, place);
        let kept =
            if translation.sack { translate_blocks(translation, &mut option[2..]) } else { 0 };
        if kept > 0 {
            let len = 2 + kept * BLOCK;
            option[1] = len as u8;
            option[len..].fill(NOP);
        } else {
            option.fill(NOP);
        }
        changes.segment.insert(option, place);
        if kept == 0 {
            self.places.sack = None;
        }
    }

    pub(super) fn translate_timestamps(
        &mut self,
        how: &TimestampTranslation,
        changes: &mut Changes,
    ) {
        let Some(place) = self.places.timestamps.map(usize::from) else { return };
        let has_echo = self.flags().contains(Flags::ACK);
        let header = self.header_mut();
        let (value, echo) = (u32_at(header, place + 2), u32_at(header, place + 6));
        let (new_value, new_echo) = match *how {
            TimestampTranslation::Shift { value_delta, echo_delta } => {
                let echo_delta = if has_echo { echo_delta } else { 0 };
                (value.wrapping_add(value_delta), echo.wrapping_add(echo_delta))
            }
            TimestampTranslation::Insert { value, echo } => (value, echo),
            TimestampTranslation::Strip => {
                let option = &mut header[place..place + TIMESTAMPS_LEN];
                changes.segment.remove(option, place);
                option.fill(NOP);
                changes.segment.insert(option, place);
                self.places.timestamps = None;
                return;
            }
        };
        changes.segment.replace_u32(value, new_value, place + 2);
        changes.segment.replace_u32(echo, new_echo, place + 6);
        put_u32(header, place + 2, new_value);
        put_u32(header, place + 6, new_echo);
    }
}

/// Translates SACK blocks in place. Those of which the floor leaves nothing go, and the others
/// close up, in their order: the first reports what came last (RFC 2018, section 4). Gives how many
/// are left.
fn translate_blocks(translation: &Translation, blocks: &mut [u8]) -> usize {
    let mut kept = 0;
    for at in (0..blocks.len()).step_by(BLOCK) {
        if fault::on(Fault::SackNotTranslated) {
            kept += 1;
            continue;
        }
        let (start, _) = translation.translate_ack(Seq(u32_at(blocks, at)));
        let (end, _) = translation.translate_ack(Seq(u32_at(blocks, at + 4)));
        // An end that lies on the floor, or had to be raised to it, leaves nothing above it.
        if translation.ack_floor == Some(end) {
            continue;
        }
        put_u32(blocks, kept * BLOCK, start.0);
        put_u32(blocks, kept * BLOCK + 4, end.0);
        kept += 1;
    }
    kept
}
