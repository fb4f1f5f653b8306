//! A fast path in memory: what the kernel's program must do, in terms of the data plane's own parts. The simulator
//! uses it in place of the kernel, and the kernel's program is tested against it.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use outlive_tcp::{
    time::Time,
    wire::{Flags, FourTuple, Segmentation, TcpPacket},
};

use super::{FastPath, Splice, StreamProgress};
use crate::{
    flows::Side,
    session::track::{News, Stream},
};

/// A fast path in memory. Copies share it: one is given to the core, another to the packets.
#[derive(Clone, Debug, Default)]
pub struct Model(Rc<RefCell<Table>>);

#[derive(Debug, Default)]
struct Table {
    sessions: BTreeMap<u32, Delegated>,
    flows: BTreeMap<FourTuple, (u32, Side)>,
    limit: usize,
    now: Time,
}

#[derive(Debug)]
struct Delegated {
    splice: Splice,
    streams: [Stream; 2],
    last: Option<Time>,
}

/// What has become of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: it goes to the data plane.
    LeftAlone,
    /// It was translated. The session, by slot and serial, wants to be looked at if there is one.
    Translated(Option<(u32, u32)>),
}

impl Model {
    /// One with room for `limit` sessions.
    pub fn new(limit: usize) -> Self {
        Model(Rc::new(RefCell::new(Table { limit, ..Table::default() })))
    }

    /// Sessions that it has.
    pub fn len(&self) -> usize {
        self.0.borrow().sessions.len()
    }

    /// It has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A packet arrives at the node at `now`.
    pub fn handle(&self, now: Time, packet: &mut TcpPacket<'_>) -> Outcome {
        let mut table = self.0.borrow_mut();
        table.now = now;
        let flags = packet.flags();
        let ordinary = flags.contains(Flags::ACK)
            && !flags.contains(Flags::SYN)
            && !flags.contains(Flags::RST)
            && packet.checksum_ok();
        let Some((slot, side)) = table.flows.get(&packet.tuple()).copied() else {
            return Outcome::LeftAlone;
        };
        let Some(session) = table.sessions.get_mut(&slot).filter(|_| ordinary) else {
            return Outcome::LeftAlone;
        };
        let direction = &session.splice.directions[index(side)];
        let segment = match packet.offload().segmentation {
            Segmentation::Tcp { size, .. } => size.into(),
            Segmentation::None => packet.payload_len(),
        };
        if segment > direction.segment_limit {
            return Outcome::LeftAlone;
        }
        let translation = direction.translation;
        let (seq, len) = (packet.seq(), packet.payload_len());
        if session.streams[index(side)].has_gap_before(seq) {
            return Outcome::LeftAlone;
        }
        let ack = packet.ack() + translation.ack_delta;
        let window = u32::from(packet.window()) << translation.window_from;
        let opens = session.splice.opening;
        let acknowledged = session.streams[index(Side::Server)].acked;
        if opens && (side == Side::Server || ack != acknowledged) {
            return Outcome::LeftAlone;
        }
        if packet.translate(&translation).is_err() {
            return Outcome::LeftAlone;
        }
        session.last = Some(now);
        session.splice.opening = false;
        let own = &mut session.streams[index(side)];
        let acceptable = own.accepts(seq, len);
        own.sent(seq, len, flags.contains(Flags::FIN));
        let other = &mut session.streams[index(side.other())];
        let news = if acceptable { other.acknowledged(ack, window) } else { News::default() };
        let tell = opens || news != News::default();
        Outcome::Translated(tell.then_some((slot, session.splice.serial)))
    }
}

fn index(side: Side) -> usize {
    match side {
        Side::Client => 0,
        Side::Server => 1,
    }
}

impl FastPath for Model {
    fn install(&mut self, slot: u32, splice: &Splice) -> bool {
        let mut table = self.0.borrow_mut();
        if table.sessions.len() >= table.limit {
            return false;
        }
        for side in [Side::Client, Side::Server] {
            let tuple = splice.directions[index(side)].tuple;
            let other = table.flows.insert(tuple, (slot, side));
            assert_eq!(other, None, "a tuple belongs to one session");
        }
        let streams = [0, 1].map(|i| Stream::of(&splice.directions[i].stream));
        let session = Delegated { splice: *splice, streams, last: None };
        let other = table.sessions.insert(slot, session);
        assert!(other.is_none(), "a session is installed once");
        true
    }

    fn progress(&self, slot: u32) -> ([StreamProgress; 2], Option<Duration>) {
        let table = self.0.borrow();
        let session = &table.sessions[&slot];
        let streams = [0, 1].map(|i| session.streams[i].progress().unwrap_or_default());
        (streams, session.last.map(|last| table.now.since(last)))
    }

    fn learn(&mut self, slot: u32, streams: &[StreamProgress; 2]) {
        let mut table = self.0.borrow_mut();
        let session = table.sessions.get_mut(&slot).expect("an installed session");
        session.splice.opening = false;
        for (stream, further) in session.streams.iter_mut().zip(streams) {
            stream.raise(further);
        }
    }

    fn withdraw(&mut self, slot: u32) {
        let mut table = self.0.borrow_mut();
        let session = table.sessions.remove(&slot).expect("an installed session");
        for direction in &session.splice.directions {
            table.flows.remove(&direction.tuple);
        }
    }
}
