//! The bytes with which a lab client tells a lab server what a connection is for.
//!
//! Every connection begins with an opening of [`OPENING_LEN`] bytes in network byte order. An HTTP
//! request head may stand before it, so that a proxy that routes by host name has a name to see.

use std::time::Duration;

use super::plan::{Plan, Reader, Transfer};

/// Bytes of an [`Opening`] on the wire.
pub(crate) const OPENING_LEN: usize = 112;

/// Bytes of a [`Receipt`] on the wire.
pub(crate) const RECEIPT_LEN: usize = 24;

/// The longest payload of one message; also what a server believes of an opening.
pub(crate) const LONGEST_MESSAGE: u32 = 64 << 10;

const MAGIC: u32 = u32::from_be_bytes(*b"OLab");

/// What a connection is for, as told to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opening {
    /// The connection's number in the book.
    pub(crate) id: u64,
    /// Its group's number in the book.
    pub(crate) group: u32,
    /// The seed of its patterns.
    pub(crate) seed: u64,
    /// What it does.
    pub(crate) plan: Plan,
}

impl Opening {
    pub(crate) fn encode(&self) -> [u8; OPENING_LEN] {
        let mut fields = [0u64; 12];
        let kind = match &self.plan {
            Plan::Transfer(transfer) => {
                let readers = [transfer.reader, transfer.server_reader];
                fields[..4].copy_from_slice(&[
                    transfer.up,
                    transfer.down,
                    transfer.up_pace.unwrap_or(0),
                    transfer.down_pace.unwrap_or(0),
                ]);
                for (at, reader) in [4, 7].into_iter().zip(readers) {
                    fields[at] = reader.pace.unwrap_or(0);
                    fields[at + 1] = reader.stop_after;
                    fields[at + 2] = reader.stop_for.as_millis() as u64;
                }
                fields[10] = u64::from(transfer.server_closes_first);
                1u32
            }
            Plan::Requests { every, request, response } => {
                fields[..3].copy_from_slice(&[
                    every.as_nanos() as u64,
                    u64::from(*request),
                    u64::from(*response),
                ]);
                2
            }
            Plan::Interactive { every } => {
                fields[0] = every.as_nanos() as u64;
                3
            }
            Plan::Idle => 4,
        };
        fields[11] = self.seed;
        let mut bytes = [0; OPENING_LEN];
        bytes[..4].copy_from_slice(&MAGIC.to_be_bytes());
        bytes[4..8].copy_from_slice(&((kind << 24) | self.group).to_be_bytes());
        bytes[8..16].copy_from_slice(&self.id.to_be_bytes());
        for (slot, field) in bytes[16..].chunks_exact_mut(8).zip(fields) {
            slot.copy_from_slice(&field.to_be_bytes());
        }
        bytes
    }

    /// Nothing if these are not the first bytes of a lab client.
    pub(crate) fn decode(bytes: &[u8; OPENING_LEN]) -> Option<Self> {
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let long = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let field = |index: usize| long(16 + index * 8);
        let some = |value: u64| (value != 0).then_some(value);
        let reader = |at: usize| Reader {
            pace: some(field(at)),
            stop_after: field(at + 1),
            stop_for: Duration::from_millis(field(at + 2)),
        };
        let length = |index| u32::try_from(field(index)).ok().filter(|&len| len <= LONGEST_MESSAGE);
        if word(0) != MAGIC {
            return None;
        }
        let plan = match word(4) >> 24 {
            1 => Plan::Transfer(Transfer {
                up: field(0),
                down: field(1),
                up_pace: some(field(2)),
                down_pace: some(field(3)),
                reader: reader(4),
                server_reader: reader(7),
                server_closes_first: field(10) != 0,
            }),
            2 => Plan::Requests {
                every: Duration::from_nanos(field(0)),
                request: length(1)?,
                response: length(2)?,
            },
            3 => Plan::Interactive { every: Duration::from_nanos(field(0)) },
            4 => Plan::Idle,
            _ => return None,
        };
        Some(Self { id: long(8), group: word(4) & 0x00ff_ffff, seed: field(11), plan })
    }
}

/// What the server of a transfer says after its last byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// Bytes that came from the client.
    pub(crate) received: u64,
    /// The hash of these.
    pub(crate) received_hash: u64,
    /// The hash of what the server sent.
    pub(crate) sent_hash: u64,
}

impl Receipt {
    pub(crate) fn encode(self) -> [u8; RECEIPT_LEN] {
        let mut bytes = [0; RECEIPT_LEN];
        let fields = [self.received, self.received_hash, self.sent_hash];
        for (slot, field) in bytes.chunks_exact_mut(8).zip(fields) {
            slot.copy_from_slice(&field.to_be_bytes());
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; RECEIPT_LEN]) -> Self {
        let long = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        Self { received: long(0), received_hash: long(8), sent_hash: long(16) }
    }
}

/// The head of an HTTP request for `host`, to stand before an opening.
pub(crate) fn http_preamble(host: &str) -> Vec<u8> {
    format!("GET /lab HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opening_says_the_same_at_the_other_end() {
        let transfer = Transfer {
            up: 1,
            down: u64::MAX,
            up_pace: Some(3),
            down_pace: None,
            reader: Reader { pace: Some(4), stop_after: 5, stop_for: Duration::from_millis(6) },
            server_reader: Reader { pace: None, stop_after: 7, stop_for: Duration::from_secs(30) },
            server_closes_first: true,
        };
        let every = Duration::from_millis(20);
        let plans = [
            Plan::Transfer(transfer),
            Plan::Requests { every, request: 100, response: 65536 },
            Plan::Interactive { every },
            Plan::Idle,
        ];
        for plan in plans {
            let opening = Opening { id: 1 << 40, group: 7, seed: u64::MAX - 1, plan };
            assert_eq!(Opening::decode(&opening.encode()), Some(opening));
        }
    }

    #[test]
    fn strangers_and_oversized_messages_are_refused() {
        assert_eq!(Opening::decode(&[0; OPENING_LEN]), None);
        let every = Duration::ZERO;
        let plan = Plan::Requests { every, request: LONGEST_MESSAGE + 1, response: 1 };
        let opening = Opening { id: 1, group: 0, seed: 1, plan };
        assert_eq!(Opening::decode(&opening.encode()), None);
    }
}
