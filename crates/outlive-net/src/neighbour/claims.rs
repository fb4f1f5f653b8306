//! The decision: which frame is to be answered, and which says that somebody else claims an
//! address of ours. Pure: frames in, verdicts out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    Conflict,
    arp::{self, Arp, Operation},
    ndp::{self, Ndp},
};
use crate::MacAddress;

/// The addresses that this node claims on a link at the moment, and under which Ethernet
/// address.
#[derive(Clone, Debug)]
pub(super) struct Claims {
    pub(super) mac: MacAddress,
    /// Sorted, without duplicates.
    addresses: Vec<IpAddr>,
}

/// What to do about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: it concerns others.
    Ignore,
    /// Nothing: it is malformed.
    Malformed,
    AnswerArp([u8; arp::FRAME_LEN]),
    AnswerNdp([u8; ndp::ADVERTISEMENT_LEN]),
    Conflict(Conflict),
}

impl Claims {
    pub(super) fn new(mac: MacAddress) -> Claims {
        Claims { mac, addresses: Vec::new() }
    }

    pub(super) fn set(&mut self, addresses: &[IpAddr]) {
        self.addresses = addresses.to_vec();
        self.addresses.sort_unstable();
        self.addresses.dedup();
    }

    pub(super) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// What to do about a frame from the ARP socket.
    pub(super) fn judge_arp(&self, frame: &[u8]) -> Verdict {
        let Some(arp) = Arp::parse(frame) else { return Verdict::Malformed };
        if arp.sender_mac == self.mac {
            return Verdict::Ignore;
        }
        if self.claims_v4(arp.sender) {
            return conflict(arp.sender, arp.sender_mac);
        }
        if arp.operation == Operation::Request && self.claims_v4(arp.target) {
            return Verdict::AnswerArp(arp.answer(self.mac));
        }
        Verdict::Ignore
    }

    /// What to do about a frame from the IPv6 socket.
    pub(super) fn judge_ndp(&self, frame: &[u8]) -> Verdict {
        match Ndp::parse(frame) {
            None => Verdict::Malformed,
            Some(Ndp::Solicitation { target, link_address, source }) => {
                if link_address == self.mac {
                    return Verdict::Ignore;
                }
                if self.claims_v6(source) {
                    return conflict(source, link_address);
                }
                if !self.claims_v6(target) {
                    return Verdict::Ignore;
                }
                Verdict::AnswerNdp(ndp::answer(self.mac, target, source, link_address))
            }
            Some(Ndp::Advertisement { target, link_address }) => {
                if link_address != self.mac && self.claims_v6(target) {
                    return conflict(target, link_address);
                }
                Verdict::Ignore
            }
        }
    }

    fn claims_v4(&self, address: Ipv4Addr) -> bool {
        self.addresses.binary_search(&address.into()).is_ok()
    }

    fn claims_v6(&self, address: Ipv6Addr) -> bool {
        self.addresses.binary_search(&address.into()).is_ok()
    }
}

fn conflict(address: impl Into<IpAddr>, mac: MacAddress) -> Verdict {
    Verdict::Conflict(Conflict { address: address.into(), mac })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
    const CLIENT: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
    const V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x100);

    fn active() -> Claims {
        let mut claims = Claims::new(NODE);
        claims.set(&[V6.into(), V4.into(), V4.into()]);
        claims
    }

    fn who_has(target: Ipv4Addr, sender: Ipv4Addr, sender_mac: MacAddress) -> [u8; 42] {
        let target_mac = MacAddress([0; 6]);
        let operation = Operation::Request;
        let request = Arp { operation, sender_mac, sender, target_mac, target };
        request.emit(MacAddress::BROADCAST)
    }

    #[test]
    fn requests_and_probes_for_ours_are_answered() {
        for sender in [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::UNSPECIFIED] {
            let verdict = active().judge_arp(&who_has(V4, sender, CLIENT));
            let Verdict::AnswerArp(frame) = verdict else { panic!("{verdict:?}") };
            let answer = Arp::parse(&frame).unwrap();
            assert_eq!((answer.sender, answer.sender_mac), (V4, NODE));
            assert_eq!((answer.target, answer.target_mac), (sender, CLIENT));
        }
        let others = who_has(Ipv4Addr::new(10, 0, 0, 7), Ipv4Addr::UNSPECIFIED, CLIENT);
        assert_eq!(active().judge_arp(&others), Verdict::Ignore);
        assert_eq!(active().judge_arp(&others[..20]), Verdict::Malformed);
    }

    #[test]
    fn a_passive_node_is_silent() {
        let passive = Claims::new(NODE);
        let request = who_has(V4, Ipv4Addr::new(10, 0, 0, 1), CLIENT);
        assert_eq!(passive.judge_arp(&request), Verdict::Ignore);
        assert_eq!(passive.judge_arp(&Arp::announcement(CLIENT, V4)), Verdict::Ignore);
        assert_eq!(passive.judge_ndp(&ndp::announcement(CLIENT, V6)), Verdict::Ignore);
    }

    #[test]
    fn a_claim_of_another_is_a_conflict_and_our_own_is_not() {
        let expected = Verdict::Conflict(Conflict { address: V4.into(), mac: CLIENT });
        assert_eq!(active().judge_arp(&Arp::announcement(CLIENT, V4)), expected);
        let expected = Verdict::Conflict(Conflict { address: V6.into(), mac: CLIENT });
        assert_eq!(active().judge_ndp(&ndp::announcement(CLIENT, V6)), expected);
        assert_eq!(active().judge_arp(&Arp::announcement(NODE, V4)), Verdict::Ignore);
        assert_eq!(active().judge_ndp(&ndp::announcement(NODE, V6)), Verdict::Ignore);
    }
}
