//! A node alone, driven packet by packet: what strangers who forge packets can do to it (nothing that lasts),
//! and what it makes of numbers that have gone once round.

use std::time::Duration;

use outlive_proxy::{
    Entropy, Node, Verdict,
    config::{
        Balance, Config, Limits, Listener, NodeId, OpeningMode, PairConfig, Pool, PoolId,
        ProxyProtocol, Server, Timeouts,
    },
    counters::Counter,
};
use outlive_tcp::{
    segment::Segment,
    seq::Seq,
    time::Time,
    wire::{Endpoint, Flags, FourTuple, Offload, Options, TcpPacket},
};

const HEADROOM: usize = 64;
const CLIENT_ISN: Seq = Seq(1_000);
const SERVER_ISN: Seq = Seq(900_000);

/// A packet that the node let out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Out {
    tuple: FourTuple,
    seq: Seq,
    ack: Seq,
    flags: Flags,
}

/// A node alone, active, with a direct listener and one server.
struct Bench {
    node: Node,
    now: Time,
}

fn listener() -> Endpoint {
    Endpoint::new([10, 0, 0, 100].into(), 80)
}

fn server() -> Endpoint {
    Endpoint::new([10, 0, 0, 20].into(), 80)
}

fn client(number: u16) -> Endpoint {
    Endpoint::new([10, 0, 0, 10].into(), 10_000 + number)
}

/// One direct listener before one server.
fn config(proxy_protocol: Option<ProxyProtocol>, limits: Limits) -> Config {
    Config {
        node: NodeId::A,
        listeners: vec![Listener {
            name: "web".into(),
            address: listener(),
            opening: OpeningMode::Direct,
            routes: Vec::new(),
            default_pool: Some(PoolId(0)),
            idle_timeout: Duration::from_secs(3_600),
            protection: Default::default(),
        }],
        pools: vec![Pool {
            name: "web".into(),
            balance: Balance::RoundRobin,
            servers: vec![Server { address: server() }],
            proxy_protocol,
            connect_timeout: Duration::from_secs(3),
            retry_after: Duration::from_secs(10),
        }],
        source_addresses: vec![[10, 0, 0, 101].into()],
        pair: PairConfig::alone(),
        timeouts: Timeouts::default(),
        limits,
        mtu: 1_500,
    }
}

impl Bench {
    fn new(limits: Limits) -> Self {
        Self::telling(None, limits)
    }

    /// Whose server wants to be told of the client.
    fn telling(proxy_protocol: Option<ProxyProtocol>, limits: Limits) -> Self {
        let config = config(proxy_protocol, limits);
        config.validate().unwrap();
        let now = Time::from_micros(1_000_000);
        let mut node = Node::new(config, Entropy([7; 32]), 1_700_000_000_000_000, now);
        node.handle_timeout(now);
        // The time of unknown connections is over.
        let mut bench = Bench { node, now };
        bench.pass(Duration::from_secs(60));
        bench
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.node.handle_timeout(self.now);
        // What it has to say at the end of a wait is not looked at.
        while self.node.poll_transmit().is_some() {}
    }

    /// Hands the node a packet; what it lets out.
    fn send(&mut self, segment: Segment<'_>) -> Vec<Out> {
        let mut buffer = vec![0; HEADROOM];
        segment.emit(&mut buffer);
        let end = buffer.len();
        let verdict =
            self.node.handle_packet(self.now, &mut buffer, HEADROOM, end, Offload::default());
        let mut out = Vec::new();
        if let Verdict::Forward { range, .. } = verdict {
            out.push(read(&buffer[range]));
        }
        while let Some(packet) = self.node.poll_transmit() {
            out.push(read(packet));
        }
        self.node.check_invariants();
        out
    }

    fn syn(&mut self, number: u16) -> Vec<Out> {
        self.send(segment(client(number), listener(), CLIENT_ISN, None, Flags::SYN))
    }

    /// The server answers the SYN that the node sent it.
    fn accept(&mut self, syn: Out) -> Vec<Out> {
        assert_eq!(syn.tuple.destination, server());
        let to = syn.tuple.source;
        self.send(segment(server(), to, SERVER_ISN, Some(syn.seq + 1), Flags::SYN))
    }

    /// An established session of that client: the server's view of it.
    fn establish(&mut self, number: u16) -> Out {
        let syn = self.syn(number)[0];
        let syn_ack = self.accept(syn)[0];
        assert_eq!(syn_ack.tuple.destination, client(number));
        let ack = Some(syn_ack.seq + 1);
        let out = self.send(segment(client(number), listener(), CLIENT_ISN + 1, ack, Flags::NONE));
        assert_eq!(out[0].tuple.destination, server());
        out[0]
    }

    fn sessions(&self) -> [usize; 3] {
        let census = self.node.status(self.now).sessions;
        [census.establishing, census.open, census.over]
    }

    fn counter(&self, counter: Counter) -> u64 {
        self.node.status(self.now).counters.value(counter)
    }
}

fn segment(
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

fn read(packet: &[u8]) -> Out {
    let mut packet = packet.to_vec();
    let end = packet.len();
    let packet = TcpPacket::parse(&mut packet, 0, end, Offload::default()).unwrap();
    Out { tuple: packet.tuple(), seq: packet.seq(), ack: packet.ack(), flags: packet.flags() }
}

/// A reset within the window that is not the next byte is challenged by its receiver, not obeyed; so the
/// session must not be given to the next SYN that claims its ports.
#[test]
fn a_reset_that_is_not_next_leaves_no_opening_for_a_syn() {
    let mut bench = Bench::new(Limits::default());
    let to_server = bench.establish(1);
    for offset in [1, 500, 19_999] {
        let forged = segment(client(1), listener(), CLIENT_ISN + 1 + offset, None, Flags::RST);
        assert_eq!(bench.send(forged).len(), 1, "passed on to the server, which challenges it");
        let from_server =
            segment(server(), to_server.tuple.source, SERVER_ISN + 1 + offset, None, Flags::RST);
        assert_eq!(bench.send(from_server).len(), 1, "likewise");
    }
    assert_eq!(bench.sessions(), [0, 1, 0]);
    assert_eq!(bench.counter(Counter::ResetOutside), 6);
    let forged = segment(client(1), listener(), Seq(5_000_000), None, Flags::SYN);
    let out = bench.send(forged);
    assert_eq!((out[0].tuple.destination, out[0].flags), (client(1), Flags::ACK), "a challenge");
    let said = Segment {
        payload: b"hello",
        ..segment(client(1), listener(), CLIENT_ISN + 1, Some(out[0].seq), Flags::PSH)
    };
    assert_eq!(bench.send(said)[0].tuple, to_server.tuple, "the session goes on");
    assert_eq!(bench.sessions(), [0, 1, 0]);

    // The end of what was sent is where a sender's own reset stands.
    let real = segment(client(1), listener(), CLIENT_ISN + 6, None, Flags::RST);
    assert_eq!(bench.send(real).len(), 1);
    assert_eq!(bench.sessions(), [0, 0, 1]);
}

/// Clients of a direct listener that have been answered and say nothing are half-open, too: beyond the limit
/// a stranger has to show that it exists before it costs a session, and a port towards the server.
#[test]
fn answered_clients_that_say_nothing_count_as_half_open() {
    let mut bench = Bench::new(Limits { half_open: 3, ..Limits::default() });
    for number in 0..3 {
        let syn = bench.syn(number)[0];
        let syn_ack = bench.accept(syn)[0];
        assert_eq!(syn_ack.tuple.destination, client(number));
    }
    assert_eq!(bench.sessions(), [3, 0, 0]);
    for number in 3..20 {
        let out = bench.syn(number);
        assert_eq!(out[0].tuple.destination, client(number), "challenged, the server left alone");
    }
    assert_eq!(bench.sessions(), [3, 0, 0]);
    assert_eq!(bench.counter(Counter::CookiesSent), 17);

    // One that is there after all makes room for another.
    let syn_ack = bench.syn(0)[0];
    let ack = Some(syn_ack.seq + 1);
    bench.send(segment(client(0), listener(), CLIENT_ISN + 1, ack, Flags::NONE));
    assert_eq!(bench.sessions(), [2, 1, 0]);
    let syn = bench.syn(30)[0];
    assert_eq!(bench.accept(syn)[0].tuple.destination, client(30));
    assert_eq!(bench.syn(31)[0].tuple.destination, client(31));

    // And so do those that never were, when their time is over.
    bench.pass(Duration::from_secs(61));
    assert_eq!(bench.sessions(), [0, 1, 0]);
    assert_eq!(bench.syn(32)[0].tuple.destination, server());
}

/// The ACK and the first segment of a client that was challenged are lost, and its second segment comes: nothing
/// proves that it belongs to a handshake, but to reset it would end a connection that lives.
#[test]
fn a_challenged_client_whose_first_segment_was_lost_is_not_reset() {
    let mut bench = Bench::new(Limits { half_open: 1, ..Limits::default() });
    let syn = bench.syn(0)[0];
    bench.accept(syn);
    let second = |number, ack| Segment {
        payload: b"later",
        ..segment(client(number), listener(), CLIENT_ISN + 1_401, Some(ack), Flags::PSH)
    };
    assert_eq!(bench.send(second(1, CLIENT_ISN)).len(), 1, "nobody was challenged: a reset");
    let challenge = bench.syn(2)[0];
    assert_eq!(challenge.tuple.destination, client(2));
    assert!(bench.send(second(2, challenge.seq + 1)).is_empty());
    let first = segment(client(2), listener(), CLIENT_ISN + 1, Some(challenge.seq + 1), Flags::PSH);
    let out = bench.send(Segment { payload: b"first", ..first });
    assert_eq!(
        out[0].tuple.destination,
        server(),
        "its first segment, repeated, opens the session"
    );
}

/// The bytes of an inserted header are not the client's: acknowledgments of them say nothing to it. Once they
/// are acknowledged they are history; four gigabytes later the same numbers stand for the client's own bytes,
/// and to raise an acknowledgment then would acknowledge what the server does not have.
#[test]
fn an_acknowledgment_is_raised_only_while_the_inserted_header_is_not_acknowledged() {
    let mut bench = Bench::telling(Some(ProxyProtocol::V2), Limits::default());
    let syn = bench.syn(1)[0];
    let syn_ack = bench.accept(syn)[0];
    let ack = Some(syn_ack.seq + 1);
    let out = bench.send(segment(client(1), listener(), CLIENT_ISN + 1, ack, Flags::NONE));
    let [client_data, header] = [out[0].seq, out[1].seq];
    let len = client_data.distance(header);
    assert_eq!(len, 28, "the header of version 2 for IPv4");

    let own = out[0].tuple.source;
    let mut acknowledge = |upto: Seq| {
        bench.send(segment(server(), own, SERVER_ISN + 1, Some(upto), Flags::NONE))[0].ack
    };
    assert_eq!(acknowledge(header + 5), CLIENT_ISN + 1);
    assert_eq!(acknowledge(client_data), CLIENT_ISN + 1);
    assert_eq!(acknowledge(header + 5), CLIENT_ISN + 1 + 5 - len, "as if 4 GiB had passed");
}

/// Whoever is not on the path can guess an acknowledgment in a large window. Its segment stands in the wrong
/// place, so no end looks at it; were the node to learn from it, the header that it repeats in the client's name
/// would acknowledge what the client does not have.
#[test]
fn nothing_is_learnt_from_a_segment_outside_the_window() {
    let mut bench = Bench::telling(Some(ProxyProtocol::V2), Limits::default());
    let syn = bench.syn(1)[0];
    let syn_ack = bench.accept(syn)[0];
    let ack = Some(syn_ack.seq + 1);
    let first = bench.send(segment(client(1), listener(), CLIENT_ISN + 1, ack, Flags::NONE));
    assert_eq!(first[1].ack, SERVER_ISN + 1, "the header");
    let far = CLIENT_ISN + (1 << 30);
    bench.send(segment(client(1), listener(), far, Some(syn_ack.seq + 65), Flags::NONE));

    bench.now = bench.now + Duration::from_millis(300);
    bench.node.handle_timeout(bench.now);
    let repeated = read(bench.node.poll_transmit().unwrap());
    assert_eq!((repeated.seq, repeated.ack), (first[1].seq, SERVER_ISN + 1));
}
