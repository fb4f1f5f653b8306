//! Packets in the tunnel between a balancer and a target: there and back is the same, whoever is no balancer, or means nobody, or
//! names a flow that there is not, gets nothing through, right checksums stay right and wrong ones wrong.

use outlive_migration::{
    flow::FlowId,
    tunnel::{Mappings, Tunnel},
};
use outlive_tcp::wire::{self, Endpoint, FourTuple, IpVersion, Offload, TcpPacket, icmp};

use crate::{
    input::Input,
    judge::{self, Numbers, assert_sound, fix_checksums, header_sum},
};

const FLOWS: usize = 6;

/// A packet goes in, is changed on the way or not, and comes out; or bytes come out that nobody has put in.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let bits = input.byte();
    let v6 = bits & 1 != 0;
    let tunnel = Tunnel { balancer: address(v6, 1), target: address(v6, 9) };
    let balancers = [address(false, 1), address(true, 1), address(v6, 2)];
    let own = [address(false, 9), address(true, 9)];
    let mut mappings = Mappings::new(balancers, own, FLOWS);
    for _ in 0..input.below(FLOWS + 3) {
        let (flow, ends) = (flow(&mut input), ends(&mut input));
        let known = mappings.get(flow);
        let room = mappings.len() < FLOWS;
        let entered = mappings.insert(flow, ends);
        assert_eq!(entered, known.map_or(room, |known| known == ends), "what is there stays");
    }
    assert!(mappings.len() <= FLOWS);
    if bits & 2 != 0 {
        return error(&mut input, &mappings, v6);
    }

    let (flow, ends) = (flow(&mut input), ends_of(&mut input, v6));
    let numbers = Numbers {
        seq: input.number(),
        ack: input.number(),
        flags: input.u16(),
        window: input.u16(),
    };
    let options = input.bytes(40).to_vec();
    let (spoilt, at, raw) = (input.byte(), input.u16(), input.byte());
    let mut packet = judge::tcp(ends, numbers, &options, input.rest());
    let original = packet.clone();
    let len = packet.len();
    if raw & 7 == 7 {
        // Nobody has put it in: only its ends may be right.
        packet = judge::tcp(tunnel.ends(flow), numbers, &options, &[]);
    } else {
        let parsed = TcpPacket::parse(&mut packet, 0, len, Offload::default());
        // There are options that no packet has.
        let Ok(mut view) = parsed else { return };
        tunnel.enter(flow, &mut view).expect("of one IP version");
        assert_sound(&packet, Offload::default());
    }
    let spoils = spoilt & 3 == 3;
    if spoils {
        let at = usize::from(at) % packet.len();
        packet[at] ^= spoilt | 1;
        if spoilt & 4 != 0 {
            fix_checksums(&mut packet, wire::Checksum::Full);
        }
    }
    let before = packet.clone();
    let len = packet.len();
    let Ok(mut view) = TcpPacket::parse(&mut packet, 0, len, Offload::default()) else { return };
    let (came, right) = (view.tuple(), view.checksum_ok());
    let Ok(left) = mappings.leave(&mut view) else {
        assert_eq!(packet, before, "refused, and changed all the same");
        return;
    };
    assert_eq!(FlowId::from_ports(came.source.port, came.destination.port), Some(left));
    assert!(balancers.contains(&came.source.addr) && own.contains(&came.destination.addr));
    assert_eq!(mappings.get(left), Some(view.tuple()), "a flow's own ends, and nobody else's");
    assert_eq!(view.checksum_ok(), right, "right stays right, wrong stays wrong");
    if !spoils && raw & 7 != 7 && mappings.get(flow) == Some(ends) {
        assert_eq!(packet, original, "there and back");
    }
}

/// Something that is not TCP came out of the tunnel's device.
fn error(input: &mut Input<'_>, mappings: &Mappings, v6: bool) {
    let (from, to) = (address(v6, 1 + input.byte() % 4), address(v6, 8 + input.byte() % 3));
    let flow = flow(input);
    let quoted = Tunnel { balancer: from, target: to }.ends(flow).reversed();
    let numbers = Numbers { seq: input.number(), ack: 0, flags: 0x10, window: 1 };
    let inner = judge::tcp(quoted, numbers, &[], &[]);
    let kind = input.u16().to_be_bytes();
    let mut message = if input.byte() & 3 == 0 { vec![] } else { kind.to_vec() };
    if message.is_empty() {
        message.extend(if v6 { [2, 0] } else { [3, 4] });
    }
    message.extend([0; 2]);
    message.extend(input.u32().to_be_bytes());
    message.extend(if input.byte() & 7 == 7 { input.rest() } else { &inner[..] });
    let ends = (Endpoint::new(from, 0), Endpoint::new(to, 0));
    let mut packet = judge::ip(ends.0, ends.1, if v6 { 58 } else { 1 }, &message);
    fix_checksums(&mut packet, wire::Checksum::Full);
    let mut out = Vec::new();
    let Ok(left) = mappings.leave_error(&packet, &mut out) else {
        assert!(out.is_empty(), "refused, and something left");
        return;
    };
    let of_flow = mappings.get(left).expect("of a flow that there is");
    assert_eq!(header_sum(&out), 0xffff);
    let Ok(icmp::IcmpMessage::Error(error)) = icmp::parse_icmp(&out) else {
        panic!("an error became something else")
    };
    assert_eq!(error.quoted, of_flow.reversed(), "about what this target has sent");
    let version = IpVersion::of(out_address(&out));
    assert_eq!(Some(version), of_flow.version());
}

fn out_address(packet: &[u8]) -> std::net::IpAddr {
    wire::addresses(packet).expect("it is a packet").1
}

fn address(v6: bool, last: u8) -> std::net::IpAddr {
    if v6 {
        std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into()).into()
    } else {
        [10, 9, 0, last].into()
    }
}

fn flow(input: &mut Input<'_>) -> FlowId {
    let value =
        if input.byte() & 7 == 7 { input.u32() } else { 0x1_0001 + u32::from(input.byte() % 8) };
    FlowId::new(value).or(FlowId::new(0x1_0001)).expect("no half is zero")
}

fn ends(input: &mut Input<'_>) -> FourTuple {
    let v6 = input.byte() & 1 != 0;
    ends_of(input, v6)
}

fn ends_of(input: &mut Input<'_>, v6: bool) -> FourTuple {
    let client =
        Endpoint::new(address(v6, 100 + input.byte() % 3), 1_000 + u16::from(input.byte() % 3));
    FourTuple::new(client, Endpoint::new(address(v6, 80), 443))
}
