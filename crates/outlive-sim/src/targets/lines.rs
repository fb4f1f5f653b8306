//! The connections between the nodes and the agents: reliable, ordered, and made anew when they break.

use std::time::Duration;

use outlive_migration::message::Message;
use outlive_tcp::wire::Endpoint;

use super::TargetHappening;
use crate::{
    channel::{Item, Tail},
    ledger::Rule,
    machine::Process,
    network::NodeIndex,
    pair::Input,
    world::World,
};

/// Time between two attempts to make a connection.
const REDIAL: Duration = Duration::from_millis(40);
/// What a cut, or a process that stands still, holds up is looked at again so often.
const RETRY: Duration = Duration::from_millis(20);

/// The ends of a line.
const NODE: usize = 0;
const AGENT: usize = 1;

impl World {
    pub(super) fn dial_agents(&mut self) {
        self.target_soon(REDIAL, TargetHappening::Dial);
        for target in 0..self.targets.len() {
            for node in 0..2 {
                let both = self.running(node) && self.targets[target].is_running();
                let free = self.targets[target].lines[node].is_down();
                if both && free && self.are_connected(node, target) {
                    self.targets[target].lines[node].open();
                    self.line_under_way(target, node, true);
                    self.line_under_way(target, node, false);
                }
            }
        }
    }

    fn line_under_way(&mut self, target: usize, node: NodeIndex, to_target: bool) {
        let delay = self.network.link.delay;
        self.target_soon(delay, TargetHappening::Line { target, node, to_target });
    }

    // ── the agent's end

    pub(super) fn agent_hears(&mut self, target: usize, node: NodeIndex) {
        let again = TargetHappening::Line { target, node, to_target: true };
        match self.targets[target].process {
            _ if !self.are_connected(node, target) => return self.target_soon(RETRY, again),
            Process::Frozen => return self.target_soon(RETRY, again),
            Process::Dead | Process::Off => {
                // Nobody is there any more.
                self.targets[target].lines[node].arrive(AGENT);
                return;
            }
            Process::Running => {}
        }
        match self.targets[target].lines[node].arrive(AGENT) {
            Some(Item::Opened) => {
                let hello = self.targets[target].target.hello();
                self.agent_says(target, node, &hello);
                self.target_step(target);
            }
            Some(Item::Message(bytes)) => match Message::decode(&bytes) {
                Ok(message) => self.agent_is_told(target, node, message),
                Err(why) => {
                    let detail = format!("node {node} to target {target}: {why}");
                    self.ledger.violate(Rule::StateConnection, detail);
                }
            },
            Some(Item::Closed) | None => {}
        }
    }

    pub(super) fn agent_says(&mut self, target: usize, node: NodeIndex, message: &Message) {
        self.trace(|| format!("target {target} => node {node}: {}", brief(message)));
        let line = &mut self.targets[target].lines[node];
        if line.is_up(AGENT) {
            line.send(AGENT, message.encode());
            self.line_under_way(target, node, false);
        }
    }

    /// The agent's process is gone; so are its connections.
    pub(super) fn lines_of_dead_agent(&mut self, target: usize, tail: Tail) {
        for node in 0..2 {
            let line = &mut self.targets[target].lines[node];
            line.lose_tail(NODE, tail, &mut self.rng);
            if line.close(AGENT) {
                self.line_under_way(target, node, false);
            }
        }
    }

    /// Both nodes' connections with the agent are reset.
    pub(super) fn break_lines(&mut self, target: usize) {
        for node in 0..2 {
            if self.running(node) && self.targets[target].lines[node].is_up(NODE) {
                self.close_line(target, node);
                let control = self.targets[target].setup.control;
                self.turn(node, Input::Agent(control, Item::Closed));
            }
        }
    }

    // ── the node's end

    pub(super) fn node_hears_agent(&mut self, target: usize, node: NodeIndex) {
        let again = TargetHappening::Line { target, node, to_target: false };
        match self.process(node) {
            _ if !self.are_connected(node, target) => return self.target_soon(RETRY, again),
            Process::Frozen => return self.target_soon(RETRY, again),
            Process::Dead | Process::Off => {
                self.targets[target].lines[node].arrive(NODE);
                return;
            }
            Process::Running => {}
        }
        let control = self.targets[target].setup.control;
        if let Some(item) = self.targets[target].lines[node].arrive(NODE) {
            self.machine(node).busy = true;
            self.turn(node, Input::Agent(control, item));
        }
    }

    pub(crate) fn tell_of_agent(&mut self, node: NodeIndex, control: Endpoint, item: Item) {
        let now = self.clock(node);
        let told = &mut self.machine(node).node;
        match item {
            Item::Opened => told.handle_agent_connected(now, control),
            Item::Closed => told.handle_agent_closed(now, control),
            Item::Message(bytes) => {
                let outcome = told.handle_agent_message(now, control, &bytes);
                if let Err(why) = outcome {
                    let detail = format!("node {node} of the agent at {control}: {why}");
                    self.ledger.violate(Rule::StateConnection, detail);
                }
                if let Ok(message) = Message::decode(&bytes) {
                    self.note_answer(node, &message);
                }
            }
        }
    }

    /// Fetches what the node has to say to agents. False if it died meanwhile.
    pub(crate) fn fetch_for_agents(&mut self, node: NodeIndex) -> bool {
        if self.targets.is_empty() {
            return true;
        }
        while let Some((control, bytes)) = self.machine(node).node.poll_agent_message() {
            let Some(target) = self.targets.iter().position(|t| t.setup.control == control) else {
                continue;
            };
            let Ok(message) = Message::decode(&bytes) else { continue };
            self.trace(|| format!("node {node} => target {target}: {}", brief(&message)));
            self.check_doubt(node, &"a message to an agent");
            self.check_said(node, target, &message);
            let line = &mut self.targets[target].lines[node];
            if line.is_up(NODE) {
                line.send(NODE, bytes);
                self.line_under_way(target, node, true);
            }
            if self.step(node) {
                return false;
            }
        }
        true
    }

    /// The node's process is gone, or its machine.
    pub(crate) fn lines_of_dead_node(&mut self, node: NodeIndex, how: Process, tail: Tail) {
        for target in 0..self.targets.len() {
            self.targets[target].lines[node].lose_tail(AGENT, tail, &mut self.rng);
            // A dead machine says nothing.
            if how == Process::Dead {
                self.close_line(target, node);
            }
        }
    }

    /// A new process: what was left of earlier connections is refused.
    pub(crate) fn lines_of_new_node(&mut self, node: NodeIndex) {
        (0..self.targets.len()).for_each(|target| self.close_line(target, node));
    }

    fn close_line(&mut self, target: usize, node: NodeIndex) {
        if self.targets[target].lines[node].close(NODE) {
            self.line_under_way(target, node, true);
        }
    }
}

/// For a trace.
fn brief(message: &Message) -> String {
    match message {
        Message::Prepare { epoch, id, blob } => {
            format!("Prepare {{ {epoch:?}, {id:?}, {} bytes }}", blob.len())
        }
        other => format!("{other:?}"),
    }
}
