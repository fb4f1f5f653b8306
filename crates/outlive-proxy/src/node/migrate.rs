//! The agents of migration targets: what the shell carries to and from them.
//!
//! Both nodes keep a connection with each agent, so that one that takes over can go on at once. As everything else, what there is to
//! say is fetched after any input.

use outlive_tcp::{time::Time, wire::Endpoint};

use super::Node;
use crate::migration::AgentError;

impl Node {
    /// Whether there has to be a connection with the agent at `control`: it is configured, or connections live there, or are on their
    /// way.
    pub fn needs_agent(&self, control: Endpoint) -> bool {
        self.proxy.needs_agent(control)
    }

    /// There will be no connection with the agent at `control` any more.
    pub fn forget_agent(&mut self, now: Time, control: Endpoint) {
        self.turn(now);
        self.proxy.agent_closed(now, control);
        self.proxy.forget_agent(control);
    }

    /// There is a connection with the agent at `control` (again), empty in both directions.
    pub fn handle_agent_connected(&mut self, now: Time, control: Endpoint) {
        self.turn(now);
        self.proxy.agent_connected(control);
    }

    /// It is gone. What had arrived on it must have been handed over before.
    pub fn handle_agent_closed(&mut self, now: Time, control: Endpoint) {
        self.turn(now);
        self.proxy.agent_closed(now, control);
    }

    /// A message of an agent.
    ///
    /// # Errors
    /// It cannot be obeyed; close the connection.
    pub fn handle_agent_message(
        &mut self,
        now: Time,
        control: Endpoint,
        message: &[u8],
    ) -> Result<(), AgentError> {
        self.turn(now);
        self.proxy.agent_message(now, control, message)
    }

    /// The next message for an agent, and where that listens. None while the node is not sure that it still may act
    /// (invariant 7).
    pub fn poll_agent_message(&mut self) -> Option<(Endpoint, Vec<u8>)> {
        if self.proxy.posture.unsure {
            return None;
        }
        self.proxy.poll_agent_message()
    }

    /// Connections that live at targets, or are about to.
    pub fn migrated(&self) -> usize {
        self.proxy.migrations.len()
    }
}
