//! The server name and the protocols in a TLS ClientHello (RFC 8446 section 4.1.2, RFC 6066 section 3, RFC 7301), split over records
//! and segments as it may be.

use super::{Content, Inspection};

/// Content type of a handshake record, and so the first byte of a TLS connection.
pub(super) const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const HOST_NAME: u8 = 0;
/// Larger than any ClientHello that a listener's limit lets through.
const MAX_HELLO: usize = 1 << 16;

/// Why reading stopped.
enum Stop {
    /// The data ended.
    Incomplete,
    /// This is not a ClientHello.
    Malformed,
}

pub(super) fn inspect(data: &[u8]) -> Inspection {
    match client_hello(data) {
        Ok(content) => Inspection::Found(content),
        Err(Stop::Incomplete) => Inspection::Incomplete,
        Err(Stop::Malformed) => Inspection::Found(Content::Unknown),
    }
}

fn client_hello(data: &[u8]) -> Result<Content, Stop> {
    let mut message = Vec::new();
    let complete = collect_message(data, &mut message)?;
    if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(Stop::Malformed);
    }
    if !complete {
        return Err(Stop::Incomplete);
    }
    // Whole now: whatever ends too early from here on is malformed.
    describe(Reader(&message[4..])).ok_or(Stop::Malformed)
}

/// Joins the payloads of the handshake records until one handshake message is there.
/// `Ok(true)` when it is whole.
fn collect_message(mut data: &[u8], message: &mut Vec<u8>) -> Result<bool, Stop> {
    loop {
        if let Some(&[_, a, b, c]) = message.first_chunk::<4>() {
            let length = 4 + usize::from(a) * 65_536 + usize::from(b) * 256 + usize::from(c);
            if length > MAX_HELLO {
                return Err(Stop::Malformed);
            }
            if message.len() >= length {
                message.truncate(length);
                return Ok(true);
            }
        }
        match data {
            [] => return Ok(false),
            [kind, ..] if *kind != HANDSHAKE => return Err(Stop::Malformed),
            [_, major, ..] if *major != 3 => return Err(Stop::Malformed),
            [_, _, _, high, low, rest @ ..] => {
                let length = usize::from(*high) * 256 + usize::from(*low);
                // RFC 8446, 5.1: at most 2^14, and no empty handshake fragments.
                if length == 0 || length > 1 << 14 {
                    return Err(Stop::Malformed);
                }
                let part = &rest[..length.min(rest.len())];
                message.extend_from_slice(part);
                data = &rest[part.len()..];
            }
            _ => return Ok(false),
        }
    }
}

/// What the body of a ClientHello says; `None` if it is malformed.
fn describe(mut body: Reader<'_>) -> Option<Content> {
    body.take(2 + 32)?;
    body.vector8()?;
    body.vector16()?;
    body.vector8()?;
    let (mut server_name, mut alpn) = (None, Vec::new());
    if !body.0.is_empty() {
        let mut extensions = body.vector16()?;
        while !extensions.0.is_empty() {
            let kind = extensions.number16()?;
            let content = extensions.vector16()?;
            match kind {
                SERVER_NAME if server_name.is_none() => server_name = name(content)?,
                ALPN if alpn.is_empty() => alpn = protocols(content)?,
                _ => {}
            }
        }
    }
    Some(Content::Tls { server_name, alpn })
}

/// The host name in a list of names (RFC 6066, section 3).
fn name(mut content: Reader<'_>) -> Option<Option<String>> {
    let mut names = content.vector16()?;
    while !names.0.is_empty() {
        let kind = names.take(1)?[0];
        let name = names.vector16()?.0;
        if kind == HOST_NAME {
            let text = std::str::from_utf8(name).ok().filter(|t| t.is_ascii())?;
            return Some(Some(text.to_owned()));
        }
    }
    Some(None)
}

/// A list of protocol names (RFC 7301, section 3.1).
fn protocols(mut content: Reader<'_>) -> Option<Vec<String>> {
    let mut list = content.vector16()?;
    let mut protocols = Vec::new();
    while !list.0.is_empty() {
        // Some are not text on purpose (RFC 8701).
        if let Ok(protocol) = std::str::from_utf8(list.vector8()?.0) {
            protocols.push(protocol.to_owned());
        }
    }
    Some(protocols)
}

/// Reads fields off the front of a slice; `None` when it ends too early.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(front)
    }

    fn number16(&mut self) -> Option<u16> {
        let bytes = self.take(2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector8(&mut self) -> Option<Reader<'a>> {
        let length = self.take(1)?[0];
        self.take(usize::from(length)).map(Reader)
    }

    fn vector16(&mut self) -> Option<Reader<'a>> {
        let length = self.number16()?;
        self.take(usize::from(length)).map(Reader)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A ClientHello with a padding extension of `padding` bytes before the name.
    fn hello(name: Option<&str>, padding: usize) -> Vec<u8> {
        let mut extensions = Vec::new();
        extensions.extend([0, 21]);
        extensions.extend((padding as u16).to_be_bytes());
        extensions.extend(vec![0; padding]);
        extensions.extend(b"\0\x10\0\x10\0\x0e\x02h2\x08http/1.1\x01\xff");
        if let Some(name) = name {
            let n = name.len() as u16;
            extensions.extend([0, 0]);
            extensions.extend((n + 5).to_be_bytes());
            extensions.extend((n + 3).to_be_bytes());
            extensions.push(0);
            extensions.extend(n.to_be_bytes());
            extensions.extend(name.as_bytes());
        }
        let mut body = vec![3, 3];
        body.extend([9; 32]);
        body.push(32);
        body.extend([8; 32]);
        body.extend([0, 2, 0x13, 0x01, 1, 0]);
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
        let mut message = vec![1, 0];
        message.extend((body.len() as u16).to_be_bytes());
        message.extend(body);
        message
    }

    fn records(message: &[u8], size: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for part in message.chunks(size) {
            out.extend([22, 3, 1]);
            out.extend((part.len() as u16).to_be_bytes());
            out.extend(part);
        }
        out
    }

    #[test]
    fn the_name_is_found_however_the_hello_is_cut() {
        let message = hello(Some("www.example.org"), 2_000);
        for size in [1, 3, 100, 1_000, 16_000] {
            let data = records(&message, size);
            for end in (0..data.len()).step_by(if size < 10 { 97 } else { 1 }) {
                assert_eq!(inspect(&data[..end]), Inspection::Incomplete, "{size} {end}");
            }
            let name = Some("www.example.org".to_owned());
            let alpn = vec!["h2".to_owned(), "http/1.1".to_owned()];
            let content = Content::Tls { server_name: name, alpn };
            assert_eq!(inspect(&data), Inspection::Found(content));
        }
    }

    #[test]
    fn a_hello_without_a_name_is_tls_all_the_same() {
        let data = records(&hello(None, 3), 500);
        let found = inspect(&data);
        assert!(matches!(found, Inspection::Found(Content::Tls { server_name: None, .. })));
    }

    #[test]
    fn other_records_are_unknown() {
        assert_eq!(inspect(&[22, 9]), Inspection::Found(Content::Unknown));
        assert_eq!(inspect(&[22, 3, 1, 0, 0]), Inspection::Found(Content::Unknown));
        assert_eq!(inspect(&[22, 3, 1, 0, 2, 2, 0]), Inspection::Found(Content::Unknown));
    }

    proptest! {
        #[test]
        fn nothing_panics(mut data in prop::collection::vec(any::<u8>(), 0..300), flip in any::<(usize, u8)>()) {
            let _ = inspect(&data);
            data.splice(0..0, [22, 3, 1, 1, 0, 1, 0, 0, 250]);
            let _ = inspect(&data);
            let mut real = records(&hello(Some("a.b"), 9), 60);
            let at = flip.0 % real.len();
            real[at] = flip.1;
            let _ = inspect(&real);
        }
    }
}
