//! The PROXY protocol header that tells a server who the client is (haproxy.org, proxy-protocol.txt,
//! versions 1 and 2).

use std::net::IpAddr;

use outlive_tcp::wire::Endpoint;

use crate::config::ProxyProtocol;

const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const V2_PROXY: u8 = 0x21;
const V2_TCP4: u8 = 0x11;
const V2_TCP6: u8 = 0x21;

/// The header for a connection from `client` to `destination`, which are of the same IP version.
pub(crate) fn header(version: ProxyProtocol, client: Endpoint, destination: Endpoint) -> Vec<u8> {
    match version {
        ProxyProtocol::V1 => {
            let family = if client.addr.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (client.addr, destination.addr);
            format!("PROXY {family} {from} {to} {} {}\r\n", client.port, destination.port)
                .into_bytes()
        }
        ProxyProtocol::V2 => {
            let mut out = V2_SIGNATURE.to_vec();
            let mut addresses = Vec::new();
            let family = match (client.addr, destination.addr) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    addresses.extend(from.octets());
                    addresses.extend(to.octets());
                    V2_TCP4
                }
                (from, to) => {
                    for addr in [from, to] {
                        addresses.extend(match addr {
                            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                            IpAddr::V6(v6) => v6.octets(),
                        });
                    }
                    V2_TCP6
                }
            };
            addresses.extend(client.port.to_be_bytes());
            addresses.extend(destination.port.to_be_bytes());
            out.extend([V2_PROXY, family]);
            out.extend((addresses.len() as u16).to_be_bytes());
            out.extend(addresses);
            out
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        text.parse::<SocketAddr>().unwrap().into()
    }

    #[test]
    fn version_1() {
        let header4 = header(ProxyProtocol::V1, endpoint("10.0.0.9:1234"), endpoint("10.0.0.1:80"));
        assert_eq!(header4, b"PROXY TCP4 10.0.0.9 10.0.0.1 1234 80\r\n");
        let header6 =
            header(ProxyProtocol::V1, endpoint("[fd00::9]:1234"), endpoint("[fd00::1]:80"));
        assert_eq!(header6, b"PROXY TCP6 fd00::9 fd00::1 1234 80\r\n");
    }

    #[test]
    fn version_2() {
        let header4 = header(ProxyProtocol::V2, endpoint("10.0.0.9:258"), endpoint("10.0.0.1:80"));
        let tail = [0x21, 0x11, 0, 12, 10, 0, 0, 9, 10, 0, 0, 1, 1, 2, 0, 80];
        assert_eq!(header4, [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &tail].concat());
        let header6 = header(ProxyProtocol::V2, endpoint("[fd00::9]:1"), endpoint("[fd00::1]:2"));
        assert_eq!(header6.len(), 16 + 36);
        assert_eq!(header6[12..16], [0x21, 0x21, 0, 36]);
    }
}
