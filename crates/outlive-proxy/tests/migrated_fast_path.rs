//! Migrated connections whose packets are left to the fast path: they come out as by hand, and nothing is left there when they end.

mod duo;
mod targets;

use std::time::Duration;

use duo::Out;
use outlive_migration::message::HowEnded;
use outlive_proxy::fast_path::{Model, Outcome};
use outlive_tcp::{
    segment::Segment,
    wire::{Flags, Offload, TcpPacket},
};
use targets::{REQUEST, World, from_client, tunnelled};

/// The active node's fast path, and what it sees first.
struct Fast {
    world: World,
    model: Model,
}

impl Fast {
    fn new(room: usize) -> Self {
        let (mut world, model) = (World::new(), Model::new(room));
        world.duo.living(0).unwrap().use_fast_path(Box::new(model.clone()));
        Fast { world, model }
    }

    /// A client's connection that lives at a target.
    fn migrated(&mut self, number: u16) -> outlive_tcp::seq::Seq {
        let (iss, _) = self.world.request(0, number);
        self.world.settle();
        iss
    }

    /// What leaves, and whether the fast path did it.
    fn send(&mut self, segment: Segment<'_>) -> (Vec<Out>, bool) {
        let mut buffer = Vec::new();
        segment.emit(&mut buffer);
        let end = buffer.len();
        let mut packet = TcpPacket::parse(&mut buffer, 0, end, Offload::default()).unwrap();
        match self.model.handle(self.world.duo.now, &mut packet) {
            Outcome::Translated(news) => {
                assert_eq!(news, None, "there is nothing to say of it");
                assert!(packet.checksum_ok());
                (vec![Out::read(packet.bytes())], true)
            }
            Outcome::LeftAlone => (self.world.duo.send(0, segment), false),
        }
    }
}

#[test]
fn a_long_answer_is_acknowledged_through_the_fast_path() {
    let mut fast = Fast::new(4);
    let iss = fast.migrated(1);
    let blob = fast.world.agents[0].infused.values().next().unwrap().clone();
    let mut by_path = 0;
    for number in 1..20 {
        // Far beyond everything that this node could know of the target's window.
        let ack = from_client(1, REQUEST.len(), iss + number * 1_000_000, Flags(0));
        let (out, quick) = fast.send(ack);
        assert_eq!((out[0].tuple, out[0].seq), (tunnelled(0, &blob), ack.seq));
        assert_eq!(out[0].ack, iss + number * 1_000_000 + 1);
        by_path += u32::from(quick);
    }
    assert!((10..19).contains(&by_path), "{by_path}");

    // What the client says goes that way, too; but nothing overtakes what is missing, and is perhaps under way by hand.
    let ack = iss + 19_000_000;
    let more = from_client(1, REQUEST.len(), ack, Flags::PSH);
    assert!(fast.send(Segment { payload: b"more", ..more }).1);
    let gap = from_client(1, REQUEST.len() + 14, ack, Flags::PSH);
    assert!(!fast.send(Segment { payload: b"and more", ..gap }).1);
    let rst = from_client(1, REQUEST.len() + 22, ack, Flags::RST);
    let (out, quick) = fast.send(rst);
    assert!(!quick && out[0].flags.contains(Flags::RST), "by hand, and led to the target, too");

    let id = fast.world.agents[0].speaking[0];
    fast.world.end(0, id, HowEnded::Closed);
    fast.world.settle();
    assert!(fast.model.is_empty());
    assert_eq!(fast.world.duo.node(0).delegated(), 0);
}

#[test]
fn a_client_that_is_heard_in_the_fast_path_is_not_idle() {
    let mut fast = Fast::new(4);
    let idle = targets::migrating().listeners[0].idle_timeout;
    let iss = fast.migrated(1);
    let ack = from_client(1, REQUEST.len(), iss + 5, Flags(0));
    for _ in 0..12 {
        fast.send(ack);
    }
    for _ in 0..3 {
        fast.world.duo.now = fast.world.duo.now + idle - Duration::from_secs(5);
        assert!(fast.send(ack).1);
        let now = fast.world.duo.now;
        fast.world.duo.living(0).unwrap().handle_timeout(now);
        assert_eq!(fast.world.migrated(0), 1);
    }
}

#[test]
fn whoever_is_idle_makes_room() {
    let mut fast = Fast::new(1);
    let first = fast.migrated(1);
    let second = fast.migrated(2);
    for _ in 0..12 {
        fast.send(from_client(1, REQUEST.len(), first + 5, Flags(0)));
    }
    assert_eq!(fast.model.len(), 1);
    fast.world.duo.pass(Duration::from_secs(3));
    let ack = from_client(2, REQUEST.len(), second + 5, Flags(0));
    let quick = (0..600).any(|_| fast.send(ack).1);
    assert!(quick, "it has the place now");
    assert_eq!((fast.model.len(), fast.world.duo.node(0).delegated()), (1, 1));
    let (out, quick) = fast.send(from_client(1, REQUEST.len(), first + 9, Flags(0)));
    assert!(!quick && out.len() == 1);
}

#[test]
fn a_lost_connection_is_taken_back() {
    let mut fast = Fast::new(4);
    let iss = fast.migrated(1);
    for _ in 0..12 {
        fast.send(from_client(1, REQUEST.len(), iss + 5, Flags(0)));
    }
    assert_eq!(fast.model.len(), 1);
    fast.world.restart(0);
    fast.world.reach(0);
    assert!(fast.model.is_empty());
    let (out, _) = fast.send(from_client(1, REQUEST.len(), iss + 70_000, Flags(0)));
    assert_eq!((out[0].flags, out[0].seq), (Flags::RST, iss + 70_001));
}
