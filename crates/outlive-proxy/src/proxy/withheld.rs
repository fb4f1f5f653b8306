//! The first data of sessions whose client was answered before the standby knew of them: withheld until it
//! does.
//!
//! Nothing of it has been acknowledged, so nothing is lost with it; to drop it would cost its sender a
//! retransmission timeout.

use std::collections::BTreeMap;

use outlive_tcp::{seq::Seq, wire::Timestamps};

use crate::flows::Side;

/// Bytes that are withheld of one stream: as much as a window without scaling. Senders begin with less.
const STREAM_LIMIT: usize = 65_535;
/// Bytes that are withheld of all sessions together.
const LIMIT: usize = 64 << 20;

/// What an end said before its session could have effects.
#[derive(Debug, Default)]
pub(crate) struct FirstData {
    pub(crate) data: Vec<u8>,
    pub(crate) fin: bool,
    /// The option of its last segment, if the session was waiting for it: how long ago that was does not show
    /// in the handshake's.
    pub(crate) timestamps: Option<Timestamps>,
}

impl FirstData {
    pub(crate) fn is_empty(&self) -> bool {
        self.data.is_empty() && !self.fin
    }
}

/// A segment that may have to be withheld.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said<'a> {
    /// Its distance from the end's initial sequence number plus one.
    pub(super) at: u32,
    pub(super) payload: &'a [u8],
    pub(super) fin: bool,
    pub(super) timestamps: Option<Timestamps>,
}

impl<'a> Said<'a> {
    /// What begins at `seq` of a stream with that initial number.
    pub(super) fn new(seq: Seq, isn: Seq, payload: &'a [u8]) -> Self {
        Said { at: seq.distance(isn + 1), payload, fin: false, timestamps: None }
    }
}

/// The first data of the client and of the server, by session.
#[derive(Debug, Default)]
pub(crate) struct Withheld {
    sessions: BTreeMap<usize, [FirstData; 2]>,
    bytes: usize,
}

impl Withheld {
    /// From now on, what the ends of this session say is withheld.
    pub(super) fn begin(&mut self, slot: usize) {
        self.sessions.insert(slot, Default::default());
    }

    /// Whether this session's client was answered before the standby knew of it.
    pub(super) fn contains(&self, slot: usize) -> bool {
        self.sessions.contains_key(&slot)
    }

    /// Keeps what continues the stream without a gap; false if there is nothing to keep, or no room. Its sender
    /// will say it again.
    pub(super) fn keep(&mut self, slot: usize, side: Side, said: &Said<'_>) -> bool {
        let Some(streams) = self.sessions.get_mut(&slot) else { return false };
        let first = &mut streams[side as usize];
        let known = (first.data.len() as u32).wrapping_sub(said.at) as usize;
        let room = (STREAM_LIMIT - first.data.len()).min(LIMIT.saturating_sub(self.bytes));
        if known > said.payload.len() || first.fin || said.payload.len() - known > room {
            return false;
        }
        let news = &said.payload[known..];
        first.data.extend_from_slice(news);
        first.fin = said.fin;
        first.timestamps = said.timestamps;
        self.bytes += news.len();
        true
    }

    /// Hands over what was withheld of the client and of the server.
    pub(crate) fn take(&mut self, slot: usize) -> Option<[FirstData; 2]> {
        let streams = self.sessions.remove(&slot)?;
        self.bytes -= streams.iter().map(|first| first.data.len()).sum::<usize>();
        Some(streams)
    }

    /// Forgets what was said, not that it is withheld.
    pub(super) fn forget_data(&mut self) {
        self.sessions.values_mut().for_each(|streams| *streams = Default::default());
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(at: u32, payload: &[u8]) -> Said<'_> {
        Said { at, payload, fin: false, timestamps: None }
    }

    #[test]
    fn what_continues_is_kept_once() {
        let mut withheld = Withheld::default();
        assert!(!withheld.keep(1, Side::Client, &said(0, b"abc")), "not withheld");
        withheld.begin(1);
        assert!(withheld.keep(1, Side::Client, &said(0, b"abc")));
        assert!(!withheld.keep(1, Side::Client, &said(4, b"x")), "a gap");
        assert!(withheld.keep(1, Side::Client, &said(1, b"bcde")), "an overlap");
        assert!(withheld.keep(1, Side::Server, &Said { fin: true, ..said(0, b"hello") }));
        assert!(!withheld.keep(1, Side::Server, &said(5, b"more")), "beyond the FIN");
        let [client, server] = withheld.take(1).unwrap();
        assert_eq!((&client.data[..], client.fin), (&b"abcde"[..], false));
        assert_eq!((&server.data[..], server.fin), (&b"hello"[..], true));
        assert!(withheld.take(1).is_none() && withheld.bytes == 0);
    }

    #[test]
    fn memory_is_bounded() {
        let mut withheld = Withheld::default();
        let chunk = vec![0; STREAM_LIMIT];
        let kept = (0..2_000).filter(|slot| {
            withheld.begin(*slot);
            withheld.keep(*slot, Side::Client, &said(0, &chunk))
        });
        assert_eq!(kept.count(), LIMIT / STREAM_LIMIT);
        assert!(!withheld.keep(0, Side::Client, &said(STREAM_LIMIT as u32, b"x")));
        withheld.forget_data();
        assert!(withheld.contains(1_999) && withheld.keep(1_999, Side::Client, &said(0, &chunk)));
        (0..2_000).for_each(|slot| drop(withheld.take(slot)));
        assert_eq!(withheld.bytes, 0);
    }
}
