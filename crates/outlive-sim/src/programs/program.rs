//! A node: the stack, and a program that writes down what it reads, and answers.

use std::collections::BTreeMap;

use bytes::Bytes;
use outlive_proxy::{
    config::{NodeId, PairConfig},
    node::Entropy,
};
use outlive_stack::{Chunk, CommitError, ConnectionId, Stack, StackConfig, Transaction};
use outlive_tcp::{
    endpoint::Config,
    time::Time,
    wire::{Endpoint, FourTuple},
};

use super::client::listener;
use crate::{ledger::Rule, rng::mix};

/// The byte at `at` of what client `number` says.
pub(super) fn said(number: usize, at: usize) -> u8 {
    mix((number as u64) << 32 | at as u64) as u8
}

/// The program's state of a connection: what it answers next depends on all that was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answers(u64);

impl Answers {
    /// After the first `len` bytes of client `number`.
    pub(super) fn after(number: usize, len: usize) -> Self {
        let mut answers = Answers(0);
        for at in 0..len {
            answers.next(said(number, at));
        }
        answers
    }

    /// The answer to the next byte.
    pub(super) fn next(&mut self, byte: u8) -> u8 {
        self.0 = mix(self.0 ^ u64::from(byte));
        (self.0 >> 32) as u8
    }
}

/// What was written down, by connection and position: it outlives the node.
pub(super) type Records = BTreeMap<(ConnectionId, u64), u8>;

/// A node of the pair.
pub(super) struct Node {
    pub(super) stack: Stack,
    pub(super) incarnation: u64,
    pub(super) heard: u64,
    pub(super) counter: u64,
    pub(super) deadline: Option<Time>,
    /// Standby: since when it holds everything.
    pub(super) synchronised_since: Option<Time>,
    pub(super) records: Records,
    /// By connection: the other end, and what is to be answered next.
    open: BTreeMap<ConnectionId, (FourTuple, Answers)>,
    /// Read, and not decided on.
    undecided: Vec<(ConnectionId, u64, Bytes)>,
}

impl Node {
    pub(super) fn new(now: Time, number: usize, incarnation: u64, entropy: [u8; 32]) -> Self {
        let tcp = Config { receive_buffer: 9_000, withheld_limit: 12_000, ..Config::default() };
        let config = StackConfig {
            node: if number == 0 { NodeId::A } else { NodeId::B },
            pair: PairConfig::default(),
            tcp,
            ..StackConfig::default()
        };
        let unix_us = 1_800_000_000_000_000 + now.as_micros();
        let mut stack = Stack::new(config, Entropy(entropy), unix_us, now);
        stack.listen(listener(), 16).expect("nobody listens yet");
        Node {
            stack,
            incarnation,
            heard: 0,
            counter: 0,
            deadline: None,
            synchronised_since: None,
            records: Records::new(),
            open: BTreeMap::new(),
            undecided: Vec::new(),
        }
    }

    /// Accepts and reads. Gives the connections that it goes on with, by the client's address and position, and
    /// whether there is something to decide soon.
    pub(super) fn work(
        &mut self,
        now: Time,
        wrong: &mut Vec<(Rule, String)>,
    ) -> (Vec<(Endpoint, u64)>, bool) {
        let mut resumed = Vec::new();
        while let Some(accepted) = self.stack.accept(now, listener()) {
            let remote = Endpoint::from(accepted.remote);
            let number = usize::from(match accepted.remote.ip() {
                std::net::IpAddr::V4(v4) => v4.octets()[3] - 10,
                std::net::IpAddr::V6(_) => 0,
            });
            let answers = Answers::after(number, accepted.position as usize);
            let state: &[u8] = if accepted.position == 0 { &[] } else { &answers.0.to_be_bytes() };
            if accepted.state != state || accepted.written != accepted.position {
                let detail = format!(
                    "client {number}: a state of another moment at {}, {} written",
                    accepted.position, accepted.written
                );
                wrong.push((Rule::Invariant, detail));
            }
            if accepted.resumed {
                resumed.push((remote, accepted.position));
            }
            let tuple = FourTuple::new(remote, listener());
            self.open.insert(accepted.id, (tuple, answers));
        }
        let mut news = false;
        for id in self.open.keys().copied().collect::<Vec<_>>() {
            news |= self.read(now, id);
        }
        (resumed, news)
    }

    fn read(&mut self, now: Time, id: ConnectionId) -> bool {
        let mut news = false;
        loop {
            let (position, bytes) = match self.stack.read(now, id, 3_000) {
                Ok(Chunk::Blocked) => return news,
                Ok(Chunk::Data { position, bytes }) => (position, bytes),
                Ok(Chunk::End { position }) => (position, Bytes::new()),
                Err(_) => {
                    self.open.remove(&id);
                    self.stack.close(now, id);
                    return news;
                }
            };
            let ended = bytes.is_empty();
            if ended && self.undecided.iter().any(|(other, _, b)| *other == id && b.is_empty()) {
                return news;
            }
            self.records.extend((position..).zip(bytes.iter()).map(|(at, b)| ((id, at), *b)));
            self.undecided.push((id, position, bytes));
            news = true;
            if ended {
                return news;
            }
        }
    }

    /// Decides on what was read.
    pub(super) fn decide(&mut self, now: Time, wrong: &mut Vec<(Rule, String)>) {
        for (id, position, bytes) in std::mem::take(&mut self.undecided) {
            let Some((_, answers)) = self.open.get_mut(&id) else { continue };
            let output: Vec<u8> = bytes.iter().map(|byte| answers.next(*byte)).collect();
            let last = bytes.is_empty();
            let transaction = if last {
                Transaction::new().acknowledge_end().end()
            } else {
                Transaction::new()
                    .acknowledge(bytes.len() as u32)
                    .write(output)
                    .state(answers.0.to_be_bytes().to_vec())
            };
            match self.stack.commit(now, id, transaction) {
                Ok(_) if last => {
                    self.open.remove(&id);
                    self.stack.close(now, id);
                }
                Ok(_) | Err(CommitError::Closed(_)) => {}
                Err(error) => wrong.push((Rule::Invariant, format!("{error} at {position}"))),
            }
        }
    }
}
