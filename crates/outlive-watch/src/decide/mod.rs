//! What follows from what was heard: who serves, where the packets have to go, and who is told to take over.
//!
//! A [`Judge`] is told what happens and asked what follows; it has no clock and does nothing itself. It decides by the
//! present state alone: each time it asks itself which node the packets should go to, and compares that with where the
//! switch leads. So a lost order is simply given again, a repeated one has no effect, and one that has just started
//! begins by observing.
//!
//! The rules:
//!
//! * The active node of the highest epoch leads, and the switch follows it, whoever made it active.
//! * A node has failed when it left `failures` questions in a row without an answer.
//! * When nobody leads, the packets go to the standby that holds everything, first; then it is told to take over. Not
//!   as long as that standby hears the silent node serve, or connections through the virtual address succeed: then
//!   it is the detector that hears badly.
//! * A node that does not hold everything is told only if nothing better can come: both answer and neither leads, or
//!   nobody has led for `force_after`.

mod event;
mod node;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, time::Duration};

use outlive_node::detector::wire::{Answer, OrderTicket, Question};
use outlive_proxy::{
    config::NodeId,
    pair::{Epoch, heartbeat::Role, order::Outcome},
};
use outlive_tcp::time::Time;

pub(crate) use self::event::name;
pub use self::event::{Event, Obstacle};
use self::node::{Node, Verdict};

/// How it is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Time between questions to a node.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Questions in a row without an answer that make a node a failed one.
    pub failures: u32,
    /// After nobody has led for this long, a node that does not hold everything is told to take over. `None`: never.
    pub force_after: Option<Duration>,
    /// What the standby's word is worth that it hears the active node.
    pub standby_hears: StandbyHears,
    /// What connections through the virtual address decide, if they are made.
    pub check: Option<CheckRule>,
}

/// What follows if the active node does not answer, but the standby hears it serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandbyHears {
    /// Nothing, for the detector may be the one that is cut off.
    Wait,
    /// A takeover, for packets reach the nodes on the detector's own way.
    Switch,
}

/// What connections through the virtual address decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckRule {
    /// Failures in a row that count.
    pub failures: u32,
    /// They alone are enough for a takeover, also while the active node answers. Otherwise their success
    /// only prevents one.
    pub decides: bool,
}

/// After a takeover for which connections alone were the reason, there is no other of that kind for this long: if the
/// servers are what has failed, nothing is gained by it.
const CHECK_HOLD: Duration = Duration::from_secs(60);
/// How long a move that an operator wants is tried.
const WISH_PATIENCE: Duration = Duration::from_secs(10);
/// A switch that failed is tried again after this long.
const SWITCH_RETRY: Duration = Duration::from_secs(1);
/// How often a switch that leads where it should is told so again: an interface that was down has lost its routes.
const REASSERT: Duration = Duration::from_secs(1);

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this to its node.
    Say(Question),
    /// Lead the packets to this node, and report with [`Judge::switched`].
    Switch {
        /// The node.
        to: NodeId,
        /// The highest epoch that was seen.
        epoch: Epoch,
        /// It leads there already, as far as is known. Nothing is to be reported.
        again: bool,
    },
    /// For the log.
    Log(Event),
}

/// A takeover that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    to: NodeId,
    forced: bool,
}

/// Who decides. See the module.
#[derive(Debug)]
pub struct Judge {
    rules: Rules,
    nodes: [Node; 2],
    number: u64,
    highest: Epoch,
    leader: Option<NodeId>,
    leaderless_since: Option<Time>,
    plan: Option<Plan>,
    obstacle: Option<Obstacle>,
    next_order: Time,
    /// Where the switch leads; `None`: not known.
    leads_to: Option<NodeId>,
    switching: Option<NodeId>,
    next_switch: Time,
    check_misses: u32,
    check_hold: Time,
    /// An operator wants the other node to be active; until when its answer is waited for that it can be.
    asked: Option<Time>,
    /// The node that an operator wants to be active, and until when that is tried.
    wish: Option<(NodeId, Time)>,
    actions: VecDeque<Action>,
}

impl Judge {
    /// One that knows nothing yet, at `now`. `number`: a random one, for its first question.
    pub fn new(rules: Rules, number: u64, now: Time) -> Self {
        Judge {
            nodes: [Node::new(NodeId::A, now), Node::new(NodeId::B, now)],
            rules,
            number,
            highest: Epoch::NONE,
            leader: None,
            leaderless_since: None,
            plan: None,
            obstacle: None,
            next_order: now,
            leads_to: None,
            switching: None,
            next_switch: now,
            check_misses: 0,
            check_hold: now,
            asked: None,
            wish: None,
            actions: VecDeque::new(),
        }
    }

    // ── what happens

    /// An answer came, authentic. All that have arrived are to be handed over before
    /// [`handle_timeout`](Self::handle_timeout).
    pub fn answered(&mut self, now: Time, answer: &Answer) {
        let node = self.node_mut(answer.state.node);
        if !node.answered(now, answer) {
            return;
        }
        if let Some(outcome) = answer.outcome {
            let node = answer.state.node;
            self.log(Event::Outcome { node, outcome });
            if outcome == Outcome::Stale {
                // Perhaps its challenge was too old. The next one is not.
                self.next_order = now;
            }
        }
        self.highest = self.highest.max(answer.state.epoch);
        self.decide(now);
    }

    /// A question to this node came back: no process listens there.
    pub fn refused(&mut self, now: Time, node: NodeId) {
        self.node_mut(node).refused();
        self.decide(now);
    }

    /// A connection through the virtual address succeeded, or not.
    pub fn checked(&mut self, now: Time, success: bool) {
        let failures = self.rules.check.map_or(u32::MAX, |check| check.failures);
        let failed_before = self.check_misses >= failures;
        self.check_misses = if success { 0 } else { self.check_misses.saturating_add(1) };
        let fails = self.check_misses >= failures;
        if fails != failed_before {
            self.log(Event::Check { succeeds: !fails });
        }
        self.decide(now);
    }

    /// The switch leads to this node now, or could not be made to.
    pub fn switched(&mut self, now: Time, to: NodeId, success: bool) {
        if self.switching != Some(to) {
            return;
        }
        self.switching = None;
        self.leads_to = success.then_some(to);
        self.next_switch = now + if success { REASSERT } else { SWITCH_RETRY };
        self.next_order = now;
        self.log(if success { Event::Switched { to } } else { Event::SwitchFailed { to } });
        self.decide(now);
    }

    /// An operator wants the other node to be active: this one is to be upgraded, say. Nothing happens, and is told, if
    /// the other one does not hold everything. What it last said may be old: it is asked.
    pub fn wished(&mut self, now: Time) {
        self.asked = Some(now + self.rules.timeout);
        for id in [NodeId::A, NodeId::B] {
            self.ask(now, id);
        }
        self.decide(now);
    }

    /// Whether what an operator wants can be done.
    fn judge_wish(&mut self, now: Time) {
        let Some(until) = self.asked else { return };
        let other = self.leader.map(NodeId::other).filter(|other| self.complete(*other));
        match other {
            Some(to) => {
                self.log(Event::Wished { to });
                self.wish = Some((to, now + WISH_PATIENCE));
            }
            None if now < until => return,
            None => self.log(Event::WishRefused),
        }
        self.asked = None;
    }

    /// Time has passed. To be called when [`deadline`](Self::deadline) says so.
    pub fn handle_timeout(&mut self, now: Time) {
        for id in [NodeId::A, NodeId::B] {
            self.node_mut(id).expire(now);
            if self.node(id).next_question <= now {
                self.ask(now, id);
            }
        }
        self.decide(now);
    }

    // ── what follows

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called next.
    pub fn deadline(&self) -> Time {
        let nodes = self.nodes.iter().flat_map(|node| [Some(node.next_question), node.deadline()]);
        let forced = self.leaderless_since.zip(self.rules.force_after).map(|(at, time)| at + time);
        let order = self.plan.map(|_| self.next_order);
        let later = [forced, order, self.asked, Some(self.next_switch)];
        // What is past has been looked at, and waits for something else.
        let later = later.into_iter().filter(|at| at.is_some_and(|at| at > self.now()));
        nodes.chain(later).flatten().min().unwrap_or(Time::ZERO)
    }

    /// Who leads, as far as is known.
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    fn now(&self) -> Time {
        self.nodes[0].now.max(self.nodes[1].now)
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[usize::from(id == NodeId::B)]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[usize::from(id == NodeId::B)]
    }

    fn log(&mut self, event: Event) {
        self.actions.push_back(Action::Log(event));
    }

    fn ask(&mut self, now: Time, id: NodeId) {
        self.say(now, id, None);
        let next = now + self.rules.interval;
        self.node_mut(id).next_question = next;
    }

    fn say(&mut self, now: Time, id: NodeId, order: Option<OrderTicket>) {
        self.number = self.number.wrapping_add(1);
        let question = Question { node: id, number: self.number, epoch: self.highest, order };
        let deadline = now + self.rules.timeout;
        self.node_mut(id).asked(question.number, deadline);
        self.actions.push_back(Action::Say(question));
    }

    fn decide(&mut self, now: Time) {
        let failures = self.rules.failures;
        for id in [NodeId::A, NodeId::B] {
            if let Some(verdict) = self.node_mut(id).judge(failures) {
                self.log(match verdict {
                    Verdict::Fails => Event::Fails { node: id },
                    _ => Event::Answers { node: id },
                });
            }
        }
        self.follow_leader();
        self.judge_wish(now);
        if self.leader.is_none() && self.nodes.iter().any(|node| node.verdict == Verdict::Unknown) {
            // Only just begun: observe.
            return;
        }
        match self.leader {
            Some(_) => self.leaderless_since = None,
            None => {
                self.leaderless_since.get_or_insert(now);
            }
        }
        self.set_plan(now);
        let Some(wanted) = self.plan.map(|plan| plan.to).or(self.leader) else { return };
        self.lead_to(now, wanted);
        if let Some(plan) = self.plan
            && self.leads_to == Some(plan.to)
            && self.switching.is_none()
            && self.next_order <= now
        {
            self.order(now, plan);
        }
    }

    /// The active node of the highest epoch, among those that answer.
    fn follow_leader(&mut self) {
        let active = self.nodes.iter().filter_map(|node| {
            let state = node.state().filter(|state| state.role == Role::Active)?;
            Some((state.epoch, node.id))
        });
        let leader = active.max_by_key(|(epoch, _)| *epoch);
        let before = self.leader;
        self.leader = leader.map(|(_, node)| node);
        if self.leader == before {
            return;
        }
        if let Some((epoch, node)) = leader {
            self.log(Event::Leads { node, epoch });
            // What was seen of connections was seen of the other one.
            self.check_misses = 0;
        } else {
            self.log(Event::NobodyLeads);
        }
    }

    /// Leads the switch to `wanted`, or sees that it still does.
    fn lead_to(&mut self, now: Time, wanted: NodeId) {
        if self.switching.is_some() || (now < self.next_switch && self.leads_to == Some(wanted)) {
            return;
        }
        let again = self.leads_to == Some(wanted);
        let failed_lately = self.leads_to.is_none() && now < self.next_switch;
        if failed_lately {
            return;
        }
        if again {
            self.next_switch = now + REASSERT;
        } else {
            self.switching = Some(wanted);
        }
        self.actions.push_back(Action::Switch { to: wanted, epoch: self.highest, again });
    }

    fn order(&mut self, now: Time, plan: Plan) {
        let Some(answer) = self.node(plan.to).last() else { return };
        let ticket = OrderTicket {
            forced: plan.forced,
            incarnation: answer.state.incarnation,
            challenge: answer.challenge,
        };
        self.say(now, plan.to, Some(ticket));
        // Lost, or under way: the next state that it tells shows which.
        self.next_order = now + self.rules.interval;
        self.log(Event::Ordered { node: plan.to, epoch: self.highest, forced: plan.forced });
    }

    fn set_plan(&mut self, now: Time) {
        let (plan, obstacle) = match self.leader {
            None => match self.plan_without_leader(now) {
                Ok(plan) => (Some(plan), None),
                Err(obstacle) => (None, Some(obstacle)),
            },
            Some(leader) => {
                let plan = self.plan_of_wish(now, leader);
                (plan.or_else(|| self.plan_of_check(now, leader)), None)
            }
        };
        if self.plan != plan {
            self.plan = plan;
            self.next_order = now;
            if let Some(Plan { to, forced }) = plan {
                self.log(Event::Redirects { to, forced });
            }
        }
        if self.obstacle != obstacle {
            self.obstacle = obstacle;
            if let Some(obstacle) = obstacle {
                self.log(Event::Waits(obstacle));
            }
        }
    }

    /// An operator wants another node than the one that leads.
    fn plan_of_wish(&mut self, now: Time, leader: NodeId) -> Option<Plan> {
        let (to, until) = self.wish?;
        if to == leader || now >= until || !self.complete(to) {
            self.wish = None;
            return None;
        }
        Some(Plan { to, forced: false })
    }

    /// Connections fail though the active node answers.
    fn plan_of_check(&mut self, now: Time, leader: NodeId) -> Option<Plan> {
        if let Some(plan) = self.plan.filter(|plan| plan.to != leader)
            && self.check_hold > now
            && self.complete(plan.to)
        {
            // Begun for that reason, and not yet done.
            return Some(plan);
        }
        let check = self.rules.check.filter(|check| check.decides)?;
        let due = self.check_misses >= check.failures && now >= self.check_hold;
        if !due || !self.complete(leader.other()) {
            return None;
        }
        self.check_hold = now + CHECK_HOLD;
        Some(Plan { to: leader.other(), forced: false })
    }

    fn plan_without_leader(&self, now: Time) -> Result<Plan, Obstacle> {
        let answering: Vec<&Node> =
            self.nodes.iter().filter(|node| node.verdict == Verdict::Answers).collect();
        let [first, rest @ ..] = &answering[..] else { return Err(Obstacle::NobodyAnswers) };
        let both = !rest.is_empty();
        if !both {
            self.is_true(first)?;
        }
        let led_until = self.leaderless_since.unwrap_or(now);
        // A handover between the nodes passes in less.
        let settled = now.since(led_until) >= self.rules.interval * self.rules.failures;
        if both && !settled {
            return Err(Obstacle::MayPass);
        }
        let best = answering.iter().max_by_key(|node| {
            let state = node.state();
            let standby = state.is_some_and(|state| state.role == Role::Standby);
            let synchronised = state.is_some_and(|state| state.synchronised);
            (synchronised, standby, state.map(|state| state.epoch), node.id == NodeId::A)
        });
        let Some(best) = best.map(|node| node.id) else { return Err(Obstacle::NobodyAnswers) };
        if self.complete(best) {
            return Ok(Plan { to: best, forced: false });
        }
        let late = self.rules.force_after.is_some_and(|time| now.since(led_until) >= time);
        if both || late {
            return Ok(Plan { to: best, forced: true });
        }
        Err(Obstacle::NotSynchronised { node: best })
    }

    /// Whether what the detector believes of the node that does not answer is true, as far as others can tell.
    fn is_true(&self, other: &Node) -> Result<(), Obstacle> {
        let check_succeeds = self.rules.check.map(|check| self.check_misses < check.failures);
        if check_succeeds == Some(true) {
            return Err(Obstacle::CheckSucceeds);
        }
        let hears = other.state().is_some_and(|state| state.hears_peer && state.peer_is_active);
        // Connections that fail outweigh it: whatever the silent node is doing, it serves nobody.
        let waits = self.rules.standby_hears == StandbyHears::Wait && check_succeeds.is_none();
        if hears && waits {
            return Err(Obstacle::StandbyHears { node: other.id });
        }
        Ok(())
    }

    /// Whether this node could go on with every session.
    fn complete(&self, id: NodeId) -> bool {
        self.node(id).state().is_some_and(|state| {
            state.role == Role::Standby && state.synchronised && state.epoch >= self.highest
        })
    }
}
