//! A connection as any TCP knows it, for moving it between implementations.
//!
//! What is needed to go on, and nothing that only this endpoint has: so a connection can come from
//! whoever answered its client so far, and go on to a kernel. It stands still while it moves:
//! nothing of its own is in flight, and what was received and is not acknowledged is with its
//! sender, whether it goes along or not.

use super::{Contents, layout::Snapshot, restore::RestoreOptions};
use crate::{
    endpoint::{
        config::Config, connection::Connection, negotiation::Negotiated, outcome::Event,
        state::State,
    },
    seq::Seq,
    time::Time,
    wire::FourTuple,
};

/// An established connection that stands still. "This end" is the one that moves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Portable {
    /// The two ends, as packets sent have them.
    pub tuple: FourTuple,
    /// What was agreed on in the handshake.
    pub negotiated: Negotiated,
    /// TSval of this end when the state was captured: nothing that it has sent is later.
    pub timestamp: u32,
    /// TS.Recent: the other end's latest TSval.
    pub timestamp_recent: u32,
    /// ISS.
    pub iss: Seq,
    /// SND.UNA and SND.NXT: everything before was acknowledged, nothing from there on was sent.
    pub sent: Seq,
    /// SND.WND, in bytes.
    pub window: u32,
    /// The largest SND.WND there was.
    pub largest_window: u32,
    /// SND.WL1.
    pub wl1: Seq,
    /// SND.WL2.
    pub wl2: Seq,
    /// IRS.
    pub irs: Seq,
    /// What the other end was sent as SEG.ACK last.
    pub acknowledged: Seq,
    /// How many bytes beyond that the other end may send.
    pub receive_window: u32,
    /// Received from `acknowledged` on, without a gap. Empty is always right: the other end repeats
    /// it.
    pub received: Vec<u8>,
}

/// Why a connection cannot move now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotPortable {
    /// Its handshake is not complete, or one of its directions has ended. (The end of the other
    /// end's stream does not count before it is acknowledged: it will be repeated.)
    #[error("the connection is not established in both directions")]
    NotEstablished,
    /// Something was written, and is not acknowledged.
    #[error("something of its own is in flight")]
    InFlight,
    /// Something was acknowledged, and the program has not read it.
    #[error("something that was acknowledged is unread")]
    Unread,
    /// It does ECN, and whoever goes on with it would not echo.
    #[error("it uses explicit congestion notification")]
    Ecn,
}

impl Connection {
    /// The state of the connection for whatever TCP goes on with it. The connection is not changed;
    /// it must not speak any more once another does.
    ///
    /// What the program has read and not acknowledged counts as not received: with whoever goes on,
    /// it comes again.
    ///
    /// # Errors
    /// It does not stand still, or uses what cannot be carried over.
    pub fn port(&self, now: Time) -> Result<Portable, NotPortable> {
        if !self.state.is_synchronized() {
            return Err(NotPortable::NotEstablished);
        }
        let committed = self.snapshot(now, Contents::COMMITTED);
        let everything = self.snapshot(now, Contents::EVERYTHING);
        if committed.state != State::Established || committed.output_end.is_some() {
            return Err(NotPortable::NotEstablished);
        }
        let standing = committed.una == committed.nxt && committed.nxt == committed.ack_limit;
        if !standing || committed.skip > 0 {
            return Err(NotPortable::InFlight);
        }
        if !committed.input.is_empty() {
            return Err(NotPortable::Unread);
        }
        if committed.agreed.ecn {
            return Err(NotPortable::Ecn);
        }
        let Snapshot { acknowledged, receive_edge, .. } = committed;
        let ahead = receive_edge.after(acknowledged);
        Ok(Portable {
            tuple: committed.tuple,
            negotiated: committed.agreed,
            timestamp: committed.timestamp,
            timestamp_recent: committed.timestamp_recent,
            iss: committed.iss,
            sent: committed.nxt,
            window: committed.send_window,
            largest_window: committed.largest_window,
            wl1: committed.wl1,
            wl2: committed.wl2,
            irs: committed.irs,
            acknowledged,
            receive_window: if ahead { receive_edge.distance(acknowledged) } else { 0 },
            received: if everything.read == acknowledged { everything.input } else { Vec::new() },
        })
    }

    /// Goes on with a connection that another TCP has carried. Nothing is sent before
    /// [`poll_transmit`](Self::poll_transmit) is asked: to keep it mute, do not ask. What was
    /// received can be read at once. `None` if the state contradicts itself.
    pub fn from_portable(now: Time, state: &Portable, config: Config) -> Option<Self> {
        let &Portable { sent, acknowledged, .. } = state;
        let snapshot = Snapshot {
            tuple: state.tuple,
            state: State::Established,
            agreed: state.negotiated,
            timestamp: state.timestamp,
            timestamp_recent: state.timestamp_recent,
            path_mtu: config.mtu,
            iss: state.iss,
            una: sent,
            nxt: sent,
            ack_limit: sent,
            send_edge: sent + state.window,
            send_window: state.window,
            largest_window: state.largest_window,
            wl1: state.wl1,
            wl2: state.wl2,
            slow_start_threshold: u32::MAX,
            irs: state.irs,
            acknowledged,
            read: acknowledged,
            receive_edge: acknowledged + state.receive_window,
            input: state.received.clone(),
            ..Snapshot::default()
        };
        let fits = state.received.len() as u64 <= u64::from(state.receive_window);
        if !snapshot.is_sound() || !fits {
            return None;
        }
        let options = RestoreOptions::default();
        let mut connection = Self::from_snapshot(now, snapshot, config, &options);
        connection.sender.sent_nothing_beyond();
        // Nothing is in flight of which the other end would have to be asked.
        (connection.probe_due, connection.awaits_report) = (false, false);
        if connection.unread() > 0 {
            connection.tell(Event::Readable);
        }
        Some(connection)
    }
}
