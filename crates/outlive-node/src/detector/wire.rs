//! What an external detector asks a node, and what it is answered: fixed layouts, network byte order, also in
//! `docs/external-detector.md`.
//!
//! A question, 56 bytes:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic `OLWT` |
//! | 4 | 1 | version, 1 |
//! | 5 | 1 | kind: 1 asks for the state, 2 orders to take over |
//! | 6 | 1 | flags: bit 0 the node that is meant is b, bit 1 (order) forced |
//! | 7 | 1 | zero |
//! | 8 | 8 | number of the question: begins at a random number, rises by one |
//! | 16 | 8 | the highest epoch that the detector has seen of either node, or zero |
//! | 24 | 8 | order: incarnation of the node as it last said; otherwise zero |
//! | 32 | 8 | order: the challenge that the node last gave; otherwise zero |
//! | 40 | 16 | HMAC-SHA-256 of bytes 0 to 39, its first 16 bytes |
//!
//! An answer, 72 bytes:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic `OLWT` |
//! | 4 | 1 | version, 1 |
//! | 5 | 1 | kind: 129 the state, 130 what became of an order, and the state |
//! | 6 | 1 | flags: bit 0 the node is b, 1 synchronised, 2 unsure, 3 the peer is heard, 4 the peer says it is active, 5 the node waits for orders |
//! | 7 | 1 | role: 0 joining, 1 standby, 2 active |
//! | 8 | 8 | number of the question |
//! | 16 | 8 | epoch |
//! | 24 | 8 | incarnation of the node's process |
//! | 32 | 8 | challenge, to be repeated in an order |
//! | 40 | 8 | sessions |
//! | 48 | 1 | outcome of the order: 1 accepted, 2 active already, 3 about the past, 4 not synchronised, 5 no peer; otherwise zero |
//! | 49 | 7 | zero |
//! | 56 | 16 | HMAC-SHA-256 of bytes 0 to 55, its first 16 bytes |

use hmac::{Hmac, KeyInit, Mac};
use outlive_proxy::{
    config::NodeId,
    pair::{
        Epoch,
        heartbeat::Role,
        order::{Order, Outcome},
    },
};
use sha2::Sha256;

use crate::key::WatchKey;

/// Bytes of a question.
pub const QUESTION_LEN: usize = 56;
/// Bytes of an answer.
pub const ANSWER_LEN: usize = 72;
const TAG_LEN: usize = 16;
const MAGIC: [u8; 4] = *b"OLWT";
const VERSION: u8 = 1;
const ASKS_STATE: u8 = 1;
const ORDERS: u8 = 2;
const TELLS_STATE: u8 = 129;
const TELLS_OUTCOME: u8 = 130;

/// A question of a detector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The node that is meant; another one stays silent, so that exchanged addresses are noticed.
    pub node: NodeId,
    /// Its number, which the answer repeats.
    pub number: u64,
    /// The highest epoch that the detector has seen of either node.
    pub epoch: Epoch,
    /// An order, or only a question.
    pub order: Option<OrderTicket>,
}

/// What a question has in addition if it is an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderTicket {
    /// Also if the node does not hold everything.
    pub forced: bool,
    /// The process that is meant, as it last said itself.
    pub incarnation: u64,
    /// The challenge that it last gave: an order that somebody has recorded does not have it for long.
    pub challenge: u64,
}

impl Question {
    /// The order, if it is one.
    pub fn order(&self) -> Option<Order> {
        self.order.map(|ticket| Order { epoch: self.epoch, forced: ticket.forced })
    }
}

/// What a node says of itself to a detector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeState {
    /// Which node it is.
    pub node: NodeId,
    /// What it is.
    pub role: Role,
    /// In which epoch.
    pub epoch: Epoch,
    /// A random number of its process.
    pub incarnation: u64,
    /// A standby: it holds every session of the epoch. An active node: its standby does.
    pub synchronised: bool,
    /// It stood still, and asks before it goes on.
    pub unsure: bool,
    /// It hears its peer.
    pub hears_peer: bool,
    /// What it hears is that the peer is active.
    pub peer_is_active: bool,
    /// It takes over only when it is told to.
    pub waits_for_orders: bool,
    /// Sessions that it holds.
    pub sessions: u64,
}

/// An answer of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Number of the question.
    pub number: u64,
    /// The node.
    pub state: NodeState,
    /// To be repeated in an order.
    pub challenge: u64,
    /// What became of the order, if it was one.
    pub outcome: Option<Outcome>,
}

/// Why a datagram is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotUnderstood {
    /// Wrong length, magic or kind: not meant for us.
    #[error("not a message between a detector and a node")]
    Foreign,
    /// A version that this program does not speak.
    #[error("a message of version {0}, this program speaks version {VERSION}")]
    Version(u8),
    /// The tag is wrong.
    #[error("a message that is not authentic: is the watch key made from the pair's key?")]
    NotAuthentic,
    /// A field has a value that means nothing.
    #[error("a message with a meaningless field")]
    Meaningless,
}

impl Question {
    /// As it goes onto the wire.
    pub fn encode(&self, key: &WatchKey) -> [u8; QUESTION_LEN] {
        let forced = self.order.is_some_and(|ticket| ticket.forced);
        let kind = if self.order.is_some() { ORDERS } else { ASKS_STATE };
        let flags = u8::from(self.node == NodeId::B) | u8::from(forced) << 1;
        let (incarnation, challenge) =
            self.order.map_or((0, 0), |ticket| (ticket.incarnation, ticket.challenge));
        let mut out = [0; QUESTION_LEN];
        begin(&mut out, kind, flags, 0);
        put(&mut out[8..], &[self.number, self.epoch.0, incarnation, challenge]);
        seal(&mut out, key);
        out
    }

    /// Reads a datagram.
    ///
    /// # Errors
    /// Why it is not a question; to be counted and dropped.
    pub fn decode(datagram: &[u8], key: &WatchKey) -> Result<Self, NotUnderstood> {
        let bytes: &[u8; QUESTION_LEN] = open(datagram, key)?;
        let flags = bytes[6];
        let (node, forced) = (node_of(flags), flags & 2 != 0);
        let order = match bytes[5] {
            ASKS_STATE => None,
            ORDERS => Some(OrderTicket {
                forced,
                incarnation: number(bytes, 24),
                challenge: number(bytes, 32),
            }),
            _ => return Err(NotUnderstood::Foreign),
        };
        Ok(Question { node, number: number(bytes, 8), epoch: Epoch(number(bytes, 16)), order })
    }
}

impl Answer {
    /// As it goes onto the wire.
    pub fn encode(&self, key: &WatchKey) -> [u8; ANSWER_LEN] {
        let state = &self.state;
        let bits = [
            state.node == NodeId::B,
            state.synchronised,
            state.unsure,
            state.hears_peer,
            state.peer_is_active,
            state.waits_for_orders,
        ];
        let flags = bits.iter().rev().fold(0, |flags, bit| flags << 1 | u8::from(*bit));
        let role = match state.role {
            Role::Joining => 0,
            Role::Standby => 1,
            Role::Active => 2,
        };
        let kind = if self.outcome.is_some() { TELLS_OUTCOME } else { TELLS_STATE };
        let mut out = [0; ANSWER_LEN];
        begin(&mut out, kind, flags, role);
        let numbers =
            [self.number, state.epoch.0, state.incarnation, self.challenge, state.sessions];
        put(&mut out[8..], &numbers);
        out[48] = self.outcome.map_or(0, code_of);
        seal(&mut out, key);
        out
    }

    /// Reads a datagram.
    ///
    /// # Errors
    /// Why it is not an answer; to be counted and dropped.
    pub fn decode(datagram: &[u8], key: &WatchKey) -> Result<Self, NotUnderstood> {
        let bytes: &[u8; ANSWER_LEN] = open(datagram, key)?;
        let flags = bytes[6];
        let bit = |place: u32| flags & 1 << place != 0;
        let role = match bytes[7] {
            0 => Role::Joining,
            1 => Role::Standby,
            2 => Role::Active,
            _ => return Err(NotUnderstood::Meaningless),
        };
        let outcome = match bytes[5] {
            TELLS_STATE => None,
            TELLS_OUTCOME => Some(outcome_of(bytes[48]).ok_or(NotUnderstood::Meaningless)?),
            _ => return Err(NotUnderstood::Foreign),
        };
        let state = NodeState {
            node: node_of(flags),
            role,
            epoch: Epoch(number(bytes, 16)),
            incarnation: number(bytes, 24),
            synchronised: bit(1),
            unsure: bit(2),
            hears_peer: bit(3),
            peer_is_active: bit(4),
            waits_for_orders: bit(5),
            sessions: number(bytes, 40),
        };
        Ok(Answer { number: number(bytes, 8), state, challenge: number(bytes, 32), outcome })
    }
}

fn node_of(flags: u8) -> NodeId {
    if flags & 1 == 0 { NodeId::A } else { NodeId::B }
}

fn code_of(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Accepted => 1,
        Outcome::AlreadyActive => 2,
        Outcome::Stale => 3,
        Outcome::NotSynchronised => 4,
        Outcome::NoPeer => 5,
    }
}

fn outcome_of(code: u8) -> Option<Outcome> {
    let all = [
        Outcome::Accepted,
        Outcome::AlreadyActive,
        Outcome::Stale,
        Outcome::NotSynchronised,
        Outcome::NoPeer,
    ];
    all.into_iter().find(|outcome| code_of(*outcome) == code)
}

fn begin(out: &mut [u8], kind: u8, flags: u8, role: u8) {
    out[..4].copy_from_slice(&MAGIC);
    out[4..8].copy_from_slice(&[VERSION, kind, flags, role]);
}

fn put(out: &mut [u8], numbers: &[u64]) {
    for (slot, number) in out.chunks_exact_mut(8).zip(numbers) {
        slot.copy_from_slice(&number.to_be_bytes());
    }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn mac(key: &WatchKey, bytes: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new(&key.block());
    mac.update(bytes);
    mac
}

fn seal(out: &mut [u8], key: &WatchKey) {
    let (text, tag) = out.split_at_mut(out.len() - TAG_LEN);
    let whole = mac(key, text).finalize().into_bytes();
    tag.copy_from_slice(&whole[..TAG_LEN]);
}

fn open<'a, const LEN: usize>(
    datagram: &'a [u8],
    key: &WatchKey,
) -> Result<&'a [u8; LEN], NotUnderstood> {
    let is_ours = datagram.get(..4) == Some(&MAGIC[..]);
    match datagram.get(4) {
        Some(&version) if is_ours && version != VERSION => {
            return Err(NotUnderstood::Version(version));
        }
        _ => {}
    }
    let bytes: &[u8; LEN] = datagram.try_into().map_err(|_| NotUnderstood::Foreign)?;
    if !is_ours {
        return Err(NotUnderstood::Foreign);
    }
    let (text, tag) = bytes.split_at(LEN - TAG_LEN);
    // In constant time.
    mac(key, text).verify_truncated_left(tag).map_err(|_| NotUnderstood::NotAuthentic)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;
    use crate::key::PairKey;

    fn key() -> WatchKey {
        let text = "outlive pair key, version 1\n\
            000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";
        PairKey::from_text(text).unwrap().watch()
    }

    fn question() -> Question {
        Question { node: NodeId::B, number: 0x0102, epoch: Epoch(9), order: None }
    }

    fn order() -> Question {
        let ticket = OrderTicket { forced: true, incarnation: 0xa1, challenge: 0xc1 };
        Question { order: Some(ticket), ..question() }
    }

    fn answer() -> Answer {
        let state = NodeState {
            node: NodeId::B,
            role: Role::Standby,
            epoch: Epoch(9),
            incarnation: 0xa1,
            synchronised: true,
            unsure: false,
            hears_peer: true,
            peer_is_active: true,
            waits_for_orders: true,
            sessions: 1_000,
        };
        Answer { number: 0x0102, state, challenge: 0xc1, outcome: None }
    }

    #[test]
    fn the_layout_does_not_change() {
        // Golden: another implementation, or another version, must make the same of it.
        let hex = |bytes: &[u8]| HEXLOWER.encode(bytes);
        assert_eq!(
            hex(&question().encode(&key())),
            "4f4c5754010101000000000000000102000000000000000900000000000000000000000000000000\
             1bdab6556e13e732db1a889321a2edd2"
        );
        assert_eq!(
            hex(&order().encode(&key())),
            "4f4c5754010203000000000000000102000000000000000900000000000000a100000000000000c1\
             283c70d088d11b23cd4c1d3a2e0c8608"
        );
        assert_eq!(
            hex(&answer().encode(&key())),
            "4f4c575401813b010000000000000102000000000000000900000000000000a100000000000000c1\
             00000000000003e80000000000000000be3b93be79c39887952eca2d952df76c"
        );
        let told = Answer { outcome: Some(Outcome::NotSynchronised), ..answer() };
        assert_eq!(
            hex(&told.encode(&key())),
            "4f4c575401823b010000000000000102000000000000000900000000000000a100000000000000c1\
             00000000000003e804000000000000007d30afd4f5a0d2fff68060b7b0a501b1"
        );
    }

    #[test]
    fn what_is_said_is_understood() {
        for said in [question(), order()] {
            assert_eq!(Question::decode(&said.encode(&key()), &key()), Ok(said));
        }
        for code in 0..=5 {
            let said = Answer { outcome: outcome_of(code), ..answer() };
            assert_eq!(said.outcome.is_none(), code == 0);
            assert_eq!(Answer::decode(&said.encode(&key()), &key()), Ok(said));
        }
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let bytes = order().encode(&key());
        for bit in 0..QUESTION_LEN * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Question::decode(&damaged, &key()).is_err(), "bit {bit}");
        }
        assert_eq!(Question::decode(&bytes[1..], &key()), Err(NotUnderstood::Foreign));
        let mut newer = bytes;
        newer[4] = 2;
        assert_eq!(Question::decode(&newer, &key()), Err(NotUnderstood::Version(2)));
        // An answer is no question, nor the other way round, whoever sends it back.
        let answer = answer().encode(&key());
        assert_eq!(Question::decode(&answer, &key()), Err(NotUnderstood::Foreign));
        assert_eq!(Answer::decode(&bytes, &key()), Err(NotUnderstood::Foreign));
    }
}
