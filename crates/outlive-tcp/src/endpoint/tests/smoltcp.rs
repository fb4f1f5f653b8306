//! Against `smoltcp`, a TCP that shares no code with this one, in both roles and under loss.
//!
//! Version 0.14 does not answer a repeated FIN whose data it has, and forgets its retransmission
//! timer when the data before its own FIN is acknowledged. So a run is over when both streams are
//! complete; what becomes of the FINs is not looked at.

use std::{cell::Cell, collections::VecDeque, time::Duration};

use smoltcp::{
    iface::{Config as InterfaceConfig, Interface, SocketHandle, SocketSet},
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp::{Socket, SocketBuffer, State as SmolState},
    time::Instant,
    wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint},
};

use super::{
    harness::ms,
    world::{Host, LinkConfig, Listener, Program, Stack, Work, World, byte_at},
};
use crate::{
    endpoint::{Acknowledge, Algorithm, Config, Connection, Opening},
    seq::Seq,
    testing,
    time::Time,
    wire::{Endpoint, Offload},
};

thread_local! {
    /// `smoltcp` asks a bare function for timestamps; each poll puts the host's clock here first.
    static CLOCK_MS: Cell<u32> = const { Cell::new(0) };
}

/// A host with one socket, and a program that sends so much and reads what comes.
struct Smol {
    interface: Interface,
    wires: Queues,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    work: Work,
    written: u64,
    read: u64,
    now: Time,
}

impl Smol {
    fn new(own: Endpoint, peer: Option<Endpoint>, timestamps: bool, work: Work) -> Self {
        let mut wires = Queues::default();
        let config = InterfaceConfig::new(HardwareAddress::Ip);
        let mut interface = Interface::new(config, &mut wires, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(IpAddress::from(own.addr), 0)).unwrap();
        });
        let buffer = || SocketBuffer::new(vec![0; 40_000]);
        let mut socket = Socket::new(buffer(), buffer());
        if timestamps {
            socket.set_tsval_generator(Some(|| CLOCK_MS.get()));
        }
        let at = |end: Endpoint| IpEndpoint::new(IpAddress::from(end.addr), end.port);
        match peer {
            Some(peer) => socket.connect(interface.context(), at(peer), at(own)).unwrap(),
            None => socket.listen(own.port).unwrap(),
        }
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        let now = Time::ZERO;
        Smol { interface, wires, sockets, handle, work, written: 0, read: 0, now }
    }

    fn act(&mut self) {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        while socket.can_recv() {
            let read = self.read;
            self.read += socket
                .recv(|data| {
                    for (i, byte) in data.iter().enumerate() {
                        assert_eq!(*byte, byte_at(self.work.streams.1, read + i as u64));
                    }
                    (data.len(), data.len() as u64)
                })
                .unwrap();
        }
        while self.written < self.work.send && socket.can_send() {
            let end = self.work.send.min(self.written + 5_000);
            let data: Vec<u8> =
                (self.written..end).map(|at| byte_at(self.work.streams.0, at)).collect();
            self.written += socket.send_slice(&data).unwrap() as u64;
        }
        let open = matches!(socket.state(), SmolState::Established | SmolState::CloseWait);
        if open && self.written == self.work.send {
            socket.close();
        }
    }

    fn poll(&mut self, now: Time) {
        CLOCK_MS.set(now.as_millis() as u32);
        self.now = now;
        let at = Instant::from_micros(now.as_micros() as i64);
        self.interface.poll(at, &mut self.wires, &mut self.sockets);
    }
}

impl Stack for Smol {
    fn receive(&mut self, now: Time, packet: Vec<u8>, _: Offload) {
        self.wires.incoming.push_back(packet);
        self.poll(now);
    }

    fn transmit(&mut self, now: Time, _: bool) -> Vec<(Vec<u8>, Offload)> {
        self.act();
        self.poll(now);
        self.wires.outgoing.drain(..).map(|packet| (packet, Offload::default())).collect()
    }

    fn deadline(&self) -> Option<Time> {
        None // See `Peer`: asking needs more than `&self`.
    }

    fn wake(&mut self, now: Time) {
        self.poll(now);
    }
}

/// Either of the two.
enum Peer {
    Ours(Box<Host>),
    Theirs(Box<Smol>, Option<Time>),
}

impl Peer {
    fn read(&mut self) -> u64 {
        match self {
            Peer::Ours(host) if matches!(**host, Host::Connected(_)) => host.program().read,
            Peer::Ours(_) => 0,
            Peer::Theirs(smol, _) => smol.read,
        }
    }
}

impl Stack for Peer {
    fn receive(&mut self, now: Time, packet: Vec<u8>, offload: Offload) {
        match self {
            Peer::Ours(host) => host.receive(now, packet, offload),
            Peer::Theirs(smol, _) => smol.receive(now, packet, offload),
        }
    }

    fn transmit(&mut self, now: Time, offload: bool) -> Vec<(Vec<u8>, Offload)> {
        match self {
            Peer::Ours(host) => host.transmit(now, offload),
            Peer::Theirs(smol, deadline) => {
                let packets = smol.transmit(now, offload);
                let at = Instant::from_micros(now.as_micros() as i64);
                let next = smol.interface.poll_at(at, &smol.sockets);
                *deadline = next.map(|at| Time::from_micros(at.total_micros() as u64));
                // It asks to be polled at once while it has something to say that may not be said.
                *deadline = deadline.map(|due| due.max(now + Duration::from_micros(100)));
                packets
            }
        }
    }

    fn deadline(&self) -> Option<Time> {
        match self {
            Peer::Ours(host) => host.deadline(),
            Peer::Theirs(_, deadline) => *deadline,
        }
    }

    fn wake(&mut self, now: Time) {
        match self {
            Peer::Ours(host) => host.wake(now),
            Peer::Theirs(smol, _) => smol.wake(now),
        }
    }
}

fn any_run(seed: u64) {
    println!("seed {seed}"); // Shown if it fails.
    let mut random = fastrand::Rng::with_seed(seed);
    let chance = |random: &mut fastrand::Rng, most: u32| {
        if random.bool() { random.u32(0..=most) } else { 0 }
    };
    let link = LinkConfig {
        delay: Duration::from_micros(random.u64(100..40_000)),
        jitter: Duration::from_micros(if random.bool() { random.u64(0..10_000) } else { 0 }),
        loss: chance(&mut random, 100),
        duplication: chance(&mut random, 50),
        corruption: chance(&mut random, 20),
        ..LinkConfig::default()
    };
    let config = Config {
        acknowledge: *random
            .choice(&[Acknowledge::Explicitly, Acknowledge::OnRead, Acknowledge::OnReceipt])
            .unwrap(),
        timestamps: random.bool(),
        sack: random.bool(),
        receive_buffer: random.u32(3_000..100_000),
        congestion: *random.choice(&[Algorithm::Cubic, Algorithm::NewReno]).unwrap(),
        user_timeout: Duration::from_secs(1_800),
        ..Config::default()
    };
    let work = |send, streams| Work { send, streams, ..Work::default() };
    let mut ours = work(random.u64(0..200_000), (1, 2));
    ours.commit = if random.bool() { ms(random.u64(0..200)) } else { Duration::ZERO };
    let theirs = work(random.u64(0..200_000), (2, 1));
    let (we_open, their_timestamps) = (random.bool(), random.bool());
    let tuple = testing::tuple("10.0.0.1:4000", "10.0.0.2:80");
    let opening = Opening { tuple, iss: Seq(random.u32(..)), timestamp_offset: random.u32(..) };
    let own = if we_open {
        Host::Connected(Box::new(Program::new(Connection::connect(opening, config).unwrap(), ours)))
    } else {
        Host::Listening(Box::new(Listener { config, work: ours, opening }))
    };
    let smol =
        Smol::new(tuple.destination, (!we_open).then_some(tuple.source), their_timestamps, theirs);
    let peers = vec![Peer::Ours(Box::new(own)), Peer::Theirs(Box::new(smol), None)];
    let mut world = World::new(random.u64(..), link, peers);
    let done = world.run(Duration::from_secs(3_600), |world| {
        world.ends[0].read() == theirs.send && world.ends[1].read() == ours.send
    });
    let reads = (world.ends[0].read(), world.ends[1].read());
    assert!(done, "at {:?}: {reads:?} of {:?}", world.now, (theirs.send, ours.send));
}

#[test]
fn streams_are_equal_against_smoltcp() {
    (0..100).for_each(any_run);
}

/// The device of a host: two queues.
#[derive(Debug, Default)]
struct Queues {
    incoming: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

struct Received(Vec<u8>);
struct Sending<'a>(&'a mut VecDeque<Vec<u8>>);

impl Device for Queues {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let packet = self.incoming.pop_front()?;
        Some((Received(packet), Sending(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1_500;
        capabilities
    }
}

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}
