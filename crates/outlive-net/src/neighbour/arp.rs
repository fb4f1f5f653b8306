//! ARP over Ethernet for IPv4 (RFC 826, RFC 5227): frames read and written.

use std::net::Ipv4Addr;

use crate::MacAddress;

/// Bytes of an Ethernet header and an ARP packet; what follows on the wire is padding.
pub const FRAME_LEN: usize = 42;

const ETHERTYPE: [u8; 2] = [0x08, 0x06];
/// Hardware type Ethernet, protocol type IPv4, and the lengths of both kinds of address.
const FIXED: [u8; 6] = [0, 1, 0x08, 0, 6, 4];

/// Asking or telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// "Who has the target address?"
    Request,
    /// "The sender has it."
    Reply,
}

/// What an ARP packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Asking or telling.
    pub operation: Operation,
    /// The Ethernet address that the sender claims.
    pub sender_mac: MacAddress,
    /// The IPv4 address that the sender claims; unspecified in a probe (RFC 5227, section 1.1).
    pub sender: Ipv4Addr,
    /// The Ethernet address that the packet is for; zeros in a request.
    pub target_mac: MacAddress,
    /// The IPv4 address asked for.
    pub target: Ipv4Addr,
}

impl Arp {
    /// Reads a frame. `None` if it is not well-formed ARP over Ethernet for IPv4.
    pub fn parse(frame: &[u8]) -> Option<Arp> {
        let frame: &[u8; FRAME_LEN] = frame.first_chunk()?;
        if frame[12..14] != ETHERTYPE || frame[14..20] != FIXED {
            return None;
        }
        let operation = match frame[20..22] {
            [0, 1] => Operation::Request,
            [0, 2] => Operation::Reply,
            _ => return None,
        };
        let sender_mac = MacAddress(*frame[22..].first_chunk()?);
        // A station's own address is never a group's; answering there would reach everybody.
        if sender_mac.is_group() {
            return None;
        }
        Some(Arp {
            operation,
            sender_mac,
            sender: Ipv4Addr::from(*frame[28..].first_chunk::<4>()?),
            target_mac: MacAddress(*frame[32..].first_chunk()?),
            target: Ipv4Addr::from(*frame[38..].first_chunk::<4>()?),
        })
    }

    /// Writes the frame that carries this from `sender_mac` to `to`.
    pub fn emit(&self, to: MacAddress) -> [u8; FRAME_LEN] {
        let mut frame = [0; FRAME_LEN];
        frame[..6].copy_from_slice(&to.0);
        frame[6..12].copy_from_slice(&self.sender_mac.0);
        frame[12..14].copy_from_slice(&ETHERTYPE);
        frame[14..20].copy_from_slice(&FIXED);
        frame[21] = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        frame[22..28].copy_from_slice(&self.sender_mac.0);
        frame[28..32].copy_from_slice(&self.sender.octets());
        frame[32..38].copy_from_slice(&self.target_mac.0);
        frame[38..42].copy_from_slice(&self.target.octets());
        frame
    }

    /// The frame that tells every station on the link that `mac` has `address`.
    ///
    /// A request and not a reply: Linux takes a request over at once, a reply only from the
    /// second second of the entry's life on (locktime).
    pub fn announcement(mac: MacAddress, address: Ipv4Addr) -> [u8; FRAME_LEN] {
        let announcement = Arp {
            operation: Operation::Request,
            sender_mac: mac,
            sender: address,
            target_mac: MacAddress([0; 6]),
            target: address,
        };
        announcement.emit(MacAddress::BROADCAST)
    }

    /// The frame that answers this request in the name of `mac`.
    pub fn answer(&self, mac: MacAddress) -> [u8; FRAME_LEN] {
        let reply = Arp {
            operation: Operation::Reply,
            sender_mac: mac,
            sender: self.target,
            target_mac: self.sender_mac,
            target: self.sender,
        };
        reply.emit(self.sender_mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const NODE: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);

    fn request() -> Arp {
        Arp {
            operation: Operation::Request,
            sender_mac: CLIENT,
            sender: Ipv4Addr::new(10, 0, 0, 1),
            target_mac: MacAddress([0; 6]),
            target: ADDRESS,
        }
    }

    #[test]
    fn request_and_answer() {
        let frame = request().emit(MacAddress::BROADCAST);
        assert_eq!(Arp::parse(&frame), Some(request()));
        let answer = request().answer(NODE);
        #[rustfmt::skip]
        assert_eq!(answer, [
            2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 6,
            0, 1, 8, 0, 6, 4, 0, 2,
            2, 0, 0, 0, 0, 2, 10, 0, 0, 100,
            2, 0, 0, 0, 0, 1, 10, 0, 0, 1,
        ]);
    }

    #[test]
    fn announcement_is_a_request_for_itself() {
        let frame = Arp::announcement(NODE, ADDRESS);
        assert_eq!(frame[..6], [0xff; 6]);
        let arp = Arp::parse(&frame).unwrap();
        assert_eq!((arp.operation, arp.sender, arp.target), (Operation::Request, ADDRESS, ADDRESS));
        assert_eq!((arp.sender_mac, arp.target_mac), (NODE, MacAddress([0; 6])));
    }

    #[test]
    fn padding_is_allowed_and_truncation_is_not() {
        let mut frame = request().emit(MacAddress::BROADCAST).to_vec();
        for len in 0..frame.len() {
            assert_eq!(Arp::parse(&frame[..len]), None, "{len} bytes");
        }
        frame.resize(60, 0xaa);
        assert_eq!(Arp::parse(&frame), Some(request()));
    }

    #[test]
    fn anything_but_ethernet_and_ipv4_is_refused() {
        let frame = request().emit(MacAddress::BROADCAST);
        // Ether type, hardware type, protocol type, lengths, operation, a group as sender.
        for (at, value) in [(12, 9), (15, 2), (16, 9), (18, 8), (19, 16), (20, 1), (21, 3), (22, 3)]
        {
            let mut wrong = frame;
            wrong[at] = value;
            assert_eq!(Arp::parse(&wrong), None, "byte {at}");
        }
    }
}
