//! The first bytes of a state connection, each way, in the clear: protocol, version, who.
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
        let mut out = [0; PREAMBLE_LEN];
        out[..4].copy_from_slice(&MAGIC);
        out[4] = VERSION;
        out[5] = u8::from(self.node == NodeId::B);
        out[8..].copy_from_slice(&self.incarnation.to_be_bytes());
        out
    }

    /// Reads what the other end sent, and checks that it can be `self`'s peer.
    ///
    /// # Errors
    /// [`Failure::Foreign`], [`Failure::Version`], [`Failure::Oneself`], [`Failure::SameName`].
    pub fn check_peer(&self, bytes: &[u8; PREAMBLE_LEN]) -> Result<Preamble, Failure> {
        if bytes[..4] != MAGIC {
            return Err(Failure::Foreign);
        }
        if bytes[4] != VERSION {
            return Err(Failure::Version(bytes[4]));
        }
        let node = match bytes[5] {
            0 => NodeId::A,
            1 => NodeId::B,
            _ => return Err(Failure::Foreign),
        };
        let incarnation = bytes[8..].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        if node != self.node {
            Ok(Preamble { node, incarnation })
        } else if incarnation == self.incarnation {
            Err(Failure::Oneself)
        } else {
            Err(Failure::SameName(node))
        }
    }
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
}
