//! Connections for servers that accept them: into the kernel's TCP, and over a Unix socket.

use std::{
    collections::VecDeque,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use outlive_accept::{Announcement, Courier, NotHandedOver};
use outlive_migration::{blob::Blob, id::MigrationId, message::Refusal};
use outlive_net::{
    diag,
    repair::{Connection, Mute, ReceiveHalf, RepairError, Scales, SendHalf, infuse},
};
use outlive_tcp::wire::FourTuple;
use socket2::SockRef;
use tracing::warn;

/// Puts a connection into the kernel, mute, if a server is there that takes it.
///
/// # Errors
/// Why not.
pub(crate) fn prepare(blob: &Blob, socket: &Path) -> Result<Mute, Refusal> {
    // Who is not there now will hardly be there in a millisecond.
    Courier::find(socket).map_err(|_| Refusal::NoServer)?;
    infuse(&connection_of(blob)).map_err(|error| {
        warn!(%error, ends = %blob.ends, "a connection could not be infused");
        match error {
            RepairError::InUse(_) => Refusal::ConnectionTaken,
            RepairError::NotLocal(_) => Refusal::NotHere,
            RepairError::NoMemory(_) => Refusal::Full,
            _ => Refusal::System,
        }
    })
}

/// The state of a connection as the kernel wants it.
fn connection_of(blob: &Blob) -> Connection {
    let tcp = &blob.tcp;
    Connection {
        local: blob.ends.destination.into(),
        remote: blob.ends.source.into(),
        send_mss: tcp.client_mss,
        scales: tcp.scales.map(|it| Scales { send: it.snd, receive: it.rcv }),
        sack: tcp.sack,
        timestamp: tcp.timestamps.map(|it| it.clock),
        send: SendHalf {
            // Nothing is on the way: what a balancer has sent was acknowledged, or there is nothing.
            unacknowledged: tcp.snd_nxt.0,
            sent: Vec::new(),
            unsent: Vec::new(),
            window: tcp.snd_wnd,
            largest_window: tcp.snd_wnd_max,
            window_from: tcp.snd_wl1.0,
        },
        receive: ReceiveHalf {
            next: tcp.rcv_nxt.0,
            data: blob.data.clone(),
            acknowledged: tcp.rcv_acked.0,
            window: tcp.rcv_wnd,
        },
    }
}

/// The ends of a connection as the kernel names them.
pub(crate) fn ends_of(ends: FourTuple) -> diag::Ends {
    diag::Ends { local: ends.destination.into(), remote: ends.source.into() }
}

/// Connections on their way to servers that are slow to accept.
#[derive(Debug, Default)]
pub(crate) struct HandOvers {
    waiting: VecDeque<HandOver>,
}

/// The connection is gone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lost;

#[derive(Debug)]
struct HandOver {
    id: MigrationId,
    stream: TcpStream,
    announcement: Announcement,
    socket: PathBuf,
}

impl HandOvers {
    /// Lets a connection speak and gives it to its server, now or as soon as the server has accepted others.
    ///
    /// # Errors
    /// It is lost; the client has been told so by a reset.
    pub(crate) fn begin(
        &mut self,
        id: MigrationId,
        mute: Mute,
        ends: FourTuple,
        socket: &Path,
    ) -> Result<(), Lost> {
        let stream = mute.speak().map_err(|error| {
            warn!(%error, %ends, "a connection is lost");
            Lost
        })?;
        let client: SocketAddr = ends.source.into();
        let announcement = Announcement { client, server: ends.destination.into() };
        let hand_over = HandOver { id, stream, announcement, socket: socket.to_owned() };
        match hand_over.attempt() {
            Ok(()) => Ok(()),
            Err(NotHandedOver::Busy) => {
                self.waiting.push_back(hand_over);
                Ok(())
            }
            Err(error) => {
                warn!(%error, %ends, "a connection is lost: its server has gone");
                hand_over.reset();
                Err(Lost)
            }
        }
    }

    /// Tries those that wait again. Gives those that are lost.
    pub(crate) fn again(&mut self) -> Vec<MigrationId> {
        let mut lost = Vec::new();
        self.waiting.retain(|hand_over| match hand_over.attempt() {
            Ok(()) => false,
            Err(NotHandedOver::Busy) => true,
            Err(error) => {
                warn!(%error, "a connection is lost: its server has gone");
                hand_over.reset();
                lost.push(hand_over.id);
                false
            }
        });
        lost
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}

impl HandOver {
    /// Has the client told, by a reset, when this is dropped.
    fn reset(&self) {
        // Without it the client is told by a FIN, if there is no data that nobody has read.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    fn attempt(&self) -> Result<(), NotHandedOver> {
        let courier = Courier::find(&self.socket).map_err(|_| NotHandedOver::Gone)?;
        courier.hand_over(&self.stream, &self.announcement)
    }
}
