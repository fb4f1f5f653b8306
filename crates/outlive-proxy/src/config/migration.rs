//! Where connections are migrated to.

use std::net::IpAddr;

use outlive_tcp::wire::{Endpoint, IpVersion};

use super::{Config, Invalid};

/// What a node has to know of migrations. By default there are none.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Migration {
    /// This node's addresses in the tunnel, at most one of each IP version. They are routed to its device, whichever node is active, and are
    /// no host's own.
    pub tunnel: Vec<IpAddr>,
    /// Servers that connections can be migrated to.
    pub agents: Vec<Agent>,
}

/// A server's agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// The server, as pools name it.
    pub server: Endpoint,
    /// Where its agent listens for the nodes. Several servers of a machine share one.
    pub control: Endpoint,
    /// The agent's addresses in the tunnel, at most one of each IP version.
    pub tunnel: Vec<IpAddr>,
}

impl Agent {
    /// The address in the tunnel of that IP version.
    pub(crate) fn tunnel_of(&self, version: IpVersion) -> Option<IpAddr> {
        of_version(&self.tunnel, version)
    }
}

impl Migration {
    /// This node's address in the tunnel of that IP version.
    pub(crate) fn tunnel_of(&self, version: IpVersion) -> Option<IpAddr> {
        of_version(&self.tunnel, version)
    }

    /// The agent of a server.
    pub(crate) fn agent_of(&self, server: Endpoint) -> Option<&Agent> {
        self.agents.iter().find(|agent| agent.server == server)
    }

    pub(super) fn validate(&self, config: &Config) -> Result<(), Invalid> {
        let once = |addresses: &[IpAddr]| {
            let v4 = addresses.iter().filter(|address| address.is_ipv4()).count();
            v4 <= 1 && addresses.len() - v4 <= 1
        };
        if !once(&self.tunnel) || !self.agents.iter().all(|agent| once(&agent.tunnel)) {
            return Err(Invalid::OutOfRange("at most one tunnel address of each IP version"));
        }
        let taken = config.virtual_addresses();
        if let Some(address) = self.tunnel.iter().find(|address| taken.contains(address)) {
            return Err(Invalid::TunnelAddressTaken(*address));
        }
        for agent in &self.agents {
            let version = IpVersion::of(agent.server.addr);
            if agent.tunnel_of(version).is_none() || self.tunnel_of(version).is_none() {
                return Err(Invalid::NoTunnelAddress(agent.server));
            }
        }
        // On the machine of an agent the virtual addresses are its own: it would not answer packets from them.
        let is_virtual =
            |address: &IpAddr| config.listeners.iter().any(|l| l.address.addr == *address);
        for agent in &self.agents {
            let same = |address: &&IpAddr| address.is_ipv4() == agent.server.addr.is_ipv4();
            let mut sources = config.source_addresses.iter().filter(same);
            if sources.any(is_virtual) {
                return Err(Invalid::SourceIsVirtual(agent.server));
            }
        }
        for listener in &config.listeners {
            for route in listener.routes.iter().filter(|route| route.migrate) {
                let pool = config.pool(route.pool);
                let agents = |pool: &super::Pool| {
                    pool.servers.iter().any(|server| self.agent_of(server.address).is_some())
                };
                if !pool.is_some_and(agents) {
                    return Err(Invalid::NoAgent(listener.name.clone()));
                }
                if pool.is_some_and(|pool| pool.proxy_protocol.is_some()) {
                    return Err(Invalid::HeaderOnMigration(listener.name.clone()));
                }
            }
        }
        Ok(())
    }
}

fn of_version(addresses: &[IpAddr], version: IpVersion) -> Option<IpAddr> {
    addresses.iter().copied().find(|address| IpVersion::of(*address) == version)
}
