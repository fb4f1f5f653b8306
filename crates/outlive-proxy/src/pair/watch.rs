//! Listening to the peer: is it alive, and what does it believe?

use std::time::Duration;

use outlive_tcp::{
    fault::{self, Fault},
    time::Time,
};

use super::{
    Epoch,
    heartbeat::{Beliefs, Heartbeat, Role},
};
use crate::config::PairConfig;

/// Why the peer counts as gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// Nothing was heard on any path for this long, which is more than the detection timeout.
    Silent(Duration),
    /// Its process refuses connections, and on every path a heartbeat is missing.
    Refused(Duration),
}

impl Gone {
    pub(crate) fn silent(self) -> Duration {
        match self {
            Gone::Silent(time) | Gone::Refused(time) => time,
        }
    }
}

/// The peer, as far as heartbeats tell.
#[derive(Debug)]
pub(crate) struct Watch {
    interval: Duration,
    timeout: Duration,
    /// By path.
    last_heard: Vec<Time>,
    beliefs: Option<Beliefs>,
    /// Number of the heartbeat that said so.
    newest: u64,
    /// Since when it has been what it says it is.
    role_since: Time,
    /// Connecting to it was refused since it was last heard.
    refused: bool,
    /// This node stood still: until then, silence says nothing about the peer.
    deaf_until: Time,
}

impl Watch {
    pub(crate) fn new(config: &PairConfig, now: Time) -> Self {
        Watch {
            interval: config.heartbeat_interval,
            timeout: config.detection_timeout,
            last_heard: vec![now; usize::from(config.paths).max(1)],
            beliefs: None,
            newest: 0,
            role_since: now,
            refused: false,
            deaf_until: now,
        }
    }

    /// A heartbeat of the peer came at `at`. Returns what it believed before.
    pub(crate) fn heard(
        &mut self,
        path: usize,
        at: Time,
        heartbeat: &Heartbeat,
    ) -> Option<Beliefs> {
        if let Some(last) = self.last_heard.get_mut(path) {
            *last = (*last).max(at);
        }
        self.refused = false;
        let same = self.beliefs.filter(|b| b.incarnation == heartbeat.beliefs.incarnation);
        if same.is_some() && heartbeat.counter < self.newest {
            // Overtaken on another path: it shows that this one works, and says nothing new.
            return same;
        }
        self.newest = heartbeat.counter;
        let before = self.beliefs.replace(heartbeat.beliefs);
        if before.is_none_or(|b| {
            b.role != heartbeat.beliefs.role || b.incarnation != heartbeat.beliefs.incarnation
        }) {
            self.role_since = at;
        }
        before
    }

    /// The peer has said, faster than by a heartbeat, that it is active in `epoch`.
    pub(crate) fn is_active(&mut self, now: Time, epoch: Epoch) {
        if let Some(beliefs) = &mut self.beliefs {
            (beliefs.role, beliefs.epoch) = (Role::Active, beliefs.epoch.max(epoch));
            self.role_since = now;
        }
    }

    pub(crate) fn refused(&mut self) {
        self.refused = true;
    }

    /// This node stood still until `now`, and may have missed what was said.
    pub(crate) fn was_deaf(&mut self, now: Time) {
        self.deaf_until = now + self.timeout;
    }

    fn last(&self) -> Time {
        if fault::on(Fault::OnePathIsAll) {
            return self.last_heard.iter().copied().min().unwrap_or(Time::ZERO);
        }
        self.last_heard.iter().copied().max().unwrap_or(Time::ZERO)
    }

    /// Whether the peer is gone, and why. Also true of a peer that never was there.
    pub(crate) fn gone(&self, now: Time) -> Option<Gone> {
        if now < self.deaf_until {
            return None;
        }
        let silent = now.since(self.last());
        if silent >= self.timeout {
            Some(Gone::Silent(silent))
        } else if self.refused && silent >= self.interval * 3 / 2 {
            Some(Gone::Refused(silent))
        } else {
            None
        }
    }

    /// When [`gone`](Self::gone) may change its mind if nothing is heard.
    pub(crate) fn deadline(&self, now: Time) -> Time {
        let patience = if self.refused { self.interval * 3 / 2 } else { self.timeout };
        let deadline = (self.last() + patience).max(self.deaf_until);
        if deadline > now { deadline } else { self.last() + self.timeout }
    }

    /// What the peer said last.
    pub(crate) fn said(&self) -> Option<Beliefs> {
        self.beliefs
    }

    /// What the peer believes, if it has been heard and is not gone.
    pub(crate) fn alive(&self, now: Time) -> Option<Beliefs> {
        self.beliefs.filter(|_| self.gone(now).is_none())
    }

    /// How long it has been what it says.
    pub(crate) fn role_for(&self, now: Time) -> Duration {
        now.since(self.role_since)
    }

    /// How long nothing has been heard on each path.
    pub(crate) fn silence(&self, now: Time) -> Vec<Duration> {
        self.last_heard.iter().map(|at| now.since(*at)).collect()
    }

    /// It is not the same process any more, or it is dead: forget what it believed.
    pub(crate) fn forget(&mut self) {
        self.beliefs = None;
        self.refused = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::NodeId,
        pair::{Epoch, heartbeat::Role},
    };

    fn heartbeat(counter: u64, role: Role) -> Heartbeat {
        let node = NodeId::B;
        let beliefs = Beliefs { node, incarnation: 7, epoch: Epoch(4), role, synchronised: false };
        Heartbeat { beliefs, asks: false, clock_us: 0, counter, heard: 0 }
    }

    #[test]
    fn what_was_overtaken_on_another_path_is_a_sign_of_life_and_no_news() {
        let config = PairConfig { paths: 2, ..PairConfig::default() };
        let start = Time::from_micros(1_000_000);
        let mut watch = Watch::new(&config, start);
        let now = start + config.detection_timeout;
        watch.heard(0, now, &heartbeat(9, Role::Active));
        watch.heard(1, now, &heartbeat(8, Role::Joining));
        assert_eq!(watch.alive(now).map(|b| b.role), Some(Role::Active));
        assert_eq!(watch.silence(now), [Duration::ZERO; 2]);
        watch.heard(1, now, &heartbeat(10, Role::Standby));
        assert_eq!(watch.alive(now).map(|b| b.role), Some(Role::Standby));
    }
}
