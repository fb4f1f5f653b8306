//! Servers that say again what they are told.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::{Numbers, QUESTION_LEN, initial_sequence};
use crate::attack::{ACK, RST, SYN, Segment};

/// All servers of a lab, at any number of addresses.
#[derive(Default)]
pub struct Servers {
    sessions: HashMap<(SocketAddr, SocketAddr), Numbers>,
    seed: u64,
    resets: u64,
}

impl Servers {
    /// Without sessions; `seed` decides their sequence numbers.
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Sessions that have been accepted.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Resets of known sessions.
    pub fn resets(&self) -> u64 {
        self.resets
    }

    /// What the server says to the segment.
    pub(super) fn receive(&mut self, segment: &Segment) -> Option<Segment> {
        let key = (segment.from, segment.to);
        if segment.flags & RST != 0 {
            self.resets += u64::from(self.sessions.contains_key(&key));
            return None;
        }
        if segment.flags & SYN != 0 {
            let number = u64::from(segment.from.port()) << 32 | u64::from(segment.seq);
            let start = initial_sequence(!self.seed, number);
            let numbers = Numbers {
                send_next: start.wrapping_add(1),
                receive_next: segment.seq.wrapping_add(1),
            };
            self.sessions.insert(key, numbers);
            let answer = Numbers { send_next: start, ..numbers }.acknowledge(segment);
            return Some(Segment { flags: SYN | ACK, ..answer });
        }
        let numbers = self.sessions.get_mut(&key)?;
        let len = segment.payload.len();
        if len == 0 {
            return None;
        }
        let end = segment.seq.wrapping_add(len as u32);
        if segment.seq == numbers.receive_next && len == QUESTION_LEN {
            let answer =
                Numbers { receive_next: end, ..*numbers }.say(segment, segment.payload.clone());
            *numbers = Numbers {
                send_next: numbers.send_next.wrapping_add(len as u32),
                receive_next: end,
            };
            return Some(answer);
        }
        if end == numbers.receive_next && len == QUESTION_LEN {
            // The last question again: its answer was lost.
            let before = numbers.send_next.wrapping_sub(len as u32);
            let again = Numbers { send_next: before, ..*numbers };
            return Some(again.say(segment, segment.payload.clone()));
        }
        // Anything else is answered with what has come (RFC 9293, section 3.10.7.4).
        Some(numbers.acknowledge(segment))
    }
}
