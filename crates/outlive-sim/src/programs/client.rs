//! Clients, and what they may be told.

use std::collections::BTreeMap;

use outlive_tcp::{
    seq::Seq,
    time::Time,
    wire::{Endpoint, Flags, FourTuple},
};

use super::program::{Answers, said};
use crate::{
    endpoint::Endpoints,
    ledger::Rule,
    linux::Linux,
    packet::Seen,
    smoltcp::Smoltcp,
    stack::{Ends, Kind, Phase, StackSetup},
};

/// Where the program listens.
pub(super) fn listener() -> Endpoint {
    Endpoint::new([192, 0, 2, 1].into(), 514)
}

/// A client with one connection.
pub(super) struct Client {
    pub(super) tuple: FourTuple,
    ends: Box<dyn Ends>,
    number: usize,
    len: usize,
    sent: usize,
    got: usize,
    closed: bool,
    pub(super) done: bool,
    /// Nothing is promised: its node died while nobody else held everything.
    pub(super) exempt: bool,
    /// Initial sequence numbers of both ends.
    iss: Option<Seq>,
    irs: Option<Seq>,
    /// When its SYN was answered first.
    answered_at: Option<Time>,
    /// How much of its stream was acknowledged, by whomever.
    pub(super) acknowledged: u64,
    /// How much of its answers it has acknowledged: a probe may put anything there.
    heard: u64,
    /// What it was sent, by position: never anything else afterwards.
    output: BTreeMap<u64, u8>,
}

/// What is wrong with something.
pub(super) type Wrong = Option<(Rule, String)>;

impl Client {
    pub(super) fn new(now: Time, number: usize, kind: Kind, len: usize, seed: u64) -> Self {
        let address = [198, 51, 100, 10 + number as u8].into();
        let setup = StackSetup { kind, ..StackSetup::default() };
        let mut ends: Box<dyn Ends> = match kind {
            Kind::Linux => Box::new(Linux::new(setup, true, seed)),
            Kind::Smoltcp => Box::new(Smoltcp::new(address, setup, seed)),
            Kind::Outlive => Box::new(Endpoints::new(setup, seed)),
        };
        let tuple = FourTuple::new(Endpoint::new(address, 40_000), listener());
        ends.connect(now, tuple);
        Client {
            tuple,
            ends,
            number,
            len,
            sent: 0,
            got: 0,
            closed: false,
            done: false,
            exempt: false,
            iss: None,
            irs: None,
            answered_at: None,
            acknowledged: 0,
            heard: 0,
            output: BTreeMap::new(),
        }
    }

    /// Bytes that it says in all.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.ends.deadline()
    }

    pub(super) fn receive(&mut self, now: Time, packet: Vec<u8>) {
        self.ends.receive(now, packet);
    }

    /// Does what there is to do. Gives the packets to be sent.
    pub(super) fn drive(&mut self, now: Time, wrong: &mut Vec<(Rule, String)>) -> Vec<Vec<u8>> {
        loop {
            self.ends.poll(now);
            let mut busy = false;
            let room = self.ends.room(&self.tuple).min(self.len - self.sent);
            if room > 0 {
                let bytes: Vec<u8> =
                    (self.sent..self.sent + room).map(|at| said(self.number, at)).collect();
                self.ends.write(&self.tuple, &bytes);
                (self.sent, busy) = (self.sent + room, true);
            }
            let open = self.ends.phase(&self.tuple) == Phase::Open;
            if self.sent == self.len && open && !self.closed {
                self.ends.close(&self.tuple);
                (self.closed, busy) = (true, true);
            }
            while self.ends.unread(&self.tuple) > 0 {
                let mut buffer = [0; 2_048];
                let count = self.ends.read(&self.tuple, &mut buffer);
                self.hear(&buffer[..count], wrong);
                busy = true;
            }
            if !self.done && self.closed && self.ends.has_ended(&self.tuple) {
                self.done = true;
                if self.got != self.len {
                    let detail =
                        format!("client {}: {} of {} answers", self.number, self.got, self.len);
                    wrong.push((Rule::Stream, detail));
                }
            }
            if !busy {
                break;
            }
        }
        let mut packets = Vec::new();
        while let Some(mut packet) = self.ends.transmit() {
            if let Some(seen) = Seen::of(&mut packet) {
                if seen.has(Flags::SYN) {
                    self.iss = Some(seen.seq);
                }
                if let Some(ack) = seen.ack {
                    let irs = *self.irs.get_or_insert(ack - 1);
                    self.heard = self.heard.max(u64::from(ack.distance(irs + 1)));
                }
            }
            packets.push(packet);
        }
        packets
    }

    fn hear(&mut self, bytes: &[u8], wrong: &mut Vec<(Rule, String)>) {
        let mut answers = Answers::after(self.number, self.got);
        let right: Vec<u8> = (self.got..self.got + bytes.len())
            .map(|at| answers.next(said(self.number, at)))
            .collect();
        if right != bytes {
            let detail = format!("client {} reads a wrong byte after {}", self.number, self.got);
            wrong.push((Rule::Stream, detail));
        }
        self.got += bytes.len();
    }

    /// A node sends it something.
    pub(super) fn is_sent(&mut self, now: Time, seen: &Seen, packet: &[u8]) -> Wrong {
        let (number, iss) = (self.number, self.iss?);
        if seen.has(Flags::SYN) {
            self.answered_at.get_or_insert(now);
        }
        if seen.has(Flags::RST) {
            let lives = !self.done && self.irs.is_none_or(|irs| seen.seq != irs);
            let detail = format!("client {number} is reset: {seen}");
            return (lives && !self.exempt).then_some((Rule::Reset, detail));
        }
        if let Some(ack) = seen.ack {
            let at = u64::from(ack.distance(iss + 1));
            // The end of its stream counts as one more.
            if at <= self.len as u64 + 1 {
                self.acknowledged = self.acknowledged.max(at);
            }
        }
        let irs = self.irs.filter(|_| seen.len() > 0)?;
        let at = seen.seq.distance(irs + 1);
        if at > 1 << 31 {
            return None;
        }
        let told = (u64::from(at)..).zip(&packet[seen.payload.clone()]);
        for (position, byte) in told.filter(|(position, _)| *position >= self.heard) {
            let before = *self.output.entry(position).or_insert(*byte);
            if before != *byte {
                let detail = format!("client {number} is told another byte at {position}: {seen}");
                return Some((Rule::Payload, detail));
            }
        }
        None
    }

    /// It was answered before `since`, and nothing that it said had an effect yet.
    pub(super) fn is_unproved(&self, since: Option<Time>) -> bool {
        let early = |at| since.is_none_or(|since| at < since);
        self.answered_at.is_some_and(early) && self.acknowledged == 0
    }

    /// A node goes on with its connection from there: everything that was acknowledged it must have.
    pub(super) fn is_resumed(&self, position: u64) -> Wrong {
        let acknowledged = self.acknowledged.min(self.len as u64);
        let detail = format!(
            "client {}: {acknowledged} bytes were acknowledged, and it goes on at {position}",
            self.number
        );
        (acknowledged > position).then_some((Rule::TruthfulAcknowledgment, detail))
    }
}
