//! The connections that are here: by migration, by flow, and by the ends that a replayed server knows.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
};

use outlive_migration::{flow::FlowId, id::MigrationId, message::HowEnded};
use outlive_net::repair::Mute;
use outlive_tcp::{time::Time, wire::FourTuple};

use crate::replay::Replay;

/// A connection that is here.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) flow: FlowId,
    /// The ends of the client's packets.
    pub(super) ends: FourTuple,
    pub(super) kind: Kind,
    /// A packet of the client came last.
    pub(super) heard: Time,
    /// How it has ended; its packets are still led to it until its deadline.
    pub(super) ended: Option<HowEnded>,
    /// When it is to be looked at.
    deadline: Time,
}

/// Where it is.
#[derive(Debug)]
pub(super) enum Kind {
    /// In the kernel, not to be disturbed.
    Mute {
        mute: Mute,
        /// Where its server is.
        socket: PathBuf,
    },
    /// In the kernel, and a server's.
    Kernel,
    /// In front of a local server.
    Replay {
        replay: Box<Replay>,
        /// Until its server has answered: SYNs that were sent.
        attempts: u32,
    },
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Connections {
    connections: HashMap<MigrationId, Connection>,
    by_flow: HashMap<FlowId, MigrationId>,
    by_ends: HashMap<FourTuple, MigrationId>,
    /// As packets to a replayed server have them.
    by_inner: HashMap<FourTuple, MigrationId>,
    deadlines: BTreeSet<(Time, MigrationId)>,
}

impl Connections {
    /// Whether no connection has these ends or, in front of a server, those.
    pub(super) fn is_free(&self, ends: &FourTuple, inner: Option<&FourTuple>) -> bool {
        !self.by_ends.contains_key(ends)
            && inner.is_none_or(|inner| !self.by_inner.contains_key(inner))
    }

    /// Enters a connection that is to be looked at at `deadline`.
    pub(super) fn insert(
        &mut self,
        id: MigrationId,
        flow: FlowId,
        ends: FourTuple,
        kind: Kind,
        now: Time,
        deadline: Time,
    ) {
        if let Kind::Replay { replay, .. } = &kind {
            self.by_inner.insert(replay.inner(), id);
        }
        self.by_flow.insert(flow, id);
        self.by_ends.insert(ends, id);
        self.deadlines.insert((deadline, id));
        let connection = Connection { flow, ends, kind, heard: now, ended: None, deadline };
        self.connections.insert(id, connection);
    }

    pub(super) fn remove(&mut self, id: MigrationId) -> Option<Connection> {
        let connection = self.connections.remove(&id)?;
        self.deadlines.remove(&(connection.deadline, id));
        self.by_flow.remove(&connection.flow);
        self.by_ends.remove(&connection.ends);
        if let Kind::Replay { replay, .. } = &connection.kind {
            self.by_inner.remove(&replay.inner());
        }
        Some(connection)
    }

    pub(super) fn get_mut(&mut self, id: MigrationId) -> Option<&mut Connection> {
        self.connections.get_mut(&id)
    }

    pub(super) fn of_flow(&mut self, flow: FlowId) -> Option<(MigrationId, &mut Connection)> {
        let id = *self.by_flow.get(&flow)?;
        Some((id, self.connections.get_mut(&id)?))
    }

    pub(super) fn of_ends(&self, ends: &FourTuple) -> Option<MigrationId> {
        self.by_ends.get(ends).copied()
    }

    /// `inner`: as packets to the server have them.
    pub(super) fn of_inner(&mut self, inner: &FourTuple) -> Option<(MigrationId, &mut Connection)> {
        let id = *self.by_inner.get(inner)?;
        Some((id, self.connections.get_mut(&id)?))
    }

    /// Has it looked at then, instead of when it was to be.
    pub(super) fn look_at(&mut self, id: MigrationId, deadline: Time) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        self.deadlines.remove(&(connection.deadline, id));
        connection.deadline = deadline;
        self.deadlines.insert((deadline, id));
    }

    /// When the next is to be looked at.
    pub(super) fn next(&self) -> Option<Time> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// One whose time has come. It is to be removed, or given another deadline.
    pub(super) fn due(&self, now: Time) -> Option<MigrationId> {
        self.deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, id)| *id)
    }

    /// Those in front of a server that knows nothing of them.
    pub(super) fn replayed(&self) -> Vec<MigrationId> {
        let replayed = |it: &Connection| matches!(it.kind, Kind::Replay { .. });
        self.connections.iter().filter(|(_, it)| replayed(it)).map(|(id, _)| *id).collect()
    }

    /// Those that are in the kernel and a server's.
    pub(super) fn in_kernel(&self) -> Vec<(MigrationId, FourTuple)> {
        self.connections
            .iter()
            .filter(|(_, it)| matches!(it.kind, Kind::Kernel) && it.ended.is_none())
            .map(|(id, it)| (*id, it.ends))
            .collect()
    }
}
