//! What a packet has to be to be taken, and what is read from it.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;
use crate::{
    seq::Seq,
    testing::{Raw, any_packet, assert_sound, buffer, hex, parse, tuple},
};

fn v4() -> Raw {
    Raw::plain(tuple("10.0.0.1:4000", "10.0.0.2:80"))
}

fn v6() -> Raw {
    Raw::plain(tuple("[fd00::1]:4000", "[fd00::2]:80"))
}

/// IPv6 with these extension headers before TCP.
fn extended(next_header: u8, extensions: &str) -> Raw {
    Raw { next_header, extensions: hex(extensions), ..v6() }
}

fn verdict(packet: &[u8]) -> Result<(), Malformed> {
    parse(&mut buffer(packet), Checksum::Full).map(drop)
}

fn verdict_of_options(options: &[u8]) -> Result<(), Malformed> {
    verdict(&Raw { options: options.to_vec(), ..v4() }.build(Checksum::Full))
}

proptest! {
    #[test]
    fn a_packet_reads_as_it_was_written(raw in any_packet(), trailer in vec(any::<u8>(), 0..9)) {
        let packet = raw.build(Checksum::Full);
        prop_assert_eq!(classify(&packet), Ok(Kind::Tcp));
        let mut with_trailer = buffer(&[&packet, &trailer[..]].concat());
        let view = parse(&mut with_trailer, Checksum::Full).unwrap();
        prop_assert_eq!(view.tuple(), raw.tuple);
        prop_assert_eq!((view.seq(), view.ack()), (Seq(raw.seq), Seq(raw.ack)));
        prop_assert_eq!((view.flags(), view.window()), (Flags(raw.flags), raw.window));
        prop_assert_eq!(view.payload(), &raw.payload[..]);
        prop_assert_eq!(view.bytes(), &packet[..]);
        prop_assert_eq!(view.headers_len() + raw.payload.len(), packet.len());
        prop_assert_eq!(view.timestamps(), view.options().timestamps);
        prop_assert!(view.checksum_ok());
    }

    #[test]
    fn one_wrong_bit_is_seen_by_the_checksum(raw in any_packet(), bit in any::<Index>()) {
        let mut packet = raw.build(Checksum::Full);
        let ip_header_len = packet.len() - 20 - raw.options.len() - raw.payload.len();
        // Anywhere in the segment but in the data offset, which would change what is parsed.
        let bits = 8 * (packet.len() - ip_header_len);
        let bit = bit.index(bits);
        prop_assume!(bit / 8 != 12 && !(20..20 + raw.options.len()).contains(&(bit / 8)));
        packet[ip_header_len + bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!parse(&mut buffer(&packet), Checksum::Full).unwrap().checksum_ok());
        prop_assert!(parse(&mut buffer(&packet), Checksum::Verified).unwrap().checksum_ok());
        prop_assert!(parse(&mut buffer(&packet), Checksum::Partial).unwrap().checksum_ok());
    }

    #[test]
    fn no_bytes_make_a_reader_panic(
        mut bytes in vec(any::<u8>(), 0..200),
        first in prop_oneof![Just(0x45u8), Just(0x46), Just(0x60), any::<u8>()],
        protocol in prop::sample::select(vec![6u8, 1, 58, 0, 43, 44, 60, 99]),
        len in 0u16..200,
        lie in any::<bool>(),
    ) {
        for (at, value) in [(0, first), (if first >> 4 == 6 { 6 } else { 9 }, protocol)] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        let field = if first >> 4 == 6 { 4 } else { 2 };
        if let Some(bytes) = bytes.get_mut(field..field + 2) && !lie {
            bytes.copy_from_slice(&len.to_be_bytes());
        }
        read_everything(&bytes);
    }

    #[test]
    fn no_damage_makes_a_reader_panic(
        raw in any_packet(),
        damage in vec((any::<Index>(), any::<u8>()), 0..6),
        cut in any::<Index>(),
    ) {
        let mut packet = raw.build(Checksum::Full);
        for (at, value) in damage {
            let at = at.index(packet.len().min(80));
            packet[at] = value;
        }
        read_everything(&packet);
        packet.truncate(cut.index(packet.len()));
        read_everything(&packet);
    }
}

fn read_everything(bytes: &[u8]) {
    let _ = classify(bytes);
    let _ = addresses(bytes);
    let _ = icmp::parse_icmp(bytes);
    let mut out = vec![];
    icmp::echo_reply(bytes, &mut out);
    icmp::port_unreachable(bytes, &mut out);
    if let Ok(packet) = parse(&mut buffer(bytes), Checksum::Full) {
        // Debug reads every field.
        let _ = (format!("{packet:?}"), packet.checksum_ok(), packet.segment_len());
        let _ = crate::segment::reset_for(&packet);
    }
}

#[test]
fn lengths_are_not_trusted() {
    let packet = v4().build(Checksum::Full);
    for len in 0..packet.len() {
        assert_eq!(verdict(&packet[..len]), Err(Malformed::Truncated), "cut at {len}");
    }
    let packet = v6().build(Checksum::Full);
    for len in 0..packet.len() {
        assert_eq!(verdict(&packet[..len]), Err(Malformed::Truncated), "cut at {len}");
    }

    let changed = |at: usize, value: u8| {
        let mut packet = v4().build(Checksum::Full);
        packet[at] = value;
        verdict(&packet)
    };
    assert_eq!(changed(0, 0x55), Err(Malformed::Version));
    assert_eq!(changed(0, 0x44), Err(Malformed::HeaderLength));
    assert_eq!(changed(3, 19), Err(Malformed::HeaderLength));
    assert_eq!(changed(3, 39), Err(Malformed::Truncated)); // One byte short of a TCP header.
    assert_eq!(changed(32, 0x40), Err(Malformed::HeaderLength));
    assert_eq!(changed(32, 0xf0), Err(Malformed::Truncated));
    assert_eq!(changed(9, 17), Err(Malformed::NotTcp));
    assert_eq!(changed(6, 0x20), Err(Malformed::Fragment)); // More fragments.
    assert_eq!(changed(7, 1), Err(Malformed::Fragment)); // An offset.
}

#[test]
fn impossible_ranges_are_truncated_packets() {
    let mut packet = v4().build(Checksum::Full);
    let len = packet.len();
    for (start, end) in [(5, 4), (0, len + 1), (len + 1, len + 2), (usize::MAX, 0)] {
        let result = TcpPacket::parse(&mut packet, start, end, Offload::default());
        assert_eq!(result.map(drop).unwrap_err(), Malformed::Truncated);
    }
}

#[test]
fn a_super_segment_may_be_as_long_as_ip_allows() {
    let longest_v4 = Raw { payload: vec![7; 65_535 - 40], ..v4() };
    let longest_v6 = Raw { payload: vec![7; 65_535 - 20], ..v6() };
    for raw in [longest_v4, longest_v6] {
        let mut bytes = buffer(&raw.build(Checksum::Full));
        let packet = parse(&mut bytes, Checksum::Full).unwrap();
        assert_eq!(packet.payload_len() as usize, raw.payload.len());
        assert!(packet.checksum_ok());
    }
}

#[test]
fn segment_length_counts_syn_and_fin() {
    for (flags, len) in [(0x10, 7), (0x02, 8), (0x11, 8), (0x13, 9)] {
        let mut bytes = buffer(&Raw { flags, ..v4() }.build(Checksum::Full));
        assert_eq!(parse(&mut bytes, Checksum::Full).unwrap().segment_len(), len);
    }
}

#[test]
fn harmless_extension_headers_are_passed_over() {
    let hop_by_hop = "3c 00 01 04 00000000";
    let destination = "2b 01 01 0c 00000000 00000000 00000000";
    let routing = "06 00 04 00 00000000";
    let all = [hop_by_hop, destination, routing].concat();
    let packet = extended(0, &all).build(Checksum::Full);
    assert_eq!(verdict(&packet), Ok(()));
    assert_eq!(classify(&packet), Ok(Kind::Tcp));
    // RFC 6946: a fragment header without fragmentation.
    let atomic = extended(44, "06 ff 0000 12345678").build(Checksum::Full);
    assert_eq!(verdict(&atomic), Ok(()));
}

#[test]
fn other_extension_headers_are_refused() {
    let route_to_follow = extended(43, "06 00 04 01 00000000");
    let hop_by_hop_second = extended(60, "00 00 01 04 00000000  06 00 01 04 00000000");
    let endless = extended(60, &"3c 00 01 04 00000000".repeat(20));
    let beyond_the_end = extended(60, "06 1f 01 04 00000000");
    for raw in [route_to_follow, hop_by_hop_second, endless, beyond_the_end] {
        let packet = raw.build(Checksum::Full);
        assert_eq!(verdict(&packet), Err(Malformed::ExtensionHeader), "{raw:?}");
        assert_eq!(classify(&packet), Err(Malformed::ExtensionHeader));
    }
}

#[test]
fn a_quote_has_its_headers_or_is_none() {
    let packet = extended(60, "06 01 01 0c 00000000 00000000 00000000").build(Checksum::Full);
    for len in 0..56 {
        assert_eq!(IpLayout::of_quote(&packet[..len]), Err(Malformed::Truncated), "cut at {len}");
    }
    assert_eq!(IpLayout::of_quote(&packet[..56]), IpLayout::of(&packet));
}

#[test]
fn fragments_are_told_from_packets() {
    for (name, header) in [("first", "06 00 0001 12345678"), ("later", "06 00 0058 12345678")] {
        let packet = extended(44, header).build(Checksum::Full);
        assert_eq!(verdict(&packet), Err(Malformed::Fragment), "{name}");
        assert_eq!(classify(&packet), Ok(Kind::Fragment), "{name}");
    }
}

#[test]
fn packets_are_classified_by_protocol() {
    let with_protocol = |mut packet: Vec<u8>, at: usize, protocol: u8| {
        packet[at] = protocol;
        classify(&packet)
    };
    let (v4, v6) = (v4().build(Checksum::Full), v6().build(Checksum::Full));
    assert_eq!(with_protocol(v4.clone(), 9, 1), Ok(Kind::Icmp));
    assert_eq!(with_protocol(v6.clone(), 6, 58), Ok(Kind::Icmp));
    assert_eq!(with_protocol(v4.clone(), 9, 17), Ok(Kind::Other(17)));
    // The ICMP of the other version has no meaning.
    assert_eq!(with_protocol(v4, 9, 58), Ok(Kind::Other(58)));
    assert_eq!(with_protocol(v6, 6, 1), Ok(Kind::Other(1)));
}

#[test]
fn option_lists_that_do_not_parse_are_refused() {
    let refused = [
        "08 00 0101",                                               // No length below 2,
        "08 01 0101",                                               //
        "01 01 01 08",                                              // no missing one,
        "08 0a 01 01",                                              // none beyond the header,
        "0101 080a 00000001 00000002  0101 080a 00000003 00000004", // timestamps once,
        "0101 050a 00000001 00000002  0101 050a 00000003 00000004", // SACK once.
    ];
    for options in refused {
        let verdict = verdict_of_options(&hex(options));
        assert_eq!(verdict, Err(Malformed::OptionLayout), "{options}");
    }
}

#[test]
fn options_of_no_meaning_are_passed_over() {
    // Timestamps and SACK of odd lengths; what follows the end of the list.
    for options in ["08 03 00 01", "05 04 0000", "05 02 0101", "00 08 00 00", "fe 04 0000"] {
        assert_eq!(verdict_of_options(&hex(options)), Ok(()), "{options}");
        assert_eq!(Options::parse(&hex(options)), Ok(Options::default()), "{options}");
    }
}

#[test]
fn the_options_of_a_linux_syn() {
    let options = Options::parse(&hex("020405b4 0402 080a 12345678 00000000 01 030307")).unwrap();
    assert_eq!(options.mss, Some(1460));
    assert_eq!(options.window_scale, Some(7));
    assert!(options.sack_permitted);
    assert_eq!(options.timestamps, Some(Timestamps { value: 0x1234_5678, echo: 0 }));
    assert!(!options.authenticated && options.sack.is_empty());
}

#[test]
fn odd_options_of_a_syn() {
    let parsed = |options: &str| Options::parse(&hex(options)).unwrap();
    assert_eq!(parsed("03 03 0f 01").window_scale, Some(14)); // RFC 7323, section 2.3
    assert_eq!(parsed("02 04 00 00").mss, None);
    assert!(parsed("13 12 00112233445566778899aabbccddeeff 0101").authenticated);
    assert!(parsed("1d 04 00 00").authenticated);
    assert!(!parsed("22 0a 0011223344556677 0101").authenticated); // Fast Open
}

#[test]
fn flags_are_named() {
    assert_eq!(format!("{:?}", Flags::ACK | Flags::SYN), "SYN|ACK");
    assert_eq!(format!("{:?}", Flags(0x110)), "ACK|0x100");
    assert_eq!(format!("{:?}", Flags::NONE), "0x0");
}

#[test]
fn endpoints_are_written_as_usual() {
    let tuple = tuple("10.0.0.1:80", "10.0.0.2:4000");
    assert_eq!(tuple.reversed().to_string(), "10.0.0.2:4000 -> 10.0.0.1:80");
    assert_eq!(crate::testing::end("[fd00::1]:80").to_string(), "[fd00::1]:80");
}

#[test]
fn a_device_is_asked_to_cut_what_is_longer_than_the_receiver_takes() {
    for raw in [Raw { payload: vec![7; 1_000], ..v4() }, Raw { payload: vec![7; 1_000], ..v6() }] {
        for checksum in [Checksum::Full, Checksum::Verified, Checksum::Partial] {
            let mut bytes = buffer(&raw.build(checksum));
            let mut packet = parse(&mut bytes, checksum).unwrap();
            packet.limit_segments(1_000);
            assert_eq!(packet.offload(), Offload { checksum, ..Offload::default() }, "fits");
            packet.limit_segments(524);
            let segmentation = Segmentation::Tcp { size: 524, ecn: false };
            assert_eq!(packet.offload(), Offload { checksum: Checksum::Partial, segmentation });
            let ip_header_len = packet.ip_header_len();
            assert_sound(packet.bytes(), ip_header_len, Checksum::Partial);
            packet.limit_segments(600);
            assert_eq!(packet.offload().segmentation, segmentation, "never larger again");
        }
    }
}
