//! A judge and two model nodes in virtual time.

use outlive_node::detector::wire::NodeState;

use super::*;

const A: NodeId = NodeId::A;
const B: NodeId = NodeId::B;
const MS: Duration = Duration::from_millis(1);
const REIGN: Epoch = Epoch(2_000);

/// What a node of these tests is. It obeys orders as the real one does.
#[derive(Clone, Debug)]
struct Model {
    id: NodeId,
    lives: bool,
    /// The detector and it can hear each other.
    reachable: bool,
    role: Role,
    epoch: Epoch,
    synchronised: bool,
    incarnation: u64,
    takeovers: u32,
}

impl Model {
    fn new(id: NodeId, role: Role) -> Self {
        Model {
            id,
            lives: true,
            reachable: true,
            role,
            epoch: REIGN,
            synchronised: true,
            incarnation: 7,
            takeovers: 0,
        }
    }

    fn restart(&mut self) {
        self.lives = true;
        self.role = Role::Joining;
        self.epoch = Epoch::NONE;
        self.synchronised = false;
        self.incarnation += 1;
    }

    fn obey(&mut self, question: &Question) -> Option<Outcome> {
        let ticket = question.order?;
        if ticket.incarnation != self.incarnation || ticket.challenge != 5 {
            return Some(Outcome::Stale);
        }
        let complete = self.synchronised && question.epoch == self.epoch;
        Some(if self.role == Role::Active {
            Outcome::AlreadyActive
        } else if question.epoch < self.epoch {
            Outcome::Stale
        } else if !complete && !ticket.forced {
            Outcome::NotSynchronised
        } else {
            self.epoch = self.epoch.max(question.epoch).next_of_takeover(self.id);
            self.role = Role::Active;
            self.synchronised = false;
            self.takeovers += 1;
            Outcome::Accepted
        })
    }
}

/// Everything that was done, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Switch(NodeId),
    Order { node: NodeId, forced: bool },
}

struct World {
    now: Time,
    rules: Rules,
    judge: Judge,
    nodes: [Model; 2],
    nodes_hear_each_other: bool,
    /// Answers under way, and when they arrive.
    answers: VecDeque<(Time, Answer)>,
    /// Orders that get lost before one arrives.
    lose_orders: u32,
    /// Attempts at the switch that fail before one succeeds.
    fail_switches: u32,
    leads_to: Option<NodeId>,
    check: Option<bool>,
    done: Vec<Done>,
    log: Vec<Event>,
}

fn rules() -> Rules {
    Rules {
        interval: MS * 100,
        timeout: MS * 100,
        failures: 3,
        force_after: Some(Duration::from_secs(10)),
        standby_hears: StandbyHears::Wait,
        check: None,
    }
}

impl World {
    /// Node a is active, b its synchronised standby, and the detector knows.
    fn new(rules: Rules) -> Self {
        let mut world = World::unobserved(rules);
        world.run(Duration::from_secs(1));
        assert_eq!(world.done, [Done::Switch(A)]);
        world.done.clear();
        world
    }

    fn unobserved(rules: Rules) -> Self {
        let now = Time::ZERO + Duration::from_secs(100);
        World {
            now,
            judge: Judge::new(rules.clone(), 1_000, now),
            rules,
            nodes: [Model::new(A, Role::Active), Model::new(B, Role::Standby)],
            nodes_hear_each_other: true,
            answers: VecDeque::new(),
            lose_orders: 0,
            fail_switches: 0,
            leads_to: None,
            check: None,
            done: Vec::new(),
            log: Vec::new(),
        }
    }

    fn node(&mut self, id: NodeId) -> &mut Model {
        &mut self.nodes[usize::from(id == B)]
    }

    /// A detector that starts now.
    fn restart_detector(&mut self) {
        self.judge = Judge::new(self.rules.clone(), 90_000, self.now);
        self.answers.clear();
    }

    fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Returns whether `done` came about within `time`.
    fn run_until(&mut self, time: Duration, done: impl Fn(&World) -> bool) -> bool {
        let end = self.now + time;
        while self.now < end {
            self.step(end);
            if done(self) {
                return true;
            }
        }
        false
    }

    fn step(&mut self, end: Time) {
        let answer = self.answers.front().map_or(Time::from_micros(u64::MAX), |(at, _)| *at);
        let next = self.judge.deadline().min(answer).min(end);
        self.now = next.max(self.now + Duration::from_micros(100));
        while let Some((_, answer)) = self.answers.pop_front_if(|(at, _)| *at <= self.now) {
            self.judge.answered(self.now, &answer);
            self.act();
        }
        if let Some(success) = self.check {
            self.judge.checked(self.now, success);
        }
        self.judge.handle_timeout(self.now);
        self.act();
    }

    fn act(&mut self) {
        while let Some(action) = self.judge.poll_action() {
            match action {
                Action::Log(event) => self.log.push(event),
                Action::Switch { again: true, to, .. } => assert_eq!(self.leads_to, Some(to)),
                Action::Switch { to, .. } => {
                    let success = self.fail_switches == 0;
                    self.fail_switches = self.fail_switches.saturating_sub(1);
                    if success {
                        self.leads_to = Some(to);
                        self.done.push(Done::Switch(to));
                    }
                    self.judge.switched(self.now, to, success);
                }
                Action::Say(question) => self.deliver(&question),
            }
        }
    }

    fn deliver(&mut self, question: &Question) {
        let hears = self.nodes_hear_each_other;
        let peer = self.node(question.node.other()).clone();
        if let Some(ticket) = question.order {
            self.done.push(Done::Order { node: question.node, forced: ticket.forced });
            // Whoever is told already gets the packets.
            assert_eq!(self.leads_to, Some(question.node));
            if self.lose_orders > 0 {
                self.lose_orders -= 1;
                return;
            }
        }
        let arrival = self.now + MS;
        let node = self.node(question.node);
        if !node.lives || !node.reachable {
            return;
        }
        let outcome = node.obey(question);
        let state = NodeState {
            node: node.id,
            role: node.role,
            epoch: node.epoch,
            incarnation: node.incarnation,
            synchronised: node.synchronised,
            unsure: false,
            hears_peer: hears && peer.lives,
            peer_is_active: hears && peer.lives && peer.role == Role::Active,
            waits_for_orders: true,
            sessions: 0,
        };
        let answer = Answer { number: question.number, state, challenge: 5, outcome };
        self.answers.push_back((arrival, answer));
    }

    /// Runs until b is active, and checks that this was done as it should be.
    fn b_takes_over(&mut self, within: Duration, forced: bool) {
        assert!(
            self.run_until(within, |world| world.nodes[1].role == Role::Active),
            "b is not active after {within:?}: {:?}",
            self.log
        );
        assert_eq!(self.done[0], Done::Switch(B), "the packets are redirected first");
        assert_eq!(self.done[1], Done::Order { node: B, forced });
        self.run(Duration::from_secs(30));
        assert_eq!(self.node(B).takeovers, 1, "told once");
        assert_eq!(self.leads_to, Some(B));
        let orders = self.done.iter().filter(|done| matches!(done, Done::Order { .. })).count();
        let lost = self.done.len() - 1 - orders;
        assert_eq!(lost, 0, "one redirection is enough: {:?}", self.done);
    }
}

#[test]
fn a_dead_node_is_replaced_when_as_many_questions_failed() {
    let mut world = World::new(rules());
    world.node(A).lives = false;
    // Not before the third failure...
    world.run(MS * 290);
    assert_eq!(world.done, []);
    // ... which is counted one timeout after the third question.
    world.b_takes_over(MS * 120, false);
    assert_eq!(world.node(B).epoch, REIGN.next_of_takeover(B));
    assert_eq!(world.done.len(), 2, "the order is given once: {:?}", world.done);
}

#[test]
fn refusals_are_failures_without_waiting() {
    let mut world = World::new(Rules { timeout: Duration::from_secs(5), ..rules() });
    world.node(A).lives = false;
    for _ in 0..3 {
        world.run(MS * 100);
        world.judge.refused(world.now, A);
        world.act();
    }
    world.b_takes_over(MS * 10, false);
}

#[test]
fn a_node_that_answers_now_and_then_has_not_failed() {
    let mut world = World::new(rules());
    for _ in 0..50 {
        world.node(A).reachable = false;
        world.nodes_hear_each_other = false;
        world.run(MS * 190);
        world.node(A).reachable = true;
        world.run(MS * 110);
    }
    assert_eq!(world.done, []);
    assert_eq!(world.node(B).takeovers, 0);
}

#[test]
fn the_detector_that_hears_badly_does_nothing() {
    let mut world = World::new(rules());
    world.node(A).reachable = false;
    world.run(Duration::from_secs(60));
    assert_eq!(world.done, []);
    assert!(world.log.contains(&Event::Waits(Obstacle::StandbyHears { node: B })));
    // Really dead: its standby hears nothing either.
    world.node(A).lives = false;
    world.b_takes_over(MS * 120, false);
}

#[test]
fn on_the_packets_own_way_what_the_detector_hears_counts() {
    let mut world = World::new(Rules { standby_hears: StandbyHears::Switch, ..rules() });
    world.node(A).reachable = false;
    world.b_takes_over(MS * 420, false);
}

#[test]
fn connections_that_succeed_prevent_a_takeover_and_that_fail_confirm_it() {
    let check = Some(CheckRule { failures: 3, decides: false });
    let mut world = World::new(Rules { check, ..rules() });
    world.check = Some(true);
    world.node(A).reachable = false;
    world.nodes_hear_each_other = false;
    world.run(Duration::from_secs(60));
    assert_eq!(world.done, []);
    assert!(world.log.contains(&Event::Waits(Obstacle::CheckSucceeds)));
    // Also against what the standby hears: clients are not served.
    world.nodes_hear_each_other = true;
    world.check = Some(false);
    world.b_takes_over(MS * 420, false);
}

#[test]
fn connections_alone_decide_only_if_they_may() {
    for decides in [false, true] {
        let check = Some(CheckRule { failures: 3, decides });
        let mut world = World::new(Rules { check, ..rules() });
        world.check = Some(false);
        world.run(Duration::from_secs(30));
        let expected = [Done::Switch(B), Done::Order { node: B, forced: false }];
        assert_eq!(world.done, if decides { &expected[..] } else { &[] });
        if !decides {
            continue;
        }
        // Back and forth is not what helps if the servers have failed.
        world.node(A).role = Role::Standby;
        world.node(A).epoch = world.node(B).epoch;
        world.run(Duration::from_secs(20));
        assert_eq!(world.done.len(), 2);
    }
}

#[test]
fn when_both_are_down_nothing_is_done_until_one_is_back() {
    let mut world = World::new(rules());
    world.node(A).lives = false;
    world.node(B).lives = false;
    world.run(Duration::from_secs(60));
    assert_eq!(world.done, []);
    // It has nothing, but nobody has had anything for long.
    world.node(B).restart();
    world.b_takes_over(MS * 300, true);
    assert!(world.node(B).epoch > REIGN, "above all that was seen");
}

#[test]
fn a_standby_that_does_not_hold_everything_is_the_last_resort() {
    for force_after in [None, Some(Duration::from_secs(10))] {
        let mut world = World::new(Rules { force_after, ..rules() });
        world.node(B).synchronised = false;
        world.run(MS * 200);
        world.node(A).lives = false;
        world.run(Duration::from_secs(9));
        assert_eq!(world.done, []);
        assert!(world.log.contains(&Event::Waits(Obstacle::NotSynchronised { node: B })));
        match force_after {
            Some(_) => world.b_takes_over(Duration::from_secs(3), true),
            None => {
                world.run(Duration::from_secs(100));
                assert_eq!(world.done, []);
            }
        }
    }
}

#[test]
fn a_standby_of_an_earlier_epoch_does_not_hold_everything() {
    let mut world = World::new(rules());
    // It went on alone, unheard by its standby, which goes on believing that it holds everything.
    world.nodes_hear_each_other = false;
    world.node(A).epoch = REIGN.next_of_active(A);
    world.run(MS * 300);
    world.node(A).lives = false;
    world.run(Duration::from_secs(9));
    assert_eq!(world.done, []);
    world.b_takes_over(Duration::from_secs(3), true);
}

#[test]
fn an_active_node_that_restarted_is_replaced_soon() {
    let mut world = World::new(rules());
    // So fast that no question failed.
    world.node(A).restart();
    world.b_takes_over(MS * 520, false);
}

#[test]
fn lost_orders_are_given_again() {
    let mut world = World::new(rules());
    world.node(A).lives = false;
    world.lose_orders = 5;
    world.b_takes_over(MS * 1_000, false);
}

#[test]
fn nobody_is_told_before_the_packets_are_redirected() {
    let mut world = World::new(rules());
    world.node(A).lives = false;
    world.fail_switches = 4;
    world.run(Duration::from_secs(3));
    assert_eq!(world.done, []);
    world.b_takes_over(Duration::from_secs(3), false);
}

#[test]
fn a_detector_that_restarts_observes_first() {
    // Before it had done anything, after the switch, after the order.
    for orders in [0, 3, 0] {
        let mut world = World::new(rules());
        world.node(A).lives = false;
        world.lose_orders = orders;
        let stage = |world: &World| match orders {
            0 => world.nodes[1].role == Role::Active,
            _ => world.leads_to == Some(B),
        };
        assert!(world.run_until(MS * 500, stage));
        world.restart_detector();
        world.lose_orders = 0;
        world.done.clear();
        let early = world.run_until(MS * 250, |world| !world.done.is_empty() && orders > 0);
        assert!(!early, "it began to act before it had observed");
        world.run(Duration::from_secs(5));
        assert_eq!(world.node(B).takeovers, 1);
        assert_eq!(world.leads_to, Some(B));
    }
    let mut world = World::unobserved(rules());
    world.node(A).lives = false;
    world.b_takes_over(MS * 420, false);
}

#[test]
fn the_switch_follows_what_the_nodes_do_themselves() {
    let mut world = World::new(rules());
    // A planned handover: for a moment both are passive.
    world.node(A).role = Role::Standby;
    world.run(MS * 150);
    assert_eq!(world.done, []);
    world.node(B).role = Role::Active;
    world.node(B).epoch = REIGN.next_of_takeover(B);
    world.node(A).epoch = REIGN.next_of_takeover(B);
    world.run(Duration::from_secs(60));
    assert_eq!(world.done, [Done::Switch(B)]);
}

#[test]
fn a_returning_node_of_an_old_epoch_changes_nothing() {
    let mut world = World::new(rules());
    world.node(A).lives = false;
    world.b_takes_over(MS * 420, false);
    // Frozen, and now thawed: it has not heard yet that it is not active any more.
    world.node(A).lives = true;
    let done = world.done.clone();
    world.run(Duration::from_secs(60));
    assert_eq!(world.done, done);
    assert_eq!(world.judge.leader(), Some(B));
}

#[test]
fn a_node_that_answers_again_in_time_keeps_the_packets() {
    let mut world = World::new(rules());
    world.node(A).lives = false;
    world.lose_orders = u32::MAX;
    assert!(world.run_until(MS * 500, |world| world.leads_to == Some(B)));
    world.node(A).lives = true;
    world.run(Duration::from_secs(10));
    assert_eq!(world.leads_to, Some(A));
    assert_eq!(world.node(B).takeovers, 0);
}

#[test]
fn an_operator_can_have_the_other_node_if_it_holds_everything() {
    let mut world = World::new(rules());
    world.node(B).synchronised = false;
    world.run(MS * 200);
    world.judge.wished(world.now);
    world.run(Duration::from_secs(20));
    assert_eq!(world.done, []);
    assert!(world.log.contains(&Event::WishRefused));

    // It has just become so, and has not been asked since.
    world.node(B).synchronised = true;
    world.lose_orders = 2;
    world.judge.wished(world.now);
    world.b_takes_over(MS * 500, false);
    // It was wanted once: what happens later is judged as always.
    let epoch = world.node(B).epoch;
    let a = world.node(A);
    (a.role, a.epoch, a.synchronised) = (Role::Standby, epoch, true);
    world.run(Duration::from_secs(1));
    world.node(B).lives = false;
    assert!(world.run_until(MS * 420, |world| world.nodes[0].role == Role::Active));
}

#[test]
fn two_failures_in_a_row_are_two_takeovers() {
    let mut world = World::new(rules());
    world.node(A).lives = false;
    world.b_takes_over(MS * 420, false);
    let epoch = world.node(B).epoch;
    let a = world.node(A);
    a.lives = true;
    (a.role, a.epoch, a.synchronised) = (Role::Standby, epoch, true);
    world.run(Duration::from_secs(1));
    world.node(B).lives = false;
    assert!(world.run_until(MS * 420, |world| world.nodes[0].role == Role::Active));
    assert_eq!(world.leads_to, Some(A));
}
