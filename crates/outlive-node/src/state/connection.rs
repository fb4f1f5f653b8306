//! One TCP connection between the nodes: a socket and its [`Channel`].

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    time::Duration,
};

use mio::net::TcpStream;
use outlive_tcp::time::Time;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::{Channel, ChannelEvent, Failure, Side, preamble::Introduction};

/// A peer whose kernel does not even answer probes for this long is gone (heartbeats know long before; this
/// only gets rid of the socket).
const KEEPALIVE: Duration = Duration::from_secs(2);

/// A connection, open or on its way to it.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    pub(crate) channel: Channel,
    pub(super) side: Side,
    /// The socket may have something to read.
    pub(crate) readable: bool,
    /// The socket may take something.
    pub(crate) writable: bool,
    /// It must be open by then.
    pub(crate) deadline: Time,
    /// Sending failed; what was received before is still read.
    send_failure: Option<Failure>,
}

/// What reading brought, apart from messages.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Everything that is there was read.
    Drained,
    /// The budget was used up.
    More,
}

impl Connection {
    pub(crate) fn new(
        stream: TcpStream,
        side: Side,
        own: impl Into<Introduction>,
        psk: [u8; 32],
        deadline: Time,
    ) -> Self {
        Connection {
            stream,
            channel: Channel::new(side, own, psk),
            side,
            readable: true,
            writable: true,
            deadline,
            send_failure: None,
        }
    }

    /// Reads until nothing is left, or `budget` bytes; hands over what the bytes hold.
    ///
    /// # Errors
    /// The connection has ended; everything received before has been handed over.
    pub(crate) fn read(
        &mut self,
        buffer: &mut [u8],
        mut budget: usize,
        mut take: impl FnMut(ChannelEvent<'_>) -> Result<(), Failure>,
    ) -> Result<Progress, Failure> {
        while self.readable {
            match self.stream.read(buffer) {
                Ok(0) => return Err(self.send_failure.unwrap_or(Failure::Closed)),
                Ok(len) => {
                    self.channel.receive(&buffer[..len]);
                    while let Some(event) = self.channel.poll()? {
                        take(event)?;
                    }
                    budget = budget.saturating_sub(len);
                    if budget == 0 {
                        return Ok(Progress::More);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::of(&error)),
            }
        }
        self.send_failure.map_or(Ok(Progress::Drained), Err)
    }

    /// Sends what is outbound, as far as the socket takes it. A failure shows when reading.
    pub(crate) fn write(&mut self) {
        self.channel.seal();
        while self.writable && self.send_failure.is_none() && !self.channel.outbound().is_empty() {
            match self.stream.write(self.channel.outbound()) {
                Ok(len) => self.channel.sent(len),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.send_failure = Some(Failure::of(&error));
                    self.readable = true;
                }
            }
        }
    }
}

impl Failure {
    pub(crate) fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Failure::Refused,
            io::ErrorKind::TimedOut => Failure::TimedOut,
            kind => Failure::Io(kind),
        }
    }
}

/// Begins a connection from `local`'s address, with any port, to `peer`.
pub(crate) fn connect(
    local: SocketAddr,
    peer: SocketAddr,
    user_timeout: Duration,
) -> io::Result<TcpStream> {
    let socket =
        Socket::new(Domain::for_address(peer), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    let mut from = local;
    from.set_port(0);
    socket.bind(&from.into())?;
    tune(&socket, user_timeout)?;
    match socket.connect(&peer.into()) {
        Ok(()) => {}
        // EINPROGRESS has no kind of its own.
        Err(error) if error.raw_os_error() == Some(EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// Linux's number, the same on every architecture but MIPS, Alpha, PA-RISC and SPARC.
const EINPROGRESS: i32 = 115;

/// What both ends of a state connection set on their socket.
pub(super) fn tune(socket: &Socket, user_timeout: Duration) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(user_timeout))?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    socket.set_tcp_keepalive(&keepalive)
}
