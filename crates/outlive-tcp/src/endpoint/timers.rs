//! When something has to happen without a packet.

use crate::time::Time;

/// What a timer is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Timer {
    /// Retransmission (RFC 6298); of a SYN too.
    Retransmit,
    /// The tail loss probe (RFC 8985, section 7).
    TailProbe,
    /// A segment is lost unless its acknowledgment comes until then (RFC 8985, section 6).
    Reorder,
    /// The zero-window probe (RFC 9293, section 3.8.6.1), or the sender's override of small
    /// segments (section 3.8.6.2.1).
    Persist,
    /// A delayed acknowledgment.
    DelayedAck,
    /// The next keep-alive probe.
    KeepAlive,
    /// The user timeout, or that of the handshake.
    User,
    /// The end of TIME-WAIT, or of a FIN-WAIT-2 that nobody waits for.
    Linger,
    /// A larger path MTU is tried again (RFC 1191, section 6.3).
    PathRaise,
}

/// The timers of a connection; each is set or not.
#[derive(Clone, Debug)]
pub(super) struct Timers {
    due: [Time; Self::COUNT],
}

impl Timers {
    const COUNT: usize = 9;
    /// In the order in which those that are due at once expire: a probe puts the retransmission off.
    const ALL: [Timer; Self::COUNT] = [
        Timer::TailProbe,
        Timer::Retransmit,
        Timer::Reorder,
        Timer::Persist,
        Timer::DelayedAck,
        Timer::KeepAlive,
        Timer::User,
        Timer::Linger,
        Timer::PathRaise,
    ];

    pub(super) fn new() -> Self {
        Timers { due: [Time::NEVER; Self::COUNT] }
    }

    pub(super) fn set(&mut self, timer: Timer, due: Time) {
        self.due[timer as usize] = due;
    }

    /// Sets it if it is not set.
    pub(super) fn start(&mut self, timer: Timer, due: Time) {
        if !self.is_set(timer) {
            self.set(timer, due);
        }
    }

    pub(super) fn stop(&mut self, timer: Timer) {
        self.set(timer, Time::NEVER);
    }

    pub(super) fn stop_all(&mut self) {
        *self = Timers::new();
    }

    pub(super) fn is_set(&self, timer: Timer) -> bool {
        self.due(timer) != Time::NEVER
    }

    pub(super) fn due(&self, timer: Timer) -> Time {
        self.due[timer as usize]
    }

    /// When the first of them is due.
    pub(super) fn next(&self) -> Option<Time> {
        self.due.iter().copied().min().filter(|&due| due != Time::NEVER)
    }

    /// Stops one that is due and gives it.
    pub(super) fn expire(&mut self, now: Time) -> Option<Timer> {
        let timer = Self::ALL.into_iter().find(|&timer| self.due(timer) <= now)?;
        self.stop(timer);
        Some(timer)
    }
}
