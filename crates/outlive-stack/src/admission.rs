//! Connections that come here in the middle: another TCP has carried them so far.
//!
//! They are mute at first: nothing leaves, nothing that comes is looked at, and no program knows of them.
//! Then they either speak, and are connections like any other, or are taken away without a word.

use outlive_tcp::{
    endpoint::{self, Connection},
    seq::Seq,
    time::Time,
};

use crate::{
    conn::{Conn, Stage},
    id::ConnectionId,
    stack::{Release, Stack},
};

/// A connection that comes here.
#[derive(Debug)]
pub struct Arriving {
    /// Itself, made with [`Stack::tcp_config`].
    pub tcp: Connection,
    /// The other end's initial sequence number.
    pub irs: Seq,
    /// How many bytes of the other end's stream are acknowledged.
    pub acknowledged: u64,
    /// How many bytes were sent.
    pub written: u64,
}

/// Why a connection cannot come here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotAdmitted {
    /// No program listens there.
    #[error("nobody listens at its address")]
    NobodyListens,
    /// There is one between the same ends.
    #[error("there is a connection between the same ends")]
    Taken,
    /// As many connections as there may be are there, or wait for the listener's program.
    #[error("no room")]
    Full,
}

impl Stack {
    /// How connections are set: for whoever makes one that is to [come here](Self::admit).
    pub fn tcp_config(&self) -> endpoint::Config {
        self.config.tcp
    }

    /// Takes a connection in, mute, and gives the name that it has from now on. To be followed by
    /// [`speak`](Self::speak) or [`dismiss`](Self::dismiss).
    ///
    /// When it is over, [`Event::Over`](crate::Event::Over) says so.
    pub fn admit(&mut self, arriving: Arriving) -> Result<ConnectionId, NotAdmitted> {
        let ends = arriving.tcp.tuple();
        let listener = self.listeners.get(ends.source).ok_or(NotAdmitted::NobodyListens)?;
        if self.table.between(&ends).is_some() {
            return Err(NotAdmitted::Taken);
        }
        if !listener.has_room() || self.table.len() >= self.config.connections {
            return Err(NotAdmitted::Full);
        }
        let id = self.next_id();
        let mut conn = Conn::new(id, arriving.irs, arriving.tcp, Stage::Mute);
        conn.admitted = true;
        (conn.read, conn.acknowledged) = (arriving.acknowledged, arriving.acknowledged);
        conn.written = arriving.written;
        self.insert(conn);
        if let Some(listener) = self.listeners.get_mut(ends.source) {
            listener.half_open += 1;
        }
        Ok(id)
    }

    /// Lets a connection speak that was [admitted](Self::admit): its listener is given it. False if it is not
    /// there any more, because nobody listens.
    #[must_use]
    pub fn speak(&mut self, now: Time, id: ConnectionId) -> bool {
        let Some(slot) = self.mute_slot(id) else { return false };
        self.table[slot].stage = Stage::Announced;
        if self.posture.release == Release::Now {
            self.queue(slot);
        }
        self.changed(now, slot);
        self.touch(now, slot);
        true
    }

    /// Takes a connection away that was [admitted](Self::admit) and has never spoken.
    pub fn dismiss(&mut self, id: ConnectionId) {
        if let Some(slot) = self.mute_slot(id) {
            self.listeners.leave_half_open(self.table[slot].local());
            self.table.remove(slot);
        }
    }

    fn mute_slot(&self, id: ConnectionId) -> Option<usize> {
        self.table.named(id).filter(|slot| self.table[*slot].stage == Stage::Mute)
    }
}
