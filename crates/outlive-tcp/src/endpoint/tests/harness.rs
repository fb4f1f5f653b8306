//! For tests that read like a trace: one connection, and a script that plays the other end.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    endpoint::{
        Acknowledge, Arrival, Config, Connection, End, Event, Opening, Read, State, Transmit,
        Verdict,
    },
    seq::Seq,
    testing,
    time::Time,
    wire::{Flags, FourTuple, Offload, Options, SackBlock, TcpPacket, Timestamps},
};

/// Our initial sequence number in traces: the first byte is 1,001.
pub(super) const ISS: u32 = 1_000;
/// The other end's: its first byte is 5,001, shortly before a wrap if `IRS` were larger.
pub(super) const IRS: u32 = 5_000;

pub(super) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn ends() -> FourTuple {
    testing::tuple("10.0.0.1:4000", "10.0.0.2:80")
}

pub(super) fn opening() -> Opening {
    Opening { tuple: ends(), iss: Seq(ISS), timestamp_offset: 0 }
}

/// Settings that keep traces short: no timestamps, no scaling, acknowledged on receipt.
pub(super) fn plain() -> Config {
    Config {
        acknowledge: Acknowledge::OnReceipt,
        timestamps: false,
        window_scaling: false,
        receive_buffer: 10_000,
        withheld_limit: 10_000,
        ..Config::default()
    }
}

/// A segment of the other end.
pub(super) fn seg(seq: u32, ack: u32) -> Arrival {
    Arrival {
        tuple: ends().reversed(),
        seq: Seq(seq),
        ack: Some(Seq(ack)),
        flags: Flags::ACK,
        window: 20_000,
        urgent: None,
        options: Options::default(),
        congestion_experienced: false,
        segment_size: 0,
        payload: Bytes::new(),
    }
}

pub(super) fn bare(seq: u32, flags: Flags) -> Arrival {
    Arrival { ack: None, flags, ..seg(seq, 0) }
}

/// The byte at a position of every stream in traces.
pub(super) fn stream(position: u32) -> u8 {
    (position ^ position >> 8).wrapping_mul(31) as u8
}

pub(super) fn bytes(start: u32, len: u32) -> Bytes {
    (start..start + len).map(stream).collect()
}

impl Arrival {
    pub(super) fn data(mut self, len: u32) -> Self {
        self.payload = bytes(self.seq.0, len);
        self.segment_size = len as u16;
        self
    }

    pub(super) fn and(mut self, flags: Flags) -> Self {
        self.flags |= flags;
        self
    }

    pub(super) fn window(mut self, window: u16) -> Self {
        self.window = window;
        self
    }

    pub(super) fn stamp(mut self, value: u32, echo: u32) -> Self {
        self.options.timestamps = Some(Timestamps { value, echo });
        self
    }

    pub(super) fn sack(mut self, blocks: &[(u32, u32)]) -> Self {
        for &(start, end) in blocks {
            self.options.sack.push(SackBlock { start: Seq(start), end: Seq(end) });
        }
        self
    }

    pub(super) fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }
}

/// A connection under test, with its clock.
pub(super) struct Trace {
    pub(super) now: Time,
    pub(super) conn: Connection,
}

/// What is expected of a segment: written as `ack(5001)`, `data(1001, 100)`.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Expected {
    seq: Option<u32>,
    ack: Option<u32>,
    flags: Flags,
    len: u32,
    sack: Option<Vec<(u32, u32)>>,
}

pub(super) fn ack(ack: u32) -> Expected {
    Expected { seq: None, ack: Some(ack), flags: Flags::NONE, len: 0, sack: None }
}

pub(super) fn data(seq: u32, len: u32) -> Expected {
    Expected { seq: Some(seq), ack: None, flags: Flags::NONE, len, sack: None }
}

pub(super) fn rst(seq: u32) -> Expected {
    Expected { flags: Flags::RST, ..data(seq, 0) }
}

impl Expected {
    pub(super) fn fin(mut self) -> Self {
        self.flags |= Flags::FIN;
        self
    }

    pub(super) fn at(mut self, seq: u32) -> Self {
        self.seq = Some(seq);
        self
    }

    pub(super) fn acks(mut self, ack: u32) -> Self {
        self.ack = Some(ack);
        self
    }

    pub(super) fn sacks(mut self, blocks: &[(u32, u32)]) -> Self {
        self.sack = Some(blocks.to_vec());
        self
    }
}

impl Trace {
    pub(super) fn new(conn: Connection) -> Self {
        Trace { now: Time::from_micros(1_000_000), conn }
    }

    /// In ESTABLISHED, the handshake over: nothing in flight, nothing to be sent, no event.
    pub(super) fn established(config: Config) -> Self {
        Self::established_with(
            config,
            Options { mss: Some(1_000), sack_permitted: true, ..Options::default() },
        )
    }

    /// The same, the other end having offered `options`.
    pub(super) fn established_with(config: Config, options: Options) -> Self {
        let mut trace = Trace::new(Connection::connect(opening(), config).unwrap());
        assert!(trace.next().unwrap().flags.contains(Flags::SYN));
        trace.wait(ms(10));
        trace.recv(seg(IRS, ISS + 1).and(Flags::SYN).options(options));
        trace.send(ack(IRS + 1).at(ISS + 1));
        trace.nothing();
        assert_eq!(trace.conn.poll_event(), Some(Event::Established));
        assert_eq!(trace.conn.state(), State::Established);
        trace
    }

    pub(super) fn fin_wait_1(config: Config) -> Self {
        let mut trace = Self::established(config);
        trace.conn.shutdown();
        trace.send(data(ISS + 1, 0).fin());
        trace.nothing();
        trace.state(State::FinWait1)
    }

    pub(super) fn fin_wait_2(config: Config) -> Self {
        let mut trace = Self::fin_wait_1(config);
        trace.recv(seg(IRS + 1, ISS + 2));
        trace.nothing();
        trace.state(State::FinWait2)
    }

    pub(super) fn close_wait(config: Config) -> Self {
        let mut trace = Self::established(config);
        trace.recv(seg(IRS + 1, ISS + 1).and(Flags::FIN));
        trace.send(ack(IRS + 2).at(ISS + 1));
        trace.nothing();
        trace.state(State::CloseWait)
    }

    pub(super) fn last_ack(config: Config) -> Self {
        let mut trace = Self::close_wait(config);
        trace.conn.shutdown();
        trace.send(data(ISS + 1, 0).fin());
        trace.nothing();
        trace.state(State::LastAck)
    }

    pub(super) fn time_wait(config: Config) -> Self {
        let mut trace = Self::fin_wait_2(config);
        trace.recv(seg(IRS + 1, ISS + 2).and(Flags::FIN));
        trace.send(ack(IRS + 2).at(ISS + 2));
        trace.nothing();
        trace.state(State::TimeWait)
    }

    #[track_caller]
    pub(super) fn state(self, state: State) -> Self {
        assert_eq!(self.conn.state(), state);
        self
    }

    /// A segment comes, and is taken.
    #[track_caller]
    pub(super) fn recv(&mut self, segment: Arrival) {
        assert_eq!(self.conn.handle_segment(self.now, &segment), Verdict::Accepted);
    }

    /// A segment comes, and is dropped for that reason.
    #[track_caller]
    pub(super) fn recv_dropped(&mut self, segment: Arrival, reason: crate::endpoint::Drop) {
        assert_eq!(self.conn.handle_segment(self.now, &segment), Verdict::Dropped(reason));
    }

    /// What is sent next: as its packet reads after being written, checksum and all.
    pub(super) fn next(&mut self) -> Option<Transmit> {
        let transmit = self.conn.poll_transmit(self.now)?;
        assert_sound(&transmit);
        Some(transmit)
    }

    /// That is sent next.
    #[track_caller]
    pub(super) fn send(&mut self, expected: Expected) -> Transmit {
        let transmit = self.next().expect("nothing was sent");
        let (seq, len) = (transmit.seq.0, transmit.payload_len() as u32);
        let visible = Flags::FIN | Flags::SYN | Flags::RST;
        let actual = Expected {
            seq: expected.seq.and(Some(seq)),
            ack: expected.ack.and(transmit.ack).map(|ack| ack.0),
            flags: transmit.flags & visible,
            len,
            sack: expected.sack.as_ref().map(|_| {
                let blocks = transmit.options.sack.as_slice();
                blocks.iter().map(|block| (block.start.0, block.end.0)).collect()
            }),
        };
        assert_eq!(actual, expected, "{transmit:?}");
        if !transmit.flags.intersects(Flags::SYN | Flags::RST)
            && seq.wrapping_sub(ISS) < 1 << 31
            && seq > ISS
        {
            assert_eq!(transmit.payload.concat(), bytes(seq, len), "other bytes than were written");
        }
        transmit
    }

    /// Nothing is sent.
    #[track_caller]
    pub(super) fn nothing(&mut self) {
        if let Some(transmit) = self.next() {
            panic!("nothing should be sent: {transmit:?}");
        }
    }

    /// Time passes, without anything to do.
    #[track_caller]
    pub(super) fn wait(&mut self, time: Duration) {
        let then = self.now + time;
        let due = self.conn.poll_timeout();
        assert!(due.is_none_or(|due| due > then), "a timer is due at {due:?}, before {then:?}");
        self.now = then;
    }

    /// The next timer fires, `expected` from now.
    #[track_caller]
    pub(super) fn timeout(&mut self, expected: Duration) {
        let due = self.conn.poll_timeout().expect("no timer runs");
        assert_eq!(due.since(self.now), expected);
        self.now = due;
        self.conn.handle_timeout(due);
    }

    #[track_caller]
    pub(super) fn write(&mut self, len: u32) {
        let start = self.conn.positions().written.0;
        assert_eq!(self.conn.write(bytes(start, len)), Ok(len as usize));
    }

    /// `len` bytes are read, and are the right ones.
    #[track_caller]
    pub(super) fn read(&mut self, len: u32) {
        let start = self.conn.positions().read.0;
        let mut all = Vec::new();
        while all.len() < len as usize {
            match self.conn.read(len as usize - all.len()) {
                Read::Data(data) => all.extend_from_slice(&data),
                other => panic!("{other:?} after {} bytes", all.len()),
            }
        }
        assert_eq!(all, bytes(start, len));
    }

    #[track_caller]
    pub(super) fn ended(&mut self, end: End) {
        assert_eq!((self.conn.state(), self.conn.end()), (State::Closed, Some(end)));
        assert_eq!(std::iter::from_fn(|| self.conn.poll_event()).last(), Some(Event::Closed(end)));
        assert_eq!(self.conn.poll_timeout(), None);
    }
}

/// The packet parses to what was meant, and its checksum is right.
fn assert_sound(transmit: &Transmit) {
    for segment in transmit.segments() {
        let mut packet = Vec::new();
        assert_eq!(segment.emit(&mut packet), Offload::default());
        let len = packet.len();
        let parsed = TcpPacket::parse(&mut packet, 0, len, Offload::default()).unwrap();
        assert!(parsed.checksum_ok());
        assert_eq!(parsed.tuple(), segment.tuple);
        assert_eq!((parsed.seq(), parsed.window()), (segment.seq, segment.window));
        assert_eq!(parsed.options(), segment.options, "not all options had room");
        assert_eq!(parsed.payload(), segment.payload.concat());
    }
}
