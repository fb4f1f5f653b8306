//! Output that the program can compute again from its state: the standby does not hold it, and is not
//! asked before it leaves.
//!
//! What the standby has to know is from where on the program would have to write again, and how far
//! the other end's acknowledgments can then be beyond that. So output leaves at once up to [`REACH`]
//! beyond a position that the standby has confirmed, and as long as nothing is decided that it does not
//! know of: it is computed from the state that the standby has.

use outlive_tcp::time::Time;

use crate::{
    conn::Conn,
    id::ConnectionId,
    outcome::Closed,
    stack::{Release, Stack},
};

/// How much output may leave that the standby has not been told of: as far as that acknowledgments are
/// believed after a takeover, and output is computed twice.
pub(crate) const REACH: u64 = 32 << 20;
/// How much output leaves before the standby is told where the other end is.
const STEP: u64 = REACH / 4;

/// Of a connection whose program computes its output again.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Regeneration {
    /// The standby has confirmed that the program would write again from here on.
    confirmed: Option<u64>,
    /// The same in the last record made.
    told: Option<u64>,
    /// The connection has come here by a takeover, and the program has decided nothing since.
    pub(crate) under_way: bool,
}

impl Regeneration {
    /// Of a connection that goes on here.
    pub(crate) fn resumed() -> Self {
        Regeneration { under_way: true, ..Self::default() }
    }

    /// A record says that the program would write again from `position` on.
    pub(crate) fn note_told(&mut self, position: u64) {
        self.told = Some(position);
    }

    /// The last record made is confirmed.
    pub(crate) fn note_confirmed(&mut self) {
        self.confirmed = self.told;
    }

    pub(crate) fn standby_lost(&mut self) {
        (self.confirmed, self.told) = (None, None);
    }
}

impl Conn {
    /// What waits may leave before the standby is told of it.
    fn runs_ahead(&self) -> bool {
        let decided = self.under_way.as_ref().is_some_and(|(_, batch)| !batch.is_empty());
        let confirmed = self.regeneration.and_then(|regeneration| regeneration.confirmed);
        let written = self.written + self.waiting.output_len as u64;
        self.waiting.is_output()
            && !decided
            && confirmed.is_some_and(|confirmed| written <= confirmed + REACH)
    }

    /// It is time to tell the standby where the other end is.
    fn has_run_far(&self) -> bool {
        let told = self.regeneration.and_then(|regeneration| regeneration.told);
        told.is_none_or(|told| self.delivered() > told + STEP)
    }
}

impl Stack {
    /// Says that everything the program sends on the connection can be computed again from its state,
    /// from any position on that the other end has not acknowledged. From now on the standby
    /// does not hold output, and output is not held back for it.
    ///
    /// After a takeover the program writes again from
    /// [`Accepted::written`](crate::Accepted::written) on, before it decides anything: before the
    /// first transaction that acknowledges or changes the state (to repeat what was decided before the
    /// takeover changes nothing). If the other end turns out to have more
    /// than was written until then, or the stream ends elsewhere, it is another output, and the
    /// connection is reset: [`Closed::OutputDiverged`].
    ///
    /// What a transaction that decides something writes itself, or what is written behind it, may be
    /// computed from the new state.
    pub fn regenerate_output(&mut self, now: Time, id: ConnectionId) -> Result<(), Closed> {
        let slot = self.open_slot(id)?;
        let conn = &mut self.table[slot];
        if let Some(closed) = conn.closed {
            return Err(closed);
        }
        if conn.regeneration.is_none() {
            conn.regeneration = Some(Regeneration::default());
            self.changed(now, slot);
        }
        Ok(())
    }

    /// Up to where the other end has acknowledged what the program has sent: nothing before that need be
    /// computed again, after a takeover either.
    pub fn delivered(&self, id: ConnectionId) -> Result<u64, Closed> {
        Ok(self.table[self.open_slot(id)?].delivered())
    }

    /// Lets what waits at the connection leave, if the standby need not know of it. Gives whether it
    /// did.
    pub(crate) fn run_ahead(&mut self, now: Time, slot: usize) -> bool {
        let conn = &mut self.table[slot];
        if self.posture.release != Release::Confirmed || !conn.runs_ahead() {
            return false;
        }
        let batch = std::mem::take(&mut conn.waiting);
        conn.take_effect(batch);
        let far = conn.has_run_far();
        self.effective(now, slot);
        if far {
            self.changed(now, slot);
        }
        true
    }
}
