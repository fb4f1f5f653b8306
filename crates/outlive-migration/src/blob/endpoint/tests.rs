use bytes::Bytes;
use outlive_tcp::{
    endpoint::{Acknowledge, Arrival, End, Event, Opening, Read, State},
    seq::Seq,
    wire::{Endpoint, FourTuple, TcpPacket},
};
use proptest::prelude::*;

use super::*;
use crate::flow::FlowId;

const MAPPING: Mapping = Mapping {
    flow: FlowId::new(0x8001_0203).unwrap(),
    tunnel: std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 0, 7)),
};
const NOW: Time = Time::from_micros(1_000_000);

/// A client and whoever answers it, on a network that loses nothing.
struct Pair {
    client: Connection,
    server: Connection,
    now: Time,
}

impl Pair {
    /// `iss` of both ends, and what both clocks say at the beginning.
    fn new(client: Config, server: Config, iss: u32, clock: u32) -> Self {
        let end = |host, port| Endpoint::new([192, 0, 2, host].into(), port);
        let ends = FourTuple::new(end(1, 40_000), end(2, 80));
        let opening = |tuple| Opening {
            tuple,
            iss: Seq(iss),
            timestamp_offset: clock.wrapping_sub(NOW.as_millis() as u32),
        };
        let mut client = Connection::connect(opening(ends), client).unwrap();
        let mut packet = Vec::new();
        client.poll_transmit(NOW).unwrap().emit(&mut packet);
        let len = packet.len();
        let syn = TcpPacket::parse(&mut packet, 0, len, Default::default()).unwrap();
        let syn = Arrival::copied(&syn);
        let server = Connection::accept(NOW, &syn, opening(ends.reversed()), server).unwrap();
        let mut pair = Pair { client, server, now: NOW };
        pair.exchange();
        pair
    }

    fn exchange(&mut self) {
        while pass(self.now, &mut self.client, &mut self.server)
            + pass(self.now, &mut self.server, &mut self.client)
            > 0
        {}
    }

    /// Lets every timer fire that is set, one after the other, until `done`.
    fn until(&mut self, done: impl Fn(&mut Pair) -> bool) {
        for _ in 0..200 {
            self.exchange();
            if done(self) {
                return;
            }
            let due = [self.client.poll_timeout(), self.server.poll_timeout()];
            self.now = due.into_iter().flatten().min().expect("something is due").max(self.now);
            self.client.handle_timeout(self.now);
            self.server.handle_timeout(self.now);
        }
        panic!("it does not come to its end");
    }

    /// The server's end moves: over the wire, and into another endpoint.
    fn migrate(&mut self, config: Config) {
        let blob = Blob::capture(self.now, &self.server, MAPPING).unwrap();
        let blob = Blob::decode(&blob.encode().unwrap()).unwrap();
        self.now = self.now + Duration::from_millis(30);
        self.server = blob.infuse(self.now, Duration::ZERO, config).unwrap();
    }
}

fn pass(now: Time, from: &mut Connection, to: &mut Connection) -> usize {
    let mut count = 0;
    while let Some(transmit) = from.poll_transmit(now) {
        let mut packet = Vec::new();
        let offload = transmit.emit(&mut packet);
        let len = packet.len();
        let parsed = TcpPacket::parse(&mut packet, 0, len, offload).unwrap();
        to.handle_segment(now, &Arrival::copied(&parsed));
        count += 1;
    }
    count
}

fn read(connection: &mut Connection) -> Vec<u8> {
    let more = || match connection.read(usize::MAX) {
        Read::Data(data) => Some(data.to_vec()),
        _ => None,
    };
    std::iter::from_fn(more).flatten().collect()
}

fn words(from: usize, count: usize) -> Bytes {
    (from..from + count).map(|at| (at % 251) as u8).collect::<Vec<_>>().into()
}

/// A request is received and not acknowledged when the connection moves; then once more between two requests.
fn moves_twice(client: Config, server: Config, iss: u32, clock: u32) {
    let mut pair = Pair::new(client, server, iss, clock);
    pair.client.write(words(0, 4_000)).unwrap();
    pair.exchange();
    let arrived = pair.server.unread();
    assert!(arrived > 500, "the first segments");
    pair.migrate(server);
    assert_eq!(pair.server.poll_event(), Some(Event::Readable));
    assert_eq!(pair.server.unread(), arrived, "it is there to be read at once");
    let mut heard = Vec::new();
    for round in 0..2 {
        let from = round * 4_000;
        while heard.len() < from + 4_000 {
            pair.until(|pair| pair.server.unread() > 0);
            let new = read(&mut pair.server);
            pair.server.acknowledge(new.len() as u32).unwrap();
            heard.extend(new);
        }
        pair.server.write(words(from, 30_000)).unwrap();
        let mut answer = Vec::new();
        while answer.len() < 30_000 {
            pair.until(|pair| pair.client.unread() > 0);
            let new = read(&mut pair.client);
            pair.client.acknowledge(new.len() as u32).unwrap();
            answer.extend(new);
        }
        assert_eq!(answer, words(from, 30_000));
        pair.until(|pair| pair.server.unacknowledged() == 0);
        if round == 0 {
            pair.migrate(server);
            pair.client.write(words(4_000, 4_000)).unwrap();
        }
    }
    assert_eq!(heard, words(0, 8_000));
    pair.client.shutdown();
    pair.until(|pair| pair.server.state() == State::CloseWait);
    assert_eq!(pair.server.read(1), Read::End);
    pair.server.acknowledge_end().unwrap();
    pair.server.shutdown();
    pair.until(|pair| {
        if pair.client.read(1) == Read::End {
            let _ = pair.client.acknowledge_end();
        }
        pair.server.state() == State::Closed
    });
    assert_eq!(pair.server.end(), Some(End::Finished));
}

#[test]
fn a_connection_goes_on_in_another_endpoint() {
    moves_twice(Config::default(), Config::default(), 1_000, 5_000);
}

#[test]
fn numbers_and_clocks_pass_zero() {
    for ahead in [1, 2, 2_000, 4_001, 20_000, 33_000] {
        moves_twice(Config::default(), Config::default(), 0u32.wrapping_sub(ahead), u32::MAX - 20);
    }
}

#[test]
fn every_option_may_be_missing() {
    let all = Config::default();
    let missing = [
        Config { timestamps: false, ..all },
        Config { sack: false, ..all },
        Config { window_scaling: false, ..all },
        Config { mtu: 576, ..all },
        Config {
            timestamps: false,
            sack: false,
            window_scaling: false,
            mtu: 576,
            receive_buffer: 4_000,
            withheld_limit: 4_000,
            ..all
        },
        Config { receive_buffer: 1 << 30, withheld_limit: 1 << 30, ..all },
    ];
    for less in missing {
        moves_twice(less, all, 1_000, 5_000);
        moves_twice(all, less, 0u32.wrapping_sub(5_000), u32::MAX - 20);
    }
}

#[test]
fn a_mute_connection_says_nothing_until_it_is_asked() {
    let mut pair = Pair::new(Config::default(), Config::default(), 1_000, 5_000);
    pair.client.write(words(0, 10)).unwrap();
    pair.exchange();
    let blob = Blob::capture(pair.now, &pair.server, MAPPING).unwrap();
    let infused = blob.infuse(pair.now, Duration::ZERO, Config::default()).unwrap();
    assert_eq!(infused.poll_timeout(), None, "nothing is due by itself");
    assert_eq!(blob.data, words(0, 10));
    assert_eq!(infused.positions().acknowledged, blob.tcp.rcv_acked);
}

#[test]
fn what_cannot_move_says_why() {
    let refusal = |pair: &Pair| match Blob::capture(pair.now, &pair.server, MAPPING) {
        Err(NotCaptured::Connection(why)) => why,
        other => panic!("{other:?}"),
    };
    let mut pair = Pair::new(Config::default(), Config::default(), 1_000, 5_000);
    pair.server.write(words(0, 10)).unwrap();
    assert_eq!(refusal(&pair), NotPortable::InFlight);
    pair.server.shutdown();
    assert_eq!(refusal(&pair), NotPortable::NotEstablished);

    let on_receipt = Config { acknowledge: Acknowledge::OnReceipt, ..Config::default() };
    let mut pair = Pair::new(Config::default(), on_receipt, 1_000, 5_000);
    pair.client.write(words(0, 10)).unwrap();
    pair.exchange();
    assert_eq!(refusal(&pair), NotPortable::Unread);
    read(&mut pair.server);
    assert!(Blob::capture(pair.now, &pair.server, MAPPING).is_ok());

    let ecn = Config { ecn: true, ..Config::default() };
    assert_eq!(refusal(&Pair::new(ecn, ecn, 1_000, 5_000)), NotPortable::Ecn);

    let mut blob = Blob::capture(pair.now, &pair.server, MAPPING).unwrap();
    blob.tcp.snd_nxt += 1;
    let infused = blob.infuse(pair.now, Duration::ZERO, Config::default());
    assert_eq!(infused.err(), Some(NotInfusible::InFlight));
}

#[test]
fn what_was_read_or_is_the_end_comes_again() {
    let mut pair = Pair::new(Config::default(), Config::default(), 1_000, 5_000);
    pair.client.write(words(0, 100)).unwrap();
    pair.client.shutdown();
    pair.exchange();
    assert_eq!(read(&mut pair.server).len(), 100);
    pair.migrate(Config::default());
    assert_eq!(pair.server.state(), State::Established, "its end is not acknowledged");
    pair.until(|pair| pair.server.state() == State::CloseWait);
    assert_eq!(read(&mut pair.server), words(0, 100));
    assert_eq!(pair.server.read(1), Read::End);
}

/// Any state that a blob can have, but for what is in flight.
fn blobs() -> impl Strategy<Value = Blob> {
    let seqs = (any::<u32>(), 1..1u32 << 31, any::<u32>(), 1..1u32 << 31);
    let windows = (0..=1u32 << 30, 0..=1u32 << 30, 0..=1u32 << 30, any::<u32>(), any::<u32>());
    let options = (1u16.., 1u16.., proptest::option::of((0u8..=14, 0u8..=14)), any::<bool>());
    let timestamps = proptest::option::of((any::<u32>(), any::<u32>(), 0..1u32 << 31));
    let data = proptest::collection::vec(any::<u8>(), 0..3_000);
    (seqs, windows, options, timestamps, data, any::<bool>()).prop_map(
        |(seqs, windows, (client_mss, own_mss, scales, sack), timestamps, data, v6)| {
            let (iss, sent, irs, received) = seqs;
            let (one, other, rcv_wnd, wl1, wl2) = windows;
            let rcv_acked = Seq(irs) + received;
            let tcp = TcpState {
                iss: Seq(iss),
                snd_una: Seq(iss) + sent,
                snd_nxt: Seq(iss) + sent,
                snd_wnd: one.min(other),
                snd_wnd_max: one.max(other),
                snd_wl1: Seq(wl1),
                snd_wl2: Seq(wl2),
                irs: Seq(irs),
                rcv_acked,
                rcv_nxt: rcv_acked + data.len() as u32,
                rcv_wnd: rcv_wnd.max(data.len() as u32),
                client_mss,
                own_mss,
                scales: scales.map(|(snd, rcv)| Scales { snd, rcv }),
                sack,
                timestamps: timestamps.map(|(recent, echoed, since)| TimestampState {
                    recent,
                    echoed,
                    clock: echoed.wrapping_add(since),
                }),
            };
            let end = |text: &str| text.parse::<std::net::SocketAddr>().unwrap().into();
            let (ends, tunnel) = if v6 {
                let ends = FourTuple::new(end("[2001:db8::1]:1"), end("[2001:db8::2]:65535"));
                (ends, "fd00::7".parse().unwrap())
            } else {
                let ends = FourTuple::new(end("10.1.2.3:4660"), end("192.0.2.80:443"));
                (ends, MAPPING.tunnel)
            };
            Blob { tcp, ends, mapping: Mapping { tunnel, ..MAPPING }, data }
        },
    )
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(blob in blobs(), now in 0..1u64 << 45, age in 0..100_000u64) {
        let mapping = blob.mapping;
        let (now, age) = (Time::from_micros(now), Duration::from_millis(age));
        let infused = blob.infuse(now, age, Config::default()).unwrap();
        prop_assert_eq!(infused.unread(), blob.data.len());
        prop_assert_eq!(infused.positions().send_edge, blob.tcp.snd_una + blob.tcp.snd_wnd);
        let mut expected = blob;
        let tcp = &mut expected.tcp;
        tcp.client_mss = tcp.client_mss.max(LEAST_MSS);
        tcp.own_mss = tcp.own_mss.max(LEAST_MSS);
        tcp.scales = tcp.scales.filter(|scales| *scales != Scales { snd: 0, rcv: 0 });
        if let Some(timestamps) = &mut tcp.timestamps {
            // The clock goes on, by one at least: the client's protection against old segments is content.
            timestamps.clock = timestamps.clock.wrapping_add(age.as_millis() as u32 + 1);
            timestamps.echoed = timestamps.clock;
        }
        prop_assert_eq!(Blob::capture(now, &infused, mapping), Ok(expected));
    }
}
