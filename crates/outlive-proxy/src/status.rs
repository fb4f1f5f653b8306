//! A node as an operator sees it.

use std::time::Duration;

use outlive_tcp::{time::Time, wire::Endpoint};

use crate::{
    config::NodeId,
    counters::{Counter, Counters},
    node::HandoverProgress,
    pair::{
        Epoch, Pair,
        heartbeat::{Beliefs, Role},
    },
    proxy::Proxy,
    survey::Survey,
};

/// Everything there is to tell.
#[derive(Clone, Debug)]
pub struct Status {
    /// Which node this is.
    pub node: NodeId,
    /// What it is.
    pub role: Role,
    /// Its epoch.
    pub epoch: Epoch,
    /// Standby: it holds every session of the active node. Active: its standby does.
    pub synchronised: bool,
    /// It stood still, and asks its peer before it goes on.
    pub unsure: bool,
    /// Whether there is meant to be a peer.
    pub has_peer: bool,
    /// What the peer says of itself, if it is alive.
    pub peer: Option<Beliefs>,
    /// How long nothing has been heard, by heartbeat path.
    pub silence: Vec<Duration>,
    /// The state connection is there.
    pub state_connected: bool,
    /// How far a planned handover has come.
    pub handover: HandoverProgress,
    /// [Fingerprint](crate::config::Config::fingerprint) of the configuration.
    pub configuration: u64,
    /// That of the peer's, if it has said so.
    pub peer_configuration: Option<u64>,
    /// Bytes of changes that wait to be sent to the standby.
    pub backlog: usize,
    /// Sessions that wait for the standby's confirmation.
    pub unconfirmed: usize,
    /// For how long the first of them has been waiting.
    pub waiting: Option<Duration>,
    /// Sessions, by what they are.
    pub sessions: SessionCensus,
    /// Connections that live at migration targets, or are about to.
    pub migrated: usize,
    /// The agents of targets that connections can be migrated to: they have been heard, and so have packets through the tunnels.
    pub ready_agents: Vec<Endpoint>,
    /// Open ones whose packets the fast path translates.
    pub delegated: usize,
    /// Connections that are being opened.
    pub openings: usize,
    /// Every listener.
    pub listeners: Vec<ListenerStatus>,
    /// Every server.
    pub servers: Vec<ServerStatus>,
    /// Every counter.
    pub counters: Counters,
}

/// Sessions by what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionCensus {
    /// The handshake is not complete on both sides.
    pub establishing: usize,
    /// Data flows.
    pub open: usize,
    /// Closed, and kept for late segments.
    pub over: usize,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerStatus {
    /// Its name in the configuration; several have the same one if they were one with several addresses.
    pub name: String,
    /// Where clients connect to.
    pub address: Endpoint,
    /// Sessions that are not over.
    pub sessions: usize,
    /// Sessions that were established here since this node began.
    pub opened: u64,
}

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    /// Where it listens.
    pub address: Endpoint,
    /// Sessions with it, and attempts.
    pub sessions: u32,
    /// It has not failed lately.
    pub up: bool,
    /// It gets no new sessions of some pool, because an operator said so.
    pub draining: bool,
    /// Connections that it accepted from this node.
    pub answered: u64,
    /// Connections that it refused, or did not answer.
    pub failed: u64,
}

/// Whether a failure of the active node now would be survived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// Every session would go on.
    Yes,
    /// There is no peer in the configuration.
    NoPeer,
    /// The peer is not heard.
    PeerGone,
    /// The nodes do not talk on the state connection.
    NotConnected,
    /// The standby is being told of the sessions.
    Synchronising,
}

impl Status {
    pub(crate) fn of(
        proxy: &Proxy,
        pair: &Pair,
        state_connected: bool,
        survey: &Survey,
        now: Time,
    ) -> Self {
        let beliefs = pair.beliefs();
        let mut counters = proxy.counters.clone();
        counters.add(Counter::Made, proxy.outbox.made());
        Status {
            node: proxy.config.node,
            role: beliefs.role,
            epoch: beliefs.epoch,
            synchronised: beliefs.synchronised,
            unsure: pair.is_unsure(),
            has_peer: proxy.config.pair.enabled,
            peer: pair.watch().alive(now),
            silence: pair.watch().silence(now),
            state_connected,
            handover: HandoverProgress::None,
            configuration: 0,
            peer_configuration: None,
            backlog: proxy.journal.backlog(),
            unconfirmed: proxy.unconfirmed(),
            waiting: proxy.waiting_since().map(|since| now.since(since)),
            sessions: survey.census,
            migrated: proxy.migrations.len(),
            ready_agents: proxy.ready_agents(),
            delegated: proxy.delegated(),
            openings: proxy.openings.len(),
            listeners: (proxy.config.listeners.iter())
                .map(|listener| ListenerStatus {
                    name: listener.name.clone(),
                    address: listener.address,
                    sessions: proxy
                        .listener_at(listener.address)
                        .map_or(0, |number| survey.of_listener(number)),
                    opened: proxy.opened.get(&listener.address).copied().unwrap_or(0),
                })
                .collect(),
            servers: proxy.pools.servers(now).collect(),
            counters,
        }
    }

    /// Whether a failure now would be survived, and if not, why.
    pub fn survival(&self) -> Survival {
        let Some(peer) = self.peer else {
            return if self.has_peer { Survival::PeerGone } else { Survival::NoPeer };
        };
        // A standby that was started anew says so before the old connection is known to be gone.
        let standby = peer.role == Role::Standby && peer.synchronised;
        let agrees = if self.role == Role::Active { standby } else { peer.role == Role::Active };
        match (self.state_connected, self.synchronised && agrees) {
            (false, _) => Survival::NotConnected,
            (_, false) => Survival::Synchronising,
            _ => Survival::Yes,
        }
    }
}
