//! The data plane of one node: what happens to a packet.
//!
//! A packet is looked up by its four-tuple. It belongs to a session (the splice: translated and passed on),
//! to a connection that is being opened, or to nobody (a SYN, a cookie, a stray). What the node itself has
//! to say goes to the outbox, what the standby has to know to the journal; who is active and when to be
//! silent is decided elsewhere ([`crate::pair`]) and only obeyed here ([`Posture`]).

mod clock;
mod delegation;
mod first_data;
mod given_way;
mod icmp;
mod reconfigure;
mod relay;
mod replica;
mod splice;
mod stranger;
mod terminate;
mod wake;
mod withheld;

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    ops::Range,
    time::Duration,
};

use outlive_tcp::{
    fault::{self, Fault},
    time::Time,
    wire::{Endpoint, FourTuple, Malformed, Offload, TcpPacket},
};

use self::{
    delegation::Delegation,
    given_way::GivenWay,
    reconfigure::{Listeners, Retired},
    wake::WakeUp,
    withheld::Withheld,
};
pub(crate) use self::{
    replica::SnapshotCursor,
    splice::{Prefix, shown_scale},
    terminate::Terminated,
    withheld::FirstData,
};
use crate::{
    balance::{Pools, ServerId},
    clock::PairClock,
    config::{Config, Listener, PoolId, Protection},
    counters::{Counter, Counters},
    event::LogEvent,
    flows::{Flow, FlowTable, Side},
    migration::Migrations,
    opening::{
        Openings,
        keys::KeyRing,
        memory::{SpentCookies, Suspects},
    },
    outbox::Outbox,
    ports::Ports,
    replication::{journal::Journal, relay::PacketQueue},
    session::{Phase, Session, Sessions},
};

/// What to do with a packet that was handed to the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Write these bytes of the same buffer back to the device.
    Forward {
        /// Where the packet is now; its start may have moved into the headroom.
        range: Range<usize>,
        /// What the device is asked to do.
        offload: Offload,
    },
    /// Nothing: it was answered, kept, or dropped and counted.
    Done,
}

/// What the pair allows this node at the moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Posture {
    /// It serves.
    pub(crate) active: bool,
    /// It stood still, and must not send before it knows that it is still active.
    pub(crate) unsure: bool,
    /// Until then, unknown connections are met with silence.
    pub(crate) silent_until: Time,
    /// When a new session may have effects.
    pub(crate) release: Release,
    /// Whether it is about to stop serving, or has stopped a moment ago.
    pub(crate) leaving: Leaving,
    /// There are more packets than have been handled so far.
    pub(crate) backlog: bool,
}

/// How far a planned handover has come, for packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// There is none.
    No,
    /// What is being opened may finish; what is new waits.
    Settling,
    /// Nothing may change any more, or it is another node's to change.
    Settled,
}

/// When a new session may have effects (invariant 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    /// At once: there is no standby.
    Now,
    /// When the standby has confirmed the record.
    Confirmed,
    /// When it is settled whether this node may go on without its standby.
    Held,
}

/// Whether a listener takes new connections at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Given,
    /// It is not settled whether this node may go on.
    Undecided,
    /// There is no standby, and the listener insists on one.
    Refused,
}

/// A session that waits for the standby.
#[derive(Debug)]
pub(crate) struct Awaiting {
    /// The change that must be confirmed.
    change: u64,
    slot: usize,
    serial: u32,
    since: Time,
    first: FirstData,
}

/// The secrets of the data plane.
#[derive(Clone, Copy)]
pub(crate) struct Keys {
    /// Of this node's tables; never leaves it.
    pub(crate) table: [u8; 16],
    /// Of initial sequence numbers; the pair's (invariant 6).
    pub(crate) sequence: [u8; 16],
}

/// The data plane.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) config: Config,
    /// Those that are configured, by address: their places.
    listeners: BTreeMap<Endpoint, u16>,
    places: Listeners,
    /// Those that are configured, and retired ones.
    pub(crate) addresses: Vec<IpAddr>,
    retired: Retired,
    pub(crate) clock: PairClock,
    pub(crate) posture: Posture,
    pub(crate) counters: Counters,
    /// Sessions established here, by the listener's address.
    pub(crate) opened: BTreeMap<Endpoint, u64>,
    pub(crate) outbox: Outbox,
    /// When a packet last came that was read while another node was becoming, or had become, the active one.
    pub(crate) late_at: Time,
    /// Packets that the peer has to handle.
    pub(crate) to_relay: PacketQueue,
    /// Packets that the shell shall hand in (again).
    pub(crate) arrived: PacketQueue,
    pub(crate) journal: Journal,
    pub(crate) keys: KeyRing,
    pub(crate) sequence_key: [u8; 16],
    pub(crate) log: VecDeque<LogEvent>,
    pub(crate) flows: FlowTable,
    pub(crate) sessions: Sessions,
    pub(crate) terminated: Terminated,
    pub(crate) openings: Openings,
    pub(crate) pools: Pools,
    pub(crate) ports: Ports,
    pub(crate) port_seed: u32,
    pub(crate) prefixes: BTreeMap<usize, Prefix>,
    awaiting: VecDeque<Awaiting>,
    pub(crate) migrations: Migrations,
    pub(crate) withheld: Withheld,
    /// Bytes of first data that the sessions in `awaiting` hold.
    awaiting_bytes: usize,
    /// There has been a session of which the standby was not told when it was established.
    pub(crate) has_deferred: bool,
    /// Before a handover: sessions from this slot on may have to be told of, from then on.
    untold: Option<(usize, Time)>,
    /// Tuples of sessions that gave way, until the standby knows that they ended.
    given_way: GivenWay,
    pub(crate) spent: SpentCookies,
    pub(crate) suspects: Suspects,
    /// Clients that were told that their connection did not survive a takeover.
    lost: Suspects,
    wake_up: WakeUp,
    /// Until then, a client may come with a cookie that this node has sent.
    own_cookies_until: Time,
    delegation: Delegation,
    /// Port unreachables sent in the second that began then.
    unreachables: (Time, u32),
    /// Number of the synchronisation that was begun last.
    picture: u8,
    /// What is not in it is being removed: from which slot on, and when.
    sweep: Option<(usize, Time)>,
}

/// Events for the log that are kept until they are fetched; later ones are lost.
const LOG_LIMIT: usize = 4_096;

impl Proxy {
    pub(crate) fn new(config: Config, keys: Keys, clock: PairClock, now: Time) -> Self {
        let release = if config.pair.enabled { Release::Held } else { Release::Now };
        let mut proxy = Proxy {
            listeners: BTreeMap::new(),
            places: Listeners::default(),
            addresses: Vec::new(),
            retired: Retired::default(),
            clock,
            posture: Posture {
                active: false,
                unsure: false,
                silent_until: Time::NEVER,
                release,
                leaving: Leaving::No,
                backlog: false,
            },
            counters: Counters::default(),
            opened: BTreeMap::new(),
            outbox: Outbox::default(),
            late_at: Time::ZERO,
            to_relay: PacketQueue::default(),
            arrived: PacketQueue::default(),
            journal: Journal::default(),
            keys: KeyRing::default(),
            sequence_key: keys.sequence,
            log: VecDeque::new(),
            flows: FlowTable::new(
                keys.table,
                2 * (config.limits.sessions as usize + config.limits.openings as usize),
            ),
            sessions: Sessions::new(config.limits.sessions, now),
            terminated: Terminated::new(&config.limits, now),
            openings: Openings::new(&config.limits, now),
            pools: Pools::new(config.mtu),
            ports: Ports::new(config.node, config.source_addresses.clone()),
            port_seed: u32::from_be_bytes([
                keys.table[0],
                keys.table[1],
                keys.table[2],
                keys.table[3],
            ]),
            prefixes: BTreeMap::new(),
            awaiting: VecDeque::new(),
            migrations: Migrations::new(config.node, keys.table, config.limits.sessions, now),
            withheld: Withheld::default(),
            awaiting_bytes: 0,
            has_deferred: false,
            untold: None,
            given_way: GivenWay::default(),
            spent: SpentCookies::new(keys.table, now),
            suspects: Suspects::new(keys.table),
            lost: Suspects::new(keys.sequence),
            wake_up: WakeUp::default(),
            own_cookies_until: Time::ZERO,
            delegation: Delegation::default(),
            unreachables: (Time::ZERO, 0),
            picture: 0,
            sweep: None,
            config: config.clone(),
        };
        proxy.reconfigure(now, config);
        proxy
    }

    /// One IP packet in `buffer[start..end]`; what is before it is headroom.
    pub(crate) fn handle_packet(
        &mut self,
        now: Time,
        buffer: &mut [u8],
        start: usize,
        end: usize,
        offload: Offload,
    ) -> Verdict {
        self.counters.count(Counter::PacketsIn);
        if self.posture.unsure {
            return self.drop(Counter::DropUnsure);
        }
        if self.posture.leaving == Leaving::Settled {
            return self.handle_late(now, buffer, start, end, offload);
        }
        if !self.posture.active {
            if fault::on(Fault::ResetFromOldOwner)
                && let Ok(packet) = TcpPacket::parse(buffer, start, end, offload)
                && let Some(reset) = outlive_tcp::segment::reset_for(&packet)
            {
                self.outbox.send(&reset);
            }
            return self.drop(Counter::DropPassive);
        }
        let packet = match TcpPacket::parse(buffer, start, end, offload) {
            Ok(packet) => packet,
            Err(Malformed::NotTcp) => {
                return match buffer.get(start..end) {
                    Some(packet) => self.handle_other(now, packet),
                    None => self.drop(Counter::DropMalformed),
                };
            }
            Err(Malformed::Fragment) => return self.drop(Counter::DropFragment),
            Err(_) => return self.drop(Counter::DropMalformed),
        };
        if !packet.checksum_ok() {
            return self.drop(Counter::DropChecksum);
        }
        let tuple = packet.tuple();
        let flow = self.find(&tuple);
        if flow.is_none()
            && let Some(slot) = self.migrations.find(&tuple)
        {
            return self.migrated_packet(now, slot, packet);
        }
        if flow.is_none() && self.posture.leaving == Leaving::Settling {
            return self.keep(now, &buffer[start..end], offload);
        }
        match flow {
            Some(Flow::Session(slot, side)) => self.session_packet(now, slot, side, packet),
            Some(Flow::Opening(slot, Side::Client)) => {
                self.opening_client_packet(now, slot, &packet)
            }
            Some(Flow::Opening(slot, Side::Server)) => {
                self.opening_server_packet(now, slot, &packet)
            }
            Some(Flow::Terminated(slot, side)) => self.terminated_packet(now, slot, side, &packet),
            None => self.stranger(now, &packet),
        }
    }

    pub(crate) fn drop(&mut self, reason: Counter) -> Verdict {
        self.counters.count(reason);
        Verdict::Done
    }

    pub(crate) fn find(&self, tuple: &FourTuple) -> Option<Flow> {
        self.flows
            .find(tuple, |flow| tuple_of(&self.sessions, &self.openings, &self.terminated, flow))
    }

    pub(crate) fn enter_flow(&mut self, tuple: &FourTuple, flow: Flow) {
        let (sessions, openings) = (&self.sessions, &self.openings);
        let terminated = &self.terminated;
        self.flows.insert(tuple, flow, |flow| tuple_of(sessions, openings, terminated, flow));
    }

    pub(crate) fn leave_flow(&mut self, tuple: &FourTuple, flow: Flow) {
        self.flows.remove(tuple, flow);
    }

    /// Sessions in the tables, those that are over included.
    pub(crate) fn session_count(&self) -> usize {
        self.sessions.len() + self.terminated.len()
    }

    /// The listener at `address` and its index.
    pub(crate) fn listener_at(&self, address: Endpoint) -> Option<u16> {
        self.listeners.get(&address).copied()
    }

    /// The listener with that index.
    pub(crate) fn listener(&self, index: u16) -> Option<&Listener> {
        self.places.get(index)
    }

    pub(crate) fn is_ours(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    /// How the sessions of a listener are protected; strictly if it is not in the configuration.
    pub(crate) fn protection(&self, listener: u16) -> Protection {
        self.listener(listener).map_or(Protection::default(), |l| l.protection)
    }

    pub(crate) fn admission(&self, listener: u16) -> Admission {
        match self.posture.release {
            Release::Now if self.protection(listener).needs_standby() => Admission::Refused,
            Release::Held if self.protection(listener).needs_standby() => Admission::Undecided,
            _ => Admission::Given,
        }
    }

    /// The pools that a listener can lead to.
    pub(crate) fn pools_of(&self, listener: u16) -> impl Iterator<Item = PoolId> + '_ {
        let listener = self.listener(listener);
        let routed = listener.into_iter().flat_map(|l| l.routes.iter().map(|r| r.pool));
        routed.chain(listener.and_then(|l| l.default_pool))
    }

    pub(crate) fn log(&mut self, event: LogEvent) {
        if self.log.len() < LOG_LIMIT {
            self.log.push_back(event);
        }
    }

    /// Whether sessions are this node's to change and to end.
    pub(crate) fn decides(&self) -> bool {
        self.posture.active && self.posture.leaving != Leaving::Settled
    }

    /// How long the session may be idle.
    fn idle_timeout(&self, session: &Session) -> Duration {
        self.idle_timeout_of(session.listener)
    }

    /// How long a session of that listener may be idle.
    fn idle_timeout_of(&self, listener: u16) -> Duration {
        const DEFAULT: Duration = Duration::from_secs(3 * 3_600);
        self.listener(listener).map_or(DEFAULT, |l| l.idle_timeout)
    }

    /// When the session in `slot` counts as idle if nothing is heard after `since`: after the timeout, and up to a
    /// sixteenth more, different for neighbouring slots. What was synchronised or set up at once would else expire at
    /// once, too.
    fn idle_deadline(&self, slot: usize, since: Time) -> Time {
        let timeout = self.idle_timeout(&self.sessions[slot]);
        // Multiplicative hashing: consecutive numbers are spread evenly.
        let spread = (slot as u32).wrapping_mul(0x9e37_79b9) >> 16;
        since + timeout + timeout / 16 * spread / 0x1_0000
    }

    /// Removes a session and everything that hangs on it, without a word to anybody.
    pub(crate) fn forget_session(&mut self, now: Time, slot: usize) {
        let Some(session) = self.sessions.get(slot) else { return };
        let (client, server) = (session.tuple(Side::Client), session.tuple(Side::Server));
        let (answered, irs) = (session.record.answered, session.record.client.end_isn);
        let (id, over) = (session.server, session.phase.is_over());
        let own = server.destination;
        let had_effect = session.phase != Phase::Unconfirmed;
        self.leave_flow(&client, Flow::Session(slot, Side::Client));
        self.leave_flow(&server, Flow::Session(slot, Side::Server));
        self.take_back(slot);
        self.prefixes.remove(&slot);
        self.withheld.take(slot);
        self.sessions.remove(slot);
        if !over {
            self.connection_ended(id, own);
        }
        if answered && had_effect {
            self.spent.insert(now, &client, irs);
        }
    }

    /// Forgets a session whose tuple is wanted for a new one.
    pub(crate) fn recycle_session(&mut self, now: Time, slot: usize) {
        self.counters.count(Counter::SessionsRecycled);
        let session = &self.sessions[slot];
        for side in [Side::Client, Side::Server] {
            self.given_way.note(self.journal.last(), session.tuple(side));
        }
        self.forget_session(now, slot);
    }

    /// Marks the session as over: it translates late segments until its timer removes it, or its place or
    /// tuple is needed. False if it was over already.
    pub(crate) fn set_over(&mut self, now: Time, slot: usize, phase: Phase) -> bool {
        let session = &mut self.sessions[slot];
        if session.phase.is_over() {
            return false;
        }
        session.phase = phase;
        let (server, own) = (session.server, session.record.server.own());
        self.take_back(slot);
        let linger = match phase {
            Phase::Reset(_) => self.config.timeouts.reset_linger,
            _ => self.config.timeouts.time_wait,
        };
        self.sessions.is_complete(slot);
        self.sessions.is_over(slot);
        self.sessions.set_timer(slot, now + linger);
        self.prefixes.remove(&slot);
        self.connection_ended(server, own);
        true
    }

    /// A connection from `own` to a server, or an attempt, is there.
    pub(crate) fn connection_began(&mut self, server: ServerId, own: Endpoint) {
        self.pools.session_began(server);
        if let Some(used) = self.ports.began(server, own) {
            self.counters.count(Counter::PortsLow);
            let capacity = self.ports.capacity(own.addr.is_ipv4());
            self.log(LogEvent::PortsLow { server: self.pools.address(server), used, capacity });
        }
    }

    /// It is over.
    pub(crate) fn connection_ended(&mut self, server: ServerId, own: Endpoint) {
        self.pools.session_ended(server);
        self.ports.ended(server, own);
    }

    /// Makes room for one more session, from those that are over; false if every one is alive.
    pub(crate) fn make_room(&mut self, now: Time) -> bool {
        while self.sessions.is_full() {
            let Some(oldest) = self.sessions.oldest_over() else { return false };
            self.counters.count(Counter::SessionsRecycled);
            self.forget_session(now, oldest);
        }
        true
    }

    /// What must hold after every input. Costs a walk over everything: for tests and the simulator.
    pub(crate) fn check_invariants(&self) {
        let with_server = self.openings.slots().into_iter();
        let with_server = with_server.filter(|s| self.openings[*s].attempt.is_some()).count();
        let both = 2 * (self.sessions.len() + self.terminated.len());
        let entries = both + self.openings.len() + with_server;
        self.terminated.check_invariants(&mut |tuple, slot, side| {
            assert_eq!(self.find(&tuple), Some(Flow::Terminated(slot, side)), "{tuple:?}");
        });
        assert_eq!(self.flows.len(), entries, "every connection is in the index once");
        for (slot, session) in self.sessions.iter() {
            for side in [Side::Client, Side::Server] {
                let tuple = session.tuple(side);
                assert_eq!(self.find(&tuple), Some(Flow::Session(slot, side)), "{tuple:?}");
            }
            if session.phase == Phase::Unconfirmed {
                assert!(self.posture.release != Release::Now || !self.posture.active);
            }
        }
        for (slot, session) in self.sessions.iter() {
            let untold = matches!(session.phase, Phase::Answering | Phase::Quiet | Phase::Reset(_));
            assert!(session.told || untold, "{:?}, and nobody was told", session.phase);
            if self.withheld.contains(slot) {
                assert_eq!(session.phase, Phase::Unconfirmed, "data is withheld");
            }
        }
        self.migrations.check_invariants();
        for slot in self.prefixes.keys() {
            assert!(self.sessions.get(*slot).is_some(), "a prefix without a session");
        }
        assert!(self.sessions.len() <= self.config.limits.sessions as usize);
        assert!(self.openings.len() <= self.config.limits.openings as usize);
    }
}

/// The tuple of a flow that is in the index.
pub(crate) fn tuple_of(
    sessions: &Sessions,
    openings: &Openings,
    terminated: &Terminated,
    flow: Flow,
) -> FourTuple {
    match flow {
        Flow::Terminated(slot, side) => terminated.tuple(slot, side),
        Flow::Session(slot, side) => sessions[slot].tuple(side),
        Flow::Opening(slot, Side::Client) => openings[slot].tuple,
        Flow::Opening(slot, Side::Server) => {
            let opening = &openings[slot];
            opening.attempt.as_ref().map_or(opening.tuple, |attempt| attempt.tuple())
        }
    }
}
