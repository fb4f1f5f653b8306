//! `smoltcp` as the TCP of a host: code that shares nothing with Outlive, and is stricter or laxer than Linux
//! here and there.
//!
//! Version 0.14 does not answer a repeated FIN whose data it has (the FIN is not looked at), and stops its
//! retransmission timer when the data before its own FIN is acknowledged; so no scenario with it may depend
//! on a lost FIN.

use std::{cell::Cell, collections::VecDeque, net::IpAddr};

use outlive_tcp::{
    time::Time,
    wire::{Endpoint, FourTuple},
};
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp::{RecvError, Socket, SocketBuffer, State},
    time::Instant,
    wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint},
};

use crate::stack::{Ends, Phase, StackSetup};

thread_local! {
    /// `smoltcp` asks a bare function for timestamps; each poll puts the host's clock here first.
    static CLOCK_MS: Cell<u32> = const { Cell::new(0) };
}

/// How many connections to a port may be in the making.
const BACKLOG: usize = 3;
const SEND_BUFFER: usize = 65_535;

/// The connections of a host.
pub(crate) struct Smoltcp {
    setup: StackSetup,
    interface: Interface,
    wires: Queues,
    sockets: SocketSet<'static>,
    known: Vec<(FourTuple, SocketHandle)>,
    /// Sockets that listen, with their port.
    listening: Vec<(SocketHandle, u16)>,
    accepted: Vec<FourTuple>,
    deadline: Option<Time>,
    clock_offset: u32,
}

impl Smoltcp {
    pub(crate) fn new(address: IpAddr, setup: StackSetup, seed: u64) -> Self {
        let mut wires = Queues { mtu: setup.mtu, ..Queues::default() };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut wires, Instant::ZERO);
        // Everything is on the link.
        interface.update_ip_addrs(|addresses| {
            let _ = addresses.push(IpCidr::new(IpAddress::from(address), 0));
        });
        Smoltcp {
            setup,
            interface,
            wires,
            sockets: SocketSet::new(Vec::new()),
            known: Vec::new(),
            listening: Vec::new(),
            accepted: Vec::new(),
            deadline: None,
            clock_offset: seed as u32,
        }
    }

    fn new_socket(&self) -> Socket<'static> {
        let buffer = |size| SocketBuffer::new(vec![0; size]);
        let mut socket = Socket::new(buffer(self.setup.receive_buffer), buffer(SEND_BUFFER));
        if self.setup.timestamps {
            socket.set_tsval_generator(Some(|| CLOCK_MS.get()));
        }
        socket.set_nagle_enabled(false);
        socket
    }

    fn add_listener(&mut self, port: u16) {
        let mut socket = self.new_socket();
        socket.listen(port).expect("a port is not zero");
        self.listening.push((self.sockets.add(socket), port));
    }

    fn handle(&self, tuple: &FourTuple) -> Option<SocketHandle> {
        self.known.iter().rfind(|(t, _)| t == tuple).map(|(_, handle)| *handle)
    }

    fn socket(&self, tuple: &FourTuple) -> Option<&Socket<'static>> {
        Some(self.sockets.get(self.handle(tuple)?))
    }

    fn socket_mut(&mut self, tuple: &FourTuple) -> Option<&mut Socket<'static>> {
        Some(self.sockets.get_mut(self.handle(tuple)?))
    }

    /// Sockets that listen no more are connections; others take their place.
    fn accept(&mut self) {
        for i in (0..self.listening.len()).rev() {
            let (handle, port) = self.listening[i];
            let socket = self.sockets.get::<Socket<'_>>(handle);
            if matches!(socket.state(), State::Listen | State::SynReceived) {
                continue;
            }
            let ends = (socket.local_endpoint(), socket.remote_endpoint());
            self.listening.swap_remove(i);
            self.add_listener(port);
            if let (Some(own), Some(peer)) = ends {
                let tuple = FourTuple::new(from_smoltcp(own), from_smoltcp(peer));
                self.known.push((tuple, handle));
                self.accepted.push(tuple);
            }
        }
    }
}

impl Ends for Smoltcp {
    fn listen(&mut self, port: u16) {
        (0..BACKLOG).for_each(|_| self.add_listener(port));
    }

    fn connect(&mut self, _now: Time, tuple: FourTuple) {
        let mut socket = self.new_socket();
        let (own, remote) = (to_smoltcp(tuple.source), to_smoltcp(tuple.destination));
        let connected = socket.connect(self.interface.context(), remote, own);
        connected.expect("the socket is new, and the addresses are there");
        let handle = self.sockets.add(socket);
        self.known.push((tuple, handle));
    }

    fn receive(&mut self, now: Time, packet: Vec<u8>) {
        self.wires.incoming.push_back(packet);
        self.poll(now);
    }

    fn poll(&mut self, now: Time) {
        CLOCK_MS.set((now.as_millis() as u32).wrapping_add(self.clock_offset));
        let at = Instant::from_micros(now.as_micros() as i64);
        self.interface.poll(at, &mut self.wires, &mut self.sockets);
        self.accept();
        let next = self.interface.poll_at(at, &self.sockets);
        self.deadline = next.map(|at| Time::from_micros(at.total_micros().max(0) as u64));
    }

    fn deadline(&self) -> Option<Time> {
        self.deadline
    }

    fn transmit(&mut self) -> Option<Vec<u8>> {
        self.wires.outgoing.pop_front()
    }

    fn accepted(&mut self) -> Option<FourTuple> {
        self.accepted.pop()
    }

    fn phase(&self, tuple: &FourTuple) -> Phase {
        match self.socket(tuple).map(Socket::state) {
            None | Some(State::Closed) => Phase::Closed,
            Some(State::Listen | State::SynSent | State::SynReceived) => Phase::Opening,
            Some(State::TimeWait) => Phase::TimeWait,
            Some(State::LastAck | State::Closing) => Phase::LastWords,
            Some(_) => Phase::Open,
        }
    }

    fn unread(&self, tuple: &FourTuple) -> usize {
        self.socket(tuple).map_or(0, Socket::recv_queue)
    }

    fn read(&mut self, tuple: &FourTuple, out: &mut [u8]) -> usize {
        self.socket_mut(tuple).and_then(|s| s.recv_slice(out).ok()).unwrap_or(0)
    }

    fn has_ended(&mut self, tuple: &FourTuple) -> bool {
        self.socket_mut(tuple).is_some_and(|s| s.recv_slice(&mut []) == Err(RecvError::Finished))
    }

    fn room(&self, tuple: &FourTuple) -> usize {
        self.socket(tuple).filter(|s| s.can_send()).map_or(0, |s| SEND_BUFFER - s.send_queue())
    }

    fn write(&mut self, tuple: &FourTuple, bytes: &[u8]) {
        if let Some(socket) = self.socket_mut(tuple) {
            let written = socket.send_slice(bytes);
            debug_assert_eq!(written, Ok(bytes.len()), "there was room");
        }
    }

    fn close(&mut self, tuple: &FourTuple) {
        if let Some(socket) = self.socket_mut(tuple) {
            socket.close();
        }
    }

    fn forget(&mut self, tuple: &FourTuple) {
        if let Some(handle) = self.handle(tuple) {
            self.known.retain(|(_, h)| *h != handle);
            self.sockets.remove(handle);
        }
    }
}

fn to_smoltcp(end: Endpoint) -> IpEndpoint {
    IpEndpoint::new(IpAddress::from(end.addr), end.port)
}

fn from_smoltcp(end: IpEndpoint) -> Endpoint {
    Endpoint::new(IpAddr::from(end.addr), end.port)
}

/// The device of a host: two queues.
#[derive(Debug, Default)]
struct Queues {
    mtu: usize,
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
        capabilities.max_transmission_unit = self.mtu;
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
