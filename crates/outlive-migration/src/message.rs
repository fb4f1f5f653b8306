//! What balancer and target say to each other. Layouts: `docs/migration.md`, which this file must agree with.
//!
//! A message arrives whole, in order, authentic and secret, or not at all; but a connection may break at any moment, and a message
//! that was sent before may be sent again over the next one. So each says which migration it belongs to and under which epoch it
//! was sent, and to hear it twice, late, or after what came later does no harm.

use outlive_tcp::wire::FourTuple;

use crate::{
    flow::FlowId,
    id::{Balancer, Epoch, MigrationId},
    wire::{Reader, Writer},
};

/// Version of the conversation.
pub const VERSION: u16 = 1;
/// No message is longer, in bytes: the transport takes no more.
pub const MAX_MESSAGE: usize = 32_768;

const MAGIC: [u8; 4] = *b"OLMG";

/// A message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// Both, first.
    Hello(Hello),
    /// Balancer: I am active in this epoch. Tell me what has ended. What was prepared in an earlier epoch stays
    /// prepared, for it may be committed in this one.
    Serve {
        /// The epoch.
        epoch: Epoch,
    },
    /// Balancer: infuse this connection, mute.
    Prepare {
        /// The balancer's.
        epoch: Epoch,
        /// Which.
        id: MigrationId,
        /// A [`Blob`](crate::blob::Blob), encoded.
        blob: Vec<u8>,
    },
    /// Target: it is infused, and mute. It will stay so until COMMIT or ABORT, or until it has waited for too long.
    Prepared {
        /// Repeated from the question.
        epoch: Epoch,
        /// Which.
        id: MigrationId,
    },
    /// Balancer: speak. No other target has been or will be told so. With what is needed to know the connection by if the agent was
    /// started again and what it infused lives on.
    Commit {
        /// The balancer's.
        epoch: Epoch,
        /// Which.
        id: MigrationId,
        /// Its flow.
        flow: FlowId,
        /// The ends, as the client's packets have them.
        ends: FourTuple,
    },
    /// Target: it speaks.
    Committed {
        /// Repeated from the question.
        epoch: Epoch,
        /// Which.
        id: MigrationId,
    },
    /// Balancer: forget it, without a word to the client. Not answered. Never said after COMMIT.
    Abort {
        /// The balancer's.
        epoch: Epoch,
        /// Which.
        id: MigrationId,
    },
    /// Target: no. After PREPARE: it is not infused, and will not be. After COMMIT: it is not there (any more).
    Refused {
        /// Repeated from the question.
        epoch: Epoch,
        /// Which.
        id: MigrationId,
        /// Why.
        reason: Refusal,
    },
    /// Target: a committed connection is over. Repeated over each new connection until it is answered with [`Gone`](Self::Gone).
    Ended {
        /// The highest that the target has heard.
        epoch: Epoch,
        /// Which.
        id: MigrationId,
        /// Its flow: no more packets of it are wanted.
        flow: FlowId,
        /// How.
        how: HowEnded,
    },
    /// Balancer: it has heard [`Ended`](Self::Ended), and the flow identifier may be used for another connection from now on.
    Gone {
        /// The balancer's.
        epoch: Epoch,
        /// Which.
        id: MigrationId,
    },
    /// Balancer: tell what comes through the tunnel with this flow identifier. Nothing else of it happens.
    Probe {
        /// The balancer's.
        epoch: Epoch,
        /// Of the probe; from the same numbers as those of migrations.
        id: MigrationId,
        /// What stands in the port fields.
        flow: FlowId,
    },
    /// Target: such a packet has come.
    Probed {
        /// Repeated from the question.
        epoch: Epoch,
        /// Which.
        id: MigrationId,
        /// Length of the whole IP packet, in bytes.
        len: u16,
    },
}

/// Who speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Who.
    pub speaker: Speaker,
    /// A random number of the process.
    pub incarnation: u64,
    /// A balancer's own; of a target the highest that it has heard.
    pub epoch: Epoch,
}

/// One end of the conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Speaker {
    /// A node of the pair.
    Balancer(Balancer),
    /// The agent of a target.
    Target,
}

/// Why a target says no.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, thiserror::Error)]
pub enum Refusal {
    /// A later epoch has spoken. Whoever asks has been succeeded.
    #[error("a later epoch has spoken")]
    StaleEpoch,
    /// This migration is over: aborted, expired, or ended. Or it is so old that nothing is known of it any more.
    #[error("the migration is over")]
    StaleMigration,
    /// COMMIT of what was never prepared here, or not by this process.
    #[error("no such migration")]
    Unknown,
    /// The blob does not decode, or not in a version that is understood.
    #[error("the state cannot be read")]
    BadBlob,
    /// The flow identifier belongs to another connection that lives here.
    #[error("the flow identifier is taken")]
    FlowTaken,
    /// The client's connection lives here already.
    #[error("the connection is here already")]
    ConnectionTaken,
    /// A table is full.
    #[error("no room")]
    Full,
    /// The virtual address or its port is not served here, or the tunnel address is not this target's.
    #[error("not an address of this target")]
    NotHere,
    /// No server program listens.
    #[error("no server program takes it")]
    NoServer,
    /// The server agreed to less than what the client was shown, and it cannot be bridged.
    #[error("the server's options do not suffice")]
    Options,
    /// The operating system refused.
    #[error("the operating system refused")]
    System,
    /// The target takes no new connections at the moment.
    #[error("the target drains")]
    Draining,
}

impl Refusal {
    /// All of them; the number of each on the wire is its place here, counted from 1.
    pub const ALL: [Refusal; 12] = [
        Refusal::StaleEpoch,
        Refusal::StaleMigration,
        Refusal::Unknown,
        Refusal::BadBlob,
        Refusal::FlowTaken,
        Refusal::ConnectionTaken,
        Refusal::Full,
        Refusal::NotHere,
        Refusal::NoServer,
        Refusal::Options,
        Refusal::System,
        Refusal::Draining,
    ];

    fn code(self) -> u8 {
        1 + self as u8
    }

    fn of(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code).checked_sub(1)?).copied()
    }
}

/// How a migrated connection ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum HowEnded {
    /// Both ends closed it.
    Closed,
    /// It was reset by one of them.
    Reset,
    /// Nothing was heard of it for too long.
    Idle,
    /// The server program is gone.
    Lost,
}

impl HowEnded {
    /// All of them; the number of each on the wire is its place here, counted from 1.
    pub const ALL: [HowEnded; 4] =
        [HowEnded::Closed, HowEnded::Reset, HowEnded::Idle, HowEnded::Lost];

    fn of(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code).checked_sub(1)?).copied()
    }
}

/// Why bytes are not a message. The connection over which they came is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MessageError {
    /// Another program.
    #[error("not a message of a migration")]
    Magic,
    /// A version that is not understood.
    #[error("version {0} is not understood")]
    Version(u16),
    /// No message begins with this.
    #[error("unknown kind of message: {0}")]
    Kind(u8),
    /// Too short, too long, or with a value that does not exist.
    #[error("a message that does not parse")]
    Malformed,
}

const HELLO: u8 = 1;
const SERVE: u8 = 2;
const PREPARE: u8 = 3;
const PREPARED: u8 = 4;
const COMMIT: u8 = 5;
const COMMITTED: u8 = 6;
const ABORT: u8 = 7;
const REFUSED: u8 = 8;
const ENDED: u8 = 9;
const GONE: u8 = 10;
const PROBE: u8 = 11;
const PROBED: u8 = 12;

impl Message {
    /// The bytes of it.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        let out = &mut Writer(&mut bytes);
        match self {
            Message::Hello(hello) => {
                out.u8(HELLO);
                out.bytes(&MAGIC);
                out.u16(VERSION);
                out.u8(match hello.speaker {
                    Speaker::Balancer(node) => node.index() as u8,
                    Speaker::Target => 2,
                });
                out.u64(hello.incarnation);
                out.u64(hello.epoch.0);
            }
            Message::Serve { epoch } => {
                out.u8(SERVE);
                out.u64(epoch.0);
            }
            Message::Prepare { epoch, id, blob } => {
                head(out, PREPARE, *epoch, *id);
                out.bytes(blob);
            }
            Message::Prepared { epoch, id } => head(out, PREPARED, *epoch, *id),
            Message::Commit { epoch, id, flow, ends } => {
                head(out, COMMIT, *epoch, *id);
                out.u32(flow.value());
                out.tuple(*ends);
            }
            Message::Committed { epoch, id } => head(out, COMMITTED, *epoch, *id),
            Message::Abort { epoch, id } => head(out, ABORT, *epoch, *id),
            Message::Refused { epoch, id, reason } => {
                head(out, REFUSED, *epoch, *id);
                out.u8(reason.code());
            }
            Message::Ended { epoch, id, flow, how } => {
                head(out, ENDED, *epoch, *id);
                out.u32(flow.value());
                out.u8(1 + *how as u8);
            }
            Message::Gone { epoch, id } => head(out, GONE, *epoch, *id),
            Message::Probe { epoch, id, flow } => {
                head(out, PROBE, *epoch, *id);
                out.u32(flow.value());
            }
            Message::Probed { epoch, id, len } => {
                head(out, PROBED, *epoch, *id);
                out.u16(*len);
            }
        }
        debug_assert!(bytes.len() <= MAX_MESSAGE);
        bytes
    }

    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut input = Reader(bytes);
        let kind = input.u8().ok_or(MessageError::Malformed)?;
        if kind == HELLO {
            // The layout of what comes behind the version is the version's.
            if input.array() != Some(MAGIC) {
                return Err(MessageError::Magic);
            }
            let version = input.u16().ok_or(MessageError::Malformed)?;
            if version != VERSION {
                return Err(MessageError::Version(version));
            }
        } else if !(SERVE..=PROBED).contains(&kind) {
            return Err(MessageError::Kind(kind));
        }
        let message = Self::body(kind, &mut input).ok_or(MessageError::Malformed)?;
        if input.0.is_empty() { Ok(message) } else { Err(MessageError::Malformed) }
    }

    fn body(kind: u8, input: &mut Reader<'_>) -> Option<Self> {
        match kind {
            HELLO => {
                let speaker = match input.u8()? {
                    0 => Speaker::Balancer(Balancer::A),
                    1 => Speaker::Balancer(Balancer::B),
                    2 => Speaker::Target,
                    _ => return None,
                };
                let (incarnation, epoch) = (input.u64()?, Epoch(input.u64()?));
                return Some(Message::Hello(Hello { speaker, incarnation, epoch }));
            }
            SERVE => return Some(Message::Serve { epoch: Epoch(input.u64()?) }),
            _ => {}
        }
        let (epoch, id) = (Epoch(input.u64()?), MigrationId(input.u64()?));
        Some(match kind {
            PREPARE => Message::Prepare { epoch, id, blob: input.rest().to_vec() },
            PREPARED => Message::Prepared { epoch, id },
            COMMIT => Message::Commit { epoch, id, flow: flow(input)?, ends: ends(input)? },
            COMMITTED => Message::Committed { epoch, id },
            ABORT => Message::Abort { epoch, id },
            REFUSED => Message::Refused { epoch, id, reason: Refusal::of(input.u8()?)? },
            ENDED => {
                let flow = flow(input)?;
                Message::Ended { epoch, id, flow, how: HowEnded::of(input.u8()?)? }
            }
            GONE => Message::Gone { epoch, id },
            PROBE => Message::Probe { epoch, id, flow: flow(input)? },
            PROBED => Message::Probed { epoch, id, len: input.u16()? },
            _ => return None,
        })
    }
}

fn head(out: &mut Writer<'_>, kind: u8, epoch: Epoch, id: MigrationId) {
    out.u8(kind);
    out.u64(epoch.0);
    out.u64(id.0);
}

fn flow(input: &mut Reader<'_>) -> Option<FlowId> {
    FlowId::new(input.u32()?)
}

fn ends(input: &mut Reader<'_>) -> Option<FourTuple> {
    input.tuple().filter(|ends| ends.version().is_some())
}

#[cfg(test)]
mod tests;
