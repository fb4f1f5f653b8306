//! Messages of the state connection. The transport keeps them whole, in order, and secret.
//!
//! A message is a kind (1 byte) and a body, network byte order. See `docs/replication.md`.

use std::mem;

use bytes::{Buf, TryGetError};
use outlive_tcp::{
    fields::{GetFields, PutFields},
    wire::Endpoint,
};

use super::relay::RelayPart;
use crate::{config::NodeId, opening::keys::EpochKey, pair::Epoch};

/// The largest message, in bytes.
pub const MAX_STATE_MESSAGE: usize = 32 << 10;
/// Version of everything that nodes say to each other here.
pub(crate) const PROTOCOL: u16 = 1;
const MAGIC: [u8; 4] = *b"OLST";

/// What one node says to the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// The first message, both ways.
    Hello(Hello),
    /// The active node: everything follows. What the standby held before stays until the end of it.
    Begin { clock_us: u64, sequence_key: [u8; 16], sessions: u64 },
    /// The standby, if both ends can resume: what it holds since its last complete synchronisation.
    Held(Held),
    /// The active node, in place of [`Begin`](Self::Begin): only what is behind this number follows.
    Resume { clock_us: u64, number: u64 },
    /// Sessions of the initial synchronisation: changes without numbers.
    Snapshot(&'a [u8]),
    /// Changes; the number is that of the last one.
    Changes { last: u64, changes: &'a [u8] },
    /// The standby now has everything, and the pair begins an epoch with this key. Confirmed like a change.
    Complete { number: u64, key: EpochKey },
    /// The standby has applied everything up to this number.
    Confirm { number: u64 },
    /// The active node, in `epoch`, asks the standby to take its place now: everything was told, and the active node
    /// changes nothing any more. Its clock stands at `clock_us`. `keys`: epochs (8) and cookie keys (16) that it believes;
    /// no handshake with them has had an effect of which the standby was not told.
    Handover { epoch: Epoch, clock_us: u64, keys: &'a [u8] },
    /// The standby has done so; it is active in `epoch`, and the roles on this connection are exchanged.
    Taken { epoch: Epoch },
    /// A part of a packet that reached the passive node and is the active node's to handle.
    Relay(RelayPart<'a>),
    /// The passive node, after a handover: what had reached it before its neighbours heard of the other node has been
    /// passed on or relayed.
    Passed,
    /// Which configuration the sender obeys; `reload`: the receiver shall read its own again.
    Configuration { fingerprint: u64, reload: bool },
    /// The server gets no new sessions of that pool any more, or gets some again.
    Drain { drains: bool, server: Endpoint, pool: &'a str },
}

/// How far a standby is: everything up to `number` of the changes that the process with this incarnation has
/// numbered. The default is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Held {
    pub(crate) incarnation: u64,
    pub(crate) number: u64,
}

/// Who is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) protocol: u16,
    pub(crate) node: NodeId,
    pub(crate) incarnation: u64,
    pub(crate) epoch: Epoch,
    pub(crate) active: bool,
    /// It can go on where an earlier connection broke. Nodes that say nothing of it cannot.
    pub(crate) resumes: bool,
    /// It understands [`Message::Handover`] and what follows from it. Earlier builds of this version do not say so.
    pub(crate) hands_over: bool,
    /// It says and understands [`Message::Passed`].
    pub(crate) tells_passed: bool,
    /// It understands changes about migrated connections.
    pub(crate) migrates: bool,
    /// It understands changes of terminated sessions.
    pub(crate) terminates: bool,
    /// It understands that a migration does not take place after all.
    pub(crate) undoes: bool,
}

/// Why a message cannot be obeyed; the connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// It does not have the form of a message.
    #[error("malformed message on the state connection")]
    Malformed,
    /// The peer speaks another version.
    #[error(
        "the peer speaks version {0} of the state protocol, this node version 1: upgrade the older one"
    )]
    Version(u16),
    /// Both nodes have the same name.
    #[error(
        "the peer has the same node name as this node: one of them must be \"a\", the other \"b\""
    )]
    SameName,
    /// Changes are missing, or come twice.
    #[error("the peer's changes do not follow each other: up to {expected} expected, {got} told")]
    Gap {
        /// The number of the last change, had none been missing.
        expected: u64,
        /// The number that was told.
        got: u64,
    },
    /// It does not belong here at this time.
    #[error("unexpected message on the state connection")]
    Unexpected,
}

const HELLO: u8 = 1;
const BEGIN: u8 = 2;
const SNAPSHOT: u8 = 3;
const CHANGES: u8 = 4;
const COMPLETE: u8 = 5;
const CONFIRM: u8 = 6;
const HELD: u8 = 7;
const RESUME: u8 = 8;
const HANDOVER: u8 = 16;
const TAKEN: u8 = 17;
const RELAY: u8 = 18;
const CONFIGURATION: u8 = 19;
const DRAIN: u8 = 20;
const PASSED: u8 = 21;

impl<'a> Message<'a> {
    /// Appends the message.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Message::Hello(hello) => {
                out.push(HELLO);
                out.extend(MAGIC);
                out.extend(hello.protocol.to_be_bytes());
                let flags = u8::from(hello.node == NodeId::B)
                    | u8::from(hello.active) << 1
                    | u8::from(hello.hands_over) << 2
                    | u8::from(hello.resumes) << 3
                    | u8::from(hello.tells_passed) << 4
                    | u8::from(hello.migrates) << 5
                    | u8::from(hello.terminates) << 6
                    | u8::from(hello.undoes) << 7;
                out.push(flags);
                out.extend(hello.incarnation.to_be_bytes());
                out.extend(hello.epoch.0.to_be_bytes());
            }
            Message::Begin { clock_us, sequence_key, sessions } => {
                out.push(BEGIN);
                out.extend(clock_us.to_be_bytes());
                out.extend(sequence_key);
                out.extend(sessions.to_be_bytes());
            }
            Message::Held(held) => {
                out.push(HELD);
                out.extend(held.incarnation.to_be_bytes());
                out.extend(held.number.to_be_bytes());
            }
            Message::Resume { clock_us, number } => {
                out.push(RESUME);
                out.extend(clock_us.to_be_bytes());
                out.extend(number.to_be_bytes());
            }
            Message::Snapshot(changes) => {
                out.push(SNAPSHOT);
                out.extend_from_slice(changes);
            }
            Message::Changes { last, changes } => {
                out.push(CHANGES);
                out.extend(last.to_be_bytes());
                out.extend_from_slice(changes);
            }
            Message::Complete { number, key } => {
                out.push(COMPLETE);
                out.extend(number.to_be_bytes());
                out.extend(key.epoch.0.to_be_bytes());
                out.extend(key.key);
            }
            Message::Confirm { number } => {
                out.push(CONFIRM);
                out.extend(number.to_be_bytes());
            }
            Message::Handover { epoch, clock_us, keys } => {
                out.push(HANDOVER);
                out.extend(epoch.0.to_be_bytes());
                out.extend(clock_us.to_be_bytes());
                out.extend_from_slice(keys);
            }
            Message::Taken { epoch } => {
                out.push(TAKEN);
                out.extend(epoch.0.to_be_bytes());
            }
            Message::Relay(part) => {
                out.push(RELAY);
                part.encode(out);
            }
            Message::Passed => out.push(PASSED),
            Message::Configuration { fingerprint, reload } => {
                out.push(CONFIGURATION);
                out.extend(fingerprint.to_be_bytes());
                out.push(u8::from(*reload));
            }
            Message::Drain { drains, server, pool } => {
                out.push(DRAIN);
                out.push(u8::from(*drains));
                out.put_endpoint(*server);
                out.extend_from_slice(pool.as_bytes());
            }
        }
    }

    /// Reads a message.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, StateError> {
        let mut body = bytes;
        let message = match body.try_get_u8()? {
            HELLO => Message::Hello(Hello::decode(&mut body)?),
            BEGIN => Message::Begin {
                clock_us: body.try_get_u64()?,
                sequence_key: body.try_get_array()?,
                sessions: body.try_get_u64()?,
            },
            HELD => Message::Held(Held {
                incarnation: body.try_get_u64()?,
                number: body.try_get_u64()?,
            }),
            RESUME => {
                Message::Resume { clock_us: body.try_get_u64()?, number: body.try_get_u64()? }
            }
            SNAPSHOT => Message::Snapshot(mem::take(&mut body)),
            CHANGES => {
                Message::Changes { last: body.try_get_u64()?, changes: mem::take(&mut body) }
            }
            COMPLETE => {
                let number = body.try_get_u64()?;
                let key =
                    EpochKey { epoch: Epoch(body.try_get_u64()?), key: body.try_get_array()? };
                Message::Complete { number, key }
            }
            CONFIRM => Message::Confirm { number: body.try_get_u64()? },
            HANDOVER => {
                let epoch = Epoch(body.try_get_u64()?);
                Message::Handover {
                    epoch,
                    clock_us: body.try_get_u64()?,
                    keys: mem::take(&mut body),
                }
            }
            TAKEN => Message::Taken { epoch: Epoch(body.try_get_u64()?) },
            PASSED => Message::Passed,
            CONFIGURATION => {
                let (fingerprint, reload) = (body.try_get_u64()?, body.try_get_u8()?);
                Message::Configuration { fingerprint, reload: reload != 0 }
            }
            DRAIN => {
                let drains = body.try_get_u8()?;
                let server = body.try_get_endpoint()?;
                let pool =
                    std::str::from_utf8(mem::take(&mut body)).map_err(|_| StateError::Malformed)?;
                Message::Drain { drains: drains != 0, server, pool }
            }
            RELAY => Message::Relay(
                RelayPart::decode(mem::take(&mut body)).ok_or(StateError::Malformed)?,
            ),
            _ => return Err(StateError::Malformed),
        };
        if body.is_empty() { Ok(message) } else { Err(StateError::Malformed) }
    }
}

impl Hello {
    fn decode(body: &mut &[u8]) -> Result<Self, StateError> {
        if body.try_get_array()? != MAGIC {
            return Err(StateError::Malformed);
        }
        let protocol = body.try_get_u16()?;
        if protocol != PROTOCOL {
            return Err(StateError::Version(protocol));
        }
        let flags = body.try_get_u8()?;
        Ok(Hello {
            protocol,
            node: if flags & 1 == 0 { NodeId::A } else { NodeId::B },
            active: flags & 2 != 0,
            hands_over: flags & 4 != 0,
            resumes: flags & 8 != 0,
            tells_passed: flags & 16 != 0,
            migrates: flags & 32 != 0,
            terminates: flags & 64 != 0,
            undoes: flags & 128 != 0,
            incarnation: body.try_get_u64()?,
            epoch: Epoch(body.try_get_u64()?),
        })
    }
}

/// There are too few bytes.
impl From<TryGetError> for StateError {
    fn from(_: TryGetError) -> Self {
        StateError::Malformed
    }
}

#[cfg(test)]
mod tests {
    use outlive_tcp::wire::{Checksum, Offload, Segmentation};
    use proptest::prelude::*;

    use super::*;

    fn examples() -> Vec<Message<'static>> {
        let hello = Hello {
            protocol: PROTOCOL,
            node: NodeId::B,
            incarnation: 7,
            epoch: Epoch(8),
            active: true,
            resumes: true,
            hands_over: true,
            tells_passed: true,
            migrates: true,
            terminates: true,
            undoes: true,
        };
        let offload = Offload {
            checksum: Checksum::Partial,
            segmentation: Segmentation::Tcp { size: 1_448, ecn: true },
        };
        vec![
            Message::Hello(hello),
            Message::Begin { clock_us: 1, sequence_key: [2; 16], sessions: 3 },
            Message::Held(Held { incarnation: 7, number: 12 }),
            Message::Resume { clock_us: 1, number: 12 },
            Message::Snapshot(b"abc"),
            Message::Changes { last: 9, changes: b"abc" },
            Message::Complete { number: 9, key: EpochKey { epoch: Epoch(4), key: [5; 16] } },
            Message::Confirm { number: 11 },
            Message::Handover { epoch: Epoch(8), clock_us: 5, keys: b"key" },
            Message::Taken { epoch: Epoch(13) },
            Message::Relay(RelayPart { offload, last: true, bytes: b"abc" }),
            Message::Configuration { fingerprint: 3, reload: true },
            Message::Drain {
                drains: true,
                server: Endpoint::new([10, 0, 0, 2].into(), 80),
                pool: "web",
            },
            Message::Passed,
        ]
    }

    #[test]
    fn what_is_said_is_understood() {
        for message in examples() {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            assert_eq!(Message::decode(&bytes), Ok(message));
        }
    }

    /// A change here is a change of the protocol between two nodes: see docs/replication.md, "Versions".
    #[test]
    fn the_layout_is_fixed() {
        let golden: [&[u8]; 8] = [
            b"\x01OLST\0\x01\xff\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x08",
            b"\x02\0\0\0\0\0\0\0\x01\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\0\0\0\0\0\0\0\x03",
            b"\x07\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x0c",
            b"\x08\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x0c",
            b"\x03abc",
            b"\x04\0\0\0\0\0\0\0\x09abc",
            b"\x05\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x04\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05",
            b"\x06\0\0\0\0\0\0\0\x0b",
        ];
        for (message, expected) in examples().iter().zip(golden) {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            assert_eq!(bytes, expected, "{message:?}");
        }
    }

    /// What the first version said is understood: it could neither resume nor hand over.
    #[test]
    fn the_hello_of_the_first_version_is_understood() {
        let first = b"\x01OLST\0\x01\x03\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x08";
        let Ok(Message::Hello(hello)) = Message::decode(first) else { panic!("not understood") };
        assert!(hello.active && !hello.resumes && !hello.hands_over && !hello.tells_passed);
        assert!(!hello.migrates && !hello.undoes);
        let mut newer = first.to_vec();
        newer[6] = 2;
        // Whatever else it says: it may have changed.
        newer.extend(b"more");
        assert_eq!(Message::decode(&newer), Err(StateError::Version(2)));
    }

    #[test]
    fn the_layout_of_a_handover_is_fixed() {
        let golden: [&[u8]; 6] = [
            b"\x10\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\x05key",
            b"\x11\0\0\0\0\0\0\0\x0d",
            b"\x12\x1e\x05\xa8abc",
            b"\x13\0\0\0\0\0\0\0\x03\x01",
            b"\x14\x01\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\0\0\x02\0\x50web",
            b"\x15",
        ];
        for (message, golden) in examples()[8..].iter().zip(golden) {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            assert_eq!(bytes, golden);
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Message::decode(&bytes);
        }
    }
}
