//! A TCP that behaves as Linux was seen to do: timestamps with PAWS, SACK, answers that are rate-limited,
//! challenges, loss probes, a retransmission timer of at least 200 ms.
//!
//! It shares packet formats with the proxy, and nothing of how connections work. What it does not have:
//! ECN, urgent data, path MTU discovery, fast open, pacing, a congestion control worth the name.

mod connection;
mod receiver;
mod sender;

use std::collections::BTreeMap;

use outlive_tcp::{
    seq::Seq,
    time::Time,
    wire::{Flags, FourTuple},
};

pub(crate) use self::connection::State;
use self::connection::{Connection, Habits, reset};
use crate::{
    packet::Seen,
    rng::mix,
    stack::{Ends, Phase, StackSetup},
};

/// When timestamps pass zero, if they are to, and about when sequence numbers do.
const WRAP_MS: u32 = 2_240;

/// All connections of a host.
#[derive(Debug)]
pub(crate) struct Linux {
    habits: Habits,
    /// Its numbers pass zero soon after the beginning of the load.
    wraps: bool,
    seed: u64,
    ports: Vec<u16>,
    /// By the tuple of what they send.
    connections: BTreeMap<FourTuple, Connection>,
    accepted: Vec<FourTuple>,
    out: std::collections::VecDeque<Vec<u8>>,
}

impl Linux {
    pub(crate) fn new(setup: StackSetup, v4: bool, seed: u64) -> Self {
        let bits = usize::BITS - setup.receive_buffer.leading_zeros();
        let habits = Habits {
            buffer: setup.receive_buffer,
            scale: bits.saturating_sub(16) as u8,
            timestamps: setup.timestamps,
            sack: setup.sack,
            mss: setup.mtu as u16 - if v4 { 40 } else { 60 },
        };
        Linux {
            habits,
            wraps: setup.wraps,
            seed,
            ports: Vec::new(),
            connections: BTreeMap::new(),
            accepted: Vec::new(),
            out: Default::default(),
        }
    }

    /// RFC 6528: a hash of the ends, and a clock of 4 µs.
    fn iss(&self, now: Time, tuple: &FourTuple) -> Seq {
        let bytes = tuple.to_bytes();
        let hash = bytes.iter().fold(self.seed, |hash, byte| mix(hash ^ u64::from(*byte)));
        if self.wraps {
            let start = (hash as u32 % 4_096).wrapping_sub(WRAP_MS * 250 + 2_000);
            return Seq(start.wrapping_add((now.as_micros() / 4) as u32));
        }
        Seq((hash as u32).wrapping_add((now.as_micros() / 4) as u32))
    }

    /// One for each pair of addresses, so that a port that is used again goes on later.
    fn clock_offset(&self, tuple: &FourTuple) -> u32 {
        if self.wraps {
            return 0u32.wrapping_sub(WRAP_MS);
        }
        let bytes = tuple.to_bytes();
        bytes[..32].iter().fold(self.seed, |hash, byte| mix(hash ^ u64::from(*byte))) as u32
    }

    fn stranger(&mut self, now: Time, seen: &Seen) {
        if seen.has(Flags::RST) {
            return;
        }
        let syn = seen.has(Flags::SYN) && seen.ack.is_none();
        if syn && self.ports.contains(&seen.tuple.destination.port) {
            let tuple = seen.tuple.reversed();
            let (iss, offset) = (self.iss(now, &tuple), self.clock_offset(&tuple));
            let connection = Connection::accept(seen, self.habits, iss, offset, now);
            self.connections.insert(tuple, connection);
            return;
        }
        let end = seen.seq + seen.len() as u32 + u32::from(seen.has(Flags::SYN));
        let end = end + u32::from(seen.has(Flags::FIN));
        let (seq, ack) = match seen.ack {
            Some(ack) => (ack, None),
            None => (Seq(0), Some(end)),
        };
        self.out.push_back(reset(seen.tuple.reversed(), seq, ack));
    }
}

impl Ends for Linux {
    fn listen(&mut self, port: u16) {
        self.ports.push(port);
    }

    fn connect(&mut self, now: Time, tuple: FourTuple) {
        let (iss, offset) = (self.iss(now, &tuple), self.clock_offset(&tuple));
        let connection = Connection::connect(tuple, self.habits, iss, offset, now);
        self.connections.insert(tuple, connection);
    }

    fn receive(&mut self, now: Time, mut packet: Vec<u8>) {
        let Some(seen) = Seen::of(&mut packet).filter(|s| s.checksum_ok) else { return };
        let tuple = seen.tuple.reversed();
        let syn = seen.has(Flags::SYN) && seen.ack.is_none();
        let gives_way = |c: &Connection| match c.state {
            State::Closed => true,
            State::TimeWait => c.gives_way(&seen),
            _ => false,
        };
        if syn && self.connections.get(&tuple).is_some_and(gives_way) {
            self.connections.remove(&tuple);
        }
        match self.connections.get_mut(&tuple) {
            // What it has received can still be read.
            Some(connection) if connection.state == State::Closed => self.stranger(now, &seen),
            Some(connection) => {
                let before = connection.state;
                connection.receive(now, &seen, &packet[seen.payload.clone()]);
                if before == State::SynReceived
                    && !matches!(connection.state, State::SynReceived | State::Closed)
                {
                    self.accepted.push(tuple);
                }
            }
            None => self.stranger(now, &seen),
        }
    }

    fn poll(&mut self, now: Time) {
        for connection in self.connections.values_mut() {
            connection.poll(now);
            self.out.extend(connection.out.drain(..));
        }
    }

    fn deadline(&self) -> Option<Time> {
        self.connections.values().filter_map(Connection::deadline).min()
    }

    fn transmit(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front()
    }

    fn accepted(&mut self) -> Option<FourTuple> {
        self.accepted.pop()
    }

    fn phase(&self, tuple: &FourTuple) -> Phase {
        match self.connections.get(tuple).map(|c| c.state) {
            None | Some(State::Closed) => Phase::Closed,
            Some(State::SynSent | State::SynReceived) => Phase::Opening,
            Some(State::TimeWait) => Phase::TimeWait,
            Some(State::LastAck | State::Closing) => Phase::LastWords,
            Some(_) => Phase::Open,
        }
    }

    fn unread(&self, tuple: &FourTuple) -> usize {
        self.connections.get(tuple).map_or(0, Connection::unread)
    }

    fn read(&mut self, tuple: &FourTuple, out: &mut [u8]) -> usize {
        self.connections.get_mut(tuple).map_or(0, |c| c.read(out))
    }

    fn has_ended(&mut self, tuple: &FourTuple) -> bool {
        self.connections.get(tuple).is_some_and(|c| c.has_ended() && c.unread() == 0)
    }

    fn room(&self, tuple: &FourTuple) -> usize {
        self.connections.get(tuple).map_or(0, Connection::room)
    }

    fn write(&mut self, tuple: &FourTuple, bytes: &[u8]) {
        if let Some(connection) = self.connections.get_mut(tuple) {
            connection.write(bytes);
        }
    }

    fn close(&mut self, tuple: &FourTuple) {
        if let Some(connection) = self.connections.get_mut(tuple) {
            connection.close();
        }
    }

    fn forget(&mut self, tuple: &FourTuple) {
        self.connections.remove(tuple);
    }
}
