//! The first bytes of a state connection, each way, in the clear: protocol, version, who. Also of the connection
//! between a balancer and the agent of a migration's target, which is carried in the same way.
//!
//! They let both ends say clearly why they do not match. Nothing in them is secret, and nothing
//! is believed for long: both preambles are the prologue of the handshake, which fails if a bit of
//! them was changed on the way.

use outlive_proxy::config::NodeId;

use super::Failure;

/// Bytes of a preamble.
pub const PREAMBLE_LEN: usize = 16;
/// The version of the transport (not of the messages in it).
pub const VERSION: u8 = 1;
const MAGIC: [u8; 4] = *b"OLSC";
const MIGRATION_MAGIC: [u8; 4] = *b"OLMC";

/// Who is at an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preamble {
    /// The node.
    pub node: NodeId,
    /// A random number of its process.
    pub incarnation: u64,
}

impl Preamble {
    /// As it goes onto the wire: magic `OLSC`, version, node (0 is A), two zeros, incarnation.
    pub fn encode(&self) -> [u8; PREAMBLE_LEN] {
        encode(MAGIC, u8::from(self.node == NodeId::B), self.incarnation)
    }

    /// Reads what the other end sent, and checks that it can be `self`'s peer.
    ///
    /// # Errors
    /// [`Failure::Foreign`], [`Failure::Version`], [`Failure::Oneself`], [`Failure::SameName`].
    pub fn check_peer(&self, bytes: &[u8; PREAMBLE_LEN]) -> Result<Preamble, Failure> {
        let (node, incarnation) = decode(MAGIC, bytes)?;
        let node = match node {
            0 => NodeId::A,
            1 => NodeId::B,
            _ => return Err(Failure::Foreign),
        };
        if node != self.node {
            Ok(Preamble { node, incarnation })
        } else if incarnation == self.incarnation {
            Err(Failure::Oneself)
        } else {
            Err(Failure::SameName(node))
        }
    }
}

/// What an end of a connection says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Introduction {
    /// A node, to the other node of its pair.
    Node(Preamble),
    /// A node, to the agent of a target.
    Balancer(Preamble),
    /// The agent of a target, with a random number of its process, to a node.
    Target {
        /// A random number of its process.
        incarnation: u64,
    },
}

const TARGET: u8 = 2;

impl Introduction {
    /// As it goes onto the wire. Between a node and a target: as [`Preamble::encode`], but with the magic `OLMC`; a
    /// target is number 2.
    pub fn encode(&self) -> [u8; PREAMBLE_LEN] {
        match self {
            Introduction::Node(preamble) => preamble.encode(),
            Introduction::Balancer(Preamble { node, incarnation }) => {
                encode(MIGRATION_MAGIC, u8::from(*node == NodeId::B), *incarnation)
            }
            Introduction::Target { incarnation } => encode(MIGRATION_MAGIC, TARGET, *incarnation),
        }
    }

    /// Reads what the other end sent, and checks that it can talk to this one.
    ///
    /// # Errors
    /// As [`Preamble::check_peer`].
    pub fn check_peer(&self, bytes: &[u8; PREAMBLE_LEN]) -> Result<(), Failure> {
        let wanted = match self {
            Introduction::Node(own) => return own.check_peer(bytes).map(drop),
            Introduction::Balancer(_) => TARGET..=TARGET,
            Introduction::Target { .. } => 0..=1,
        };
        let (who, _) = decode(MIGRATION_MAGIC, bytes)?;
        if wanted.contains(&who) { Ok(()) } else { Err(Failure::Foreign) }
    }
}

impl From<Preamble> for Introduction {
    fn from(preamble: Preamble) -> Self {
        Introduction::Node(preamble)
    }
}

fn encode(magic: [u8; 4], who: u8, incarnation: u64) -> [u8; PREAMBLE_LEN] {
    let mut out = [0; PREAMBLE_LEN];
    out[..4].copy_from_slice(&magic);
    out[4] = VERSION;
    out[5] = who;
    out[8..].copy_from_slice(&incarnation.to_be_bytes());
    out
}

/// Who, and the incarnation.
fn decode(magic: [u8; 4], bytes: &[u8; PREAMBLE_LEN]) -> Result<(u8, u64), Failure> {
    if bytes[..4] != magic {
        return Err(Failure::Foreign);
    }
    if bytes[4] != VERSION {
        return Err(Failure::Version(bytes[4]));
    }
    let incarnation = bytes[8..].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    Ok((bytes[5], incarnation))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_what_is_documented() {
        let b = Preamble { node: NodeId::B, incarnation: 0x0102_0304_0506_0708 };
        let bytes = *b"OLSC\x01\x01\0\0\x01\x02\x03\x04\x05\x06\x07\x08";
        assert_eq!(b.encode(), bytes);
        let a = Preamble { node: NodeId::A, incarnation: 7 };
        assert_eq!(a.check_peer(&bytes), Ok(b));
    }

    #[test]
    fn each_mismatch_has_its_name() {
        let own = Preamble { node: NodeId::A, incarnation: 7 };
        assert_eq!(own.check_peer(&own.encode()), Err(Failure::Oneself));
        let twin = Preamble { incarnation: 8, ..own };
        assert_eq!(own.check_peer(&twin.encode()), Err(Failure::SameName(NodeId::A)));
        let mut later = twin.encode();
        later[4] = 9;
        assert_eq!(own.check_peer(&later), Err(Failure::Version(9)));
        assert_eq!(own.check_peer(b"GET / HTTP/1.1\r\n"), Err(Failure::Foreign));
    }
    #[test]
    fn targets_and_balancers_only_talk_to_each_other() {
        let node = Preamble { node: NodeId::B, incarnation: 7 };
        let balancer = Introduction::Balancer(node);
        let target = Introduction::Target { incarnation: 0x0102_0304_0506_0708 };
        let bytes = *b"OLMC\x01\x02\0\0\x01\x02\x03\x04\x05\x06\x07\x08";
        assert_eq!(target.encode(), bytes);
        assert_eq!(balancer.check_peer(&bytes), Ok(()));
        assert_eq!(target.check_peer(&balancer.encode()), Ok(()));
        let foreign = Err(Failure::Foreign);
        assert_eq!(target.check_peer(&bytes), foreign);
        assert_eq!(balancer.check_peer(&balancer.encode()), foreign);
        assert_eq!(target.check_peer(&node.encode()), foreign);
        assert_eq!(node.check_peer(&bytes), Err(Failure::Foreign));
    }
}
