//! A host: a `smoltcp` stack with applications that follow scripts.
//!
//! It takes packets and gives packets; what its applications read goes to the ledger. Links, neighbours and
//! faults are the world's.

use std::{cell::Cell, collections::VecDeque, net::IpAddr};

use outlive_tcp::{
    time::Time,
    wire::{Endpoint, Flags, FourTuple},
};
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp::{Socket, SocketBuffer, State},
    time::Instant,
    wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint},
};

use crate::{
    content::{self, FlowId, InstanceId},
    ledger::{Ledger, Rule},
    packet::Seen,
    script::{Pace, Speaker, Step},
    wire::Wire,
};

thread_local! {
    /// `smoltcp` asks a bare function for timestamps; each poll puts the host's clock here first.
    static CLOCK_MS: Cell<u32> = const { Cell::new(0) };
}

/// What kind of TCP a host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Bytes of its receive buffer, which also decides its window scale.
    pub receive_buffer: usize,
    /// It offers timestamps.
    pub timestamps: bool,
    /// Its MTU.
    pub mtu: usize,
}

impl Default for Stack {
    fn default() -> Self {
        Stack { receive_buffer: 65_535, timestamps: true, mtu: 1_500 }
    }
}

/// What a server does with each connection to a port.
#[derive(Clone, Debug)]
pub struct Service {
    /// The port.
    pub port: u16,
    /// What it does.
    pub script: Vec<Step>,
    /// How it reads.
    pub pace: Pace,
    /// Length of the PROXY header that it expects.
    pub prefix: usize,
}

#[derive(Debug)]
enum Who {
    Client(FlowId),
    Server(InstanceId),
}

#[derive(Debug)]
struct Conversation {
    who: Who,
    socket: SocketHandle,
    /// The tuple of what it sends.
    tuple: FourTuple,
    speaker: Speaker,
    /// Its socket is gone, or need not be looked at any more.
    over: bool,
}

/// A host.
pub(crate) struct Host {
    pub(crate) address: IpAddr,
    stack: Stack,
    interface: Interface,
    wires: Queues,
    sockets: SocketSet<'static>,
    conversations: Vec<Conversation>,
    services: Vec<Service>,
    /// Sockets that listen, with the index of their service.
    listening: Vec<(SocketHandle, usize)>,
    /// Added to the time to get the host's timestamps: no two hosts have the same clock.
    clock_offset: u32,
}

/// How many connections to a port may be in the making.
const BACKLOG: usize = 3;

impl Host {
    pub(crate) fn new(address: IpAddr, stack: Stack, seed: u64) -> Self {
        let mut wires = Queues { mtu: stack.mtu, ..Queues::default() };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut wires, Instant::ZERO);
        // Everything is on the link.
        interface.update_ip_addrs(|addresses| {
            let _ = addresses.push(IpCidr::new(IpAddress::from(address), 0));
        });
        Host {
            address,
            stack,
            interface,
            wires,
            sockets: SocketSet::new(Vec::new()),
            conversations: Vec::new(),
            services: Vec::new(),
            listening: Vec::new(),
            clock_offset: seed as u32,
        }
    }

    fn socket(&self) -> Socket<'static> {
        let buffer = |size| SocketBuffer::new(vec![0; size]);
        let mut socket = Socket::new(buffer(self.stack.receive_buffer), buffer(65_535));
        if self.stack.timestamps {
            socket.set_tsval_generator(Some(|| CLOCK_MS.get()));
        }
        socket.set_nagle_enabled(false);
        socket
    }

    /// Accepts connections from now on.
    pub(crate) fn serve(&mut self, service: Service) {
        self.services.push(service);
        for _ in 0..BACKLOG {
            self.listen(self.services.len() - 1);
        }
    }

    fn listen(&mut self, service: usize) {
        let mut socket = self.socket();
        socket.listen(self.services[service].port).expect("a port is not zero");
        self.listening.push((self.sockets.add(socket), service));
    }

    /// Begins a connection.
    pub(crate) fn connect(&mut self, flow: FlowId, tuple: FourTuple, script: &[Step], pace: Pace) {
        // An earlier connection from this port must be over; its socket gives way.
        for conversation in &mut self.conversations {
            if conversation.tuple == tuple && !conversation.over {
                conversation.over = true;
                self.sockets.remove(conversation.socket);
            }
        }
        let mut socket = self.socket();
        let remote = smoltcp_endpoint(tuple.destination);
        let connected =
            socket.connect(self.interface.context(), remote, smoltcp_endpoint(tuple.source));
        connected.expect("the socket is new, and the addresses are there");
        let socket = self.sockets.add(socket);
        let speaker = Speaker::new(script, pace, 0);
        self.conversations.push(Conversation {
            who: Who::Client(flow),
            socket,
            tuple,
            speaker,
            over: false,
        });
    }

    /// A packet arrives.
    pub(crate) fn receive(
        &mut self,
        now: Time,
        mut packet: Vec<u8>,
        ledger: &mut Ledger,
        wire: &Wire,
    ) {
        let seen = Seen::of(&mut packet);
        let reset = seen.filter(|seen| seen.has(Flags::RST));
        let hit = reset.as_ref().and_then(|seen| {
            let tuple = seen.tuple.reversed();
            self.conversations.iter().position(|c| !c.over && c.tuple == tuple)
        });
        let state = |host: &Self, i: usize| {
            host.sockets.get::<Socket<'_>>(host.conversations[i].socket).state()
        };
        let before = hit.map(|i| state(self, i));
        self.wires.incoming.push_back(packet);
        self.poll(now, ledger, wire);
        if let (Some(i), Some(seen), Some(before)) = (hit, reset, before)
            && !matches!(before, State::Closed | State::TimeWait)
            && (self.conversations[i].over || state(self, i) == State::Closed)
        {
            self.was_reset(i, &seen, before, ledger, wire);
        }
    }

    fn was_reset(&self, i: usize, seen: &Seen, before: State, ledger: &mut Ledger, wire: &Wire) {
        let flow = match self.conversations[i].who {
            Who::Client(flow) => Some(flow),
            Who::Server(instance) => {
                let instance = &ledger.instances[instance.0];
                wire.flow_of(instance.server, instance.own)
            }
        };
        // A server's connection that never served a client may be given up.
        let Some(flow) = flow else { return };
        // The other end has everything, and has forgotten the connection: so may this one.
        let forgotten = matches!(before, State::LastAck | State::Closing) && {
            let flow = &ledger.flows[flow.0];
            match self.conversations[i].who {
                Who::Client(_) => flow.server_done,
                Who::Server(_) => flow.client_done,
            }
        };
        if !forgotten && !ledger.flows[flow.0].exempt {
            ledger.violate(Rule::Reset, format!("flow {}: reset in {before:?}: {seen}", flow.0));
        }
    }

    /// Lets the stack and the applications do what there is to do.
    pub(crate) fn poll(&mut self, now: Time, ledger: &mut Ledger, wire: &Wire) {
        CLOCK_MS.set((now.as_millis() as u32).wrapping_add(self.clock_offset));
        let at = Instant::from_micros(now.as_micros() as i64);
        loop {
            self.interface.poll(at, &mut self.wires, &mut self.sockets);
            self.accept(ledger);
            if !self.talk(now, ledger, wire) {
                break;
            }
        }
    }

    fn accept(&mut self, ledger: &mut Ledger) {
        for i in (0..self.listening.len()).rev() {
            let (handle, service) = self.listening[i];
            let socket = self.sockets.get::<Socket<'_>>(handle);
            if matches!(socket.state(), State::Listen | State::SynReceived) {
                continue;
            }
            self.listening.swap_remove(i);
            self.listen(service);
            let socket = self.sockets.get::<Socket<'_>>(handle);
            let (Some(own), Some(peer)) = (socket.local_endpoint(), socket.remote_endpoint())
            else {
                continue;
            };
            let tuple = FourTuple::new(endpoint(own), endpoint(peer));
            let instance = ledger.begin_instance(tuple.source, tuple.destination);
            let service = &self.services[service];
            self.conversations.push(Conversation {
                who: Who::Server(instance),
                socket: handle,
                tuple,
                speaker: Speaker::new(&service.script, service.pace, service.prefix),
                over: false,
            });
        }
    }

    /// Lets every application read and write. Whether anything happened that the stack should know.
    fn talk(&mut self, now: Time, ledger: &mut Ledger, wire: &Wire) -> bool {
        let mut busy = false;
        for conversation in self.conversations.iter_mut().filter(|c| !c.over) {
            let socket = self.sockets.get_mut::<Socket<'_>>(conversation.socket);
            busy |= conversation.read(now, socket, ledger, wire);
            busy |= conversation.write(now, socket, ledger);
            if conversation.speaker.is_done()
                && matches!(socket.state(), State::Closed | State::TimeWait)
            {
                // TIME-WAIT stays with the stack; the application has nothing to do with it.
                conversation.finished(ledger, wire);
                if socket.state() == State::Closed {
                    conversation.over = true;
                    self.sockets.remove(conversation.socket);
                }
            }
        }
        busy
    }

    /// When something happens by itself.
    pub(crate) fn deadline(&mut self, now: Time) -> Option<Time> {
        let at = Instant::from_micros(now.as_micros() as i64);
        let stack = self.interface.poll_at(at, &self.sockets);
        let stack = stack.map(|at| Time::from_micros(at.total_micros().max(0) as u64));
        let talking = self.conversations.iter().filter(|c| !c.over);
        let scripts = talking.filter_map(|c| c.speaker.deadline(now)).min();
        [stack, scripts].into_iter().flatten().min()
    }

    /// The next packet to be sent.
    pub(crate) fn transmit(&mut self) -> Option<Vec<u8>> {
        self.wires.outgoing.pop_front()
    }

    /// How things stand, for a trace.
    pub(crate) fn describe(&self) -> Vec<String> {
        let talking = self.conversations.iter().filter(|c| !c.over);
        let line = |c: &Conversation| {
            let socket = self.sockets.get::<Socket<'_>>(c.socket);
            format!("{:?} {} {} {:?}", c.who, c.tuple, socket.state(), c.speaker)
        };
        talking.map(line).collect()
    }
}

impl Conversation {
    fn flow(&self, ledger: &Ledger, wire: &Wire) -> Option<FlowId> {
        match self.who {
            Who::Client(flow) => Some(flow),
            Who::Server(instance) => {
                let instance = &ledger.instances[instance.0];
                wire.flow_of(instance.server, instance.own)
            }
        }
    }

    fn read(
        &mut self,
        now: Time,
        socket: &mut Socket<'_>,
        ledger: &mut Ledger,
        wire: &Wire,
    ) -> bool {
        let mut buffer = [0; 4_096];
        let mut busy = false;
        loop {
            let room = self.speaker.may_read(now).min(buffer.len());
            if room == 0 && socket.recv_queue() > 0 {
                break;
            }
            match socket.recv_slice(&mut buffer[..room.max(1)]) {
                Ok(0) => break,
                Ok(count) => {
                    let at = self.speaker.received;
                    let bytes = &buffer[..count];
                    match (&self.who, self.flow(ledger, wire)) {
                        (Who::Client(flow), _) => ledger.client_read(*flow, at, bytes),
                        (Who::Server(instance), Some(flow)) => {
                            ledger.server_read(flow, *instance, at, bytes);
                        }
                        (Who::Server(instance), None) => ledger.violate(
                            Rule::Stream,
                            format!("server instance {} reads what nobody said", instance.0),
                        ),
                    }
                    self.speaker.has_read(now, count);
                    busy = true;
                }
                Err(smoltcp::socket::tcp::RecvError::Finished) => {
                    busy |= !std::mem::replace(&mut self.speaker.peer_closed, true);
                    break;
                }
                Err(_) => break,
            }
        }
        busy
    }

    fn write(&mut self, now: Time, socket: &mut Socket<'_>, ledger: &Ledger) -> bool {
        self.speaker.advance(now);
        let mut busy = false;
        while self.speaker.sent < self.speaker.to_send && socket.can_send() {
            let (from, left) = (self.speaker.sent, self.speaker.to_send - self.speaker.sent);
            let count = socket.send(|room| {
                let count = room.len().min(left);
                for (i, byte) in room[..count].iter_mut().enumerate() {
                    *byte = match self.who {
                        Who::Client(flow) => {
                            let preamble = &ledger.flows[flow.0].preamble;
                            content::client_byte(flow, preamble, from + i)
                        }
                        Who::Server(instance) => content::server_byte(instance, from + i),
                    };
                }
                (count, count)
            });
            let Ok(count) = count else { break };
            self.speaker.sent += count;
            busy = true;
        }
        let speaker = &mut self.speaker;
        let established = !matches!(socket.state(), State::SynSent | State::SynReceived);
        if speaker.wants_close && !speaker.closed && speaker.sent == speaker.to_send && established
        {
            socket.close();
            speaker.closed = true;
            busy = true;
        }
        busy
    }

    fn finished(&self, ledger: &mut Ledger, wire: &Wire) {
        let Some(id) = self.flow(ledger, wire) else { return };
        let flow = &mut ledger.flows[id.0];
        let was_finished = flow.is_finished();
        match self.who {
            Who::Client(_) => (flow.client_done, flow.client_said) = (true, self.speaker.sent),
            Who::Server(_) => (flow.server_done, flow.server_said) = (true, self.speaker.sent),
        }
        if flow.is_finished() && !was_finished {
            ledger.check_finished(id);
        }
    }
}

fn smoltcp_endpoint(end: Endpoint) -> IpEndpoint {
    IpEndpoint::new(IpAddress::from(end.addr), end.port)
}

fn endpoint(end: IpEndpoint) -> Endpoint {
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
