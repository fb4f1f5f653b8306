//! The ring in which the program says which sessions want to be looked at.
//!
//! Layout as in the kernel's `Documentation/bpf/ringbuf.rst`: a page with the consumer's position, a page with
//! the producer's, then the data, mapped twice in a row so that no record is ever cut.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::Ordering,
};

use super::syscall::{MapKind, Mapping, create_map, page_size};

/// Bytes of the ring: a power of two and of whole pages.
const LEN: usize = 1 << 20;
const HEADER_LEN: u64 = 8;
/// The program is still writing the record.
const BUSY: u32 = 1 << 31;
/// It has thought better of it.
const DISCARDED: u32 = 1 << 30;

/// The reading end.
#[derive(Debug)]
pub(super) struct Ring {
    map: OwnedFd,
    consumer: Mapping,
    /// The producer's page, and the data twice.
    producer: Mapping,
    read: u64,
}

impl Ring {
    pub(super) fn new() -> io::Result<Self> {
        let map = create_map(MapKind::Ring, 0, 0, LEN as u32)?;
        let page = page_size();
        let consumer = Mapping::new(map.as_fd(), 0, page, true)?;
        let producer = Mapping::new(map.as_fd(), page, page + 2 * LEN, false)?;
        Ok(Ring { map, consumer, producer, read: 0 })
    }

    /// The next record: two numbers.
    pub(super) fn poll(&mut self) -> Option<(u32, u32)> {
        loop {
            // The records before the position are complete, or marked.
            if self.producer.double(0).load(Ordering::Acquire) == self.read {
                return None;
            }
            let at = page_size() + (self.read as usize & (LEN - 1));
            let header = self.producer.word(at).load(Ordering::Acquire);
            if header & BUSY != 0 {
                return None;
            }
            let number = |i: usize| self.producer.word(at + 8 + 4 * i).load(Ordering::Relaxed);
            let record = (number(0), number(1));
            let len = u64::from(header & !DISCARDED);
            self.read += HEADER_LEN + len.next_multiple_of(8);
            self.consumer.double(0).store(self.read, Ordering::Release);
            if header & DISCARDED == 0 {
                return Some(record);
            }
        }
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}
