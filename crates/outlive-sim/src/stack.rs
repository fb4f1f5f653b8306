//! What a host needs of a TCP: `linux`, `smoltcp` and `endpoint` provide it.

use outlive_tcp::{
    endpoint::Connection,
    time::Time,
    wire::{FourTuple, icmp::IcmpError},
};

/// Which TCP a host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One that behaves as Linux was seen to do.
    Linux,
    /// `smoltcp`, which shares nothing with Outlive.
    Smoltcp,
    /// Outlive's own, which acknowledges what its program has made safe.
    Outlive,
}

/// What kind of TCP a host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackSetup {
    /// Which.
    pub kind: Kind,
    /// Bytes of its receive buffer, which also decides its window scale.
    pub receive_buffer: usize,
    /// It offers timestamps.
    pub timestamps: bool,
    /// It offers SACK (`smoltcp` always does).
    pub sack: bool,
    /// Its MTU in bytes.
    pub mtu: usize,
    /// Its sequence numbers and timestamps pass zero soon after the beginning of the load (Linux only).
    pub wraps: bool,
}

impl Default for StackSetup {
    fn default() -> Self {
        StackSetup {
            kind: Kind::Linux,
            receive_buffer: 65_535,
            timestamps: true,
            sack: true,
            mtu: 1_500,
            wraps: false,
        }
    }
}

/// Where a connection stands, as far as applications and checks care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The handshake is not over.
    Opening,
    /// It lives.
    Open,
    /// Only the acknowledgment of its FIN is missing.
    LastWords,
    /// TIME-WAIT.
    TimeWait,
    /// There is none, or no more.
    Closed,
}

/// The connections of a host, named by the tuple of what they send.
pub(crate) trait Ends {
    /// Accepts connections to `port` from now on.
    fn listen(&mut self, port: u16);
    /// Begins a connection.
    fn connect(&mut self, now: Time, tuple: FourTuple);
    /// A packet arrives.
    fn receive(&mut self, now: Time, packet: Vec<u8>);
    /// Does what is due, and makes packets.
    fn poll(&mut self, now: Time);
    /// When something is due.
    fn deadline(&self) -> Option<Time>;
    /// The next packet to be sent.
    fn transmit(&mut self) -> Option<Vec<u8>>;
    /// A connection that has been accepted.
    fn accepted(&mut self) -> Option<FourTuple>;
    /// Where a connection stands.
    fn phase(&self, tuple: &FourTuple) -> Phase;
    /// Bytes that wait to be read.
    fn unread(&self, tuple: &FourTuple) -> usize;
    /// Reads; returns how many bytes.
    fn read(&mut self, tuple: &FourTuple, out: &mut [u8]) -> usize;
    /// Everything was read, and the other end has closed.
    fn has_ended(&mut self, tuple: &FourTuple) -> bool;
    /// How many bytes may be written.
    fn room(&self, tuple: &FourTuple) -> usize;
    /// Writes bytes, for which there is room.
    fn write(&mut self, tuple: &FourTuple, bytes: &[u8]);
    /// Closes this direction.
    fn close(&mut self, tuple: &FourTuple);
    /// Removes a connection without a word.
    fn forget(&mut self, tuple: &FourTuple);
    /// Goes on with a connection that another TCP has carried. Only Outlive's own can.
    fn infuse(&mut self, _now: Time, _connection: Connection) {}
    /// An ICMP error arrives about a packet that was sent.
    fn receive_error(&mut self, _now: Time, _error: &IcmpError) {}
}
