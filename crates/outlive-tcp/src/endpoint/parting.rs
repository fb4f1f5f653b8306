//! A reset that may have missed.
//!
//! A reset counts only if its number is exactly what the other end expects (RFC 5961, section 3), and after
//! a restore that is not known before the other end was heard: a former node may have sent more. Such a
//! reset is dropped without an answer, and an other end that has nothing to say would wait for ever. So it is
//! asked where it stands, and what it answers is answered with a reset that stands there.

use std::time::Duration;

use super::{arrival::Arrival, connection::Connection, outcome::Drop, timers::Timer};
use crate::{time::Time, wire::Flags};

/// How often the other end is asked, and how long it has to answer.
const QUESTIONS: u8 = 8;
const INTERVAL: Duration = Duration::from_secs(1);

impl Connection {
    /// The connection has ended with a reset that may have missed, and asks its other end: whoever drops it
    /// now may leave that uninformed. For some seconds at most.
    pub fn is_parting(&self) -> bool {
        self.parting > 0
    }

    /// It ends with a reset before the other end was heard.
    pub(super) fn begin_parting(&mut self) {
        (self.parting, self.probe_due) = (QUESTIONS, true);
    }

    /// Whether to ask now.
    pub(super) fn asks_in_parting(&mut self, now: Time) -> bool {
        let asks = self.is_parting() && std::mem::take(&mut self.probe_due);
        if asks {
            self.timers.set(Timer::Linger, now + INTERVAL);
        }
        asks
    }

    /// There was no answer.
    pub(super) fn ask_again_in_parting(&mut self) {
        self.parting -= 1;
        self.probe_due = self.is_parting();
    }

    /// The other end says something. Gives why it was dropped, if it is no answer.
    pub(super) fn part(&mut self, segment: &Arrival) -> Result<(), Drop> {
        let answer = segment.ack.filter(|_| !segment.flags.contains(Flags::SYN));
        let gone = segment.flags.contains(Flags::RST);
        if !self.is_parting() || (answer.is_none() && !gone) {
            return Err(Drop::Closed);
        }
        self.parting = 0;
        self.timers.stop(Timer::Linger);
        if let Some(ack) = answer.filter(|_| !gone) {
            self.reply_with_reset(ack);
        }
        Ok(())
    }
}
