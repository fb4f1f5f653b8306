//! A state connection without its socket: bytes in and out on one side, messages on the other.
//!
//! After the preambles comes the handshake `Noise_NNpsk0_25519_ChaChaPoly_SHA256`: the nodes
//! have nothing but a common secret, so neither has a static key to show; the secret goes into the
//! first message, so that a stranger is turned away before any curve arithmetic; and the ephemeral keys keep past
//! connections closed to whoever gets hold of the key file later. A recorded first message can be
//! replayed; therefore the listening side calls the connection open only with the first frame
//! that decrypts, which the dialing side sends (empty) at once.
//!
//! Every frame is a length (two bytes) and a Noise message; the plaintext is a batch of
//! messages, each behind its length. A frame of one byte during the handshake is a refusal: its
//! sender says, unauthenticated and only good for a log, why it is about to close.
//!
//! Order of use: [`receive`](Channel::receive) bytes, [`poll`](Channel::poll) until it gives `None`,
//! [`push_with`](Channel::push_with) while there [is room](Channel::has_room), [`seal`](Channel::seal),
//! send [`outbound`](Channel::outbound). After an error only what is outbound is still sent.

use snow::{HandshakeState, TransportState};

use super::{
    Failure,
    preamble::{Introduction, PREAMBLE_LEN},
};

/// The longest message, in bytes.
pub const MAX_MESSAGE: usize = outlive_proxy::MAX_STATE_MESSAGE;
/// Once this many bytes wait to be sent there is no more room for messages.
pub const SEND_LIMIT: usize = 256 * 1024;

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_SHA256";
const LENGTH: usize = 2;
const TAG: usize = 16;
/// The longest frame that a length can announce.
const MAX_FRAME: usize = u16::MAX as usize;
const MAX_BATCH: usize = MAX_FRAME - TAG;
/// Handshake messages carry an ephemeral public key and a tag.
const HANDSHAKE_MESSAGE: usize = 32 + TAG;
/// The refusal that says that the key is another.
const REFUSED_KEY: u8 = 1;

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Made the connection; begins the handshake.
    Dialer,
    /// Accepted it.
    Listener,
    /// Made it only to see who is there; says nothing itself.
    Prober,
}

/// What came out of received bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum ChannelEvent<'a> {
    /// The peer has proved that it has the key: messages may follow both ways.
    Open,
    /// To a prober: a fitting peer is there.
    Greeted,
    /// A message.
    Message(&'a [u8]),
}

/// A state connection without its socket.
pub struct Channel {
    side: Side,
    own: Introduction,
    psk: [u8; 32],
    phase: Phase,
    /// Received and not yet decrypted: from `inbound_at` on.
    inbound: Vec<u8>,
    inbound_at: usize,
    /// The batch that was decrypted last, of which `plain_at..plain_len` is still to be given.
    plain: Vec<u8>,
    plain_at: usize,
    plain_len: usize,
    /// Messages for the next frame.
    batch: Vec<u8>,
    /// Ready for the socket: from `outbound_at` on.
    outbound: Vec<u8>,
    outbound_at: usize,
}

enum Phase {
    /// Waiting for the peer's preamble.
    Preamble,
    /// Waiting for the peer's handshake message.
    Handshake(Box<HandshakeState>),
    /// Listener: waiting for the first frame that proves that the dialer is alive.
    Confirmation(Box<TransportState>),
    Open(Box<TransportState>),
    Failed(Failure),
}

impl Channel {
    /// One end of a connection that has just been made. `psk` as of
    /// [`PairKey::state_psk`](crate::key::PairKey::state_psk) between nodes, as of
    /// [`HostKey::psk`](crate::key::HostKey::psk) between a node and a target. The preamble is outbound.
    pub fn new(side: Side, own: impl Into<Introduction>, psk: [u8; 32]) -> Self {
        let own = own.into();
        Channel {
            side,
            own,
            psk,
            phase: Phase::Preamble,
            inbound: Vec::new(),
            inbound_at: 0,
            plain: Vec::new(),
            plain_at: 0,
            plain_len: 0,
            batch: Vec::new(),
            outbound: if side == Side::Prober { Vec::new() } else { own.encode().to_vec() },
            outbound_at: 0,
        }
    }

    /// Whether messages can be exchanged.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// Takes bytes from the socket. Call [`poll`](Self::poll) afterwards until it gives `None`,
    /// else they pile up.
    pub fn receive(&mut self, bytes: &[u8]) {
        if self.inbound_at > 0 {
            self.inbound.drain(..self.inbound_at);
            self.inbound_at = 0;
        }
        self.inbound.extend_from_slice(bytes);
    }

    /// The next thing that the received bytes hold; `None` if it is not there yet.
    ///
    /// # Errors
    /// The connection cannot go on; the same again on every further call.
    pub fn poll(&mut self) -> Result<Option<ChannelEvent<'_>>, Failure> {
        match self.step() {
            Ok(Step::Nothing) => Ok(None),
            Ok(Step::Greeted) => Ok(Some(ChannelEvent::Greeted)),
            Ok(Step::Opened) => Ok(Some(ChannelEvent::Open)),
            Ok(Step::Message { start, end }) => {
                Ok(Some(ChannelEvent::Message(&self.plain[start..end])))
            }
            Err(failure) => {
                self.phase = Phase::Failed(failure);
                Err(failure)
            }
        }
    }

    /// Whether another message may be pushed. Messages before the connection is open would
    /// be lost, so there is no room for them.
    pub fn has_room(&self) -> bool {
        self.is_open() && self.outbound.len() - self.outbound_at + self.batch.len() < SEND_LIMIT
    }

    /// Lets `write` append one message (at most [`MAX_MESSAGE`] bytes) to the next batch, and says whether
    /// it did: `write` returns `false` if it has none.
    ///
    /// # Errors
    /// [`Failure::TooLong`], after which the connection cannot go on.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>) -> bool) -> Result<bool, Failure> {
        if self.batch.len() + LENGTH + MAX_MESSAGE > MAX_BATCH {
            self.seal();
        }
        let at = self.batch.len();
        self.batch.extend_from_slice(&[0; LENGTH]);
        if !write(&mut self.batch) {
            self.batch.truncate(at);
            return Ok(false);
        }
        let len = self.batch.len().saturating_sub(at + LENGTH);
        match u16::try_from(len) {
            Ok(short) if len <= MAX_MESSAGE => {
                self.batch[at..at + LENGTH].copy_from_slice(&short.to_be_bytes());
                Ok(true)
            }
            _ => {
                self.batch.truncate(at);
                self.phase = Phase::Failed(Failure::TooLong);
                Err(Failure::TooLong)
            }
        }
    }

    /// Makes a frame of the messages pushed since the last one, if there are any.
    pub fn seal(&mut self) {
        if !self.batch.is_empty() {
            self.frame();
        }
    }

    /// What the socket should send next.
    pub fn outbound(&self) -> &[u8] {
        &self.outbound[self.outbound_at..]
    }

    /// The socket took the first `len` bytes of what is outbound.
    pub fn sent(&mut self, len: usize) {
        self.outbound_at += len.min(self.outbound.len() - self.outbound_at);
        if self.outbound_at == self.outbound.len() {
            self.outbound.clear();
            self.outbound_at = 0;
        } else if self.outbound_at > SEND_LIMIT {
            self.outbound.drain(..self.outbound_at);
            self.outbound_at = 0;
        }
    }

    fn step(&mut self) -> Result<Step, Failure> {
        loop {
            if let Some(message) = self.next_of_batch()? {
                return Ok(message);
            }
            match &mut self.phase {
                Phase::Failed(failure) => return Err(*failure),
                Phase::Preamble => {
                    let received = &self.inbound[self.inbound_at..];
                    let Some(bytes) = received.first_chunk::<PREAMBLE_LEN>() else {
                        return Ok(Step::Nothing);
                    };
                    let theirs = *bytes;
                    self.inbound_at += PREAMBLE_LEN;
                    self.own.check_peer(&theirs)?;
                    if self.side == Side::Prober {
                        return Ok(Step::Greeted);
                    }
                    self.begin_handshake(&theirs)?;
                }
                Phase::Handshake(_) => {
                    let Some((start, end)) = self.take_frame() else { return Ok(Step::Nothing) };
                    if let Some(step) = self.handshake_message(start, end)? {
                        return Ok(step);
                    }
                }
                Phase::Confirmation(_) | Phase::Open(_) => {
                    let Some((start, end)) = self.take_frame() else { return Ok(Step::Nothing) };
                    self.decrypt(start, end)?;
                    if let Phase::Confirmation(_) = self.phase {
                        self.phase = match std::mem::replace(&mut self.phase, Phase::Preamble) {
                            Phase::Confirmation(transport) => Phase::Open(transport),
                            other => other,
                        };
                        return Ok(Step::Opened);
                    }
                }
            }
        }
    }

    fn begin_handshake(&mut self, theirs: &[u8; PREAMBLE_LEN]) -> Result<(), Failure> {
        let own = self.own.encode();
        let prologue = match self.side {
            Side::Dialer => [own, *theirs].concat(),
            Side::Listener | Side::Prober => [*theirs, own].concat(),
        };
        let params = PATTERN.parse().map_err(|_: snow::Error| Failure::WrongKey)?;
        let builder = snow::Builder::new(params)
            .prologue(&prologue)
            .and_then(|builder| builder.psk(0, &self.psk))
            .map_err(|_| Failure::WrongKey)?;
        let state = match self.side {
            Side::Dialer => builder.build_initiator(),
            Side::Listener | Side::Prober => builder.build_responder(),
        };
        self.phase = Phase::Handshake(Box::new(state.map_err(|_| Failure::WrongKey)?));
        if self.side == Side::Dialer {
            self.write_handshake()?;
        }
        Ok(())
    }

    /// Appends our handshake message to what is outbound.
    fn write_handshake(&mut self) -> Result<(), Failure> {
        let Phase::Handshake(state) = &mut self.phase else { return Ok(()) };
        let mut message = [0; HANDSHAKE_MESSAGE];
        let len = state.write_message(&[], &mut message).map_err(|_| Failure::WrongKey)?;
        append_frame(&mut self.outbound, &message[..len]);
        Ok(())
    }

    fn handshake_message(&mut self, start: usize, end: usize) -> Result<Option<Step>, Failure> {
        let frame = &self.inbound[start..end];
        if frame == [REFUSED_KEY] {
            return Err(Failure::KeyRefused);
        }
        let Phase::Handshake(state) = &mut self.phase else { return Ok(None) };
        if state.read_message(frame, &mut []).is_err() {
            append_frame(&mut self.outbound, &[REFUSED_KEY]);
            return Err(Failure::WrongKey);
        }
        if self.side == Side::Listener {
            self.write_handshake()?;
        }
        let state = match std::mem::replace(&mut self.phase, Phase::Preamble) {
            Phase::Handshake(state) => state,
            other => {
                self.phase = other;
                return Ok(None);
            }
        };
        let transport = Box::new(state.into_transport_mode().map_err(|_| Failure::WrongKey)?);
        if self.side == Side::Dialer {
            self.phase = Phase::Open(transport);
            self.frame();
            return Ok(Some(Step::Opened));
        }
        self.phase = Phase::Confirmation(transport);
        Ok(None)
    }

    /// The next whole frame in `inbound`, without its length.
    fn take_frame(&mut self) -> Option<(usize, usize)> {
        let received = &self.inbound[self.inbound_at..];
        let len = usize::from(u16::from_be_bytes(*received.first_chunk::<LENGTH>()?));
        if received.len() < LENGTH + len {
            return None;
        }
        let start = self.inbound_at + LENGTH;
        self.inbound_at = start + len;
        Some((start, start + len))
    }

    fn decrypt(&mut self, start: usize, end: usize) -> Result<(), Failure> {
        let (Phase::Open(transport) | Phase::Confirmation(transport)) = &mut self.phase else {
            return Err(Failure::Damaged);
        };
        self.plain.resize(MAX_FRAME, 0);
        let frame = &self.inbound[start..end];
        self.plain_len =
            transport.read_message(frame, &mut self.plain).map_err(|_| Failure::Damaged)?;
        self.plain_at = 0;
        Ok(())
    }

    fn next_of_batch(&mut self) -> Result<Option<Step>, Failure> {
        let rest = &self.plain[self.plain_at..self.plain_len];
        if rest.is_empty() {
            return Ok(None);
        }
        let len = rest.first_chunk::<LENGTH>().ok_or(Failure::Damaged)?;
        let len = usize::from(u16::from_be_bytes(*len));
        if len > MAX_MESSAGE || rest.len() < LENGTH + len {
            return Err(Failure::Damaged);
        }
        let start = self.plain_at + LENGTH;
        self.plain_at = start + len;
        Ok(Some(Step::Message { start, end: start + len }))
    }

    /// Encrypts the batch, which may be empty, into a frame.
    fn frame(&mut self) {
        let Phase::Open(transport) = &mut self.phase else { return };
        let at = self.outbound.len();
        self.outbound.resize(at + LENGTH + self.batch.len() + TAG, 0);
        let sealed = transport.write_message(&self.batch, &mut self.outbound[at + LENGTH..]);
        self.batch.clear();
        match sealed.ok().and_then(|len| u16::try_from(len).ok()) {
            Some(len) => self.outbound[at..at + LENGTH].copy_from_slice(&len.to_be_bytes()),
            None => {
                // Only after 2^64 frames; the connection begins anew then.
                self.outbound.truncate(at);
                self.phase = Phase::Failed(Failure::Damaged);
            }
        }
    }
}

enum Step {
    Nothing,
    Greeted,
    Opened,
    Message { start: usize, end: usize },
}

fn append_frame(out: &mut Vec<u8>, body: &[u8]) {
    debug_assert!(body.len() <= MAX_FRAME);
    out.extend_from_slice(&(body.len() as u16).to_be_bytes());
    out.extend_from_slice(body);
}
