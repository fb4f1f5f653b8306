//! Connections from what the standby holds.

use std::time::Duration;

use outlive_tcp::{
    cookie::COOKIE_LIFETIME,
    endpoint::{Connection, RestoreError, RestoreOptions, State},
    fault::{self, Fault},
    time::Time,
};

use crate::{
    conn::{Conn, Stage},
    id::ConnectionId,
    outcome::{Event, LogEvent},
    regenerate::{REACH, Regeneration},
    replication::{Held, HeldCopy},
    stack::Stack,
};

impl Stack {
    /// Goes on with everything that is held. Gives how many connections that are.
    pub(crate) fn restore_all(&mut self, now: Time, mut held: Held) -> usize {
        let mut restored = 0;
        for (id, copy) in held.take() {
            match self.restore(now, id, copy) {
                Ok(()) => restored += 1,
                Err(_) => self.events.push_back(Event::Log(LogEvent::NotRestored(id))),
            }
        }
        self.counters.resumed += restored as u64;
        restored
    }

    fn restore(&mut self, now: Time, id: ConnectionId, copy: HeldCopy) -> Result<(), RestoreError> {
        let age = Duration::from_micros(self.clock.micros(now).saturating_sub(copy.clock_us));
        let sent_beyond = if copy.regenerates { REACH as u32 } else { 0 };
        let options = RestoreOptions { age, sent_beyond };
        let tcp = Connection::restore(now, &copy.capture, self.config.tcp, &options)?;
        let state = tcp.state();
        let ended = !matches!(state, State::Established | State::CloseWait);
        let peer_ended =
            matches!(state, State::CloseWait | State::Closing | State::LastAck | State::TimeWait);
        // Who has let it go may still have to write again what was on its way.
        let released = copy.released && (ended || !copy.regenerates);
        let stage = if released { Stage::Released } else { Stage::Queued };
        let mut conn = Conn::new(id, copy.irs, tcp, stage);
        conn.resumed = true;
        let behind = u64::from(fault::on(Fault::PositionOffByOne) && copy.acknowledged > 0);
        let position = copy.acknowledged - behind;
        (conn.read, conn.acknowledged, conn.written) = (position, position, copy.written);
        conn.state = copy.state;
        conn.ending = ended;
        // It is in what the standby was told only if it was acknowledged.
        conn.end_acknowledged = peer_ended;
        conn.regeneration = copy.regenerates.then(Regeneration::resumed);
        if released {
            conn.tcp.close();
        }
        let slot = self.insert(conn);
        if stage == Stage::Queued {
            self.queue(slot);
        }
        self.touch(now, slot);
        Ok(())
    }

    /// From now on handshakes may be completed that the other node has begun.
    pub(crate) fn adopt_handshakes(&mut self, now: Time) {
        self.cookies_until = now + COOKIE_LIFETIME;
    }
}
