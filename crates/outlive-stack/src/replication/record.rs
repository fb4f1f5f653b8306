//! What is told of one connection: where the layout is, see `docs/stack-replication.md`.
//!
//! A record contains the connection's [capture](outlive_tcp::endpoint::Connection::capture), but of the
//! output in it only what the standby does not hold yet.

use outlive_tcp::seq::Seq;

use super::message::{Body, StateError};
use crate::id::ConnectionId;

/// Of a capture (`docs/endpoint-state.md`): where the length of its output stands, and where the output
/// begins.
const OUTPUT_LEN: usize = 140;
const OUTPUT: usize = 148;
/// Where its ends stand.
const ENDS: std::ops::Range<usize> = 12..48;

const CONNECTION: u8 = 1;
const ENDED: u8 = 2;

const FULL: u8 = 1;
const STATE: u8 = 1 << 1;
const RELEASED: u8 = 1 << 2;
const REGENERATES: u8 = 1 << 3;

/// Bytes of a record beside state and output: more than it can have.
pub(super) const OVERHEAD: usize = 512;

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    /// A connection is so far.
    Connection(Update<'a>),
    /// A connection is over.
    Ended(ConnectionId),
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Update<'a> {
    pub(super) id: ConnectionId,
    /// The standby need not hold anything of it.
    pub(super) full: bool,
    /// The program has let it go.
    pub(super) released: bool,
    /// The program computes its output again: none is told.
    pub(super) regenerates: bool,
    /// The pair's clock at the capture.
    pub(super) clock_us: u64,
    /// The other end's initial sequence number.
    pub(super) irs: Seq,
    /// Up to where the other end's stream is acknowledged.
    pub(super) acknowledged: u64,
    /// Up to where the program has written; if it computes its output again, where it begins to.
    pub(super) written: u64,
    /// The program's state, if it is another.
    pub(super) state: Option<&'a [u8]>,
    /// How many bytes at the end of the output held come before the output that is in `capture`.
    pub(super) kept: u32,
    /// The capture without the output that is kept.
    pub(super) capture: &'a [u8],
}

/// Bytes of output in a whole capture.
pub(super) fn output_len(capture: &[u8]) -> Option<usize> {
    let len = capture.get(OUTPUT_LEN..)?.first_chunk()?;
    Some(u32::from_be_bytes(*len) as usize)
}

/// The output in a whole capture.
pub(super) fn output(capture: &[u8]) -> Option<&[u8]> {
    capture.get(OUTPUT..)?.get(..output_len(capture)?)
}

/// Takes the first `kept` bytes of output out of a whole capture.
pub(super) fn cut(capture: &mut Vec<u8>, kept: usize) {
    capture.drain(OUTPUT..OUTPUT + kept);
}

/// The two ends, as a capture has them.
pub(super) fn ends(capture: &[u8]) -> Option<&[u8]> {
    capture.get(ENDS)
}

impl Update<'_> {
    /// The whole capture, with what is kept of the output `held`.
    pub(super) fn whole(&self, held: &[u8]) -> Result<Vec<u8>, StateError> {
        let kept = self.kept as usize;
        let (front, rest) = self.capture.split_at_checked(OUTPUT).ok_or(StateError::Malformed)?;
        let len = output_len(self.capture).ok_or(StateError::Malformed)?;
        let fits = kept <= len && kept <= held.len() && rest.len() >= len - kept;
        if !fits {
            return Err(StateError::Malformed);
        }
        let mut whole = Vec::with_capacity(self.capture.len() + kept);
        whole.extend_from_slice(front);
        whole.extend_from_slice(&held[held.len() - kept..]);
        whole.extend_from_slice(rest);
        Ok(whole)
    }
}

impl<'a> Record<'a> {
    /// Appends the record.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Record::Connection(update) => update.encode(out),
            Record::Ended(id) => {
                out.push(ENDED);
                out.extend(id.to_bytes());
            }
        }
    }

    /// Reads a whole record.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, StateError> {
        let mut body = Body(bytes);
        let record = match body.take()? {
            [CONNECTION] => Record::Connection(Update::decode(&mut body)?),
            [ENDED] => Record::Ended(ConnectionId::from_bytes(body.take()?)),
            _ => return Err(StateError::Malformed),
        };
        if body.0.is_empty() { Ok(record) } else { Err(StateError::Malformed) }
    }
}

impl<'a> Update<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        let flags = [
            (self.full, FULL),
            (self.state.is_some(), STATE),
            (self.released, RELEASED),
            (self.regenerates, REGENERATES),
        ];
        let flags = flags.iter().filter(|(set, _)| *set).fold(0, |sum, (_, flag)| sum | flag);
        out.extend([CONNECTION, flags]);
        out.extend(self.id.to_bytes());
        out.extend(self.clock_us.to_be_bytes());
        out.extend(self.irs.0.to_be_bytes());
        out.extend(self.acknowledged.to_be_bytes());
        out.extend(self.written.to_be_bytes());
        out.extend(self.kept.to_be_bytes());
        let state = self.state.unwrap_or_default();
        out.extend((state.len() as u32).to_be_bytes());
        out.extend_from_slice(state);
        out.extend_from_slice(self.capture);
    }

    fn decode(body: &mut Body<'a>) -> Result<Self, StateError> {
        let [flags] = body.take()?;
        let mut update = Update {
            id: ConnectionId::from_bytes(body.take()?),
            full: flags & FULL != 0,
            released: flags & RELEASED != 0,
            regenerates: flags & REGENERATES != 0,
            clock_us: body.u64()?,
            irs: Seq(body.u32()?),
            acknowledged: body.u64()?,
            written: body.u64()?,
            kept: body.u32()?,
            state: None,
            capture: &[],
        };
        let len = body.u32()? as usize;
        let state = body.bytes(len)?;
        update.state = (flags & STATE != 0).then_some(state);
        update.capture = body.rest();
        if flags & !(FULL | STATE | RELEASED | REGENERATES) != 0
            || (update.state.is_none() && len > 0)
        {
            return Err(StateError::Malformed);
        }
        Ok(update)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ConnectionId = ConnectionId { process: 1, serial: 2 };

    fn update(capture: &[u8]) -> Update<'_> {
        Update {
            id: ID,
            full: false,
            released: true,
            regenerates: true,
            clock_us: 3,
            irs: Seq(4),
            acknowledged: 5,
            written: 6,
            state: Some(b"st"),
            kept: 2,
            capture,
        }
    }

    /// A change here is a change of the protocol: see docs/stack-replication.md.
    #[test]
    fn the_layout_is_fixed() {
        let golden = b"\x01\x0e\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\x04\
            \0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x06\0\0\0\x02\0\0\0\x02stcapture";
        let mut bytes = Vec::new();
        Record::Connection(update(b"capture")).encode(&mut bytes);
        assert_eq!(bytes, golden);
        assert_eq!(Record::decode(&bytes), Ok(Record::Connection(update(b"capture"))));

        bytes.clear();
        Record::Ended(ID).encode(&mut bytes);
        assert_eq!(bytes, b"\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02");
        assert_eq!(Record::decode(&bytes), Ok(Record::Ended(ID)));
    }

    #[test]
    fn output_that_is_held_is_not_told_again() {
        let mut capture: Vec<u8> = (0..OUTPUT).map(|i| i as u8).collect();
        capture[OUTPUT_LEN..OUTPUT_LEN + 4].copy_from_slice(&5u32.to_be_bytes());
        capture.extend(b"cdefgREST");
        assert_eq!(output(&capture), Some(&b"cdefg"[..]));
        let mut told = capture.clone();
        cut(&mut told, 2);
        assert!(told.ends_with(b"efgREST"));
        assert_eq!(update(&told).whole(b"abcd"), Ok(capture));
        assert_eq!(update(&told).whole(b"d"), Err(StateError::Malformed));
        assert_eq!(update(&told[..100]).whole(b"abcd"), Err(StateError::Malformed));
    }
}
