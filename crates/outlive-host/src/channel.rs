//! The connections with the nodes of the pair: accepted, authenticated, and nothing more.
//!
//! Only the configured nodes are listened to, and only once they have shown that they have the key and said which node they are. A
//! newer connection of a node replaces its older one.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    time::Duration,
};

use mio::{
    Interest, Registry, Token,
    net::{TcpListener, TcpStream},
};
use outlive_migration::{
    id::Balancer,
    message::{Message, Speaker},
};
use outlive_node::state::{Channel, ChannelEvent, Failure, Introduction, Side};
use outlive_tcp::time::Time;
use tracing::{info, warn};

/// Connections that may be under way: two nodes, their new ones, and a few that come to nothing.
const MOST: usize = 8;
/// Until a connection has said which node it is.
const PATIENCE: Duration = Duration::from_secs(2);
const BUFFER: usize = 64 * 1024;

/// All of them.
pub struct Channels {
    listener: TcpListener,
    /// The first is the listener's.
    first_token: usize,
    nodes: Vec<IpAddr>,
    introduction: Introduction,
    psk: [u8; 32],
    connections: HashMap<usize, Connection>,
    next: usize,
    acceptable: bool,
    buffer: Box<[u8]>,
    counts: Counts,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections from addresses that are not a node's.
    pub strangers: u64,
    /// Connections that failed: another key, another program, damaged.
    pub failures: u64,
    /// Messages received.
    pub received: u64,
    /// Messages sent.
    pub sent: u64,
    /// Messages that could not be sent, for lack of a connection or of room. They are asked for again.
    pub unsent: u64,
}

struct Connection {
    stream: TcpStream,
    channel: Channel,
    peer: SocketAddr,
    /// Known from its HELLO on.
    node: Option<Balancer>,
    deadline: Time,
    readable: bool,
    writable: bool,
}

impl Channels {
    /// Tokens that may be used, from the first on.
    pub const TOKENS: usize = 1 << 20;

    /// Listens.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn listen(
        address: SocketAddr,
        nodes: &[IpAddr],
        incarnation: u64,
        psk: [u8; 32],
        registry: &Registry,
        first_token: usize,
    ) -> io::Result<Self> {
        let mut listener = TcpListener::bind(address)?;
        registry.register(&mut listener, Token(first_token), Interest::READABLE)?;
        Ok(Channels {
            listener,
            first_token,
            nodes: nodes.to_vec(),
            introduction: Introduction::Target { incarnation },
            psk,
            connections: HashMap::new(),
            next: 0,
            acceptable: true,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            counts: Counts::default(),
        })
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether that node is connected.
    pub fn is_connected(&self, node: Balancer) -> bool {
        self.connections.values().any(|it| it.node == Some(node))
    }

    /// A socket is ready.
    pub fn handle_ready(&mut self, token: Token, readable: bool, writable: bool) {
        let Some(number) = token.0.checked_sub(self.first_token) else { return };
        if number == 0 {
            self.acceptable = true;
        } else if let Some(connection) = self.connections.get_mut(&number) {
            connection.readable |= readable;
            connection.writable |= writable;
        }
    }

    /// Reads everything that there is, and gives what the nodes say. `hello` is what is said first over a new connection.
    pub fn turn(
        &mut self,
        now: Time,
        registry: &Registry,
        hello: impl Fn() -> Message,
        mut take: impl FnMut(Balancer, Message),
    ) {
        while self.acceptable {
            match self.listener.accept() {
                Ok((stream, peer)) => self.accept(now, registry, stream, peer),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.acceptable = false;
                    if error.kind() != io::ErrorKind::WouldBlock {
                        warn!(%error, "a connection could not be accepted");
                    }
                }
            }
        }
        let mut numbers: Vec<usize> = self.connections.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            let Some(mut connection) = self.connections.remove(&number) else { continue };
            let read = self.read(&mut connection, now, &hello, &mut take);
            match read {
                Ok(()) => {
                    connection.write();
                    self.connections.insert(number, connection);
                }
                Err(failure) => self.close(registry, connection, failure),
            }
        }
    }

    /// Says something to a node, if it is connected.
    pub fn send(&mut self, to: Balancer, message: &Message) {
        let connection = self.connections.values_mut().find(|it| it.node == Some(to));
        let sent = connection.is_some_and(|connection| connection.push(message));
        if sent { self.counts.sent += 1 } else { self.counts.unsent += 1 }
    }

    /// Sends what was said, and gives up connections that have not said in time whose they are.
    pub fn flush(&mut self, now: Time, registry: &Registry) {
        self.connections.values_mut().for_each(Connection::write);
        let late =
            |connection: &Connection| connection.node.is_none() && connection.deadline <= now;
        let numbers: Vec<usize> =
            self.connections.iter().filter(|(_, it)| late(it)).map(|(number, _)| *number).collect();
        for number in numbers {
            if let Some(connection) = self.connections.remove(&number) {
                self.close(registry, connection, Failure::TimedOut);
            }
        }
    }

    /// When [`flush`](Self::flush) has something to give up.
    pub fn next_deadline(&self) -> Option<Time> {
        self.connections.values().filter(|it| it.node.is_none()).map(|it| it.deadline).min()
    }

    fn accept(&mut self, now: Time, registry: &Registry, mut stream: TcpStream, peer: SocketAddr) {
        if !self.nodes.contains(&peer.ip().to_canonical()) || self.connections.len() >= MOST {
            // Not worth a line in the log each: whoever wants to could fill it.
            self.counts.strangers += 1;
            return;
        }
        self.next = self.next % (Self::TOKENS - 1) + 1;
        let number = self.next;
        let both = Interest::READABLE | Interest::WRITABLE;
        let registered = stream
            .set_nodelay(true)
            .and_then(|()| registry.register(&mut stream, Token(self.first_token + number), both));
        if let Err(error) = registered {
            warn!(%error, "a connection could not be used");
            return;
        }
        let connection = Connection {
            stream,
            channel: Channel::new(Side::Listener, self.introduction, self.psk),
            peer,
            node: None,
            deadline: now + PATIENCE,
            readable: true,
            writable: true,
        };
        self.connections.insert(number, connection);
    }

    fn read(
        &mut self,
        connection: &mut Connection,
        now: Time,
        hello: &impl Fn() -> Message,
        take: &mut impl FnMut(Balancer, Message),
    ) -> Result<(), Failure> {
        while connection.readable {
            let len = match connection.stream.read(&mut self.buffer) {
                Ok(0) => return Err(Failure::Closed),
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    connection.readable = false;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::Io(error.kind())),
            };
            connection.channel.receive(&self.buffer[..len]);
            loop {
                let message = match connection.channel.poll()? {
                    None => break,
                    Some(ChannelEvent::Message(bytes)) => {
                        Some(Message::decode(bytes).map_err(|_| Failure::Disobeyed)?)
                    }
                    Some(ChannelEvent::Open) => None,
                    Some(ChannelEvent::Greeted) => continue,
                };
                match (message, connection.node) {
                    (None, _) => {
                        connection.push(&hello());
                        connection.deadline = now + PATIENCE;
                    }
                    (Some(message), Some(node)) => {
                        self.counts.received += 1;
                        take(node, message);
                    }
                    (Some(Message::Hello(said)), None) => {
                        let Speaker::Balancer(node) = said.speaker else {
                            return Err(Failure::Disobeyed);
                        };
                        // The older one is of no use any more: its node has made this one.
                        self.connections.retain(|_, other| other.node != Some(node));
                        connection.node = Some(node);
                        info!(?node, peer = %connection.peer, "a balancer is connected");
                        take(node, Message::Hello(said));
                    }
                    (Some(_), None) => return Err(Failure::Disobeyed),
                }
            }
        }
        Ok(())
    }

    fn close(&mut self, registry: &Registry, mut connection: Connection, failure: Failure) {
        // What says why to the other end.
        connection.write();
        let _ = registry.deregister(&mut connection.stream);
        match connection.node {
            Some(node) => {
                info!(?node, peer = %connection.peer, why = %failure, "a balancer's connection has ended");
            }
            None => {
                self.counts.failures += 1;
                info!(peer = %connection.peer, why = %failure, "a connection of a balancer came to nothing");
            }
        }
    }
}

impl Connection {
    fn push(&mut self, message: &Message) -> bool {
        let room = self.channel.has_room();
        room && self.channel.push_with(|out| {
            out.extend(message.encode());
            true
        }) == Ok(true)
    }

    fn write(&mut self) {
        self.channel.seal();
        while self.writable && !self.channel.outbound().is_empty() {
            match self.stream.write(self.channel.outbound()) {
                Ok(len) => self.channel.sent(len),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.writable = false;
                    // What is wrong shows when reading.
                    self.readable |= error.kind() != io::ErrorKind::WouldBlock;
                }
            }
        }
    }
}

impl std::fmt::Debug for Channels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channels")
            .field("listener", &self.listener.as_raw_fd())
            .finish_non_exhaustive()
    }
}
