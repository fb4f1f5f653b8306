//! Doing what the target wants done.

use std::time::Duration;

use outlive_migration::{
    blob::Blob,
    flow::FlowId,
    id::MigrationId,
    message::{HowEnded, Refusal},
    target::Action,
};
use outlive_net::diag;
use outlive_tcp::wire::FourTuple;

use super::{
    Agent,
    connections::{Connection, Kind},
};
use crate::{
    kernel::{self, ends_of},
    replay::Replay,
    settings::Taker,
};

/// Until a SYN to a local server is repeated; doubled each time.
pub(super) const SYN_INTERVAL: Duration = Duration::from_millis(100);

impl Agent {
    pub(super) fn perform(&mut self) {
        while let Some(action) = self.target.poll_action() {
            match action {
                Action::Send(to, message) => self.channels.send(to, &message),
                Action::Infuse { id, blob } => {
                    if let Err(reason) = self.infuse(id, *blob) {
                        self.target.infused(self.clock.now(), id, Err(reason));
                    }
                }
                Action::Adopt { id, flow, ends } => {
                    let lives = self.adopt(id, flow, ends);
                    self.target.adopted(id, lives);
                }
                Action::Speak { id } => self.speak(id),
                Action::Remove { id } => {
                    self.remove(id);
                }
            }
        }
    }

    fn taker(&self, ends: &FourTuple) -> Option<&Taker> {
        let address = ends.destination.into();
        let service = self.settings.services.iter().find(|it| it.address == address)?;
        Some(&service.taker)
    }

    /// Begins, and tells the target if it is done at once.
    fn infuse(&mut self, id: MigrationId, blob: Blob) -> Result<(), Refusal> {
        let now = self.clock.now();
        let (flow, ends) = (blob.mapping.flow, blob.ends);
        let taker = self.taker(&ends).cloned().ok_or(Refusal::NotHere)?;
        if !self.settings.tunnel.contains(&blob.mapping.tunnel) {
            return Err(Refusal::NotHere);
        }
        let kind = match taker {
            Taker::Kernel { socket } => {
                // What has just ended may still be led here: a new connection of the same ends comes first.
                self.forget_ended(&ends);
                if !self.connections.is_free(&ends, None) {
                    return Err(Refusal::ConnectionTaken);
                }
                let mute = kernel::prepare(&blob, &socket)?;
                Kind::Mute { mute, socket }
            }
            Taker::Replay { port } => {
                self.forget_ended(&ends);
                let replay = Replay::new(blob, port);
                if !self.connections.is_free(&ends, Some(&replay.inner())) {
                    return Err(Refusal::ConnectionTaken);
                }
                Kind::Replay { replay: Box::new(replay), attempts: 0 }
            }
        };
        // The mapping goes below the stack before anything of the connection can come.
        if !self.mappings.insert(flow, ends) {
            return Err(Refusal::FlowTaken);
        }
        let is_replayed = matches!(kind, Kind::Replay { .. });
        let deadline = if is_replayed { now } else { now + self.settings.idle_timeout };
        self.connections.insert(id, flow, ends, kind, now, deadline);
        if is_replayed {
            // Sends the SYN; the answer tells the result.
            self.handle_deadlines(now);
        } else {
            self.target.infused(now, id, Ok(()));
        }
        Ok(())
    }

    /// A connection in the kernel that an agent before this one has infused.
    fn adopt(&mut self, id: MigrationId, flow: FlowId, ends: FourTuple) -> bool {
        let is_kernel = matches!(self.taker(&ends), Some(Taker::Kernel { .. }));
        let lives = is_kernel && diag::lives(&ends_of(ends)).unwrap_or(false);
        if !lives || !self.connections.is_free(&ends, None) || !self.mappings.insert(flow, ends) {
            return false;
        }
        let now = self.clock.now();
        let deadline = now + self.settings.idle_timeout;
        self.connections.insert(id, flow, ends, Kind::Kernel, now, deadline);
        true
    }

    fn speak(&mut self, id: MigrationId) {
        let now = self.clock.now();
        let Some(connection) = self.connections.get_mut(id) else {
            return self.target.ended(id, HowEnded::Lost);
        };
        connection.heard = now;
        let ends = connection.ends;
        let spoken = match &mut connection.kind {
            Kind::Replay { replay, .. } => {
                let speaks = replay.speak(now);
                let packets = replay.introduction();
                packets.iter().for_each(|packet| self.packets.transmit(&self.edge.tun, packet));
                speaks
            }
            Kind::Mute { .. } => match std::mem::replace(&mut connection.kind, Kind::Kernel) {
                Kind::Mute { mute, socket } => {
                    self.hand_overs.begin(id, mute, ends, &socket).is_ok()
                }
                Kind::Kernel | Kind::Replay { .. } => false,
            },
            Kind::Kernel => true,
        };
        if spoken {
            self.connections.look_at(id, now + self.settings.idle_timeout);
        } else {
            self.remove(id);
            self.target.ended(id, HowEnded::Lost);
        }
    }

    /// Removes a connection and its mapping, silently but for the local server of one that is replayed.
    pub(super) fn remove(&mut self, id: MigrationId) -> Option<Connection> {
        let connection = self.connections.remove(id)?;
        self.mappings.remove(connection.flow);
        if let Kind::Replay { replay, .. } = &connection.kind
            && connection.ended.is_none()
        {
            let mut reset = Vec::new();
            replay.reset(&mut reset);
            self.packets.transmit(&self.edge.tun, &reset);
        }
        Some(connection)
    }

    /// A connection is over. What is repeated of its end is still led to it for a while.
    pub(super) fn end(&mut self, id: MigrationId, how: HowEnded) {
        let deadline = self.clock.now() + self.settings.linger;
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.ended.is_none() {
            connection.ended = Some(how);
            self.connections.look_at(id, deadline);
        }
    }

    /// Tells the end of one that has ended and lingers, if these are its ends.
    fn forget_ended(&mut self, ends: &FourTuple) {
        let Some(id) = self.connections.of_ends(ends) else { return };
        let how = self.connections.get_mut(id).and_then(|connection| connection.ended);
        if let Some(how) = how {
            self.remove(id);
            self.target.ended(id, how);
        }
    }
}
