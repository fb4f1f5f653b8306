//! A connection from a snapshot.

use std::time::Duration;

use super::layout::Snapshot;
use crate::{
    endpoint::{
        config::Config, connection::Connection, open::Opening, receiver::Paws, state::State,
        timers::Timer,
    },
    time::Time,
};

/// What the new node knows about the time between the capture and now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RestoreOptions {
    /// How old the capture is at most, by any clock: the timestamps sent from now on are ahead of
    /// all that the former node can have sent in that time.
    pub age: Duration,
    /// How far beyond the right edge that the capture knows the former node may have sent, because
    /// the other end has opened its window since. Nothing if no output leaves before it is captured.
    pub sent_beyond: u32,
}

impl Connection {
    pub(super) fn from_snapshot(
        now: Time,
        snapshot: Snapshot,
        config: Config,
        options: &RestoreOptions,
    ) -> Self {
        let age_ms = options.age.as_millis().min(u128::from(u32::MAX / 4)) as u32;
        let timestamp = snapshot.timestamp.wrapping_add(age_ms).wrapping_add(1);
        let opening = Opening {
            tuple: snapshot.tuple,
            iss: snapshot.iss,
            timestamp_offset: timestamp.wrapping_sub(now.as_millis() as u32),
        };
        let (state, agreed, irs) = (snapshot.state, snapshot.agreed, snapshot.irs);
        let mut connection = Self::unopened(opening, irs, config, agreed, state);
        connection.handshake.passive = true;
        connection.path.resume(snapshot.path_mtu);
        let mss = connection.full_segment();
        connection.sender.established(&config, &agreed, mss, false);
        connection.receiver.paws = Paws::start(snapshot.timestamp_recent, now);
        connection.sender.resume(now, &snapshot, options.sent_beyond);
        connection.receiver.resume(snapshot);
        connection.ask_for_report(now);
        connection.check();
        connection
    }

    /// The other end is to say what it has.
    fn ask_for_report(&mut self, now: Time) {
        self.probe_due = self.state != State::TimeWait;
        self.awaits_report = true;
        if self.sender.in_flight() {
            self.timers.set(Timer::Retransmit, now + self.sender.rtt.rto());
        }
    }
}
