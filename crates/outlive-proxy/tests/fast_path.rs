//! A node that leaves its sessions to a fast path: packets come out as without one, and what happened there is known
//! here when it matters.

mod bench;

use std::time::Duration;

use bench::{
    Bench, CLIENT_ISN, HEADROOM, IDLE, Out, SERVER_ISN, client, config, listener, segment,
};
use outlive_proxy::{
    counters::Counter,
    fast_path::{Model, Outcome},
};
use outlive_tcp::{
    segment::Segment,
    wire::{Flags, Offload, TcpPacket},
};

/// A node whose packets go to its fast path first.
struct Fast {
    bench: Bench,
    model: Model,
}

impl Fast {
    fn new(room: usize) -> Self {
        let mut bench = Bench::new(config());
        let model = Model::new(room);
        bench.node.use_fast_path(Box::new(model.clone()));
        Fast { bench, model }
    }

    /// What leaves, and whether the fast path did it.
    fn send(&mut self, segment: Segment<'_>) -> (Vec<Out>, bool) {
        let mut buffer = vec![0; HEADROOM];
        segment.emit(&mut buffer);
        let end = buffer.len();
        let mut packet = TcpPacket::parse(&mut buffer, HEADROOM, end, Offload::default()).unwrap();
        match self.model.handle(self.bench.now, &mut packet) {
            Outcome::Translated(news) => {
                assert!(packet.checksum_ok());
                let out = Out::read(packet.bytes());
                if let Some((slot, serial)) = news {
                    self.bench.node.handle_fast_path(self.bench.now, slot, serial);
                    self.bench.node.check_invariants();
                }
                (vec![out], true)
            }
            Outcome::LeftAlone => (self.bench.send(segment), false),
        }
    }
}

#[test]
fn packets_come_out_as_without_it_and_the_end_is_noticed() {
    let mut fast = Fast::new(4);
    let mut plain = Bench::new(config());
    let out = fast.bench.establish(1);
    assert_eq!(plain.establish(1), out);
    assert_eq!((fast.model.len(), fast.bench.counter(Counter::FastPathInstalled)), (1, 1));

    let (server, own) = (out.to(), out.tuple.source);
    let (c, s) = (CLIENT_ISN + 1, SERVER_ISN + 1);
    let from_client = |seq, ack, flags| segment(client(1), listener(), seq, Some(ack), flags);
    let from_server = |seq, ack, flags| segment(server, own, seq, Some(ack), flags);
    let course = [
        Segment { payload: b"request", ..from_client(c, s, Flags::PSH) },
        Segment { payload: b"response", ..from_server(s, out.seq + 7, Flags::PSH) },
        from_client(c + 7, s + 8, Flags::FIN),
        from_server(s + 8, out.seq + 8, Flags::FIN),
        from_client(c + 8, s + 9, Flags::NONE),
    ];
    for segment in course {
        assert_eq!(fast.bench.sessions(), [0, 1, 0]);
        let (through, quickly) = fast.send(segment);
        assert_eq!(through, plain.send(segment));
        assert!(quickly);
    }
    assert_eq!(fast.bench.sessions(), [0, 0, 1]);
    assert!(fast.model.is_empty(), "taken back");
    let late = from_server(s + 8, out.seq + 8, Flags::FIN);
    assert_eq!(fast.send(late), (plain.send(late), false));
}

/// The client's acknowledgment of the node's answer, which may carry data, and a FIN, is the first that passes there.
#[test]
fn the_clients_handshake_is_completed_there() {
    let mut fast = Fast::new(4);
    let syn = fast.bench.syn(1).remove(0);
    let syn_ack = fast.bench.accept(&syn).remove(0);
    assert_eq!((syn_ack.to(), fast.model.len()), (client(1), 1));
    assert_eq!(fast.bench.sessions(), [1, 0, 0]);

    let early = segment(syn.to(), syn.tuple.source, SERVER_ISN + 1, Some(syn.seq + 1), Flags::NONE);
    assert_eq!(fast.send(early), (vec![], false), "nobody is there yet");
    for ack in [SERVER_ISN, SERVER_ISN + 2] {
        let forged = segment(client(1), listener(), CLIENT_ISN + 1, Some(ack), Flags::NONE);
        assert_eq!(fast.send(forged), (vec![], false), "never sent {ack:?}");
    }
    let repeated = segment(client(1), listener(), CLIENT_ISN, None, Flags::SYN);
    assert_eq!(fast.send(repeated), (vec![syn_ack.clone()], false));
    assert_eq!(fast.bench.sessions(), [1, 0, 0]);

    let last = Segment {
        payload: b"all",
        ..segment(client(1), listener(), CLIENT_ISN + 1, Some(SERVER_ISN + 1), Flags::FIN)
    };
    let (out, quickly) = fast.send(last);
    assert!(quickly);
    assert_eq!((out[0].to(), &out[0].payload[..]), (syn.to(), &b"all"[..]));
    assert_eq!(fast.bench.sessions(), [0, 1, 0]);
    let response = Segment { payload: b"welcome", ..early };
    assert!(fast.send(response).1);
    // Nothing is left of the time that it had to come.
    fast.bench.pass(IDLE - Duration::from_secs(10));
    assert_eq!(fast.bench.sessions(), [0, 1, 0]);
}

/// A client that never comes leaves nothing behind.
#[test]
fn who_never_completes_the_handshake_is_forgotten() {
    let mut fast = Fast::new(4);
    let syn = fast.bench.syn(1).remove(0);
    fast.bench.accept(&syn);
    let out = fast.bench.pass(Duration::from_secs(60));
    assert!(out.iter().any(|out| out.to() == syn.to() && out.flags.contains(Flags::RST)));
    assert_eq!((fast.model.len(), fast.bench.sessions()), (0, [0, 0, 0]));
}

/// A reset is the node's to judge, by what the fast path has seen.
#[test]
fn a_reset_is_judged_by_where_the_stream_is_now() {
    let mut fast = Fast::new(4);
    fast.bench.establish(1);
    let said = Segment {
        payload: b"hello",
        ..segment(client(1), listener(), CLIENT_ISN + 1, Some(SERVER_ISN + 1), Flags::PSH)
    };
    assert!(fast.send(said).1);
    for (seq, sessions) in [(CLIENT_ISN + 5, [0, 1, 0]), (CLIENT_ISN + 6, [0, 0, 1])] {
        let reset = segment(client(1), listener(), seq, None, Flags::RST);
        let (out, quickly) = fast.send(reset);
        assert_eq!((out.len(), quickly), (1, false));
        assert_eq!(fast.bench.sessions(), sessions);
    }
    assert!(fast.model.is_empty());
}

#[test]
fn idle_sessions_make_room_for_busy_ones() {
    let mut fast = Fast::new(1);
    fast.bench.establish(1);
    fast.bench.establish(2);
    assert_eq!(fast.bench.counter(Counter::FastPathFull), 1);
    fast.bench.pass(Duration::from_secs(3));
    let busy = segment(client(2), listener(), CLIENT_ISN + 1, Some(SERVER_ISN + 1), Flags::NONE);
    let quickly = (0..600).filter(|_| fast.send(busy).1).count();
    assert!(quickly > 0, "it got the place in the end");
    let idle = segment(client(1), listener(), CLIENT_ISN + 1, Some(SERVER_ISN + 1), Flags::NONE);
    let (out, quickly) = fast.send(idle);
    assert_eq!((out.len(), quickly), (1, false), "it goes on here");
    assert_eq!((fast.model.len(), fast.bench.sessions()), (1, [0, 2, 0]));
}
