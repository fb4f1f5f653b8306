//! The disk's side: entries, each on the disk before anybody is told that it is.
//!
//! An entry is a line of text (the connection's name, the position of the first byte, how many there are, XXH3 of
//! name, position and bytes in hexadecimal), then the bytes, then a newline:
//!
//! ```text
//! 00c0ffee00c0ffee-17 4096 6 9c3a5f0e12b4d687
//! hello
//!
//! ```
//!
//! One without bytes says that the stream ended there. Entries of many connections that come at the same
//! time are made durable by one `fsync`.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
};

use bytes::Bytes;
use outlive_socket::ConnectionId;
use tokio::sync::{mpsc, oneshot};
use xxhash_rust::xxh3::Xxh3Default;

/// Entries that wait for the disk; then whoever comes waits, too.
const QUEUE: usize = 1_024;
/// Bytes that one `fsync` covers at most, more or less.
const BATCH: usize = 8 << 20;

/// What is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: ConnectionId,
    /// Where in the stream the first byte stands.
    pub(crate) position: u64,
    /// None: the stream ended here.
    pub(crate) bytes: Bytes,
}

/// The log of this node. Clones write into the same one.
#[derive(Clone)]
pub(crate) struct Log {
    queue: mpsc::Sender<(Entry, oneshot::Sender<()>)>,
}

impl Log {
    /// Opens the log, and makes it if it is not there. What a crash has left half written at its end is
    /// cut off: nobody was told that it is there.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).open(path)?;
        let known = std::fs::read(path)?;
        let mut entries = Entries(&known);
        entries.by_ref().for_each(drop);
        file.set_len((known.len() - entries.0.len()) as u64)?;
        file.sync_all()?;
        if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(directory)?.sync_all()?;
        }
        let (queue, waiting) = mpsc::channel(QUEUE);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            if let Err(error) = write(&mut file, waiting) {
                eprintln!("the log cannot be written, nothing is acknowledged any more: {error}");
            }
        })?;
        Ok(Log { queue })
    }

    /// Returns when the entry is on the disk.
    pub(crate) async fn append(
        &self,
        id: ConnectionId,
        position: u64,
        bytes: Bytes,
    ) -> io::Result<()> {
        self.begin(id, position, bytes).await?.wait().await
    }

    /// Returns when the entry has its place in the log, behind all that were begun before.
    pub(crate) async fn begin(
        &self,
        id: ConnectionId,
        position: u64,
        bytes: Bytes,
    ) -> io::Result<Underway> {
        let (done, durable) = oneshot::channel();
        let entry = Entry { id, position, bytes };
        self.queue.send((entry, done)).await.map_err(|_| broken())?;
        Ok(Underway(durable))
    }
}

/// An entry on its way to the disk.
pub(crate) struct Underway(oneshot::Receiver<()>);

impl Underway {
    /// Returns when it is there. May be given up, and called again.
    pub(crate) async fn wait(&mut self) -> io::Result<()> {
        (&mut self.0).await.map_err(|_| broken())
    }

    /// Whether it is there, as far as is known.
    pub(crate) fn is_durable(&mut self) -> bool {
        self.0.try_recv().is_ok()
    }
}

fn broken() -> io::Error {
    io::Error::other("the log cannot be written")
}

/// Writes what waits, all of it at once.
fn write(
    file: &mut File,
    mut waiting: mpsc::Receiver<(Entry, oneshot::Sender<()>)>,
) -> io::Result<()> {
    let (mut batch, mut told) = (Vec::new(), Vec::new());
    while let Some((entry, done)) = waiting.blocking_recv() {
        entry.encode(&mut batch);
        told.push(done);
        while batch.len() < BATCH
            && let Ok((entry, done)) = waiting.try_recv()
        {
            entry.encode(&mut batch);
            told.push(done);
        }
        file.write_all(&batch)?;
        file.sync_data()?;
        batch.clear();
        // Who has gone meanwhile need not know.
        for done in told.drain(..) {
            let _ = done.send(());
        }
    }
    Ok(())
}

impl Entry {
    fn encode(&self, out: &mut Vec<u8>) {
        let Entry { id, position, bytes } = self;
        let head = format!("{id} {position} {} {:016x}\n", bytes.len(), self.checksum());
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(bytes);
        out.push(b'\n');
    }

    fn checksum(&self) -> u64 {
        let mut hash = Xxh3Default::new();
        hash.update(&self.id.process.to_be_bytes());
        hash.update(&self.id.serial.to_be_bytes());
        hash.update(&self.position.to_be_bytes());
        hash.update(&self.bytes);
        hash.digest()
    }
}

/// The entries of a log, up to the first that is not whole. What is left is behind them.
pub(crate) struct Entries<'a>(pub(crate) &'a [u8]);

impl Iterator for Entries<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let (entry, rest) = decode(self.0)?;
        self.0 = rest;
        Some(entry)
    }
}

fn decode(log: &[u8]) -> Option<(Entry, &[u8])> {
    let end = log.iter().position(|byte| *byte == b'\n')?;
    let head = std::str::from_utf8(&log[..end]).ok()?;
    let mut fields = head.split(' ');
    let id = fields.next()?.parse().ok()?;
    let position = fields.next()?.parse().ok()?;
    let len = fields.next()?.parse().ok()?;
    let checksum = u64::from_str_radix(fields.next()?, 16).ok()?;
    let (bytes, rest) = log[end + 1..].split_at_checked(len)?;
    let entry = Entry { id, position, bytes: Bytes::copy_from_slice(bytes) };
    let rest = rest.strip_prefix(b"\n")?;
    (entry.checksum() == checksum && fields.next().is_none()).then_some((entry, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_up_to_the_first_that_is_not_whole() {
        let id = ConnectionId { process: 0xc0_ffee, serial: 17 };
        let entry =
            |position, bytes: &'static [u8]| Entry { id, position, bytes: Bytes::from(bytes) };
        let entries = [entry(0, b"one\ntwo\n"), entry(8, b"thr"), entry(11, b"")];
        let mut log = Vec::new();
        let mut ends = Vec::new();
        for entry in &entries {
            entry.encode(&mut log);
            ends.push(log.len());
        }
        for cut in 0..=log.len() {
            let mut read = Entries(&log[..cut]);
            let whole = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(read.by_ref().collect::<Vec<_>>(), entries[..whole]);
            assert_eq!(read.0.len(), cut - ends[..whole].last().unwrap_or(&0));
        }
        log[ends[0] - 3] ^= 1;
        assert_eq!(Entries(&log).count(), 0, "a damaged entry is none");
    }
}
