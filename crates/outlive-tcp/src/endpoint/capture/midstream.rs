//! A connection in the middle whose two ends have said where they stand.
//!
//! Who passes the stream of one connection on to another, and acknowledges only what the other end
//! has acknowledged, needs no capture: what is not acknowledged is still with its sender, and where
//! the streams stand the two ends tell.

use super::{layout::Snapshot, restore::RestoreOptions};
use crate::{
    endpoint::{config::Config, connection::Connection, negotiation::Negotiated, state::State},
    seq::Seq,
    time::Time,
    wire::FourTuple,
};

/// Where a connection stands: nothing is in flight that is held here, and nothing waits to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Midstream {
    /// The two ends, as packets sent have them.
    pub tuple: FourTuple,
    /// What was agreed on in the handshake.
    pub negotiated: Negotiated,
    /// TSval of what is sent now: later than all that a former node has sent.
    pub timestamp: u32,
    /// The other end has acknowledged everything before this. It may acknowledge more, which a
    /// former node has sent: up to its window's right edge, and a segment beyond.
    pub sent: Seq,
    /// The last of that was this end's FIN.
    pub sent_end: bool,
    /// Everything before this was received, and is acknowledged.
    pub received: Seq,
    /// The last of that was the other end's FIN.
    pub received_end: bool,
    /// The right edge that the other end is shown: none that it was shown before lies beyond.
    pub receive_edge: Seq,
    /// The other end's window, in bytes.
    pub window: u32,
    /// The latest TSval of the other end.
    pub timestamp_recent: u32,
}

impl Connection {
    /// Goes on in the middle. What the other end is sent first says where this end stands.
    pub fn midstream(now: Time, at: &Midstream, config: Config) -> Self {
        let state = match (at.sent_end, at.received_end) {
            (false, false) => State::Established,
            (true, false) => State::FinWait2,
            (false, true) => State::CloseWait,
            (true, true) => State::TimeWait,
        };
        let snapshot = Snapshot {
            tuple: at.tuple,
            state,
            agreed: at.negotiated,
            // Going on from a snapshot adds one.
            timestamp: at.timestamp.wrapping_sub(1),
            timestamp_recent: at.timestamp_recent,
            path_mtu: config.mtu,
            iss: at.sent - 1,
            una: at.sent,
            nxt: at.sent,
            ack_limit: at.sent,
            send_edge: at.sent + at.window,
            send_window: at.window,
            largest_window: at.window,
            wl1: at.received,
            wl2: at.sent,
            slow_start_threshold: u32::MAX,
            ended: at.sent_end,
            irs: at.received - 1,
            acknowledged: at.received,
            read: at.received - u32::from(at.received_end),
            receive_edge: at.receive_edge,
            receive_limit: 0,
            peer_ended: at.received_end,
            end_read: at.received_end,
            ..Snapshot::default()
        };
        let options =
            RestoreOptions { sent_beyond: config.mtu.into(), ..RestoreOptions::default() };
        let mut connection = Self::from_snapshot(now, snapshot, config, &options);
        // The other end has just said what it has; now it is told, in a segment that it looks at.
        connection.probe_due = false;
        connection.acknowledge_now();
        connection
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        endpoint::{Arrival, Event, Opening, Read},
        wire::{Endpoint, TcpPacket},
    };

    fn pass(now: Time, from: &mut Connection, to: &mut Connection) -> usize {
        let mut count = 0;
        while let Some(transmit) = from.poll_transmit(now) {
            let mut packet = Vec::new();
            let offload = transmit.emit(&mut packet);
            let len = packet.len();
            let parsed = TcpPacket::parse(&mut packet, 0, len, offload).unwrap();
            to.handle_segment(now, &Arrival::copied(&parsed));
            count += 1;
        }
        count
    }

    fn exchange(now: Time, one: &mut Connection, other: &mut Connection) {
        while pass(now, one, other) + pass(now, other, one) > 0 {}
    }

    fn established(now: Time) -> [Connection; 2] {
        let end = |host, port| Endpoint::new([192, 0, 2, host].into(), port);
        let ends = FourTuple::new(end(1, 40_000), end(2, 80));
        let opening = |tuple| Opening::keyed(&[7; 16], tuple, 5_000_000, now);
        let mut client = Connection::connect(opening(ends), Config::default()).unwrap();
        let mut packet = Vec::new();
        client.poll_transmit(now).unwrap().emit(&mut packet);
        let len = packet.len();
        let syn = TcpPacket::parse(&mut packet, 0, len, Default::default()).unwrap();
        let opening = opening(ends.reversed());
        let syn = Arrival::copied(&syn);
        let mut server = Connection::accept(now, &syn, opening, Config::default()).unwrap();
        exchange(now, &mut server, &mut client);
        [client, server]
    }

    fn everything(connection: &mut Connection) -> usize {
        std::iter::from_fn(|| match connection.read(usize::MAX) {
            Read::Data(data) => Some(data.len()),
            _ => None,
        })
        .sum()
    }

    /// As a node does that knows of a connection only what its other end says.
    fn replacement(now: Time, other: &Connection, lost: &Connection, end: bool) -> Connection {
        let at = other.positions();
        let midstream = Midstream {
            tuple: lost.tuple(),
            negotiated: *lost.negotiated(),
            timestamp: lost.clock.value(now) + 2_000,
            sent: at.acknowledged,
            sent_end: false,
            received: at.sent,
            received_end: end,
            receive_edge: at.sent + 10_000,
            window: 20_000,
            timestamp_recent: other.clock.value(now),
        };
        Connection::midstream(now, &midstream, Config::default())
    }

    #[test]
    fn both_streams_go_on_where_the_other_end_stands() {
        let now = Time::from_micros(1_000_000);
        let [mut client, mut server] = established(now);
        client.write(Bytes::from(vec![1; 10_000])).unwrap();
        server.write(Bytes::from(vec![2; 3_000])).unwrap();
        exchange(now, &mut server, &mut client);
        assert_eq!(everything(&mut server), 10_000);
        assert_eq!(everything(&mut client), 3_000);
        client.acknowledge(3_000).unwrap();
        // Whoever the bytes are for has them: they need not come again.
        let mut server = replacement(now, &client, &server, false);
        exchange(now, &mut server, &mut client);
        assert_eq!(client.unacknowledged(), 0, "the client is told");
        client.write(Bytes::from(vec![1; 5_000])).unwrap();
        server.write(Bytes::from(vec![2; 7_000])).unwrap();
        exchange(now, &mut server, &mut client);
        assert_eq!((everything(&mut server), everything(&mut client)), (5_000, 7_000));
        server.acknowledge(5_000).unwrap();
        client.shutdown();
        exchange(now, &mut server, &mut client);
        assert_eq!(server.state(), State::CloseWait);
    }

    #[test]
    fn an_end_that_was_told_is_not_asked_for_again() {
        let now = Time::from_micros(1_000_000);
        let [mut client, mut server] = established(now);
        client.write(Bytes::from(vec![1; 100])).unwrap();
        client.shutdown();
        exchange(now, &mut server, &mut client);
        let mut server = replacement(now, &client, &server, true);
        assert_eq!(server.state(), State::CloseWait);
        exchange(now, &mut server, &mut client);
        assert_eq!(client.state(), State::FinWait2);
        server.write(Bytes::from(vec![2; 100])).unwrap();
        server.shutdown();
        exchange(now, &mut server, &mut client);
        assert_eq!(everything(&mut client), 100);
        assert_eq!(client.read(1), Read::End);
        client.acknowledge(100).unwrap();
        client.acknowledge_end().unwrap();
        exchange(now, &mut client, &mut server);
        assert_eq!(server.state(), State::Closed);
    }

    #[test]
    fn what_a_former_node_sent_may_still_be_acknowledged() {
        let now = Time::from_micros(1_000_000);
        let [mut client, mut server] = established(now);
        server.write(Bytes::from(vec![2; 1_000])).unwrap();
        let mut late = server.clone();
        let mut server = replacement(now, &client, &server, false);
        pass(now, &mut late, &mut client);
        assert_eq!(everything(&mut client), 1_000);
        client.acknowledge(1_000).unwrap();
        pass(now, &mut client, &mut server);
        let skipped = std::iter::from_fn(|| server.poll_event())
            .any(|event| event == Event::OutputSkipped(1_000));
        assert!(skipped, "{server:?}");
    }
}
