//! Outlive's own endpoint as the TCP of a host, with a program that acknowledges what it has read only some time
//! later, as one does that has to write it down first.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use outlive_tcp::{
    endpoint::{Arrival, Config, Connection, Event, Opening, Read, State, Verdict},
    segment::reset_for,
    time::Time,
    wire::{Flags, FourTuple, Offload, TcpPacket, icmp::IcmpError},
};

use crate::{
    device,
    rng::mix,
    stack::{Ends, Phase, StackSetup},
};

/// What was read is safe so long afterwards.
const COMMIT: Duration = Duration::from_millis(3);
pub(crate) const SEND_BUFFER: u32 = 65_535;

/// All connections of a host.
#[derive(Debug)]
pub(crate) struct Endpoints {
    config: Config,
    key: [u8; 16],
    now: Time,
    ports: Vec<u16>,
    /// By the tuple of what they send.
    sockets: BTreeMap<FourTuple, Socket>,
    accepted: Vec<FourTuple>,
    out: VecDeque<Vec<u8>>,
}

/// A connection, and what its program has read and not acknowledged: so many bytes, or the end.
#[derive(Debug)]
struct Socket {
    connection: Connection,
    uncommitted: VecDeque<(Time, Option<u32>)>,
}

impl Socket {
    fn new(connection: Connection) -> Self {
        Socket { connection, uncommitted: VecDeque::new() }
    }

    fn commit(&mut self, now: Time) {
        while let Some((_, what)) = self.uncommitted.pop_front_if(|(at, _)| *at <= now) {
            // One that is over by now has nobody who would want it.
            let _ = match what {
                Some(count) => self.connection.acknowledge(count),
                None => self.connection.acknowledge_end(),
            };
        }
    }

    fn deadline(&self) -> Option<Time> {
        let commit = self.uncommitted.front().map(|(at, _)| *at);
        [self.connection.poll_timeout(), commit].into_iter().flatten().min()
    }
}

impl Endpoints {
    pub(crate) fn new(setup: StackSetup, seed: u64) -> Self {
        let buffer = setup.receive_buffer as u32;
        let config = Config {
            mtu: setup.mtu as u16,
            receive_buffer: buffer,
            withheld_limit: buffer,
            send_buffer: SEND_BUFFER,
            sack: setup.sack,
            timestamps: setup.timestamps,
            ..Config::default()
        };
        let mut key = [0; 16];
        key[..8].copy_from_slice(&mix(seed).to_be_bytes());
        Endpoints {
            config,
            key,
            now: Time::ZERO,
            ports: Vec::new(),
            sockets: BTreeMap::new(),
            accepted: Vec::new(),
            out: VecDeque::new(),
        }
    }

    fn opening(&self, now: Time, tuple: FourTuple) -> Opening {
        Opening::keyed(&self.key, tuple, now.as_micros(), now)
    }

    fn serves(&self, arrival: &Arrival) -> bool {
        let syn = arrival.flags.contains(Flags::SYN) && arrival.ack.is_none();
        syn && self.ports.contains(&arrival.tuple.destination.port)
    }

    fn open(&mut self, now: Time, syn: &Arrival, opening: Opening) {
        if let Ok(connection) = Connection::accept(now, syn, opening, self.config) {
            self.sockets.insert(opening.tuple, Socket::new(connection));
        }
    }

    fn connection(&self, tuple: &FourTuple) -> Option<&Connection> {
        self.sockets.get(tuple).map(|socket| &socket.connection)
    }
}

impl Ends for Endpoints {
    fn listen(&mut self, port: u16) {
        self.ports.push(port);
    }

    fn connect(&mut self, now: Time, tuple: FourTuple) {
        self.now = now;
        let connection = Connection::connect(self.opening(now, tuple), self.config);
        let connection = connection.expect("the ends are two hosts");
        self.sockets.insert(tuple, Socket::new(connection));
    }

    fn receive(&mut self, now: Time, mut packet: Vec<u8>) {
        self.now = now;
        let end = packet.len();
        let Ok(parsed) = TcpPacket::parse(&mut packet, 0, end, Offload::default()) else { return };
        if !parsed.checksum_ok() {
            return;
        }
        let arrival = Arrival::copied(&parsed);
        let tuple = arrival.tuple.reversed();
        let serves = self.serves(&arrival);
        // What one that is over has received can still be read.
        let living = self.sockets.get_mut(&tuple);
        let living = living.filter(|socket| socket.connection.state() != State::Closed);
        match living {
            Some(socket) => {
                let verdict = socket.connection.handle_segment(now, &arrival);
                if let Verdict::Reopen { iss_after } = verdict
                    && serves
                {
                    let opening = self.opening(now, tuple);
                    self.open(now, &arrival, Opening { iss: iss_after + 1, ..opening });
                }
            }
            None if serves => {
                let opening = self.opening(now, tuple);
                self.open(now, &arrival, opening);
            }
            None => {
                if let Some(reset) = reset_for(&parsed) {
                    let mut out = Vec::new();
                    reset.emit(&mut out);
                    self.out.push_back(out);
                }
            }
        }
    }

    fn poll(&mut self, now: Time) {
        self.now = now;
        for (tuple, socket) in &mut self.sockets {
            socket.commit(now);
            let connection = &mut socket.connection;
            if connection.poll_timeout().is_some_and(|at| at <= now) {
                connection.handle_timeout(now);
            }
            while let Some(event) = connection.poll_event() {
                if event == Event::Established && self.ports.contains(&tuple.source.port) {
                    self.accepted.push(*tuple);
                }
            }
            while let Some(transmit) = connection.poll_transmit(now) {
                let mut packet = Vec::new();
                let offload = transmit.emit(&mut packet);
                self.out.extend(device::transmit(packet, offload));
            }
        }
    }

    fn deadline(&self) -> Option<Time> {
        self.sockets.values().filter_map(Socket::deadline).min()
    }

    fn transmit(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front()
    }

    fn accepted(&mut self) -> Option<FourTuple> {
        self.accepted.pop()
    }

    fn phase(&self, tuple: &FourTuple) -> Phase {
        match self.connection(tuple).map(Connection::state) {
            None | Some(State::Closed) => Phase::Closed,
            Some(State::SynSent | State::SynReceived) => Phase::Opening,
            Some(State::TimeWait) => Phase::TimeWait,
            Some(State::LastAck | State::Closing) => Phase::LastWords,
            Some(_) => Phase::Open,
        }
    }

    fn unread(&self, tuple: &FourTuple) -> usize {
        self.connection(tuple).map_or(0, Connection::unread)
    }

    fn read(&mut self, tuple: &FourTuple, out: &mut [u8]) -> usize {
        let at = self.now + COMMIT;
        let Some(socket) = self.sockets.get_mut(tuple) else { return 0 };
        let Read::Data(bytes) = socket.connection.read(out.len()) else { return 0 };
        out[..bytes.len()].copy_from_slice(&bytes);
        socket.uncommitted.push_back((at, Some(bytes.len() as u32)));
        bytes.len()
    }

    fn has_ended(&mut self, tuple: &FourTuple) -> bool {
        let at = self.now + COMMIT;
        let Some(socket) = self.sockets.get_mut(tuple) else { return false };
        let ended = socket.connection.unread() == 0 && socket.connection.read(1) == Read::End;
        if ended {
            socket.uncommitted.push_back((at, None));
        }
        ended
    }

    fn room(&self, tuple: &FourTuple) -> usize {
        let open = |c: &&Connection| matches!(c.state(), State::Established | State::CloseWait);
        self.connection(tuple).filter(open).map_or(0, Connection::write_capacity)
    }

    fn write(&mut self, tuple: &FourTuple, bytes: &[u8]) {
        if let Some(socket) = self.sockets.get_mut(tuple) {
            let written = socket.connection.write(Bytes::copy_from_slice(bytes));
            debug_assert_eq!(written, Ok(bytes.len()), "there was room");
        }
    }

    fn close(&mut self, tuple: &FourTuple) {
        if let Some(socket) = self.sockets.get_mut(tuple) {
            socket.connection.shutdown();
        }
    }

    fn forget(&mut self, tuple: &FourTuple) {
        self.sockets.remove(tuple);
    }

    fn infuse(&mut self, now: Time, connection: Connection) {
        self.now = now;
        self.sockets.insert(connection.tuple(), Socket::new(connection));
    }

    fn receive_error(&mut self, now: Time, error: &IcmpError) {
        self.now = now;
        if let Some(socket) = self.sockets.get_mut(&error.quoted) {
            socket.connection.handle_icmp(now, error);
        }
    }
}
