use std::{net::SocketAddr, time::Duration};

use outlive_migration::{
    blob::{Mapping, Scales, TcpState, TimestampState},
    flow::FlowId,
};
use outlive_tcp::wire::{Offload, SackBlock, Segmentation};

use super::*;

const NOW: Time = Time::from_micros(5_000_000);
/// The client's first byte that is not acknowledged, which is its very first.
const CLIENT: Seq = Seq(1_000);
/// What the balancer would have sent next.
const SHOWN: Seq = Seq(u32::MAX - 100);
/// The local server's first byte.
const SERVER: Seq = Seq(70_000);
const PORT: u16 = 8080;

fn end(text: &str) -> Endpoint {
    text.parse::<SocketAddr>().unwrap().into()
}

fn blob() -> Blob {
    let data = b"GET / HTTP/1.1\r\n\r\n".to_vec();
    Blob {
        tcp: TcpState {
            iss: SHOWN - 1,
            snd_una: SHOWN,
            snd_nxt: SHOWN,
            snd_wnd: 40_000 << 7,
            snd_wnd_max: 40_000 << 7,
            snd_wl1: CLIENT,
            snd_wl2: SHOWN,
            irs: CLIENT - 1,
            rcv_acked: CLIENT,
            rcv_nxt: CLIENT + data.len() as u32,
            rcv_wnd: 16_384,
            client_mss: 1_460,
            own_mss: 1_460,
            scales: Some(Scales { snd: 7, rcv: 8 }),
            sack: true,
            timestamps: Some(TimestampState { recent: 500, echoed: 9_000, clock: 9_050 }),
        },
        ends: FourTuple::new(end("10.1.2.3:4660"), end("192.0.2.80:80")),
        mapping: Mapping {
            flow: FlowId::new(0x8001_0203).unwrap(),
            tunnel: "10.9.0.7".parse().unwrap(),
        },
        data,
    }
}

/// What the server offers.
fn everything() -> Options {
    Options {
        mss: Some(1_460),
        window_scale: Some(9),
        sack_permitted: true,
        timestamps: Some(Timestamps { value: 333, echo: 500 }),
        ..Options::default()
    }
}

#[derive(Clone, Copy)]
struct Sent<'a> {
    seq: Seq,
    ack: Seq,
    flags: Flags,
    window: u16,
    options: Options,
    payload: &'a [u8],
}

impl Default for Sent<'_> {
    fn default() -> Self {
        Sent {
            seq: SERVER,
            ack: CLIENT,
            flags: Flags::NONE,
            window: 1_000,
            options: Options::default(),
            payload: b"",
        }
    }
}

fn bytes(tuple: FourTuple, sent: Sent<'_>) -> Vec<u8> {
    // Room for what is inserted.
    let mut out = vec![0; 64];
    let Sent { seq, ack, flags, window, options, payload } = sent;
    let ack = Some(ack);
    let hop_limit = DEFAULT_HOP_LIMIT;
    Segment { tuple, seq, ack, flags, window, options, payload, hop_limit }.emit(&mut out);
    out
}

fn parse(bytes: &mut [u8]) -> TcpPacket<'_> {
    let end = bytes.len();
    TcpPacket::parse(bytes, 64, end, Offload::default()).unwrap()
}

/// What a made packet says.
fn made(packet: &[u8]) -> (FourTuple, Seq, Option<Seq>, Flags, Options, Vec<u8>) {
    let mut bytes = [&[0; 64], packet].concat();
    let packet = parse(&mut bytes);
    assert!(packet.checksum_ok());
    let ack = packet.flags().contains(Flags::ACK).then_some(packet.ack());
    let flags = packet.flags() & !Flags::ACK;
    (packet.tuple(), packet.seq(), ack, flags, packet.options(), packet.payload().to_vec())
}

fn syn_ack(replay: &Replay, options: Options, window: u16) -> Vec<u8> {
    let sent = Sent { seq: SERVER - 1, flags: Flags::SYN, window, options, ..Sent::default() };
    bytes(replay.inner().reversed(), sent)
}

/// A connection that speaks, with a server that offers `options`.
fn speaking(blob: Blob, options: Options) -> Replay {
    let mut replay = Replay::new(blob, PORT);
    let mut answer = syn_ack(&replay, options, 60_000);
    assert_eq!(replay.open(&parse(&mut answer)), Opened::Ready);
    assert!(replay.speak(NOW));
    replay
}

#[test]
fn the_handshake_is_the_clients() {
    let mut replay = Replay::new(blob(), PORT);
    assert!(!replay.speak(NOW), "not without a server");
    let mut syn = Vec::new();
    replay.syn(&mut syn);
    let (tuple, seq, ack, flags, options, data) = made(&syn);
    assert_eq!(tuple, FourTuple::new(end("10.1.2.3:4660"), end("192.0.2.80:8080")));
    assert_eq!((seq, ack, flags, data), (CLIENT - 1, None, Flags::SYN, vec![]));
    let offered = Options {
        mss: Some(1_460),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps: Some(Timestamps { value: 500, echo: 0 }),
        ..Options::default()
    };
    assert_eq!(options, offered);

    // Somebody else's answer is none.
    let wrong = Sent { ack: CLIENT + 1, flags: Flags::SYN, ..Sent::default() };
    assert_eq!(replay.open(&parse(&mut bytes(tuple.reversed(), wrong))), Opened::NotYet);
    let mut answer = syn_ack(&replay, everything(), 60_000);
    assert_eq!(replay.open(&parse(&mut answer)), Opened::Ready);
    assert_eq!(
        replay.client_packet(NOW, &mut parse(&mut syn_ack(&replay, everything(), 1))),
        Verdict::Drop(Dropped::Mute)
    );

    assert!(replay.speak(NOW));
    let [packet] = &replay.introduction()[..] else { panic!("the data fits into one packet") };
    let (tuple, seq, ack, flags, options, data) = made(packet);
    assert_eq!((tuple, seq, ack), (replay.inner(), CLIENT, Some(SERVER)));
    assert_eq!((flags, data), (Flags::PSH, blob().data));
    // An echo of anything else than the server's own timestamp is dropped by Linux.
    assert_eq!(options.timestamps, Some(Timestamps { value: 500, echo: 333 }));
    assert_eq!(replay.server_packet(NOW, &mut parse(&mut answer)), Verdict::IntroduceAgain);
}

#[test]
fn much_data_comes_in_pieces_and_none_as_an_acknowledgment() {
    let mut long = blob();
    long.data = (0..5_000u32).map(|i| i as u8).collect();
    long.tcp.rcv_nxt = CLIENT + 5_000;
    let replay = speaking(long.clone(), everything());
    let mut found = Vec::new();
    for packet in replay.introduction() {
        let (_, seq, _, _, _, data) = made(&packet);
        assert_eq!(seq, CLIENT + found.len() as u32);
        found.extend(data);
    }
    assert_eq!(found, long.data);

    let mut idle = blob();
    (idle.data, idle.tcp.rcv_nxt) = (vec![], CLIENT);
    let [packet] = &speaking(idle, everything()).introduction()[..] else { panic!("one packet") };
    assert_eq!(made(packet).3, Flags::NONE);
}

#[test]
fn packets_are_translated_both_ways() {
    let mut replay = speaking(blob(), everything());
    let sack = |start| {
        let mut options = Options {
            timestamps: Some(Timestamps { value: 600, echo: 9_000 }),
            ..Options::default()
        };
        options.sack.push(SackBlock { start, end: start + 10 });
        options
    };
    let sent = Sent {
        seq: CLIENT + 18,
        ack: SHOWN + 200,
        window: 300,
        options: sack(SHOWN + 300),
        payload: b"more",
        ..Sent::default()
    };
    let mut buffer = bytes(replay.ends(), sent);
    let mut packet = parse(&mut buffer);
    assert_eq!(replay.client_packet(NOW, &mut packet), Verdict::Forward);
    assert!(packet.checksum_ok());
    assert_eq!((packet.seq(), packet.ack()), (CLIENT + 18, SERVER + 200));
    assert_eq!((packet.tuple(), packet.window()), (replay.inner(), 300));
    let options = packet.options();
    assert_eq!(options.timestamps, Some(Timestamps { value: 600, echo: 333 }));
    assert_eq!(options.sack.as_slice()[0].start, SERVER + 300);

    let options =
        Options { timestamps: Some(Timestamps { value: 343, echo: 600 }), ..Options::default() };
    let sent = Sent {
        seq: SERVER + 200,
        ack: CLIENT + 22,
        window: 1_000,
        options,
        payload: b"answer",
        ..Sent::default()
    };
    let mut buffer = bytes(replay.inner().reversed(), sent);
    let mut packet = parse(&mut buffer);
    assert_eq!(replay.server_packet(NOW, &mut packet), Verdict::Forward);
    assert!(packet.checksum_ok());
    assert_eq!((packet.seq(), packet.ack()), (SHOWN + 200, CLIENT + 22));
    assert_eq!(packet.tuple(), replay.ends().reversed());
    assert_eq!(packet.window(), 2_000, "a scale of 9 shown as one of 8");
    assert_eq!(packet.timestamps(), Some(Timestamps { value: 9_010, echo: 600 }));

    let how = replay.error_for_server("10.9.0.1".parse().unwrap()).unwrap();
    assert_eq!(SHOWN + 200 + how.seq_delta, SERVER + 200);
    assert_eq!(how.quoted, replay.inner().reversed());
}

#[test]
fn a_server_with_fewer_options_is_bridged() {
    let plain = Options { mss: Some(1_460), ..Options::default() };
    let mut replay = speaking(blob(), plain);
    assert_eq!(made(&replay.introduction()[0]).4, Options::default());
    let mut options =
        Options { timestamps: Some(Timestamps { value: 600, echo: 9_000 }), ..Options::default() };
    options.sack.push(SackBlock { start: SHOWN + 5, end: SHOWN + 6 });
    let sent = Sent { seq: CLIENT, ack: SHOWN, window: 100, options, ..Sent::default() };
    let mut buffer = bytes(replay.ends(), sent);
    let mut packet = parse(&mut buffer);
    assert_eq!(replay.client_packet(NOW, &mut packet), Verdict::Forward);
    assert_eq!(packet.options(), Options::default());
    assert_eq!(packet.window(), 100 << 7, "not scaled for the server");

    let payload = vec![7; 1_460];
    let sent = Sent { seq: SERVER, window: 60_000, payload: &payload, ..Sent::default() };
    let mut buffer = bytes(replay.inner().reversed(), sent);
    let mut packet = parse(&mut buffer);
    assert_eq!(
        replay.server_packet(NOW + Duration::from_millis(20), &mut packet),
        Verdict::Forward
    );
    assert_eq!(packet.timestamps(), Some(Timestamps { value: 9_070, echo: 600 }));
    assert_eq!(packet.window(), (60_000u32 >> 8) as u16);
    let cut = Segmentation::Tcp { size: 1_448, ecn: false };
    assert_eq!(packet.offload().segmentation, cut, "with the option it would be too long");
}

#[test]
fn a_client_without_options_is_offered_for_without_them() {
    let mut plain = blob();
    (plain.tcp.scales, plain.tcp.sack, plain.tcp.timestamps) = (None, false, None);
    plain.tcp.client_mss = 536;
    plain.tcp.snd_wnd = 8_000;
    let mut syn = Vec::new();
    let mut replay = Replay::new(plain.clone(), PORT);
    replay.syn(&mut syn);
    assert_eq!(made(&syn).4, Options { mss: Some(536), ..Options::default() });
    // A server that offers what nobody asked for is not believed.
    let odd = Options { timestamps: None, ..everything() };
    let mut answer = syn_ack(&replay, odd, 60_000);
    assert_eq!(replay.open(&parse(&mut answer)), Opened::Ready);
    assert!(replay.speak(NOW));
    for (mut buffer, window) in [
        (bytes(replay.ends(), Sent { ack: SHOWN, window: 8_000, ..Sent::default() }), 8_000),
        (bytes(replay.inner().reversed(), Sent { window: 9_000, ..Sent::default() }), 9_000),
    ] {
        let mut packet = parse(&mut buffer);
        let forward = if packet.tuple() == replay.ends() {
            replay.client_packet(NOW, &mut packet)
        } else {
            replay.server_packet(NOW, &mut packet)
        };
        assert_eq!((forward, packet.window()), (Verdict::Forward, window));
    }
}

#[test]
fn no_server_and_a_small_server_are_refused() {
    let mut replay = Replay::new(blob(), PORT);
    let reset = Sent { seq: Seq(0), flags: Flags::RST, ..Sent::default() };
    let mut buffer = bytes(replay.inner().reversed(), reset);
    assert_eq!(replay.open(&parse(&mut buffer)), Opened::Refused(Refusal::NoServer));
    let mut answer = syn_ack(&replay, everything(), 5);
    assert_eq!(replay.open(&parse(&mut answer)), Opened::Refused(Refusal::Options));
}

#[test]
fn the_end_is_noticed_when_both_ends_have_acknowledged_it() {
    let mut replay = speaking(blob(), everything());
    let server = Sent { seq: SERVER + 10, ack: CLIENT + 18, flags: Flags::FIN, ..Sent::default() };
    let client = Sent { seq: CLIENT + 18, ack: SHOWN + 11, flags: Flags::FIN, ..Sent::default() };
    let last = Sent { seq: SERVER + 11, ack: CLIENT + 19, ..Sent::default() };
    replay.server_packet(NOW, &mut parse(&mut bytes(replay.inner().reversed(), server)));
    replay.client_packet(NOW, &mut parse(&mut bytes(replay.ends(), client)));
    assert_eq!(replay.ended(), None);
    replay.server_packet(NOW, &mut parse(&mut bytes(replay.inner().reversed(), last)));
    assert_eq!(replay.ended(), Some((HowEnded::Closed, NOW)));
}

#[test]
fn only_a_reset_that_the_server_believes_is_an_end() {
    let mut replay = speaking(blob(), everything());
    let ack = Sent { ack: CLIENT + 18, ..Sent::default() };
    replay.server_packet(NOW, &mut parse(&mut bytes(replay.inner().reversed(), ack)));
    for (seq, ended) in [(CLIENT + 19, None), (CLIENT + 18, Some((HowEnded::Reset, NOW)))] {
        let reset = Sent { seq, ack: SHOWN, flags: Flags::RST, ..Sent::default() };
        replay.client_packet(NOW, &mut parse(&mut bytes(replay.ends(), reset)));
        assert_eq!(replay.ended(), ended);
    }
    let mut out = Vec::new();
    replay.reset(&mut out);
    let (tuple, seq, _, flags, _, _) = made(&out);
    assert_eq!((tuple, seq, flags), (replay.inner(), CLIENT + 18, Flags::RST));
}

#[test]
fn segments_are_cut_for_a_path_that_has_become_narrow() {
    let plain = Options { mss: Some(1_460), ..Options::default() };
    for (options, size) in [(everything(), 1_300 - 52), (plain, 1_300 - 52)] {
        let mut replay = speaking(blob(), options);
        let payload = vec![7; 1_400];
        let timestamps = options.timestamps.map(|_| Timestamps { value: 340, echo: 500 });
        let options = Options { timestamps, ..Options::default() };
        let send = |replay: &mut Replay| {
            let sent = Sent { options, payload: &payload, ..Sent::default() };
            let mut buffer = bytes(replay.inner().reversed(), sent);
            let mut packet = parse(&mut buffer);
            assert_eq!(replay.server_packet(NOW, &mut packet), Verdict::Forward);
            packet.offload().segmentation
        };
        assert_eq!(send(&mut replay), Segmentation::None);
        assert!(!replay.too_big(SHOWN + 1_400, 600), "not sent yet: forged");
        assert!(!replay.too_big(SHOWN - 1, 600), "acknowledged long ago: forged");
        assert_eq!(send(&mut replay), Segmentation::None);
        assert!(replay.too_big(SHOWN, 1_300));
        assert_eq!(send(&mut replay), Segmentation::Tcp { size, ecn: false });
        assert!(replay.too_big(SHOWN, 1));
        assert_eq!(send(&mut replay), Segmentation::Tcp { size: 552 - 52, ecn: false });
        let ack = Sent { seq: CLIENT, ack: SHOWN + 1_400, ..Sent::default() };
        replay.client_packet(NOW, &mut parse(&mut bytes(replay.ends(), ack)));
        assert!(!replay.too_big(SHOWN, 1_300), "acknowledged");
    }
}
