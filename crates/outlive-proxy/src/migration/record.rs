//! What the standby holds of a migrated connection. Layout: `docs/replication.md`.

use std::net::IpAddr;

use bytes::{Buf, BufMut};
use outlive_migration::{flow::FlowId, id::MigrationId};
use outlive_tcp::{
    fields::{GetFields, PutFields},
    seq::Seq,
    wire::{Endpoint, FourTuple},
};

/// Bytes of a record on the wire.
pub(crate) const MAPPING_LEN: usize = 4 * 18 + 16 + 20;

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
            out.put_endpoint(endpoint);
        }
        out.put_addr(self.tunnel);
        out.put_u64(self.id.0);
        out.put_u32(self.flow.value());
        out.put_seq(self.irs);
        out.put_seq(self.iss);
    }

    /// Reads a record. `None` if a field has a value that no node sends.
    pub(crate) fn decode(bytes: &[u8; MAPPING_LEN]) -> Option<Self> {
        let fields = &mut bytes.as_slice();
        let (client, own) = (fields.try_get_endpoint().ok()?, fields.try_get_endpoint().ok()?);
        let record = MappingRecord {
            ends: FourTuple::new(client, own),
            server: fields.try_get_endpoint().ok()?,
            agent: fields.try_get_endpoint().ok()?,
            tunnel: fields.try_get_addr().ok()?,
            id: MigrationId(fields.try_get_u64().ok()?),
            flow: FlowId::new(fields.try_get_u32().ok()?)?,
            irs: fields.try_get_seq().ok()?,
            iss: fields.try_get_seq().ok()?,
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
