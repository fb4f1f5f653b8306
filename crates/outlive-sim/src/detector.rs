//! An external detector, as `docs/external-detector.md` describes it: a third machine that asks both nodes how they
//! are, leads the packets to one of them, and tells a standby to take over.
//!
//! It is written for the simulator, after the document: what is looked at here is what the nodes make of its
//! questions and orders, and what becomes of the flows when it is cut off, wrong or slow.

use std::time::Duration;

use outlive_proxy::{
    config::NodeId,
    pair::{
        Epoch,
        heartbeat::{Beliefs, Role},
        order::{Order, Outcome},
    },
};
use outlive_tcp::time::Time;

use crate::{
    machine::Process,
    network::{NodeIndex, Place},
    pair::Input,
    world::{DATAGRAM, Happening, World},
};

/// Time between questions to a node, and how long an answer may take.
const INTERVAL: Duration = Duration::from_millis(40);
/// Questions in a row without an answer that make a node a failed one.
const FAILURES: u32 = 3;
/// After nobody has led for so long, a node that does not hold everything is told to take over.
const FORCE_AFTER: Duration = Duration::from_millis(600);
/// How long it takes to lead the packets somewhere else.
const SWITCHING: Duration = Duration::from_millis(2);

/// What a node is asked; with an order, told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// The highest epoch that was seen of either node.
    pub(crate) epoch: Epoch,
    /// An order for the process with that incarnation, and whether it is forced.
    pub(crate) order: Option<(u64, bool)>,
}

/// What it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    beliefs: Beliefs,
    /// It hears that its peer is active.
    hears_active: bool,
}

/// What is known of a node.
#[derive(Debug, Default)]
struct Watched {
    last: Option<Answer>,
    /// Questions in a row without an answer.
    misses: u32,
    asked: bool,
}

impl Watched {
    fn has_failed(&self) -> bool {
        self.misses >= FAILURES
    }

    /// What it last said, if it still answers.
    fn answer(&self) -> Option<&Answer> {
        self.last.as_ref().filter(|_| !self.has_failed())
    }

    fn is_known(&self) -> bool {
        self.last.is_some() || self.has_failed()
    }
}

/// A takeover that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    to: NodeIndex,
    forced: bool,
}

/// The detector.
#[derive(Debug, Default)]
pub(crate) struct Detector {
    nodes: [Watched; 2],
    highest: Epoch,
    leaderless_since: Option<Time>,
    /// Where the packets go.
    leads_to: Option<NodeIndex>,
    switching: Option<NodeIndex>,
}

impl Detector {
    /// The active node of the highest epoch, among those that answer.
    fn leader(&self) -> Option<NodeIndex> {
        let active = [0, 1].into_iter().filter_map(|node| {
            let beliefs = self.nodes[node].answer()?.beliefs;
            (beliefs.role == Role::Active).then_some((beliefs.epoch, node))
        });
        active.max().map(|(_, node)| node)
    }

    /// Who is to be told to take over, if nobody leads.
    fn plan(&mut self, now: Time) -> Option<Plan> {
        if !self.nodes.iter().all(Watched::is_known) {
            return None;
        }
        let since = *self.leaderless_since.get_or_insert(now);
        let answering = [0, 1].into_iter().filter_map(|n| Some((n, *self.nodes[n].answer()?)));
        let answering: Vec<_> = answering.collect();
        let both = answering.len() == 2;
        // Both answer: it may pass. One does: not if that one hears the other serve.
        let waits = if both { now.since(since) < INTERVAL * FAILURES } else { false };
        if waits || !both && answering.first().is_some_and(|(_, answer)| answer.hears_active) {
            return None;
        }
        let rank = |(node, Answer { beliefs, .. }): &(NodeIndex, Answer)| {
            let standby = beliefs.role == Role::Standby;
            (beliefs.synchronised, standby, beliefs.epoch, beliefs.node == NodeId::A, *node)
        };
        let (to, Answer { beliefs, .. }) = answering.into_iter().max_by_key(rank)?;
        let complete =
            beliefs.role == Role::Standby && beliefs.synchronised && beliefs.epoch >= self.highest;
        let late = now.since(since) >= FORCE_AFTER;
        (complete || both || late).then_some(Plan { to, forced: !complete })
    }
}

impl World {
    /// Everybody is asked, and what follows from what was heard so far is done.
    pub(crate) fn detector_looks(&mut self) {
        self.after(INTERVAL, Happening::DetectorLooks);
        let now = self.now;
        let Some(detector) = &mut self.detector else { return };
        for node in &mut detector.nodes {
            node.misses += u32::from(std::mem::replace(&mut node.asked, true));
        }
        let leader = detector.leader();
        let plan = match leader {
            Some(_) => {
                detector.leaderless_since = None;
                None
            }
            None => detector.plan(now),
        };
        let wanted = plan.map(|plan| plan.to).or(leader);
        if let Some(to) = wanted.filter(|to| detector.leads_to != Some(*to))
            && detector.switching.is_none()
        {
            detector.switching = Some(to);
            self.after(SWITCHING, Happening::Switched { to });
        }
        for node in 0..2 {
            self.ask_how_it_is(node, plan);
        }
    }

    /// The packets are led to `to`.
    pub(crate) fn switched(&mut self, to: NodeIndex) {
        self.trace(|| format!("the detector leads the packets to node {to}"));
        let Some(detector) = &mut self.detector else { return };
        detector.switching = None;
        detector.leads_to = Some(to);
        self.network.lead_to(to);
    }

    fn ask_how_it_is(&mut self, node: NodeIndex, plan: Option<Plan>) {
        let Some(detector) = &self.detector else { return };
        let ordered = plan.filter(|p| p.to == node && detector.leads_to == Some(node));
        let order = ordered.and_then(|plan| {
            let answer = detector.nodes[node].answer()?;
            Some((answer.beliefs.incarnation, plan.forced))
        });
        let question = Question { epoch: detector.highest, order };
        if order.is_some() {
            self.trace(|| format!("the detector tells node {node}: {question:?}"));
        }
        let mut arrivals = Vec::new();
        let way = (Place::Detector, Place::Node(node));
        self.network.arrivals(self.now, &mut self.rng, way, DATAGRAM, &mut arrivals);
        for at in arrivals {
            self.at(at, Happening::Asked { node, question });
        }
    }

    /// A question reaches a node. One that stands still does not answer.
    pub(crate) fn asked(&mut self, node: NodeIndex, question: Question) {
        if self.process(node) != Process::Running {
            return;
        }
        self.machine(node).busy = true;
        self.turn(node, Input::Asked(question));
        if !self.running(node) {
            return;
        }
        let now = self.clock(node);
        let machine = self.machine(node);
        let peer = machine.node.peer(now);
        let answer = Answer {
            beliefs: machine.node.beliefs(),
            hears_active: peer.is_some_and(|peer| peer.role == Role::Active),
        };
        let mut arrivals = Vec::new();
        let way = (Place::Node(node), Place::Detector);
        self.network.arrivals(self.now, &mut self.rng, way, DATAGRAM, &mut arrivals);
        for at in arrivals {
            self.at(at, Happening::Answered { node, answer });
        }
    }

    /// The node is told what the question says.
    pub(crate) fn obey_detector(&mut self, node: NodeIndex, question: Question) {
        let now = self.clock(node);
        let machine = self.machine(node);
        machine.node.handle_epoch(now, question.epoch);
        let Some((incarnation, forced)) = question.order else { return };
        if machine.node.beliefs().incarnation != incarnation {
            // It is meant for an earlier process.
            return;
        }
        let outcome = machine.node.handle_order(now, Order { epoch: question.epoch, forced });
        self.trace(|| format!("node {node} is told to take over: {outcome}"));
        self.situations.extend(match outcome {
            Outcome::Stale | Outcome::NotSynchronised => Some("order refused"),
            _ => None,
        });
    }

    /// An answer reaches the detector.
    pub(crate) fn answered(&mut self, node: NodeIndex, answer: Answer) {
        let Some(detector) = &mut self.detector else { return };
        let watched = &mut detector.nodes[node];
        // An old one may have been overtaken.
        let old = watched.last.is_some_and(|last| {
            last.beliefs.incarnation == answer.beliefs.incarnation
                && last.beliefs.epoch > answer.beliefs.epoch
        });
        if !old {
            watched.last = Some(answer);
        }
        (watched.misses, watched.asked) = (0, false);
        detector.highest = detector.highest.max(answer.beliefs.epoch);
    }
}
