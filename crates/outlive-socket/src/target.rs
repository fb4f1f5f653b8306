//! The target of migrations: connections that a balancer has begun come here, into this process.
//!
//! It is `outlive host` without a host: the same channel, the same state machine, the same tunnel; but
//! where that agent puts a connection into the kernel, this one puts it into the stack.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use mio::{Registry, event::Event as Ready};
use outlive_host::channel::Channels;
use outlive_migration::{
    blob::Blob,
    flow::FlowId,
    id::MigrationId,
    message::{HowEnded, Refusal},
    target::{Action, Limits, Target},
    tunnel::Mappings,
};
use outlive_stack::{Arriving, Closed, ConnectionId, NotAdmitted, Stack};
use outlive_tcp::{
    time::Time,
    wire::{Kind, Offload, TcpPacket, addresses, classify},
};
use tracing::debug;

use crate::{config::MigrationConfig, error::StartError};

/// Migrations that are over and are remembered.
const REMEMBERED: usize = 65_536;

pub(crate) struct MigrationTarget {
    target: Target,
    channels: Channels,
    mappings: Mappings,
    tunnel: Vec<IpAddr>,
    /// What has come, and its flow.
    here: HashMap<MigrationId, (ConnectionId, FlowId)>,
    by_id: HashMap<ConnectionId, MigrationId>,
    first_token: usize,
    error: Vec<u8>,
}

impl MigrationTarget {
    pub(crate) fn start(
        config: &MigrationConfig,
        connections: usize,
        registry: &Registry,
        first_token: usize,
    ) -> Result<Self, StartError> {
        let incarnation =
            getrandom::u64().map_err(|error| StartError::System(std::io::Error::other(error)))?;
        let (listen, psk) = (config.listen, config.key.psk());
        let channels =
            Channels::listen(listen, &config.nodes, incarnation, psk, registry, first_token)
                .map_err(StartError::Migration)?;
        let limits = Limits { connections, remembered: REMEMBERED, patience: config.patience };
        let nodes = config.tunnel_nodes.iter().copied();
        Ok(MigrationTarget {
            // What is in this process ends with it.
            target: Target::new(limits, incarnation, false),
            channels,
            mappings: Mappings::new(nodes, config.tunnel.iter().copied(), connections),
            tunnel: config.tunnel.clone(),
            here: HashMap::new(),
            by_id: HashMap::new(),
            first_token,
            error: Vec::new(),
        })
    }

    /// Whether the event is one of the channels'.
    pub(crate) fn handle_ready(&mut self, event: &Ready) -> bool {
        let own = event.token().0 >= self.first_token;
        if own {
            // An error shows when reading.
            let failed = event.is_error() || event.is_read_closed();
            let readable = event.is_readable() || failed;
            self.channels.handle_ready(event.token(), readable, event.is_writable());
        }
        own
    }

    /// Does what the balancers ask for.
    pub(crate) fn turn(&mut self, now: Time, registry: &Registry, stack: &mut Stack) {
        let MigrationTarget { channels, target, .. } = self;
        let hello = target.hello();
        channels.turn(
            now,
            registry,
            || hello.clone(),
            |from, message| target.handle(now, from, message),
        );
        target.expire(now);
        self.perform(now, stack);
    }

    /// Says what there is to say.
    pub(crate) fn flush(&mut self, now: Time, registry: &Registry, stack: &mut Stack) {
        self.perform(now, stack);
        self.channels.flush(now, registry);
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let deadlines = [self.target.next_deadline(), self.channels.next_deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// Takes no new connections from now on, or does again.
    pub(crate) fn drain(&mut self, draining: bool) {
        self.target.drain(draining);
    }

    fn perform(&mut self, now: Time, stack: &mut Stack) {
        while let Some(action) = self.target.poll_action() {
            match action {
                Action::Send(to, message) => self.channels.send(to, &message),
                Action::Infuse { id, blob } => {
                    let result = self.infuse(now, id, &blob, stack);
                    debug!(%blob.ends, ?result, "a connection comes");
                    self.target.infused(now, id, result);
                }
                // No connection of an earlier process lives.
                Action::Adopt { id, .. } => self.target.adopted(id, false),
                Action::Speak { id } => {
                    let conn = self.here.get(&id).map(|(conn, _)| *conn);
                    if !conn.is_some_and(|conn| stack.speak(now, conn)) {
                        self.forget(id);
                        self.target.ended(id, HowEnded::Lost);
                    }
                }
                Action::Remove { id } => {
                    if let Some(conn) = self.forget(id) {
                        stack.dismiss(conn);
                    }
                }
            }
        }
    }

    fn infuse(
        &mut self,
        now: Time,
        id: MigrationId,
        blob: &Blob,
        stack: &mut Stack,
    ) -> Result<(), Refusal> {
        if !self.tunnel.contains(&blob.mapping.tunnel) {
            return Err(Refusal::NotHere);
        }
        let tcp =
            blob.infuse(now, Duration::ZERO, stack.tcp_config()).map_err(|_| Refusal::BadBlob)?;
        let state = &blob.tcp;
        let arriving = Arriving {
            tcp,
            irs: state.irs,
            acknowledged: state.rcv_acked.distance(state.irs + 1).into(),
            written: state.snd_nxt.distance(state.iss + 1).into(),
        };
        let flow = blob.mapping.flow;
        if !self.mappings.insert(flow, blob.ends) {
            return Err(Refusal::FlowTaken);
        }
        match stack.admit(arriving) {
            Ok(conn) => {
                self.here.insert(id, (conn, flow));
                self.by_id.insert(conn, id);
                Ok(())
            }
            Err(error) => {
                self.mappings.remove(flow);
                Err(match error {
                    NotAdmitted::NobodyListens => Refusal::NotHere,
                    NotAdmitted::Taken => Refusal::ConnectionTaken,
                    NotAdmitted::Full => Refusal::Full,
                })
            }
        }
    }

    fn forget(&mut self, id: MigrationId) -> Option<ConnectionId> {
        let (conn, flow) = self.here.remove(&id)?;
        self.mappings.remove(flow);
        self.by_id.remove(&conn);
        Some(conn)
    }

    /// A connection that has come here is over.
    pub(crate) fn over(&mut self, conn: ConnectionId, closed: Closed) {
        let Some(id) = self.by_id.get(&conn).copied() else { return };
        self.forget(id);
        let how = match closed {
            Closed::Finished => HowEnded::Closed,
            Closed::PeerSilent => HowEnded::Idle,
            _ => HowEnded::Reset,
        };
        self.target.ended(id, how);
    }

    /// The process ends, and the connections with it: their balancers are told.
    pub(crate) fn give_up(&mut self, now: Time, registry: &Registry, stack: &mut Stack) {
        for id in self.here.keys().copied().collect::<Vec<_>>() {
            self.forget(id);
            self.target.ended(id, HowEnded::Lost);
        }
        self.flush(now, registry, stack);
    }

    /// A packet out of the device. If it has come through the tunnel, it is the client's again when the stack gets it.
    pub(crate) fn packet(
        &mut self,
        now: Time,
        packet: &mut [u8],
        offload: Offload,
        stack: &mut Stack,
    ) {
        let tunnelled =
            addresses(packet).is_ok_and(|(_, destination)| self.tunnel.contains(&destination));
        if !tunnelled {
            return stack.handle_packet(now, packet, offload);
        }
        match classify(packet) {
            Ok(Kind::Tcp) => {
                let len = packet.len();
                let Ok(mut segment) = TcpPacket::parse(packet, 0, len, offload) else { return };
                let Ok(flow) = self.mappings.flow_of(&segment) else { return };
                let size = u16::try_from(len).unwrap_or(u16::MAX);
                if self.mappings.get(flow).is_none() {
                    self.target.probe_arrived(flow, size);
                    return;
                }
                if self.mappings.leave(&mut segment).is_ok() {
                    let (range, offload) = (segment.range(), segment.offload());
                    stack.handle_packet(now, &mut packet[range], offload);
                }
            }
            // About a packet that was sent to a client.
            Ok(Kind::Icmp) => {
                self.error.clear();
                if self.mappings.leave_error(packet, &mut self.error).is_ok() {
                    stack.handle_packet(now, &mut self.error, Offload::default());
                }
            }
            _ => {}
        }
    }
}
