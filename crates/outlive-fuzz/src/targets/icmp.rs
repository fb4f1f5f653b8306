//! ICMP: errors that quote packets, pings, and what is answered to other protocols. What is made is sound, never
//! longer than it may be, and an error that is readdressed there and back is the same.

use outlive_tcp::wire::{
    self, Checksum, Endpoint, FourTuple, Offload,
    icmp::{
        IcmpErrorKind, IcmpMessage, IcmpReaddress, echo_reply, parse_icmp, port_unreachable,
        readdress_error,
    },
};

use crate::{
    input::Input,
    judge::{self, Numbers, assert_sound, fix_checksums, header_sum},
};

/// Makes an ICMP packet, or takes the bytes for one.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let bits = input.byte();
    let v6 = bits & 1 != 0;
    let ends = ends(&mut input, v6);
    let how = IcmpReaddress {
        source: end(&mut input, v6).addr,
        destination: end(&mut input, v6).addr,
        quoted: FourTuple { source: end(&mut input, v6), destination: end(&mut input, v6) },
        seq_delta: input.number(),
        mtu_reduction: input.u16(),
    };
    let packet = if bits & 2 != 0 { input.rest().to_vec() } else { message(&mut input, ends, v6) };
    let kind = wire::classify(&packet);
    std::hint::black_box(wire::addresses(&packet).is_ok());

    let mut out = Vec::new();
    if port_unreachable(&packet, &mut out) {
        assert!(kind.is_ok());
        assert_sound(&out, Offload::default());
        assert!(out.len() <= if out[0] >> 4 == 4 { 576 } else { 1280 }, "{} bytes", out.len());
        out.clear();
    }
    assert!(out.is_empty());
    if echo_reply(&packet, &mut out) {
        assert_eq!(parse_icmp(&packet), Ok(IcmpMessage::EchoRequest));
        assert_sound(&out, Offload::default());
        assert!(out.len() <= packet.len(), "a reply is not longer than the request");
        out.clear();
    }
    assert!(out.is_empty());
    let Ok(IcmpMessage::Error(error)) = parse_icmp(&packet) else {
        assert!(readdress_error(&packet, &how, &mut out).is_err() && out.is_empty());
        return;
    };
    if readdress_error(&packet, &how, &mut out).is_err() {
        assert!(out.is_empty());
        return;
    }
    if header_sum(&packet) == 0xffff {
        assert_eq!(header_sum(&out), 0xffff, "header checksum");
    }
    let Ok(IcmpMessage::Error(there)) = parse_icmp(&out) else {
        panic!("what was readdressed is an error");
    };
    assert_eq!((there.quoted, there.quoted_seq), (how.quoted, error.quoted_seq + how.seq_delta));
    if let (IcmpErrorKind::TooBig { mtu: before }, IcmpErrorKind::TooBig { mtu }) =
        (error.what, there.what)
    {
        assert!(mtu <= before, "an MTU does not grow");
    }
    let Ok((source, destination)) = wire::addresses(&packet) else { return };
    let undo = IcmpReaddress {
        source,
        destination,
        quoted: error.quoted,
        seq_delta: how.seq_delta.wrapping_neg(),
        mtu_reduction: 0,
    };
    if how.mtu_reduction == 0 {
        let mut back = Vec::new();
        readdress_error(&out, &undo, &mut back).expect("there and back");
        assert_eq!(back[..], packet[..back.len()], "there and back");
    }
}

fn end(input: &mut Input<'_>, v6: bool) -> Endpoint {
    let addr = if v6 { input.array::<16>().into() } else { input.array::<4>().into() };
    Endpoint::new(addr, input.u16())
}

fn ends(input: &mut Input<'_>, v6: bool) -> FourTuple {
    FourTuple { source: end(input, v6), destination: end(input, v6) }
}

fn message(input: &mut Input<'_>, ends: FourTuple, v6: bool) -> Vec<u8> {
    let kinds: &[u8] = if v6 { &[1, 2, 3, 4, 128, 129] } else { &[3, 11, 12, 8, 0, 5] };
    let kind = input.one_of(kinds);
    let mut message = vec![kind, input.byte() % 8, 0, 0];
    message.extend(input.array::<4>());
    let bits = input.byte();
    let numbers = Numbers {
        seq: input.number(),
        ack: input.number(),
        flags: input.u16(),
        window: input.u16(),
    };
    let mut quoted = judge::tcp(ends, numbers, &[], input.bytes(64));
    if bits & 1 != 0 {
        let at = usize::from(input.byte()) % quoted.len();
        quoted[at] ^= input.byte();
    }
    let keep = if bits & 2 != 0 { usize::from(input.byte()) } else { quoted.len() };
    message.extend(&quoted[..keep.min(quoted.len())]);
    let protocol = match bits & 0x60 {
        0x60 => input.byte(),
        _ if v6 => 58,
        _ => 1,
    };
    let mut packet = judge::ip(ends.destination, ends.source, protocol, &message);
    if bits & 4 != 0 {
        let at = usize::from(input.byte()) % packet.len();
        packet[at] ^= input.byte();
    }
    if bits & 8 == 0 {
        fix_checksums(&mut packet, Checksum::Full);
    }
    packet.extend(input.bytes(16));
    packet
}
