//! Two ends and a link between them, in virtual time.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};

use bytes::Bytes;

use super::harness::ms;
use crate::{
    endpoint::{
        Acknowledge, Arrival, Config, Connection, Contents, Drop, End, Event, Opening, Read, State,
        Transmit, Verdict,
    },
    segment,
    seq::Seq,
    testing,
    time::Time,
    wire::{Offload, TcpPacket},
};

/// What a link does to packets. Chances are of a thousand.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinkConfig {
    pub(super) delay: Duration,
    /// Up to so much is added, which reorders.
    pub(super) jitter: Duration,
    pub(super) loss: u32,
    pub(super) duplication: u32,
    pub(super) corruption: u32,
    /// Bytes per second; 0 for no limit.
    pub(super) rate: u64,
    /// Bytes that may wait at a rate limit.
    pub(super) queue: u64,
    /// Longer packets vanish; 0 for none.
    pub(super) swallows_beyond: usize,
    /// Super-segments pass whole.
    pub(super) offload: bool,
}

impl Default for LinkConfig {
    fn default() -> Self {
        LinkConfig {
            delay: ms(10),
            jitter: Duration::ZERO,
            loss: 0,
            duplication: 0,
            corruption: 0,
            rate: 0,
            queue: 0,
            swallows_beyond: 0,
            offload: false,
        }
    }
}

/// A TCP under test, or one to test against.
pub(super) trait Stack {
    /// A packet comes.
    fn receive(&mut self, now: Time, packet: Vec<u8>, offload: Offload);
    /// All packets that are to be sent now. Called after everything else.
    fn transmit(&mut self, now: Time, offload: bool) -> Vec<(Vec<u8>, Offload)>;
    /// When `wake` is to be called.
    fn deadline(&self) -> Option<Time>;
    /// The deadline has come.
    fn wake(&mut self, now: Time);
}

/// What a program does with its connection: sends so much, takes what comes, ends its stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    pub(super) send: u64,
    /// The seed of the stream that is sent, and of the one that is expected.
    pub(super) streams: (u64, u64),
    /// Bytes read at once.
    pub(super) read_size: usize,
    /// How long after a read it is acknowledged.
    pub(super) commit: Duration,
    /// How long after the last read the next one comes.
    pub(super) pause: Duration,
}

impl Default for Work {
    fn default() -> Self {
        let streams = (1, 1);
        Work { send: 0, streams, read_size: 1 << 20, commit: Duration::ZERO, pause: Duration::ZERO }
    }
}

/// The byte at a position of a stream.
pub(super) fn byte_at(seed: u64, position: u64) -> u8 {
    let word = (position / 8 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ seed.wrapping_mul(0xd134_2543_de82_ef95);
    let word = (word ^ word >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (word >> (8 * (position % 8))) as u8
}

/// This endpoint, with a program on top.
pub(super) struct Program {
    pub(super) conn: Connection,
    pub(super) work: Work,
    pub(super) written: u64,
    pub(super) read: u64,
    pub(super) acknowledged: u64,
    pub(super) end_read: bool,
    /// What is to be acknowledged, and when.
    commits: VecDeque<(Time, u32)>,
    end_commit: Option<Time>,
    next_read: Time,
    pub(super) segments_sent: u64,
    pub(super) bytes_sent: u64,
    pub(super) events: Vec<Event>,
    /// A capture is taken whenever the program has acknowledged, written or ended something, before
    /// anything leaves.
    pub(super) captures: Option<Contents>,
    pub(super) transaction: Option<(Time, Vec<u8>)>,
    progress: (u64, u64, bool, bool),
    /// To a segment that came after the connection was over.
    reset: Option<Vec<u8>>,
}

impl Program {
    pub(super) fn new(conn: Connection, work: Work) -> Self {
        Program {
            conn,
            work,
            written: 0,
            read: 0,
            acknowledged: 0,
            end_read: false,
            commits: VecDeque::new(),
            end_commit: None,
            next_read: Time::ZERO,
            segments_sent: 0,
            bytes_sent: 0,
            events: Vec::new(),
            captures: None,
            transaction: None,
            progress: (0, 0, false, false),
            reset: None,
        }
    }

    /// The program of a node that has taken over: its state is that of the capture.
    pub(super) fn resumed(now: Time, conn: Connection, work: Work) -> Self {
        let positions = conn.positions();
        let mut program = Program::new(conn, work);
        program.written = positions.written.distance(program.conn.sender.iss + 1).into();
        program.read = positions.read.distance(program.conn.receiver.irs + 1).into();
        program.end_read = program.conn.receiver.end_acknowledged();
        let outstanding = positions.read.distance(positions.acknowledged.earlier(positions.read));
        program.acknowledged = program.read - u64::from(outstanding);
        if outstanding > 0 {
            program.commits.push_back((now, outstanding));
        }
        program
    }

    /// Captures what the program has done, before any effect of it leaves.
    fn record(&mut self, now: Time) {
        let Some(contents) = self.captures else { return };
        let end = self.end_read && self.end_commit.is_none();
        let progress = (self.written, self.acknowledged, self.conn.sender.ended(), end);
        let changed = progress != self.progress || self.transaction.is_none();
        if changed && let Ok(bytes) = self.conn.capture(now, contents) {
            self.progress = progress;
            self.transaction = Some((now, bytes));
        }
    }

    fn write(&mut self) {
        while self.written < self.work.send {
            let room = self.conn.write_capacity().min(40_000) as u64;
            if room == 0 && self.written > 0 {
                return;
            }
            // A little more than there is room for, so that refusal is part of it.
            let chunk = (self.work.send - self.written).min(room + 1);
            let data: Bytes = (self.written..self.written + chunk)
                .map(|position| byte_at(self.work.streams.0, position))
                .collect();
            match self.conn.write(data) {
                Ok(taken) if taken > 0 => self.written += taken as u64,
                _ => return,
            }
        }
        self.conn.shutdown();
    }

    fn read(&mut self, now: Time) {
        while now >= self.next_read && !self.end_read {
            match self.conn.read(self.work.read_size) {
                Read::Data(data) => {
                    for byte in &data {
                        assert_eq!(
                            *byte,
                            byte_at(self.work.streams.1, self.read),
                            "at {}",
                            self.read
                        );
                        self.read += 1;
                    }
                    self.commits.push_back((now + self.work.commit, data.len() as u32));
                    self.next_read = now + self.work.pause;
                }
                Read::End => {
                    self.end_read = true;
                    self.end_commit = Some(now + self.work.commit);
                }
                Read::Blocked | Read::Closed(_) => return,
            }
        }
    }

    fn commit(&mut self, now: Time) {
        let explicit = self.conn.config.acknowledge == Acknowledge::Explicitly;
        while let Some((_, count)) = self.commits.pop_front_if(|(due, _)| *due <= now) {
            if explicit {
                self.conn.acknowledge(count).unwrap();
            }
            self.acknowledged += u64::from(count);
        }
        if self.end_commit.is_some_and(|due| due <= now) {
            self.end_commit = None;
            if explicit {
                self.conn.acknowledge_end().unwrap();
            }
        }
    }

    pub(super) fn act(&mut self, now: Time) {
        self.write();
        self.read(now);
        self.commit(now);
        while let Some(event) = self.conn.poll_event() {
            self.events.push(event);
        }
    }

    pub(super) fn is_done(&self) -> bool {
        let failed = self.conn.end().is_some_and(|end| end != End::Finished);
        let over = matches!(self.conn.state(), State::TimeWait | State::Closed);
        failed || (over && self.end_read && self.commits.is_empty() && self.end_commit.is_none())
    }

    #[track_caller]
    pub(super) fn assert_complete(&self, expected: u64) {
        assert_eq!(self.read, expected, "{:?}", self.conn.end());
        assert!(self.end_read);
        // The last acknowledgment of a FIN may be lost for longer than the other end lingers.
        let finished = matches!(self.conn.end(), None | Some(End::Finished | End::ResetByPeer));
        assert!(finished && self.conn.unacknowledged() == 0, "{:?}", self.conn.end());
    }
}

impl Stack for Program {
    fn receive(&mut self, now: Time, mut packet: Vec<u8>, offload: Offload) {
        let len = packet.len();
        let Ok(parsed) = TcpPacket::parse(&mut packet, 0, len, offload) else { return };
        if !parsed.checksum_ok() {
            return;
        }
        let verdict = self.conn.handle_segment(now, &Arrival::copied(&parsed));
        if verdict == Verdict::Dropped(Drop::Closed) {
            self.reset = segment::reset_for(&parsed).map(|reset| {
                let mut packet = Vec::new();
                reset.emit(&mut packet);
                packet
            });
        }
    }

    fn transmit(&mut self, now: Time, offload: bool) -> Vec<(Vec<u8>, Offload)> {
        self.act(now);
        self.record(now);
        let mut packets = Vec::new();
        packets.extend(self.reset.take().map(|packet| (packet, Offload::default())));
        while let Some(transmit) = self.conn.poll_transmit(now) {
            self.bytes_sent += transmit.payload_len() as u64;
            let mut push = |transmit: &Transmit| {
                let mut packet = Vec::new();
                let offload = transmit.emit(&mut packet);
                packets.push((packet, offload));
            };
            if offload {
                push(&transmit);
            } else {
                transmit.segments().for_each(|segment| push(&segment));
            }
            assert!(packets.len() < 10_000, "it sends without end");
        }
        self.segments_sent += packets.len() as u64;
        packets
    }

    fn deadline(&self) -> Option<Time> {
        let commit = self.commits.front().map(|(due, _)| *due);
        let read = (self.conn.unread() > 0).then_some(self.next_read);
        [self.conn.poll_timeout(), commit, read, self.end_commit].into_iter().flatten().min()
    }

    fn wake(&mut self, now: Time) {
        if self.conn.poll_timeout().is_some_and(|due| due <= now) {
            self.conn.handle_timeout(now);
        }
    }
}

/// A packet under way: when it arrives, in what order, where to.
type Flight = Reverse<(Time, u64, usize, Vec<u8>, bool, u16)>;

/// Ends in pairs (0 and 1, 2 and 3, ...), all over one link in each direction.
pub(super) struct World<S> {
    pub(super) now: Time,
    pub(super) ends: Vec<S>,
    pub(super) link: LinkConfig,
    pub(super) random: fastrand::Rng,
    flights: BinaryHeap<Flight>,
    count: u64,
    /// When the rate limit of each direction has worked off what waits.
    busy_until: [Time; 2],
    pub(super) lost: u64,
    pub(super) steps: u64,
}

impl<S: Stack> World<S> {
    pub(super) fn new(seed: u64, link: LinkConfig, ends: Vec<S>) -> Self {
        World {
            now: Time::from_micros(1_000_000),
            ends,
            link,
            random: fastrand::Rng::with_seed(seed),
            flights: BinaryHeap::new(),
            count: 0,
            busy_until: [Time::ZERO; 2],
            lost: 0,
            steps: 0,
        }
    }

    /// Goes on until `done`, or the virtual time `limit` has passed: then nothing moved that should.
    pub(super) fn run(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + limit;
        (0..self.ends.len()).for_each(|i| self.flush(i));
        while !done(self) {
            if !self.step() || self.now > end {
                return false;
            }
        }
        true
    }

    /// The next thing happens; false if there is none.
    pub(super) fn step(&mut self) -> bool {
        self.steps += 1;
        let timer = (0..self.ends.len())
            .filter_map(|i| self.ends[i].deadline().map(|due| (due.max(self.now), i)))
            .min();
        let arrival = self.flights.peek().map(|Reverse(flight)| flight.0);
        match (arrival, timer) {
            (Some(at), timer) if timer.is_none_or(|(due, _)| at <= due) => {
                let Some(Reverse((at, _, to, packet, partial, size))) = self.flights.pop() else {
                    return false;
                };
                self.now = at;
                self.ends[to].receive(at, packet, offload_of(partial, size));
                self.flush(to);
            }
            (_, Some((due, i))) => {
                self.now = due;
                self.ends[i].wake(due);
                self.flush(i);
            }
            (_, None) => return false,
        }
        true
    }

    /// What is on its way to one end, or comes within `time`, is lost; the other end goes on.
    pub(super) fn outage(&mut self, to: usize, time: Duration) {
        let until = self.now + time;
        let lost = |flight: &Flight| flight.0.2 == to && flight.0.0 <= until;
        loop {
            self.flights.retain(|flight| !lost(flight));
            let other = to ^ 1;
            let due = self.ends[other].deadline().filter(|&due| due <= until);
            let arrival = self.flights.peek().map(|Reverse(flight)| flight.0);
            match (arrival.filter(|&at| at <= until), due) {
                (Some(at), due) if due.is_none_or(|due| at <= due) => {
                    let Some(Reverse((at, _, _, packet, partial, size))) = self.flights.pop()
                    else {
                        return;
                    };
                    self.now = self.now.max(at);
                    self.ends[other].receive(self.now, packet, offload_of(partial, size));
                }
                (_, Some(due)) => {
                    self.now = self.now.max(due);
                    self.ends[other].wake(self.now);
                }
                _ => break,
            }
            self.flush(other);
        }
        self.now = until;
    }

    pub(super) fn flush(&mut self, from: usize) {
        for (packet, offload) in self.ends[from].transmit(self.now, self.link.offload) {
            self.send(from, packet, offload);
        }
    }

    fn chance(&mut self, of_thousand: u32) -> bool {
        of_thousand > 0 && self.random.u32(0..1_000) < of_thousand
    }

    fn send(&mut self, from: usize, mut packet: Vec<u8>, offload: Offload) {
        if self.chance(self.link.loss) {
            self.lost += 1;
            return;
        }
        if self.link.swallows_beyond > 0 && packet.len() > self.link.swallows_beyond {
            return;
        }
        let Some(queued) = self.queue(from, packet.len() as u64) else {
            self.lost += 1;
            return;
        };
        if self.chance(self.link.corruption) {
            if offload.checksum == crate::wire::Checksum::Partial {
                return; // The device that completes the checksum comes before the damage.
            }
            let at = self.random.usize(0..packet.len());
            packet[at] ^= 1 << self.random.u32(0..8);
        }
        let copies = if self.chance(self.link.duplication) { 2 } else { 1 };
        for _ in 0..copies {
            let jitter = self.random.u64(0..=self.link.jitter.as_micros() as u64);
            let at = queued + self.link.delay + Duration::from_micros(jitter);
            self.count += 1;
            let size = match offload.segmentation {
                crate::wire::Segmentation::Tcp { size, .. } => size,
                crate::wire::Segmentation::None => 0,
            };
            let partial = offload.checksum == crate::wire::Checksum::Partial;
            self.flights.push(Reverse((at, self.count, from ^ 1, packet.clone(), partial, size)));
        }
    }

    /// When the packet has left the queue of its direction; `None` if it found no room.
    fn queue(&mut self, from: usize, len: u64) -> Option<Time> {
        if self.link.rate == 0 {
            return Some(self.now);
        }
        let busy = &mut self.busy_until[from & 1];
        let start = (*busy).max(self.now);
        let waiting = start.since(self.now).as_micros() as u64 * self.link.rate / 1_000_000;
        if waiting + len > self.link.queue {
            return None;
        }
        *busy = start + Duration::from_micros(len * 1_000_000 / self.link.rate);
        Some(*busy)
    }
}

fn offload_of(partial: bool, size: u16) -> Offload {
    use crate::wire::{Checksum, Segmentation};
    Offload {
        checksum: if partial { Checksum::Partial } else { Checksum::Full },
        segmentation: match size {
            0 => Segmentation::None,
            size => Segmentation::Tcp { size, ecn: false },
        },
    }
}

/// The client of a pair whose server is made of its SYN.
pub(super) fn client(config: Config, work: Work, random: &mut fastrand::Rng) -> Program {
    let tuple = if random.bool() {
        testing::tuple("10.0.0.1:4000", "10.0.0.2:80")
    } else {
        testing::tuple("[fd00::1]:4000", "[fd00::2]:80")
    };
    let opening = Opening { tuple, iss: first_number(random), timestamp_offset: random.u32(..) };
    Program::new(Connection::connect(opening, config).unwrap(), work)
}

/// What becomes a connection when a SYN comes.
pub(super) struct Listener {
    pub(super) config: Config,
    pub(super) work: Work,
    pub(super) opening: Opening,
}

/// Either end of a pair; the second one listens until a SYN comes.
pub(super) enum Host {
    Listening(Box<Listener>),
    Connected(Box<Program>),
}

impl Host {
    pub(super) fn program(&mut self) -> &mut Program {
        match self {
            Host::Connected(program) => program,
            Host::Listening(_) => panic!("it still listens"),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self, Host::Connected(program) if program.is_done())
    }
}

impl Stack for Host {
    fn receive(&mut self, now: Time, mut packet: Vec<u8>, offload: Offload) {
        if let Host::Listening(listener) = self {
            let len = packet.len();
            let Ok(parsed) = TcpPacket::parse(&mut packet, 0, len, offload) else { return };
            if !parsed.checksum_ok() {
                return;
            }
            let syn = Arrival::copied(&parsed);
            let opening = Opening { tuple: syn.tuple.reversed(), ..listener.opening };
            if let Ok(conn) = Connection::accept(now, &syn, opening, listener.config) {
                *self = Host::Connected(Box::new(Program::new(conn, listener.work)));
            }
        } else {
            self.program().receive(now, packet, offload);
        }
    }

    fn transmit(&mut self, now: Time, offload: bool) -> Vec<(Vec<u8>, Offload)> {
        match self {
            Host::Listening(_) => Vec::new(),
            Host::Connected(program) => program.transmit(now, offload),
        }
    }

    fn deadline(&self) -> Option<Time> {
        match self {
            Host::Listening(_) => None,
            Host::Connected(program) => program.deadline(),
        }
    }

    fn wake(&mut self, now: Time) {
        self.program().wake(now);
    }
}

/// Often such that the numbers wrap in the middle of the transfer.
fn first_number(random: &mut fastrand::Rng) -> Seq {
    Seq(if random.bool() { random.u32(..) } else { u32::MAX - random.u32(0..300_000) })
}

/// A client and a server over a link.
pub(super) fn pair(
    seed: u64,
    link: LinkConfig,
    client_side: (Config, Work),
    server_side: (Config, Work),
) -> World<Host> {
    let mut random = fastrand::Rng::with_seed(seed);
    let first = Host::Connected(Box::new(client(client_side.0, client_side.1, &mut random)));
    let opening = Opening {
        tuple: testing::tuple("10.0.0.2:80", "10.0.0.1:4000"), // The SYN says.
        iss: first_number(&mut random),
        timestamp_offset: random.u32(..),
    };
    let (config, work) = server_side;
    let second = Host::Listening(Box::new(Listener { config, work, opening }));
    World::new(random.u64(..), link, vec![first, second])
}
