//! TCP for [tokio](https://tokio.rs) programs that decide themselves when received bytes are acknowledged, and whose connections
//! can go on at a second machine when theirs dies.
//!
//! Everywhere else TCP says "received" when the kernel has a byte. Here it says so when the program
//! has: after the write has reached the disk, after the order is booked. Until then the sender keeps
//! its copy, and would send it again. A program that dies loses nothing that it has acknowledged, and
//! its clients need not know of any of this.
//!
//! ```no_run
//! use std::{fs::File, io::Write};
//!
//! use outlive_socket::{Host, HostConfig};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let host = Host::start(HostConfig::new("192.0.2.10".parse()?, "eth0"))?;
//!     let listener = host.listen("192.0.2.10:514".parse()?)?;
//!     loop {
//!         let mut stream = listener.accept().await?;
//!         tokio::spawn(async move {
//!             let mut file = File::create(stream.id().to_string())?;
//!             while let Some(data) = stream.read(1 << 16).await? {
//!                 file.write_all(&data.bytes)?;
//!                 file.sync_data()?; // (A larger program does this elsewhere: it blocks.)
//!                 stream.acknowledge(data.bytes.len())?; // Only now the sender forgets them.
//!             }
//!             stream.finish().await?;
//!             std::io::Result::Ok(())
//!         });
//!     }
//! }
//! ```
//!
//! # A pair
//!
//! The same program runs on a second machine, each a [`PeerConfig`] of the other. One of them serves,
//! and the other's [`Listener::accept`] waits. What the program decides about a connection in one
//! [`Transaction`] (acknowledge so much, send this, my state of it is now that) is at the standby before
//! any of it can be seen from outside. If the node dies, the standby's program is given every
//! connection as of its last transaction: [`Stream::state`], [`Stream::position`], the same
//! [`Stream::id`]. What came after it, the client sends again.
//!
//! ```no_run
//! # use outlive_socket::{Stream, StreamError, Transaction};
//! /// Counts lines, in spite of everything.
//! async fn count(mut stream: Stream) -> Result<(), StreamError> {
//!     let mut lines = stream.state().as_ref().try_into().map_or(0, u64::from_be_bytes);
//!     while let Some(data) = stream.read(4096).await? {
//!         lines += data.bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
//!         let counted = Transaction::new()
//!             .acknowledge(data.bytes.len() as u32)
//!             .write(format!("{lines}\n"))
//!             .state(lines.to_be_bytes().to_vec());
//!         stream.commit(counted).await?;
//!     }
//!     stream.finish().await
//! }
//! ```
//!
//! # What withholding costs
//!
//! * An acknowledgment that comes later than the sender's retransmission timer costs a repetition of its first segment, and a
//!   slower sender. Linux waits for 200 ms, or the round-trip time and some more if that is longer, then for twice as
//!   long, and so on: a commit that takes a second is asked for about three times. Nothing is lost by that, and nothing comes twice.
//! * One that comes later than the sender's user timeout costs the connection: the sender has given up, and what this program
//!   acknowledges then is answered with a reset ([`Closed::ResetByPeer`]). Linux gives up after some 15 minutes, unless the program
//!   there has said `TCP_USER_TIMEOUT`. [`HostConfig::commit_timeout`] ends the connection before that, with a reason of its own.
//! * A sender that writes a record in small pieces sends the second piece when the first one is
//!   acknowledged (Nagle's algorithm, RFC 896). A program that waits for the whole record before it acknowledges any of it
//!   waits for the sender's timer each time. Acknowledge what came, and keep the beginning of the record in the state.
//! * With a standby, a transaction takes a message to it and back.
//!
//! # Output that can be computed again
//!
//! What was written and is not acknowledged by the client is held by the standby, too, and leaves when that has it. A program whose
//! output follows from its state (a file, a page, a calculation) can [say so](Stream::regenerate_output): then none of it is held, and
//! nothing waits.
//!
//! # Connections that were begun elsewhere
//!
//! A host can be the target of an Outlive node's migrations: the node looks at a client's first data and hands the connection over, and
//! [`Listener::accept`] gives it like any other, with that data still to be read. See [`MigrationConfig`].
//!
//! # What it is not
//!
//! Not a kernel socket: there is no file descriptor, and the addresses are virtual ones that no
//! interface has. A program needs `CAP_NET_ADMIN` and `CAP_NET_RAW`; packets reach it through a TUN
//! device, so clients have to be on another machine or in another network namespace.
//!
//! | type | is |
//! |---|---|
//! | [`Host`], [`HostConfig`] | addresses, the packet loop; the pair |
//! | [`Listener`], [`Stream`] | as one expects, but for [`Stream::acknowledge`] and [`Stream::commit`] |
//! | [`Acknowledging`] | a stream that acknowledges on read: `AsyncRead` and `AsyncWrite` |
//! | [`Standing`], [`Backlog`] | whether a failure would be survived; whether the standby keeps up |
//! | [`StreamError`], [`Closed`] | what was wrong, or why it is over |
#![forbid(unsafe_code)]

mod adapter;
mod config;
mod driver;
mod edge;
mod error;
mod host;
mod listener;
mod shared;
mod stream;
mod target;

pub use outlive_node::key::{HostKey, PairKey};
pub use outlive_stack::{Backlog, ConnectionId, Counters, Standing, Transaction};

pub use self::{
    adapter::Acknowledging,
    config::{HostConfig, MigrationConfig, NodeId, PairConfig, PeerConfig, TcpConfig},
    error::{Closed, CommitError, HostEnded, ListenError, StartError, StreamError},
    host::Host,
    listener::Listener,
    stream::{Data, Stream},
};
