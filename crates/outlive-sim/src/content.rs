//! What is said on the simulated connections: every byte is decided by who says it and where it stands, so
//! that whoever reads it can tell whether it is the right one.

use std::net::IpAddr;

use outlive_proxy::config::ProxyProtocol;
use outlive_tcp::wire::Endpoint;

use crate::rng::mix;

/// A connection of a client, numbered in the order in which they are begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowId(pub usize);

/// A connection that a server accepted, numbered likewise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstanceId(pub usize);

/// What the client says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preamble {
    /// Only the number of the flow.
    Plain,
    /// The head of an HTTP request for this host and path.
    Http {
        /// Host header.
        host: &'static str,
        /// Path; the number of the flow follows it.
        path: &'static str,
    },
    /// A TLS ClientHello with this server name.
    Tls {
        /// Server name indication.
        server_name: &'static str,
    },
}

impl Preamble {
    /// The bytes, which contain the flow's number.
    pub fn bytes(&self, flow: FlowId) -> Vec<u8> {
        match self {
            Preamble::Plain => format!("flow {:08}\n", flow.0).into_bytes(),
            Preamble::Http { host, path } => {
                format!("GET {path}/{:08} HTTP/1.1\r\nHost: {host}\r\n\r\n", flow.0).into_bytes()
            }
            Preamble::Tls { server_name } => client_hello(flow, server_name),
        }
    }
}

/// A ClientHello (RFC 8446, section 4.1.2) that is as short as it can be; its random is the flow's number.
fn client_hello(flow: FlowId, server_name: &str) -> Vec<u8> {
    let name = server_name.as_bytes();
    let with_len16 = |body: Vec<u8>| {
        let mut out = (body.len() as u16).to_be_bytes().to_vec();
        out.extend(body);
        out
    };
    let mut entry = vec![0];
    entry.extend(with_len16(name.to_vec()));
    let mut extension = vec![0, 0];
    extension.extend(with_len16(with_len16(entry)));

    let mut body = vec![3, 3];
    body.extend([0x5a; 24]);
    body.extend((flow.0 as u64).to_be_bytes());
    body.push(0);
    body.extend(with_len16(vec![0x13, 0x01]));
    body.extend([1, 0]);
    body.extend(with_len16(extension));

    let mut handshake = vec![1, 0];
    handshake.extend(with_len16(body));
    let mut record = vec![22, 3, 1];
    record.extend(with_len16(handshake));
    record
}

/// Bytes of a server's banner: its instance number.
pub(crate) const BANNER: usize = 8;
const BANNER_MAGIC: [u8; 4] = *b"srv ";

/// The byte at `at` of what the server of `instance` says.
pub(crate) fn server_byte(instance: InstanceId, at: usize) -> u8 {
    match at {
        0..4 => BANNER_MAGIC[at],
        4..BANNER => (instance.0 as u32).to_be_bytes()[at - 4],
        _ => noise(1 << 40 | instance.0 as u64, at),
    }
}

/// The instance that a stream beginning with these bytes is from.
pub(crate) fn instance_of(start: &[u8]) -> Option<InstanceId> {
    let (magic, rest) = start.split_first_chunk::<4>()?;
    let number = u32::from_be_bytes(*rest.first_chunk::<4>()?);
    (*magic == BANNER_MAGIC).then_some(InstanceId(number as usize))
}

/// The byte at `at` of what the client of `flow` says.
pub(crate) fn client_byte(flow: FlowId, preamble: &[u8], at: usize) -> u8 {
    preamble.get(at).copied().unwrap_or_else(|| noise(flow.0 as u64, at))
}

fn noise(stream: u64, at: usize) -> u8 {
    (mix(stream << 20 ^ (at as u64 >> 3)) >> ((at & 7) * 8)) as u8
}

/// The PROXY header that a server must see before the client's bytes, written independently of the proxy
/// (haproxy.org, proxy-protocol.txt).
pub(crate) fn proxy_header(
    version: ProxyProtocol,
    client: Endpoint,
    listener: Endpoint,
) -> Vec<u8> {
    let addresses = |addr: IpAddr| match addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let v4 = client.addr.is_ipv4();
    match version {
        ProxyProtocol::V1 => format!(
            "PROXY {} {} {} {} {}\r\n",
            if v4 { "TCP4" } else { "TCP6" },
            client.addr,
            listener.addr,
            client.port,
            listener.port
        )
        .into_bytes(),
        ProxyProtocol::V2 => {
            let mut out = b"\r\n\r\n\x00\r\nQUIT\n\x21".to_vec();
            out.push(if v4 { 0x11 } else { 0x21 });
            out.extend(if v4 { [0, 12] } else { [0, 36] });
            out.extend(addresses(client.addr));
            out.extend(addresses(listener.addr));
            out.extend(client.port.to_be_bytes());
            out.extend(listener.port.to_be_bytes());
            out
        }
    }
}

#[cfg(test)]
mod tests {
    use outlive_proxy::content::{Inspection, inspect};

    use super::*;

    #[test]
    fn preambles_are_what_they_claim_to_be() {
        let http = Preamble::Http { host: "www.example.org", path: "/a" }.bytes(FlowId(3));
        assert!(matches!(inspect(&http), Inspection::Found(_)));
        let tls = Preamble::Tls { server_name: "www.example.org" }.bytes(FlowId(3));
        let Inspection::Found(content) = inspect(&tls) else { panic!("not understood") };
        assert!(format!("{content:?}").contains("www.example.org"), "{content:?}");
    }

    #[test]
    fn a_banner_names_its_instance() {
        let start: Vec<u8> = (0..BANNER).map(|at| server_byte(InstanceId(77), at)).collect();
        assert_eq!(instance_of(&start), Some(InstanceId(77)));
    }
}
