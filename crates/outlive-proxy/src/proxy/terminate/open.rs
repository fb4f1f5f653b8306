//! The moment at which an opening becomes a terminated session: the server has answered.
//!
//! The client's handshake comes after the server's, as with a splice, though each of the two connections agrees on
//! options of its own: a server that refuses is found before the client is told anything, the client is shown the
//! server's window and not a guess, and one record holds both connections before either has an effect.

use std::time::Duration;

use bytes::Bytes;
use outlive_tcp::{
    cookie::initial_sequence,
    endpoint::{Arrival, Config, Connection, Handshake, Opening as Numbers},
    segment::reset_for,
    time::Time,
    wire::{Flags, FourTuple, Options, TcpPacket},
};

use super::{
    joined::{Joined, negotiated},
    table::{Awaited, Entry, Stage, endpoint_config},
};
use crate::{
    config::Termination,
    counters::Counter,
    flows::{Flow, Side},
    opening::{Attempt, Meeting, Opening, SHOWN_SCALE},
    proxy::{Admission, Proxy},
    proxy_protocol,
    session::{
        Seconds,
        record::{Leg, Record, SynAck},
    },
};

const DEFAULT_MSS: u16 = 536;

impl Proxy {
    /// Whether the sessions of that listener are terminated.
    pub(crate) fn terminates(&self, listener: u16) -> bool {
        self.listener(listener).is_some_and(|l| l.termination == Termination::Terminate)
    }

    pub(super) fn endpoint_config(&self, listener: u16) -> Config {
        const IDLE: Duration = Duration::from_secs(3 * 3_600);
        let idle = self.listener(listener).map_or(IDLE, |l| l.idle_timeout);
        let stream = self.config.limits.terminated_stream_bytes;
        endpoint_config(stream, self.config.mtu, self.config.timeouts.handshake, idle)
    }

    /// What `now` of this node is for connections, so that their timestamps are the pair's clock (invariant 6).
    pub(super) fn timestamp_offset(&self, now: Time) -> u32 {
        self.clock.timestamp(now).wrapping_sub(now.as_millis() as u32)
    }

    /// What the SYN to the server of a terminated session offers, and its window.
    pub(crate) fn offered_when_terminating(
        &self,
        now: Time,
        opening: &Opening,
        attempt: &Attempt,
    ) -> (Options, u16) {
        let syn =
            self.asking(now, opening, attempt).and_then(|mut server| server.poll_transmit(now));
        syn.map_or((Options::default(), u16::MAX), |syn| (syn.options, syn.window))
    }

    /// The connection to the server, before its SYN.
    fn asking(&self, now: Time, opening: &Opening, attempt: &Attempt) -> Option<Connection> {
        let numbers = self.numbers(now, attempt.tuple().reversed(), attempt.iss);
        Connection::connect(numbers, self.endpoint_config(opening.listener)).ok()
    }

    fn numbers(&self, now: Time, tuple: FourTuple, iss: outlive_tcp::seq::Seq) -> Numbers {
        Numbers { tuple, iss, timestamp_offset: self.timestamp_offset(now) }
    }

    /// The server's SYN-ACK makes the opening a session. Nothing leaves before the record is safe (invariant 2).
    pub(crate) fn join(&mut self, now: Time, slot: usize, packet: &TcpPacket<'_>) {
        let opening = &self.openings[slot];
        if opening.is_half_open() && self.admission(opening.listener) == Admission::Refused {
            if let Some(reset) = reset_for(packet) {
                self.outbox.send(&reset);
            }
            return self.turn_away(slot, Counter::NoStandby);
        }
        if !self.make_room_to_terminate(now) {
            self.counters.count(Counter::DropTableFull);
            return;
        }
        let Some(mut opening) = self.remove_opening(slot) else { return };
        let (Some(attempt), Some(pool)) = (opening.attempt.take(), opening.pool) else { return };
        let offered = self.offered_when_terminating(now, &opening, &attempt).0;
        self.pools.answered(attempt.server, &offered, &packet.options(), packet.window());
        let (Some(server), Some(client)) = (
            self.server_connection(now, &opening, &attempt, packet),
            self.client_connection(now, &opening),
        ) else {
            return;
        };
        self.connection_began(attempt.server, attempt.own);
        let prefix = self.pools.config(pool).proxy_protocol.map_or(Vec::new(), |version| {
            proxy_protocol::header(version, opening.tuple.source, opening.tuple.destination)
        });
        let record = record(&opening, &attempt, packet, [&client, &server], prefix.len() as u16);
        let mut joined = Joined::new(&record, client, server);
        // One that has not shown that it exists has nothing put before its words.
        if record.answered {
            joined.insert(&prefix);
        }
        let slot = self.insert_terminated(Entry {
            positions: [record.client.end_isn + 1, record.server.end_isn + 1],
            record,
            prefix,
            server: attempt.server,
            listener: opening.listener,
            serial: 0,
            since: Seconds::of(now),
            last_seen: Seconds::of(now),
            picture: 0,
            half_open: !record.answered,
            told: false,
            endings: [None; 2],
            stage: Stage::Unconfirmed(Box::new(joined)),
            held: 0,
            due: Time::NEVER,
        });
        self.counters.count(Counter::SessionsOpened);
        *self.opened.entry(record.client.own()).or_default() += 1;
        self.hear_first_data(now, slot, &opening);
        let change = self.tell_of_terminated(slot);
        self.await_terminated(now, slot, change, Awaited::Opening);
    }

    fn server_connection(
        &self,
        now: Time,
        opening: &Opening,
        attempt: &Attempt,
        packet: &TcpPacket<'_>,
    ) -> Option<Connection> {
        // The SYN has left when the attempt began: the round trip is measured from there.
        let mut server = self.asking(now, opening, attempt)?;
        server.poll_transmit(attempt.began.min(now));
        server.handle_segment(now, &Arrival::copied(packet));
        server.state().is_synchronized().then_some(server)
    }

    fn client_connection(&self, now: Time, opening: &Opening) -> Option<Connection> {
        let tuple = opening.tuple.reversed();
        let config = self.endpoint_config(opening.listener);
        let Meeting::Answered { iss, .. } = opening.meeting else {
            let iss = initial_sequence(&self.sequence_key, tuple, self.clock.micros(now));
            let syn = Arrival {
                tuple: opening.tuple,
                seq: opening.irs,
                ack: None,
                flags: Flags::SYN,
                window: opening.window as u16,
                urgent: None,
                options: opening.options,
                congestion_experienced: false,
                segment_size: 0,
                payload: Bytes::new(),
            };
            return Connection::accept(now, &syn, self.numbers(now, tuple, iss), config).ok();
        };
        let leg = answered_leg(opening);
        let handshake = Handshake {
            opening: self.numbers(now, tuple, iss),
            irs: opening.irs,
            negotiated: negotiated(&leg, self.own_mss(tuple.source.addr.is_ipv4())),
            window: u16::try_from(opening.window >> leg.end_scale).unwrap_or(u16::MAX),
            timestamp: opening.timestamp,
        };
        Some(Connection::established(now, &handshake, config))
    }

    /// What the client has said while its server was chosen.
    fn hear_first_data(&mut self, now: Time, slot: usize, opening: &Opening) {
        let Meeting::Answered { iss, timestamp, data, fin } = &opening.meeting else { return };
        if data.is_empty() && !fin {
            return;
        }
        let timestamps = opening
            .options
            .timestamps
            .map(|_| outlive_tcp::wire::Timestamps { value: opening.timestamp, echo: *timestamp });
        let said = Arrival {
            tuple: opening.tuple,
            seq: opening.irs + 1,
            ack: Some(*iss + 1),
            flags: if *fin { Flags::ACK | Flags::FIN } else { Flags::ACK },
            window: u16::try_from(opening.window >> opening.options.window_scale.unwrap_or(0))
                .unwrap_or(u16::MAX),
            urgent: None,
            options: Options { timestamps, ..Options::default() },
            congestion_experienced: false,
            segment_size: data
                .len()
                .min(usize::from(self.own_mss(opening.tuple.source.addr.is_ipv4())))
                as u16,
            payload: Bytes::copy_from_slice(data),
        };
        if let Some(joined) = self.terminated[slot].joined_mut() {
            joined.end_mut(Side::Client).handle_segment(now, &said);
        }
    }

    pub(super) fn insert_terminated(&mut self, entry: Entry) -> usize {
        let (client, server) = (entry.tuple(Side::Client), entry.tuple(Side::Server));
        let slot = self.terminated.insert(entry);
        self.enter_flow(&client, Flow::Terminated(slot, Side::Client));
        self.enter_flow(&server, Flow::Terminated(slot, Side::Server));
        slot
    }

    /// Makes room for one more, from those that are over; false if every one is alive.
    pub(super) fn make_room_to_terminate(&mut self, now: Time) -> bool {
        while self.terminated.is_full() {
            let Some(oldest) = self.terminated.oldest_over() else { return false };
            self.counters.count(Counter::SessionsRecycled);
            self.forget_terminated(now, oldest);
        }
        true
    }
}

/// What a client that was answered with a cookie was promised.
fn answered_leg(opening: &Opening) -> Leg {
    let options = &opening.options;
    let iss = match opening.meeting {
        Meeting::Answered { iss, .. } => iss,
        Meeting::Held { .. } => opening.irs,
    };
    Leg {
        end: opening.tuple.source.into(),
        own: opening.tuple.destination.into(),
        end_isn: opening.irs,
        own_isn: iss,
        mss: options.mss.unwrap_or(DEFAULT_MSS),
        end_scale: options.window_scale.unwrap_or(0),
        own_scale: options.window_scale.map_or(0, |_| SHOWN_SCALE),
        scaling: options.window_scale.is_some(),
        sack: options.sack_permitted,
        timestamps: options.timestamps.is_some(),
    }
}

fn record(
    opening: &Opening,
    attempt: &Attempt,
    packet: &TcpPacket<'_>,
    [client, server]: [&Connection; 2],
    prefix_len: u16,
) -> Record {
    let leg = |connection: &Connection, end_isn, own_isn, scaling| {
        let (ends, agreed) = (connection.tuple(), connection.negotiated());
        Leg {
            end: ends.destination.into(),
            own: ends.source.into(),
            end_isn,
            own_isn,
            mss: agreed.peer_mss,
            end_scale: agreed.send_scale,
            own_scale: agreed.receive_scale,
            scaling,
            sack: agreed.sack,
            timestamps: agreed.timestamps,
        }
    };
    let scaling = packet.options().window_scale.is_some();
    let server = leg(server, packet.seq(), attempt.iss, scaling);
    let answered = !opening.is_half_open();
    let own_isn = client.positions().sent_acknowledged;
    let client = if answered {
        answered_leg(opening)
    } else {
        // Its SYN-ACK has not been acknowledged: SND.UNA is the initial number.
        leg(client, opening.irs, own_isn, opening.options.window_scale.is_some())
    };
    Record {
        client,
        server,
        client_timestamp_delta: 0,
        server_timestamp_delta: 0,
        prefix_len,
        answered,
        syn_ack: SynAck {
            window: packet.window(),
            // Not what the client was shown, as in a splice, but what the server has said.
            timestamp: packet.timestamps().unwrap_or_default().value,
            echo: opening.timestamp,
            ecn: false,
        },
    }
}
