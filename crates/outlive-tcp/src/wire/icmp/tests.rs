//! Errors reach the sender of the packet that they are about, and look to it as if they were about
//! what it sent.

use std::net::IpAddr;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    testing::{Raw, any_tuple, hex, plain_sum, pseudo_header, tuple, tuple_of},
    wire::{Checksum, IpHeader},
};

/// An ICMP packet with a right checksum.
fn icmp(source: IpAddr, destination: IpAddr, kind: [u8; 2], rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    let protocol = IpVersion::of(source).icmp();
    let header = IpHeader { source, destination, protocol, hop_limit: 63, traffic_class: 0 };
    let mut packet = vec![];
    header.emit((8 + body.len()) as u16, &mut packet);
    let message = [&kind[..], &[0; 2], &rest, body].concat();
    let checksum = !sum_with_pseudo(&packet, &message);
    packet.extend(&message);
    let at = packet.len() - message.len() + 2;
    packet[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    packet
}

fn sum_with_pseudo(packet: &[u8], message: &[u8]) -> u16 {
    if packet[0] >> 4 == 4 {
        return plain_sum(message);
    }
    plain_sum(&[&pseudo_header(packet, 58, message.len()), message].concat())
}

/// Asserts that the checksums of an ICMP packet are right.
fn assert_icmp_sound(packet: &[u8]) {
    let header_len = if packet[0] >> 4 == 4 { 20 } else { 40 };
    if header_len == 20 {
        assert_eq!(plain_sum(&packet[..20]), 0xffff, "IPv4 header checksum");
    }
    assert_eq!(sum_with_pseudo(packet, &packet[header_len..]), 0xffff, "ICMP checksum");
}

fn error_of(packet: &[u8]) -> IcmpError {
    match parse_icmp(packet) {
        Ok(IcmpMessage::Error(error)) => error,
        other => panic!("not an error about a TCP packet: {other:?}"),
    }
}

/// Type and code of each error, of both versions, and what it is.
fn errors(v4: bool, mtu: u16) -> Vec<([u8; 2], [u8; 4], IcmpErrorKind)> {
    let [high, low] = mtu.to_be_bytes();
    let too_big = IcmpErrorKind::TooBig { mtu: mtu.into() };
    let types = if v4 { [3, 11, 12] } else { [1, 3, 4] };
    vec![
        (if v4 { [3, 4] } else { [2, 0] }, [0, 0, high, low], too_big),
        ([types[0], 1], [0; 4], IcmpErrorKind::Unreachable),
        ([types[1], 0], [0; 4], IcmpErrorKind::TimeExceeded),
        ([types[2], 0], [0; 4], IcmpErrorKind::ParameterProblem),
    ]
}

proptest! {
    #[test]
    fn an_error_finds_back_to_the_original_sender(
        (sent, original, router) in any::<bool>().prop_flat_map(|v4| {
            (tuple_of(v4), tuple_of(v4), tuple_of(v4))
        }),
        (seq, seq_delta) in any::<(u32, u32)>(),
        (mtu, mtu_reduction) in (any::<u16>(), 0u16..20),
        quoted_len in 8usize..60,
        which in 0usize..4,
    ) {
        let v4 = sent.source.addr.is_ipv4();
        let quote = Raw { seq, ..Raw::plain(sent) }.build(Checksum::Full);
        let quote = &quote[..quote.len().min(if v4 { 20 } else { 40 } + quoted_len)];
        let (kind, rest, what) = errors(v4, mtu)[which];
        let packet = icmp(router.source.addr, sent.source.addr, kind, rest, quote);
        let error = error_of(&packet);
        prop_assert_eq!((error.quoted, error.quoted_seq), (sent, Seq(seq)));
        prop_assert_eq!((error.what, error.code), (what, kind[1]));

        let how = IcmpReaddress {
            source: original.destination.addr,
            destination: original.source.addr,
            quoted: original,
            seq_delta,
            mtu_reduction,
        };
        let mut out = vec![];
        readdress_error(&packet, &how, &mut out).unwrap();
        prop_assert_eq!(out.len(), packet.len());
        assert_icmp_sound(&out);
        let ends = (how.source, how.destination);
        prop_assert_eq!(crate::wire::addresses(&out), Ok(ends));
        let error = error_of(&out);
        prop_assert_eq!((error.quoted, error.quoted_seq), (original, Seq(seq) + seq_delta));
        let minimum = if v4 { 68 } else { 1280 };
        match error.what {
            IcmpErrorKind::TooBig { mtu: new } => {
                let lowered = u32::from(mtu.saturating_sub(mtu_reduction));
                let expected = if lowered >= minimum { lowered } else { minimum.min(mtu.into()) };
                prop_assert_eq!(new, expected);
            }
            other => prop_assert_eq!(other, what),
        }
        if v4 {
            prop_assert_eq!(plain_sum(&out[28..48]), 0xffff, "quoted header checksum");
        }
    }

    #[test]
    fn a_ping_is_answered(
        tuple in any_tuple(),
        rest: [u8; 4],
        body in vec(any::<u8>(), 0..100),
        trailer in vec(any::<u8>(), 0..5),
    ) {
        let (source, destination) = (tuple.source.addr, tuple.destination.addr);
        prop_assume!(![source, destination].iter().any(|addr| addr.is_multicast()));
        let kind = if source.is_ipv4() { [8, 0] } else { [128, 0] };
        let mut request = icmp(source, destination, kind, rest, &body);
        request.extend(trailer);
        prop_assert_eq!(parse_icmp(&request), Ok(IcmpMessage::EchoRequest));
        let mut reply = vec![];
        prop_assert!(echo_reply(&request, &mut reply));
        assert_icmp_sound(&reply);
        let kind = if source.is_ipv4() { [0, 0] } else { [129, 0] };
        let mut expected = icmp(destination, source, kind, rest, &body);
        let hop_limit = if source.is_ipv4() { 8 } else { 7 };
        // The hop limit is the answering node's own, and with it the header checksum.
        prop_assert_eq!(reply[hop_limit], 64);
        expected[hop_limit] = 64;
        if source.is_ipv4() {
            expected[10..12].copy_from_slice(&reply[10..12]);
        }
        prop_assert_eq!(reply, expected);
    }

    #[test]
    fn a_port_without_listener_is_unreachable(tuple in any_tuple(), len in 0usize..2000) {
        let (source, destination) = (tuple.source.addr, tuple.destination.addr);
        prop_assume!(![source, destination].iter().any(|addr| addr.is_multicast()));
        let v4 = source.is_ipv4();
        let mut packet = Raw { payload: vec![5; len], ..Raw::plain(tuple) }.build(Checksum::Full);
        packet[if v4 { 9 } else { 6 }] = 17;
        let mut out = vec![];
        prop_assert!(port_unreachable(&packet, &mut out));
        assert_icmp_sound(&out);
        prop_assert_eq!(crate::wire::addresses(&out), Ok((destination, source)));
        let (header_len, kind, longest) = if v4 { (20, [3, 3], 576) } else { (40, [1, 4], 1280) };
        prop_assert_eq!(&out[header_len..header_len + 2], &kind);
        prop_assert!(packet.starts_with(&out[header_len + 8..]));
        prop_assert_eq!(out.len(), (header_len + 8 + packet.len()).min(longest));
    }
}

fn v4_quote() -> Vec<u8> {
    Raw::plain(tuple("10.1.0.9:34567", "10.1.0.20:8443")).build(Checksum::Full)
}

fn v4_error(quote: &[u8]) -> Vec<u8> {
    let addr = |text: &str| text.parse().unwrap();
    icmp(addr("10.1.0.254"), addr("10.1.0.9"), [3, 1], [0; 4], quote)
}

#[test]
fn an_old_routers_unknown_mtu_stays_unknown() {
    let packet = icmp(
        "10.1.0.254".parse().unwrap(),
        "10.1.0.9".parse().unwrap(),
        [3, 4],
        [0; 4],
        &v4_quote(),
    );
    let mut out = vec![];
    readdress_error(&packet, &v4_readdress(), &mut out).unwrap();
    assert_eq!(error_of(&out).what, IcmpErrorKind::TooBig { mtu: 0 });
}

#[test]
fn damaged_messages_are_refused() {
    let mut damaged = v4_error(&v4_quote());
    damaged[40] ^= 1;
    assert_eq!(parse_icmp(&damaged), Err(Malformed::Checksum));
    // Not even ports and sequence number.
    assert_eq!(parse_icmp(&v4_error(&v4_quote()[..27])), Err(Malformed::Truncated));
    assert_eq!(parse_icmp(&v4_error(&[])), Err(Malformed::Truncated));
    assert_eq!(parse_icmp(&v4_quote()), Err(Malformed::NotIcmp));
    let other_version = Raw::plain(tuple("[fd00::1]:1", "[fd00::2]:2")).build(Checksum::Full);
    assert_eq!(parse_icmp(&v4_error(&other_version)), Err(Malformed::Version));
}

#[test]
fn errors_about_something_else_are_other_messages() {
    let mut udp = v4_quote();
    udp[9] = 17;
    let mut later_fragment = v4_quote();
    later_fragment[7] = 3;
    for quote in [udp, later_fragment] {
        let packet = v4_error(&quote);
        assert_eq!(parse_icmp(&packet), Ok(IcmpMessage::Other));
        let refused = readdress_error(&packet, &v4_readdress(), &mut vec![]);
        assert_eq!(refused, Err(Malformed::NotIcmp));
    }
    let (a, b) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
    let redirect = icmp(a, b, [5, 1], [10, 0, 0, 3], &v4_quote());
    assert_eq!(parse_icmp(&redirect), Ok(IcmpMessage::Other));
}

fn v4_readdress() -> IcmpReaddress {
    IcmpReaddress {
        source: "198.51.100.1".parse().unwrap(),
        destination: "203.0.113.7".parse().unwrap(),
        quoted: tuple("203.0.113.7:51234", "198.51.100.1:443"),
        seq_delta: 0u32.wrapping_sub(0x1234_5678),
        mtu_reduction: 12,
    }
}

fn v6_readdress() -> IcmpReaddress {
    IcmpReaddress {
        source: "2001:db8::1".parse().unwrap(),
        destination: "2001:db8:7::7".parse().unwrap(),
        quoted: tuple("[2001:db8:7::7]:51234", "[2001:db8::1]:443"),
        ..v4_readdress()
    }
}

#[test]
fn an_error_is_not_readdressed_to_another_version() {
    let mut out = vec![];
    let refused = readdress_error(&v4_error(&v4_quote()), &v6_readdress(), &mut out);
    assert_eq!((refused, out.len()), (Err(Malformed::Version), 0));
}

/// Written out, and computed apart from this code.
#[test]
fn golden_too_big() {
    let mut out = vec![];
    let v4 = hex("45c00038007700003f0165860a0100fe0a01000903040b1b00000578450005a01c464000
                  38060cf40a0100090a010014870720fb11223344");
    readdress_error(&v4, &v4_readdress(), &mut out).unwrap();
    let readdressed = "45c00038007700003f011452c6336401cb007107030451f70000056c450005a01c464000
                       3806bad5cb007107c6336401c82201bbfeeddccc";
    assert_eq!(out, hex(readdressed));

    out.clear();
    let v6 = hex("6c00000000383a3ffd0000010000000000000000000000fefd0000010000000000000000
                  0000000902000506000005786005a5a5058c0638fd000001000000000000000000000009
                  fd000001000000000000000000000020870720fb11223344");
    readdress_error(&v6, &v6_readdress(), &mut out).unwrap();
    let readdressed = "6c00000000383a3f20010db800000000000000000000000120010db80007000000000000
                       0000000702008a170000056c6005a5a5058c063820010db8000700000000000000000007
                       20010db8000000000000000000000001c82201bbfeeddccc";
    assert_eq!(out, hex(readdressed));
}

#[test]
fn nothing_is_said_to_many_or_to_nobody() {
    let mut out = vec![];
    for (source, destination) in [
        ("10.0.0.1:5", "224.0.0.1:7"),
        ("224.0.0.1:5", "10.0.0.1:7"),
        ("10.0.0.1:5", "255.255.255.255:7"),
        ("0.0.0.0:5", "10.0.0.1:7"),
        ("[fd00::1]:5", "[ff02::1]:7"),
        ("[::]:5", "[fd00::1]:7"),
    ] {
        let tuple = tuple(source, destination);
        assert!(!port_unreachable(&Raw::plain(tuple).build(Checksum::Full), &mut out));
        let (source, destination) = (tuple.source.addr, tuple.destination.addr);
        let kind = if source.is_ipv4() { [8, 0] } else { [128, 0] };
        assert!(!echo_reply(&icmp(source, destination, kind, [0; 4], &[]), &mut out));
    }
    // An error, a later fragment, an answer to a ping, and a damaged ping.
    assert!(!port_unreachable(&v4_error(&v4_quote()), &mut out));
    let mut later_fragment = v4_quote();
    later_fragment[7] = 3;
    assert!(!port_unreachable(&later_fragment, &mut out));
    let (a, b) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
    assert!(!echo_reply(&icmp(a, b, [0, 0], [0; 4], &[]), &mut out));
    let mut damaged = icmp(a, b, [8, 0], [0; 4], &[]);
    damaged[25] ^= 1;
    assert!(!echo_reply(&damaged, &mut out));
    assert!(out.is_empty());
}
