//! Frames as the RFC wants them, and frames that it does not.

use super::*;

const CLIENT: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const NODE: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);

fn address(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn target() -> Ipv6Addr {
    address("fd00::12:3456")
}

/// A solicitation from `source`, with `options`, whose message `change` may spoil before the
/// checksum is made.
fn solicitation(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    options: &[u8],
    change: impl Fn(&mut Vec<u8>),
) -> Vec<u8> {
    let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target().octets());
    message.extend(options);
    change(&mut message);
    let sum = checksum(source, destination, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());

    let mut frame = MacAddress::of_ipv6_multicast(destination).0.to_vec();
    frame.extend(CLIENT.0);
    frame.extend(ETHERTYPE);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend((message.len() as u16).to_be_bytes());
    frame.extend([ICMPV6, HOP_LIMIT]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    frame.extend(message);
    frame
}

fn ordinary(options: &[u8]) -> Vec<u8> {
    solicitation(address("fd00::1"), solicited_node_group(target()), options, |_| ())
}

const OTHER_MAC: [u8; 6] = [2, 9, 9, 9, 9, 9];

fn option(kind: u8, mac: [u8; 6]) -> Vec<u8> {
    [&[kind, 1][..], &mac].concat()
}

#[test]
fn group_of_an_address() {
    assert_eq!(solicited_node_group(target()), address("ff02::1:ff12:3456"));
}

#[test]
fn solicitation_with_and_without_its_option() {
    let expected = |link_address| {
        Some(Ndp::Solicitation { source: address("fd00::1"), link_address, target: target() })
    };
    assert_eq!(Ndp::parse(&ordinary(&[])), expected(CLIENT));
    let given = ordinary(&option(SOURCE_LINK_ADDRESS, OTHER_MAC));
    assert_eq!(Ndp::parse(&given), expected(MacAddress(OTHER_MAC)));
    let nonce = ordinary(&[&[14, 1, 1, 2, 3, 4, 5, 6][..], &option(1, OTHER_MAC)].concat());
    assert_eq!(Ndp::parse(&nonce), expected(MacAddress(OTHER_MAC)));
}

#[test]
fn padding_is_allowed_and_truncation_is_not() {
    let mut frame = ordinary(&option(SOURCE_LINK_ADDRESS, OTHER_MAC));
    for len in 0..frame.len() {
        assert_eq!(Ndp::parse(&frame[..len]), None, "{len} bytes");
    }
    frame.extend([0xaa; 20]);
    assert!(Ndp::parse(&frame).is_some());
}

#[test]
fn one_wrong_bit_is_noticed() {
    let frame = ordinary(&option(SOURCE_LINK_ADDRESS, OTHER_MAC));
    // From the IPv6 header on; traffic class and flow label (the first four bytes, but for the
    // version) are not covered by anything.
    for at in ETHERNET + 4..frame.len() {
        for bit in 0..8 {
            let mut wrong = frame.clone();
            wrong[at] ^= 1 << bit;
            assert_eq!(Ndp::parse(&wrong), None, "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn rules_of_the_rfc() {
    let group = solicited_node_group(target());
    let from = address("fd00::1");
    let refused = [
        solicitation(from, group, &[], |message| message[1] = 1),
        solicitation(from, group, &[], |message| message[0] = 134),
        solicitation(from, group, &[], |message| message[8] = 0xff),
        solicitation(from, group, &[], |message| message.truncate(23)),
        solicitation(from, group, &[1, 0, 2, 0, 0, 0, 0, 1], |_| ()),
        solicitation(from, group, &[1, 2, 2, 0, 0, 0, 0, 1], |_| ()),
        solicitation(from, group, &[1], |_| ()),
        solicitation(from, group, &option(1, [0x33, 0x33, 0, 0, 0, 1]), |_| ()),
        solicitation(address("ff02::9"), group, &[], |_| ()),
        // Duplicate address detection: only to the group, and never with an option.
        solicitation(Ipv6Addr::UNSPECIFIED, ALL_NODES, &[], |_| ()),
        solicitation(Ipv6Addr::UNSPECIFIED, group, &option(1, OTHER_MAC), |_| ()),
    ];
    for (number, frame) in refused.iter().enumerate() {
        assert_eq!(Ndp::parse(frame), None, "case {number}");
    }
    let mut routed = ordinary(&[]);
    routed[HOP_LIMIT_AT] = 254;
    assert_eq!(Ndp::parse(&routed), None);
    assert!(Ndp::parse(&solicitation(Ipv6Addr::UNSPECIFIED, group, &[], |_| ())).is_some());
}

#[test]
fn answer_goes_to_who_asked() {
    let frame = answer(NODE, target(), address("fd00::1"), CLIENT);
    assert_eq!(frame[..14], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd]);
    assert_eq!(frame[22..38], target().octets());
    assert_eq!(frame[38..54], address("fd00::1").octets());
    assert_eq!(frame[TYPE_AT..TYPE_AT + 2], [ADVERTISEMENT, 0]);
    assert_eq!(frame[58], ROUTER_FLAG | SOLICITED_FLAG | OVERRIDE_FLAG);
    assert_eq!(frame[78..], [2, 1, 2, 0, 0, 0, 0, 2]);
    let read = Ndp::parse(&frame);
    assert_eq!(read, Some(Ndp::Advertisement { link_address: NODE, target: target() }));
}

#[test]
fn answer_to_duplicate_detection_goes_to_all() {
    let frame = answer(NODE, target(), Ipv6Addr::UNSPECIFIED, CLIENT);
    assert_eq!(frame, announcement(NODE, target()));
    assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
    assert_eq!(frame[38..54], ALL_NODES.octets());
    assert_eq!(frame[58], ROUTER_FLAG | OVERRIDE_FLAG);
    assert!(Ndp::parse(&frame).is_some(), "the checksum is right");
}
