//! ICMP errors about connections that live at a target.

mod duo;
mod targets;

use duo::{client, listener, segment};
use outlive_tcp::{
    seq::Seq,
    wire::{
        Flags, FourTuple, IcmpErrorKind,
        icmp::{IcmpMessage, parse_icmp},
    },
};
use targets::{TUNNEL, World, tunnel, tunnelled};

/// "Fragmentation needed, 1300 bytes" from a router to `to`, about a packet with these ends.
fn too_big(to: [u8; 4], quoted: FourTuple) -> Vec<u8> {
    let mut quote = Vec::new();
    segment(quoted.source, quoted.destination, Seq(77), Some(Seq(5)), Flags::NONE).emit(&mut quote);
    let mut message = vec![3, 4, 0, 0, 0, 0, 0x05, 0x14];
    message.extend(&quote[..28]);
    let sum = !outlive_tcp::checksum::sum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0x45, 0, 0, 20 + message.len() as u8, 0, 0, 0, 0, 64, 1, 0, 0];
    packet.extend([10, 0, 0, 254]);
    packet.extend(to);
    let sum = !outlive_tcp::checksum::sum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(message);
    packet
}

/// Hands node 0 the packet, and reads the error that it sends.
fn passed_on(world: &mut World, packet: &[u8]) -> Option<(std::net::IpAddr, FourTuple)> {
    let out = world.duo.send_raw(0, packet).pop()?;
    let (_, to) = outlive_tcp::wire::addresses(&out).unwrap();
    let Ok(IcmpMessage::Error(error)) = parse_icmp(&out) else { panic!("no error") };
    assert_eq!((error.quoted_seq, error.what), (Seq(77), IcmpErrorKind::TooBig { mtu: 1_300 }));
    Some((to, error.quoted))
}

#[test]
fn errors_reach_whoever_has_sent_the_packet() {
    let mut world = World::new();
    world.request(0, 1);
    world.settle();
    let blob = world.agents[0].infused.values().next().unwrap().clone();
    let in_tunnel = tunnelled(0, &blob);

    let answer = FourTuple::new(listener(), client(1));
    let std::net::IpAddr::V4(virtual_address) = listener().addr else { unreachable!() };
    let told = passed_on(&mut world, &too_big(virtual_address.octets(), answer));
    assert_eq!(told, Some((tunnel(0), in_tunnel.reversed())), "the target's packet was too long");

    let told = passed_on(&mut world, &too_big(TUNNEL, in_tunnel));
    let ends = FourTuple::new(client(1), listener());
    assert_eq!(
        told,
        Some((client(1).addr, ends)),
        "the client's packet was too long for the tunnel"
    );

    let mut unknown = answer;
    unknown.destination.port += 1;
    assert_eq!(passed_on(&mut world, &too_big(virtual_address.octets(), unknown)), None);
}
