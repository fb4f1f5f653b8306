//! What happens as time passes.

use outlive_tcp::{
    fault::{self, Fault},
    segment::Segment,
    time::Time,
    wire::Flags,
};

use super::Proxy;
use crate::{counters::Counter, event::End, replication::change::Change, session::Phase};

/// Sessions whose timers are obeyed in one turn; those of more wait for the next.
const EXPIRED_AT_ONCE: usize = 2_048;

impl Proxy {
    /// The next instant at which [`expire`](Self::expire) has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let timers = [
            self.sessions.next_deadline(),
            self.openings.next_deadline(),
            self.terminated.next_deadline(),
            self.wake_up.deadline(),
            self.retired.deadline(),
            self.migrations.next_deadline(),
            self.sweep.map(|(_, at)| at),
        ];
        timers.into_iter().flatten().min()
    }

    pub(crate) fn expire(&mut self, now: Time) {
        let mut slots = Vec::new();
        self.openings.expire(now, &mut slots);
        for slot in slots.drain(..) {
            self.opening_expired(now, slot);
        }
        self.sessions.expire(now, EXPIRED_AT_ONCE, &mut slots);
        for slot in slots {
            self.session_expired(now, slot);
        }
        self.expire_migrations(now);
        self.expire_terminated(now);
        self.sweep_some(now);
        self.wake_some(now);
    }

    fn session_expired(&mut self, now: Time, slot: usize) {
        if self.sessions.get(slot).is_none() {
            return;
        }
        self.catch_up(now, slot);
        let session = &self.sessions[slot];
        if session.phase.is_over() {
            let recently = now - self.config.timeouts.reset_linger / 2;
            let alive = session.phase != Phase::TimeWait && session.last_seen.time() > recently;
            if alive && self.decides() {
                return self.revive(now, slot);
            }
            return self.forget_session(now, slot);
        }
        if !self.decides() && !fault::on(Fault::StandbyForgetsIdle) {
            // The active node decides how long a session lives.
            return self.arm_idle(now, slot);
        }
        match session.phase {
            Phase::Answering if !session.is_inherited() => {
                self.reset_server(slot);
                self.end_silently(now, slot, End::NotAcknowledged);
            }
            Phase::Open
                if self.prefixes.contains_key(&slot) && !fault::on(Fault::PrefixNotRepeated) =>
            {
                self.send_prefix(now, slot);
            }
            _ => {
                let idle_until = self.idle_deadline(slot, session.last_seen.time());
                if idle_until > now {
                    self.sessions.set_timer(slot, idle_until);
                } else {
                    self.counters.count(Counter::SessionsIdle);
                    if fault::on(Fault::IdleTimerResets) {
                        self.reset_server(slot);
                    }
                    self.end_silently(now, slot, End::Idle);
                }
            }
        }
    }

    /// Forgets a session here and at the standby, without a word to its ends.
    fn end_silently(&mut self, now: Time, slot: usize, end: End) {
        self.log_closed(now, slot, end);
        self.report(slot, |client| Change::Forgotten { client });
        self.forget_session(now, slot);
    }

    /// Ends a server's connection whose client never completed its own.
    fn reset_server(&mut self, slot: usize) {
        let record = &self.sessions[slot].record;
        let segment = Segment {
            tuple: record.server.tuple().reversed(),
            seq: record.server.own_isn + 1,
            ack: Some(record.server.end_isn + 1),
            flags: Flags::RST,
            window: 0,
            options: Default::default(),
            payload: &[],
            hop_limit: outlive_tcp::segment::DEFAULT_HOP_LIMIT,
        };
        self.outbox.send(&segment);
    }
}
