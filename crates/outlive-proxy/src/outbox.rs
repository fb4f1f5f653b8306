//! Packets that the node makes itself, until the shell fetches them.

use std::collections::VecDeque;

use outlive_tcp::{segment::Segment, wire::Offload};

/// A queue of whole IP packets in one growing buffer, which is used again once it has been emptied: after
/// warming up it allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    /// Of each packet: where it ends, and what the device has to do to it.
    ends: VecDeque<(usize, Offload)>,
    start: usize,
    made: u64,
}

impl Outbox {
    /// Appends a segment.
    pub(crate) fn send(&mut self, segment: &Segment<'_>) {
        self.append(|bytes| segment.emit(bytes));
    }

    /// Appends whatever packet `emit` writes; nothing if it writes nothing.
    pub(crate) fn append(&mut self, emit: impl FnOnce(&mut Vec<u8>)) {
        self.append_with(|bytes| {
            emit(bytes);
            Offload::default()
        });
    }

    /// The same of a packet that the device has to do something to.
    pub(crate) fn append_with(&mut self, emit: impl FnOnce(&mut Vec<u8>) -> Offload) {
        if self.ends.is_empty() {
            self.bytes.clear();
            self.start = 0;
        }
        let before = self.bytes.len();
        let offload = emit(&mut self.bytes);
        if self.bytes.len() > before {
            self.ends.push_back((self.bytes.len(), offload));
            self.made += 1;
        }
    }

    /// The oldest packet.
    pub(crate) fn poll(&mut self) -> Option<(&[u8], Offload)> {
        let (end, offload) = self.ends.pop_front()?;
        let start = std::mem::replace(&mut self.start, end);
        Some((&self.bytes[start..end], offload))
    }

    /// Forgets everything that was not fetched.
    pub(crate) fn clear(&mut self) {
        self.ends.clear();
    }

    /// Packets ever appended.
    pub(crate) fn made(&self) -> u64 {
        self.made
    }
}
