//! The state of a connection as bytes, and a connection from it.
//!
//! A schema of its own, written down in `docs/endpoint-state.md`: network byte order, fixed layout,
//! magic, version, length, checksum. What a receiver of it can find out by itself is not in it:
//! what is in flight and was lost, timers, the congestion window.
//!
//! The state may be older than what the other end saw last, since not every acknowledgment that
//! comes in is worth telling. What must be in it before it takes effect is for the program to see
//! to: an acknowledgment that is sent, the output that it follows from. See [`Contents`] for what
//! may be left out.

mod layout;
mod midstream;
mod portable;
mod restore;

pub(super) use self::layout::Snapshot;
pub use self::{
    layout::{CaptureError, RestoreError},
    midstream::Midstream,
    portable::{NotPortable, Portable},
    restore::RestoreOptions,
};
use super::{connection::Connection, state::State};
use crate::time::Time;

/// What a capture contains beside the numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Contents {
    /// What was written and is not acknowledged. Without it the program has to write the same bytes
    /// again after the restore, from [`Positions::written`](super::Positions::written) on.
    pub output: bool,
    /// What was received, is not acknowledged, and waits to be read. Without it, the other end is
    /// asked for everything again that is not acknowledged, read or not: what a program wants
    /// whose own state is that of its last acknowledgment. With it the program goes on where it has
    /// read to.
    pub unacknowledged: bool,
}

impl Contents {
    /// Everything: for a connection that moves with its program.
    pub const EVERYTHING: Contents = Contents { output: true, unacknowledged: true };
    /// The output, and nothing that the other end still has: for a standby.
    pub const COMMITTED: Contents = Contents { output: true, unacknowledged: false };
    /// Only numbers: for a standby that can compute the output again.
    pub const NUMBERS: Contents = Contents { output: false, unacknowledged: false };
}

impl Connection {
    /// The state of the connection. The connection is not changed, and may go on.
    pub fn capture(&self, now: Time, contents: Contents) -> Result<Vec<u8>, CaptureError> {
        if !self.state.is_synchronized() {
            return Err(CaptureError::NotEstablished);
        }
        Ok(self.snapshot(now, contents).encode())
    }

    /// Goes on from the state in `bytes`. What the other end then is sent first is a probe: its
    /// answer tells what it has of what was in flight.
    ///
    /// Bytes that do not come from [`capture`](Self::capture) are refused, as far as can be told;
    /// who could have changed them is for the caller to keep out.
    pub fn restore(
        now: Time,
        bytes: &[u8],
        config: super::Config,
        options: &RestoreOptions,
    ) -> Result<Self, RestoreError> {
        let snapshot = Snapshot::decode(bytes)?;
        Ok(Self::from_snapshot(now, snapshot, config, options))
    }

    fn snapshot(&self, now: Time, contents: Contents) -> Snapshot {
        let mut snapshot = Snapshot {
            tuple: self.tuple,
            state: self.state,
            agreed: self.agreed,
            timestamp: self.clock.value(now),
            timestamp_recent: self.receiver.paws.recent,
            path_mtu: self.path.mtu(),
            ..Snapshot::default()
        };
        if !self.sender.describe(&mut snapshot, contents.output) {
            snapshot.state = without_own_end(snapshot.state);
        }
        let keeps_end = self.receiver.describe(&mut snapshot, contents.unacknowledged);
        if !keeps_end {
            snapshot.state = without_end(snapshot.state);
        }
        snapshot
    }
}

/// The state in which the other end's FIN has not come yet: it will come again.
fn without_end(state: State) -> State {
    match state {
        State::CloseWait => State::Established,
        State::Closing | State::LastAck => State::FinWait1,
        State::TimeWait => State::FinWait2,
        state => state,
    }
}

/// The state in which the program has not ended its stream yet: it will do so again.
fn without_own_end(state: State) -> State {
    match state {
        State::FinWait1 => State::Established,
        State::LastAck | State::Closing => State::CloseWait,
        state => state,
    }
}
