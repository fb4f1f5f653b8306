//! The states of a connection (RFC 9293, section 3.3.2).

/// The state of a connection. LISTEN is missing: a listener holds no connection, it makes one of a
/// SYN ([`Connection::accept`](super::Connection::accept)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum State {
    /// A SYN was sent.
    SynSent,
    /// A SYN was received, and a SYN-ACK sent.
    SynReceived,
    /// Data flows in both directions.
    Established,
    /// Closed by the program; the FIN is not acknowledged.
    FinWait1,
    /// Closed by the program; the FIN is acknowledged.
    FinWait2,
    /// Closed by the other end.
    CloseWait,
    /// Closed by both at once; the FIN is not acknowledged.
    Closing,
    /// Closed by the other end, then by the program; the FIN is not acknowledged.
    LastAck,
    /// Closed by both; the other end may not know yet.
    TimeWait,
    /// Over.
    Closed,
}

impl State {
    /// Both ends know each other's initial sequence number.
    pub fn is_synchronized(self) -> bool {
        !matches!(self, State::SynSent | State::SynReceived | State::Closed)
    }

    /// The other end's data is still taken.
    pub(super) fn receives(self) -> bool {
        matches!(self, State::Established | State::FinWait1 | State::FinWait2)
    }

    /// The program may still write, now or when the handshake is complete.
    pub(super) fn may_write(self) -> bool {
        use State::*;
        matches!(self, SynSent | SynReceived | Established | CloseWait)
    }

    /// The state after the other end's FIN was received in order.
    pub(super) fn after_fin_received(self) -> State {
        match self {
            State::Established => State::CloseWait,
            State::FinWait1 => State::Closing,
            State::FinWait2 => State::TimeWait,
            other => other,
        }
    }

    /// The state after the program has ended its stream.
    pub(super) fn after_shutdown(self) -> State {
        match self {
            State::Established => State::FinWait1,
            State::CloseWait => State::LastAck,
            other => other,
        }
    }

    /// The state after the other end has acknowledged our FIN.
    pub(super) fn after_fin_acknowledged(self) -> State {
        match self {
            State::FinWait1 => State::FinWait2,
            State::Closing => State::TimeWait,
            State::LastAck => State::Closed,
            other => other,
        }
    }
}
