//! Sessions of which the standby is told only when there is data (see
//! [`Synchronise::FirstData`](crate::config::Synchronise)): the client has been answered, and what comes first,
//! in either direction, waits until the standby knows.

use outlive_tcp::{
    time::Time,
    wire::{Flags, TcpPacket},
};

use super::{FirstData, Proxy, Verdict, withheld::Said};
use crate::{counters::Counter, flows::Side, replication::change::Change, session::Phase};

impl Proxy {
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
        let prefix = self.prefixes.get(&slot).map_or(&[][..], |p| &p.bytes);
        let change =
            self.journal.append(&Change::Opened { record: &self.sessions[slot].record, prefix });
        self.sessions[slot].told = true;
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
        let prefixed = self.send_prefix(now, slot);
        if !prefixed || !client.is_empty() {
            self.send_first(now, slot, Side::Client, &client);
        }
        if !server.is_empty() {
            self.send_first(now, slot, Side::Server, &server);
        }
    }
}
