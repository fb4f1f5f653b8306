//! Clients whose connection was lost with their target: nobody else may answer them, so they are told that it is over.
//!
//! A reset at the first byte that the target could have said ends a connection on which it has said nothing. A client that has heard
//! more does not believe that one, and may wait for the rest of an answer without a word, for as long as it likes. So it is asked where it
//! stands, by a byte that it has long received; it repeats its acknowledgment, and gets the reset that stands there. The mapping stays
//! for that as long as it takes, without a part in anything else.

use std::time::Duration;

use outlive_tcp::{
    segment::{DEFAULT_HOP_LIMIT, Segment, reset_for},
    time::Time,
    wire::{Flags, Options, TcpPacket},
};

use super::{Mapping, Phase};
use crate::{
    counters::Counter,
    proxy::{Proxy, Verdict},
    replication::change::Change,
};

/// How long a client is asked: question or answer may get lost.
const PATIENCE: Duration = Duration::from_secs(10);
const INTERVAL: Duration = Duration::from_secs(1);

impl Proxy {
    /// The target does not have the connection any more, and did not say that both ends closed it. Gives the change that tells the standby, unless
    /// it is told already.
    pub(super) fn mapping_lost(&mut self, now: Time, slot: usize) -> Option<u64> {
        if self.migrations.mappings[slot].phase == Phase::Lost {
            return None;
        }
        self.take_mapping_back(now, slot);
        let mapping = &mut self.migrations.mappings[slot];
        let (record, server) = (mapping.record, mapping.server);
        (mapping.phase, mapping.since) = (Phase::Lost, now);
        let queue = std::mem::take(&mut mapping.queue);
        self.migrations.queued -= queue.bytes();
        self.migrations.lost += 1;
        self.migrations.untold.remove(&record.id);
        self.pools.session_ended(server);
        self.counters.count(Counter::MigrationsLost);
        let change = self.journal.append(&Change::MigrationEnded { client: record.ends });
        self.reset_answered(record.ends, record.iss + 1);
        self.ask_lost_client(now, slot);
        Some(change)
    }

    /// Asks the client of a lost connection where it stands, until that has gone on for long enough.
    pub(super) fn ask_lost_client(&mut self, now: Time, slot: usize) {
        let mapping = &self.migrations.mappings[slot];
        if !self.decides() || now >= mapping.since + PATIENCE {
            return self.drop_mapping(now, slot);
        }
        let record = &mapping.record;
        self.outbox.send(&Segment {
            tuple: record.ends.reversed(),
            // Two below all that it can have received; without timestamps, which would be too old.
            seq: record.iss - 1,
            ack: Some(record.irs + 1),
            flags: Flags(0),
            window: 0,
            options: Options::default(),
            payload: &[0],
            hop_limit: DEFAULT_HOP_LIMIT,
        });
        self.migrations.timers.set(slot, now + INTERVAL);
    }

    /// A packet of a client whose connection was lost.
    pub(super) fn lost_packet(
        &mut self,
        now: Time,
        slot: usize,
        packet: &TcpPacket<'_>,
    ) -> Verdict {
        let over = Flags::SYN | Flags::RST;
        if packet.flags().intersects(over) {
            // It knows; if it begins anew, it says so again.
            self.drop_mapping(now, slot);
        } else if let Some(reset) = reset_for(packet).filter(|_| self.decides()) {
            self.counters.count(Counter::ResetsSent);
            self.outbox.send(&reset);
        }
        Verdict::Done
    }

    /// Takes a mapping away, and what is counted for its server.
    pub(super) fn remove_mapping(&mut self, now: Time, slot: usize) -> Mapping {
        self.take_mapping_back(now, slot);
        let mapping = self.migrations.remove(slot);
        if mapping.phase == Phase::Lost {
            self.migrations.lost -= 1;
        } else {
            self.pools.session_ended(mapping.server);
        }
        mapping
    }
}
