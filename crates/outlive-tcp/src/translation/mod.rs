//! The splice: a packet of one connection becomes a packet of another, in place.
//!
//! A [`Translation`] is one direction of a splice, and constant. Applying it needs nothing else and
//! changes nothing else, so two nodes that hold the same one make the same packet of the same
//! packet. The payload is neither read nor moved; checksums are updated by what changed.
//!
//! Left as they are: flags, urgent pointer (which is relative), hop limit, traffic class with ECN,
//! identification, and options that Outlive does not negotiate.

mod insertion;
mod numbers;
mod options;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use crate::{
    checksum::Delta,
    fault::{self, Fault},
    seq::Seq,
    wire::{Checksum, FourTuple, IpVersion, TcpPacket, put_u16, put_u32, u16_at, u32_at},
};

/// One direction of a splice. All deltas are constants and are added modulo 2^32.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// The ends that the packet gets.
    pub tuple: FourTuple,
    /// Added to SEG.SEQ.
    pub seq_delta: u32,
    /// Added to SEG.ACK, if the ACK flag is set, and to the edges of SACK blocks.
    pub ack_delta: u32,
    /// A lower bound for acknowledgments and SACK edges, as the packet's receiver counts: where its
    /// own bytes begin. What is below is a prefix that a node inserted, and the node, not the
    /// receiver, has to care for its acknowledgment. SACK blocks that come out empty are removed.
    ///
    /// By what an acknowledgment is raised the window is lowered, so its right edge stays where the
    /// acknowledging end put it.
    ///
    /// To be given up once an acknowledgment has reached it: sequence numbers are compared on a
    /// circle, and 2^31 bytes later everything would seem to be below.
    pub ack_floor: Option<Seq>,
    /// What becomes of timestamps.
    pub timestamps: TimestampTranslation,
    /// Whether the packet's receiver understands SACK blocks; if not, NOPs are written over them.
    pub sack: bool,
    /// The scale of the window field as it comes; 14 if it is more.
    pub window_from: u8,
    /// The scale that the packet's receiver applies; 14 if it is more.
    pub window_to: u8,
}

/// What becomes of timestamps. Anything but `Shift` bridges ends that have negotiated differently.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimestampTranslation {
    /// Both ends use them, or neither does: numbers are added if the option is there.
    Shift {
        /// Added to TSval.
        value_delta: u32,
        /// Added to TSecr, if the ACK flag is set; without it TSecr means nothing.
        echo_delta: u32,
    },
    /// The packet's receiver has not negotiated them: NOPs are written over them. No length
    /// changes.
    Strip,
    /// The packet's sender does not write them and its receiver expects them (RFC 7323, section
    /// 3.2): they are inserted, before all other options.
    ///
    /// The packet grows by 12 bytes into its headroom, so both ends must have been told segment
    /// sizes that leave room for them. If they are there nevertheless, they are overwritten.
    Insert {
        /// TSval.
        value: u32,
        /// TSecr.
        echo: u32,
    },
}

/// Why a packet cannot be translated. It is to be dropped, and has not been changed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Untranslatable {
    /// The translation's ends are not of the packet's IP version. The caller's mistake.
    #[error("translation to another IP version")]
    Version,
    /// Timestamps are to be inserted, and there are less than 12 bytes of headroom. The caller's
    /// mistake.
    #[error("no headroom for an inserted option")]
    Headroom,
    /// Timestamps are to be inserted, and the TCP header would be longer than 60 bytes, even
    /// without the SACK blocks that can be spared.
    #[error("no room for an inserted option in the TCP header")]
    HeaderFull,
    /// Timestamps are to be inserted, and the IP packet would be longer than 65,535 bytes.
    #[error("packet too long for an inserted option")]
    TooLong,
}

impl TcpPacket<'_> {
    /// Makes the packet into one of the other connection.
    ///
    /// A checksum that was right is right afterwards, a wrong one is wrong afterwards; if the
    /// device is to complete it, the field holds the sum of the new pseudo-header. What
    /// [`offload`](Self::offload) says stays true.
    pub fn translate(&mut self, translation: &Translation) -> Result<(), Untranslatable> {
        if translation.tuple.version() != Some(self.version) {
            return Err(Untranslatable::Version);
        }
        // Everything that can be refused is refused here, before the first write.
        let insertion = self.plan_insertion(&translation.timestamps)?;

        let mut changes = Changes::default();
        self.replace_ends(&translation.tuple, &mut changes);
        self.translate_numbers(translation, &mut changes);
        self.translate_sack(translation, &mut changes);
        match insertion {
            Some(insertion) => self.insert_timestamps(insertion, &mut changes),
            None => self.translate_timestamps(&translation.timestamps, &mut changes),
        }
        self.update_checksum(changes);
        Ok(())
    }

    /// Gives the packet other ends and changes nothing else: the same connection under another
    /// address. What is said of checksums in [`translate`](Self::translate) holds here, too.
    pub fn readdress(&mut self, tuple: &FourTuple) -> Result<(), Untranslatable> {
        if tuple.version() != Some(self.version) {
            return Err(Untranslatable::Version);
        }
        let mut changes = Changes::default();
        self.replace_ends(tuple, &mut changes);
        self.update_checksum(changes);
        Ok(())
    }

    fn replace_ends(&mut self, tuple: &FourTuple, changes: &mut Changes) {
        let header = self.header_mut();
        let ports = u32::from(tuple.source.port) << 16 | u32::from(tuple.destination.port);
        changes.segment.replace_u32(u32_at(header, 0), ports, 0);
        put_u32(header, 0, ports);

        let mut addresses = Delta::default();
        let ip = &mut self.buffer[self.start..self.tcp];
        let field = self.version.address_range();
        let middle = field.start + field.len() / 2;
        replace_address(ip, field.start, tuple.source.addr, &mut addresses);
        replace_address(ip, middle, tuple.destination.addr, &mut addresses);
        changes.pseudo_header = changes.pseudo_header.and(addresses);
        if self.version == IpVersion::V4 {
            put_u16(ip, 10, addresses.apply_to_checksum(u16_at(ip, 10)));
        }
    }

    fn update_checksum(&mut self, changes: Changes) {
        if fault::on(Fault::ChecksumNotUpdated) {
            return;
        }
        let partial = self.offload().checksum == Checksum::Partial;
        let header = self.header_mut();
        let field = u16_at(header, 16);
        let updated = if partial {
            changes.pseudo_header.apply_to_sum(field)
        } else {
            changes.pseudo_header.and(changes.segment).apply_to_checksum(field)
        };
        put_u16(header, 16, updated);
    }
}

/// What has changed of what the TCP checksum covers.
#[derive(Default)]
struct Changes {
    /// Addresses and length.
    pseudo_header: Delta,
    /// The TCP header.
    segment: Delta,
}

fn replace_address(ip: &mut [u8], at: usize, addr: IpAddr, delta: &mut Delta) {
    let mut replace = |at: usize, word: u32| {
        delta.replace_u32(u32_at(ip, at), word, at);
        put_u32(ip, at, word);
    };
    match addr {
        IpAddr::V4(v4) => replace(at, v4.to_bits()),
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            for i in 0..4 {
                replace(at + 4 * i, (bits >> (96 - 32 * i)) as u32);
            }
        }
    }
}
