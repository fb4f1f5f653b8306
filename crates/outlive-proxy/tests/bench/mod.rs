//! What the tests of single nodes share: a node, driven packet by packet as its shell would.
#![allow(dead_code, reason = "every test uses a part of it")]

#[path = "../packets/mod.rs"]
mod packets;

use std::time::Duration;

use outlive_proxy::{
    Entropy, Node, Verdict,
    config::{
        Balance, Config, Limits, Listener, NodeId, OpeningMode, PairConfig, Pool, PoolId, Server,
        Timeouts,
    },
    counters::Counter,
};
use outlive_tcp::{
    segment::Segment,
    time::Time,
    wire::{Endpoint, Flags, Offload},
};

pub(crate) use self::packets::{CLIENT_ISN, HEADROOM, Out, SERVER_ISN, segment};

pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
pub(crate) const IDLE: Duration = Duration::from_secs(600);

pub(crate) fn end(number: u8, port: u16) -> Endpoint {
    Endpoint::new([10, 0, 0, number].into(), port)
}

pub(crate) fn listener() -> Endpoint {
    end(100, 80)
}

pub(crate) fn client(number: u16) -> Endpoint {
    end(10, 10_000 + number)
}

/// A direct listener and two servers, 10.0.0.21 and 10.0.0.22; no peer.
pub(crate) fn config() -> Config {
    let server = |number| Server { address: end(number, 80) };
    Config {
        node: NodeId::A,
        listeners: vec![Listener {
            name: "web".into(),
            address: listener(),
            opening: OpeningMode::Direct,
            routes: Vec::new(),
            default_pool: Some(PoolId(0)),
            idle_timeout: IDLE,
            protection: Default::default(),
            termination: Default::default(),
        }],
        pools: vec![Pool {
            name: "web".into(),
            balance: Balance::RoundRobin,
            servers: vec![server(21), server(22)],
            proxy_protocol: None,
            connect_timeout: CONNECT_TIMEOUT,
            retry_after: Duration::from_secs(10),
        }],
        source_addresses: vec![[10, 0, 0, 101].into()],
        migration: Default::default(),
        pair: PairConfig::alone(),
        timeouts: Timeouts::default(),
        limits: Limits::default(),
        mtu: 1_500,
    }
}

/// The same with a listener that looks at the first 200 bytes, for a second.
pub(crate) fn inspecting() -> Config {
    let mut config = config();
    config.listeners[0].opening =
        OpeningMode::Inspect { limit: 200, timeout: Duration::from_secs(1) };
    config
}

/// A node alone, active.
pub(crate) struct Bench {
    pub(crate) node: Node,
    pub(crate) now: Time,
}

impl Bench {
    pub(crate) fn new(config: Config) -> Self {
        config.validate().unwrap();
        let now = Time::from_micros(1_000_000);
        let mut node = Node::new(config, Entropy([7; 32]), 1_700_000_000_000_000, now);
        node.handle_timeout(now);
        let mut bench = Bench { node, now };
        bench.pass(Duration::from_secs(60));
        bench
    }

    /// Lets time pass, all timers firing when they are due; what the node says meanwhile.
    pub(crate) fn pass(&mut self, time: Duration) -> Vec<Out> {
        let end = self.now + time;
        let mut out = Vec::new();
        loop {
            let due = self.node.poll_timeout(self.now).unwrap_or(end).max(self.now);
            self.now = due.min(end);
            self.node.handle_timeout(self.now);
            out.extend(self.sent().iter().map(|packet| Out::read(packet)));
            if due >= end {
                return out;
            }
        }
    }

    fn sent(&mut self) -> Vec<Vec<u8>> {
        while self.node.poll_event().is_some() {}
        let packets = std::iter::from_fn(|| self.node.poll_transmit().map(<[u8]>::to_vec));
        let packets = packets.collect();
        self.node.check_invariants();
        packets
    }

    /// Hands the node a packet; what it lets out.
    pub(crate) fn raw(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; HEADROOM];
        buffer.extend_from_slice(packet);
        let end = buffer.len();
        let verdict =
            self.node.handle_packet(self.now, &mut buffer, HEADROOM, end, Offload::default());
        let mut out = self.sent();
        if let Verdict::Forward { range, .. } = verdict {
            out.push(buffer[range].to_vec());
        }
        out
    }

    pub(crate) fn send(&mut self, segment: Segment<'_>) -> Vec<Out> {
        let mut packet = Vec::new();
        segment.emit(&mut packet);
        self.raw(&packet).iter().map(|packet| Out::read(packet)).collect()
    }

    pub(crate) fn syn(&mut self, number: u16) -> Vec<Out> {
        self.send(segment(client(number), listener(), CLIENT_ISN, None, Flags::SYN))
    }

    /// The server accepts the SYN that it was sent.
    pub(crate) fn accept(&mut self, syn: &Out) -> Vec<Out> {
        let (from, to) = (syn.tuple.destination, syn.tuple.source);
        self.send(segment(from, to, SERVER_ISN, Some(syn.seq + 1), Flags::SYN))
    }

    /// A session of that client, established: the client's last segment as the server gets it.
    pub(crate) fn establish(&mut self, number: u16) -> Out {
        let syn = self.syn(number).remove(0);
        let syn_ack = self.accept(&syn).remove(0);
        assert_eq!(syn_ack.to(), client(number));
        let ack = Some(syn_ack.seq + 1);
        self.send(segment(client(number), listener(), CLIENT_ISN + 1, ack, Flags::NONE)).remove(0)
    }

    /// Sessions whose handshake is not complete, that are open, that are over.
    pub(crate) fn sessions(&self) -> [usize; 3] {
        let census = self.node.status(self.now).sessions;
        [census.establishing, census.open, census.over]
    }

    pub(crate) fn counter(&self, counter: Counter) -> u64 {
        self.node.status(self.now).counters.value(counter)
    }

    pub(crate) fn openings(&self) -> usize {
        self.node.status(self.now).openings
    }
}
