//! The stack: what comes in, what goes out, and the state that everything works on.

use std::{collections::VecDeque, time::Duration};

use outlive_proxy::{
    EpochKey, KeyRing, SpentCookies, Suspects,
    clock::PairClock,
    node::Entropy,
    pair::{Epoch, Pair},
    timer::TimerWheel,
};
use outlive_tcp::{
    endpoint::{Acknowledge, Arrival, Transmit, Verdict},
    time::Time,
    wire::{
        Flags, FourTuple, Kind, Offload, TcpPacket, classify,
        icmp::{IcmpMessage, parse_icmp},
    },
};

use crate::{
    config::StackConfig,
    conn::{Conn, Stage},
    id::ConnectionId,
    listener::Listeners,
    outcome::{Closed, Event},
    replication::Link,
    table::Table,
};

/// A host of TCP connections that are acknowledged when their program says so, alone or as one of a
/// pair.
///
/// Inputs are `handle_*` and the program's calls; what follows is fetched with `poll_*`, after any
/// input, until each says that there is nothing more:
///
/// 1. [`poll_event`](Self::poll_event);
/// 2. [`poll_transmit`](Self::poll_transmit): packets, to be sent in that order;
/// 3. [`poll_state_message`](Self::poll_state_message), as far as the transport has room;
/// 4. [`beliefs`](Self::beliefs) for the heartbeats, [`poll_timeout`](Self::poll_timeout) for the next
///    [`handle_timeout`](Self::handle_timeout).
///
/// `now` must not run back.
#[derive(Debug)]
pub struct Stack {
    pub(crate) config: StackConfig,
    pub(crate) table: Table,
    pub(crate) listeners: Listeners,
    pub(crate) timers: TimerWheel,
    /// Connections that may have something to send.
    pub(crate) ready: VecDeque<usize>,
    /// Segments that belong to no connection.
    pub(crate) outbox: VecDeque<Transmit>,
    pub(crate) events: VecDeque<Event>,
    pub(crate) counters: Counters,

    pub(crate) clock: PairClock,
    pub(crate) keys: KeyRing,
    pub(crate) spent: SpentCookies,
    pub(crate) suspects: Suspects,
    /// Until then handshakes may be completed that have left no state here.
    pub(crate) cookies_until: Time,
    pub(crate) entropy: Secret,
    pub(crate) process: u64,
    pub(crate) serial: u64,

    pub(crate) pair: Pair,
    pub(crate) link: Link,
    pub(crate) posture: Posture,
    /// The next announcement of the addresses, and the pause behind it.
    pub(crate) announcement: Option<(Time, Duration)>,
}

/// Never shown.
pub(crate) struct Secret(pub(crate) Entropy);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// What the role of the node means for packets and transactions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Posture {
    pub(crate) active: bool,
    /// It stood still: nothing may be sent before the peer was asked.
    pub(crate) unsure: bool,
    pub(crate) release: Release,
    /// Until then strangers are met with silence.
    pub(crate) silent_until: Time,
}

/// When transactions take effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Release {
    /// At once: nobody else has to know.
    Now,
    /// When the standby has confirmed them.
    Confirmed,
    /// When it is certain that this node may go on.
    Held,
}

/// What has happened since the start. Everything that is dropped is counted.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Packets that are not TCP, or not whole, or contradict themselves.
    pub malformed: u64,
    /// Packets with a wrong checksum.
    pub wrong_checksum: u64,
    /// Packets that came while the node does not serve.
    pub passive: u64,
    /// Segments that a connection has dropped (RFC 9293, RFC 5961, RFC 7323).
    pub dropped: u64,
    /// SYNs that there was no room for.
    pub refused: u64,
    /// SYNs that were answered with a cookie, because so many handshakes were under way.
    pub cookies_sent: u64,
    /// Handshakes that were completed by a cookie.
    pub cookies_accepted: u64,
    /// Segments of strangers, answered with a reset.
    pub resets_sent: u64,
    /// Segments of strangers, or of connections that may not speak yet, met with silence.
    pub silent: u64,
    /// Connections accepted by programs.
    pub accepted: u64,
    /// Connections that a takeover has brought.
    pub resumed: u64,
    /// Records told to a standby.
    pub records: u64,
}

impl Stack {
    /// A stack that serves nobody yet: the first [`handle_timeout`](Self::handle_timeout) of one
    /// without a peer begins. `unix_us` is the wall clock in microseconds since 1970.
    pub fn new(mut config: StackConfig, entropy: Entropy, unix_us: u64, now: Time) -> Self {
        config.tcp.acknowledge = Acknowledge::Explicitly;
        let [a, b, c, d, e, f, g, h, ..] = entropy.derive(b"process", 0);
        let process = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        // Milliseconds, so that a node that starts again begins later epochs.
        let floor = Epoch((unix_us / 1_000) << 1);
        Stack {
            table: Table::new(entropy.derive(b"table", 0)),
            listeners: Listeners::default(),
            timers: TimerWheel::new(now),
            ready: VecDeque::new(),
            outbox: VecDeque::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
            clock: PairClock::new(unix_us, now),
            keys: KeyRing::default(),
            spent: SpentCookies::new(entropy.derive(b"spent", 0), now),
            suspects: Suspects::new(entropy.derive(b"suspects", 0)),
            cookies_until: Time::ZERO,
            process,
            serial: 0,
            pair: Pair::new(config.pair.clone(), config.node, process, floor, now),
            link: Link::new(),
            posture: Posture {
                active: false,
                unsure: false,
                release: Release::Now,
                silent_until: Time::ZERO,
            },
            announcement: None,
            entropy: Secret(entropy),
            config,
        }
    }

    // ── packets

    /// One IP packet: the whole of `buffer`. Whatever is wrong with it is counted.
    pub fn handle_packet(&mut self, now: Time, buffer: &mut [u8], offload: Offload) {
        self.turn(now);
        if !self.posture.active {
            self.counters.passive += 1;
            return;
        }
        let len = buffer.len();
        match classify(buffer) {
            Ok(Kind::Tcp) => match TcpPacket::parse(buffer, 0, len, offload) {
                Ok(packet) if packet.checksum_ok() => self.handle_segment(now, &packet),
                Ok(_) => self.counters.wrong_checksum += 1,
                Err(_) => self.counters.malformed += 1,
            },
            Ok(Kind::Icmp) => self.handle_icmp(now, buffer),
            _ => self.counters.malformed += 1,
        }
    }

    fn handle_icmp(&mut self, now: Time, packet: &[u8]) {
        let Ok(IcmpMessage::Error(error)) = parse_icmp(packet) else { return };
        let slot = self.table.between(&error.quoted);
        let Some(slot) = slot.filter(|slot| self.table[*slot].stage != Stage::Mute) else { return };
        self.table[slot].tcp.handle_icmp(now, &error);
        self.touch(now, slot);
    }

    fn handle_segment(&mut self, now: Time, packet: &TcpPacket<'_>) {
        let ends = packet.tuple().reversed();
        let arrival = Arrival::copied(packet);
        let Some(slot) = self.table.between(&ends) else {
            return self.handle_stranger(now, packet, &arrival);
        };
        if self.table[slot].stage == Stage::Mute {
            // It will come again when the connection may speak.
            self.counters.silent += 1;
            return;
        }
        match self.table[slot].tcp.handle_segment(now, &arrival) {
            Verdict::Accepted => {}
            Verdict::Dropped(_) => self.counters.dropped += 1,
            Verdict::Reopen { iss_after } => {
                self.finish(now, slot, Closed::Finished);
                return self.open(now, &arrival, Some(iss_after));
            }
        }
        self.touch(now, slot);
    }

    fn handle_stranger(&mut self, now: Time, packet: &TcpPacket<'_>, arrival: &Arrival) {
        let (flags, local) = (arrival.flags, arrival.tuple.destination);
        if self.listeners.get(local).is_some() {
            if flags.contains(Flags::SYN) && !flags.intersects(Flags::ACK | Flags::RST) {
                return self.open(now, arrival, None);
            }
            if self.complete_cookie(now, arrival) {
                return;
            }
            // It may be the second segment of a client whose ACK and first segment were lost.
            if now < self.cookies_until && !self.suspects.persists(now, &arrival.tuple) {
                self.counters.silent += 1;
                return;
            }
        }
        self.reset_stranger(now, packet);
    }

    /// The next segment to be sent. None while the node does not serve, or is not sure that it may.
    pub fn poll_transmit(&mut self, now: Time) -> Option<Transmit> {
        if !self.posture.active || self.posture.unsure {
            return None;
        }
        if let Some(transmit) = self.outbox.pop_front() {
            return Some(transmit);
        }
        while let Some(&slot) = self.ready.front() {
            // It may be gone meanwhile, or another one have its place.
            let known = self.table.get(slot).is_some_and(|conn| conn.ready && !conn.has_moved());
            if known && let Some(transmit) = self.table[slot].tcp.poll_transmit(now) {
                return Some(transmit);
            }
            self.ready.pop_front();
            if known {
                self.table[slot].ready = false;
                self.settle(now, slot);
            }
        }
        None
    }

    // ── time

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self, now: Time) -> Option<Time> {
        let sure = !self.posture.unsure;
        let connections = self.timers.next_deadline().filter(|_| sure);
        let announcement = self.announcement.map(|(at, _)| at).filter(|_| sure);
        let deadlines =
            [connections, announcement, self.pair.deadline(now), self.confirm_deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// To be called once per turn of the loop, after everything that has arrived was handed over, and
    /// when [`poll_timeout`](Self::poll_timeout) says so.
    pub fn handle_timeout(&mut self, now: Time) {
        self.turn(now);
        self.follow_everything(now);
        if self.posture.unsure {
            return;
        }
        let mut expired = Vec::new();
        self.timers.expire(now, &mut expired);
        for slot in expired {
            if self.table.get(slot).is_some() {
                self.expire(now, slot);
            }
        }
        self.announce_when_due(now);
    }

    fn expire(&mut self, now: Time, slot: usize) {
        let conn = &mut self.table[slot];
        conn.tcp.handle_timeout(now);
        if let (Some(since), Some(limit)) = (conn.withheld_since, self.config.commit_timeout)
            && since + limit <= now
            && !conn.is_over()
        {
            conn.closed = Some(Closed::CommitTimeout(limit));
            conn.tcp.abort();
        }
        self.touch(now, slot);
    }

    /// What has happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What has happened since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Connections in the table, those that are being opened or are over included.
    pub fn connections(&self) -> usize {
        self.table.len()
    }

    // ── what follows from a change of a connection

    /// Something has happened to the connection: its events are told, and it may have something to
    /// send.
    pub(crate) fn touch(&mut self, now: Time, slot: usize) {
        self.settle(now, slot);
        if let Some(conn) = self.table.get(slot)
            && !conn.ready
        {
            self.table[slot].ready = true;
            self.ready.push_back(slot);
        }
    }

    /// Tells what has happened to the connection, and sets its timer.
    pub(crate) fn settle(&mut self, now: Time, slot: usize) {
        use outlive_tcp::endpoint::Event as Told;
        while let Some(told) = self.table[slot].tcp.poll_event() {
            let id = self.table[slot].id;
            match told {
                Told::Established => self.established(now, slot),
                Told::Readable => self.tell_program(slot, Event::Readable(id)),
                Told::AllAcknowledged => self.output_acknowledged(now, slot),
                Told::Closed(end) => {
                    let closed = self.table[slot].closed.unwrap_or(Closed::of(end));
                    self.finish(now, slot, closed);
                    return;
                }
                // Room is looked at below: what waits for it may want more than any.
                Told::Writable | Told::Urgent | Told::PathSuspect | Told::OutputSkipped(_) => {}
            }
        }
        self.tell_room(slot);
        self.note_withheld(now, slot);
        self.set_timer(slot);
        if self.table[slot].closed.is_some() && !self.table[slot].tcp.is_parting() {
            self.depart(now, slot);
        }
    }

    fn note_withheld(&mut self, now: Time, slot: usize) {
        let conn = &mut self.table[slot];
        if conn.tcp.withheld() == 0 {
            conn.withheld_since = None;
        } else {
            conn.withheld_since.get_or_insert(now);
        }
    }

    fn set_timer(&mut self, slot: usize) {
        let conn = &self.table[slot];
        let limit = self.config.commit_timeout.zip(conn.withheld_since);
        let commit = limit.map(|(limit, since)| since + limit).filter(|_| !conn.is_over());
        match conn.tcp.poll_timeout().into_iter().chain(commit).min() {
            Some(at) => self.timers.set(slot, at),
            None => self.timers.cancel(slot),
        }
    }

    /// Room for output was there all the time for what waited; now there may be more.
    pub(crate) fn tell_room(&mut self, slot: usize) {
        let conn = &mut self.table[slot];
        if conn.wants_room && conn.room() > 0 {
            conn.wants_room = false;
            let id = conn.id;
            self.tell_program(slot, Event::Writable(id));
        }
    }

    pub(crate) fn tell_program(&mut self, slot: usize, event: Event) {
        if self.table[slot].stage == Stage::Open {
            self.events.push_back(event);
        }
    }

    /// The connection is over. Its program is told, and what it has read stays readable until it
    /// lets go.
    pub(crate) fn finish(&mut self, now: Time, slot: usize, why: Closed) {
        let conn = &mut self.table[slot];
        let (id, stage, local) = (conn.id, conn.stage, conn.local());
        conn.closed = Some(why);
        conn.waiting = Default::default();
        conn.under_way = None;
        let ends = conn.tuple();
        self.timers.cancel(slot);
        self.ended(now, slot, ends);
        self.not_missing(now, slot);
        match stage {
            Stage::Mute | Stage::Opening | Stage::Announced => {
                self.listeners.leave_half_open(local);
                self.forget(now, slot);
            }
            Stage::Open => self.events.push_back(Event::Closed(id)),
            Stage::Released | Stage::Queued => {}
        }
        if matches!(stage, Stage::Released | Stage::Queued | Stage::Open) {
            if self.table[slot].tcp.is_parting() {
                self.set_timer(slot);
            } else {
                self.depart(now, slot);
            }
        }
    }

    /// The other end of a connection that is over need not be told anything more.
    fn depart(&mut self, now: Time, slot: usize) {
        if self.table[slot].stage == Stage::Released {
            self.forget(now, slot);
        } else {
            self.table.leave_ends(slot);
        }
    }

    /// A cookie of these ends must not open the connection a second time, and the standby need not
    /// know of it any more.
    fn ended(&mut self, now: Time, slot: usize, ends: FourTuple) {
        let conn = &mut self.table[slot];
        let (id, irs, told) = (conn.id, conn.irs, conn.told.take());
        self.spent.insert(now, &ends.reversed(), irs);
        if told.is_some() {
            self.link.tell_ended(id);
        }
        if let (true, Some(closed)) = (conn.admitted, conn.closed) {
            self.events.push_back(Event::Over(id, closed));
        }
    }

    /// Drops a connection with all that refers to its slot. What it still wants to send (a reset) is
    /// sent first.
    pub(crate) fn forget(&mut self, now: Time, slot: usize) {
        if self.posture.active && !self.table[slot].has_moved() {
            while let Some(transmit) = self.table[slot].tcp.poll_transmit(now) {
                self.outbox.push_back(transmit);
            }
        }
        self.timers.cancel(slot);
        self.table.remove(slot);
    }

    pub(crate) fn insert(&mut self, conn: Conn) -> usize {
        self.table.insert(conn)
    }

    pub(crate) fn next_id(&mut self) -> ConnectionId {
        self.serial += 1;
        ConnectionId { process: self.process, serial: self.serial }
    }

    pub(crate) fn begin_epoch(&mut self, epoch: Epoch) {
        let key = self.epoch_key(epoch);
        self.keys.add(key);
    }

    pub(crate) fn epoch_key(&self, epoch: Epoch) -> EpochKey {
        EpochKey { epoch, key: self.entropy.0.derive(b"cookie", epoch.0) }
    }
}
