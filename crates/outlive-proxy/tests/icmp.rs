//! ICMP at the virtual address: errors reach the end whose packet they are about, in its own terms, and cannot be
//! used to end a connection; pings and other protocols are answered, within bounds.

mod bench;

use std::net::IpAddr;

use bench::{Bench, CLIENT_ISN, SERVER_ISN, client, config, end, listener, segment};
use outlive_proxy::counters::Counter;
use outlive_tcp::{
    seq::Seq,
    wire::{
        Endpoint, Flags, FourTuple, addresses,
        icmp::{IcmpErrorKind, IcmpMessage, parse_icmp},
    },
};

const ECHO: u8 = 8;
const UNREACHABLE: u8 = 3;
const PORT: u8 = 3;
const TOO_BIG: u8 = 4;
const UDP: u8 = 17;

fn ip(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else { panic!("IPv4 only") };
    let mut packet = vec![0x45, 0];
    packet.extend((20 + payload.len() as u16).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    let checksum = !sum(&packet);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(payload);
    packet
}

fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|p| u32::from(p[0]) << 8 | u32::from(*p.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

fn icmp(from: IpAddr, to: IpAddr, head: [u8; 8], rest: &[u8]) -> Vec<u8> {
    let mut message = [&head, rest].concat();
    let checksum = !sum(&message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    ip(from, to, 1, &message)
}

/// What a router on the way says about a packet that left the node.
fn error(about: &[u8], code: u8, mtu: u16) -> Vec<u8> {
    let (source, _) = addresses(about).unwrap();
    let [high, low] = mtu.to_be_bytes();
    let router = end(1, 0).addr;
    icmp(router, source, [UNREACHABLE, code, 0, 0, 0, 0, high, low], &about[..28])
}

fn quoted(packet: &[u8]) -> (FourTuple, Seq, IcmpErrorKind) {
    match parse_icmp(packet) {
        Ok(IcmpMessage::Error(error)) => (error.quoted, error.quoted_seq, error.what),
        other => panic!("{other:?}"),
    }
}

fn packet_of(segment: outlive_tcp::segment::Segment<'_>) -> Vec<u8> {
    let mut packet = Vec::new();
    segment.emit(&mut packet);
    packet
}

#[test]
fn an_error_reaches_the_end_whose_packet_it_is_about() {
    let mut bench = Bench::new(config());
    let last = bench.establish(1);
    let (server, own) = (last.to(), last.tuple.source);
    for (from_client, said, sender) in [
        (
            true,
            segment(client(1), listener(), CLIENT_ISN + 1, Some(SERVER_ISN + 1), Flags::PSH),
            client(1),
        ),
        (false, segment(server, own, SERVER_ISN + 1, Some(last.seq), Flags::PSH), server),
    ] {
        let forwarded = bench.raw(&packet_of(said)).remove(0);
        let out = bench.raw(&error(&forwarded, TOO_BIG, 1_400));
        assert_eq!(addresses(&out[0]).unwrap().1, sender.addr, "client: {from_client}");
        let (tuple, seq, what) = quoted(&out[0]);
        assert_eq!((tuple, seq), (said.tuple, said.seq), "as it wrote it");
        assert_eq!(what, IcmpErrorKind::TooBig { mtu: 1_400 });
    }
    assert_eq!(bench.counter(Counter::IcmpTranslated), 2);
    assert_eq!(bench.sessions(), [0, 1, 0], "an error ends nothing");

    let stranger = FourTuple { source: listener(), destination: client(9) };
    let about = packet_of(segment(stranger.source, stranger.destination, Seq(1), None, Flags::SYN));
    assert!(bench.raw(&error(&about, PORT, 0)).is_empty());
    let mut damaged = error(&about, PORT, 0);
    damaged[22] ^= 1;
    assert!(bench.raw(&damaged).is_empty());
    assert_eq!(bench.counter(Counter::DropMalformed), 1, "a wrong checksum");
}

/// Somebody off the path knows the servers, and can guess ports; the sequence number of the SYN it cannot.
#[test]
fn only_an_error_about_the_very_syn_makes_the_node_try_another_server() {
    let mut bench = Bench::new(config());
    let syn = bench.syn(1).remove(0);
    let about = |seq| packet_of(segment(syn.tuple.source, syn.to(), seq, None, Flags::SYN));
    assert!(bench.raw(&error(&about(syn.seq + 1), PORT, 0)).is_empty());
    assert!(bench.raw(&error(&about(syn.seq), TOO_BIG, 500)).is_empty());
    assert_eq!(bench.counter(Counter::ServerRefused), 0);
    let next = bench.raw(&error(&about(syn.seq), PORT, 0));
    assert_eq!(addresses(&next[0]).unwrap().1, end(22, 0).addr);
    assert_eq!(bench.counter(Counter::ServerRefused), 1);
}

#[test]
fn pings_are_answered_at_our_addresses_only() {
    let mut bench = Bench::new(config());
    let ping =
        |to: Endpoint| icmp(client(1).addr, to.addr, [ECHO, 0, 0, 0, 0, 7, 0, 9], b"payload");
    let reply = bench.raw(&ping(listener())).remove(0);
    assert_eq!(addresses(&reply).unwrap(), (listener().addr, client(1).addr));
    assert_eq!(reply[20], 0);
    assert_eq!(reply[24..], *b"\0\x07\0\x09payload");
    assert!(bench.raw(&ping(end(50, 0))).is_empty());
    assert_eq!(bench.counter(Counter::EchoReplies), 1);
}

#[test]
fn other_protocols_are_refused_but_not_without_end() {
    let mut bench = Bench::new(config());
    let datagram = ip(client(1).addr, listener().addr, UDP, &[0x30, 0x39, 0, 53, 0, 8, 0, 0]);
    let answers = (0..150).filter(|_| !bench.raw(&datagram).is_empty()).count();
    assert_eq!(answers, 100);
    bench.pass(std::time::Duration::from_secs(1));
    let answer = bench.raw(&datagram).remove(0);
    assert_eq!((answer[20], answer[21]), (UNREACHABLE, PORT));
    assert_eq!(answer[28..], datagram[..]);
    assert_eq!(bench.counter(Counter::Unreachables), 101);
}
