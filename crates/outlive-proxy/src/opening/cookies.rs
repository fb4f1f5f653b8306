//! Clients that are answered before their server is known: a SYN-ACK that costs no state, and the ACK that
//! shows that it arrived.

use outlive_tcp::{
    cookie::CookieOptions,
    segment::{DEFAULT_HOP_LIMIT, Segment},
    time::Time,
    wire::{Flags, Options, TcpPacket, Timestamps},
};

use super::{Meeting, Opening};
use crate::{
    config::OpeningMode,
    counters::Counter,
    proxy::{Proxy, Verdict, shown_scale},
};

/// Window that such a client is shown: below the first window of any server, so that what it is shown next
/// does not pull the right edge back.
pub(crate) const FIRST_WINDOW: u16 = 16_384;
const DEFAULT_MSS: u16 = 536;

impl Proxy {
    /// Answers a SYN with a cookie. What is promised is what every server of the listener has.
    pub(crate) fn answer_with_cookie(
        &mut self,
        now: Time,
        packet: &TcpPacket<'_>,
        offered: &Options,
        listener: u16,
    ) {
        let tuple = packet.tuple();
        let traits = self.pools.traits(self.pools_of(listener), tuple.source.addr.is_ipv4());
        let promised = CookieOptions {
            mss: offered.mss.unwrap_or(DEFAULT_MSS),
            window_scale: offered.window_scale.filter(|_| traits.window_scale.is_some()),
            sack_permitted: offered.sack_permitted && traits.sack,
            timestamps: offered.timestamps.is_some() && traits.timestamps,
        };
        let clock = self.clock.millis(now);
        let Some(cookie) = self.keys.make(tuple, packet.seq(), promised, clock) else { return };
        let timestamps = cookie
            .timestamp
            .map(|value| Timestamps { value, echo: offered.timestamps.unwrap_or_default().value });
        let segment = Segment {
            tuple: tuple.reversed(),
            seq: cookie.iss,
            ack: Some(packet.seq() + 1),
            flags: Flags::SYN,
            window: FIRST_WINDOW.min(traits.window),
            options: Options {
                mss: Some(traits.mss),
                window_scale: shown_scale(promised.window_scale),
                sack_permitted: promised.sack_permitted,
                timestamps,
                ..Options::default()
            },
            payload: &[],
            hop_limit: DEFAULT_HOP_LIMIT,
        };
        self.outbox.send(&segment);
        self.cookie_sent(now);
        self.counters.count(Counter::CookiesSent);
    }

    /// An ACK of an unknown connection: if it carries a valid cookie, the connection is being opened from
    /// here on. `None` if it does not.
    pub(crate) fn accept_cookie(
        &mut self,
        now: Time,
        listener: u16,
        packet: &TcpPacket<'_>,
    ) -> Option<Verdict> {
        let (tuple, irs, iss) = (packet.tuple(), packet.seq() - 1, packet.ack() - 1);
        let timestamps = packet.timestamps();
        let clock = self.clock.millis(now);
        let echo = timestamps.map(|t| t.echo);
        let (options, epoch) = self.keys.check(tuple, irs, iss, echo, clock)?;
        // What an asynchronous listener's client has said may have been passed on without a word to this node.
        if epoch.owner() != self.config.node && !self.protection(listener).waits() {
            return None;
        }
        if self.spent.contains(now, &tuple, irs) {
            // A late copy is met with silence, a client that goes on trying with a reset.
            let late = !self.suspects.persists(now, &tuple);
            return late.then(|| self.drop(Counter::DropCookie));
        }
        if self.openings.is_full() {
            return Some(self.drop(Counter::DropOpenings));
        }
        let foreign = epoch.owner() != self.config.node;
        self.counters.count(if foreign {
            Counter::CookiesAdopted
        } else {
            Counter::CookiesAccepted
        });
        let timestamp = timestamps.unwrap_or_default();
        let slot = self.insert_opening(Opening {
            tuple,
            listener,
            irs,
            options: Options {
                mss: Some(options.mss),
                window_scale: options.window_scale,
                sack_permitted: options.sack_permitted,
                timestamps: options.timestamps.then_some(timestamp),
                ..Options::default()
            },
            timestamp: timestamp.value,
            window: u32::from(packet.window()) << options.window_scale.unwrap_or(0),
            meeting: Meeting::Answered {
                iss,
                timestamp: timestamp.echo,
                data: Vec::new(),
                fin: false,
            },
            pool: None,
            tried: Default::default(),
            attempt: None,
            content: None,
            migrate: false,
            transfer: None,
        });
        match self.listener(listener).map(|l| l.opening) {
            Some(OpeningMode::Inspect { timeout, .. }) => {
                self.openings.set_timer(slot, now + timeout);
                Some(self.opening_client_packet(now, slot, packet))
            }
            // A direct listener that had to challenge its client looks at nothing.
            _ => {
                self.take_data(slot, packet);
                self.choose_default(now, slot);
                Some(Verdict::Done)
            }
        }
    }
}
