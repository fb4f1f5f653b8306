//! The socket, requests and their answers.

use std::{cell::Cell, io};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::{Cause, NetlinkError};
use crate::Errno;

/// Larger than any datagram the kernel makes of a dump (32 KiB) or of one object.
const RECEIVE_LEN: usize = 1 << 16;
/// A table that changes while it is read is read again, this often at most.
const DUMP_ATTEMPTS: usize = 8;

/// `nlmsgerr` after the error number: the request's header, then attributes.
const REQUEST_HEADER_LEN: usize = 16;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// A netlink socket of one network namespace.
///
/// `Send`, but not `Sync`: requests of one socket follow one another.
pub struct Netlink {
    socket: Socket,
    sequence: Cell<u32>,
}

impl std::fmt::Debug for Netlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Netlink").finish_non_exhaustive()
    }
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// Needs no privilege; what is asked of it may.
    pub fn open() -> Result<Netlink, NetlinkError> {
        let opened = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            // Refusals say why, and do not repeat the whole request. Old kernels know neither:
            // then there is no hint.
            let _ = socket.set_ext_ack(true);
            let _ = socket.set_cap_ack(true);
            Ok(socket)
        };
        let socket = opened().map_err(|error| NetlinkError::opening(Errno::of(&error)))?;
        Ok(Netlink { socket, sequence: Cell::new(0) })
    }

    /// Asks the kernel to change something. `flags`: `NLM_F_CREATE` and its like. `operation`
    /// is called if it fails, for the error's words.
    pub(super) fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        operation: impl Fn() -> String,
    ) -> Result<(), NetlinkError> {
        let answer = self.exchange(message, NLM_F_REQUEST | NLM_F_ACK | flags, |_| ());
        answer.map(drop).map_err(|cause| NetlinkError { operation: operation(), cause })
    }

    /// Asks the kernel for one object. `None` if the answer held none that `pick` takes.
    pub(super) fn query<T>(
        &self,
        message: RouteNetlinkMessage,
        operation: impl Fn() -> String,
        pick: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Option<T>, NetlinkError> {
        let mut found = None;
        self.exchange(message, NLM_F_REQUEST | NLM_F_ACK, |message| {
            if found.is_none() {
                found = pick(message);
            }
        })
        .map_err(|cause| NetlinkError { operation: operation(), cause })?;
        Ok(found)
    }

    /// Asks the kernel for all objects of a table.
    ///
    /// An object in a form that the format library does not know is left out: a newer kernel's
    /// exotic interface must not keep anybody from finding the others.
    pub(super) fn dump<T>(
        &self,
        message: RouteNetlinkMessage,
        operation: impl Fn() -> String,
        pick: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        let mut cause = Cause::Unintelligible;
        for _ in 0..DUMP_ATTEMPTS {
            let mut found = Vec::new();
            let flags = NLM_F_REQUEST | NLM_F_DUMP;
            match self.exchange(message.clone(), flags, |message| found.extend(pick(message))) {
                Ok(Complete::Yes) => return Ok(found),
                Ok(Complete::Interrupted) => {
                    cause = Cause::Refused { errno: Errno(libc::EAGAIN), hint: None };
                }
                Err(other) => return Err(NetlinkError { operation: operation(), cause: other }),
            }
        }
        Err(NetlinkError { operation: operation(), cause })
    }

    /// Sends a request and hands each object of the answer to `take`, up to the
    /// acknowledgment or the end of the dump.
    fn exchange(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        mut take: impl FnMut(RouteNetlinkMessage),
    ) -> Result<Complete, Cause> {
        let sequence = self.send(message, flags)?;
        let mut complete = Complete::Yes;
        let mut datagram = Vec::with_capacity(RECEIVE_LEN);
        loop {
            datagram.clear();
            self.receive(&mut datagram)?;
            let mut rest = datagram.as_slice();
            while let Some((message, after)) = split_message(rest) {
                rest = after;
                let header = NetlinkBuffer::new(message);
                // What is left of an exchange that failed half-way is not ours.
                if header.sequence_number() != sequence {
                    continue;
                }
                if header.flags() & NLM_F_DUMP_INTR != 0 {
                    complete = Complete::Interrupted;
                }
                match interpret(message) {
                    Answer::Object(object) => take(*object),
                    Answer::Skip => {}
                    Answer::End => return Ok(complete),
                    Answer::Refusal(cause) => return Err(cause),
                }
            }
        }
    }

    fn send(&self, message: RouteNetlinkMessage, flags: u16) -> Result<u32, Cause> {
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        retry(|| self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0))?;
        Ok(sequence)
    }

    fn receive(&self, datagram: &mut Vec<u8>) -> Result<usize, Cause> {
        retry(|| self.socket.recv(datagram, 0))
    }
}

/// Whether a dump was consistent.
enum Complete {
    Yes,
    /// The table changed meanwhile; some objects may be missing.
    Interrupted,
}

/// What one message of an answer means.
enum Answer {
    Object(Box<RouteNetlinkMessage>),
    Skip,
    End,
    Refusal(Cause),
}

/// Cuts one message off a datagram; `None` at the end, and where the length is nonsense.
fn split_message(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let header = NetlinkBuffer::new_checked(bytes).ok()?;
    let len = header.length() as usize;
    let message = bytes.get(..len)?;
    let aligned = len.next_multiple_of(4).min(bytes.len());
    Some((message, &bytes[aligned..]))
}

fn interpret(message: &[u8]) -> Answer {
    let Ok(parsed) = NetlinkMessage::<Undecoded>::deserialize(message) else {
        return Answer::Refusal(Cause::Unintelligible);
    };
    match parsed.payload {
        NetlinkPayload::Done(done) if done.code == 0 => Answer::End,
        NetlinkPayload::Done(done) => {
            Answer::Refusal(Cause::Refused { errno: Errno(done.code.saturating_abs()), hint: None })
        }
        NetlinkPayload::Error(error) => match error.code {
            None => Answer::End,
            Some(code) => Answer::Refusal(Cause::Refused {
                errno: Errno(code.get().saturating_abs()),
                hint: hint(parsed.header.flags, &error.header),
            }),
        },
        NetlinkPayload::InnerMessage(Undecoded(Some(object))) => Answer::Object(object),
        _ => Answer::Skip,
    }
}

/// The kernel's explanation behind a refusal (`NLMSGERR_ATTR_MSG`).
fn hint(flags: u16, after_code: &[u8]) -> Option<String> {
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let mut attributes = after_code.get(REQUEST_HEADER_LEN..)?;
    loop {
        let &[l0, l1, t0, t1, ..] = attributes else { return None };
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = attributes.get(4..len)?;
        if u16::from_ne_bytes([t0, t1]) == NLMSGERR_ATTR_MSG {
            let text = String::from_utf8_lossy(value);
            return Some(text.trim_end_matches('\0').to_owned());
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
}

/// An object of an answer, or `None` for one that the format library cannot read.
struct Undecoded(Option<Box<RouteNetlinkMessage>>);

impl NetlinkDeserializable for Undecoded {
    type Error = std::convert::Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Self::Error> {
        Ok(Undecoded(RouteNetlinkMessage::deserialize(header, payload).ok().map(Box::new)))
    }
}

/// Repeats a system call that a signal interrupted.
fn retry(mut call: impl FnMut() -> io::Result<usize>) -> Result<usize, Cause> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map_err(|error| Cause::Socket(Errno::of(&error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_lengths_end_the_datagram() {
        assert!(split_message(&[]).is_none());
        assert!(split_message(&[0; 15]).is_none());
        let mut longer_than_the_datagram = [0; 20];
        longer_than_the_datagram[..4].copy_from_slice(&21_u32.to_ne_bytes());
        assert!(split_message(&longer_than_the_datagram).is_none());
        let mut shorter_than_its_header = [0; 20];
        shorter_than_its_header[..4].copy_from_slice(&3_u32.to_ne_bytes());
        assert!(split_message(&shorter_than_its_header).is_none());
    }

    #[test]
    fn hint_is_found_behind_other_attributes() {
        let mut bytes = vec![0; REQUEST_HEADER_LEN];
        for (kind, value) in [(2_u16, &b"abcd"[..]), (NLMSGERR_ATTR_MSG, b"no gateway\0")] {
            bytes.extend((4 + value.len() as u16).to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value);
        }
        assert_eq!(hint(NLM_F_ACK_TLVS, &bytes).as_deref(), Some("no gateway"));
        assert_eq!(hint(0, &bytes), None);
        for end in 0..bytes.len() {
            assert_eq!(hint(NLM_F_ACK_TLVS, &bytes[..end]), None, "cut at {end}");
        }
    }
}
