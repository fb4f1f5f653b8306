//! Changes on their way to the standby.
//!
//! Each change has a number; the standby confirms numbers. A change on the wire, network byte order:
//! kind (1), length of the body (2), body. The bodies are listed in `docs/replication.md`.

use std::time::Duration;

use outlive_tcp::{
    seq::Seq,
    time::Time,
    wire::{Endpoint, FourTuple},
};

use crate::{
    flows::Side,
    session::{
        Phase,
        record::{ENDPOINT_LEN, RECORD_LEN, Record, decode_endpoint, encode_endpoint},
    },
};

/// Something that happened to a session. Sessions are named by the tuple of the client's packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change<'a> {
    /// It was established. With the inserted bytes, which may be none.
    Opened { record: &'a Record, prefix: &'a [u8] },
    /// The inserted bytes are acknowledged.
    PrefixDone { client: FourTuple },
    /// It is over, and kept for late segments.
    Ended { client: FourTuple, phase: Phase },
    /// The FIN of `side` was acknowledged.
    HalfClosed { client: FourTuple, side: Side },
    /// It was removed.
    Forgotten { client: FourTuple },
    /// Bytes up to there are acknowledged: to the client, to the server, each in its own numbers.
    Progress { client: FourTuple, positions: [Seq; 2] },
}

/// A change as the standby reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReceivedChange {
    /// See [`Change`].
    Opened {
        record: Box<Record>,
        prefix: Vec<u8>,
    },
    PrefixDone {
        client: FourTuple,
    },
    Ended {
        client: FourTuple,
        phase: Phase,
    },
    HalfClosed {
        client: FourTuple,
        side: Side,
    },
    Forgotten {
        client: FourTuple,
    },
    Progress {
        client: FourTuple,
        positions: [Seq; 2],
    },
}

const OPENED: u8 = 1;
const PREFIX_DONE: u8 = 2;
const ENDED: u8 = 3;
const FORGOTTEN: u8 = 4;
const PROGRESS: u8 = 5;
const HALF_CLOSED: u8 = 6;
const TUPLE_LEN: usize = 2 * ENDPOINT_LEN;
const HEADER_LEN: usize = 3;

impl Change<'_> {
    /// Appends the change.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend([0; HEADER_LEN]);
        let kind = match self {
            Change::Opened { record, prefix } => {
                record.encode(out);
                out.extend_from_slice(prefix);
                OPENED
            }
            Change::PrefixDone { client } => {
                encode_tuple(client, out);
                PREFIX_DONE
            }
            Change::Ended { client, phase } => {
                encode_tuple(client, out);
                out.push(match phase {
                    Phase::Reset(Side::Client) => 1,
                    Phase::Reset(Side::Server) => 2,
                    _ => 0,
                });
                ENDED
            }
            Change::HalfClosed { client, side } => {
                encode_tuple(client, out);
                out.push(u8::from(*side == Side::Server));
                HALF_CLOSED
            }
            Change::Forgotten { client } => {
                encode_tuple(client, out);
                FORGOTTEN
            }
            Change::Progress { client, positions } => {
                encode_tuple(client, out);
                positions.iter().for_each(|p| out.extend(p.0.to_be_bytes()));
                PROGRESS
            }
        };
        let len = (out.len() - start - HEADER_LEN) as u16;
        out[start] = kind;
        out[start + 1..start + HEADER_LEN].copy_from_slice(&len.to_be_bytes());
    }
}

impl ReceivedChange {
    /// Takes one change off the front of `bytes`. `None` if they do not begin with a whole, meaningful one.
    pub(crate) fn decode(bytes: &mut &[u8]) -> Option<ReceivedChange> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let len = usize::from(u16::from_be_bytes([header[1], header[2]]));
        let (body, rest) = rest.split_at_checked(len)?;
        *bytes = rest;
        let (client, tail) = if header[0] == OPENED {
            let (record, prefix) = body.split_first_chunk::<RECORD_LEN>()?;
            let record = Record::decode(record)?;
            let whole = prefix.is_empty() || prefix.len() == usize::from(record.prefix_len);
            return whole.then(|| ReceivedChange::Opened {
                record: Box::new(record),
                prefix: prefix.to_vec(),
            });
        } else {
            decode_tuple(body)?
        };
        match (header[0], tail) {
            (PREFIX_DONE, []) => Some(ReceivedChange::PrefixDone { client }),
            (ENDED, [how]) => {
                let phase = match how {
                    0 => Phase::TimeWait,
                    1 => Phase::Reset(Side::Client),
                    2 => Phase::Reset(Side::Server),
                    _ => return None,
                };
                Some(ReceivedChange::Ended { client, phase })
            }
            (HALF_CLOSED, [0]) => Some(ReceivedChange::HalfClosed { client, side: Side::Client }),
            (HALF_CLOSED, [1]) => Some(ReceivedChange::HalfClosed { client, side: Side::Server }),
            (FORGOTTEN, []) => Some(ReceivedChange::Forgotten { client }),
            (PROGRESS, &[a, b, c, d, e, f, g, h]) => {
                let positions = [[a, b, c, d], [e, f, g, h]].map(|p| Seq(u32::from_be_bytes(p)));
                Some(ReceivedChange::Progress { client, positions })
            }
            _ => None,
        }
    }
}

fn encode_tuple(tuple: &FourTuple, out: &mut Vec<u8>) {
    encode_endpoint(tuple.source, out);
    encode_endpoint(tuple.destination, out);
}

fn decode_tuple(bytes: &[u8]) -> Option<(FourTuple, &[u8])> {
    let (tuple, tail) = bytes.split_first_chunk::<TUPLE_LEN>()?;
    let end = |at: usize| -> Option<Endpoint> {
        Some(decode_endpoint(tuple[at..].first_chunk::<ENDPOINT_LEN>()?))
    };
    Some((FourTuple { source: end(0)?, destination: end(ENDPOINT_LEN)? }, tail))
}

/// Changes that wait for room in the state connection: at most this many bytes. A standby that is further
/// behind is dropped, and synchronised anew when it is well.
const LIMIT: usize = 32 << 20;

/// What is not urgent (a FIN was acknowledged, a session is over) waits for so long for something that is, or
/// for as much: a short connection then costs the two nodes one exchange, not three.
const PATIENCE: Duration = Duration::from_millis(10);
const ENOUGH: usize = 16 << 10;

/// The queue of changes. Empty and without effect while nobody listens.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    listening: bool,
    bytes: Vec<u8>,
    /// What of `bytes` has been fetched.
    fetched: usize,
    /// Number of the last change.
    last: u64,
    /// Number of the last change that was fetched.
    last_fetched: u64,
    overflowed: bool,
    /// Something waits for the confirmation of what is here.
    urgent: bool,
    /// Since when something that is not urgent has been waiting for company.
    waits_since: Option<Time>,
}

impl Journal {
    /// A standby listens from now on. Numbers go on.
    pub(crate) fn start(&mut self) {
        self.stop();
        self.listening = true;
    }

    /// Nobody listens any more.
    pub(crate) fn stop(&mut self) {
        *self = Journal { last: self.last, last_fetched: self.last, ..Journal::default() };
    }

    /// Notes a change and returns its number.
    pub(crate) fn append(&mut self, change: &Change<'_>) -> u64 {
        self.last += 1;
        if self.listening && !self.overflowed {
            self.urgent |= matches!(change, Change::Opened { .. });
            change.encode(&mut self.bytes);
            self.overflowed = self.bytes.len() - self.fetched > LIMIT;
        }
        self.last
    }

    /// Number of the last change.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Whole changes of at most `room` bytes, appended to `out`. Returns the number of the last one, or
    /// `None` if there was none.
    pub(crate) fn fetch(&mut self, room: usize, out: &mut Vec<u8>) -> Option<u64> {
        let pending = &self.bytes[self.fetched..];
        let mut len = 0;
        while let Some(header) = pending[len..].first_chunk::<HEADER_LEN>() {
            let next = len + HEADER_LEN + usize::from(u16::from_be_bytes([header[1], header[2]]));
            if next > room {
                break;
            }
            len = next;
            self.last_fetched += 1;
        }
        if len == 0 {
            return None;
        }
        out.extend_from_slice(&pending[..len]);
        self.fetched += len;
        if self.fetched == self.bytes.len() {
            self.bytes.clear();
            self.fetched = 0;
            self.urgent = false;
            self.waits_since = None;
        } else if self.fetched > self.bytes.len() / 2 {
            self.bytes.drain(..self.fetched);
            self.fetched = 0;
        }
        Some(self.last_fetched)
    }

    /// Whether what waits, if anything does, shall be sent now.
    pub(crate) fn is_due(&mut self, now: Time) -> bool {
        if self.is_empty() {
            return false;
        }
        let since = *self.waits_since.get_or_insert(now);
        self.urgent || self.backlog() >= ENOUGH || now >= since + PATIENCE
    }

    /// When something will be due.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.waits_since.map(|since| since + PATIENCE)
    }

    fn is_empty(&self) -> bool {
        self.bytes.len() == self.fetched
    }

    /// Takes a number for something that is not a change. `None` if changes have to be fetched before.
    pub(crate) fn mark(&mut self) -> Option<u64> {
        if !self.is_empty() {
            self.urgent = true;
            return None;
        }
        self.last += 1;
        self.last_fetched = self.last;
        Some(self.last)
    }

    /// The standby fell so far behind that changes were lost: it must be dropped.
    pub(crate) fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// Bytes that wait.
    pub(crate) fn backlog(&self) -> usize {
        self.bytes.len() - self.fetched
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn tuple(port: u16) -> FourTuple {
        FourTuple {
            source: SocketAddr::from(([10, 0, 0, 9], port)).into(),
            destination: SocketAddr::from(([10, 0, 0, 1], 80)).into(),
        }
    }

    #[test]
    fn changes_come_out_as_they_went_in() {
        let mut journal = Journal::default();
        journal.append(&Change::Forgotten { client: tuple(1) });
        assert!(journal.is_empty(), "nobody listens");
        journal.start();
        let phase = Phase::Reset(Side::Server);
        journal.append(&Change::PrefixDone { client: tuple(2) });
        journal.append(&Change::Ended { client: tuple(3), phase });
        let positions = [Seq(5), Seq(6)];
        let last = journal.append(&Change::Progress { client: tuple(4), positions });
        assert_eq!(last, 4);

        let mut bytes = Vec::new();
        assert_eq!(journal.fetch(10, &mut bytes), None, "no room for one");
        assert_eq!(journal.fetch(90, &mut bytes), Some(3));
        assert_eq!(journal.fetch(90, &mut bytes), Some(4));
        assert_eq!(journal.fetch(90, &mut bytes), None);
        let mut rest = bytes.as_slice();
        let mut next = || ReceivedChange::decode(&mut rest);
        assert_eq!(next(), Some(ReceivedChange::PrefixDone { client: tuple(2) }));
        assert_eq!(next(), Some(ReceivedChange::Ended { client: tuple(3), phase }));
        assert_eq!(next(), Some(ReceivedChange::Progress { client: tuple(4), positions }));
        assert_eq!(next(), None);
    }

    #[test]
    fn what_is_not_urgent_waits_for_company() {
        let now = Time::from_micros(5_000_000);
        let mut journal = Journal::default();
        journal.start();
        assert!(!journal.is_due(now) && journal.deadline().is_none());
        journal.append(&Change::Forgotten { client: tuple(1) });
        assert!(!journal.is_due(now));
        assert_eq!(journal.deadline(), Some(now + PATIENCE));
        assert!(journal.is_due(now + PATIENCE));
        assert!(journal.fetch(1_000, &mut Vec::new()).is_some());
        assert!(journal.deadline().is_none());

        while !journal.is_due(now) {
            journal.append(&Change::Forgotten { client: tuple(1) });
        }
        assert!(journal.backlog() >= ENOUGH);
    }

    #[test]
    fn a_standby_that_falls_behind_is_noticed_and_costs_no_memory_without_end() {
        let mut journal = Journal::default();
        journal.start();
        for _ in 0..LIMIT / 39 + 2 {
            journal.append(&Change::Forgotten { client: tuple(1) });
        }
        assert!(journal.overflowed());
        let backlog = journal.backlog();
        journal.append(&Change::Forgotten { client: tuple(1) });
        assert_eq!(journal.backlog(), backlog);
        journal.start();
        assert!(!journal.overflowed() && journal.is_empty());
    }
}
