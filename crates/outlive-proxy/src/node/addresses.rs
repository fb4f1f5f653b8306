//! When the neighbours are told again that this node has the virtual addresses.

use std::time::Duration;

use outlive_tcp::time::Time;

use super::Node;
use crate::{event::Event, pair::heartbeat::Role};

/// Announcements of the virtual addresses after a takeover, a few in any case (each may be lost), and more as
/// long as it is not certain that the other node is passive: the first pause between two, and the longest.
const FIRST_ANNOUNCEMENT: Duration = Duration::from_millis(50);
const LAST_ANNOUNCEMENT: Duration = Duration::from_secs(10);
/// Once the pause is as long as this, every neighbour has had several chances to hear of it.
const ENOUGH_ANNOUNCEMENTS: Duration = Duration::from_millis(800);

impl Node {
    /// From now on, a few times in any case.
    pub(super) fn announce_soon(&mut self, now: Time) {
        self.announcement = Some((now + FIRST_ANNOUNCEMENT, FIRST_ANNOUNCEMENT));
    }

    pub(super) fn announce_what_is_due(&mut self, now: Time) {
        self.watch_addresses(now);
        if let Some((_, pause)) = self.announcement.take_if(|(at, _)| *at <= now) {
            self.announce_again(now, pause);
        }
    }

    /// While the peer is not heard it may have the addresses. Everybody is told again when it has become certain that it
    /// has not, and now and then before.
    fn watch_addresses(&mut self, now: Time) {
        if !self.pair.is_active() {
            self.contested = false;
            return;
        }
        let passive = self.pair.watch().alive(now).is_some_and(|p| p.role != Role::Active);
        let settled = passive && std::mem::take(&mut self.contested);
        self.contested = !passive;
        if settled || self.contested && self.announcement.is_none() {
            self.announce_soon(now);
        }
    }

    fn announce_again(&mut self, now: Time, pause: Duration) {
        let peer = self.pair.watch().alive(now);
        let passive = peer.is_some_and(|p| p.role != Role::Active && p.epoch >= self.pair.epoch());
        let heard = passive && pause >= ENOUGH_ANNOUNCEMENTS;
        if self.pair.is_active() && !heard {
            self.events.push_back(Event::Announce);
            let pause = (pause * 2).min(LAST_ANNOUNCEMENT);
            self.announcement = Some((now + pause, pause));
        }
    }
}
