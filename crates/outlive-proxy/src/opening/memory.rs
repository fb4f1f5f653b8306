//! Two small memories about strangers' segments, both bounded.

use std::{hash::Hasher, time::Duration};

use hashbrown::HashTable;
use outlive_tcp::{
    cookie::COOKIE_LIFETIME,
    fault::{self, Fault},
    seq::Seq,
    time::Time,
    wire::FourTuple,
};
use siphasher::sip::SipHasher13;

fn fingerprint(key: &[u8; 16], tuple: &FourTuple, isn: u32) -> u64 {
    let mut hasher = SipHasher13::new_with_key(key);
    hasher.write(&tuple.to_bytes());
    hasher.write_u32(isn);
    hasher.finish()
}

/// How many handshakes a generation remembers.
const SPENT_LIMIT: usize = 4 << 20;

/// Handshakes whose session is gone while their cookie is still valid: a late copy of the first data must
/// not open the connection, and do the request, a second time.
#[derive(Debug)]
pub struct SpentCookies {
    key: [u8; 16],
    /// The newest generation, and the ones before it; each lasts for half the life of a cookie.
    generations: [HashTable<u64>; 3],
    since: Time,
}

impl SpentCookies {
    /// An empty memory; `key` is that of its hash.
    pub fn new(key: [u8; 16], now: Time) -> Self {
        SpentCookies { key, generations: Default::default(), since: now }
    }

    /// The cookie of the client's connection with initial sequence number `irs` must not be used again.
    pub fn insert(&mut self, now: Time, tuple: &FourTuple, irs: Seq) {
        self.turn(now);
        let print = fingerprint(&self.key, tuple, irs.0);
        let newest = &mut self.generations[0];
        if newest.len() < SPENT_LIMIT && newest.find(print, |p| *p == print).is_none() {
            newest.insert_unique(print, print, |p| *p);
        }
    }

    /// Whether it was used.
    pub fn contains(&mut self, now: Time, tuple: &FourTuple, irs: Seq) -> bool {
        self.turn(now);
        if fault::on(Fault::SpentCookieAdopted) {
            return false;
        }
        let print = fingerprint(&self.key, tuple, irs.0);
        self.generations.iter().any(|g| g.find(print, |p| *p == print).is_some())
    }

    fn turn(&mut self, now: Time) {
        let half = COOKIE_LIFETIME / 2;
        let turns = now.since(self.since).as_micros() / half.as_micros();
        for _ in 0..turns.min(self.generations.len() as u128) {
            self.generations.rotate_right(1);
            // Not cleared: after a burst the memory is given back.
            self.generations[0] = HashTable::new();
        }
        if turns > 0 {
            self.since = now;
        }
    }
}

const SUSPECTS: usize = 4_096;
/// Longer than a client takes to repeat a lost first segment.
const PATIENCE: Duration = Duration::from_secs(3);
const FORGET: Duration = Duration::from_secs(120);

/// Unknown connections at addresses where clients are answered statelessly. The second segment of a client
/// can arrive when both its ACK and its first segment were lost; to reset it would kill a good connection.
/// So the first unknown segment is met with silence, and only one that still comes seconds later with a
/// reset.
#[derive(Debug)]
pub struct Suspects {
    key: [u8; 16],
    slots: Vec<(u32, Time)>,
}

impl Suspects {
    /// An empty memory; `key` is that of its hash.
    pub fn new(key: [u8; 16]) -> Self {
        Suspects { key, slots: vec![(0, Time::ZERO); SUSPECTS] }
    }

    /// Whether a segment of this connection was not seen here before, or not for long.
    pub fn is_news(&mut self, now: Time, tuple: &FourTuple) -> bool {
        let (slot, tag) = self.place(tuple);
        let (known, last) = std::mem::replace(&mut self.slots[slot], (tag, now));
        known != tag || now.since(last) > FORGET
    }

    fn place(&self, tuple: &FourTuple) -> (usize, u32) {
        let print = fingerprint(&self.key, tuple, 0);
        (print as usize % SUSPECTS, (print >> 32) as u32 | 1)
    }

    /// A segment of an unknown connection: true if it has been so for long enough to be reset.
    pub fn persists(&mut self, now: Time, tuple: &FourTuple) -> bool {
        if fault::on(Fault::ResetInsteadOfSilence) {
            return true;
        }
        let (slot, expected) = self.place(tuple);
        let (tag, first) = &mut self.slots[slot];
        let age = now.since(*first);
        if *tag != expected || age > FORGET {
            (*tag, *first) = (expected, now);
            return false;
        }
        age >= PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn tuple(port: u16) -> FourTuple {
        let endpoint = |text: &str| text.parse::<SocketAddr>().unwrap().into();
        let mut source: outlive_tcp::wire::Endpoint = endpoint("10.0.0.9:1");
        source.port = port;
        FourTuple { source, destination: endpoint("10.0.0.1:80") }
    }

    #[test]
    fn a_spent_cookie_is_remembered_for_as_long_as_it_is_valid() {
        let start = Time::from_micros(1);
        for delay in 0..40 {
            let mut spent = SpentCookies::new([1; 16], start);
            let used = start + Duration::from_secs(delay);
            spent.insert(used, &tuple(1), Seq(7));
            assert!(spent.contains(
                used + COOKIE_LIFETIME - Duration::from_secs(1),
                &tuple(1),
                Seq(7)
            ));
            assert!(!spent.contains(used, &tuple(1), Seq(8)));
            assert!(!spent.contains(used, &tuple(2), Seq(7)));
            assert!(!spent.contains(used + COOKIE_LIFETIME * 3, &tuple(1), Seq(7)));
        }
    }

    #[test]
    fn each_stranger_is_news_once() {
        let mut lost = Suspects::new([1; 16]);
        let now = Time::from_micros(500_000_000);
        assert!(lost.is_news(now, &tuple(1)));
        assert!(!lost.is_news(now + Duration::from_secs(1), &tuple(1)));
        assert!(lost.is_news(now + Duration::from_secs(1), &tuple(2)));
        assert!(lost.is_news(now + Duration::from_secs(500), &tuple(1)));
    }

    #[test]
    fn patience_with_strangers_ends() {
        let mut suspects = Suspects::new([1; 16]);
        let now = Time::from_micros(10_000_000);
        assert!(!suspects.persists(now, &tuple(1)));
        assert!(!suspects.persists(now + Duration::from_secs(1), &tuple(1)));
        assert!(suspects.persists(now + Duration::from_secs(4), &tuple(1)));
        assert!(!suspects.persists(now + Duration::from_secs(300), &tuple(1)));
    }
}
