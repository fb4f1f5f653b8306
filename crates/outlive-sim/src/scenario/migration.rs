//! Scenarios in which connections are migrated.

use std::{net::IpAddr, time::Duration};

use outlive_proxy::config::{Agent, Migration, NodeId, OpeningMode, PoolId, Route, Termination};
use outlive_tcp::wire::Endpoint;

use super::Scenario;
use crate::{
    host::Service,
    setup::Fault,
    stack::StackSetup,
    targets::{TargetFault, TargetSetup},
};

const CONTROL_PORT: u16 = 7_400;

/// How connections are moved.
#[derive(Clone, Debug)]
pub(super) struct Moves {
    /// The pool whose servers have agents.
    pool: usize,
    /// Connections outlive the agents.
    keeps: bool,
    stack: StackSetup,
    /// Pairs of deaths are tried.
    pairs: bool,
}

impl Scenario {
    /// One more pool, whose servers have agents, and a route that migrates connections there. `servers` says which of them
    /// accept connections that are not migrated.
    #[must_use]
    pub fn migrate(mut self, route: Route, servers: &[bool]) -> Self {
        self.pools.push(servers.to_vec());
        let pool = self.pools.len() - 1;
        self.routes.push(Route { pool: PoolId(pool as u16), migrate: true, ..route });
        self.migration =
            Some(Moves { pool, keeps: false, stack: StackSetup::default(), pairs: false });
        self
    }

    /// Whether its connections can be migrated.
    pub(crate) fn can_migrate(&self) -> bool {
        let inspects = matches!(self.opening, OpeningMode::Inspect { .. });
        inspects && self.termination == Termination::Splice && self.proxy_protocol.is_none()
    }

    /// Migrated connections outlive the targets' agents, as in a kernel.
    #[must_use]
    pub fn kept(mut self) -> Self {
        self.migration.iter_mut().for_each(|moves| moves.keeps = true);
        self
    }

    /// Of migrations, too, every pair of deaths is tried.
    #[must_use]
    pub fn pairs(mut self) -> Self {
        self.migration.iter_mut().for_each(|moves| moves.pairs = true);
        self
    }

    /// Whether pairs of deaths are tried, if the scenario is short.
    pub(crate) fn dies_twice(&self) -> bool {
        self.migration.as_ref().is_none_or(|moves| moves.pairs)
    }

    /// The TCP of the targets.
    #[must_use]
    pub fn target_stack(mut self, stack: StackSetup) -> Self {
        self.migration.iter_mut().for_each(|moves| moves.stack = stack);
        self
    }

    /// Something befalls a migration so long after the beginning of the load.
    #[must_use]
    pub fn target_fault(self, at: Duration, fault: TargetFault) -> Self {
        self.fault(at, Fault::Target(fault))
    }

    /// How many targets there are.
    pub fn target_count(&self) -> usize {
        self.migration.as_ref().map_or(0, |moves| self.pools[moves.pool].len())
    }

    /// Until a target, or a server, that does not answer is given up.
    pub(super) fn connect_timeout(&self) -> Duration {
        Duration::from_secs(if self.migration.is_some() { 2 } else { 20 })
    }

    fn tunnel_of(&self, node: NodeId) -> IpAddr {
        self.address(8, if node == NodeId::A { 1 } else { 2 })
    }

    fn agent(&self, moves: &Moves, server: usize) -> Agent {
        let address = self.server_address(moves.pool, server);
        Agent {
            server: address,
            control: Endpoint::new(address.addr, CONTROL_PORT),
            tunnel: vec![self.address(8, 10 + server as u8)],
        }
    }

    pub(super) fn migration_of(&self, node: NodeId) -> Migration {
        let Some(moves) = &self.migration else { return Migration::default() };
        let agents = (0..self.target_count()).map(|server| self.agent(moves, server));
        Migration { tunnel: vec![self.tunnel_of(node)], agents: agents.collect() }
    }

    pub(super) fn targets(&self) -> Vec<TargetSetup> {
        let Some(moves) = &self.migration else { return Vec::new() };
        let target = |server| {
            let Agent { control, tunnel, .. } = self.agent(moves, server);
            let listener = self.virtual_address();
            TargetSetup {
                control,
                tunnel,
                balancers: [NodeId::A, NodeId::B].map(|node| self.tunnel_of(node)).to_vec(),
                address: listener.addr,
                stack: moves.stack,
                service: Service {
                    port: listener.port,
                    script: self.script.clone(),
                    pace: self.server_pace,
                    prefix: 0,
                },
                keeps: moves.keeps,
            }
        };
        (0..self.target_count()).map(target).collect()
    }
}
