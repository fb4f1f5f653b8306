//! Migrated connections whose packets are led to their targets by the [fast path](crate::fast_path).
//!
//! To it they are sessions of which one end only is heard: the client's packets get the tunnel's ends, and nothing else is changed. What
//! its sequence space looks like matters for one thing: a segment must not overtake one that came here before it. Of the target
//! nothing comes, so nothing is learnt of its stream, and the fast path has nothing to say of such a connection; it is taken back when the target
//! says that it has ended.

use outlive_tcp::{
    seq::Seq,
    time::Time,
    translation::{TimestampTranslation, Translation},
    wire::FourTuple,
};

use super::Mapping;
use crate::{
    fast_path::{Direction, Splice, StreamProgress},
    proxy::Proxy,
    session::Seconds,
};

/// The number of a mapping in the fast path is its slot and this bit, which no session's slot has.
pub(crate) const MIGRATED: u32 = 1 << 31;
/// Packets of a client that are led by hand first: for a short answer it would not be worth the effort.
const FIRST: u8 = 6;
/// Packets of a connection before it is tried again, if there was no room.
const AGAIN: u8 = 255;
/// How far a client may get before it is looked at again: there is nobody here who tells how far it may.
const REACH: u32 = 1 << 30;

/// Whether, and when, the packets of a mapping are left to the fast path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delegated {
    pub(super) yes: bool,
    /// Packets until it is tried.
    wait: u8,
}

impl Default for Delegated {
    fn default() -> Self {
        Delegated { yes: false, wait: FIRST }
    }
}

impl Proxy {
    /// A packet of the client that begins and ends there is led to its target, which has the ends `tunnelled`: the next may go there by
    /// the fast path.
    pub(super) fn delegate_mapping(
        &mut self,
        now: Time,
        slot: usize,
        (begin, end): (Seq, Seq),
        tunnelled: FourTuple,
    ) {
        if !self.has_fast_path() {
            return;
        }
        let mapping = &mut self.migrations.mappings[slot];
        let client = StreamProgress {
            next: end,
            acked: begin,
            edge: end + REACH,
            ..StreamProgress::default()
        };
        let silent = mapping.record.iss;
        let target =
            StreamProgress { next: silent, acked: silent, edge: silent, ..Default::default() };
        let number = slot as u32 | MIGRATED;
        if mapping.delegated.yes {
            // This packet came here nevertheless.
            return self.learn_of_lent(number, &[client, target]);
        }
        if mapping.delegated.wait > 0 {
            mapping.delegated.wait -= 1;
            return;
        }
        let direction = |tuple, stream| Direction {
            tuple,
            translation: to_other_ends(tunnelled),
            segment_limit: u32::MAX,
            stream,
        };
        let splice = Splice {
            serial: serial(mapping),
            opening: false,
            // The second is one that nobody sends; it comes from here.
            directions: [direction(mapping.record.ends, client), direction(tunnelled, target)],
        };
        let lent = self.lend(now, number, &splice);
        self.migrations.mappings[slot].delegated = Delegated { yes: lent, wait: AGAIN };
    }

    /// When the client was last heard, also by the fast path.
    pub(super) fn mapping_heard(&mut self, now: Time, slot: usize) -> Time {
        let mapping = &self.migrations.mappings[slot];
        let mut heard = mapping.last_seen.time();
        if mapping.delegated.yes
            && let Some(idle) = self.idle_of_lent(slot as u32 | MIGRATED)
        {
            heard = heard.max(now - idle);
            self.migrations.mappings[slot].last_seen = Seconds::of(heard);
        }
        heard
    }

    /// Whether the fast path has that mapping, and it is the one that it was given.
    pub(crate) fn has_lent_mapping(&self, number: u32, serial_then: u32) -> bool {
        let mapping = self.migrations.mappings.get((number & !MIGRATED) as usize);
        mapping.is_some_and(|it| it.delegated.yes && serial(it) == serial_then)
    }

    /// Leads the packets of a mapping by hand again.
    pub(crate) fn take_mapping_back(&mut self, now: Time, slot: usize) {
        self.mapping_heard(now, slot);
        let mapping = &mut self.migrations.mappings[slot];
        if std::mem::replace(&mut mapping.delegated, Delegated { yes: false, wait: AGAIN }).yes {
            self.reclaim(slot as u32 | MIGRATED);
        }
    }
}

/// Tells the mappings apart that have the same slot one after the other.
fn serial(mapping: &Mapping) -> u32 {
    mapping.record.flow.value()
}

/// Other ends, and otherwise as it came.
fn to_other_ends(tuple: FourTuple) -> Translation {
    Translation {
        tuple,
        seq_delta: 0,
        ack_delta: 0,
        ack_floor: None,
        timestamps: TimestampTranslation::Shift { value_delta: 0, echo_delta: 0 },
        sack: true,
        window_from: 0,
        window_to: 0,
    }
}
