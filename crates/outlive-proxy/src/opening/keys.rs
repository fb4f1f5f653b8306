//! The cookie keys of the last epochs.

use std::collections::VecDeque;

use outlive_tcp::{
    cookie::{CookieKey, CookieOptions, SynCookie},
    fault::{self, Fault},
    seq::Seq,
    time::Time,
    wire::FourTuple,
};

use crate::pair::Epoch;

/// A cookie lives for a minute. Epochs seldom change within one; where the way between the nodes comes and goes,
/// they do so twice each time, and whoever was answered before must not be forgotten.
const KEYS: usize = 16;

/// The key of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochKey {
    /// Whose it is.
    pub epoch: Epoch,
    /// The secret.
    pub key: [u8; 16],
}

/// Keys, newest first. The first makes cookies, all are accepted: a key gets here only if its epoch was this
/// node's own, or one in which every record reached this node before it had an effect (invariant 4).
#[derive(Debug, Default)]
pub struct KeyRing {
    keys: VecDeque<EpochKey>,
    /// Keys that are not believed at present, and until when they may be again.
    aside: Option<(Time, VecDeque<EpochKey>)>,
}

impl KeyRing {
    /// Adds the key of an epoch, which must be newer than the others; older epochs are ignored.
    pub fn add(&mut self, key: EpochKey) {
        if self.keys.front().is_none_or(|newest| newest.epoch < key.epoch) {
            self.keys.push_front(key);
            self.keys.truncate(KEYS);
        }
    }

    /// Forgets every key: from now on somebody else may complete handshakes of which this node is not told.
    pub fn clear(&mut self) {
        if !fault::on(Fault::LonelyCookieAdopted) {
            self.keys.clear();
            self.aside = None;
        }
    }

    /// The other node serves alone from now on, for a moment: nothing is believed until [`restore`](Self::restore).
    /// `until`: what that node opened before it is done is still in its table then, though it may be over.
    pub fn set_aside(&mut self, until: Time) {
        self.aside = Some((until, std::mem::take(&mut self.keys)));
    }

    /// Everything that the other node has opened since is known, so that a handshake of which nothing is known had no
    /// effect: the keys that were set aside are good again.
    pub fn restore(&mut self, now: Time) {
        if let Some((_, aside)) = self.aside.take_if(|(until, _)| now < *until) {
            let newest = self.keys.back().map_or(Epoch(u64::MAX), |key| key.epoch);
            self.keys.extend(aside.into_iter().filter(|key| key.epoch < newest));
            self.keys.truncate(KEYS);
        }
        self.aside = None;
    }

    /// Appends every key: epoch (8), key (16).
    pub fn encode(&self, out: &mut Vec<u8>) {
        for EpochKey { epoch, key } in &self.keys {
            out.extend(epoch.0.to_be_bytes());
            out.extend(key);
        }
    }

    /// Believes what the other node believed, which acts no more and has told everything. `None`: it is malformed.
    pub fn adopt(&mut self, bytes: &[u8]) -> Option<()> {
        let (entries, rest) = bytes.as_chunks::<24>();
        let keys = entries.iter().filter_map(|entry| {
            let (epoch, key) = entry.split_first_chunk::<8>()?;
            Some(EpochKey { epoch: Epoch(u64::from_be_bytes(*epoch)), key: key.try_into().ok()? })
        });
        self.keys = keys.take(KEYS).collect();
        self.aside = None;
        rest.is_empty().then_some(())
    }

    /// A cookie of the newest epoch.
    pub fn make(
        &self,
        tuple: FourTuple,
        irs: Seq,
        options: CookieOptions,
        clock_ms: u64,
    ) -> Option<SynCookie> {
        let newest = self.keys.front()?;
        Some(CookieKey::new(newest.key).make(tuple, irs, options, clock_ms))
    }

    /// What a valid cookie says, and the epoch in which it was made.
    pub fn check(
        &self,
        tuple: FourTuple,
        irs: Seq,
        iss: Seq,
        echo: Option<u32>,
        clock_ms: u64,
    ) -> Option<(CookieOptions, Epoch)> {
        self.keys.iter().find_map(|known| {
            let options = CookieKey::new(known.key).check(tuple, irs, iss, echo, clock_ms)?;
            Some((options, known.epoch))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use super::*;

    #[test]
    fn keys_that_were_set_aside_come_back_once_everything_is_known_and_only_soon() {
        let now = Time::from_micros(1_000_000);
        let until = now + Duration::from_secs(5);
        let source = SocketAddr::from(([10, 0, 0, 9], 1)).into();
        let options = CookieOptions {
            mss: 1_460,
            window_scale: None,
            sack_permitted: true,
            timestamps: false,
        };
        let tuple = FourTuple { source, destination: SocketAddr::from(([10, 0, 0, 1], 80)).into() };
        for (synchronised_at, believed) in [(now + Duration::from_secs(1), true), (until, false)] {
            let mut ring = KeyRing::default();
            ring.add(EpochKey { epoch: Epoch(8), key: [8; 16] });
            let cookie = ring.make(tuple, Seq(7), options, 1_000).unwrap();
            let echo = cookie.timestamp;
            let known =
                |ring: &KeyRing| ring.check(tuple, Seq(7), cookie.iss, echo, 1_000).is_some();
            assert!(known(&ring));
            ring.set_aside(until);
            assert!(!known(&ring));
            ring.add(EpochKey { epoch: Epoch(14), key: [14; 16] });
            ring.restore(synchronised_at);
            assert_eq!(known(&ring), believed);
            let newest = ring.make(tuple, Seq(7), options, 1_000).unwrap();
            assert_ne!(newest.iss, cookie.iss, "the newest key makes cookies");

            let (mut bytes, mut heir) = (Vec::new(), KeyRing::default());
            ring.encode(&mut bytes);
            assert_eq!(heir.adopt(&bytes), Some(()));
            assert_eq!(known(&heir), believed, "whoever it is handed over to believes the same");
            assert_eq!(heir.adopt(&bytes[1..]), None);

            ring.clear();
            ring.restore(now);
            assert!(!known(&ring));
        }
    }
}
