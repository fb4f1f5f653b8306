//! Connections on their way from a SYN to their program.
//!
//! The initial sequence number of every connection is a [cookie](outlive_tcp::cookie). As long as
//! there is room, the handshake has a state like any other (so that a lost SYN-ACK is repeated);
//! when there is none, it has no state but the cookie. And either node of a pair can complete a
//! handshake that the other has begun.

use outlive_tcp::{
    cookie::{COOKIE_LIFETIME, CookieOptions, SynCookie},
    endpoint::{Arrival, Connection, Handshake, Opening, Transmit},
    segment::reset_for,
    seq::Seq,
    time::Time,
    wire::{Flags, FourTuple, Options, TcpPacket, Timestamps},
};

use crate::{
    conn::{Conn, Stage},
    outcome::Event,
    stack::{Release, Stack},
};

/// The MSS of a client that does not say (RFC 9293, section 3.7.1).
const DEFAULT_MSS: u16 = 536;

impl Stack {
    /// A SYN has come to a listener. `iss_after`: our initial sequence number must lie beyond.
    pub(crate) fn open(&mut self, now: Time, syn: &Arrival, iss_after: Option<Seq>) {
        let (ends, local) = (syn.tuple.reversed(), syn.tuple.destination);
        let Some(listener) = self.listeners.get(local) else { return };
        let (room, can_queue) = (listener.has_room(), listener.can_queue());
        let table_has_room = self.table.len() < self.config.connections;
        let Some(cookie) = self.make_cookie(now, syn) else { return };
        let mut opening = self.opening(now, ends, &cookie);
        if let Some(after) = iss_after.filter(|after| !cookie.iss.after(*after)) {
            // No cookie then: this handshake can be completed here only.
            opening.iss = after + (1 + cookie.iss.0 % (1 << 20));
        }
        let made = Connection::accept(now, syn, opening, self.config.tcp);
        let Ok(mut tcp) = made else {
            self.counters.malformed += 1;
            return;
        };
        if room && table_has_room {
            let conn = Conn::new(self.next_id(), syn.seq, tcp, Stage::Opening);
            let slot = self.insert(conn);
            if let Some(listener) = self.listeners.get_mut(local) {
                listener.half_open += 1;
            }
            self.touch(now, slot);
        } else if can_queue && table_has_room {
            self.counters.cookies_sent += 1;
            self.cookies_until = now + COOKIE_LIFETIME;
            self.outbox.extend(tcp.poll_transmit(now));
        } else {
            self.counters.refused += 1;
        }
    }

    fn make_cookie(&self, now: Time, syn: &Arrival) -> Option<SynCookie> {
        let options = CookieOptions {
            mss: syn.options.mss.unwrap_or(DEFAULT_MSS),
            window_scale: syn.options.window_scale,
            sack_permitted: syn.options.sack_permitted,
            timestamps: syn.options.timestamps.is_some() && self.config.tcp.timestamps,
        };
        self.keys.make(syn.tuple, syn.seq, options, self.clock.millis(now))
    }

    fn opening(&self, now: Time, ends: FourTuple, cookie: &SynCookie) -> Opening {
        let timestamp = cookie.timestamp.unwrap_or(self.clock.timestamp(now));
        let timestamp_offset = timestamp.wrapping_sub(now.as_millis() as u32);
        Opening { tuple: ends, iss: cookie.iss, timestamp_offset }
    }

    /// A segment of a connection that nobody knows: perhaps it completes a handshake that has left no
    /// state. Returns whether it does, or may.
    pub(crate) fn complete_cookie(&mut self, now: Time, segment: &Arrival) -> bool {
        let possible = now < self.cookies_until
            && !segment.flags.intersects(Flags::SYN | Flags::RST)
            && self.table.len() < self.config.connections;
        let Some(ack) = segment.ack.filter(|_| possible) else { return false };
        let (irs, iss) = (segment.seq + u32::MAX, ack + u32::MAX);
        let echo = segment.options.timestamps.map(|timestamps| timestamps.echo);
        let clock_ms = self.clock.millis(now);
        let Some((options, _)) = self.keys.check(segment.tuple, irs, iss, echo, clock_ms) else {
            return false;
        };
        if self.spent.contains(now, &segment.tuple, irs) {
            return false;
        }
        let local = segment.tuple.destination;
        if !self.listeners.get(local).is_some_and(|listener| listener.can_queue()) {
            // It will come again.
            self.counters.refused += 1;
            return true;
        }
        let Some(tcp) = self.established_by(now, segment, irs, iss, &options) else { return false };
        self.counters.cookies_accepted += 1;
        let conn = Conn::new(self.next_id(), irs, tcp, Stage::Opening);
        let slot = self.insert(conn);
        if let Some(listener) = self.listeners.get_mut(local) {
            listener.half_open += 1;
        }
        self.settle(now, slot);
        if let Some(slot) = self.table.between(&segment.tuple.reversed()) {
            self.table[slot].tcp.handle_segment(now, segment);
            self.touch(now, slot);
        }
        true
    }

    /// The connection that a valid cookie stands for.
    fn established_by(
        &self,
        now: Time,
        segment: &Arrival,
        irs: Seq,
        iss: Seq,
        options: &CookieOptions,
    ) -> Option<Connection> {
        let ends = segment.tuple.reversed();
        // The clock is later than the cookie's TSval, so it does not run back.
        let timestamp_offset = self.clock.timestamp(now).wrapping_sub(now.as_millis() as u32);
        let opening = Opening { tuple: ends, iss, timestamp_offset };
        let value = segment.options.timestamps.map_or(0, |timestamps| timestamps.value);
        // The SYN as it must have been, to come to the same agreement.
        let syn = Arrival {
            seq: irs,
            ack: None,
            flags: Flags::SYN,
            options: Options {
                mss: Some(options.mss),
                window_scale: options.window_scale,
                sack_permitted: options.sack_permitted,
                timestamps: options.timestamps.then_some(Timestamps { value, echo: 0 }),
                ..Options::default()
            },
            payload: Default::default(),
            ..segment.clone()
        };
        let negotiated =
            *Connection::accept(now, &syn, opening, self.config.tcp).ok()?.negotiated();
        let window = segment.window;
        let handshake = Handshake { opening, irs, negotiated, window, timestamp: value };
        Some(Connection::established(now, &handshake, self.config.tcp))
    }

    /// A handshake is complete. The program gets the connection when the standby knows of it.
    pub(crate) fn established(&mut self, now: Time, slot: usize) {
        if self.table[slot].stage != Stage::Opening {
            return;
        }
        self.table[slot].stage = Stage::Announced;
        if self.posture.release == Release::Now {
            self.queue(slot);
        }
        self.changed(now, slot);
    }

    /// The connection waits to be accepted from now on.
    pub(crate) fn queue(&mut self, slot: usize) {
        let conn = &mut self.table[slot];
        let (id, local) = (conn.id, conn.local());
        conn.stage = Stage::Queued;
        self.listeners.leave_half_open(local);
        if let Some(listener) = self.listeners.get_mut(local) {
            listener.queue.push_back(id);
            self.events.push_back(Event::Acceptable(local));
        }
    }

    /// Tells a stranger that its connection does not exist, unless it might be one that this node was
    /// not told of.
    pub(crate) fn reset_stranger(&mut self, now: Time, packet: &TcpPacket<'_>) {
        if now < self.posture.silent_until {
            self.counters.silent += 1;
            return;
        }
        let Some(reset) = reset_for(packet) else { return };
        self.counters.resets_sent += 1;
        self.outbox.push_back(Transmit {
            tuple: reset.tuple,
            seq: reset.seq,
            ack: reset.ack,
            flags: reset.flags,
            window: 0,
            urgent: None,
            options: Options::default(),
            payload: Vec::new(),
            segment_size: 0,
            ecn_capable: false,
            hop_limit: reset.hop_limit,
            dscp: 0,
        });
    }
}
