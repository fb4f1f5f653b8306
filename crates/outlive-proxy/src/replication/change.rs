//! What the standby is told of a session.
//!
//! A change on the wire, network byte order: kind (1), length of the body (2), body. The bodies are listed in
//! `docs/replication.md`.

use outlive_tcp::{
    fields::{GetFields, PutFields},
    seq::Seq,
    wire::FourTuple,
};

use crate::{
    flows::Side,
    migration::{MAPPING_LEN, MappingRecord},
    session::{
        Phase,
        record::{RECORD_LEN, Record},
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
    /// A connection is given to a target: COMMIT may be sent when this is confirmed.
    Migrated { record: &'a MappingRecord },
    /// The target speaks.
    MigrationCommitted { client: FourTuple },
    /// A migrated connection is over, or does not migrate after all.
    MigrationEnded { client: FourTuple },
    /// A connection is not migrated after all: its target was never told to speak. Its client still has everything that it said.
    MigrationUndone { client: FourTuple },
    /// A terminated session was established. With the inserted bytes, which may be none.
    Joined { record: &'a Record, prefix: &'a [u8] },
    /// The stream of `side` of a terminated session ends: the sequence number of its FIN, in its own numbers.
    Ending { client: FourTuple, side: Side, at: Seq },
    /// Nothing: the number was taken by something else.
    Nothing,
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
    Migrated {
        record: Box<MappingRecord>,
    },
    MigrationCommitted {
        client: FourTuple,
    },
    MigrationEnded {
        client: FourTuple,
    },
    MigrationUndone {
        client: FourTuple,
    },
    Joined {
        record: Box<Record>,
        prefix: Vec<u8>,
    },
    Ending {
        client: FourTuple,
        side: Side,
        at: Seq,
    },
    Nothing,
}

const NOTHING: u8 = 0;
const OPENED: u8 = 1;
const PREFIX_DONE: u8 = 2;
const ENDED: u8 = 3;
const FORGOTTEN: u8 = 4;
const PROGRESS: u8 = 5;
const HALF_CLOSED: u8 = 6;
const MIGRATED: u8 = 7;
const MIGRATION_COMMITTED: u8 = 8;
const MIGRATION_ENDED: u8 = 9;
const MIGRATION_UNDONE: u8 = 10;
/// Told only to a peer that says that it understands.
const JOINED: u8 = 32;
const ENDING: u8 = 33;
/// Bytes of a change besides its body.
pub(super) const HEADER_LEN: usize = 3;

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
            Change::Joined { record, prefix } => {
                record.encode(out);
                out.extend_from_slice(prefix);
                JOINED
            }
            Change::Ending { client, side, at } => {
                encode_tuple(client, out);
                out.push(u8::from(*side == Side::Server));
                out.extend(at.0.to_be_bytes());
                ENDING
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
            Change::Migrated { record } => {
                record.encode(out);
                MIGRATED
            }
            Change::MigrationCommitted { client } => {
                encode_tuple(client, out);
                MIGRATION_COMMITTED
            }
            Change::MigrationEnded { client } => {
                encode_tuple(client, out);
                MIGRATION_ENDED
            }
            Change::MigrationUndone { client } => {
                encode_tuple(client, out);
                MIGRATION_UNDONE
            }
            Change::Nothing => NOTHING,
        };
        let len = (out.len() - start - HEADER_LEN) as u16;
        out[start] = kind;
        out[start + 1..start + HEADER_LEN].copy_from_slice(&len.to_be_bytes());
    }
}

/// Length of the whole change at the front of `bytes`.
pub(super) fn len_of_first(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<HEADER_LEN>()?;
    Some(HEADER_LEN + usize::from(u16::from_be_bytes([header[1], header[2]])))
}

impl ReceivedChange {
    /// Takes one change off the front of `bytes`. `None` if they do not begin with a whole, meaningful one.
    pub(crate) fn decode(bytes: &mut &[u8]) -> Option<ReceivedChange> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let len = usize::from(u16::from_be_bytes([header[1], header[2]]));
        let (body, rest) = rest.split_at_checked(len)?;
        *bytes = rest;
        if header[0] == NOTHING {
            return body.is_empty().then_some(ReceivedChange::Nothing);
        }
        if header[0] == MIGRATED {
            let record = MappingRecord::decode(body.as_array::<MAPPING_LEN>()?)?;
            return Some(ReceivedChange::Migrated { record: Box::new(record) });
        }
        let (client, tail) = if header[0] == OPENED || header[0] == JOINED {
            let (record, prefix) = body.split_first_chunk::<RECORD_LEN>()?;
            let record = Box::new(Record::decode(record)?);
            let whole = prefix.is_empty() || prefix.len() == usize::from(record.prefix_len);
            let prefix = prefix.to_vec();
            return whole.then(|| match header[0] {
                OPENED => ReceivedChange::Opened { record, prefix },
                _ => ReceivedChange::Joined { record, prefix },
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
            (MIGRATION_COMMITTED, []) => Some(ReceivedChange::MigrationCommitted { client }),
            (MIGRATION_ENDED, []) => Some(ReceivedChange::MigrationEnded { client }),
            (MIGRATION_UNDONE, []) => Some(ReceivedChange::MigrationUndone { client }),
            (PROGRESS, &[a, b, c, d, e, f, g, h]) => {
                let positions = [[a, b, c, d], [e, f, g, h]].map(|p| Seq(u32::from_be_bytes(p)));
                Some(ReceivedChange::Progress { client, positions })
            }
            (ENDING, &[whose @ 0..=1, a, b, c, d]) => {
                let side = if whose == 0 { Side::Client } else { Side::Server };
                let at = Seq(u32::from_be_bytes([a, b, c, d]));
                Some(ReceivedChange::Ending { client, side, at })
            }
            _ => None,
        }
    }
}

fn encode_tuple(tuple: &FourTuple, out: &mut Vec<u8>) {
    out.put_endpoint(tuple.source);
    out.put_endpoint(tuple.destination);
}

fn decode_tuple(mut bytes: &[u8]) -> Option<(FourTuple, &[u8])> {
    let (source, destination) = (bytes.try_get_endpoint().ok()?, bytes.try_get_endpoint().ok()?);
    Some((FourTuple { source, destination }, bytes))
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;

    pub(in super::super) fn tuple(port: u16) -> FourTuple {
        FourTuple {
            source: SocketAddr::from(([10, 0, 0, 9], port)).into(),
            destination: SocketAddr::from(([10, 0, 0, 1], 80)).into(),
        }
    }

    /// A change here is a change of the protocol between two nodes: see docs/replication.md, "Versions".
    #[test]
    fn the_layout_is_fixed() {
        let client = tuple(0x1234);
        let tuple = "00000000000000000000ffff0a000009123400000000000000000000ffff0a0000010050";
        let phase = Phase::Reset(Side::Server);
        let positions = [Seq(0x0102_0304), Seq(0x0506_0708)];
        let golden = [
            (Change::Nothing, "000000".to_owned()),
            (Change::PrefixDone { client }, format!("020024{tuple}")),
            (Change::Ended { client, phase }, format!("030025{tuple}02")),
            (Change::Forgotten { client }, format!("040024{tuple}")),
            (Change::Progress { client, positions }, format!("05002c{tuple}0102030405060708")),
            (Change::HalfClosed { client, side: Side::Server }, format!("060025{tuple}01")),
            (Change::MigrationCommitted { client }, format!("080024{tuple}")),
            (Change::MigrationEnded { client }, format!("090024{tuple}")),
            (Change::MigrationUndone { client }, format!("0a0024{tuple}")),
            (
                Change::Ending { client, side: Side::Server, at: Seq(0x0102_0304) },
                format!("210029{tuple}0101020304"),
            ),
        ];
        for (change, expected) in golden {
            let mut bytes = Vec::new();
            change.encode(&mut bytes);
            let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hex, expected, "{change:?}");
            assert_eq!(len_of_first(&bytes), Some(bytes.len()));
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0u8..40) {
            let mut made = vec![kind, 0, bytes.len().min(255) as u8];
            made.extend(&bytes);
            for mut rest in [bytes.as_slice(), made.as_slice()] {
                while ReceivedChange::decode(&mut rest).is_some() {}
            }
        }
    }
}
