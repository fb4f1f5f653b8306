//! The node's role: who serves, and what follows for connections and transactions.
//!
//! What is decided when is `outlive_proxy::pair`'s; here it is done.

use std::time::Duration;

use outlive_proxy::{
    event::{CloseReason, TakeoverCause},
    pair::{
        Decision, Epoch,
        heartbeat::{Beliefs, Heartbeat, Role},
    },
};
use outlive_tcp::time::Time;

use crate::{
    conn::Stage,
    outcome::{Closed, Event, LogEvent, Standing},
    replication::{LinkEvent, StateError},
    stack::{Release, Stack},
};

/// The first pause between two announcements of the addresses, and the longest.
const FIRST_ANNOUNCEMENT: Duration = Duration::from_millis(50);
const LAST_ANNOUNCEMENT: Duration = Duration::from_secs(10);
/// Once the pause is as long as this, every neighbour has had several chances to hear of it.
const ENOUGH_ANNOUNCEMENTS: Duration = Duration::from_millis(800);

/// What of that which has arrived was handed over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hearing {
    Something,
    Everything,
}

/// What waits for a standby.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Backlog {
    /// Connections of which something is to be told.
    pub connections: usize,
    /// Records that were told and are not confirmed.
    pub unconfirmed: usize,
    /// How long the oldest of them has waited.
    pub oldest: Duration,
}

impl Stack {
    // ── what can be seen

    /// What this node's heartbeats say from now on.
    pub fn beliefs(&self) -> Beliefs {
        self.pair.beliefs()
    }

    /// What the peer says of itself, if it is heard.
    pub fn peer(&self, now: Time) -> Option<Beliefs> {
        self.pair.peer(now)
    }

    /// The pair's clock, in microseconds: runs with `now`.
    pub fn clock_us(&self, now: Time) -> u64 {
        self.clock.micros(now)
    }

    /// Heartbeats shall ask for an answer, and go out at once: the node stood still.
    pub fn asks(&self) -> bool {
        self.pair.is_unsure()
    }

    /// What this node is.
    pub fn standing(&self) -> Standing {
        let beliefs = self.pair.beliefs();
        match beliefs.role {
            Role::Joining => Standing::Starting,
            Role::Standby => {
                Standing::Standby { synchronised: beliefs.synchronised && self.link.held.complete }
            }
            Role::Active if self.pair.is_paired() => Standing::Protected,
            Role::Active if self.posture.release == Release::Held => Standing::Losing,
            Role::Active => Standing::Alone,
        }
    }

    /// What waits for the standby: whether it keeps up.
    pub fn backlog(&self, now: Time) -> Backlog {
        let (connections, unconfirmed) = self.link.backlog();
        let oldest = self.link.owed_since().map_or(Duration::ZERO, |since| now.since(since));
        Backlog { connections, unconfirmed, oldest }
    }

    /// Connections that this standby would go on with.
    pub fn held(&self) -> usize {
        self.link.held.len()
    }

    // ── what happens

    /// The heartbeats sent so far have numbers up to `counter`. To be told when [`asks`](Self::asks)
    /// says so, before the first one that asks.
    pub fn handle_asked(&mut self, counter: u64) {
        self.pair.asked(counter);
    }

    /// A heartbeat arrived on path number `path` at `at`.
    pub fn handle_heartbeat(&mut self, now: Time, path: usize, at: Time, heartbeat: &Heartbeat) {
        self.turn(now);
        let standing = self.standing();
        let unsure = self.pair.is_unsure();
        let news = self.pair.heard(path, at, heartbeat);
        self.follow_replacement(now);
        self.check_held();
        if news && self.pair.is_active() {
            self.announcement = Some((now + FIRST_ANNOUNCEMENT, FIRST_ANNOUNCEMENT));
        }
        if heartbeat.beliefs.role == Role::Active {
            self.clock.follow(now, heartbeat.clock_us);
        }
        self.follow(now, Hearing::Something);
        if unsure && !self.pair.is_unsure() && self.pair.is_active() {
            self.log(LogEvent::SureAgain);
        }
        self.sync_posture();
        self.tell_standing(standing);
    }

    /// Connecting to the peer was refused: no process listens there.
    pub fn handle_peer_refused(&mut self, now: Time) {
        self.turn(now);
        self.pair.refused();
        self.follow(now, Hearing::Something);
    }

    /// The state connection is there (again), empty in both directions.
    pub fn handle_state_connected(&mut self, now: Time) {
        self.turn(now);
        self.drop_link(now);
        let beliefs = self.pair.beliefs();
        self.link.connected(&beliefs);
    }

    /// The state connection is gone. What had arrived on it must have been handed over before.
    pub fn handle_state_closed(&mut self, now: Time) {
        self.turn(now);
        let standing = self.standing();
        self.drop_link(now);
        self.follow(now, Hearing::Something);
        self.tell_standing(standing);
    }

    /// A message arrived on the state connection.
    ///
    /// # Errors
    /// It cannot be obeyed; close the connection.
    pub fn handle_state_message(&mut self, now: Time, message: &[u8]) -> Result<(), StateError> {
        self.turn(now);
        if !self.link.is_up() {
            return Ok(());
        }
        let standing = self.standing();
        match self.hear(now, message)? {
            Some(LinkEvent::TooEarly) => self.close_link(now, CloseReason::RoleChanged),
            Some(LinkEvent::Paired(key)) => {
                self.pair.paired(key.epoch, self.link.peer());
                self.keys.add(key);
                self.log_synchronised(key.epoch, self.table.len());
            }
            Some(LinkEvent::Synchronised(key)) => {
                self.pair.synchronised(key.epoch);
                self.keys.add(key);
                self.log_synchronised(key.epoch, self.link.held.len());
            }
            None => {}
        }
        self.check_held();
        self.follow(now, Hearing::Something);
        self.tell_standing(standing);
        Ok(())
    }

    /// Appends the next message of the state connection to `out`, at most
    /// [`MAX_STATE_MESSAGE`](crate::MAX_STATE_MESSAGE) bytes; false if there is nothing to say.
    pub fn poll_state_message(&mut self, now: Time, out: &mut Vec<u8>) -> bool {
        self.link.is_up() && self.say(now, out)
    }

    // ── what follows

    pub(crate) fn turn(&mut self, now: Time) {
        if let Some(time) = self.pair.turn(now) {
            self.log(LogEvent::StoodStill(time));
        }
        self.sync_posture();
    }

    fn sync_posture(&mut self) {
        self.posture.unsure = self.pair.is_unsure();
    }

    fn log(&mut self, event: LogEvent) {
        self.events.push_back(Event::Log(event));
    }

    fn log_synchronised(&mut self, epoch: Epoch, connections: usize) {
        self.log(LogEvent::Synchronised { epoch, connections });
    }

    fn tell_standing(&mut self, before: Standing) {
        let standing = self.standing();
        if standing != before {
            self.events.push_back(Event::Standing(standing));
        }
    }

    /// A copy is good for nothing once the active node has gone on without this one.
    fn check_held(&mut self) {
        if self.link.held.complete && !self.pair.beliefs().synchronised {
            self.link.held.clear();
            self.keys.clear();
        }
    }

    /// Everything that has arrived was handed over.
    pub(crate) fn follow_everything(&mut self, now: Time) {
        let standing = self.standing();
        self.follow(now, Hearing::Everything);
        self.check_standby(now);
        self.tell_standing(standing);
    }

    fn follow(&mut self, now: Time, hearing: Hearing) {
        while let Some(decision) = self.pair.decide(now) {
            // To serve, a node must have read the state connection to its end.
            let serves = matches!(decision, Decision::Start | Decision::TakeOver(_));
            if serves && hearing == Hearing::Something {
                return;
            }
            let complete = self.pair.beliefs().synchronised && self.link.held.complete;
            self.pair.done(decision);
            match decision {
                Decision::Start => {
                    self.log(LogEvent::Started(self.pair.epoch()));
                    self.serve(now);
                }
                Decision::Join(epoch) => {
                    self.log(LogEvent::Joined(epoch));
                    self.close_link(now, CloseReason::RoleChanged);
                }
                Decision::TakeOver(cause) => self.take_over(now, cause, complete),
                Decision::StepDown(epoch) => self.step_down(now, epoch),
                Decision::GoAlone { .. } => self.go_alone(now),
                Decision::GoOn => {
                    self.log(LogEvent::SureAgain);
                    self.follow_replacement(now);
                }
            }
            self.sync_posture();
        }
    }

    /// The standby may have gone on with everything that it was told of while this node stood still, and is gone: nobody
    /// knows where those connections stand. They are reset rather than wrong.
    fn follow_replacement(&mut self, now: Time) {
        if !self.pair.was_replaced() {
            return;
        }
        self.clock.take_over();
        for slot in self.table.all() {
            let conn = &mut self.table[slot];
            if conn.told.is_some() && !conn.is_over() {
                (conn.waiting, conn.under_way) = (Default::default(), None);
                conn.closed = Some(Closed::Unusable);
                conn.tcp.abort();
                self.touch(now, slot);
            }
        }
    }

    fn serve(&mut self, now: Time) {
        let epoch = self.pair.epoch();
        self.begin_epoch(epoch);
        self.posture.active = true;
        self.posture.release = Release::Now;
        let pair = &self.config.pair;
        self.posture.silent_until = if pair.enabled { now + pair.quiet_time } else { Time::ZERO };
        self.events.push_back(Event::Activate(epoch));
        self.announcement = Some((now + FIRST_ANNOUNCEMENT, FIRST_ANNOUNCEMENT));
        // A connection made in another role has to begin anew.
        self.close_link(now, CloseReason::RoleChanged);
    }

    fn take_over(&mut self, now: Time, cause: TakeoverCause, complete: bool) {
        self.clock.take_over();
        let held = std::mem::take(&mut self.link.held);
        self.serve(now);
        let epoch = self.pair.epoch();
        let connections = if complete { self.restore_all(now, held) } else { 0 };
        if complete {
            self.adopt_handshakes(now);
        } else {
            self.keys.clear();
            self.begin_epoch(epoch);
        }
        self.log(LogEvent::TookOver { epoch, cause, connections, complete });
    }

    fn step_down(&mut self, now: Time, epoch: Epoch) {
        self.log(LogEvent::SteppedDown(epoch));
        self.events.push_back(Event::Deactivate(epoch));
        self.posture.active = false;
        self.announcement = None;
        self.outbox.clear();
        self.keys.clear();
        self.close_link(now, CloseReason::RoleChanged);
        self.move_away(now);
    }

    /// Every connection goes on elsewhere: silence here.
    fn move_away(&mut self, now: Time) {
        for slot in self.table.all() {
            let conn = &mut self.table[slot];
            let local = conn.local();
            conn.waiting = Default::default();
            conn.under_way = None;
            match conn.stage {
                Stage::Open => {
                    conn.closed = Some(Closed::Moved);
                    let id = conn.id;
                    self.timers.cancel(slot);
                    self.table.leave_ends(slot);
                    self.events.push_back(Event::Closed(id));
                }
                Stage::Mute => {
                    self.listeners.leave_half_open(local);
                    self.table.remove(slot);
                }
                stage => {
                    if matches!(stage, Stage::Opening | Stage::Announced) {
                        self.listeners.leave_half_open(local);
                    }
                    self.forget(now, slot);
                }
            }
        }
    }

    /// The peer knows that it must not take over, or is gone.
    fn go_alone(&mut self, now: Time) {
        self.log(LogEvent::WentAlone(self.pair.epoch()));
        if self.link.is_complete() {
            // It is about to hold everything again.
            return;
        }
        self.release_all(now);
    }

    /// From now on nothing waits for a standby.
    fn release_all(&mut self, now: Time) {
        self.posture.release = Release::Now;
        for slot in self.table.all() {
            let conn = &self.table[slot];
            let (stage, waits) = (conn.stage, !conn.waiting.is_empty() || conn.under_way.is_some());
            if stage == Stage::Announced {
                self.queue(slot);
            }
            if waits {
                self.take_effect(now, slot);
            }
        }
    }

    pub(crate) fn close_link(&mut self, now: Time, reason: CloseReason) {
        if self.link.is_up() {
            self.drop_link(now);
            self.events.push_back(Event::CloseStateConnection(reason));
        }
    }

    /// The state connection is no more; what hung on it is settled.
    fn drop_link(&mut self, now: Time) {
        let told = self.link.is_telling();
        self.link.closed();
        if told {
            for slot in self.table.all() {
                self.table[slot].take_back();
                // It was to be told on that connection; on the next one everything is.
                self.table[slot].missing = false;
            }
        }
        if let Some(epoch) = self.pair.standby_lost(now) {
            self.begin_epoch(epoch);
            self.posture.release = Release::Held;
            self.follow(now, Hearing::Something);
        } else if self.pair.is_active() && self.posture.release == Release::Confirmed {
            // The standby was about to hold everything, and does not: alone, as before.
            self.release_all(now);
        }
    }

    /// When a standby that does not confirm is given up.
    pub(crate) fn confirm_deadline(&self) -> Option<Time> {
        let since = self.link.owed_since().filter(|_| self.link.is_telling())?;
        Some(since + self.config.pair.confirm_timeout)
    }

    fn check_standby(&mut self, now: Time) {
        if self.link.overflowed() {
            self.close_link(now, CloseReason::Overflow);
        } else if self.confirm_deadline().is_some_and(|at| at <= now) {
            self.close_link(now, CloseReason::NoConfirmation);
        }
    }

    pub(crate) fn announce_when_due(&mut self, now: Time) {
        let Some((_, pause)) = self.announcement.take_if(|(at, _)| *at <= now) else { return };
        let peer = self.pair.peer(now);
        let passive = peer.is_some_and(|p| p.role != Role::Active && p.epoch >= self.pair.epoch());
        let alone = !self.config.pair.enabled;
        let heard = (passive || alone) && pause >= ENOUGH_ANNOUNCEMENTS;
        if self.pair.is_active() && !heard {
            self.events.push_back(Event::Announce);
            let pause = (pause * 2).min(LAST_ANNOUNCEMENT);
            self.announcement = Some((now + pause, pause));
        }
    }
}
