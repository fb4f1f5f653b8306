//! What the two stacks of a pair say to each other: see `docs/stack-replication.md`.

use outlive_proxy::{
    EpochKey,
    config::NodeId,
    pair::{
        Epoch,
        heartbeat::{Beliefs, Role},
    },
};

/// The largest message, in bytes.
pub const MAX_STATE_MESSAGE: usize = outlive_proxy::MAX_STATE_MESSAGE;
/// Version of everything that is said here.
pub(crate) const PROTOCOL: u16 = 2;
const MAGIC: [u8; 4] = *b"OLSA";
/// Bytes of a [`Message::Part`] before the part.
pub(super) const PART_HEADER: usize = 10;

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// The first one, both ways.
    Hello(Hello),
    /// The active node: everything follows. What was told before counts no more.
    Begin { clock_us: u64 },
    /// A piece of record number `number`. Records follow each other without a gap.
    Part { number: u64, last: bool, bytes: &'a [u8] },
    /// The standby has everything now, and the pair begins an epoch with this key. Confirmed like a
    /// record.
    Complete { number: u64, key: EpochKey },
    /// The standby holds everything up to this number.
    Confirm { number: u64 },
}

/// Who is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) node: NodeId,
    pub(crate) active: bool,
    pub(crate) process: u64,
    pub(crate) epoch: Epoch,
}

/// Why a message cannot be obeyed; the connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// It does not have the form of a message, or contradicts what was said before.
    #[error("malformed message on the state connection")]
    Malformed,
    /// The peer speaks another version.
    #[error("the peer speaks version {0} of the state protocol, this node version {PROTOCOL}")]
    Version(u16),
    /// Both nodes have the same name.
    #[error("the peer has the same node name as this node")]
    SameName,
    /// A record is missing, or comes twice.
    #[error("record {expected} expected, {got} told")]
    Gap {
        /// The number of the next record, had none been missing.
        expected: u64,
        /// The number that was told.
        got: u64,
    },
    /// More than this node's settings allow for one connection, or more connections.
    #[error("the peer tells more than this node's settings allow")]
    TooMuch,
    /// It does not belong here at this time.
    #[error("unexpected message on the state connection")]
    Unexpected,
}

const HELLO: u8 = 1;
const BEGIN: u8 = 2;
const PART: u8 = 3;
const COMPLETE: u8 = 4;
const CONFIRM: u8 = 5;

impl Hello {
    pub(super) fn of(beliefs: &Beliefs) -> Self {
        Hello {
            node: beliefs.node,
            active: beliefs.role == Role::Active,
            process: beliefs.incarnation,
            epoch: beliefs.epoch,
        }
    }
}

impl<'a> Message<'a> {
    /// Appends the message.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Message::Hello(hello) => {
                out.push(HELLO);
                out.extend(MAGIC);
                out.extend(PROTOCOL.to_be_bytes());
                out.push(u8::from(hello.node == NodeId::B) | u8::from(hello.active) << 1);
                out.extend(hello.process.to_be_bytes());
                out.extend(hello.epoch.0.to_be_bytes());
            }
            Message::Begin { clock_us } => {
                out.push(BEGIN);
                out.extend(clock_us.to_be_bytes());
            }
            Message::Part { number, last, bytes } => {
                out.extend([PART, u8::from(*last)]);
                out.extend(number.to_be_bytes());
                out.extend_from_slice(bytes);
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
        }
    }

    /// Reads a message.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, StateError> {
        let (kind, body) = bytes.split_first().ok_or(StateError::Malformed)?;
        let mut body = Body(body);
        let message = match *kind {
            HELLO => Message::Hello(Hello::decode(&mut body)?),
            BEGIN => Message::Begin { clock_us: body.u64()? },
            PART => {
                let [last] = body.take()?;
                if last > 1 {
                    return Err(StateError::Malformed);
                }
                Message::Part { number: body.u64()?, last: last == 1, bytes: body.rest() }
            }
            COMPLETE => {
                let number = body.u64()?;
                let key = EpochKey { epoch: Epoch(body.u64()?), key: body.take()? };
                Message::Complete { number, key }
            }
            CONFIRM => Message::Confirm { number: body.u64()? },
            _ => return Err(StateError::Malformed),
        };
        if body.0.is_empty() { Ok(message) } else { Err(StateError::Malformed) }
    }
}

impl Hello {
    fn decode(body: &mut Body<'_>) -> Result<Self, StateError> {
        if body.take()? != MAGIC {
            return Err(StateError::Malformed);
        }
        let protocol = u16::from_be_bytes(body.take()?);
        if protocol != PROTOCOL {
            return Err(StateError::Version(protocol));
        }
        let [flags] = body.take()?;
        Ok(Hello {
            node: if flags & 1 == 0 { NodeId::A } else { NodeId::B },
            active: flags & 2 != 0,
            process: body.u64()?,
            epoch: Epoch(body.u64()?),
        })
    }
}

/// Reads fields off the front.
pub(super) struct Body<'a>(pub(super) &'a [u8]);

impl<'a> Body<'a> {
    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let (front, rest) = self.0.split_first_chunk::<N>().ok_or(StateError::Malformed)?;
        self.0 = rest;
        Ok(*front)
    }

    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], StateError> {
        let (front, rest) = self.0.split_at_checked(len).ok_or(StateError::Malformed)?;
        self.0 = rest;
        Ok(front)
    }

    pub(super) fn u64(&mut self) -> Result<u64, StateError> {
        self.take().map(u64::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, StateError> {
        self.take().map(u32::from_be_bytes)
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn examples() -> [(Message<'static>, &'static [u8]); 5] {
        let hello = Hello { node: NodeId::B, active: true, process: 7, epoch: Epoch(8) };
        let key = EpochKey { epoch: Epoch(4), key: [5; 16] };
        [
            (Message::Hello(hello), b"\x01OLSA\0\x02\x03\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x08"),
            (Message::Begin { clock_us: 1 }, b"\x02\0\0\0\0\0\0\0\x01"),
            (
                Message::Part { number: 9, last: true, bytes: b"abc" },
                b"\x03\x01\0\0\0\0\0\0\0\x09abc",
            ),
            (
                Message::Complete { number: 9, key },
                b"\x04\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x04\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05\x05",
            ),
            (Message::Confirm { number: 11 }, b"\x05\0\0\0\0\0\0\0\x0b"),
        ]
    }

    /// A change here is a change of the protocol: see docs/stack-replication.md.
    #[test]
    fn the_layout_is_fixed() {
        for (message, golden) in examples() {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            assert_eq!(bytes, golden, "{message:?}");
            assert_eq!(Message::decode(golden), Ok(message));
        }
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = examples()[0].1.to_vec();
        bytes[6] = 3;
        assert_eq!(Message::decode(&bytes), Err(StateError::Version(3)));
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Message::decode(&bytes);
        }
    }
}
