//! Heartbeats: small authenticated datagrams that say that a node lives, and what it believes.
//!
//! Layout, network byte order (also in `docs/heartbeat.md`):
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic `OLHB` |
//! | 4 | 1 | version, 1 |
//! | 5 | 1 | flags: bit 0 sender is node B, bit 1 synchronised, bit 2 answer at once |
//! | 6 | 1 | role, see [`Role`] |
//! | 7 | 1 | zero |
//! | 8 | 8 | incarnation of the sender's process |
//! | 16 | 8 | epoch |
//! | 24 | 8 | the pair's clock, microseconds |
//! | 32 | 8 | counter of the sender: begins at a random number below 2^62, rises by one |
//! | 40 | 8 | highest counter heard from the receiver's present incarnation, or zero |
//! | 48 | 8 | SipHash-2-4 of bytes 0 to 47 under the pair's heartbeat key |

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use super::Epoch;
use crate::config::NodeId;

/// Bytes of a heartbeat on the wire.
pub const HEARTBEAT_LEN: usize = 56;
const MAGIC: [u8; 4] = *b"OLHB";
const VERSION: u8 = 1;

/// The key under which heartbeats are authenticated; both nodes derive it from what they share.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatKey(pub [u8; 16]);

/// What a node says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Just started: listening for its peer.
    Joining,
    /// Serves nobody; takes over when the active node is gone.
    Standby,
    /// Serves the clients.
    Active,
}

impl Role {
    fn code(self) -> u8 {
        match self {
            Role::Joining => 0,
            Role::Standby => 1,
            Role::Active => 2,
        }
    }
}

/// What the sender believes. The rest of a heartbeat (counters) belongs to whoever sends them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beliefs {
    /// Who says so.
    pub node: NodeId,
    /// A random number of the process: another one means that the old process is gone.
    pub incarnation: u64,
    /// The epoch in which it is what it is.
    pub epoch: Epoch,
    /// What it is.
    pub role: Role,
    /// A standby: it holds every session of [`epoch`](Self::epoch). An active node: its standby does.
    pub synchronised: bool,
}

/// A heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// What the sender believes.
    pub beliefs: Beliefs,
    /// The sender wants an answer at once, not at the next interval.
    pub asks: bool,
    /// The pair's clock as the sender has it, microseconds.
    pub clock_us: u64,
    /// Number of this heartbeat.
    pub counter: u64,
    /// The highest counter that the sender has heard from its peer's present incarnation; zero for none.
    pub heard: u64,
}

/// Why a datagram is not a heartbeat of our peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAHeartbeat {
    /// Wrong length or magic: not meant for us.
    #[error("not a heartbeat")]
    Foreign,
    /// A version that this node does not speak.
    #[error("heartbeat of version {0}, this node speaks version 1")]
    Version(u8),
    /// The tag is wrong: another key, or forged.
    #[error("heartbeat not authentic: do both nodes have the same key?")]
    NotAuthentic,
    /// A field has a value that means nothing.
    #[error("heartbeat with a meaningless field")]
    Meaningless,
}

impl Heartbeat {
    /// As it goes onto the wire.
    pub fn encode(&self, key: HeartbeatKey) -> [u8; HEARTBEAT_LEN] {
        let mut out = [0; HEARTBEAT_LEN];
        out[..4].copy_from_slice(&MAGIC);
        out[4] = VERSION;
        out[5] = u8::from(self.beliefs.node == NodeId::B)
            | u8::from(self.beliefs.synchronised) << 1
            | u8::from(self.asks) << 2;
        out[6] = self.beliefs.role.code();
        let numbers = [
            self.beliefs.incarnation,
            self.beliefs.epoch.0,
            self.clock_us,
            self.counter,
            self.heard,
        ];
        for (slot, number) in out[8..48].chunks_exact_mut(8).zip(numbers) {
            slot.copy_from_slice(&number.to_be_bytes());
        }
        let tag = tag(key, &out[..48]);
        out[48..].copy_from_slice(&tag.to_be_bytes());
        out
    }

    /// Reads a datagram.
    ///
    /// # Errors
    /// Why it is not a heartbeat; the caller counts and drops it.
    pub fn decode(datagram: &[u8], key: HeartbeatKey) -> Result<Self, NotAHeartbeat> {
        let bytes: &[u8; HEARTBEAT_LEN] =
            datagram.try_into().map_err(|_| NotAHeartbeat::Foreign)?;
        if bytes[..4] != MAGIC {
            return Err(NotAHeartbeat::Foreign);
        }
        if bytes[4] != VERSION {
            return Err(NotAHeartbeat::Version(bytes[4]));
        }
        let number = |at: usize| {
            bytes[at..at + 8].iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
        };
        if number(48) != tag(key, &bytes[..48]) {
            return Err(NotAHeartbeat::NotAuthentic);
        }
        let role = match bytes[6] {
            0 => Role::Joining,
            1 => Role::Standby,
            2 => Role::Active,
            _ => return Err(NotAHeartbeat::Meaningless),
        };
        Ok(Heartbeat {
            beliefs: Beliefs {
                node: if bytes[5] & 1 == 0 { NodeId::A } else { NodeId::B },
                incarnation: number(8),
                epoch: Epoch(number(16)),
                role,
                synchronised: bytes[5] & 2 != 0,
            },
            asks: bytes[5] & 4 != 0,
            clock_us: number(24),
            counter: number(32),
            heard: number(40),
        })
    }
}

fn tag(key: HeartbeatKey, bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new_with_key(&key.0);
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: HeartbeatKey = HeartbeatKey([7; 16]);

    fn example() -> Heartbeat {
        Heartbeat {
            beliefs: Beliefs {
                node: NodeId::B,
                incarnation: 0x0102_0304_0506_0708,
                epoch: Epoch(9),
                role: Role::Standby,
                synchronised: true,
            },
            asks: false,
            clock_us: 1_000_000,
            counter: 3,
            heard: 2,
        }
    }

    #[test]
    fn what_is_sent_is_understood() {
        let bytes = example().encode(KEY);
        assert_eq!(Heartbeat::decode(&bytes, KEY), Ok(example()));
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let bytes = example().encode(KEY);
        for bit in 0..HEARTBEAT_LEN * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Heartbeat::decode(&damaged, KEY).is_err(), "bit {bit}");
        }
        assert_eq!(
            Heartbeat::decode(&bytes, HeartbeatKey([8; 16])),
            Err(NotAHeartbeat::NotAuthentic)
        );
        assert_eq!(Heartbeat::decode(&bytes[1..], KEY), Err(NotAHeartbeat::Foreign));
    }
}
