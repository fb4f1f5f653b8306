//! What the kernel says of a TCP socket as a sender (`TCP_INFO`): its timer, and what is on the way.

use std::{io, os::fd::AsFd, time::Duration};

use crate::sys;

/// The sending half of a TCP socket, as it was when asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sending {
    /// The retransmission timer's span, doubled for each time it has run out in a row (RFC 6298).
    pub retransmission_timeout: Duration,
    /// How often in a row it has run out.
    pub backoff: u8,
    /// Segments that are not acknowledged.
    pub unacknowledged: u32,
    /// The smoothed round-trip time.
    pub round_trip: Duration,
    /// Segments sent again, since the connection began.
    pub retransmitted: u32,
}

impl Sending {
    /// Asks the kernel about a connected TCP socket.
    ///
    /// # Errors
    /// What the kernel says: it is not a TCP socket.
    pub fn of(socket: impl AsFd) -> io::Result<Self> {
        let info: libc::tcp_info = sys::socket_option(socket, libc::IPPROTO_TCP, libc::TCP_INFO)?;
        let micros = |micros: u32| Duration::from_micros(micros.into());
        Ok(Self {
            retransmission_timeout: micros(info.tcpi_rto),
            backoff: info.tcpi_backoff,
            unacknowledged: info.tcpi_unacked,
            round_trip: micros(info.tcpi_rtt),
            retransmitted: info.tcpi_total_retrans,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn a_fresh_connection_has_a_timer_and_nothing_on_the_way() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let sending = Sending::of(&stream).unwrap();
        assert!(sending.retransmission_timeout >= Duration::from_millis(5), "{sending:?}");
        assert_eq!((sending.backoff, sending.unacknowledged), (0, 0), "{sending:?}");
        assert!(Sending::of(UdpSocket::bind("127.0.0.1:0").unwrap()).is_err());
    }
}
