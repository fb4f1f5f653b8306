//! As much of a balancer as a target sees: it answers clients, looks at their first data, and migrates. It loses nothing, for the links lose
//! nothing; and it does what it is told about each connection, also what a real one would not do.

use std::{
    collections::HashMap,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Registry, Token, Waker, unix::SourceFd};
use outlive_migration::{
    blob::{Blob, Mapping, Scales, TcpState, TimestampState},
    flow::{FlowCounter, FlowId},
    id::{Balancer as Node, Epoch, MigrationId},
    message::{Hello, Message, Speaker},
    tunnel::Tunnel,
};
use outlive_net::{
    netlink::{Netlink, Route, RouteTarget},
    tun::{BUFFER_LEN, Layer, Offload as TunOffload, Tun, VirtioNetHeader},
};
use outlive_node::{
    packets::{header_for, offload_of},
    state::{Channel, ChannelEvent, Introduction, Preamble, Side},
};
use outlive_proxy::config::NodeId;
use outlive_tcp::{
    segment::{DEFAULT_HOP_LIMIT, Segment},
    seq::Seq,
    wire::{
        Flags, FourTuple, Kind as PacketKind, Options, TcpPacket, Timestamps, classify,
        icmp::{self, IcmpMessage},
    },
};

use super::{CHANNEL, PATIENCE, Stage, TUNNEL_BALANCER, TUNNEL_TARGET, VIRTUAL};

const EPOCH: Epoch = Epoch(3);
const HEADROOM: usize = 64;
const START: usize = HEADROOM + VirtioNetHeader::LEN;
const SCALE: u8 = 8;
const DEVICE: Token = Token(0);
const SOCKET: Token = Token(1);
const WAKER: Token = Token(2);

/// What is done about a connection.
#[derive(Clone, Copy)]
pub(crate) struct Course {
    /// What the client is answered with; `None` leaves an option out.
    pub(crate) iss: Seq,
    pub(crate) clock: u32,
    pub(crate) mss: u16,
    pub(crate) scaling: bool,
    pub(crate) sack: bool,
    pub(crate) timestamps: bool,
    /// COMMIT is sent once it is prepared; else ABORT.
    pub(crate) commits: bool,
    /// Everything is said twice.
    pub(crate) twice: bool,
    /// Of tunnelled packets some are lost, some are doubled, and some overtake others.
    pub(crate) bad_link: bool,
}

impl Default for Course {
    fn default() -> Self {
        Course {
            iss: Seq(5_000),
            clock: 77_000,
            mss: 1_460,
            scaling: true,
            sack: true,
            timestamps: true,
            commits: true,
            twice: false,
            bad_link: false,
        }
    }
}

enum Phase {
    Answered { isn: Seq, options: Options },
    Migrating { id: MigrationId, flow: FlowId, queue: Vec<Vec<u8>> },
    Gone { id: MigrationId, flow: FlowId },
    Given,
}

/// A balancer that runs. Dropping it ends it.
pub(crate) struct Balancer {
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    course: Arc<Mutex<Course>>,
    commands: mpsc::Sender<Vec<u8>>,
    answers: mpsc::Receiver<Message>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Balancer {
    pub(crate) fn start(stage: &Stage) -> Self {
        let tun = stage.balancer.run(|| {
            let tun = Tun::open(Layer::Ip, "balancer0", TunOffload::TCP).unwrap();
            let netlink = Netlink::open().unwrap();
            netlink.set_up("balancer0", true).unwrap();
            for address in VIRTUAL.into_iter().chain(TUNNEL_BALANCER) {
                let address: std::net::IpAddr = address.parse().unwrap();
                let device = RouteTarget::Device("balancer0".to_owned());
                netlink.add_route(&Route::new(address.into(), device)).unwrap();
            }
            tun
        });
        let socket = stage.balancer.run(|| TcpStream::connect(CHANNEL)).unwrap().unwrap();
        socket.set_nonblocking(true).unwrap();
        let preamble = Preamble { node: NodeId::A, incarnation: 1 };
        let psk = stage.key.host("web1").psk();
        let channel = move || Channel::new(Side::Dialer, Introduction::Balancer(preamble), psk);
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).unwrap());
        let (stop, course) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (commands, todo) = mpsc::channel();
        let (said, answers) = mpsc::channel();
        let mut state = State {
            tun: tun.unwrap(),
            socket,
            channel: channel(),
            new_channel: Box::new(channel),
            course: Arc::clone(&course),
            begin: Instant::now(),
            counter: FlowCounter::new(Node::A, 7),
            last: None,
            led: 0,
            late: Vec::new(),
            connections: HashMap::new(),
            said,
            stop: stop.clone(),
            todo,
        };
        let thread = stage.balancer.spawn("balancer", move || state.run(poll)).unwrap();
        let balancer = Balancer { stop, waker, course, commands, answers, thread: Some(thread) };
        assert!(matches!(balancer.answer(), Message::Hello(_)));
        balancer
    }

    /// What is done about connections from now on.
    pub(crate) fn course(&self, course: Course) {
        *self.course.lock().unwrap() = course;
    }

    /// The next message of the target.
    pub(crate) fn answer(&self) -> Message {
        self.answers.recv_timeout(PATIENCE).expect("the target says something")
    }

    /// Sends an IP packet as it is.
    pub(crate) fn inject(&self, packet: Vec<u8>) {
        self.commands.send(packet).unwrap();
        self.waker.wake().unwrap();
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Of the IP version of a client.
fn tunnel(ends: &FourTuple) -> Tunnel {
    let version = usize::from(ends.source.addr.is_ipv6());
    Tunnel {
        balancer: TUNNEL_BALANCER[version].parse().unwrap(),
        target: TUNNEL_TARGET[version].parse().unwrap(),
    }
}

struct State {
    tun: Tun,
    socket: TcpStream,
    channel: Channel,
    new_channel: Box<dyn Fn() -> Channel + Send>,
    course: Arc<Mutex<Course>>,
    begin: Instant,
    counter: FlowCounter,
    last: Option<MigrationId>,
    /// Packets that were led to the target.
    led: u64,
    /// Those that are overtaken by the next.
    late: Vec<Vec<u8>>,
    connections: HashMap<FourTuple, Phase>,
    said: mpsc::Sender<Message>,
    stop: Arc<AtomicBool>,
    todo: mpsc::Receiver<Vec<u8>>,
}

impl State {
    fn run(&mut self, mut poll: Poll) {
        let registry = poll.registry().try_clone().unwrap();
        for (descriptor, token) in
            [(self.tun.as_raw_fd(), DEVICE), (self.socket.as_raw_fd(), SOCKET)]
        {
            registry.register(&mut SourceFd(&descriptor), token, Interest::READABLE).unwrap();
        }
        let mut events = Events::with_capacity(8);
        let mut buffer = vec![0; HEADROOM + BUFFER_LEN];
        while !self.stop.load(Ordering::Acquire) {
            while let Ok(len) = self.tun.recv(&mut buffer[HEADROOM..]) {
                self.packet(&mut buffer, HEADROOM + len);
            }
            while let Ok(packet) = self.todo.try_recv() {
                self.transmit(&packet);
            }
            if !self.listen() {
                self.connect_again(&registry);
            }
            // A lost wake-up does no harm.
            let _ = poll.poll(&mut events, Some(Duration::from_millis(100)));
        }
    }

    /// To the next agent.
    fn connect_again(&mut self, registry: &Registry) {
        let _ = registry.deregister(&mut SourceFd(&self.socket.as_raw_fd()));
        while !self.stop.load(Ordering::Acquire) {
            if let Ok(socket) = TcpStream::connect(CHANNEL) {
                socket.set_nonblocking(true).unwrap();
                let descriptor = socket.as_raw_fd();
                registry.register(&mut SourceFd(&descriptor), SOCKET, Interest::READABLE).unwrap();
                (self.socket, self.channel) = (socket, (self.new_channel)());
                self.listen();
                return;
            }
            std::thread::yield_now();
        }
    }

    /// False when the target has closed the channel.
    fn listen(&mut self) -> bool {
        let mut buffer = [0; 65_536];
        loop {
            self.flush();
            match self.socket.read(&mut buffer) {
                Ok(0) => return false,
                Ok(len) => self.channel.receive(&buffer[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
            let mut messages = Vec::new();
            let mut open = false;
            while let Some(event) = self.channel.poll().unwrap() {
                match event {
                    ChannelEvent::Message(bytes) => messages.push(Message::decode(bytes).unwrap()),
                    ChannelEvent::Open => open = true,
                    ChannelEvent::Greeted => {}
                }
            }
            if open {
                let speaker = Speaker::Balancer(Node::A);
                self.say(&Message::Hello(Hello { speaker, incarnation: 1, epoch: EPOCH }));
                self.say(&Message::Serve { epoch: EPOCH });
                // What the target was told before, if there was an agent before this one.
                let told: Vec<Message> = (self.connections.iter())
                    .filter_map(|(ends, phase)| match *phase {
                        Phase::Gone { id, flow } => {
                            Some(Message::Commit { epoch: EPOCH, id, flow, ends: *ends })
                        }
                        _ => None,
                    })
                    .collect();
                told.iter().for_each(|message| self.say(message));
            }
            for message in messages {
                self.obey(&message);
                let _ = self.said.send(message);
            }
        }
    }

    fn obey(&mut self, message: &Message) {
        let course = *self.course.lock().unwrap();
        match *message {
            Message::Prepared { epoch, id } => {
                let migrating = self.connections.iter().find_map(|(ends, phase)| match phase {
                    Phase::Migrating { id: other, flow, .. } if *other == id => {
                        Some((*ends, *flow))
                    }
                    _ => None,
                });
                let Some((ends, flow)) = migrating else { return };
                for _ in 0..1 + usize::from(course.twice) {
                    self.say(&match course.commits {
                        true => Message::Commit { epoch, id, flow, ends },
                        false => Message::Abort { epoch, id },
                    });
                }
                if !course.commits {
                    self.connections.insert(ends, Phase::Given);
                }
            }
            Message::Committed { id, .. } => {
                let ends = self.connections.iter().find_map(|(ends, phase)| {
                    matches!(phase, Phase::Migrating { id: other, .. } if *other == id)
                        .then_some(*ends)
                });
                let Some(ends) = ends else { return };
                let Some(Phase::Migrating { flow, queue, .. }) = self.connections.remove(&ends)
                else {
                    return;
                };
                self.connections.insert(ends, Phase::Gone { id, flow });
                for mut packet in queue {
                    let mut bytes = vec![0; START];
                    bytes.append(&mut packet);
                    let end = bytes.len();
                    self.packet(&mut bytes, end);
                }
            }
            Message::Ended { epoch, id, flow, .. } => {
                self.connections.retain(
                    |_, phase| !matches!(phase, Phase::Gone { flow: other, .. } if *other == flow),
                );
                self.say(&Message::Gone { epoch, id });
            }
            _ => {}
        }
    }

    fn packet(&mut self, buffer: &mut [u8], end: usize) {
        let header = VirtioNetHeader::parse(buffer[HEADROOM..].first_chunk().unwrap());
        if !matches!(classify(&buffer[START..end]), Ok(PacketKind::Tcp)) {
            return self.icmp(&buffer[START..end]);
        }
        let Ok(mut packet) = TcpPacket::parse(buffer, START, end, offload_of(header)) else {
            return;
        };
        let (ends, flags) = (packet.tuple(), packet.flags());
        if flags.contains(Flags::SYN) {
            return self.answer(&packet);
        }
        match self.connections.get_mut(&ends) {
            Some(Phase::Answered { .. }) if packet.payload_len() > 0 => self.migrate(&packet),
            Some(Phase::Migrating { queue, .. }) => queue.push(packet.bytes().to_vec()),
            Some(Phase::Gone { flow, .. }) => {
                tunnel(&ends).enter(*flow, &mut packet).unwrap();
                let (range, offload) = (packet.range(), packet.offload());
                let header = header_for(&buffer[range.clone()], offload).emit();
                buffer[HEADROOM..START].copy_from_slice(&header);
                let bad_link = self.course.lock().unwrap().bad_link;
                self.lead(buffer[HEADROOM..range.end].to_vec(), bad_link);
            }
            _ => {}
        }
    }

    /// To the target, on a link that is good or bad.
    fn lead(&mut self, packet: Vec<u8>, bad_link: bool) {
        self.led += 1;
        match self.led % 11 {
            3 if bad_link => return,
            5 if bad_link => self.tun.send(&packet).map(drop).unwrap(),
            7 if bad_link => {
                self.late.push(packet);
                return;
            }
            _ => {}
        }
        self.tun.send(&packet).unwrap();
        self.late.drain(..).for_each(|late| self.tun.send(&late).map(drop).unwrap());
    }

    /// An error about a packet that the target has sent is the target's.
    fn icmp(&mut self, packet: &[u8]) {
        let Ok(IcmpMessage::Error(error)) = icmp::parse_icmp(packet) else { return };
        let ends = error.quoted.reversed();
        let Some(Phase::Gone { flow, .. }) = self.connections.get(&ends) else { return };
        let mut out = Vec::new();
        icmp::readdress_error(packet, &tunnel(&ends).error_for_target(*flow), &mut out).unwrap();
        self.transmit(&out);
    }

    fn answer(&mut self, syn: &TcpPacket<'_>) {
        let course = *self.course.lock().unwrap();
        let theirs = syn.options();
        let options = Options {
            mss: Some(course.mss),
            window_scale: theirs.window_scale.filter(|_| course.scaling).map(|_| SCALE),
            sack_permitted: theirs.sack_permitted && course.sack,
            timestamps: theirs
                .timestamps
                .filter(|_| course.timestamps)
                .map(|it| Timestamps { value: self.clock(&course), echo: it.value }),
            ..Options::default()
        };
        let agreed = Options {
            mss: theirs.mss,
            window_scale: options.window_scale.and(theirs.window_scale),
            ..options
        };
        let mut out = Vec::new();
        Segment {
            tuple: syn.tuple().reversed(),
            seq: course.iss,
            ack: Some(syn.seq() + 1),
            flags: Flags::SYN,
            window: u16::MAX,
            options,
            payload: &[],
            hop_limit: DEFAULT_HOP_LIMIT,
        }
        .emit(&mut out);
        self.connections.insert(syn.tuple(), Phase::Answered { isn: syn.seq(), options: agreed });
        self.transmit(&out);
    }

    /// With the first data, which is not acknowledged.
    fn migrate(&mut self, packet: &TcpPacket<'_>) {
        let course = *self.course.lock().unwrap();
        let ends = packet.tuple();
        let Some(Phase::Answered { isn, options }) = self.connections.get(&ends) else { return };
        let (isn, options) = (*isn, *options);
        if packet.seq() != isn + 1 {
            return;
        }
        let most = packet.payload().len().min(outlive_migration::blob::MAX_DATA);
        let data = packet.payload()[..most].to_vec();
        let scale = options.window_scale.unwrap_or(0);
        let window = u32::from(packet.window()) << scale;
        let flow = self.counter.next(|_| false).unwrap();
        let id = MigrationId::next(Node::A, self.last, self.begin.elapsed().as_micros() as u64);
        self.last = Some(id);
        let version = usize::from(ends.source.addr.is_ipv6());
        let blob = Blob {
            tcp: TcpState {
                iss: course.iss,
                snd_una: course.iss + 1,
                snd_nxt: course.iss + 1,
                snd_wnd: window,
                snd_wnd_max: window,
                snd_wl1: packet.seq(),
                snd_wl2: course.iss + 1,
                irs: isn,
                rcv_acked: isn + 1,
                rcv_nxt: isn + 1 + data.len() as u32,
                rcv_wnd: u32::from(u16::MAX),
                client_mss: options.mss.unwrap_or(536),
                own_mss: course.mss,
                scales: options.window_scale.map(|snd| Scales { snd, rcv: SCALE }),
                sack: options.sack_permitted,
                timestamps: packet.timestamps().filter(|_| course.timestamps).map(|it| {
                    TimestampState { recent: it.value, echoed: it.echo, clock: self.clock(&course) }
                }),
            },
            ends,
            mapping: Mapping { flow, tunnel: TUNNEL_TARGET[version].parse().unwrap() },
            data,
        };
        // The packet itself goes through the tunnel later: the target has it already, and more than that may be in it.
        let queue = vec![packet.bytes().to_vec()];
        self.connections.insert(ends, Phase::Migrating { id, flow, queue });
        let blob = blob.encode().unwrap();
        for _ in 0..1 + usize::from(course.twice) {
            self.say(&Message::Prepare { epoch: EPOCH, id, blob: blob.clone() });
        }
        self.flush();
    }

    fn clock(&self, course: &Course) -> u32 {
        course.clock.wrapping_add(self.begin.elapsed().as_millis() as u32)
    }

    fn say(&mut self, message: &Message) {
        let pushed = self.channel.push_with(|out| {
            out.extend(message.encode());
            true
        });
        assert_eq!(pushed, Ok(true));
    }

    fn flush(&mut self) {
        self.channel.seal();
        while !self.channel.outbound().is_empty() {
            match self.socket.write(self.channel.outbound()) {
                Ok(len) => self.channel.sent(len),
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(_) => return,
            }
        }
    }

    fn transmit(&self, packet: &[u8]) {
        let bytes = [&[0; VirtioNetHeader::LEN], packet].concat();
        self.tun.send(&bytes).unwrap();
    }
}
