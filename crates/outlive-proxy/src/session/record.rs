//! The record of a session: all that is needed to translate its packets, fixed when it is established.
//!
//! This is what the standby holds. Its layout on the wire is in [`docs/replication.md`] and pinned by the
//! golden vector in the tests below.
//!
//! [`docs/replication.md`]: ../../../../docs/replication.md

use std::net::{IpAddr, Ipv6Addr};

use bytes::{Buf, BufMut};
use outlive_tcp::{
    fault::{self, Fault},
    fields::{GetFields, PutFields},
    seq::Seq,
    translation::{TimestampTranslation, Translation},
    wire::{Endpoint, FourTuple},
};

use crate::flows::Side;

/// One of the two connections of a session: what its end and Outlive agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leg {
    /// The client, or the server.
    pub end: Compact,
    /// Outlive's side of it: the virtual address, or the source address.
    pub own: Compact,
    /// Initial sequence number of the end.
    pub end_isn: Seq,
    /// Initial sequence number that the end was shown.
    pub own_isn: Seq,
    /// The largest segment that the end wants to get.
    pub mss: u16,
    /// Scale of the windows that the end sends.
    pub end_scale: u8,
    /// Scale that the end applies to the windows that it gets.
    pub own_scale: u8,
    /// Window scaling was negotiated (a scale of zero is not the same as none).
    pub scaling: bool,
    /// SACK was negotiated.
    pub sack: bool,
    /// Timestamps were negotiated.
    pub timestamps: bool,
}

/// An endpoint in 18 bytes instead of 20, as it stands on the wire: each session has four. IPv4 addresses are
/// IPv4-mapped ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Compact {
    addr: [u8; 16],
    port: u16,
}

impl Compact {
    fn expand(self) -> Endpoint {
        Endpoint::new(Ipv6Addr::from(self.addr).to_canonical(), self.port)
    }

    fn is_ipv4(self) -> bool {
        Ipv6Addr::from(self.addr).to_ipv4_mapped().is_some()
    }
}

impl From<Endpoint> for Compact {
    fn from(endpoint: Endpoint) -> Self {
        let addr = match endpoint.addr {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        Compact { addr: addr.octets(), port: endpoint.port }
    }
}

impl Leg {
    /// The client, or the server.
    pub(crate) fn end(&self) -> Endpoint {
        self.end.expand()
    }

    /// Outlive's side of it: the virtual address, or the source address.
    pub(crate) fn own(&self) -> Endpoint {
        self.own.expand()
    }

    /// The tuple of the packets that the end sends.
    pub(crate) fn tuple(&self) -> FourTuple {
        FourTuple { source: self.end(), destination: self.own() }
    }
}

/// What the SYN-ACK of a direct listener says besides what the legs tell; it may have to be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct SynAck {
    /// Window field of the server's SYN-ACK.
    pub window: u16,
    /// TSval towards the client.
    pub timestamp: u32,
    /// TSecr towards the client: the TSval of its SYN, or of what it said last before its server was
    /// known. A node that takes over counts on from it.
    pub echo: u32,
    /// The server agreed to ECN.
    pub ecn: bool,
}

/// No end is taken at its word when it announces less: one that says that it takes a byte at a time would have a
/// client's first data, and every super-segment, cut into thousands of packets. The smallest that a cookie can
/// carry; Linux has such a bound, too (`TCP_MIN_SND_MSS`, CVE-2019-11479).
const MIN_MSS: u16 = 88;

/// The constants of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The connection with the client.
    pub client: Leg,
    /// The connection with the server.
    pub server: Leg,
    /// Added to the client's timestamps on their way to the server.
    pub client_timestamp_delta: u32,
    /// Added to the server's timestamps on their way to the client.
    pub server_timestamp_delta: u32,
    /// Bytes that the node inserted before the client's first (a PROXY header).
    pub prefix_len: u16,
    /// The client was answered with a cookie before the server was known; else the SYN-ACK is still owed.
    pub answered: bool,
    /// See [`SynAck`]; meaningless once the client has acknowledged it.
    pub syn_ack: SynAck,
}

impl Record {
    /// The leg of `side`.
    pub(crate) fn leg(&self, side: Side) -> &Leg {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    /// Whether timestamps must be made up for the server's segments: the client was promised them, and
    /// the server has none.
    pub(crate) fn synthesises_timestamps(&self) -> bool {
        self.client.timestamps && !self.server.timestamps
    }

    /// The most payload that `side` is sent in one segment: what it announced, but not less than [`MIN_MSS`],
    /// less the timestamps option (RFC 6691), which takes its room also where it is blanked out.
    pub(crate) fn segment_limit(&self, side: Side) -> u16 {
        let leg = self.leg(side);
        if fault::on(Fault::SegmentsNotLimited) {
            return u16::MAX;
        }
        let timestamps = self.client.timestamps || self.server.timestamps;
        let options = if timestamps { 12 } else { 0 };
        leg.mss.max(MIN_MSS) - options
    }

    /// How packets that `side` sends become packets of the other connection. `now_timestamp` and
    /// `recent` (the last timestamp of the receiver) are used only where timestamps are synthesised.
    ///
    /// The floor for acknowledgments is left to the caller, who knows whether the prefix is acknowledged.
    pub(crate) fn translation(&self, side: Side, now_timestamp: u32, recent: u32) -> Translation {
        let (from, to) = (self.leg(side), self.leg(side.other()));
        let prefix = u32::from(self.prefix_len);
        let (seq_shift, ack_shift) = match side {
            Side::Client => (prefix, 0),
            Side::Server => (0, prefix.wrapping_neg()),
        };
        Translation {
            tuple: FourTuple { source: to.own(), destination: to.end() },
            seq_delta: to.own_isn.distance(from.end_isn).wrapping_add(seq_shift),
            ack_delta: to.end_isn.distance(from.own_isn).wrapping_add(ack_shift),
            ack_floor: None,
            timestamps: self.timestamp_translation(side, now_timestamp, recent),
            sack: to.sack,
            window_from: from.end_scale,
            window_to: if fault::on(Fault::WindowNotRescaled) {
                from.end_scale
            } else {
                to.own_scale
            },
        }
    }

    pub(crate) fn timestamp_translation(
        &self,
        side: Side,
        now: u32,
        recent: u32,
    ) -> TimestampTranslation {
        let (from, to) = (self.leg(side).timestamps, self.leg(side.other()).timestamps);
        let (value, echo) = match side {
            Side::Client => (self.client_timestamp_delta, self.server_timestamp_delta),
            Side::Server => (self.server_timestamp_delta, self.client_timestamp_delta),
        };
        match (from, to) {
            (false, true) => TimestampTranslation::Insert { value: now, echo: recent },
            (true, false) => TimestampTranslation::Strip,
            _ => {
                TimestampTranslation::Shift { value_delta: value, echo_delta: echo.wrapping_neg() }
            }
        }
    }
}

/// Bytes of a record on the wire.
pub(crate) const RECORD_LEN: usize = 118;

const CLIENT_SACK: u16 = 1;
const CLIENT_TIMESTAMPS: u16 = 1 << 1;
const SERVER_SACK: u16 = 1 << 2;
const SERVER_TIMESTAMPS: u16 = 1 << 3;
const ANSWERED: u16 = 1 << 4;
const ECN: u16 = 1 << 5;
const CLIENT_SCALING: u16 = 1 << 6;
const SERVER_SCALING: u16 = 1 << 7;
const ALL_FLAGS: u16 = (1 << 8) - 1;

impl Record {
    /// Appends the record in network byte order.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let before = out.len();
        for leg in [&self.client, &self.server] {
            out.put_endpoint(leg.end());
            out.put_endpoint(leg.own());
            out.put_seq(leg.end_isn);
            out.put_seq(leg.own_isn);
            out.put_u16(leg.mss);
            out.put_slice(&[leg.end_scale, leg.own_scale]);
        }
        out.put_u32(self.client_timestamp_delta);
        out.put_u32(self.server_timestamp_delta);
        out.put_u16(self.prefix_len);
        out.put_u16(self.flags());
        out.put_u16(self.syn_ack.window);
        out.put_u32(self.syn_ack.timestamp);
        out.put_u32(self.syn_ack.echo);
        debug_assert_eq!(out.len() - before, RECORD_LEN);
    }

    fn flags(&self) -> u16 {
        let bits = [
            (self.client.sack, CLIENT_SACK),
            (self.client.timestamps, CLIENT_TIMESTAMPS),
            (self.server.sack, SERVER_SACK),
            (self.server.timestamps, SERVER_TIMESTAMPS),
            (self.answered, ANSWERED),
            (self.syn_ack.ecn, ECN),
            (self.client.scaling, CLIENT_SCALING),
            (self.server.scaling, SERVER_SCALING),
        ];
        bits.iter().filter(|(set, _)| *set).fold(0, |sum, (_, bit)| sum | bit)
    }

    /// Reads a record. `None` if a field has a value that no node sends.
    pub(crate) fn decode(bytes: &[u8; RECORD_LEN]) -> Option<Record> {
        let mut fields = bytes.as_slice();
        let mut client = decode_leg(&mut fields)?;
        let mut server = decode_leg(&mut fields)?;
        let client_timestamp_delta = fields.try_get_u32().ok()?;
        let server_timestamp_delta = fields.try_get_u32().ok()?;
        let prefix_len = fields.try_get_u16().ok()?;
        let flags = fields.try_get_u16().ok()?;
        let has = |bit| flags & bit != 0;
        (client.sack, client.timestamps) = (has(CLIENT_SACK), has(CLIENT_TIMESTAMPS));
        (server.sack, server.timestamps) = (has(SERVER_SACK), has(SERVER_TIMESTAMPS));
        (client.scaling, server.scaling) = (has(CLIENT_SCALING), has(SERVER_SCALING));
        let syn_ack = SynAck {
            window: fields.try_get_u16().ok()?,
            timestamp: fields.try_get_u32().ok()?,
            echo: fields.try_get_u32().ok()?,
            ecn: has(ECN),
        };
        let answered = has(ANSWERED);
        let same_family = [client.own, server.end, server.own]
            .iter()
            .all(|e| e.is_ipv4() == client.end.is_ipv4());
        // Each tuple is in the index of flows once.
        let distinct = client.tuple() != server.tuple();
        (flags & !ALL_FLAGS == 0 && same_family && distinct).then_some(Record {
            client,
            server,
            client_timestamp_delta,
            server_timestamp_delta,
            prefix_len,
            answered,
            syn_ack,
        })
    }
}

/// The fields of one leg but its flags. `None` if one has a value that no node sends.
fn decode_leg(fields: &mut &[u8]) -> Option<Leg> {
    let leg = Leg {
        end: fields.try_get_endpoint().ok()?.into(),
        own: fields.try_get_endpoint().ok()?.into(),
        end_isn: fields.try_get_seq().ok()?,
        own_isn: fields.try_get_seq().ok()?,
        mss: fields.try_get_u16().ok()?,
        end_scale: fields.try_get_u8().ok()?,
        own_scale: fields.try_get_u8().ok()?,
        scaling: false,
        sack: false,
        timestamps: false,
    };
    // RFC 7323, 2.3: 14 is the largest.
    (leg.end_scale <= 14 && leg.own_scale <= 14).then_some(leg)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn leg(end: &str, own: &str, n: u32) -> Leg {
        let endpoint = |text: &str| Endpoint::from(text.parse::<SocketAddr>().unwrap()).into();
        Leg {
            end: endpoint(end),
            own: endpoint(own),
            end_isn: Seq(n),
            own_isn: Seq(n + 1),
            mss: 1460,
            end_scale: 7,
            own_scale: 9,
            scaling: true,
            sack: true,
            timestamps: true,
        }
    }

    fn example() -> Record {
        Record {
            client: leg("10.0.0.9:40000", "10.0.0.100:443", 0x0102_0304),
            server: leg("10.0.0.21:8443", "10.0.0.101:50000", 0x1112_1314),
            client_timestamp_delta: 0x2122_2324,
            server_timestamp_delta: 0x3132_3334,
            prefix_len: 28,
            answered: true,
            syn_ack: SynAck { window: 0xfe88, timestamp: 5, echo: 6, ecn: false },
        }
    }

    /// A change here is a change of the protocol between two nodes: raise its version.
    #[test]
    fn the_layout_is_fixed() {
        let mut bytes = Vec::new();
        example().encode(&mut bytes);
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let golden = concat!(
            "00000000000000000000ffff0a000009",
            "9c40",
            "00000000000000000000ffff0a000064",
            "01bb",
            "01020304",
            "01020305",
            "05b4",
            "0709",
            "00000000000000000000ffff0a000015",
            "20fb",
            "00000000000000000000ffff0a000065",
            "c350",
            "11121314",
            "11121315",
            "05b4",
            "0709",
            "21222324",
            "31323334",
            "001c",
            "00df",
            "fe88",
            "00000005",
            "00000006",
        );
        assert_eq!(hex, golden);
        assert_eq!(Record::decode(&bytes.try_into().unwrap()), Some(example()));
    }

    #[test]
    fn nonsense_is_refused() {
        let mut bytes = Vec::new();
        example().encode(&mut bytes);
        let bytes: [u8; RECORD_LEN] = bytes.try_into().unwrap();
        for (at, value) in [(46, 15), (47, 200), (106, 0x80), (0, 1)] {
            let mut damaged = bytes;
            damaged[at] = value;
            assert_eq!(Record::decode(&damaged), None, "byte {at}");
        }
    }

    #[test]
    fn a_tiny_announced_segment_size_is_not_believed() {
        let mut record = example();
        assert_eq!(record.segment_limit(Side::Server), 1448);
        for mss in [0, 1, 87, 88] {
            record.server.mss = mss;
            assert_eq!(record.segment_limit(Side::Server), 76);
        }
        (record.client.timestamps, record.server.timestamps) = (false, false);
        assert_eq!(record.segment_limit(Side::Server), 88);
    }

    #[test]
    fn legs_with_the_same_ends_are_refused() {
        let mut twins = example();
        (twins.server.end, twins.server.own) = (twins.client.end, twins.client.own);
        let mut bytes = Vec::new();
        twins.encode(&mut bytes);
        assert_eq!(Record::decode(&bytes.try_into().unwrap()), None);
    }

    #[test]
    fn blanked_timestamps_take_their_room() {
        let mut record = example();
        record.server.timestamps = false;
        assert_eq!(record.segment_limit(Side::Server), 1_448);
        record.client.timestamps = false;
        assert_eq!(record.segment_limit(Side::Server), 1_460);
    }

    #[test]
    fn the_two_directions_are_each_other_s_inverse() {
        let record = example();
        let there = record.translation(Side::Client, 0, 0);
        let back = record.translation(Side::Server, 0, 0);
        assert_eq!(there.seq_delta.wrapping_add(back.ack_delta), 0);
        assert_eq!(there.ack_delta.wrapping_add(back.seq_delta), 0);
        // The client's first byte stands behind the inserted prefix.
        let first = record.client.end_isn + 1 + there.seq_delta;
        assert_eq!(first, record.server.own_isn + 1 + 28);
    }
}
