//! Sequence and acknowledgment number, and the window that belongs to the latter.

use super::{Changes, Translation};
use crate::{
    seq::Seq,
    wire::{Flags, MAX_WINDOW_SCALE, TcpPacket, put_u16, put_u32},
};

impl TcpPacket<'_> {
    pub(super) fn translate_numbers(&mut self, translation: &Translation, changes: &mut Changes) {
        let (flags, seq, ack, window) = (self.flags(), self.seq(), self.ack(), self.window());
        let new_seq = seq + translation.seq_delta;
        let (new_ack, raised) =
            if flags.contains(Flags::ACK) { translation.translate_ack(ack) } else { (ack, 0) };
        // In a SYN the field is never scaled (RFC 7323, section 2.2).
        let new_window = if flags.contains(Flags::SYN) {
            window
        } else {
            translation.translate_window(window, raised)
        };

        let header = self.header_mut();
        changes.segment.replace_u32(seq.0, new_seq.0, 4);
        changes.segment.replace_u32(ack.0, new_ack.0, 8);
        changes.segment.replace_u16(window, new_window);
        put_u32(header, 4, new_seq.0);
        put_u32(header, 8, new_ack.0);
        put_u16(header, 14, new_window);
    }
}

impl Translation {
    /// An acknowledgment (or an edge of a SACK block) in the receiver's space, and how far the
    /// floor has raised it.
    pub(super) fn translate_ack(&self, ack: Seq) -> (Seq, u32) {
        let ack = ack + self.ack_delta;
        match self.ack_floor {
            Some(floor) if ack.before(floor) => (floor, floor.distance(ack)),
            _ => (ack, 0),
        }
    }

    /// The window field for the scale that the receiver applies: never more bytes than there are
    /// behind the acknowledgment after it was raised, and as many of them as the field can say.
    pub(super) fn translate_window(&self, window: u16, raised: u32) -> u16 {
        let (from, to) =
            (self.window_from.min(MAX_WINDOW_SCALE), self.window_to.min(MAX_WINDOW_SCALE));
        let bytes = (u32::from(window) << from).saturating_sub(raised);
        u16::try_from(bytes >> to).unwrap_or(u16::MAX)
    }
}
