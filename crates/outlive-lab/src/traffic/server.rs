//! The server of a lab: does what each connection's opening asks for.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use std::{io, thread};

use mio::net::TcpListener;
use socket2::{Domain, Protocol, Socket, Type};

use super::book::{Book, Failure, Side};
use super::conversation::{Conversation, Got, Io, Next};
use super::echo::Echo;
use super::engine::{Command, Engine, Remote};
use super::plan::Plan;
use super::protocol::{OPENING_LEN, Opening};
use super::requests::RequestServer;
use super::transfer::TransferEnd;
use crate::clock::{Clock, wait_until};
use crate::error::LabError;
use crate::host::Host;

/// Connections that wait to be accepted before the kernel refuses more.
const BACKLOG: i32 = 4096;

/// A thread on a host that accepts connections, over IPv4 and IPv6. Dropping it ends all of them.
pub struct Server {
    remote: Arc<Remote>,
}

impl Server {
    /// Listens on all addresses of `host` at `ports`.
    pub fn start(host: &Host, book: &Arc<Book>, ports: &[u16]) -> Result<Self, LabError> {
        let failed = |error| LabError::Traffic("starting a server", error);
        let listeners = host.enter(|| listen_all(ports))?.map_err(failed)?;
        let (engine, remote) = engine(listeners, book, host.clock()).map_err(failed)?;
        let remote = host.run_engine("server", engine, remote)?;
        Ok(Self { remote })
    }

    /// Starts a server where the calling process is.
    pub(crate) fn start_here(book: &Arc<Book>, clock: Clock, ports: &[u16]) -> io::Result<Self> {
        let (engine, remote) = engine(listen_all(ports)?, book, clock)?;
        thread::Builder::new().name("server".to_owned()).spawn(move || engine.run())?;
        Ok(Self { remote: Arc::new(remote) })
    }

    /// What commands the thread.
    pub(crate) fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.remote.open()
    }

    /// Waits at most `limit` until every connection is over, then stops; what was still open has
    /// failed: its client is gone, and the server was not told.
    pub fn finish(&self, limit: Duration) {
        wait_until(limit, || self.remote.open() == 0);
        self.remote.stop(Duration::from_secs(5));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.remote.send(Command::Stop);
    }
}

fn engine(
    listeners: Vec<TcpListener>,
    book: &Arc<Book>,
    clock: Clock,
) -> io::Result<(Engine, Remote)> {
    let accept = || -> Box<dyn Conversation> { Box::new(Greeting::default()) };
    Engine::new(listeners, accept, Side::Server, book.clone(), clock)
}

fn listen_all(ports: &[u16]) -> io::Result<Vec<TcpListener>> {
    ports.iter().map(|&port| listen(port)).collect()
}

/// A listener on all addresses, IPv4 included.
pub(crate) fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// Reads the opening, after an HTTP request head if there is one.
#[derive(Default)]
struct Greeting {
    bytes: Vec<u8>,
}

/// A request head longer than this is not one of ours.
const LONGEST_PREAMBLE: usize = 1024;

impl Greeting {
    /// Where the opening begins, as far as one can tell: what comes before it is a request head.
    fn start(&self) -> Option<usize> {
        if !self.bytes.starts_with(b"GET ") {
            return Some(0);
        }
        let end = self.bytes.windows(4).position(|window| window == b"\r\n\r\n");
        end.map(|at| at + 4)
    }

    /// Bytes to read before anything more can be said. Never reads beyond the opening.
    fn missing(&self) -> usize {
        match self.start() {
            _ if self.bytes.len() < 4 => 4 - self.bytes.len(),
            Some(start) => start + OPENING_LEN - self.bytes.len(),
            None => 1,
        }
    }
}

impl Conversation for Greeting {
    fn advance(&mut self, io: &mut Io<'_>) -> Result<Next, Failure> {
        loop {
            let missing = self.missing();
            if missing == 0 {
                break;
            }
            match io.read(missing)? {
                Got::Bytes(bytes) => self.bytes.extend_from_slice(&io.scratch[..bytes]),
                Got::Blocked => return Ok(Next::Wait(None)),
                Got::End => return Err(Failure::EarlyEnd),
            }
            if self.start().is_none() && self.bytes.len() > LONGEST_PREAMBLE {
                return Err(Failure::WrongData);
            }
        }
        let opening = self.bytes.last_chunk().and_then(Opening::decode);
        let Opening { id, group, seed, plan } = opening.ok_or(Failure::WrongData)?;
        let group = io.book.group_by_number(group).ok_or(Failure::WrongData)?;
        let conversation: Box<dyn Conversation> = match plan {
            Plan::Transfer(transfer) => {
                Box::new(TransferEnd::new(Side::Server, transfer, seed, io.now))
            }
            Plan::Requests { request, response, .. } => {
                Box::new(RequestServer::new(seed, request, response))
            }
            Plan::Interactive { .. } | Plan::Idle => Box::new(Echo::default()),
        };
        Ok(Next::Become(id, group, conversation))
    }
}
