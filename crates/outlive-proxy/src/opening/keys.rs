//! The cookie keys of the last epochs.

use std::collections::VecDeque;

use outlive_tcp::{
    cookie::{CookieKey, CookieOptions, SynCookie},
    fault::{self, Fault},
    seq::Seq,
    wire::FourTuple,
};

use crate::pair::Epoch;

/// A cookie lives for a minute. Epochs seldom change within one; where the way between the nodes comes and goes,
/// they do so twice each time, and whoever was answered before must not be forgotten.
const KEYS: usize = 16;

/// The key of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EpochKey {
    pub(crate) epoch: Epoch,
    pub(crate) key: [u8; 16],
}

/// Keys, newest first. The first makes cookies, all are accepted: a key gets here only if its epoch was this
/// node's own, or one in which every record reached this node before it had an effect (invariant 4).
#[derive(Debug, Default)]
pub(crate) struct KeyRing {
    keys: VecDeque<EpochKey>,
}

impl KeyRing {
    /// Adds the key of an epoch, which must be newer than the others; older epochs are ignored.
    pub(crate) fn add(&mut self, key: EpochKey) {
        if self.keys.front().is_none_or(|newest| newest.epoch < key.epoch) {
            self.keys.push_front(key);
            self.keys.truncate(KEYS);
        }
    }

    /// Forgets every key: from now on somebody else may complete handshakes of which this node is not told.
    pub(crate) fn clear(&mut self) {
        if !fault::on(Fault::LonelyCookieAdopted) {
            self.keys.clear();
        }
    }

    /// A cookie of the newest epoch.
    pub(crate) fn make(
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
    pub(crate) fn check(
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
