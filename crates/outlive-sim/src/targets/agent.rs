//! What an agent does: it performs what the target's state machine wants, and tells what has come of it.

use std::time::Duration;

use outlive_migration::{
    blob::Blob,
    id::{Balancer, Epoch, MigrationId},
    message::{HowEnded, Message, Refusal},
    target::Action,
};
use outlive_tcp::endpoint::{Acknowledge, Config};

use super::{INFUSION, Infused, LINGER, Stands, TargetHappening, TargetSetup};
use crate::{
    endpoint::SEND_BUFFER, ledger::Rule, machine::Process, network::NodeIndex, stack::Phase,
    world::World,
};

impl World {
    /// A node says something to an agent.
    pub(super) fn agent_is_told(&mut self, target: usize, node: NodeIndex, message: Message) {
        let now = self.now;
        let host = &mut self.targets[target];
        let epoch = epoch_of(&message);
        let stale = epoch.is_some_and(|epoch| epoch < host.epoch);
        host.epoch = host.epoch.max(epoch.unwrap_or_default());
        host.target.handle(now, [Balancer::A, Balancer::B][node], message);
        self.agent_acts(target, stale);
    }

    /// Does everything that the target wants done. `stale`: because of what was said in an epoch that is over.
    pub(super) fn agent_acts(&mut self, target: usize, stale: bool) {
        while let Some(action) = self.targets[target].target.poll_action() {
            if stale && !matches!(action, Action::Send(..)) {
                let detail = format!("target {target} obeys an epoch that is over: {action:?}");
                self.ledger.violate(Rule::Epoch, detail);
            }
            match action {
                Action::Send(to, message) => self.agent_says(target, to.index(), &message),
                Action::Infuse { id, blob } => self.infuse(target, id, &blob),
                Action::Adopt { id, flow, ends } => {
                    let host = &mut self.targets[target];
                    let lives = host.setup.keeps
                        && host.host.phase(&ends.reversed()) != Phase::Closed
                        && host.mappings.insert(flow, ends);
                    if lives {
                        let adopted = Infused { flow, ends, stands: Stands::Speaks };
                        host.infused.insert(id, adopted);
                        self.situations.insert("adopted by another agent");
                    }
                    self.targets[target].target.adopted(id, lives);
                }
                Action::Speak { id } => self.speak(target, id),
                Action::Remove { id } => {
                    let host = &mut self.targets[target];
                    if let Some(infused) = host.infused.remove(&id) {
                        host.mappings.remove(infused.flow);
                    }
                    self.note_over(id);
                }
            }
            if self.target_step(target) {
                return;
            }
        }
        if !self.target_step(target) {
            self.set_agent_alarm(target);
        }
    }

    fn infuse(&mut self, target: usize, id: MigrationId, blob: &Blob) {
        let now = self.now;
        self.forget_ended(target, blob);
        let host = &mut self.targets[target];
        let outcome = if host.refuses {
            Err(Refusal::NoServer)
        } else if !host.setup.tunnel.contains(&blob.mapping.tunnel) {
            Err(Refusal::NotHere)
        } else if host.host.phase(&blob.ends.reversed()) != Phase::Closed {
            Err(Refusal::ConnectionTaken)
        } else {
            blob.infuse(now, Duration::ZERO, config(&host.setup)).map_err(|_| Refusal::BadBlob)
        };
        match outcome {
            Ok(connection) if host.mappings.insert(blob.mapping.flow, blob.ends) => {
                let stands = Stands::Mute(Box::new(connection), blob.tcp.irs);
                let infused = Infused { flow: blob.mapping.flow, ends: blob.ends, stands };
                host.infused.insert(id, infused);
                let incarnation = host.incarnation;
                self.note_infused(target, id);
                self.target_soon(INFUSION, TargetHappening::Infused { target, incarnation, id });
            }
            Ok(_) => host.target.infused(now, id, Err(Refusal::FlowTaken)),
            Err(reason) => {
                if reason == Refusal::BadBlob {
                    let detail = format!("target {target} cannot go on from {blob:?}");
                    self.ledger.violate(Rule::StateConnection, detail);
                }
                self.targets[target].target.infused(now, id, Err(reason));
            }
        }
    }

    /// A connection that has ended and lingers gives way to a new one of the same ends.
    fn forget_ended(&mut self, target: usize, blob: &Blob) {
        let host = &mut self.targets[target];
        let ended = host.infused.iter().find_map(|(id, infused)| match infused.stands {
            Stands::Ended(how, _) if infused.ends == blob.ends => Some((*id, how)),
            _ => None,
        });
        if let Some((id, how)) = ended {
            self.let_go(target, id, how);
        }
    }

    pub(super) fn infusion_is_over(&mut self, target: usize, incarnation: u32, id: MigrationId) {
        let now = self.now;
        let host = &mut self.targets[target];
        if host.incarnation != incarnation || !host.infused.contains_key(&id) {
            return;
        }
        match host.process {
            Process::Frozen => {
                let again = TargetHappening::Infused { target, incarnation, id };
                self.target_soon(Duration::from_millis(20), again);
            }
            Process::Running => {
                host.target.infused(now, id, Ok(()));
                self.agent_acts(target, false);
            }
            Process::Dead | Process::Off => {}
        }
    }

    fn speak(&mut self, target: usize, id: MigrationId) {
        let now = self.now;
        self.check_speaks(target, id);
        let host = &mut self.targets[target];
        let Some(infused) = host.infused.get_mut(&id) else {
            host.target.ended(id, HowEnded::Lost);
            return;
        };
        let Stands::Mute(connection, isn) = std::mem::replace(&mut infused.stands, Stands::Speaks)
        else {
            return;
        };
        let ends = infused.ends;
        let flow = self.flow_of_client(ends, isn);
        self.targets[target].host.adopt(now, *connection, flow, &mut self.ledger);
        self.stack_acts(target);
    }

    /// Connections that speak, and are over.
    pub(super) fn look_for_ends(&mut self, target: usize) {
        let now = self.now;
        let host = &mut self.targets[target];
        if !host.is_running() {
            return;
        }
        for infused in host.infused.values_mut() {
            let tuple = infused.ends.reversed();
            if matches!(infused.stands, Stands::Speaks) && host.host.phase(&tuple) == Phase::Closed
            {
                let satisfied = host.host.is_satisfied(&tuple);
                let how = if satisfied { HowEnded::Closed } else { HowEnded::Reset };
                infused.stands = Stands::Ended(how, now + LINGER);
            }
        }
        self.set_agent_alarm(target);
    }

    pub(super) fn agent_wakes(&mut self, target: usize) {
        let now = self.now;
        let host = &mut self.targets[target];
        match host.process {
            Process::Running => {}
            Process::Frozen | Process::Dead | Process::Off => return,
        }
        host.target.expire(now);
        let gone: Vec<_> = host
            .infused
            .iter()
            .filter_map(|(id, infused)| match infused.stands {
                Stands::Ended(how, until) if until <= now => Some((*id, how)),
                _ => None,
            })
            .collect();
        for (id, how) in gone {
            self.let_go(target, id, how);
        }
        self.agent_acts(target, false);
    }

    fn let_go(&mut self, target: usize, id: MigrationId, how: HowEnded) {
        let host = &mut self.targets[target];
        if let Some(infused) = host.infused.remove(&id) {
            host.mappings.remove(infused.flow);
            host.host.forget(&infused.ends.reversed());
            host.target.ended(id, how);
        }
    }

    pub(super) fn set_agent_alarm(&mut self, target: usize) {
        let host = &mut self.targets[target];
        let ends = host.infused.values().filter_map(|infused| match infused.stands {
            Stands::Ended(_, until) => Some(until),
            _ => None,
        });
        let Some(at) = ends.chain(host.target.next_deadline()).min() else { return };
        let at = at.max(self.now);
        if host.agent_wake != Some(at) {
            host.agent_wake = Some(at);
            let incarnation = host.incarnation;
            let wakes = TargetHappening::AgentWakes { target, incarnation, at };
            self.at(at, crate::world::Happening::Target(wakes));
        }
    }
}

/// How a target's endpoint goes on.
fn config(setup: &TargetSetup) -> Config {
    let buffer = setup.stack.receive_buffer as u32;
    Config {
        mtu: setup.stack.mtu as u16,
        receive_buffer: buffer,
        withheld_limit: buffer,
        send_buffer: SEND_BUFFER,
        acknowledge: if setup.keeps { Acknowledge::OnReceipt } else { Acknowledge::Explicitly },
        time_wait: Duration::from_secs(1),
        ..Config::default()
    }
}

fn epoch_of(message: &Message) -> Option<Epoch> {
    match message {
        Message::Hello(hello) => Some(hello.epoch),
        Message::Serve { epoch }
        | Message::Prepare { epoch, .. }
        | Message::Commit { epoch, .. }
        | Message::Abort { epoch, .. }
        | Message::Gone { epoch, .. } => Some(*epoch),
        // A standby, too, asks whether a way is open.
        _ => None,
    }
}
