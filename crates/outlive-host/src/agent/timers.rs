//! What the passing of time, the kernel and slow servers bring about.

use outlive_migration::{
    id::MigrationId,
    message::{HowEnded, Refusal},
};
use outlive_net::diag::{self, Ends, Overflow};
use outlive_tcp::{
    time::Time,
    wire::{Endpoint, FourTuple},
};
use tracing::warn;

use super::{Agent, actions::SYN_INTERVAL, connections::Kind};
use crate::kernel::ends_of;

/// What is due of one connection.
enum Due {
    /// It has lingered for long enough.
    Gone(HowEnded),
    /// Its server has not answered.
    Unanswered,
    /// Say the SYN again.
    Syn { next: Time },
    /// It has been quiet for too long; whether it lives is the kernel's to say.
    Quiet(FourTuple),
    /// It has been quiet for too long, and is replayed.
    Idle,
    /// Later.
    Wait(Time),
}

impl Agent {
    /// Looks at the connections whose time has come.
    pub(super) fn handle_deadlines(&mut self, now: Time) {
        while let Some(id) = self.connections.due(now) {
            match self.due(id, now) {
                Some(Due::Gone(how)) => {
                    self.remove(id);
                    self.target.ended(id, how);
                }
                Some(Due::Unanswered) => {
                    self.remove(id);
                    self.target.infused(now, id, Err(Refusal::NoServer));
                }
                Some(Due::Syn { next }) => {
                    let mut syn = Vec::new();
                    if let Some(connection) = self.connections.get_mut(id)
                        && let Kind::Replay { replay, attempts } = &mut connection.kind
                    {
                        *attempts += 1;
                        replay.syn(&mut syn);
                    }
                    self.packets.transmit(&self.edge.tun, &syn);
                    self.connections.look_at(id, next);
                }
                Some(Due::Quiet(ends)) => match diag::lives(&ends_of(ends)) {
                    Ok(false) => {
                        self.remove(id);
                        self.target.ended(id, HowEnded::Idle);
                    }
                    // Quiet is not over: the server may be sending to a client that only acknowledges seldom.
                    Ok(true) | Err(_) => {
                        self.connections.look_at(id, now + self.settings.idle_timeout);
                    }
                },
                Some(Due::Idle) => {
                    self.remove(id);
                    self.target.ended(id, HowEnded::Idle);
                }
                Some(Due::Wait(until)) => self.connections.look_at(id, until),
                None => return,
            }
        }
    }

    fn due(&mut self, id: MigrationId, now: Time) -> Option<Due> {
        let settings = &self.settings;
        let connection = self.connections.get_mut(id)?;
        if let Some(how) = connection.ended {
            return Some(Due::Gone(how));
        }
        let quiet_until = connection.heard + settings.idle_timeout;
        Some(match &connection.kind {
            Kind::Replay { replay, .. }
                if !replay.is_open() && now >= connection.heard + settings.open_timeout =>
            {
                Due::Unanswered
            }
            Kind::Replay { replay, attempts } if !replay.is_open() => {
                let wait = SYN_INTERVAL * 2u32.pow((*attempts).min(10));
                Due::Syn { next: (now + wait).min(connection.heard + settings.open_timeout) }
            }
            _ if now < quiet_until => Due::Wait(quiet_until),
            Kind::Replay { .. } => Due::Idle,
            Kind::Kernel => Due::Quiet(connection.ends),
            // How long it may wait is the target's to say.
            Kind::Mute { .. } => Due::Wait(now + settings.idle_timeout),
        })
    }

    /// Reads which connections the kernel does not have any more.
    pub(super) fn notice_endings(&mut self) {
        while self.endings_wait {
            match self.endings.poll() {
                Ok(Some(Ends { local, remote })) => {
                    let ends = FourTuple::new(Endpoint::from(remote), Endpoint::from(local));
                    let Some(id) = self.connections.of_ends(&ends) else { continue };
                    let is_kernel = self
                        .connections
                        .get_mut(id)
                        .is_some_and(|connection| matches!(connection.kind, Kind::Kernel));
                    if is_kernel {
                        self.end(id, HowEnded::Closed);
                    }
                }
                Ok(None) => self.endings_wait = false,
                Err(Overflow) => self.look_at_all(),
            }
        }
    }

    /// The kernel could not tell everything.
    fn look_at_all(&mut self) {
        warn!("more connections have ended at once than the kernel could tell: all are looked at");
        for (id, ends) in self.connections.in_kernel() {
            if matches!(diag::lives(&ends_of(ends)), Ok(false)) {
                self.end(id, HowEnded::Closed);
            }
        }
    }

    /// Tries again to give connections to servers that were busy.
    pub(super) fn hand_over_again(&mut self) {
        for id in self.hand_overs.again() {
            self.remove(id);
            self.target.ended(id, HowEnded::Lost);
        }
    }
}
