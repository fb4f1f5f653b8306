//! The TCP endpoint: whatever segments come and whatever the program does, it does not panic, nothing is
//! acknowledged that the program did not acknowledge, no window moves left, and it does not send without end.
//! Half of the runs move the connection to another node on the way.

use std::time::Duration;

use bytes::Bytes;
use outlive_tcp::{
    endpoint::{
        Acknowledge, Arrival, Config, Connection, Contents, Handshake, Negotiated, Opening, Read,
        RestoreOptions, State,
    },
    seq::Seq,
    time::Time,
    wire::{
        Endpoint, Flags, FourTuple, IcmpError, IcmpErrorKind, Options, SackBlock, SackBlocks,
        Timestamps,
    },
};

use crate::input::Input;

const ISS: Seq = Seq(u32::MAX - 3_000);
const IRS: Seq = Seq(u32::MAX - 9_000);
/// More than a step can be worth.
const MOST_SEGMENTS: usize = 3_000;

struct Run {
    now: Time,
    conn: Connection,
    config: Config,
    /// What the program has acknowledged, as a sequence number.
    acknowledged: Seq,
    /// The right edge that was shown.
    edge: Seq,
    scale: u8,
}

/// One connection, from its handshake on.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut run = Run::new(&mut input);
    for _ in 0..100 {
        if input.is_empty() {
            break;
        }
        run.step(&mut input);
        run.transmit();
    }
}

impl Run {
    fn new(input: &mut Input<'_>) -> Self {
        let bits = input.byte();
        let config = Config {
            acknowledge: Acknowledge::Explicitly,
            receive_buffer: 1_000 + u32::from(input.u16()),
            withheld_limit: 1_000 + u32::from(input.u16()),
            send_buffer: 100_000,
            nagle: bits & 1 != 0,
            ecn: bits & 2 != 0,
            reassembly_pieces: 50,
            ..Config::default()
        };
        let negotiated = Negotiated {
            peer_mss: input.u16().max(64),
            own_mss: 1_460,
            send_scale: input.byte() % 15,
            receive_scale: if bits & 4 != 0 { 3 } else { 0 },
            timestamps: bits & 8 != 0,
            sack: bits & 16 != 0,
            ecn: bits & 2 != 0,
        };
        let ends = FourTuple::new(
            Endpoint::new([10, 0, 0, 1].into(), 80),
            Endpoint::new([10, 0, 0, 2].into(), 4_000),
        );
        let opening = Opening { tuple: ends, iss: ISS, timestamp_offset: input.u32() };
        let handshake =
            Handshake { opening, irs: IRS, negotiated, window: input.u16(), timestamp: 1_000 };
        let now = Time::from_micros(1_000_000);
        let conn = Connection::established(now, &handshake, config);
        let scale = negotiated.receive_scale;
        Run { now, conn, config, acknowledged: IRS + 1, edge: IRS + 1, scale }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(12) {
            0 => {
                self.now = self.now + Duration::from_millis(input.u16().into());
                self.conn.handle_timeout(self.now);
            }
            1 => {
                let _ = self.conn.write(Bytes::from(vec![0; usize::from(input.u16())]));
            }
            2 => while matches!(self.conn.read(usize::from(input.u16()) + 1), Read::Data(_)) {},
            3 | 4 => {
                let count = u32::from(input.u16());
                if self.conn.acknowledge(count).is_ok() {
                    self.acknowledged += count;
                }
            }
            5 => self.end(input),
            6 => self.too_big(input),
            7 if input.byte() > 200 => self.move_on(input),
            _ => {
                let segment = self.segment(input);
                self.conn.handle_segment(self.now, &segment);
            }
        }
        while self.conn.poll_event().is_some() {}
    }

    fn end(&mut self, input: &mut Input<'_>) {
        match input.below(5) {
            0 | 1 => self.conn.shutdown(),
            2 | 3 => {
                let before = self.conn.positions().acknowledged;
                if self.conn.acknowledge_end().is_ok()
                    && self.conn.positions().acknowledged != before
                {
                    self.acknowledged += 1;
                }
            }
            _ => self.conn.mark_urgent(),
        }
    }

    fn too_big(&mut self, input: &mut Input<'_>) {
        let error = IcmpError {
            quoted: self.conn.tuple(),
            quoted_seq: self.conn.positions().sent_acknowledged + u32::from(input.u16()),
            what: IcmpErrorKind::TooBig { mtu: u32::from(input.u16()) },
            code: 4,
        };
        self.conn.handle_icmp(self.now, &error);
    }

    /// A segment whose numbers are near those that matter.
    fn segment(&self, input: &mut Input<'_>) -> Arrival {
        let at = self.conn.positions();
        let near = |base: Seq, input: &mut Input<'_>| match input.below(6) {
            0 => base - u32::from(input.u16()),
            1 => base + input.number(),
            2 | 3 => base,
            _ => base + u32::from(input.u16()),
        };
        let seq = near(at.received, input);
        let ack = near(at.sent_acknowledged, input);
        let flags = match input.below(8) {
            0 => Flags(input.u16() & 0xff),
            1 => Flags::ACK | Flags::FIN,
            _ => Flags::ACK,
        };
        let mut sack = SackBlocks::default();
        for _ in 0..input.below(4) {
            let start = near(at.sent_acknowledged, input);
            sack.push(SackBlock { start, end: start + u32::from(input.u16()) });
        }
        let timestamps =
            Timestamps { value: 1_000 + u32::from(input.byte()), echo: input.number() };
        let options = Options {
            timestamps: (input.byte() < 250).then_some(timestamps),
            sack,
            ..Options::default()
        };
        let payload = vec![0; if input.byte() < 100 { 0 } else { usize::from(input.u16()) }];
        Arrival {
            tuple: self.conn.tuple().reversed(),
            seq,
            ack: flags.contains(Flags::ACK).then_some(ack),
            flags,
            window: input.u16(),
            urgent: flags.contains(Flags::URG).then(|| input.u16()),
            options,
            congestion_experienced: input.byte() > 240,
            segment_size: input.u16(),
            payload: payload.into(),
        }
    }

    /// Another node goes on, with whatever part of the state.
    fn move_on(&mut self, input: &mut Input<'_>) {
        let contents =
            input.one_of(&[Contents::EVERYTHING, Contents::COMMITTED, Contents::NUMBERS]);
        let state = self.conn.state();
        let Ok(bytes) = self.conn.capture(self.now, contents) else {
            assert!(!state.is_synchronized());
            return;
        };
        let age = Duration::from_millis(input.u16().into());
        self.now = self.now + age;
        let options = RestoreOptions { age, sent_beyond: 0 };
        let restored = Connection::restore(self.now, &bytes, self.config, &options);
        self.conn = restored.expect("what was captured can be restored");
        assert_eq!(self.conn.positions().acknowledged, self.acknowledged);
    }

    fn transmit(&mut self) {
        for count in 0.. {
            let Some(sent) = self.conn.poll_transmit(self.now) else { break };
            assert!(count < MOST_SEGMENTS, "it sends without end");
            let mut packet = Vec::new();
            sent.emit(&mut packet);
            assert!(packet.len() <= 65_535);
            let Some(ack) = sent.ack.filter(|_| !sent.flags.contains(Flags::RST)) else { continue };
            assert!(ack.at_or_before(self.acknowledged), "acknowledged what the program did not");
            let edge = ack + (u32::from(sent.window) << self.scale);
            let back = self.edge.distance(edge) as i32;
            assert!(back < 1 << self.scale, "the right edge moved left by {back}");
            self.edge = self.edge.later(edge);
        }
        // One that was restored may still be asking where its reset has to stand.
        if self.conn.state() == State::Closed && !self.conn.is_parting() {
            assert_eq!(self.conn.poll_timeout(), None);
        }
    }
}
