//! Peers without kernel sockets: both ends of a million sessions, in a few dozen bytes each.
//!
//! Each side is a TUN device behind a host that forwards; what comes out of it is answered by hand.
//! Owns: the addresses of the peers, and what each end would know of its connection. Does not own: time
//! (whoever drives it says when something is due again).
//!
//! | part | is |
//! |---|---|
//! | [`Peers`] | both sides, driven together |
//! | `client` | opens sessions, asks, compares the answers |
//! | `server` | accepts, and says again what it is told |
//! | `gate` | the device, and the addresses behind it |

mod client;
mod gate;
mod server;

use std::time::Duration;

use crate::attack::{ACK, PSH, Segment};

pub use self::client::{Clients, Tally};
pub use self::gate::{CLIENTS, Gate, Range, SERVERS};
pub use self::server::Servers;

/// Bytes of each question and of its answer.
pub const QUESTION_LEN: usize = 16;

/// How many packets one side handles before the other has its turn.
const BATCH: usize = 256;

/// Both sides.
pub struct Peers {
    /// Those who open sessions.
    pub clients: Clients,
    /// Those who accept them.
    pub servers: Servers,
    client_gate: Gate,
    server_gate: Gate,
}

impl Peers {
    /// Clients and servers behind these gates.
    pub fn new(clients: (Clients, Gate), servers: (Servers, Gate)) -> Self {
        let ((clients, client_gate), (servers, server_gate)) = (clients, servers);
        Self { clients, servers, client_gate, server_gate }
    }

    /// Takes what has arrived and answers it; begins what the clients want to begin. Whether there was
    /// anything to do.
    pub fn turn(&mut self, now: Duration) -> bool {
        let mut busy = false;
        for _ in 0..BATCH {
            let Some(segment) = self.client_gate.receive() else { break };
            busy = true;
            if let Some(answer) = self.clients.receive(&segment, now) {
                self.client_gate.send(&answer);
            }
        }
        while let Some(segment) = self.clients.poll(now) {
            busy = true;
            self.client_gate.send(&segment);
        }
        for _ in 0..BATCH {
            let Some(segment) = self.server_gate.receive() else { break };
            busy = true;
            if let Some(answer) = self.servers.receive(&segment) {
                self.server_gate.send(&answer);
            }
        }
        busy
    }
}

/// What an end knows of its established connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Numbers {
    /// SND.NXT.
    send_next: u32,
    /// RCV.NXT.
    receive_next: u32,
}

impl Numbers {
    /// The acknowledgment of everything that has come so far, as answer to `segment`.
    fn acknowledge(self, segment: &Segment) -> Segment {
        self.say(segment, Vec::new())
    }

    /// `payload` as the next thing to be said, in the other direction of `segment`.
    fn say(self, segment: &Segment, payload: Vec<u8>) -> Segment {
        let flags = if payload.is_empty() { ACK } else { ACK | PSH };
        let (seq, ack) = (self.send_next, self.receive_next);
        Segment { from: segment.to, to: segment.from, seq, ack, flags, payload }
    }
}

/// An initial sequence number that both runs of a seed agree on.
fn initial_sequence(seed: u64, number: u64) -> u32 {
    let mixed = (number ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32
}

#[cfg(test)]
mod tests;
