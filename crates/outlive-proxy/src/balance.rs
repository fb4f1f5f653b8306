//! Pools and their servers: who is chosen, who is passed over, what their connections look like.

use std::{collections::BTreeSet, hash::Hasher};

use outlive_tcp::{
    time::Time,
    wire::{Endpoint, FourTuple, Options},
};
use siphasher::sip::SipHasher13;

use crate::{
    config::{Balance, Config, Pool, PoolId},
    status::ServerStatus,
};

/// A server, in whichever pools it is. Stable for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServerId(pub(crate) u16);

/// What connections of a server look like: learnt from its SYN-ACKs, shown to clients that are answered
/// before their server is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Traits {
    pub(crate) mss: u16,
    pub(crate) window_scale: Option<u8>,
    pub(crate) sack: bool,
    pub(crate) timestamps: bool,
    /// Window of the SYN-ACK, which is never scaled.
    pub(crate) window: u16,
}

/// A server that says less than this is not believed here, where it would count for the clients of every other
/// server, too. It gets smaller segments all the same, and lets the rest wait if its window really is so small.
const LEAST_MSS: u16 = 536;
const LEAST_WINDOW: u16 = 2_048;

impl Traits {
    /// What a present-day server is expected to say before one has been seen. A server that says less is
    /// bridged by the translation.
    fn expected(mtu: u16, ipv4: bool) -> Self {
        let headers = if ipv4 { 40 } else { 60 };
        let mss = mtu.saturating_sub(headers);
        Traits { mss, window_scale: Some(7), sack: true, timestamps: true, window: 65_535 }
    }

    /// What holds for both.
    fn common(self, other: Traits) -> Traits {
        Traits {
            mss: self.mss.min(other.mss),
            window_scale: self
                .window_scale
                .and(other.window_scale)
                .max(self.window_scale.or(other.window_scale)),
            sack: self.sack && other.sack,
            timestamps: self.timestamps && other.timestamps,
            window: self.window.min(other.window),
        }
    }
}

#[derive(Debug)]
struct ServerState {
    address: Endpoint,
    sessions: u32,
    /// SYNs that it answered, and that it did not.
    answered: u64,
    failed: u64,
    /// It refused or did not answer; passed over until then, if there is another.
    down_until: Time,
    learnt: Option<Traits>,
}

#[derive(Debug)]
struct PoolState {
    config: Pool,
    members: Vec<ServerId>,
    /// Members that get no new sessions.
    draining: Vec<ServerId>,
    next: usize,
}

/// All pools and servers.
#[derive(Debug)]
pub(crate) struct Pools {
    pools: Vec<PoolState>,
    servers: Vec<ServerState>,
    /// What operators said, also of pools and servers that only the peer knows yet.
    drains: BTreeSet<(String, Endpoint)>,
    mtu: u16,
}

impl Pools {
    pub(crate) fn new(mtu: u16) -> Self {
        Pools { pools: Vec::new(), servers: Vec::new(), drains: BTreeSet::new(), mtu }
    }

    /// Whether everything in `config` could be given a number, even if all of it were new.
    pub(crate) fn has_places_for(&self, config: &Config) -> bool {
        let servers: usize = config.pools.iter().map(|pool| pool.servers.len()).sum();
        let limit = usize::from(u16::MAX);
        self.pools.len() + config.pools.len() < limit && self.servers.len() + servers < limit
    }

    /// Takes over the pools of `config`, and tells where each of them is: a pool keeps its place as long as its name and
    /// the IP version of its servers are the same, and those that are configured no more keep theirs for
    /// whoever is being connected.
    pub(crate) fn reconfigure(&mut self, config: &Config) -> Vec<PoolId> {
        let enter = |pool: &Pool| {
            let members = pool.servers.iter().map(|s| self.intern(s.address)).collect();
            let version = |pool: &Pool| pool.servers.first().map(|s| s.address.addr.is_ipv4());
            let same = |old: &PoolState| {
                old.config.name == pool.name && version(&old.config) == version(pool)
            };
            let index = self.pools.iter().position(same).unwrap_or(self.pools.len());
            let state = PoolState { config: pool.clone(), members, draining: Vec::new(), next: 0 };
            match self.pools.get_mut(index) {
                Some(place) => *place = state,
                None => self.pools.push(state),
            }
            PoolId(index as u16)
        };
        let places = config.pools.iter().map(enter).collect();
        let has = |pool: &Pool, (name, address): &(String, Endpoint)| {
            pool.name == *name && pool.servers.iter().any(|s| s.address == *address)
        };
        // Whoever comes back later comes back for new sessions.
        self.drains.retain(|drain| config.pools.iter().any(|pool| has(pool, drain)));
        self.apply_drains();
        places
    }

    /// The servers of the pools of that name.
    pub(crate) fn servers_of(&self, name: &str) -> Vec<Endpoint> {
        let pools = self.pools.iter().filter(|pool| pool.config.name == name);
        pools.flat_map(|pool| pool.config.servers.iter().map(|s| s.address)).collect()
    }

    /// Sessions with the server at `address`, and attempts.
    pub(crate) fn sessions_of(&self, address: Endpoint) -> u32 {
        self.servers.iter().find(|s| s.address == address).map_or(0, |s| s.sessions)
    }

    /// The server gets no new sessions of the pool any more, or some again. Returns whether that is new.
    pub(crate) fn drain(&mut self, pool: &str, address: Endpoint, drains: bool) -> bool {
        let entry = (pool.to_owned(), address);
        let news = if drains { self.drains.insert(entry) } else { self.drains.remove(&entry) };
        self.apply_drains();
        news
    }

    /// Nobody drains.
    pub(crate) fn forget_drains(&mut self) {
        self.drains.clear();
        self.apply_drains();
    }

    /// Which servers of which pools get no new sessions.
    pub(crate) fn drains(&self) -> impl Iterator<Item = (&str, Endpoint)> {
        self.drains.iter().map(|(pool, address)| (pool.as_str(), *address))
    }

    fn apply_drains(&mut self) {
        for pool in &mut self.pools {
            let drains = |id: &ServerId| {
                let address = self.servers[usize::from(id.0)].address;
                self.drains.contains(&(pool.config.name.clone(), address))
            };
            pool.draining = pool.members.iter().copied().filter(drains).collect();
        }
    }

    /// The server at `address`, entered if it is new: a standby may be told of servers that its own
    /// configuration does not name.
    pub(crate) fn intern(&mut self, address: Endpoint) -> ServerId {
        if let Some(known) = self.servers.iter().position(|s| s.address == address) {
            return ServerId(known as u16);
        }
        self.servers.push(ServerState {
            address,
            sessions: 0,
            answered: 0,
            failed: 0,
            down_until: Time::ZERO,
            learnt: None,
        });
        ServerId((self.servers.len() - 1) as u16)
    }

    pub(crate) fn config(&self, pool: PoolId) -> &Pool {
        &self.pools[usize::from(pool.0)].config
    }

    pub(crate) fn address(&self, server: ServerId) -> Endpoint {
        self.servers[usize::from(server.0)].address
    }

    /// A server of `pool` that is not among `tried`: one that is believed to be up, else any. `content` is the hash of what the client's data
    /// showed.
    pub(crate) fn choose(
        &mut self,
        pool: PoolId,
        tried: &[ServerId],
        now: Time,
        content: Option<u64>,
    ) -> Option<ServerId> {
        let state = &mut self.pools[usize::from(pool.0)];
        let count = state.members.len();
        let turn = state.next;
        state.next = (turn + 1) % count.max(1);
        let in_turn = (0..count).map(|i| state.members[(turn + i) % count]);
        let candidates = in_turn.filter(|id| !tried.contains(id) && !state.draining.contains(id));
        // `min_by_key` keeps the first of equals, which is the one whose turn it is.
        candidates.min_by_key(|id| {
            let server = &self.servers[usize::from(id.0)];
            let load = match state.config.balance {
                Balance::RoundRobin => 0,
                Balance::LeastConnections => server.sessions,
                Balance::Content => content.map_or(0, |content| rank(content, server.address)),
            };
            (server.down_until > now, load)
        })
    }

    /// `server` refused or did not answer.
    pub(crate) fn failed(&mut self, server: ServerId, pool: PoolId, now: Time) {
        let retry_after = self.pools[usize::from(pool.0)].config.retry_after;
        let state = &mut self.servers[usize::from(server.0)];
        state.down_until = now + retry_after;
        state.failed += 1;
    }

    /// `server` has taken a connection in another way than by answering a SYN.
    pub(crate) fn is_up(&mut self, server: ServerId) {
        let state = &mut self.servers[usize::from(server.0)];
        state.down_until = Time::ZERO;
        state.answered += 1;
    }

    /// `server` answered a SYN that offered `offered` with `answered`.
    pub(crate) fn answered(
        &mut self,
        server: ServerId,
        offered: &Options,
        answered: &Options,
        window: u16,
    ) {
        let expected = Traits::expected(self.mtu, self.address(server).addr.is_ipv4());
        let state = &mut self.servers[usize::from(server.0)];
        state.down_until = Time::ZERO;
        state.answered += 1;
        let before = state.learnt.unwrap_or(expected);
        // What was not offered could not be answered: that says nothing about the server.
        state.learnt = Some(Traits {
            mss: answered.mss.unwrap_or(LEAST_MSS).max(LEAST_MSS),
            window_scale: offered
                .window_scale
                .map_or(before.window_scale, |_| answered.window_scale),
            sack: if offered.sack_permitted { answered.sack_permitted } else { before.sack },
            timestamps: offered
                .timestamps
                .map_or(before.timestamps, |_| answered.timestamps.is_some()),
            window: window.max(LEAST_WINDOW),
        });
    }

    /// What all servers of these pools have in common, as far as is known.
    pub(crate) fn traits(&self, pools: impl Iterator<Item = PoolId>, ipv4: bool) -> Traits {
        let expected = Traits::expected(self.mtu, ipv4);
        let members = pools.flat_map(|p| &self.pools[usize::from(p.0)].members);
        let learnt = members.filter_map(|id| self.servers[usize::from(id.0)].learnt);
        learnt
            .reduce(Traits::common)
            .map_or(expected, |t| Traits { mss: t.mss.min(expected.mss), ..t })
    }

    pub(crate) fn session_began(&mut self, server: ServerId) {
        self.servers[usize::from(server.0)].sessions += 1;
    }

    pub(crate) fn session_ended(&mut self, server: ServerId) {
        let sessions = &mut self.servers[usize::from(server.0)].sessions;
        *sessions = sessions.saturating_sub(1);
    }

    /// Every server as it is.
    pub(crate) fn servers(&self, now: Time) -> impl Iterator<Item = ServerStatus> + '_ {
        self.servers.iter().map(move |server| ServerStatus {
            address: server.address,
            sessions: server.sessions,
            up: server.down_until <= now,
            draining: self.drains.iter().any(|(_, drains)| *drains == server.address),
            answered: server.answered,
            failed: server.failed,
        })
    }
}

/// The place of a server among those for this content: the lowest has it (rendezvous hashing). A server that comes or goes
/// moves only what it gets or had. The same on both nodes, so without a key.
fn rank(content: u64, server: Endpoint) -> u32 {
    let mut hasher = SipHasher13::new();
    hasher.write_u64(content);
    hasher.write(&FourTuple::new(server, server).to_bytes());
    (hasher.finish() >> 32) as u32
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use super::*;
    use crate::config::{Limits, NodeId, PairConfig, Server, Timeouts};

    const POOL: PoolId = PoolId(0);

    fn pools(balance: Balance) -> Pools {
        let server = |port| Server { address: SocketAddr::from(([10, 0, 0, 2], port)).into() };
        let pool = Pool {
            name: "p".into(),
            balance,
            servers: vec![server(1), server(2), server(3)],
            proxy_protocol: None,
            connect_timeout: Duration::from_secs(1),
            retry_after: Duration::from_secs(5),
        };
        let mut pools = Pools::new(1_500);
        pools.reconfigure(&Config {
            node: NodeId::A,
            listeners: vec![],
            pools: vec![pool],
            source_addresses: vec![],
            migration: Default::default(),
            pair: PairConfig::alone(),
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            mtu: 1500,
        });
        pools
    }

    #[test]
    fn round_robin_passes_over_a_server_that_is_down() {
        let mut pools = pools(Balance::RoundRobin);
        let now = Time::from_micros(1);
        let first: Vec<_> = (0..3).map(|_| pools.choose(POOL, &[], now, None).unwrap().0).collect();
        assert_eq!(first, [0, 1, 2]);
        pools.failed(ServerId(0), POOL, now);
        for _ in 0..6 {
            assert_ne!(pools.choose(POOL, &[], now, None), Some(ServerId(0)));
        }
        // With nobody else left it is tried all the same.
        assert_eq!(pools.choose(POOL, &[ServerId(1), ServerId(2)], now, None), Some(ServerId(0)));
        assert_eq!(pools.choose(POOL, &[ServerId(0), ServerId(1), ServerId(2)], now, None), None);
        let later = now + Duration::from_secs(6);
        assert!((0..3).any(|_| pools.choose(POOL, &[], later, None) == Some(ServerId(0))));
    }

    #[test]
    fn a_draining_server_gets_nothing_new() {
        let mut pools = pools(Balance::RoundRobin);
        let address = pools.address(ServerId(1));
        assert!(pools.drain("p", address, true) && !pools.drain("p", address, true));
        for _ in 0..6 {
            assert_ne!(pools.choose(POOL, &[], Time::ZERO, None), Some(ServerId(1)));
        }
        assert_eq!(pools.choose(POOL, &[ServerId(0), ServerId(2)], Time::ZERO, None), None);
        assert!(pools.drain("p", address, false));
        assert!((0..3).any(|_| pools.choose(POOL, &[], Time::ZERO, None) == Some(ServerId(1))));
    }

    #[test]
    fn least_connections() {
        let mut pools = pools(Balance::LeastConnections);
        pools.session_began(ServerId(0));
        pools.session_began(ServerId(2));
        for _ in 0..4 {
            assert_eq!(pools.choose(POOL, &[], Time::ZERO, None), Some(ServerId(1)));
        }
        pools.session_began(ServerId(1));
        pools.session_ended(ServerId(2));
        assert_eq!(pools.choose(POOL, &[], Time::ZERO, None), Some(ServerId(2)));
    }

    #[test]
    fn the_same_content_meets_the_same_server_as_long_as_it_is_there() {
        let mut pools = pools(Balance::Content);
        let now = Time::from_micros(1);
        let all: Vec<_> =
            (0..200).map(|c| pools.choose(POOL, &[], now, Some(c)).unwrap()).collect();
        assert!((0..3).all(|server| all.iter().filter(|id| id.0 == server).count() > 30));
        pools.failed(ServerId(0), POOL, now);
        for (content, before) in (0..200).zip(&all) {
            let after = pools.choose(POOL, &[], now, Some(content)).unwrap();
            assert_eq!(after == *before, before.0 != 0, "only what it had goes elsewhere");
        }
        let without: Vec<_> = (0..2).map(|_| pools.choose(POOL, &[], now, None)).collect();
        assert_ne!(without[0], without[1], "in turn");
    }

    #[test]
    fn clients_are_shown_what_every_server_has() {
        let mut pools = pools(Balance::RoundRobin);
        let all = || [POOL].into_iter();
        assert_eq!(pools.traits(all(), true).mss, 1460);
        let timestamps = Some(Default::default());
        let offered = Options {
            sack_permitted: true,
            timestamps,
            window_scale: Some(3),
            ..Options::default()
        };
        let plain = Options {
            mss: Some(1400),
            sack_permitted: true,
            window_scale: Some(9),
            ..Options::default()
        };
        pools.answered(ServerId(0), &offered, &plain, 30_000);
        let rich =
            Options { mss: Some(1460), timestamps, window_scale: Some(7), ..Options::default() };
        pools.answered(ServerId(1), &offered, &rich, 60_000);
        let traits = pools.traits(all(), true);
        let expected = Traits {
            mss: 1400,
            window_scale: Some(9),
            sack: false,
            timestamps: false,
            window: 30_000,
        };
        assert_eq!(traits, expected);
    }

    #[test]
    fn one_server_cannot_close_the_door_to_the_others() {
        let mut pools = pools(Balance::RoundRobin);
        let tiny = Options { mss: Some(1), ..Options::default() };
        pools.answered(ServerId(0), &Options::default(), &tiny, 0);
        let traits = pools.traits([POOL].into_iter(), true);
        assert_eq!((traits.mss, traits.window), (LEAST_MSS, LEAST_WINDOW));
    }
}
