//! Packets as the tests make them, and as they read what a node let out.
#![allow(dead_code, reason = "every test uses a part of it")]

use outlive_tcp::{
    segment::Segment,
    seq::Seq,
    wire::{Endpoint, Flags, FourTuple, Offload, Options, TcpPacket, Timestamps},
};

pub(crate) const HEADROOM: usize = 64;
pub(crate) const CLIENT_ISN: Seq = Seq(1_000);
pub(crate) const SERVER_ISN: Seq = Seq(900_000);

/// A packet that a node let out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Out {
    pub(crate) tuple: FourTuple,
    pub(crate) seq: Seq,
    pub(crate) ack: Seq,
    pub(crate) flags: Flags,
    pub(crate) payload: Vec<u8>,
    pub(crate) timestamps: Option<Timestamps>,
}

impl Out {
    pub(crate) fn read(packet: &[u8]) -> Self {
        let mut packet = packet.to_vec();
        let end = packet.len();
        let packet = TcpPacket::parse(&mut packet, 0, end, Offload::default()).unwrap();
        Out {
            tuple: packet.tuple(),
            seq: packet.seq(),
            ack: packet.ack(),
            flags: packet.flags(),
            payload: packet.payload().to_vec(),
            timestamps: packet.timestamps(),
        }
    }

    /// Whom it is for.
    pub(crate) fn to(&self) -> Endpoint {
        self.tuple.destination
    }
}

/// A segment without payload.
pub(crate) fn segment(
    source: Endpoint,
    destination: Endpoint,
    seq: Seq,
    ack: Option<Seq>,
    flags: Flags,
) -> Segment<'static> {
    Segment {
        tuple: FourTuple { source, destination },
        seq,
        ack,
        flags,
        window: 20_000,
        options: Options::default(),
        payload: &[],
        hop_limit: 64,
    }
}
