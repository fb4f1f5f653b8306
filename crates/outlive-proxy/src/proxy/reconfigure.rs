//! Another configuration for a running node, and what of the old one lives on for its sessions.
//!
//! Listeners, pools and servers keep their places for the life of the process: a session, an opening or a route refers
//! to them by number. What is not configured any more gets no new connections; whoever is there stays until the
//! end. The addresses of such sessions go on being this node's ("retired") until the last of them is gone.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use outlive_tcp::time::Time;

use super::Proxy;
use crate::{
    config::{Config, Listener},
    flows::Side,
};

/// Sessions looked at in one go for one that needs a retired address, and the pause between two.
const BATCH: usize = 4_096;
const PAUSE: Duration = Duration::from_millis(20);
/// The pause after all were looked at.
const ROUND: Duration = Duration::from_secs(1);

/// Listeners that there are, or were.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    places: Vec<Listener>,
}

impl Listeners {
    pub(super) fn get(&self, index: u16) -> Option<&Listener> {
        self.places.get(usize::from(index))
    }

    /// Enters a listener in the place of its address, or in a new one; `None` if there is none left.
    fn enter(&mut self, listener: Listener) -> Option<u16> {
        let known = self.places.iter().position(|old| old.address == listener.address);
        let index = known.unwrap_or(self.places.len());
        // The last number stands for no listener.
        let number = u16::try_from(index).ok().filter(|number| *number < u16::MAX)?;
        match self.places.get_mut(index) {
            Some(place) => *place = listener,
            None => self.places.push(listener),
        }
        Some(number)
    }
}

/// Addresses that are not configured any more, and which of them are still needed.
#[derive(Debug, Default)]
pub(super) struct Retired {
    addresses: BTreeSet<IpAddr>,
    /// Those that a session was found to need in this round.
    needed: BTreeSet<IpAddr>,
    /// The next session to look at, and when.
    next: Option<(usize, Time)>,
}

impl Retired {
    pub(super) fn deadline(&self) -> Option<Time> {
        self.next.map(|(_, at)| at)
    }
}

impl Proxy {
    /// Whether everything in `config` could be given a number, even if all of it were new.
    pub(crate) fn has_places_for(&self, config: &Config) -> bool {
        let limit = usize::from(u16::MAX);
        self.places.places.len() + config.listeners.len() < limit
            && self.pools.has_places_for(config)
    }

    /// Obeys `config` from now on, which [`Config::validate`] accepts and which belongs to the same node, with the same
    /// peer and the same MTU.
    pub(crate) fn reconfigure(&mut self, now: Time, config: Config) {
        let pools = self.pools.reconfigure(&config);
        self.listeners.clear();
        for listener in &config.listeners {
            let mut listener = listener.clone();
            for route in &mut listener.routes {
                route.pool = pools[usize::from(route.pool.0)];
            }
            listener.default_pool = listener.default_pool.map(|id| pools[usize::from(id.0)]);
            let address = listener.address;
            if let Some(index) = self.places.enter(listener) {
                self.listeners.insert(address, index);
            }
        }
        self.sessions.limit_to(config.limits.sessions);
        self.terminated.limit_to(&config.limits);
        self.openings.limit_to(&config.limits);
        self.ports.take_from(config.source_addresses.clone());
        self.retire(now, &config);
        self.config = config;
        self.probe_new_tunnels(now);
    }

    fn retire(&mut self, now: Time, config: &Config) {
        let present: BTreeSet<IpAddr> = config.virtual_addresses().into_iter().collect();
        let before = std::mem::take(&mut self.addresses).into_iter();
        self.retired.addresses = before.filter(|address| !present.contains(address)).collect();
        self.retired.needed.clear();
        self.retired.next = (!self.retired.addresses.is_empty()).then_some((0, now));
        self.addresses = present.union(&self.retired.addresses).copied().collect();
    }

    /// Looks for sessions that need retired addresses; those that none needs are given up. Returns whether some were.
    pub(crate) fn expire_retired(&mut self, now: Time) -> bool {
        let Some((mut slot, _)) = self.retired.next.take_if(|(_, at)| *at <= now) else {
            return false;
        };
        for _ in 0..BATCH {
            let Some((found, session)) = self.sessions.next_from(slot) else {
                return self.end_round(now);
            };
            slot = found + 1;
            for side in [Side::Client, Side::Server] {
                let own = session.record.leg(side).own().addr;
                if self.retired.addresses.contains(&own) {
                    self.retired.needed.insert(own);
                }
            }
        }
        self.retired.next = Some((slot, now + PAUSE));
        false
    }

    fn end_round(&mut self, now: Time) -> bool {
        let mut needed = std::mem::take(&mut self.retired.needed);
        let others = self.terminated.own_addresses().chain(self.migrations.virtual_addresses());
        needed.extend(others.filter(|own| self.retired.addresses.contains(own)));
        let before = std::mem::replace(&mut self.retired.addresses, needed);
        let needed = &self.retired.addresses;
        let gone = before.len() > needed.len();
        self.addresses.retain(|address| !before.contains(address) || needed.contains(address));
        self.retired.next = (!needed.is_empty()).then_some((0, now + ROUND));
        gone
    }
}
