//! Every order, with every repetition, of what can arrive in the life of one client's connection: at no point may anything
//! happen that must not.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// What arrives, or happens at the target.
#[derive(Clone, Debug)]
enum Step {
    Say(Balancer, Message),
    /// The infusion that was begun first ends.
    Infused(bool),
    /// The first connection that speaks ends.
    Ends,
    /// All deadlines pass.
    Late,
}

/// An agent that knows what it was told to do, and objects.
#[derive(Default)]
struct Agent {
    infusing: Vec<MigrationId>,
    mute: BTreeSet<MigrationId>,
    speaking: BTreeSet<MigrationId>,
    /// Never again.
    spoken: BTreeSet<MigrationId>,
    removed: BTreeSet<MigrationId>,
    /// The connection that lives here, by its client's ends.
    here: BTreeMap<FourTuple, MigrationId>,
    ends_of: BTreeMap<MigrationId, FourTuple>,
    flows: BTreeMap<MigrationId, FlowId>,
}

impl Agent {
    fn perform(&mut self, action: Action) {
        match action {
            Action::Infuse { id, blob } => {
                assert!(
                    !self.removed.contains(&id) && !self.spoken.contains(&id),
                    "{id:?} is back"
                );
                assert_eq!(self.here.insert(blob.ends, id), None, "two of one client");
                assert!(
                    !self.flows.values().any(|flow| *flow == blob.mapping.flow),
                    "a flow twice"
                );
                self.ends_of.insert(id, blob.ends);
                self.flows.insert(id, blob.mapping.flow);
                self.infusing.push(id);
            }
            Action::Speak { id } => {
                assert!(self.mute.remove(&id), "{id:?} is not infused");
                assert!(self.spoken.insert(id), "{id:?} is let speak twice");
                self.speaking.insert(id);
            }
            Action::Remove { id } => {
                let there = self.mute.remove(&id) || self.infusing.contains(&id);
                assert!(there && !self.spoken.contains(&id), "{id:?} cannot be removed");
                self.infusing.retain(|other| *other != id);
                assert!(self.removed.insert(id), "{id:?} is removed twice");
                self.leave(id);
            }
            Action::Send(_, Message::Prepared { id, .. }) => {
                assert!(self.mute.contains(&id), "{id:?} is not prepared");
            }
            Action::Send(_, Message::Committed { id, .. }) => {
                assert!(self.speaking.contains(&id), "{id:?} does not speak");
            }
            Action::Send(_, Message::Refused { id, reason, .. }) => {
                // Whoever is refused may go elsewhere: it must not be, or come, here. Only an old epoch learns nothing.
                if reason != Refusal::StaleEpoch {
                    let here = self.mute.contains(&id) || self.spoken.contains(&id);
                    assert!(!here, "{id:?} is refused ({reason}) and here");
                    self.removed.insert(id);
                }
            }
            Action::Send(_, Message::Ended { id, .. }) => {
                assert!(self.spoken.contains(&id) && !self.speaking.contains(&id));
            }
            Action::Send(..) => {}
            Action::Adopt { .. } => panic!("this target does not adopt"),
        }
    }

    fn finish(&mut self, target: &mut Target, well: bool) {
        if self.infusing.is_empty() {
            return;
        }
        let id = self.infusing.remove(0);
        if well {
            self.mute.insert(id);
            target.infused(NOW, id, Ok(()));
        } else {
            self.leave(id);
            target.infused(NOW, id, Err(Refusal::System));
        }
    }

    fn leave(&mut self, id: MigrationId) {
        self.here.remove(&self.ends_of[&id]);
        self.flows.remove(&id);
    }
}

/// What happens when these steps are taken by a target that knows nothing yet.
fn take(steps: &[Step]) {
    let mut target = target();
    let mut agent = Agent::default();
    for step in steps {
        match step {
            Step::Say(from, message) => target.handle(NOW, *from, message.clone()),
            Step::Infused(well) => agent.finish(&mut target, *well),
            Step::Ends => {
                if let Some(id) = agent.speaking.pop_first() {
                    agent.leave(id);
                    target.ended(id, HowEnded::Closed);
                }
            }
            Step::Late => target.expire(Time::NEVER),
        }
        while let Some(action) = target.poll_action() {
            agent.perform(action);
        }
    }
}

/// Every sequence of `length` of `steps`, each step any number of times in it.
fn every_order(steps: &[Step], length: u32) {
    let count = steps.len().pow(length);
    for number in 0..count {
        let mut rest = number;
        let order: Vec<Step> = (0..length)
            .map(|_| {
                let step = steps[rest % steps.len()].clone();
                rest /= steps.len();
                step
            })
            .collect();
        take(&order);
    }
}

fn one_migration(epoch: Epoch) -> Vec<Step> {
    let id = id(1);
    vec![
        Step::Say(Balancer::A, prepare(epoch, id, flow(1), ends(1))),
        Step::Say(Balancer::A, Message::Commit { epoch, id, flow: flow(1), ends: ends(1) }),
        Step::Say(Balancer::A, Message::Abort { epoch, id }),
        Step::Say(Balancer::A, Message::Gone { epoch, id }),
        Step::Infused(true),
        Step::Infused(false),
        Step::Ends,
        Step::Late,
    ]
}

#[test]
fn every_order_of_one_migration() {
    every_order(&one_migration(E1), 6);
}

/// The client's connection is moved again, in the next epoch, by the other node, which knows nothing of the first attempt, or
/// commits it.
#[test]
fn every_order_of_an_attempt_and_its_successor() {
    let later = MigrationId(201);
    let (first, second) = (id(1), later);
    let steps = [
        Step::Say(Balancer::A, prepare(E1, first, flow(1), ends(1))),
        Step::Say(
            Balancer::A,
            Message::Commit { epoch: E1, id: first, flow: flow(1), ends: ends(1) },
        ),
        Step::Say(Balancer::A, Message::Abort { epoch: E1, id: first }),
        Step::Say(
            Balancer::B,
            Message::Commit { epoch: E2, id: first, flow: flow(1), ends: ends(1) },
        ),
        Step::Say(Balancer::B, prepare(E2, second, flow(2), ends(1))),
        Step::Say(
            Balancer::B,
            Message::Commit { epoch: E2, id: second, flow: flow(2), ends: ends(1) },
        ),
        Step::Say(Balancer::B, Message::Serve { epoch: E2 }),
        Step::Infused(true),
        Step::Ends,
    ];
    every_order(&steps, 6);
}
