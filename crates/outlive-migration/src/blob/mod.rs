//! The state of a connection on its way to its target: what a balancer has captured, and a target infuses.
//!
//! A schema of its own, not a live structure written out: each field says who reads it at the other end. The layout
//! stands in `docs/migration.md`. It is compiled from the top of the stack downward: TCP, then IP, then what is
//! below them (the mapping of the flow), and what was received.

mod endpoint;
mod layout;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use outlive_tcp::{seq::Seq, wire::FourTuple};

pub use self::{
    endpoint::{NotCaptured, NotInfusible},
    layout::{BlobError, FIXED_LEN, MAX_DATA},
};
use crate::flow::FlowId;

/// A connection with a client, as one end of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Blob {
    /// TCP.
    pub tcp: TcpState,
    /// IP, with the ports: the ends as the *client's* packets have them. The client is the source, the virtual address and the listener's
    /// port are the destination, and what the target goes on as.
    pub ends: FourTuple,
    /// Below both: what the client's packets come as.
    pub mapping: Mapping,
    /// What was received from the client and is *not* acknowledged: from [`TcpState::rcv_acked`] on, without a gap. At most
    /// [`MAX_DATA`] bytes.
    ///
    /// A FIN is not part of it: the client's, if one has come, follows through the tunnel.
    pub data: Vec<u8>,
}

/// How the client's packets arrive at the target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// What stands in their port fields.
    pub flow: FlowId,
    /// Where they are sent to: the target's tunnel address of the IP version of the connection. A target to which it does not belong
    /// refuses.
    pub tunnel: IpAddr,
}

/// The TCP state of this end. Names as in RFC 9293, section 3.3.1; "we" is this end, first the balancer, then the target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpState {
    /// ISS: our initial sequence number.
    pub iss: Seq,
    /// SND.UNA. For the translation of a replayed handshake, and for a kernel's send queue.
    pub snd_una: Seq,
    /// SND.NXT: where we go on to send. Today always SND.UNA: a balancer has sent nothing but its SYN.
    pub snd_nxt: Seq,
    /// SND.WND in bytes, scaled: what the client takes beyond SND.UNA.
    pub snd_wnd: u32,
    /// The largest SND.WND there was; never below it.
    pub snd_wnd_max: u32,
    /// SND.WL1: segments from this sequence number on may change SND.WND.
    pub snd_wl1: Seq,
    /// SND.WL2.
    pub snd_wl2: Seq,
    /// IRS: the client's initial sequence number. For the replayed SYN.
    pub irs: Seq,
    /// What the client was sent as SEG.ACK last: its bytes from here on are not acknowledged. [`Blob::data`] begins here.
    pub rcv_acked: Seq,
    /// RCV.NXT: `rcv_acked` plus the length of [`Blob::data`].
    pub rcv_nxt: Seq,
    /// How many bytes beyond `rcv_acked` the client was allowed to send. A right edge that was shown must not be taken back.
    pub rcv_wnd: u32,
    /// MSS that the client announced (536 if it did not). Possibly rounded down.
    pub client_mss: u16,
    /// MSS that the client was shown.
    pub own_mss: u16,
    /// Window scales, if both ends offered the option (a scale of zero is not the same as none).
    pub scales: Option<Scales>,
    /// SACK was negotiated.
    pub sack: bool,
    /// Timestamps, if they were negotiated.
    pub timestamps: Option<TimestampState>,
}

/// The negotiated window scales (RFC 7323, section 2), at most 14.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scales {
    /// Snd.Wind.Shift: of the windows that the client announces.
    pub snd: u8,
    /// Rcv.Wind.Shift: of the windows that the client is shown.
    pub rcv: u8,
}

/// Timestamps (RFC 7323, sections 3 to 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimestampState {
    /// TS.Recent: the client's latest TSval. For TSecr, and for PAWS at the target.
    pub recent: u32,
    /// The latest TSval of ours that the client has echoed. It has not seen a later one.
    pub echoed: u32,
    /// Our clock when the state was captured, in milliseconds, at or after `echoed`: the target goes on from here, so that the client's
    /// PAWS is content.
    pub clock: u32,
}
