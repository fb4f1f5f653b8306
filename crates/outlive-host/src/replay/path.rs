//! What is known of the path to the client.
//!
//! The local kernel cannot be told that the path is narrower than its route into the device: it looks for the route to put that down at without
//! regard to ports, and finds another one (seen on Linux 6.18). So its segments are cut on their way.

use outlive_tcp::{seq::Seq, wire::TcpPacket};

/// What every path takes, in bytes: what routers report beyond that is not believed. For IPv4 as Linux has it (`min_pmtu`), for IPv6
/// RFC 8200, section 5.
const LEAST: [u32; 2] = [552, 1_280];

/// All numbers are those that the client knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    /// The client has acknowledged what is before.
    acknowledged: Seq,
    /// Nothing has been sent from here on.
    sent: Seq,
    /// The longest packet that it takes, if that is known.
    mtu: Option<u16>,
}

impl Path {
    /// Where `next` is sent next.
    pub(super) fn new(next: Seq) -> Self {
        Path { acknowledged: next, sent: next, mtu: None }
    }

    /// The client has said that it has everything before `ack`.
    pub(super) fn acknowledged(&mut self, ack: Seq) {
        if ack.after(self.acknowledged) && ack.at_or_before(self.sent) {
            self.acknowledged = ack;
        }
    }

    /// A packet was sent that ends before `end`.
    pub(super) fn sent(&mut self, end: Seq) {
        self.sent = self.sent.later(end);
    }

    /// A router says that a packet with this sequence number was longer than `mtu`. Whether that is believed (RFC 5927, section 7.2).
    pub(super) fn too_big(&mut self, seq: Seq, mtu: u32, ipv6: bool) -> bool {
        let in_flight = seq.at_or_after(self.acknowledged) && seq.before(self.sent);
        let mtu = u16::try_from(mtu.max(LEAST[usize::from(ipv6)])).unwrap_or(u16::MAX);
        let narrower = self.mtu.is_none_or(|known| mtu < known);
        if in_flight && narrower {
            self.mtu = Some(mtu);
        }
        in_flight
    }

    /// Has a packet cut so that each piece fits, `added` bytes of options included.
    pub(super) fn fit(&self, packet: &mut TcpPacket<'_>, added: u16) {
        let Some(mtu) = self.mtu else { return };
        let headers = packet.headers_len() as u16 + added;
        packet.limit_segments(mtu.saturating_sub(headers));
    }
}
