//! The logs of all nodes put together: each record once.

use std::{collections::BTreeMap, io::Write, path::PathBuf};

use anyhow::{Context, Result, bail};
use outlive_socket::ConnectionId;

use crate::log::{Entries, Entry};

/// What all logs say of one connection.
#[derive(Default)]
struct Stream {
    /// By position; overlapping pieces say the same.
    pieces: BTreeMap<u64, bytes::Bytes>,
    end: Option<u64>,
}

/// Prints every record of the logs once. Records of one connection are in order; `connections`: with
/// the connection's name in front of each.
///
/// # Errors
/// A log cannot be read, or two of them contradict each other, or bytes in the middle of a stream are in
/// none of them.
pub(crate) fn merge(logs: &[PathBuf], connections: bool, out: &mut impl Write) -> Result<()> {
    let mut streams: BTreeMap<ConnectionId, Stream> = BTreeMap::new();
    for path in logs {
        let log = std::fs::read(path).with_context(|| path.display().to_string())?;
        for entry in Entries(&log) {
            streams.entry(entry.id).or_default().add(entry);
        }
    }
    for (id, stream) in streams {
        let bytes = stream.whole().with_context(|| format!("connection {id}"))?;
        for record in stream.records(&bytes) {
            if connections {
                write!(out, "{id} ")?;
            }
            out.write_all(record)?;
            out.write_all(b"\n")?;
        }
    }
    Ok(())
}

impl Stream {
    fn add(&mut self, entry: Entry) {
        if entry.bytes.is_empty() {
            self.end = Some(entry.position);
            return;
        }
        let known = self.pieces.entry(entry.position).or_default();
        if known.len() < entry.bytes.len() {
            *known = entry.bytes;
        }
    }

    /// All its bytes from the first on.
    fn whole(&self) -> Result<Vec<u8>> {
        let mut whole: Vec<u8> = Vec::new();
        for (position, piece) in &self.pieces {
            let Some(known) = whole.len().checked_sub(*position as usize) else {
                bail!("bytes {} to {position} are in no log", whole.len());
            };
            let both = known.min(piece.len());
            let start = *position as usize;
            if whole[start..start + both] != piece[..both] {
                bail!("two logs differ behind byte {position}");
            }
            whole.extend_from_slice(&piece[both..]);
        }
        Ok(whole)
    }

    /// Its records. The beginning of one that has not come whole is none: its sender still has it, unless the stream
    /// ended there.
    fn records<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let ended = self.end == Some(bytes.len() as u64);
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let (lines, rest) = bytes.split_at(whole);
        let lines =
            lines.split_inclusive(|byte| *byte == b'\n').map(|line| &line[..line.len() - 1]);
        lines.chain(Some(rest).filter(|rest| ended && !rest.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn stream(entries: &[(u64, &'static str)]) -> Stream {
        let mut stream = Stream::default();
        for (position, bytes) in entries {
            let id = ConnectionId { process: 1, serial: 1 };
            stream.add(Entry { id, position: *position, bytes: Bytes::from(*bytes) });
        }
        stream
    }

    fn records(entries: &[(u64, &'static str)]) -> Vec<String> {
        let stream = stream(entries);
        let whole = stream.whole().unwrap();
        stream.records(&whole).map(|record| String::from_utf8_lossy(record).into_owned()).collect()
    }

    #[test]
    fn each_record_comes_once_and_whole() {
        assert_eq!(records(&[(0, "a\nb"), (3, "c\n"), (1, "\nbc\nd")]), ["a", "bc"]);
        assert_eq!(records(&[(0, "a\nb"), (3, "")]), ["a", "b"], "the stream ended there");
        assert_eq!(records(&[(0, "a\n"), (0, "a\nb\n"), (2, "")]), ["a", "b"]);
        assert!(records(&[]).is_empty());
    }

    #[test]
    fn what_cannot_be_is_told() {
        assert!(stream(&[(1, "a")]).whole().is_err(), "a hole");
        assert!(stream(&[(0, "ab"), (1, "c")]).whole().is_err(), "a contradiction");
    }
}
