//! What a program does with its listeners and connections.

use outlive_tcp::{
    fault::{self, Fault},
    time::Time,
    wire::Endpoint,
};

use crate::{
    conn::Stage,
    id::ConnectionId,
    listener::Listener,
    outcome::{Accepted, Chunk, Closed, CommitError, Event, ListenError},
    stack::{Release, Stack},
    transaction::Transaction,
};

impl Stack {
    /// Listens at `local`, an address that packets come to the stack for. Up to `backlog` handshakes
    /// have a state of their own, and as many connections wait to be accepted; handshakes beyond
    /// that have none.
    ///
    /// A standby listens, too: its listeners are given their connections when it takes over.
    pub fn listen(&mut self, local: Endpoint, backlog: usize) -> Result<(), ListenError> {
        if self.listeners.get(local).is_some() {
            return Err(ListenError::InUse(local));
        }
        self.listeners.insert(local, Listener { backlog: backlog.max(1), ..Listener::default() });
        // Those that a takeover has brought before.
        for slot in self.table.all() {
            let conn = &self.table[slot];
            if conn.local() == local && conn.stage == Stage::Queued {
                self.queue(slot);
            }
        }
        Ok(())
    }

    /// Listens at `local` no more. Connections that nobody has accepted are reset.
    pub fn unlisten(&mut self, now: Time, local: Endpoint) {
        if self.listeners.remove(local).is_none() {
            return;
        }
        for slot in self.table.all() {
            let conn = &mut self.table[slot];
            if conn.local() == local && conn.stage == Stage::Mute {
                // It is not this program's to reset.
                self.table.remove(slot);
            } else if conn.local() == local && !matches!(conn.stage, Stage::Open | Stage::Released)
            {
                conn.stage = Stage::Released;
                self.abort_slot(now, slot);
            }
        }
    }

    /// The next connection that waits at `local`: a new one, or one that goes on here.
    pub fn accept(&mut self, now: Time, local: Endpoint) -> Option<Accepted> {
        loop {
            let id = self.listeners.get_mut(local)?.queue.pop_front()?;
            let Some(slot) = self.table.named(id) else { continue };
            if self.table[slot].is_over() && !self.table[slot].resumed {
                // It was reset while it waited, and nothing of it was ever acknowledged.
                self.forget(now, slot);
                continue;
            }
            let conn = &mut self.table[slot];
            conn.stage = Stage::Open;
            self.counters.accepted += 1;
            let ends = conn.tuple();
            let accepted = Accepted {
                id,
                local: ends.source.into(),
                remote: ends.destination.into(),
                resumed: conn.resumed,
                state: conn.state.clone(),
                position: conn.read,
                written: conn.written,
                regenerates_output: conn.regeneration.is_some(),
            };
            if conn.tcp.unread() > 0 || conn.is_over() {
                self.events.push_back(Event::Readable(id));
            }
            return Some(accepted);
        }
    }

    pub(crate) fn open_slot(&self, id: ConnectionId) -> Result<usize, Closed> {
        self.table
            .named(id)
            .filter(|slot| self.table[*slot].stage == Stage::Open)
            .ok_or(Closed::Unknown)
    }

    /// The next bytes of a connection, `max` at most. They are not acknowledged by being read.
    pub fn read(&mut self, now: Time, id: ConnectionId, max: usize) -> Result<Chunk, Closed> {
        let slot = self.open_slot(id)?;
        let chunk = self.table[slot].read(max);
        if matches!(chunk, Ok(Chunk::Data { .. })) {
            // The window may be another.
            self.touch(now, slot);
        }
        chunk
    }

    /// Bytes of a connection that were read and are not acknowledged.
    pub fn outstanding(&self, id: ConnectionId) -> Result<u64, Closed> {
        Ok(self.table[self.open_slot(id)?].outstanding())
    }

    /// Bytes that can be sent on a connection now. If there are none, [`Event::Writable`] will come.
    pub fn room(&mut self, id: ConnectionId) -> Result<usize, Closed> {
        let slot = self.open_slot(id)?;
        let conn = &mut self.table[slot];
        if let Some(closed) = conn.closed {
            return Err(closed);
        }
        let room = conn.room();
        conn.wants_room |= room == 0;
        Ok(room)
    }

    /// Begins a transaction. It takes effect at once, or when the standby has confirmed that it knows:
    /// [`is_committed`](Self::is_committed) with the number that is returned, and
    /// [`Event::Committed`], say when.
    pub fn commit(
        &mut self,
        now: Time,
        id: ConnectionId,
        transaction: Transaction,
    ) -> Result<u64, CommitError> {
        let slot = self.open_slot(id)?;
        let (state, output) = (self.config.state_limit, self.config.tcp.send_buffer as usize);
        let conn = &mut self.table[slot];
        let possible = conn.check(&transaction, state, output);
        conn.wants_room |= possible == Err(CommitError::NoRoom);
        possible?;
        let number = conn.add(transaction);
        if self.posture.release == Release::Now || fault::on(Fault::TransactionBeforeStandby) {
            self.take_effect(now, slot);
        } else if self.run_ahead(now, slot) {
            return Ok(number);
        }
        self.changed(now, slot);
        Ok(number)
    }

    /// Everything that waits at the connection takes effect.
    pub(crate) fn take_effect(&mut self, now: Time, slot: usize) {
        let conn = &mut self.table[slot];
        conn.release_all();
        self.effective(now, slot);
    }

    /// Transactions of the connection have taken effect.
    pub(crate) fn effective(&mut self, now: Time, slot: usize) {
        let id = self.table[slot].id;
        self.tell_program(slot, Event::Committed(id));
        self.touch(now, slot);
    }

    /// Whether the transaction with that number has taken effect. If the connection has ended before
    /// it could, that is the error, though the standby may know of it.
    pub fn is_committed(&self, id: ConnectionId, number: u64) -> Result<bool, Closed> {
        let conn = &self.table[self.open_slot(id)?];
        match conn.closed {
            _ if conn.effective >= number => Ok(true),
            Some(closed) => Err(closed),
            None => Ok(false),
        }
    }

    /// Lets a connection go: what was decided still takes effect and what was sent still arrives, then
    /// the stream ends. If bytes of the other end are not acknowledged, it is reset instead, so that
    /// the other end knows.
    pub fn close(&mut self, now: Time, id: ConnectionId) {
        let Ok(slot) = self.open_slot(id) else { return };
        let conn = &mut self.table[slot];
        conn.stage = Stage::Released;
        if conn.is_over() {
            return self.let_go(now, slot);
        }
        let missing = conn.outstanding() > 0
            || conn.tcp.unread() > 0
            || (conn.end_read && !conn.end_acknowledged);
        if missing {
            return self.abort_slot(now, slot);
        }
        conn.issued += 1;
        let number = conn.issued;
        conn.waiting.add(Transaction::new().end(), number);
        conn.waiting.release = true;
        if self.posture.release == Release::Now {
            self.take_effect(now, slot);
        }
        self.changed(now, slot);
    }

    /// Resets a connection. What was decided and has not taken effect never does.
    pub fn abort(&mut self, now: Time, id: ConnectionId) {
        let Ok(slot) = self.open_slot(id) else { return };
        self.table[slot].stage = Stage::Released;
        self.abort_slot(now, slot);
    }

    /// The program has nothing more to do with a connection that is over.
    fn let_go(&mut self, now: Time, slot: usize) {
        if !self.table[slot].tcp.is_parting() {
            self.forget(now, slot);
        }
    }

    fn abort_slot(&mut self, now: Time, slot: usize) {
        if self.table[slot].closed.is_some() {
            return self.let_go(now, slot);
        }
        self.table[slot].tcp.abort();
        self.touch(now, slot);
    }
}
