//! How far a connection is on its way to its end. All numbers are the server's.

use outlive_migration::message::HowEnded;
use outlive_tcp::{
    seq::Seq,
    time::Time,
    wire::{Flags, TcpPacket},
};

/// What was seen of the end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Closing {
    /// What the server has acknowledged last: a reset of the client's that it believes has this number.
    acknowledged: Option<Seq>,
    client: Half,
    server: Half,
    ended: Option<(HowEnded, Time)>,
}

/// One direction.
#[derive(Clone, Copy, Debug, Default)]
struct Half {
    /// The sequence number behind the FIN, if it was sent.
    fin: Option<Seq>,
    /// It was acknowledged.
    done: bool,
}

impl Half {
    fn sent(&mut self, packet: &TcpPacket<'_>) {
        if packet.flags().contains(Flags::FIN) {
            self.fin = Some(packet.seq() + packet.segment_len());
        }
    }

    fn acknowledged(&mut self, packet: &TcpPacket<'_>) {
        self.done |= packet.flags().contains(Flags::ACK) && self.fin == Some(packet.ack());
    }
}

impl Closing {
    /// After a packet of the client, which has been translated.
    pub(super) fn after_client(&mut self, now: Time, packet: &TcpPacket<'_>) {
        if packet.flags().contains(Flags::RST) {
            // Any other is ignored or challenged by the server (RFC 9293, section 3.10.7.4).
            if self.acknowledged == Some(packet.seq()) {
                self.end(HowEnded::Reset, now);
            }
            return;
        }
        self.client.sent(packet);
        self.server.acknowledged(packet);
        self.look(now);
    }

    /// As it is after a packet of the server, which has not been translated.
    pub(super) fn after_server(mut self, now: Time, packet: &TcpPacket<'_>) -> Self {
        if packet.flags().contains(Flags::RST) {
            self.end(HowEnded::Reset, now);
            return self;
        }
        if packet.flags().contains(Flags::ACK) {
            let ack = packet.ack();
            self.acknowledged = Some(self.acknowledged.map_or(ack, |before| before.later(ack)));
        }
        self.server.sent(packet);
        self.client.acknowledged(packet);
        self.look(now);
        self
    }

    /// What a segment of the client's has to begin with for the server to find it in its place.
    pub(super) fn expected_by_server(&self) -> Option<Seq> {
        self.acknowledged
    }

    pub(super) fn ended(&self) -> Option<(HowEnded, Time)> {
        self.ended
    }

    fn look(&mut self, now: Time) {
        if self.client.done && self.server.done {
            self.end(HowEnded::Closed, now);
        }
    }

    /// The first end counts: what comes after it is repeated.
    fn end(&mut self, how: HowEnded, now: Time) {
        self.ended.get_or_insert((how, now));
    }
}
