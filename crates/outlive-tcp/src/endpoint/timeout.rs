//! What a connection does when its time has come.

use super::{
    connection::Connection,
    outcome::{End, Event},
    path_mtu::RAISE_AFTER,
    receiver::AckDemand,
    state::State,
    timers::Timer,
};
use crate::time::Time;

/// Retransmissions after which the path is suspect: R1 (RFC 9293, SHLD-9).
const R1: u32 = 3;

impl Connection {
    /// Does what is due. Harmless if nothing is.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some(timer) = self.timers.expire(now) {
            self.on_timer(now, timer);
        }
        self.check();
    }

    fn on_timer(&mut self, now: Time, timer: Timer) {
        match timer {
            Timer::Retransmit if !self.state.is_synchronized() => self.repeat_syn(),
            Timer::Retransmit => self.on_retransmit(now),
            Timer::TailProbe => self.sender.on_probe_timeout(now, &mut self.timers),
            Timer::Reorder => self.sender.on_reorder_timeout(now, &mut self.timers),
            Timer::Persist if self.sender.awaits_report() => {
                self.sender.rtt.back_off();
                self.ask();
            }
            Timer::Persist => self.sender.on_persist(),
            Timer::DelayedAck => self.receiver.ask_for_ack(AckDemand::Now),
            Timer::KeepAlive => self.on_keep_alive(now),
            Timer::User if !self.state.is_synchronized() => self.give_up_handshake(),
            Timer::User => self.finish(End::UserTimeout(self.config.user_timeout)),
            Timer::Linger if self.is_parting() => self.ask_again_in_parting(),
            Timer::Linger => self.finish(End::Finished),
            Timer::PathRaise => {
                self.path.raise();
                self.update_mss(false);
            }
        }
    }

    fn on_retransmit(&mut self, now: Time) {
        let full = self.sender.head_is_full();
        self.sender.on_retransmit_timeout(now, &mut self.timers);
        let timeouts = self.sender.rtt.backoff();
        if self.sender.window.size > 0 && self.path.on_timeout(self.sender.una, timeouts, full) {
            self.timers.set(Timer::PathRaise, now + RAISE_AFTER);
            self.update_mss(true);
        }
        if timeouts == R1 {
            self.tell(Event::PathSuspect);
        }
    }

    fn on_keep_alive(&mut self, now: Time) {
        let Some(keep_alive) = self.config.keep_alive else { return };
        if self.state == State::Closed {
            return;
        }
        if self.keep_alive_probes >= keep_alive.probes {
            self.give_up(End::KeepAlive);
            return;
        }
        self.keep_alive_probes += 1;
        self.probe_due = true;
        self.timers.set(Timer::KeepAlive, now + keep_alive.interval);
    }
}
