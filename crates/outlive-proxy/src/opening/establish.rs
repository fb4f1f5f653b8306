//! The moment at which a session becomes a constant: the server has answered.

use outlive_tcp::{
    segment::reset_for,
    time::Time,
    wire::{Flags, Options, TcpPacket},
};

use super::{Attempt, Meeting, Opening, SHOWN_SCALE, connect::offered};
use crate::{
    config::Synchronise,
    counters::Counter,
    flows::{Flow, Side},
    proxy::{Admission, FirstData, Leaving, Prefix, Proxy},
    proxy_protocol,
    replication::change::Change,
    session::{
        Phase, Seconds, Session,
        record::{Leg, Record, SynAck},
        track::Streams,
    },
};

const DEFAULT_MSS: u16 = 536;

impl Proxy {
    /// The server's SYN-ACK makes the opening a session. Nothing leaves before the record is safe
    /// (invariant 2).
    pub(crate) fn establish(&mut self, now: Time, slot: usize, packet: &TcpPacket<'_>) {
        let opening = &self.openings[slot];
        if self.terminates(opening.listener) {
            return self.join(now, slot, packet);
        }
        if opening.is_half_open() && self.admission(opening.listener) == Admission::Refused {
            if let Some(reset) = reset_for(packet) {
                self.outbox.send(&reset);
            }
            return self.turn_away(slot, Counter::NoStandby);
        }
        if !self.make_room(now) {
            self.counters.count(Counter::DropTableFull);
            return;
        }
        let answer = packet.options();
        let Some(mut opening) = self.remove_opening(slot) else { return };
        let (Some(attempt), Some(pool)) = (opening.attempt.take(), opening.pool) else { return };
        self.pools.answered(attempt.server, &offered(&opening, &attempt), &answer, packet.window());
        self.connection_began(attempt.server, attempt.own);

        let prefix = self.pools.config(pool).proxy_protocol.map_or(Vec::new(), |version| {
            proxy_protocol::header(version, opening.tuple.source, opening.tuple.destination)
        });
        let record = record(&opening, &attempt, packet, &answer, prefix.len() as u16);
        let first = match opening.meeting {
            Meeting::Held { .. } => FirstData::default(),
            Meeting::Answered { data, fin, .. } => FirstData { data, fin, timestamps: None },
        };
        let (client_window, server_window) = (opening.window, u32::from(packet.window()));
        let session = Session {
            record,
            streams: Streams::established(&record, client_window, server_window),
            last_seen: Seconds::of(now),
            since: Seconds::of(now),
            serial: 0,
            client_timestamp: opening.timestamp,
            server: attempt.server,
            listener: opening.listener,
            phase: Phase::Unconfirmed,
            half_open: !record.answered,
            told: false,
            picture: 0,
            delegated: false,
            until_delegated: 0,
        };
        let slot = self.insert_session(session);
        if !prefix.is_empty() {
            self.prefixes.insert(slot, Prefix { bytes: prefix.clone(), repeated: 0, sent: false });
        }
        self.counters.count(Counter::SessionsOpened);
        *self.opened.entry(record.client.own()).or_default() += 1;
        if self.defers(slot, &first) {
            return self.answer_untold(now, slot);
        }
        self.sessions[slot].told = true;
        let change = self.journal.append(&Change::Opened { record: &record, prefix: &prefix });
        self.await_release(now, slot, change, first);
    }

    /// Whether the standby is told only when there is data. (To a client that was answered with a cookie the
    /// header that is due now is data.)
    fn defers(&self, slot: usize, first: &FirstData) -> bool {
        let session = &self.sessions[slot];
        let header = session.record.answered && self.prefixes.contains_key(&slot);
        let synchronise = self.protection(session.listener).synchronise;
        if self.posture.leaving != Leaving::No {
            // Another node is about to go on with it.
            return false;
        }
        synchronise == Synchronise::FirstData && first.is_empty() && !header
    }

    /// The client is answered, or its server's handshake completed, before the standby knows: neither is an
    /// effect that matters, as long as there is no data.
    fn answer_untold(&mut self, now: Time, slot: usize) {
        self.has_deferred = true;
        self.release(now, slot, FirstData::default());
        let session = &mut self.sessions[slot];
        if session.phase == Phase::Open {
            session.phase = Phase::Quiet;
        }
    }

    pub(crate) fn insert_session(&mut self, session: Session) -> usize {
        let (client, server) = (session.tuple(Side::Client), session.tuple(Side::Server));
        let slot = self.sessions.insert(session);
        self.enter_flow(&client, Flow::Session(slot, Side::Client));
        self.enter_flow(&server, Flow::Session(slot, Side::Server));
        slot
    }

    /// The record is safe: the session may have effects.
    pub(crate) fn release(&mut self, now: Time, slot: usize, first: FirstData) {
        if let Some(withheld) = self.withheld.take(slot) {
            return self.let_go(now, slot, withheld);
        }
        let answered = self.sessions[slot].record.answered;
        if answered {
            self.sessions[slot].phase = Phase::Open;
            self.arm_idle(now, slot);
            let prefixed = self.send_prefix(now, slot);
            if !prefixed || !first.data.is_empty() || first.fin {
                self.send_first(now, slot, Side::Client, &first);
            }
        } else {
            self.sessions[slot].phase = Phase::Answering;
            self.sessions.set_timer(slot, now + self.config.timeouts.handshake);
            self.send_syn_ack(slot);
        }
        self.delegate(now, slot);
    }
}

fn record(
    opening: &Opening,
    attempt: &Attempt,
    packet: &TcpPacket<'_>,
    answer: &Options,
    prefix_len: u16,
) -> Record {
    let asked = &opening.options;
    // With the server: what the client offered and the server agreed to.
    let scaling = asked.window_scale.is_some() && answer.window_scale.is_some();
    let scale = |scale: Option<u8>, used: bool| scale.filter(|_| used).unwrap_or(0);
    let server_timestamps = asked.timestamps.and(answer.timestamps);
    let server = Leg {
        end: attempt.address.into(),
        own: attempt.own.into(),
        end_isn: packet.seq(),
        own_isn: attempt.iss,
        mss: answer.mss.unwrap_or(DEFAULT_MSS),
        end_scale: scale(answer.window_scale, scaling),
        own_scale: scale(asked.window_scale, scaling),
        scaling,
        sack: asked.sack_permitted && answer.sack_permitted,
        timestamps: server_timestamps.is_some(),
    };
    let client = Leg {
        end: opening.tuple.source.into(),
        own: opening.tuple.destination.into(),
        end_isn: opening.irs,
        mss: asked.mss.unwrap_or(DEFAULT_MSS),
        ..server
    };
    let server_value = server_timestamps.map_or(0, |t| t.value);
    match &opening.meeting {
        // The client is told what the server said, so nothing needs to be bridged.
        Meeting::Held { .. } => Record {
            client: Leg {
                own_isn: packet.seq(),
                end_scale: server.own_scale,
                own_scale: server.end_scale,
                ..client
            },
            server,
            client_timestamp_delta: attempt.timestamp_delta,
            server_timestamp_delta: 0,
            prefix_len,
            answered: false,
            syn_ack: SynAck {
                window: packet.window(),
                timestamp: server_value,
                echo: opening.timestamp,
                ecn: packet.flags().contains(Flags::ECE),
            },
        },
        // The client was promised something before; what it last saw of our clock was the cookie's.
        Meeting::Answered { iss, timestamp, .. } => {
            let promised = asked.window_scale.is_some();
            Record {
                client: Leg {
                    own_isn: *iss,
                    end_scale: scale(asked.window_scale, promised),
                    own_scale: if promised { SHOWN_SCALE } else { 0 },
                    scaling: promised,
                    sack: asked.sack_permitted,
                    timestamps: asked.timestamps.is_some(),
                    ..client
                },
                server,
                client_timestamp_delta: attempt.timestamp_delta,
                server_timestamp_delta: timestamp.wrapping_sub(server_value),
                prefix_len,
                answered: true,
                // Whoever repeats the prefix needs a timestamp of the client's.
                syn_ack: SynAck {
                    timestamp: *timestamp,
                    echo: opening.timestamp,
                    ..SynAck::default()
                },
            }
        }
    }
}
