//! What clients ask for: so many bytes, each of which follows from its place.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The longest answer.
pub(crate) const LONGEST: usize = 16 << 20;

/// The first `len` bytes of the content.
pub(crate) fn content(len: usize) -> &'static [u8] {
    static CONTENT: OnceLock<Vec<u8>> = OnceLock::new();
    let all = CONTENT.get_or_init(|| {
        (0..LONGEST as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
    });
    &all[..len.min(LONGEST)]
}

/// Bytes that differ from the content at `from`.
pub(crate) fn wrong(from: usize, bytes: &[u8]) -> u64 {
    let end = from.saturating_add(bytes.len()).min(LONGEST);
    let expected = content(end).get(from..).unwrap_or_default();
    if expected == bytes {
        return 0;
    }
    let differ = expected.iter().zip(bytes).filter(|(expected, byte)| expected != byte).count();
    (differ + bytes.len() - expected.len()) as u64
}

/// A number for a request that no other of this process has.
pub(crate) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed)
}

/// The head of a request for `len` bytes; `id` is the only one of its kind.
pub(crate) fn request(len: usize, id: u64) -> String {
    format!("GET /{len}?{id} HTTP/1.1\r\nHost: lab.example\r\nConnection: close\r\n\r\n")
}

/// What a request asks for: bytes, and its number.
pub(crate) fn asked(request: &str) -> Option<(usize, u64)> {
    let target = request.strip_prefix("GET ")?.split_whitespace().next()?;
    let (path, id) = target.split_once('?')?;
    let (_, len) = path.rsplit_once('/')?;
    Some((len.parse().ok().filter(|len| *len <= LONGEST)?, id.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_what_is_asked_for() {
        assert_eq!(asked(&request(1_000, 7)), Some((1_000, 7)));
        assert_eq!(asked("GET /a/b/20?1 HTTP/1.1\r\n\r\n"), Some((20, 1)));
        assert_eq!(asked("GET / HTTP/1.1\r\n\r\n"), None);
        assert_eq!(asked("GET /99999999999?1 HTTP/1.1\r\n\r\n"), None);
    }

    #[test]
    fn every_wrong_byte_is_counted() {
        let mut bytes = content(100)[10..].to_vec();
        assert_eq!(wrong(10, &bytes), 0);
        bytes[3] ^= 1;
        assert_eq!(wrong(10, &bytes), 1);
        assert_eq!(wrong(LONGEST - 1, &[content(LONGEST)[LONGEST - 1], 5]), 1);
    }
}
