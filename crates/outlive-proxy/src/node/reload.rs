//! Another configuration, while the node runs, and whether the peer has the same.

use std::net::IpAddr;

use outlive_tcp::time::Time;

use super::Node;
use crate::{
    config::Config,
    event::{Event, LogEvent},
};

/// The node has been told of so many different listeners, pools and servers in its life that it cannot number more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "too many listeners, pools and servers have come and gone: restart the node, after a handover"
)]
pub struct NoPlace;

impl Node {
    /// Obeys `config` from now on. It must be [valid](Config::validate) and the same as before in what it says of the node
    /// itself (name, MTU) and of its peer. Established sessions go on, also those of listeners and servers that
    /// are not in it any more; [`addresses`](Self::addresses) may have changed.
    ///
    /// # Errors
    /// Nothing was changed.
    pub fn reconfigure(&mut self, now: Time, config: Config) -> Result<(), NoPlace> {
        self.turn(now);
        if !self.proxy.has_places_for(&config) {
            return Err(NoPlace);
        }
        self.proxy.reconfigure(now, config);
        self.log(LogEvent::Reconfigured);
        self.link.say_configuration(self.proxy.config.fingerprint(), false);
        Ok(())
    }

    /// Asks the peer to read its own file again. Nothing happens if it cannot be asked.
    pub fn ask_peer_to_reload(&mut self) {
        self.link.say_configuration(self.proxy.config.fingerprint(), true);
    }

    /// The virtual addresses: those of the configuration, and those that sessions still need.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.proxy.addresses
    }

    pub(super) fn peer_configured(&mut self, fingerprint: u64, reload: bool) {
        let own = self.proxy.config.fingerprint();
        if self.peer_configuration.replace(fingerprint) != Some(fingerprint) && fingerprint != own {
            self.log(LogEvent::ConfigurationsDiffer);
        }
        if reload {
            self.events.push_back(Event::Reload);
        }
    }
}
