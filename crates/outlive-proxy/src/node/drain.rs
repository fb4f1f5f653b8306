//! Servers that get no new sessions, because an operator said so; those that they have go on.
//!
//! It is the active node that is told, and it tells its standby, so that it still holds after a takeover.

use outlive_tcp::{time::Time, wire::Endpoint};

use super::Node;
use crate::event::LogEvent;

/// Why a server cannot be drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrainRefusal {
    /// Only the active node chooses servers.
    #[error("this node is not the active one: ask the other")]
    NotActive,
    /// There is no such pool.
    #[error("there is no pool of that name")]
    NoSuchPool,
    /// The pool does not have it.
    #[error("the pool has no such server")]
    NoSuchServer,
}

impl Node {
    /// From now on the pool of that name gives the server at `address` no new sessions, or (`drains` is false) gives it
    /// some again. Returns how many sessions the server has, in all pools together.
    ///
    /// # Errors
    /// Why not; nothing was changed.
    pub fn drain(
        &mut self,
        now: Time,
        pool: &str,
        address: Endpoint,
        drains: bool,
    ) -> Result<u32, DrainRefusal> {
        self.turn(now);
        if !self.pair.is_active() {
            return Err(DrainRefusal::NotActive);
        }
        let servers = self.proxy.pools.servers_of(pool);
        if servers.is_empty() {
            return Err(DrainRefusal::NoSuchPool);
        }
        if !servers.contains(&address) {
            return Err(DrainRefusal::NoSuchServer);
        }
        if self.proxy.pools.drain(pool, address, drains) {
            self.link.say_drain(pool, address, drains);
            let (pool, server) = (pool.to_owned(), address);
            self.log(LogEvent::Drains { pool, server, drains });
        }
        Ok(self.proxy.pools.sessions_of(address))
    }
}
