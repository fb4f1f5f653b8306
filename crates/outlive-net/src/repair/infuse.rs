//! State into a socket.

use std::{
    io,
    net::TcpStream,
    os::fd::{AsFd, BorrowedFd},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{
    Connection, ReceiveHalf, RepairError, SendHalf, Step,
    options::{self, Queue, Windows},
};
use crate::Errno;

/// No piece that a queue is filled with is longer, so that the kernel need not find much memory in
/// one place.
const PIECE: usize = 32 * 1024;
const LARGEST_SCALE: u8 = 14;
/// The kernel takes no smaller limit than this (`TCP_MIN_MSS`).
const LEAST_MSS: u16 = 88;
const NO_LIMIT: u16 = 0;

/// A connection that is in the kernel and has not been told that it may speak. Dropping it ends it
/// silently, and so does the end of the process.
#[derive(Debug)]
pub struct Mute {
    socket: Socket,
    unsent: Vec<u8>,
}

/// Puts a connection into the kernel of the calling thread's network namespace. Sends nothing.
///
/// # Errors
/// Nothing is left behind.
pub fn infuse(connection: &Connection) -> Result<Mute, RepairError> {
    check(connection)?;
    let domain = Domain::for_address(connection.local);
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))
        .map_err(RepairError::at(Step::Socket))?;
    options::enter(&socket).map_err(RepairError::at(Step::Enter))?;
    bind(&socket, connection)?;
    set_sequences(&socket, connection)?;
    limit_segments(&socket, connection.send_mss.max(LEAST_MSS))?;
    connect(&socket, connection)?;
    // Only now: options belong to an established connection.
    let timestamps = connection.timestamp.is_some();
    limit_segments(&socket, NO_LIMIT)?;
    let (mss, scales, sack) = (connection.send_mss, connection.scales, connection.sack);
    options::set_negotiated(&socket, mss, scales, sack, timestamps)
        .map_err(RepairError::at(Step::Options))?;
    if let Some(timestamp) = connection.timestamp {
        options::set_timestamp(&socket, timestamp).map_err(RepairError::at(Step::Timestamp))?;
    }
    fill(&socket, Queue::Receive, &connection.receive.data, Step::ReceiveQueue)?;
    fill(&socket, Queue::Send, &connection.send.sent, Step::SendQueue)?;
    set_windows(&socket, &connection.send, &connection.receive)?;
    Ok(Mute { socket, unsent: connection.send.unsent.clone() })
}

impl Mute {
    /// A stream in repair mode, with everything that it had to send still in its queue.
    pub(super) fn of(stream: TcpStream) -> Self {
        Mute { socket: stream.into(), unsent: Vec::new() }
    }

    /// Makes it an ordinary socket (non-blocking), and sends what was never sent. Otherwise nothing
    /// is sent yet: what was received is acknowledged with whatever the program sends first, or
    /// when the other end repeats it.
    ///
    /// # Errors
    /// The connection is gone, silently.
    pub fn speak(self) -> Result<TcpStream, RepairError> {
        options::select_queue(&self.socket, Queue::None)
            .and_then(|()| options::leave_silently(&self.socket))
            .map_err(RepairError::at(Step::Leave))?;
        // Leaving has cleared it, and without it later listeners on the port are refused.
        self.socket.set_reuse_address(true).map_err(RepairError::at(Step::Leave))?;
        let mut rest = &self.unsent[..];
        while !rest.is_empty() {
            let sent = self.socket.send(rest).map_err(RepairError::at(Step::SendQueue))?;
            rest = &rest[sent..];
        }
        Ok(self.socket.into())
    }
}

impl AsFd for Mute {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What the kernel would accept silently, or refuse without saying why.
fn check(connection: &Connection) -> Result<(), RepairError> {
    let Connection { local, remote, send, receive, .. } = connection;
    let pending = receive.next.wrapping_sub(receive.acknowledged);
    let sound = [
        (local.is_ipv4() == remote.is_ipv4(), "the ends are of different IP versions"),
        (local.port() != 0 && remote.port() != 0, "an end has no port"),
        (connection.send_mss > 0, "the maximum segment size is zero"),
        (
            connection.scales.is_none_or(|it| it.send.max(it.receive) <= LARGEST_SCALE),
            "a window scale is above 14",
        ),
        (send.window <= send.largest_window, "the largest window is not the largest"),
        (pending < 1 << 31, "more is acknowledged than was received"),
        (pending <= receive.window, "more was received than the window allowed"),
    ];
    match sound.iter().find(|(sound, _)| !sound) {
        Some((_, what)) => Err(RepairError::Invalid(what)),
        None => Ok(()),
    }
}

fn bind(socket: &Socket, connection: &Connection) -> Result<(), RepairError> {
    socket.bind(&connection.local.into()).map_err(|error| match error.kind() {
        io::ErrorKind::AddrNotAvailable => RepairError::NotLocal(connection.local),
        io::ErrorKind::AddrInUse => RepairError::InUse(connection.local),
        _ => RepairError::at(Step::Bind)(error),
    })
}

/// Where the queues begin: filling them moves the numbers on.
fn set_sequences(socket: &Socket, connection: &Connection) -> Result<(), RepairError> {
    let Connection { send, receive, .. } = connection;
    let read = receive.next.wrapping_sub(receive.data.len() as u32);
    options::select_queue(socket, Queue::Send)
        .and_then(|()| options::set_sequence(socket, send.unacknowledged))
        .and_then(|()| options::select_queue(socket, Queue::Receive))
        .and_then(|()| options::set_sequence(socket, read))
        .map_err(RepairError::at(Step::Sequence))
}

/// The size of the segments that are sent is settled while connecting, and what is said later of the other end changes only what is
/// allowed: without this they would stay at 536 bytes for as long as the path's MTU does not change.
fn limit_segments(socket: &Socket, mss: u16) -> Result<(), RepairError> {
    socket.set_tcp_mss(mss.into()).map_err(RepairError::at(Step::Options))
}

fn connect(socket: &Socket, connection: &Connection) -> Result<(), RepairError> {
    socket.connect(&connection.remote.into()).map_err(|error| match Errno::of(&error).0 {
        libc::EADDRNOTAVAIL | libc::EADDRINUSE => RepairError::InUse(connection.local),
        libc::ENETUNREACH | libc::EHOSTUNREACH => RepairError::NoRoute(connection.remote),
        _ => RepairError::at(Step::Connect)(error),
    })
}

fn fill(socket: &Socket, queue: Queue, data: &[u8], step: Step) -> Result<(), RepairError> {
    options::select_queue(socket, queue).map_err(RepairError::at(step))?;
    let mut rest = data;
    let mut piece = PIECE;
    while !rest.is_empty() {
        match socket.send(&rest[..rest.len().min(piece)]) {
            Ok(taken) => rest = &rest[taken..],
            // Smaller pieces may still find memory.
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && piece > 1_024 => {
                piece /= 2;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(RepairError::NoMemory(step));
            }
            Err(error) => return Err(RepairError::at(step)(error)),
        }
    }
    Ok(())
}

fn set_windows(socket: &Socket, send: &SendHalf, receive: &ReceiveHalf) -> Result<(), RepairError> {
    let windows = Windows {
        snd_wl1: send.window_from,
        snd_wnd: send.window,
        max_window: send.largest_window,
        rcv_wnd: receive.window,
        rcv_wup: receive.acknowledged,
    };
    options::set_windows(socket, &windows).map_err(RepairError::at(Step::Window))
}
