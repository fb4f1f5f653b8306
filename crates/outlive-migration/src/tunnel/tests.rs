use outlive_tcp::{
    segment::{DEFAULT_HOP_LIMIT, Segment},
    seq::Seq,
    wire::{Checksum, Flags, IcmpErrorKind, Offload, Options, Segmentation, Timestamps},
};

use super::*;

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ends(source: &str, destination: &str) -> FourTuple {
    let end = |text: &str| Endpoint::from(text.parse::<std::net::SocketAddr>().unwrap());
    FourTuple::new(end(source), end(destination))
}

struct Case {
    tunnel: Tunnel,
    ends: FourTuple,
    other: IpAddr,
}

/// In IPv4 and in IPv6.
fn cases() -> [Case; 2] {
    [
        Case {
            tunnel: Tunnel { balancer: addr("10.9.0.1"), target: addr("10.9.0.7") },
            ends: ends("10.1.2.3:4660", "192.0.2.80:443"),
            other: addr("10.66.0.1"),
        },
        Case {
            tunnel: Tunnel { balancer: addr("fd00:9::1"), target: addr("fd00:9::7") },
            ends: ends("[2001:db8::3]:4660", "[2001:db8:1::80]:443"),
            other: addr("fd00:66::1"),
        },
    ]
}

fn flow() -> FlowId {
    FlowId::new(0x8001_0203).unwrap()
}

fn segment(ends: FourTuple, payload: &[u8]) -> Vec<u8> {
    let timestamps = Some(Timestamps { value: 7, echo: 8 });
    let mut bytes = Vec::new();
    let segment = Segment {
        tuple: ends,
        seq: Seq(u32::MAX - 3),
        ack: Some(Seq(9)),
        flags: Flags::PSH,
        window: 0xffff,
        options: Options { timestamps, ..Options::default() },
        payload,
        hop_limit: DEFAULT_HOP_LIMIT,
    };
    segment.emit(&mut bytes);
    bytes
}

fn parse(bytes: &mut [u8], offload: Offload) -> TcpPacket<'_> {
    let end = bytes.len();
    TcpPacket::parse(bytes, 0, end, offload).unwrap()
}

fn table(case: &Case) -> Mappings {
    let mut table = Mappings::new([case.tunnel.balancer], [case.tunnel.target], 4);
    assert!(table.insert(flow(), case.ends));
    table
}

#[test]
fn a_packet_comes_out_as_it_went_in() {
    for case in cases() {
        let original = segment(case.ends, b"some data");
        let mut bytes = original.clone();
        let mut packet = parse(&mut bytes, Offload::default());
        case.tunnel.enter(flow(), &mut packet).unwrap();
        assert!(packet.checksum_ok());
        assert_eq!(packet.bytes().len(), original.len(), "nothing is added");
        assert_eq!(packet.tuple(), case.tunnel.ends(flow()));
        assert_eq!(table(&case).leave(&mut packet), Ok(flow()));
        assert_eq!(bytes, original);
    }
}

#[test]
fn a_super_segment_stays_whole_and_its_partial_checksum_partial() {
    for case in cases() {
        let payload = vec![0x5a; 60_000];
        let mut bytes = segment(case.ends, &payload);
        let offload = Offload::default();
        let mut packet = parse(&mut bytes, offload);
        // Has the device cut it: the checksum becomes a partial one.
        packet.limit_segments(1_448);
        let offload = packet.offload();
        assert_eq!(offload.checksum, Checksum::Partial);
        let before = packet.bytes().to_vec();
        case.tunnel.enter(flow(), &mut packet).unwrap();
        assert_eq!(packet.offload().segmentation, Segmentation::Tcp { size: 1_448, ecn: false });
        // The seed is the one that a device needs for the tunnel's addresses.
        let mut expected = segment(case.tunnel.ends(flow()), &payload);
        let mut expected = parse(&mut expected, Offload::default());
        expected.limit_segments(1_448);
        assert_eq!(packet.bytes(), expected.bytes());
        assert_eq!(table(&case).leave(&mut packet), Ok(flow()));
        assert_eq!(packet.bytes(), before);
    }
}

#[test]
fn what_is_forged_or_unknown_is_told_apart_and_left_alone() {
    for case in cases() {
        let table = table(&case);
        let Tunnel { balancer, target } = case.tunnel;
        let from = |balancer, target, value: u32| {
            let ports = ((value >> 16) as u16, value as u16);
            FourTuple::new(Endpoint::new(balancer, ports.0), Endpoint::new(target, ports.1))
        };
        for (tuple, stray) in [
            (from(case.other, target, flow().value()), Stray::Stranger),
            (from(balancer, case.other, flow().value()), Stray::Elsewhere),
            (from(balancer, target, flow().value() + 1), Stray::UnknownFlow),
            (from(balancer, target, 0x1234), Stray::UnknownFlow),
        ] {
            let original = segment(tuple, b"x");
            let mut bytes = original.clone();
            assert_eq!(table.leave(&mut parse(&mut bytes, Offload::default())), Err(stray));
            assert_eq!(bytes, original);
        }
    }
}

#[test]
fn a_flow_is_entered_once_and_the_table_is_bounded() {
    let [case, _] = cases();
    let mut table = table(&case);
    assert!(table.insert(flow(), case.ends), "the same again changes nothing");
    assert!(!table.insert(flow(), ends("10.1.2.3:1", "192.0.2.80:443")));
    for value in 0x1_0001..0x1_0004 {
        assert!(table.insert(FlowId::new(value).unwrap(), case.ends));
    }
    assert!(!table.insert(FlowId::new(0x1_0005).unwrap(), case.ends));
    assert_eq!(table.remove(flow()), Some(case.ends));
    assert_eq!((table.remove(flow()), table.len()), (None, 3));
}

/// "Fragmentation needed" or "packet too big" about the packet of `quoted`, as a router at `from` sends it to `to`.
fn too_big(from: IpAddr, to: IpAddr, quoted: FourTuple) -> Vec<u8> {
    // Built from an unreachable that this crate's own code does not make.
    let quote = segment(quoted, &[0; 64]);
    let mut message = match from {
        IpAddr::V4(_) => vec![3, 4, 0, 0, 0, 0, 0x05, 0x14],
        IpAddr::V6(_) => vec![2, 0, 0, 0, 0, 0, 0x05, 0x14],
    };
    message.extend(&quote);
    let mut packet = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let len = (20 + message.len()) as u16;
            let mut header = vec![0x45, 0];
            header.extend(len.to_be_bytes());
            header.extend([0, 0, 0, 0, 64, 1, 0, 0]);
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = !outlive_tcp::checksum::sum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            let sum = !outlive_tcp::checksum::sum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            header
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend((message.len() as u16).to_be_bytes());
            header.extend([58, 64]);
            header.extend(from.octets());
            header.extend(to.octets());
            let addresses = [from.octets(), to.octets()].concat();
            let pseudo = outlive_tcp::checksum::pseudo_header(&addresses, 58, message.len());
            let sum = u64::from(pseudo) + u64::from(outlive_tcp::checksum::sum(&message));
            let sum = !outlive_tcp::checksum::fold(sum);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            header
        }
        _ => panic!("addresses of different versions"),
    };
    packet.extend(message);
    packet
}

#[test]
fn an_error_about_an_answer_is_led_to_the_target() {
    for case in cases() {
        let virtual_address = case.ends.destination.addr;
        let error = too_big(case.other, virtual_address, case.ends.reversed());
        let mut tunnelled = Vec::new();
        let how = case.tunnel.error_for_target(flow());
        icmp::readdress_error(&error, &how, &mut tunnelled).unwrap();
        let mut arrived = Vec::new();
        assert_eq!(table(&case).leave_error(&tunnelled, &mut arrived), Ok(flow()));
        let Ok(IcmpMessage::Error(read)) = icmp::parse_icmp(&arrived) else { panic!("no error") };
        assert_eq!((read.quoted, read.quoted_seq), (case.ends.reversed(), Seq(u32::MAX - 3)));
        assert_eq!(read.what, IcmpErrorKind::TooBig { mtu: 1_300 });
        let (_, to) = outlive_tcp::wire::addresses(&arrived).unwrap();
        assert_eq!(to, virtual_address);
        // Straight from a router, or about nothing that goes through the tunnel, it is a stray.
        assert_eq!(table(&case).leave_error(&error, &mut arrived), Err(Stray::Elsewhere));
        let strange = too_big(case.tunnel.balancer, case.tunnel.target, case.ends);
        assert_eq!(table(&case).leave_error(&strange, &mut arrived), Err(Stray::UnknownFlow));
        let forged = too_big(case.other, case.tunnel.target, case.tunnel.ends(flow()).reversed());
        assert_eq!(table(&case).leave_error(&forged, &mut arrived), Err(Stray::Stranger));
    }
}

#[test]
fn an_error_about_a_tunnelled_packet_becomes_one_about_the_client_s() {
    for case in cases() {
        let error = too_big(case.other, case.tunnel.balancer, case.tunnel.ends(flow()));
        let mut told = Vec::new();
        icmp::readdress_error(&error, &Tunnel::error_for_client(case.ends), &mut told).unwrap();
        let Ok(IcmpMessage::Error(read)) = icmp::parse_icmp(&told) else { panic!("no error") };
        assert_eq!(read.quoted, case.ends);
        let (_, to) = outlive_tcp::wire::addresses(&told).unwrap();
        assert_eq!(to, case.ends.source.addr);
    }
}
