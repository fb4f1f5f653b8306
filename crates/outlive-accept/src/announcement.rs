//! What a datagram says of the connection that comes with it. The layout stands in `docs/accept.md`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

const MAGIC: [u8; 4] = *b"OLAC";
const VERSION: u16 = 1;

/// The ends of a migrated connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Announcement {
    /// The client; also the socket's peer.
    pub client: SocketAddr,
    /// The address and port that the client has connected to; also the socket's own.
    pub server: SocketAddr,
}

/// Why a datagram is no announcement.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidAnnouncement {
    /// It begins with something else, or is too short.
    #[error("not the announcement of a migrated connection")]
    Foreign,
    /// A version that is not understood.
    #[error("version {0} of the announcement is not understood")]
    Version(u16),
    /// No socket came with it, or more than one.
    #[error("not one socket came with the announcement")]
    Sockets,
}

impl Announcement {
    /// Length in bytes.
    pub const LEN: usize = 44;

    /// The bytes of it.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_be_bytes());
        for (index, end) in [self.client, self.server].into_iter().enumerate() {
            let addr = match end.ip() {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            let at = 8 + 18 * index;
            bytes[at..at + 16].copy_from_slice(&addr.octets());
            bytes[at + 16..at + 18].copy_from_slice(&end.port().to_be_bytes());
        }
        bytes
    }

    /// Reads it. What a later minor change may append is passed over.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidAnnouncement> {
        let bytes = bytes.first_chunk::<{ Self::LEN }>().ok_or(InvalidAnnouncement::Foreign)?;
        if bytes[..4] != MAGIC {
            return Err(InvalidAnnouncement::Foreign);
        }
        let version = u16::from_be_bytes([bytes[4], bytes[5]]);
        if version != VERSION {
            return Err(InvalidAnnouncement::Version(version));
        }
        let end = |at: usize| {
            let mut octets = [0; 16];
            octets.copy_from_slice(&bytes[at..at + 16]);
            let port = u16::from_be_bytes([bytes[at + 16], bytes[at + 17]]);
            SocketAddr::new(Ipv6Addr::from(octets).to_canonical(), port)
        };
        Ok(Announcement { client: end(8), server: end(26) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of `docs/accept.md`.
    #[test]
    fn the_layout_is_the_documented_one() {
        let announcement = Announcement {
            client: "192.0.2.7:40000".parse().unwrap(),
            server: "[2001:db8::80]:443".parse().unwrap(),
        };
        let bytes = announcement.encode();
        let mut golden = b"OLAC\x00\x01\x00\x00".to_vec();
        golden.extend(b"\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\x00\x02\x07\x9c\x40");
        golden.extend(b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x80\x01\xbb");
        assert_eq!(bytes[..], golden);
        assert_eq!(Announcement::decode(&bytes), Ok(announcement));
        golden.push(1);
        assert_eq!(Announcement::decode(&golden), Ok(announcement));
    }

    #[test]
    fn what_is_none_is_refused() {
        let foreign = Err(InvalidAnnouncement::Foreign);
        assert_eq!(Announcement::decode(b""), foreign);
        assert_eq!(Announcement::decode(&[b'x'; 60]), foreign);
        let mut later = [0; Announcement::LEN];
        later[..6].copy_from_slice(b"OLAC\x00\x02");
        assert_eq!(Announcement::decode(&later), Err(InvalidAnnouncement::Version(2)));
    }
}
