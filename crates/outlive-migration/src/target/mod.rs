//! The target of migrations: what it answers, and when a connection may speak.
//!
//! Pure: messages, results and time come in; [`Action`]s go out, which an agent performs. It does not know how a connection is infused;
//! that is the agent's, which tells the result. The order: `handle`, `infused`, `adopted`, `ended`, `expire`, then
//! [`poll_action`](Target::poll_action) until there is nothing.
//!
//! What must hold, whatever arrives in whatever order, how often, and when:
//!
//! * A connection speaks only after COMMIT, and never after ABORT, a refusal, or expiry.
//! * [`Action::Speak`] and [`Action::Remove`] exclude each other, and come at most once for a migration.
//! * What an old epoch asks changes nothing.

mod table;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, time::Duration};

use outlive_tcp::{
    fault::{self, Fault},
    time::Time,
    wire::FourTuple,
};

use self::table::{Entry, Over, Phase, Table};
use crate::{
    blob::Blob,
    flow::FlowId,
    id::{Balancer, Epoch, MigrationId},
    message::{Hello, HowEnded, Message, Refusal, Speaker},
};

/// Probes that are remembered of each balancer.
const PROBES: usize = 4;

/// Bounds and times of a target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Connections that are prepared, or speak, or have ended without the balancer's having confirmed it.
    pub connections: usize,
    /// Migrations that are over and are remembered, to tell a late message from a new one. The oldest are forgotten first.
    pub remembered: usize,
    /// How long a prepared connection waits for COMMIT. Longer than a takeover and a restart of a balancer take: what expires after the
    /// balancer has decided is lost to its client.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { connections: 262_144, remembered: 65_536, patience: Duration::from_secs(60) }
    }
}

/// What the agent has to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Say this to that node of the pair, if there is a connection; else it is lost, which does no harm.
    Send(Balancer, Message),
    /// Enter the mapping and infuse the connection, mute: not a packet may leave. Answered with [`Target::infused`], now or
    /// later.
    Infuse {
        /// Which.
        id: MigrationId,
        /// Its state.
        blob: Box<Blob>,
    },
    /// Look whether the connection was infused by an earlier process and lives on, without an agent; if so enter its mapping. Answered with
    /// [`Target::adopted`].
    Adopt {
        /// Which.
        id: MigrationId,
        /// Its flow.
        flow: FlowId,
        /// Its ends, as the client's packets have them.
        ends: FourTuple,
    },
    /// Let the connection speak. If it cannot, say so with [`Target::ended`].
    Speak {
        /// Which.
        id: MigrationId,
    },
    /// Remove the connection and its mapping, without a word to anybody. It never spoke. If its infusion is still under way, it
    /// ends with this; its result is not wanted any more.
    Remove {
        /// Which.
        id: MigrationId,
    },
}

/// What was counted since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Connections that were infused.
    pub prepared: u64,
    /// Bytes of the states that were to be infused.
    pub blob_bytes: u64,
    /// Connections that were let speak.
    pub committed: u64,
    /// ABORTs that were obeyed.
    pub aborted: u64,
    /// Prepared connections that waited for COMMIT for too long.
    pub expired: u64,
    /// PREPAREs and COMMITs that were refused.
    pub refused: u64,
    /// Messages of an old epoch.
    pub stale: u64,
    /// Committed connections that ended.
    pub ended: u64,
}

/// The state of a target.
#[derive(Debug)]
pub struct Target {
    limits: Limits,
    incarnation: u64,
    epoch: Epoch,
    /// The node that spoke in that epoch.
    master: Option<Balancer>,
    draining: bool,
    /// Whether what was infused can live on without this process.
    adopts: bool,
    table: Table,
    /// Of each node, oldest first.
    probes: [VecDeque<(Epoch, MigrationId, FlowId)>; 2],
    actions: VecDeque<Action>,
    counts: Counts,
}

impl Target {
    /// A target that knows nothing. `incarnation` is a random number of the process; `adopts` says whether infused connections live on when the
    /// agent dies.
    pub fn new(limits: Limits, incarnation: u64, adopts: bool) -> Self {
        Target {
            table: Table::new(limits.connections, limits.remembered),
            limits,
            incarnation,
            epoch: Epoch::default(),
            master: None,
            draining: false,
            adopts,
            probes: Default::default(),
            actions: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// What it says first over a new connection with a balancer.
    pub fn hello(&self) -> Message {
        Message::Hello(Hello {
            speaker: Speaker::Target,
            incarnation: self.incarnation,
            epoch: self.epoch,
        })
    }

    /// Takes no new connections from now on, or does again.
    pub fn drain(&mut self, draining: bool) {
        self.draining = draining;
    }

    /// Connections that speak.
    pub fn committed(&self) -> usize {
        self.table.committed()
    }

    /// Connections that are being infused, or are and wait for COMMIT.
    pub fn waiting(&self) -> usize {
        self.table.waiting()
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Something to do; to be asked for until there is nothing.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// A message from `from`. HELLO has been looked at by whoever keeps the connections; here it only tells the epoch.
    pub fn handle(&mut self, now: Time, from: Balancer, message: Message) {
        match message {
            Message::Hello(hello) => self.epoch = self.epoch.max(hello.epoch),
            Message::Serve { epoch } => self.serve(from, epoch),
            Message::Prepare { epoch, id, blob } => self.prepare(now, from, epoch, id, &blob),
            Message::Commit { epoch, id, flow, ends } => self.commit(from, epoch, id, flow, ends),
            Message::Abort { epoch, id } => self.abort(from, epoch, id),
            Message::Gone { epoch, id } => {
                if self.hears(from, epoch) {
                    self.table.gone(id);
                }
            }
            Message::Probe { epoch, id, flow } => self.probe(from, epoch, id, flow),
            // A target's own: nobody says them to one.
            Message::Prepared { .. }
            | Message::Committed { .. }
            | Message::Refused { .. }
            | Message::Ended { .. }
            | Message::Probed { .. } => self.counts.stale += 1,
        }
    }

    /// The infusion of `id` has come to an end: it is there, mute; or it is not, and nothing is left of it.
    pub fn infused(&mut self, now: Time, id: MigrationId, result: Result<(), Refusal>) {
        let deadline = now + self.limits.patience;
        let Some(entry) = self.table.get_mut(id) else { return };
        let Phase::Infusing { asked_by, asked_in, commit } = entry.phase else { return };
        match (result, commit) {
            (Ok(()), None) => {
                self.counts.prepared += 1;
                self.table.wait(id, deadline);
                if fault::on(Fault::TargetSpeaksEarly) {
                    self.actions.push_back(Action::Speak { id });
                }
                self.send(asked_by, Message::Prepared { epoch: asked_in, id });
            }
            (Ok(()), Some((by, epoch))) => {
                self.counts.prepared += 1;
                self.speak(by, epoch, id);
            }
            (Err(reason), commit) => {
                self.table.over(id, Over::Refused(reason));
                let (by, epoch) = commit.unwrap_or((asked_by, asked_in));
                self.refuse(by, epoch, id, reason);
            }
        }
    }

    /// Whether the connection of an [`Action::Adopt`] lives and has its mapping.
    pub fn adopted(&mut self, id: MigrationId, lives: bool) {
        let Some(entry) = self.table.get_mut(id) else { return };
        let Phase::Adopting { asked_by, asked_in } = entry.phase else { return };
        if lives {
            self.table.commit(id);
            self.send(asked_by, Message::Committed { epoch: asked_in, id });
        } else {
            self.table.over(id, Over::Refused(Refusal::Unknown));
            self.refuse(asked_by, asked_in, id, Refusal::Unknown);
        }
    }

    /// A connection that speaks is over. The agent has removed it and its mapping.
    pub fn ended(&mut self, id: MigrationId, how: HowEnded) {
        if self.table.get(id).is_none_or(|entry| entry.phase != Phase::Committed) {
            return;
        }
        self.counts.ended += 1;
        self.table.over(id, Over::Ended(how));
        if let Some(master) = self.master {
            self.say_ended(master, id);
        }
    }

    /// A packet with this flow identifier has come through the tunnel, `len` bytes long. True if it is a probe, and nothing else.
    pub fn probe_arrived(&mut self, flow: FlowId, len: u16) -> bool {
        for node in [Balancer::A, Balancer::B] {
            let probes = &self.probes[node.index()];
            if let Some((epoch, id, _)) = probes.iter().find(|(.., probe)| *probe == flow) {
                let (epoch, id) = (*epoch, *id);
                self.send(node, Message::Probed { epoch, id, len });
                return true;
            }
        }
        false
    }

    /// When [`expire`](Self::expire) has something to do.
    pub fn next_deadline(&self) -> Option<Time> {
        self.table.next_deadline()
    }

    /// Gives up what has waited for COMMIT for too long.
    pub fn expire(&mut self, now: Time) {
        while let Some(id) = self.table.expired(now) {
            self.counts.expired += 1;
            self.table.over(id, Over::Expired);
            self.actions.push_back(Action::Remove { id });
        }
    }

    fn serve(&mut self, from: Balancer, epoch: Epoch) {
        if !self.hears(from, epoch) {
            return;
        }
        for id in self.table.unconfirmed() {
            self.say_ended(from, id);
        }
    }

    fn prepare(&mut self, now: Time, from: Balancer, epoch: Epoch, id: MigrationId, blob: &[u8]) {
        if !self.hears(from, epoch) {
            return self.refuse(from, epoch, id, Refusal::StaleEpoch);
        }
        let deadline = now + self.limits.patience;
        if let Some(entry) = self.table.get_mut(id) {
            let (flow, phase) = (entry.flow, &mut entry.phase);
            match phase {
                // The answer is on its way; it goes to whoever has asked last.
                Phase::Infusing { asked_by, asked_in, .. } => {
                    (*asked_by, *asked_in) = (from, epoch);
                }
                Phase::Waiting { .. } => {
                    self.table.wait(id, deadline);
                    self.send(from, Message::Prepared { epoch, id });
                }
                Phase::Adopting { .. } => {}
                Phase::Committed => self.send(from, Message::Committed { epoch, id }),
                Phase::Over(Over::Ended(how)) => {
                    let how = *how;
                    self.send(from, Message::Ended { epoch, id, flow, how });
                }
                Phase::Over(Over::Refused(reason)) => {
                    let reason = *reason;
                    self.refuse(from, epoch, id, reason);
                }
                Phase::Over(Over::Aborted | Over::Expired) => {
                    self.refuse(from, epoch, id, Refusal::StaleMigration);
                }
            }
            return;
        }
        let len = blob.len() as u64;
        match self.admit(id, blob) {
            Ok(blob) => {
                self.counts.blob_bytes += len;
                let phase = Phase::Infusing { asked_by: from, asked_in: epoch, commit: None };
                self.table.insert(id, Entry { flow: blob.mapping.flow, ends: blob.ends, phase });
                self.actions.push_back(Action::Infuse { id, blob });
            }
            Err(reason) => self.refuse(from, epoch, id, reason),
        }
    }

    /// Whether a connection that nothing is known of may come here. What stands in its way and is older and never spoke is removed.
    fn admit(&mut self, id: MigrationId, blob: &[u8]) -> Result<Box<Blob>, Refusal> {
        if self.table.forgot(id) {
            return Err(Refusal::StaleMigration);
        }
        if self.draining {
            return Err(Refusal::Draining);
        }
        let blob = Blob::decode(blob).map_err(|_| Refusal::BadBlob)?;
        let in_the_way = [
            (self.table.by_ends(&blob.ends), Refusal::ConnectionTaken),
            (self.table.by_flow(blob.mapping.flow), Refusal::FlowTaken),
        ];
        for (other, reason) in in_the_way {
            let Some(other) = other else { continue };
            let mute = self.table.get(other).is_some_and(|entry| entry.phase.is_mute());
            if !mute {
                return Err(reason);
            }
            if other > id {
                return Err(Refusal::StaleMigration);
            }
        }
        for (other, _) in in_the_way {
            // The same one may stand in the way twice.
            if let Some(other) = other.filter(|other| self.table.is_live(*other)) {
                self.give_up(other);
            }
        }
        if self.table.is_full() { Err(Refusal::Full) } else { Ok(Box::new(blob)) }
    }

    fn commit(
        &mut self,
        from: Balancer,
        epoch: Epoch,
        id: MigrationId,
        flow: FlowId,
        ends: FourTuple,
    ) {
        if !self.hears(from, epoch) {
            return self.commit_too_late(from, epoch, id);
        }
        let Some(entry) = self.table.get_mut(id) else {
            return self.commit_unknown(from, epoch, id, flow, ends);
        };
        match &mut entry.phase {
            Phase::Infusing { commit, .. } => *commit = Some((from, epoch)),
            Phase::Adopting { asked_by, asked_in } => (*asked_by, *asked_in) = (from, epoch),
            Phase::Waiting { .. } => self.speak(from, epoch, id),
            Phase::Committed => self.send(from, Message::Committed { epoch, id }),
            Phase::Over(Over::Ended(how)) => {
                let (how, flow) = (*how, entry.flow);
                self.send(from, Message::Ended { epoch, id, flow, how });
            }
            Phase::Over(Over::Refused(reason)) => {
                let reason = *reason;
                self.refuse(from, epoch, id, reason);
            }
            Phase::Over(Over::Aborted | Over::Expired) => {
                self.refuse(from, epoch, id, Refusal::StaleMigration);
            }
        }
    }

    /// COMMIT in an epoch that is over changes nothing, but where nothing is left to change the truth is said: the node that succeeded may
    /// have died without a word, and this one serves the client again.
    fn commit_too_late(&mut self, from: Balancer, epoch: Epoch, id: MigrationId) {
        match self.table.get(id).map(|entry| (entry.phase, entry.flow)) {
            Some((Phase::Committed, _)) => self.send(from, Message::Committed { epoch, id }),
            Some((Phase::Over(Over::Ended(how)), flow)) => {
                self.send(from, Message::Ended { epoch, id, flow, how });
            }
            _ => self.refuse(from, epoch, id, Refusal::StaleEpoch),
        }
    }

    /// What an earlier process has infused may live on.
    fn commit_unknown(
        &mut self,
        from: Balancer,
        epoch: Epoch,
        id: MigrationId,
        flow: FlowId,
        ends: FourTuple,
    ) {
        let known = self.table.by_ends(&ends).is_some() || self.table.by_flow(flow).is_some();
        if self.table.forgot(id) {
            self.refuse(from, epoch, id, Refusal::StaleMigration);
        } else if !self.adopts || known || self.table.is_full() {
            self.refuse(from, epoch, id, Refusal::Unknown);
        } else {
            let phase = Phase::Adopting { asked_by: from, asked_in: epoch };
            self.table.insert(id, Entry { flow, ends, phase });
            self.actions.push_back(Action::Adopt { id, flow, ends });
        }
    }

    fn abort(&mut self, from: Balancer, epoch: Epoch, id: MigrationId) {
        if !self.hears(from, epoch) {
            return;
        }
        match self.table.get(id) {
            Some(entry) if entry.phase.is_mute() => {
                self.counts.aborted += 1;
                self.give_up(id);
            }
            Some(_) => {}
            // Its PREPARE may come after it: it must not be obeyed any more.
            None if !self.table.forgot(id) => self.table.remember(id, Over::Aborted),
            None => {}
        }
    }

    fn probe(&mut self, from: Balancer, epoch: Epoch, id: MigrationId, flow: FlowId) {
        // In whatever epoch: nothing is moved by it, and a standby may ask before it has heard of the pair's.
        if self.table.by_flow(flow).is_some() {
            return;
        }
        let probes = &mut self.probes[from.index()];
        probes.retain(|(.., probe)| *probe != flow);
        if probes.len() == PROBES {
            probes.pop_front();
        }
        probes.push_back((epoch, id, flow));
    }

    /// Whether what is said in `epoch` counts; if it is the latest, `from` is whom to tell things from now on.
    fn hears(&mut self, from: Balancer, epoch: Epoch) -> bool {
        if epoch < self.epoch {
            self.counts.stale += 1;
            return fault::on(Fault::TargetObeysOldEpoch);
        }
        self.epoch = epoch;
        self.master = Some(from);
        true
    }

    fn speak(&mut self, to: Balancer, epoch: Epoch, id: MigrationId) {
        self.counts.committed += 1;
        self.table.commit(id);
        self.actions.push_back(Action::Speak { id });
        self.send(to, Message::Committed { epoch, id });
    }

    fn give_up(&mut self, id: MigrationId) {
        self.table.over(id, Over::Aborted);
        self.actions.push_back(Action::Remove { id });
    }

    fn say_ended(&mut self, to: Balancer, id: MigrationId) {
        let Some(entry) = self.table.get(id) else { return };
        let Phase::Over(Over::Ended(how)) = entry.phase else { return };
        let (epoch, flow) = (self.epoch, entry.flow);
        self.send(to, Message::Ended { epoch, id, flow, how });
    }

    /// Says no, and will say so again: whoever was refused may have gone elsewhere. Only an old epoch is told nothing about
    /// the migration.
    fn refuse(&mut self, to: Balancer, epoch: Epoch, id: MigrationId, reason: Refusal) {
        self.counts.refused += 1;
        let unknown = self.table.get(id).is_none() && !self.table.forgot(id);
        if unknown && reason != Refusal::StaleEpoch {
            self.table.remember(id, Over::Refused(reason));
        }
        self.send(to, Message::Refused { epoch, id, reason });
    }

    fn send(&mut self, to: Balancer, message: Message) {
        self.actions.push_back(Action::Send(to, message));
    }
}
