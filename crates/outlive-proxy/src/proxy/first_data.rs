//! Sessions of which the standby is told only when there is data (see
//! [`Synchronise::FirstData`](crate::config::Synchronise)): the client has been answered, and what comes first,
//! in either direction, waits until the standby knows.

use std::time::Duration;

use outlive_tcp::{
    time::Time,
    wire::{Flags, TcpPacket},
};

use super::{FirstData, Proxy, Verdict, withheld::Said};
use crate::{counters::Counter, flows::Side, replication::change::Change, session::Phase};

/// Sessions told in one go before a handover, and the places of the table looked at for them.
const TOLD_AT_ONCE: usize = 1_024;
const LOOKED_AT: usize = 16_384;
/// While some wait to be confirmed, the confirmation is what it goes on with; it looks by itself only so often.
const WAITING: Duration = Duration::from_millis(20);
/// How soon it goes on.
const PAUSE: Duration = Duration::from_millis(1);

impl Proxy {
    /// This node is about to hand over: from now on the standby is told of every session when it is established, and
    /// [`tell_untold`](Self::tell_untold) tells of those that there are.
    pub(crate) fn begin_telling_untold(&mut self, now: Time) {
        self.untold = self.has_deferred.then_some((0, now));
    }

    /// Tells the standby of some more sessions of which it has not been told. They wait for its confirmation like new
    /// ones. Returns whether there may be more.
    pub(crate) fn tell_untold(&mut self, now: Time) -> bool {
        let Some((mut slot, at)) = self.untold else { return false };
        if self.waiting_since().is_some() {
            // What waits costs memory: one lot after the other.
            self.untold = Some((slot, now + WAITING));
            return true;
        }
        if at > now && at.since(now) <= PAUSE {
            return true;
        }
        let end = slot + LOOKED_AT;
        let mut told = 0;
        while let Some((found, session)) = self.sessions.next_from(slot) {
            if found >= end || told == TOLD_AT_ONCE {
                self.untold = Some((found, now + PAUSE));
                return true;
            }
            slot = found + 1;
            if !session.told && !session.phase.is_over() {
                self.tell_before_data(now, found);
                told += 1;
            }
        }
        self.untold = None;
        false
    }

    /// When [`tell_untold`](Self::tell_untold) wants to be called.
    pub(crate) fn untold_deadline(&self) -> Option<Time> {
        self.untold.map(|(_, at)| at)
    }

    fn tell_before_data(&mut self, now: Time, slot: usize) {
        // One whose client has not acknowledged its answer is answered again when the standby knows.
        let answering = self.sessions[slot].phase == Phase::Answering;
        let change = self.tell_opened(slot);
        if self.waits(slot) {
            self.sessions[slot].phase = Phase::Unconfirmed;
            if !answering {
                self.withheld.begin(slot);
            }
            self.await_release(now, slot, change, FirstData::default());
        } else if !answering {
            self.sessions[slot].phase = Phase::Open;
        }
    }

    /// Tells the standby of a session, and returns the number of the change.
    fn tell_opened(&mut self, slot: usize) -> u64 {
        let prefix = self.prefixes.get(&slot).map_or(&[][..], |p| &p.bytes);
        let session = &mut self.sessions[slot];
        session.told = true;
        self.journal.append(&Change::Opened { record: &session.record, prefix })
    }

    /// A segment of a session of which the standby may not have been told yet: if it is more than an
    /// acknowledgment, the standby comes first. `None`: it may pass.
    pub(super) fn first_data(
        &mut self,
        now: Time,
        slot: usize,
        side: Side,
        packet: &TcpPacket<'_>,
    ) -> Option<Verdict> {
        // A header that is due is data, too.
        let header = self.prefixes.contains_key(&slot);
        let data = packet.payload_len() > 0 || packet.flags().contains(Flags::FIN);
        if self.sessions[slot].told || !data && !header {
            return None;
        }
        let change = self.tell_opened(slot);
        if !self.waits(slot) {
            self.sessions[slot].phase = Phase::Open;
            self.send_prefix(now, slot);
            return None;
        }
        self.sessions[slot].phase = Phase::Unconfirmed;
        self.withheld.begin(slot);
        self.await_release(now, slot, change, FirstData::default());
        Some(self.withhold(slot, side, packet))
    }

    /// A segment of a session of which the standby has been told, and has not said that it knows.
    pub(super) fn withhold(&mut self, slot: usize, side: Side, packet: &TcpPacket<'_>) -> Verdict {
        let isn = self.sessions[slot].record.leg(side).end_isn;
        let flags = packet.flags();
        let said = Said {
            fin: flags.contains(Flags::FIN),
            timestamps: packet.timestamps(),
            ..Said::new(packet.seq(), isn, packet.payload())
        };
        let odd = flags.contains(Flags::SYN) || flags.contains(Flags::RST);
        if odd || !self.withheld.keep(slot, side, &said) {
            return self.drop(Counter::DropUnconfirmed);
        }
        if let (Side::Client, Some(timestamps)) = (side, said.timestamps) {
            self.sessions[slot].client_timestamp = timestamps.value;
        }
        Verdict::Done
    }

    /// The standby knows of a session whose first data was withheld.
    pub(crate) fn let_go(&mut self, now: Time, slot: usize, [client, server]: [FirstData; 2]) {
        self.sessions[slot].phase = Phase::Open;
        self.sessions.is_complete(slot);
        self.arm_idle(now, slot);
        self.send_prefix(now, slot);
        // The handshakes are complete: without data there is nothing to say.
        if !client.is_empty() {
            self.send_first(now, slot, Side::Client, &client);
        }
        if !server.is_empty() {
            self.send_first(now, slot, Side::Server, &server);
        }
    }
}
