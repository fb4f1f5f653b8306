//! Ethernet addresses.

use std::{fmt, net::Ipv6Addr, str::FromStr};

/// A 48-bit Ethernet address, in transmission order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The address that every station receives.
    pub const BROADCAST: MacAddress = MacAddress([0xff; 6]);

    /// The group address that an IPv6 multicast address is sent to (RFC 2464, section 7).
    pub fn of_ipv6_multicast(group: Ipv6Addr) -> MacAddress {
        let [.., a, b, c, d] = group.octets();
        MacAddress([0x33, 0x33, a, b, c, d])
    }

    /// Whether this is a group address (multicast or broadcast), which no station may have as
    /// its own.
    pub fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A text that is not six hexadecimal bytes joined by colons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an Ethernet address (six hexadecimal bytes joined by colons)")]
pub struct InvalidMacAddress;

impl FromStr for MacAddress {
    type Err = InvalidMacAddress;

    fn from_str(text: &str) -> Result<MacAddress, InvalidMacAddress> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| is_hex_byte(part)).ok_or(InvalidMacAddress)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| InvalidMacAddress)?;
        }
        if parts.next().is_some() { Err(InvalidMacAddress) } else { Ok(MacAddress(bytes)) }
    }
}

/// Two hexadecimal digits and nothing else: `from_str_radix` would accept a sign as well.
fn is_hex_byte(part: &str) -> bool {
    part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let mac: MacAddress = "02:00:5e:10:00:ff".parse().unwrap();
        assert_eq!(mac, MacAddress([2, 0, 0x5e, 0x10, 0, 0xff]));
        assert_eq!(mac.to_string(), "02:00:5e:10:00:ff");
        for wrong in
            ["", "02:00:5e:10:00", "02:00:5e:10:00:ff:00", "02:00:5e:10:00:+f", "2:0:0:0:0:0"]
        {
            assert_eq!(wrong.parse::<MacAddress>(), Err(InvalidMacAddress), "{wrong}");
        }
    }

    #[test]
    fn ipv6_group_address() {
        let group = "ff02::1:ff00:aa".parse().unwrap();
        assert_eq!(MacAddress::of_ipv6_multicast(group).to_string(), "33:33:ff:00:00:aa");
    }
}
