//! What the standby holds of a migrated connection. Layout: `docs/replication.md`.

use std::net::IpAddr;

use outlive_migration::{flow::FlowId, id::MigrationId};
use outlive_tcp::{
    seq::Seq,
    wire::{Endpoint, FourTuple},
};

use crate::session::record::{ENDPOINT_LEN, decode_endpoint, encode_endpoint};

/// Bytes of a record on the wire.
pub(crate) const MAPPING_LEN: usize = 4 * ENDPOINT_LEN + 16 + 20;

/// The constants of a migrated connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MappingRecord {
    /// The ends, as the client's packets have them.
    pub(crate) ends: FourTuple,
    /// The server whose agent has it.
    pub(crate) server: Endpoint,
    /// The agent.
    pub(crate) agent: Endpoint,
    /// The target's address in the tunnel.
    pub(crate) tunnel: IpAddr,
    /// What the client's packets come as there.
    pub(crate) flow: FlowId,
    /// Which migration.
    pub(crate) id: MigrationId,
    /// The client's initial sequence number: its cookie is spent.
    pub(crate) irs: Seq,
    /// What the client was shown as ours: it can be reset as long as the target has not spoken.
    pub(crate) iss: Seq,
}

impl MappingRecord {
    /// Appends the record in network byte order.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        for endpoint in [self.ends.source, self.ends.destination, self.server, self.agent] {
            encode_endpoint(endpoint, out);
        }
        let tunnel = match self.tunnel {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        out.extend(tunnel.octets());
        out.extend(self.id.0.to_be_bytes());
        out.extend(self.flow.value().to_be_bytes());
        out.extend(self.irs.0.to_be_bytes());
        out.extend(self.iss.0.to_be_bytes());
    }

    /// Reads a record. `None` if a field has a value that no node sends.
    pub(crate) fn decode(bytes: &[u8; MAPPING_LEN]) -> Option<Self> {
        let (endpoints, rest) = bytes.split_at(4 * ENDPOINT_LEN);
        let (endpoints, _) = endpoints.as_chunks::<ENDPOINT_LEN>();
        let [client, own, server, agent] = <[_; 4]>::try_from(endpoints).ok()?;
        let (tunnel, rest) = rest.split_first_chunk::<16>()?;
        let (id, rest) = rest.split_first_chunk::<8>()?;
        let (flow, rest) = rest.split_first_chunk::<4>()?;
        let (irs, rest) = rest.split_first_chunk::<4>()?;
        let iss = rest.first_chunk::<4>()?;
        let record = MappingRecord {
            ends: FourTuple::new(decode_endpoint(&client), decode_endpoint(&own)),
            server: decode_endpoint(&server),
            agent: decode_endpoint(&agent),
            tunnel: std::net::Ipv6Addr::from(*tunnel).to_canonical(),
            flow: FlowId::new(u32::from_be_bytes(*flow))?,
            id: MigrationId(u64::from_be_bytes(*id)),
            irs: Seq(u32::from_be_bytes(*irs)),
            iss: Seq(u32::from_be_bytes(*iss)),
        };
        let version = record.ends.version()?;
        (version == outlive_tcp::wire::IpVersion::of(record.tunnel)).then_some(record)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn example() -> MappingRecord {
        let end = |text: &str| Endpoint::from(text.parse::<std::net::SocketAddr>().unwrap());
        MappingRecord {
            ends: FourTuple::new(end("10.0.0.9:4660"), end("10.0.0.1:80")),
            server: end("10.0.0.2:8080"),
            agent: end("10.0.0.2:7400"),
            tunnel: "10.9.0.2".parse().unwrap(),
            flow: FlowId::new(0x8001_0203).unwrap(),
            id: MigrationId(0x0a0b_0c0d),
            irs: Seq(0x0102_0304),
            iss: Seq(0x0506_0708),
        }
    }

    /// A change here is a change of the protocol between two nodes: see docs/replication.md, "Versions".
    #[test]
    fn the_layout_is_fixed() {
        let mut bytes = Vec::new();
        example().encode(&mut bytes);
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let mapped = |rest: &str| format!("00000000000000000000ffff{rest}");
        let golden = [
            mapped("0a0000091234"),
            mapped("0a0000010050"),
            mapped("0a0000021f90"),
            mapped("0a0000021ce8"),
            mapped("0a090002"),
            "000000000a0b0c0d".into(),
            "80010203".into(),
            "01020304".into(),
            "05060708".into(),
        ];
        assert_eq!(hex, golden.concat());
        let bytes: [u8; MAPPING_LEN] = bytes.try_into().unwrap();
        assert_eq!(MappingRecord::decode(&bytes), Some(example()));
        let mut damaged = bytes;
        damaged[MAPPING_LEN - 12..MAPPING_LEN - 10].fill(0);
        assert_eq!(MappingRecord::decode(&damaged), None, "half of the flow identifier is zero");
    }
}
