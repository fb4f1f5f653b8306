//! The connection to the server: SYN, repetition, the next server.

use std::time::Duration;

use outlive_tcp::{
    cookie::initial_sequence,
    segment::{DEFAULT_HOP_LIMIT, Segment, reset_for},
    seq::Seq,
    time::Time,
    wire::{Flags, FourTuple, Options, TcpPacket, Timestamps},
};

use super::{Attempt, Meeting, Opening};
use crate::{
    counters::Counter,
    event::LogEvent,
    flows::{Flow, Side},
    ports::Taken,
    proxy::{Proxy, Verdict},
};

/// First repetition of a SYN; servers are close by.
const SYN_TIMEOUT: Duration = Duration::from_millis(200);

impl Proxy {
    /// Opens a connection to the next server of the pool, or turns the client away.
    pub(crate) fn try_server(&mut self, now: Time, slot: usize) {
        let opening = &self.openings[slot];
        let Some(pool) = opening.pool else { return };
        if opening.tried.is_full() {
            return self.out_of_servers(now, slot);
        }
        let Some(server) = self.pools.choose(pool, &opening.tried, now, opening.content) else {
            return self.out_of_servers(now, slot);
        };
        let migrate = opening.migrate;
        self.openings[slot].tried.push(server);
        if migrate && self.begin_transfer(now, slot, server) {
            return;
        }
        let address = self.pools.address(server);
        let (flows, sessions, openings) = (&self.flows, &self.sessions, &self.openings);
        let terminated = &self.terminated;
        let taken = |tuple: &FourTuple| match flows
            .find(tuple, |flow| crate::proxy::tuple_of(sessions, openings, terminated, flow))
        {
            None => Taken::Free,
            Some(Flow::Terminated(slot, _)) if terminated.gives_way(slot) => Taken::GivesWay,
            Some(Flow::Session(slot, _)) if sessions[slot].phase.is_over() => Taken::GivesWay,
            Some(_) => Taken::InUse,
        };
        let Some(own) = self.ports.choose(server, address, self.port_seed, taken) else {
            self.counters.count(Counter::PortsExhausted);
            self.log(LogEvent::PortsExhausted { server: address });
            return self.try_server(now, slot);
        };
        let tuple = FourTuple { source: address, destination: own };
        match self.find(&tuple) {
            Some(Flow::Session(old, _)) => self.recycle_session(now, old),
            Some(Flow::Terminated(old, _)) => self.recycle_terminated(now, old),
            _ => {}
        }
        let iss = initial_sequence(&self.sequence_key, tuple.reversed(), self.clock.micros(now));
        let timestamp_delta = self.clock.timestamp(now).wrapping_sub(self.openings[slot].timestamp);
        self.openings[slot].attempt =
            Some(Attempt { server, address, own, iss, timestamp_delta, began: now, syns: 0 });
        self.connection_began(server, own);
        self.enter_flow(&tuple, Flow::Opening(slot, Side::Server));
        self.send_syn(now, slot);
    }

    /// Every server was tried. If they were targets, they may still take the connection as servers.
    fn out_of_servers(&mut self, now: Time, slot: usize) {
        let opening = &mut self.openings[slot];
        if std::mem::take(&mut opening.migrate) && !opening.tried.is_empty() {
            opening.tried.clear();
            return self.try_server(now, slot);
        }
        self.turn_away(slot, Counter::NoServer);
    }

    fn send_syn(&mut self, now: Time, slot: usize) {
        let opening = &mut self.openings[slot];
        let Some(attempt) = &mut opening.attempt else { return };
        let timeout = SYN_TIMEOUT * 2u32.pow(attempt.syns.min(6));
        attempt.syns += 1;
        let attempt = attempt.clone();
        let opening = &self.openings[slot];
        let terminates = self.terminates(opening.listener);
        let (options, window) = if terminates {
            self.offered_when_terminating(now, opening, &attempt)
        } else {
            (offered(opening, &attempt), u16::try_from(opening.window).unwrap_or(u16::MAX))
        };
        let segment = Segment {
            tuple: attempt.tuple().reversed(),
            seq: attempt.iss,
            ack: None,
            flags: if terminates { Flags::SYN } else { syn_flags(opening) },
            window,
            options,
            payload: &[],
            hop_limit: DEFAULT_HOP_LIMIT,
        };
        self.outbox.send(&segment);
        let patience =
            opening.pool.map_or(Duration::ZERO, |p| self.pools.config(p).connect_timeout);
        let deadline = (now + timeout).min(attempt.began + patience);
        self.openings.set_timer(slot, deadline.max(now + Duration::from_millis(1)));
    }

    /// The server is passed over, and the next one tried: no data byte has been sent to any.
    pub(crate) fn attempt_failed(&mut self, now: Time, slot: usize, why: Counter) {
        let opening = &mut self.openings[slot];
        let (Some(attempt), Some(pool)) = (opening.attempt.take(), opening.pool) else { return };
        let tuple = attempt.tuple();
        self.leave_flow(&tuple, Flow::Opening(slot, Side::Server));
        self.connection_ended(attempt.server, attempt.own);
        self.pools.failed(attempt.server, pool, now);
        self.counters.count(why);
        self.log(LogEvent::ServerFailed {
            server: attempt.address,
            refused: why == Counter::ServerRefused,
        });
        self.try_server(now, slot);
    }

    /// The timer of an opening: the first data is late, or the server is.
    pub(crate) fn opening_expired(&mut self, now: Time, slot: usize) {
        let Some(opening) = self.openings.get(slot) else { return };
        if opening.transfer.is_some() {
            return self.transfer_failed(now, slot, Counter::MigrationTimeout);
        }
        let Some(attempt) = &opening.attempt else {
            return self.choose_default(now, slot);
        };
        let patience =
            opening.pool.map_or(Duration::ZERO, |p| self.pools.config(p).connect_timeout);
        if now >= attempt.began + patience {
            self.attempt_failed(now, slot, Counter::ServerTimeout);
        } else {
            self.send_syn(now, slot);
        }
    }

    /// What the server says to our SYN (RFC 9293, 3.10.7.3).
    pub(crate) fn opening_server_packet(
        &mut self,
        now: Time,
        slot: usize,
        packet: &TcpPacket<'_>,
    ) -> Verdict {
        let Some(attempt) = &self.openings[slot].attempt else {
            return self.drop(Counter::DropOpening);
        };
        let flags = packet.flags();
        let acceptable = flags.contains(Flags::ACK) && packet.ack() == attempt.iss + 1;
        match (acceptable, flags.contains(Flags::RST), flags.contains(Flags::SYN)) {
            (true, true, _) => self.attempt_failed(now, slot, Counter::ServerRefused),
            (true, false, true) => self.establish(now, slot, packet),
            (false, false, _) if flags.contains(Flags::ACK) => {
                // It still has an older connection with these ports: end that, and ask again.
                if let Some(reset) = reset_for(packet) {
                    self.outbox.send(&reset);
                }
                let asked = self.openings[slot].attempt.as_ref().map_or(0, |a| a.syns);
                if asked < 3 {
                    self.send_syn(now, slot);
                }
            }
            _ => return self.drop(Counter::DropOpening),
        }
        Verdict::Done
    }

    /// Resets a client that has been answered.
    pub(crate) fn reset_answered(&mut self, client: FourTuple, seq: Seq) {
        let segment = Segment {
            tuple: client.reversed(),
            seq,
            ack: None,
            flags: Flags::RST,
            window: 0,
            options: Options::default(),
            payload: &[],
            hop_limit: DEFAULT_HOP_LIMIT,
        };
        self.outbox.send(&segment);
    }
}

fn syn_flags(opening: &Opening) -> Flags {
    match opening.meeting {
        Meeting::Held { ecn: true } => Flags::SYN | Flags::ECE | Flags::CWR,
        _ => Flags::SYN,
    }
}

/// The options of our SYN: the client's own, with its clock shifted to ours (invariant 6: to a server that
/// remembers the last connection from this port, time never runs back).
pub(super) fn offered(opening: &Opening, attempt: &Attempt) -> Options {
    let value = opening.timestamp.wrapping_add(attempt.timestamp_delta);
    Options {
        timestamps: opening.options.timestamps.map(|_| Timestamps { value, echo: 0 }),
        authenticated: false,
        sack: Default::default(),
        ..opening.options
    }
}
