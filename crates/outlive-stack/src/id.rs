//! What a connection is called, by both nodes of a pair and in what programs write down.

use std::{fmt, num::ParseIntError, str::FromStr};

/// A connection's name: the same before and after a takeover, and never given twice.
///
/// Written as the accepting process's random number and a serial number: `00c0ffee00c0ffee-17`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    /// A random number of the process that accepted the connection.
    pub process: u64,
    /// Counts the connections of that process, from 1 on.
    pub serial: u64,
}

impl ConnectionId {
    /// Bytes of [`to_bytes`](Self::to_bytes).
    pub const BYTES: usize = 16;

    /// Process, serial number; network byte order.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.process.to_be_bytes());
        bytes[8..].copy_from_slice(&self.serial.to_be_bytes());
        bytes
    }

    /// What [`to_bytes`](Self::to_bytes) has written.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let number = u128::from_be_bytes(bytes);
        ConnectionId { process: (number >> 64) as u64, serial: number as u64 }
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.process, self.serial)
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is not the name of a connection.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not the name of a connection: {0:?}")]
pub struct NotAnId(String);

impl FromStr for ConnectionId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let parse = |(process, serial): (&str, &str)| {
            Ok::<_, ParseIntError>(ConnectionId {
                process: u64::from_str_radix(process, 16)?,
                serial: serial.parse()?,
            })
        };
        let parts = text.split_once('-').filter(|(process, _)| process.len() == 16);
        parts.and_then(|parts| parse(parts).ok()).ok_or_else(|| NotAnId(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let id = ConnectionId { process: 0xc0_ffee, serial: 17 };
        assert_eq!(id.to_string(), "0000000000c0ffee-17");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(ConnectionId::from_bytes(id.to_bytes()), id);
        for wrong in ["", "17", "c0ffee-17", "0000000000c0ffee-", "0000000000c0ffeg-1"] {
            assert!(wrong.parse::<ConnectionId>().is_err(), "{wrong}");
        }
    }
}
