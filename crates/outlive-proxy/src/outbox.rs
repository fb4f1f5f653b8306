//! Packets that the node makes itself, until the shell fetches them.

use std::collections::VecDeque;

use outlive_tcp::segment::Segment;

/// A queue of whole IP packets in one growing buffer, which is used again once it has been emptied: after
/// warming up it allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    ends: VecDeque<usize>,
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
        if self.ends.is_empty() {
            self.bytes.clear();
            self.start = 0;
        }
        let before = self.bytes.len();
        emit(&mut self.bytes);
        if self.bytes.len() > before {
            self.ends.push_back(self.bytes.len());
            self.made += 1;
        }
    }

    /// The oldest packet.
    pub(crate) fn poll(&mut self) -> Option<&[u8]> {
        let end = self.ends.pop_front()?;
        let start = std::mem::replace(&mut self.start, end);
        Some(&self.bytes[start..end])
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
