//! Sockets over the endpoint, as a system has them: numbers, listeners, connections, and packets
//! that find their way to them. Nothing waits here: what a call would wait for is `EAGAIN`.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, IntoRawFd, RawFd},
};

use bytes::Bytes;
use libc::c_int;
use outlive_tcp::{
    endpoint::{
        Arrival, Config, Connection, End, Event, Opening, Read, State, Verdict, WriteError,
    },
    segment::reset_for,
    time::Time,
    wire::{
        Endpoint, Flags, FourTuple, Kind, Offload, TcpPacket, classify,
        icmp::{IcmpMessage, parse_icmp},
    },
};

use crate::settings::Settings;

/// A value of `errno`.
pub(crate) type Errno = c_int;

/// Initial sequence numbers need not be secret from a test.
const KEY: [u8; 16] = [0x5c; 16];

/// The first port for connections that were not bound to one.
const EPHEMERAL: u16 = 32_768;

/// The sockets of a process, and the network below them.
pub(crate) struct Stack {
    pub(crate) now: Time,
    settings: Settings,
    pub(crate) sockets: BTreeMap<RawFd, Socket>,
    pub(crate) links: BTreeMap<u64, Link>,
    next_link: u64,
    next_port: u16,
    /// Packets that have left, and when.
    sent: VecDeque<(Time, Vec<u8>)>,
}

/// What a descriptor stands for.
pub(crate) struct Socket {
    /// Keeps the number from being given to another file of the process: the tool closes it with the
    /// system's own call at the end of a script.
    placeholder: File,
    pub(crate) nonblocking: bool,
    /// Of the connections that will be made of it.
    pub(crate) config: Config,
    /// Closing resets the connection.
    pub(crate) reset_on_close: bool,
    pub(crate) role: Role,
}

/// What a socket has become.
pub(crate) enum Role {
    /// Nothing yet.
    Fresh { local: Option<SocketAddr> },
    /// Connections come to it.
    Listening { local: SocketAddr, ready: VecDeque<u64> },
    /// One connection, by its number.
    Connected(u64),
}

/// A connection, and what is to be told of it.
pub(crate) struct Link {
    pub(crate) conn: Connection,
    /// Until it is accepted, or has failed.
    listener: Option<RawFd>,
    /// To be told once.
    pub(crate) failure: Option<Errno>,
    /// A socket refers to it.
    owned: bool,
    /// Whoever reads finds the end of the stream where there is nothing else.
    reads_no_more: bool,
}

impl Stack {
    /// Nothing, at an arbitrary time.
    pub(crate) fn new(settings: Settings) -> Self {
        Stack {
            now: Time::from_micros(1_000_000_000),
            settings,
            sockets: BTreeMap::new(),
            links: BTreeMap::new(),
            next_link: 0,
            next_port: EPHEMERAL,
            sent: VecDeque::new(),
        }
    }

    // System calls.

    pub(crate) fn open(&mut self, kind: c_int) -> Result<RawFd, Errno> {
        if kind & 0xf != libc::SOCK_STREAM {
            return Err(libc::EPROTONOSUPPORT);
        }
        let nonblocking = kind & libc::SOCK_NONBLOCK != 0;
        self.insert(nonblocking, self.settings.config, Role::Fresh { local: None })
    }

    pub(crate) fn bind(&mut self, fd: RawFd, address: SocketAddr) -> Result<(), Errno> {
        match &mut self.socket_mut(fd)?.role {
            Role::Fresh { local } => {
                *local = Some(address);
                Ok(())
            }
            _ => Err(libc::EINVAL),
        }
    }

    pub(crate) fn listen(&mut self, fd: RawFd) -> Result<(), Errno> {
        let role = &mut self.socket_mut(fd)?.role;
        match role {
            Role::Fresh { local: Some(local) } => {
                *role = Role::Listening { local: *local, ready: VecDeque::new() };
                Ok(())
            }
            Role::Listening { .. } => Ok(()),
            _ => Err(libc::EINVAL),
        }
    }

    pub(crate) fn accept(&mut self, fd: RawFd) -> Result<(RawFd, SocketAddr), Errno> {
        let socket = self.socket_mut(fd)?;
        let config = socket.config;
        let Role::Listening { ready, .. } = &mut socket.role else { return Err(libc::EINVAL) };
        let id = ready.pop_front().ok_or(libc::EAGAIN)?;
        let link = self.links.get_mut(&id).ok_or(libc::ECONNABORTED)?;
        (link.listener, link.owned) = (None, true);
        let peer = link.conn.tuple().destination.into();
        Ok((self.insert(false, config, Role::Connected(id))?, peer))
    }

    /// Sends the SYN the first time, and gives `EINPROGRESS`. Then says what has become of it,
    /// `EALREADY` if nothing yet.
    pub(crate) fn connect(&mut self, fd: RawFd, to: SocketAddr) -> Result<(), Errno> {
        let socket = self.socket_ref(fd)?;
        let local = match socket.role {
            Role::Fresh { local } => local,
            Role::Connected(_) => return self.connect_again(fd),
            Role::Listening { .. } => return Err(libc::EISCONN),
        };
        let config = socket.config;
        let mut source = local.unwrap_or(SocketAddr::new(self.settings.local, 0));
        if source.port() == 0 {
            source.set_port(self.next_port);
            self.next_port += 1;
        }
        let tuple = FourTuple::new(source.into(), to.into());
        let conn = Connection::connect(self.opening(tuple), config).map_err(|_| libc::EINVAL)?;
        let id = self.link(conn, None);
        self.socket_mut(fd)?.role = Role::Connected(id);
        self.settle(id);
        Err(libc::EINPROGRESS)
    }

    fn connect_again(&mut self, fd: RawFd) -> Result<(), Errno> {
        let link = self.connected(fd)?;
        match (link.failure.take(), link.conn.state()) {
            (Some(errno), _) => Err(errno),
            (None, State::SynSent | State::SynReceived) => Err(libc::EALREADY),
            (None, State::Closed) => Err(libc::ECONNABORTED),
            (None, _) => Ok(()),
        }
    }

    /// As much of what has come as there is, `max` bytes at most. Nothing is the end of the stream.
    pub(crate) fn read(&mut self, fd: RawFd, max: usize) -> Result<Vec<u8>, Errno> {
        let link = self.connected(fd)?;
        if matches!(link.conn.state(), State::SynSent | State::SynReceived) {
            return Err(libc::EAGAIN);
        }
        let mut bytes = Vec::new();
        while bytes.len() < max {
            match link.conn.read(max - bytes.len()) {
                Read::Data(data) => bytes.extend_from_slice(&data),
                _ if !bytes.is_empty() => break,
                Read::End => return Ok(bytes),
                Read::Blocked if link.reads_no_more => return Ok(bytes),
                Read::Blocked => return Err(libc::EAGAIN),
                Read::Closed(_) => return link.failure.take().map_or(Ok(bytes), Err),
            }
        }
        self.settle_socket(fd)?;
        Ok(bytes)
    }

    /// How many of the bytes there is room for.
    pub(crate) fn write(&mut self, fd: RawFd, bytes: &[u8]) -> Result<usize, Errno> {
        let link = self.connected(fd)?;
        if let Some(errno) = link.failure.take() {
            return Err(errno);
        }
        if matches!(link.conn.state(), State::SynSent | State::SynReceived) {
            return Err(libc::EAGAIN);
        }
        match link.conn.write(Bytes::copy_from_slice(bytes)) {
            Ok(0) if !bytes.is_empty() => Err(libc::EAGAIN),
            Ok(count) => {
                self.settle_socket(fd)?;
                Ok(count)
            }
            Err(WriteError::Ended | WriteError::Closed) => Err(libc::EPIPE),
        }
    }

    pub(crate) fn shutdown(&mut self, fd: RawFd, how: c_int) -> Result<(), Errno> {
        let link = self.connected(fd).map_err(|_| libc::ENOTCONN)?;
        if link.conn.state() == State::Closed {
            return Err(libc::ENOTCONN);
        }
        link.reads_no_more |= how != libc::SHUT_WR;
        if how != libc::SHUT_RD {
            link.conn.shutdown();
        }
        self.settle_socket(fd)
    }

    pub(crate) fn close(&mut self, fd: RawFd) -> Result<(), Errno> {
        let socket = self.sockets.remove(&fd).ok_or(libc::EBADF)?;
        match socket.role {
            Role::Fresh { .. } => {}
            Role::Listening { .. } => {
                let orphans: Vec<u64> = self
                    .links
                    .iter()
                    .filter(|(_, link)| link.listener == Some(fd))
                    .map(|(id, _)| *id)
                    .collect();
                for id in orphans {
                    self.end(id, Connection::abort);
                }
            }
            Role::Connected(id) if socket.reset_on_close => self.end(id, Connection::abort),
            Role::Connected(id) => self.end(id, Connection::close),
        }
        Ok(())
    }

    fn end(&mut self, id: u64, how: fn(&mut Connection)) {
        if let Some(link) = self.links.get_mut(&id) {
            (link.owned, link.listener) = (false, None);
            how(&mut link.conn);
            self.settle(id);
        }
    }

    /// What `poll` would find.
    pub(crate) fn readiness(&self, fd: RawFd) -> i16 {
        let Some(socket) = self.sockets.get(&fd) else { return libc::POLLNVAL };
        let id = match &socket.role {
            Role::Fresh { .. } => return libc::POLLOUT | libc::POLLHUP,
            Role::Listening { ready, .. } if ready.is_empty() => return 0,
            Role::Listening { .. } => return libc::POLLIN | libc::POLLRDNORM,
            Role::Connected(id) => id,
        };
        let Some(link) = self.links.get(id) else { return libc::POLLNVAL };
        use State::*;
        let state = link.conn.state();
        let ended = matches!(state, CloseWait | LastAck | Closing | TimeWait | Closed);
        let over = matches!(state, LastAck | Closing | TimeWait | Closed);
        let writable =
            !matches!(state, SynSent | SynReceived) && (link.conn.write_capacity() > 0 || over);
        [
            (
                link.conn.unread() > 0 || ended || link.reads_no_more,
                libc::POLLIN | libc::POLLRDNORM,
            ),
            (ended, libc::POLLRDHUP),
            (writable, libc::POLLOUT | libc::POLLWRNORM),
            (over, libc::POLLHUP),
            (link.failure.is_some(), libc::POLLERR),
        ]
        .into_iter()
        .filter_map(|(holds, events)| holds.then_some(events))
        .fold(0, |all, events| all | events)
    }

    // The network.

    /// A packet has come.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        match classify(bytes) {
            Ok(Kind::Tcp) => self.receive_segment(&mut bytes.to_vec()),
            Ok(Kind::Icmp) => {
                if let Ok(IcmpMessage::Error(error)) = parse_icmp(bytes)
                    && let Some(id) = self.find(error.quoted)
                    && let Some(link) = self.links.get_mut(&id)
                {
                    link.conn.handle_icmp(self.now, &error);
                    self.settle(id);
                }
            }
            _ => {}
        }
    }

    fn receive_segment(&mut self, bytes: &mut [u8]) {
        let len = bytes.len();
        let Ok(packet) = TcpPacket::parse(bytes, 0, len, Offload::default()) else { return };
        if !packet.checksum_ok() {
            return;
        }
        let arrival = Arrival::copied(&packet);
        let known = self.find(arrival.tuple.reversed());
        if let Some(id) = known
            && let Some(link) = self.links.get_mut(&id)
        {
            let verdict = link.conn.handle_segment(self.now, &arrival);
            self.settle(id);
            let Verdict::Reopen { iss_after } = verdict else { return };
            if self.listener_at(arrival.tuple.destination).is_some() {
                self.links.remove(&id);
                let mut opening = self.opening(arrival.tuple.reversed());
                opening.iss = iss_after + (1 << 16);
                self.accept_syn(&arrival, opening);
            }
            return;
        }
        let opens = arrival.flags.contains(Flags::SYN) && arrival.ack.is_none();
        if opens && self.listener_at(arrival.tuple.destination).is_some() {
            self.accept_syn(&arrival, self.opening(arrival.tuple.reversed()));
        } else if let Some(reset) = reset_for(&packet) {
            let mut out = Vec::new();
            reset.emit(&mut out);
            self.sent.push_back((self.now, out));
        }
    }

    fn accept_syn(&mut self, syn: &Arrival, opening: Opening) {
        let Some(listener) = self.listener_at(syn.tuple.destination) else { return };
        let config = self.sockets[&listener].config;
        if let Ok(conn) = Connection::accept(self.now, syn, opening, config) {
            let id = self.link(conn, Some(listener));
            self.settle(id);
        }
    }

    /// The next packet that has left, and when.
    pub(crate) fn sent(&mut self) -> Option<(Time, Vec<u8>)> {
        self.sent.pop_front()
    }

    /// When something happens by itself.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.links.values().filter_map(|link| link.conn.poll_timeout()).min()
    }

    /// What is due at this time happens.
    pub(crate) fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
        let due: Vec<u64> = self
            .links
            .iter()
            .filter(|(_, link)| link.conn.poll_timeout().is_some_and(|due| due <= self.now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            if let Some(link) = self.links.get_mut(&id) {
                link.conn.handle_timeout(self.now);
                self.settle(id);
            }
        }
    }

    // Help.

    pub(crate) fn socket_mut(&mut self, fd: RawFd) -> Result<&mut Socket, Errno> {
        self.sockets.get_mut(&fd).ok_or(libc::EBADF)
    }

    pub(crate) fn socket_ref(&self, fd: RawFd) -> Result<&Socket, Errno> {
        self.sockets.get(&fd).ok_or(libc::EBADF)
    }

    /// The connection of a socket that has one.
    pub(crate) fn connected(&mut self, fd: RawFd) -> Result<&mut Link, Errno> {
        let Role::Connected(id) = self.socket_ref(fd)?.role else { return Err(libc::ENOTCONN) };
        self.links.get_mut(&id).ok_or(libc::ENOTCONN)
    }

    /// Lets the connection of a socket send what it wants to.
    pub(crate) fn settle_socket(&mut self, fd: RawFd) -> Result<(), Errno> {
        if let Role::Connected(id) = self.socket_ref(fd)?.role {
            self.settle(id);
        }
        Ok(())
    }

    fn settle(&mut self, id: u64) {
        let Some(link) = self.links.get_mut(&id) else { return };
        loop {
            while let Some(transmit) = link.conn.poll_transmit(self.now) {
                for segment in transmit.segments() {
                    let mut packet = Vec::new();
                    segment.emit(&mut packet);
                    self.sent.push_back((self.now, packet));
                }
            }
            match link.conn.poll_event() {
                Some(Event::Established) => {
                    if let Some(listener) = link.listener
                        && let Some(Socket { role: Role::Listening { ready, .. }, .. }) =
                            self.sockets.get_mut(&listener)
                    {
                        ready.push_back(id);
                    }
                }
                Some(Event::Closed(end)) => link.failure = errno_of(end),
                Some(_) => {}
                None => break,
            }
        }
        if link.conn.state() == State::Closed && !link.owned {
            if let Some(Socket { role: Role::Listening { ready, .. }, .. }) =
                link.listener.and_then(|fd| self.sockets.get_mut(&fd))
            {
                ready.retain(|waiting| *waiting != id);
            }
            self.links.remove(&id);
        }
    }

    fn insert(&mut self, nonblocking: bool, config: Config, role: Role) -> Result<RawFd, Errno> {
        let failed = |error: io::Error| error.raw_os_error().unwrap_or(libc::EIO);
        let placeholder = File::open("/dev/null").map_err(failed)?;
        let fd = placeholder.as_raw_fd();
        let socket = Socket { placeholder, nonblocking, config, reset_on_close: false, role };
        self.sockets.insert(fd, socket);
        Ok(fd)
    }

    fn link(&mut self, conn: Connection, listener: Option<RawFd>) -> u64 {
        let id = self.next_link;
        self.next_link += 1;
        let owned = listener.is_none();
        self.links.insert(id, Link { conn, listener, failure: None, owned, reads_no_more: false });
        id
    }

    fn opening(&self, tuple: FourTuple) -> Opening {
        Opening::keyed(&KEY, tuple, self.now.as_micros(), self.now)
    }

    /// The connection with those ends, as it sends.
    fn find(&self, tuple: FourTuple) -> Option<u64> {
        self.links.iter().find(|(_, link)| link.conn.tuple() == tuple).map(|(id, _)| *id)
    }

    fn listener_at(&self, end: Endpoint) -> Option<RawFd> {
        let listens = |socket: &Socket| match socket.role {
            Role::Listening { local, .. } => {
                local.port() == end.port && (local.ip().is_unspecified() || local.ip() == end.addr)
            }
            _ => false,
        };
        self.sockets.iter().find(|(_, socket)| listens(socket)).map(|(fd, _)| *fd)
    }
}

impl Drop for Stack {
    /// What is still open, the tool has closed itself.
    fn drop(&mut self) {
        for (_, socket) in std::mem::take(&mut self.sockets) {
            let _ = socket.placeholder.into_raw_fd();
        }
    }
}

/// What a system call says of a connection that has ended so.
fn errno_of(end: End) -> Option<Errno> {
    match end {
        End::Finished | End::Aborted => None,
        End::Refused => Some(libc::ECONNREFUSED),
        End::ResetByPeer | End::OutputDiverged => Some(libc::ECONNRESET),
        End::UserTimeout(_) | End::KeepAlive | End::ConnectTimeout => Some(libc::ETIMEDOUT),
    }
}
