//! What the roles of the two nodes mean for the flows, and what must be true of the roles themselves.

use std::collections::BTreeMap;

use outlive_proxy::{
    HandoverProgress,
    config::{Listener, WithoutStandby},
    event::{LogEvent, TakeoverCause},
    pair::{
        Epoch,
        heartbeat::{Beliefs, Role},
    },
};
use outlive_tcp::{time::Time, wire::FourTuple};

use crate::{
    ledger::Rule,
    machine::{Doubt, Machine},
    network::NodeIndex,
    world::World,
};

/// A situation that explains much.
pub(crate) const BOTH_ACTIVE: &str = "both nodes active";

/// Who has reigned in which epoch.
pub(crate) type Reigns = BTreeMap<Epoch, NodeIndex>;

impl World {
    /// What a change of role means for the flows.
    pub(crate) fn compare(&mut self, node: NodeIndex, before: &Beliefs, after: &Beliefs) {
        let peer = self.machines[1 - node].as_ref().map(|m| m.incarnation);
        let paired = after.role == Role::Active && after.synchronised;
        let now = self.now;
        let machine = self.machine(node);
        if after.synchronised && !before.synchronised {
            machine.synchronised_since = now;
        }
        if after.role == Role::Active && before.synchronised && !after.synchronised {
            machine.lost_standby = Some(now);
        }
        if after.role != Role::Active {
            machine.active_since = None;
            machine.doubt = None;
        }
        if !paired {
            machine.paired_with = None;
        } else if !before.synchronised || before.role != Role::Active {
            machine.paired_with = peer;
        }
        // Who hands over as planned has excuses for nothing.
        let as_planned = std::mem::take(&mut self.machine(node).handed_over);
        if before.role == Role::Active && after.role != Role::Active && !as_planned {
            self.exempt(|world, tuple| !world.known_to(1 - node, tuple));
        }
    }

    /// `node` becomes active, having held everything or not.
    pub(crate) fn activated(&mut self, node: NodeIndex, promised: bool) {
        let since = self.machine(node).synchronised_since;
        self.takeovers += 1;
        let now = self.now;
        self.machine(node).active_since = Some(now);
        let other = self.machines[1 - node].as_ref();
        // One that hands over changes nothing any more.
        let acts = |m: &Machine| {
            m.is_running()
                && m.node.beliefs().role == Role::Active
                && m.node.handover() == HandoverProgress::None
        };
        let beside = other.filter(|other| acts(other)).map(|other| other.node.beliefs().epoch);
        if beside.is_some() {
            self.situations.insert(BOTH_ACTIVE);
            self.wire.both_acted = true;
        }
        if beside.is_some_and(|epoch| epoch > self.machine(node).node.beliefs().epoch) {
            // It takes nothing over: it will yield, and the other one goes on.
            return;
        }
        // One that takes over as planned has been told of everything that could have had an effect.
        let as_planned = std::mem::take(&mut self.machine(node).took_over);
        self.exempt(|world, tuple| {
            // A handshake from before this node had everything cannot be proved to be without effect.
            let early = !as_planned && world.wire.was_answered_before(tuple, since);
            let lonely = world.wire.was_answered_alone(tuple);
            !promised && !world.holds(node, tuple)
                || (lonely || early) && !world.known_to(node, tuple)
        });
    }

    /// What must be true of what a node believes.
    pub(crate) fn check_beliefs(&mut self, node: NodeIndex, before: &Beliefs, after: &Beliefs) {
        if after.epoch < before.epoch {
            let detail = format!("node {node}: {} after {}", after.epoch, before.epoch);
            self.ledger.violate(Rule::Epoch, detail);
        }
        if after.role == Role::Active {
            let first = *self.reigns.entry(after.epoch).or_insert(node);
            if first != node {
                let detail =
                    format!("{} is the epoch of node {first} and of node {node}", after.epoch);
                self.ledger.violate(Rule::Epoch, detail);
            }
        }
    }

    /// What must be true of a takeover.
    pub(crate) fn check_takeover(&mut self, node: NodeIndex, event: &LogEvent) {
        let LogEvent::TookOver { cause, complete, .. } = event else { return };
        if self.setup.detector && *cause != TakeoverCause::Ordered {
            let detail = format!("node {node} without an order of the detector: {cause}");
            self.ledger.violate(Rule::Takeover, detail);
        }
        let TakeoverCause::Silence(_) = cause else { return };
        let machine = self.machine(node);
        let pair = &machine.config.pair;
        let patience = if *complete { pair.detection_timeout } else { pair.join_timeout };
        let last = machine.last_heard;
        let silent = self.now.since(last);
        if silent < patience {
            let detail = format!("node {node} after a silence of {silent:?}, not {patience:?}");
            self.ledger.violate(Rule::Takeover, detail);
        }
    }

    /// A node that stood still sends nothing before its peer has answered, or is found to be gone.
    pub(crate) fn check_doubt(&mut self, node: NodeIndex, what: &dyn std::fmt::Display) {
        let now = self.now;
        let machine = self.machine(node);
        let patience = machine.config.pair.detection_timeout;
        // One that has learnt that the other one serves passes on, at most, what that one would.
        let acts = machine.node.beliefs().role == Role::Active;
        let doubts = |doubt: &Doubt| acts && now.since(doubt.since) < patience;
        if machine.doubt.as_ref().is_some_and(doubts) {
            let detail = format!("node {node} stood still, and sends {what}");
            self.ledger.violate(Rule::OneActs, detail);
        }
    }

    /// When every flow is finished, and nothing has gone wrong, nothing of them is open.
    pub(crate) fn check_leftovers(&mut self) {
        let calm = self.setup.faults.is_empty() && !self.crashed;
        if !calm || self.ledger.flows.iter().any(|f| !f.is_finished()) {
            return;
        }
        for node in 0..2 {
            let now = self.now;
            let Some(machine) = &self.machines[node] else { continue };
            let status = machine.node.status(machine.clock(now));
            let (open, opening) = (status.sessions.open, status.openings);
            if open + opening + status.sessions.establishing > 0 {
                let detail = format!("node {node}: {open} sessions open, {opening} being opened");
                self.ledger.violate(Rule::Memory, detail);
            }
        }
    }

    /// Long after the last fault one of the nodes serves.
    pub(crate) fn check_one_acts(&mut self) {
        let active = |machine: &&Machine| {
            machine.is_running() && machine.node.beliefs().role == Role::Active
        };
        let count = self.machines.iter().flatten().filter(active).count();
        let alive = self.machines.iter().flatten().filter(|m| m.is_running()).count();
        if alive > 0 && count != 1 {
            let detail = format!("{count} of {alive} nodes serve");
            self.ledger.violate(Rule::OneActs, detail);
        }
    }

    /// Nothing is promised for the flows that are alive and for which `which` holds.
    pub(crate) fn exempt(&mut self, which: impl Fn(&World, FourTuple) -> bool) {
        for i in 0..self.ledger.flows.len() {
            let flow = &self.ledger.flows[i];
            let tuple = FourTuple::new(flow.client, flow.listener);
            if !flow.is_finished() && which(self, tuple) {
                self.trace(|| format!("flow {i} is exempt"));
                self.ledger.flows[i].exempt = true;
            }
        }
    }

    /// Whether a node may refuse this client: it has had no answer yet, and the listener wants a standby.
    pub(crate) fn may_be_refused(&self, client: FourTuple) -> bool {
        let refuses = |l: &Listener| l.protection.without_standby == WithoutStandby::Refuse;
        self.setup.configs[0].listeners.iter().any(refuses) && !self.wire.has_met(client)
    }

    /// Whether nothing was promised for this client's connection: an active node has never been told of it,
    /// because the one that opened it had no synchronised standby.
    pub(crate) fn is_beyond_promise(&self, client: FourTuple) -> bool {
        let active = |node: &NodeIndex| {
            let machine = self.machines[*node].as_ref();
            machine.is_some_and(|m| m.is_running() && m.node.beliefs().role == Role::Active)
        };
        let mut unaware = [0, 1].into_iter().filter(active).filter(|n| !self.known_to(*n, client));
        let served = self.is_served(client);
        // While both nodes acted, a port may have been used again behind the back of the one that stays: it
        // may have an old session for the new connection.
        let reused = self.ledger.flows.iter().filter(|f| f.client == client.source).count() > 1
            && self.situations.contains(BOTH_ACTIVE);
        (served || reused || self.wire.was_answered_alone(client)) && unaware.next().is_some()
            || self.waits_for_dead_target(client)
    }

    /// Whether `node` holds the session of that client, as far as the wire tells.
    pub(crate) fn known_to(&self, node: NodeIndex, client: FourTuple) -> bool {
        let process = self.machines[node].as_ref().map(|m| (node, m.incarnation));
        let opened = process.is_some() && self.wire.opener_of(client) == process;
        opened || self.decided(node, client) || self.was_told(node, client)
    }

    /// Whether `node` cannot but hold the session of that client: it was told of it, or has had to do with it
    /// until its end. (What it has only opened it gives up when it steps down.)
    fn holds(&self, node: NodeIndex, client: FourTuple) -> bool {
        let process = self.machines[node].as_ref().map(|m| (node, m.incarnation));
        let carried = process.is_some() && self.wire.teller_of(client) == process;
        carried || self.decided(node, client) || self.was_told(node, client)
    }

    /// Whether `node` was told of the session of that client.
    fn was_told(&self, node: NodeIndex, client: FourTuple) -> bool {
        let session = self.wire.session_of(client);
        session.is_some_and(|session| {
            self.machines[node].as_ref().is_some_and(|m| m.held.contains(&session))
        })
    }
}

/// An active node that has just lost `standby` may not act on what that one does not hold: it hears it,
/// and it must be told first that the standby is one no more (or be waited for in vain).
pub(crate) fn counts_on(now: Time, me: &Machine, standby: &Machine) -> bool {
    let (mine, its) = (me.node.beliefs(), standby.node.beliefs());
    let pair = &me.config.pair;
    mine.role == Role::Active
        && its.role == Role::Standby
        && its.synchronised
        && its.epoch < mine.epoch
        && now.since(me.last_heard) < pair.detection_timeout
        && me.lost_standby.is_some_and(|at| now.since(at) < pair.join_timeout)
}
