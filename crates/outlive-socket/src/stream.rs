//! A connection, as its program has it.

use std::{
    future::poll_fn,
    net::SocketAddr,
    sync::{Arc, MutexGuard},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use outlive_stack::{Accepted, Chunk, Closed, CommitError, ConnectionId, Transaction};

use crate::{
    adapter::Acknowledging,
    error::{HostEnded, StreamError},
    shared::{Core, For, Shared},
};

/// Bytes of the other end's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// Where in the stream the first of them stands, counted from zero over the whole life of the
    /// connection: whoever is given a byte again is given it at the same position.
    pub position: u64,
    /// They: never none.
    pub bytes: Bytes,
}

/// A connection whose bytes are acknowledged to their sender when the program says so.
///
/// Dropping it ends it in good order: what was written still arrives. If bytes of the other end were
/// read or came and are not acknowledged, it is reset instead, so that the other end knows that they
/// went nowhere.
///
/// Every future is safe to cancel: a read that is dropped has taken nothing, and a write, commit or
/// flush that is dropped has either not begun, or takes effect all the same.
pub struct Stream {
    shared: Arc<Shared>,
    about: Accepted,
    /// The number of the last transaction.
    last: u64,
}

impl Stream {
    pub(crate) fn new(shared: Arc<Shared>, about: Accepted) -> Self {
        Stream { shared, about, last: 0 }
    }

    /// Its name, before and after a takeover, and never another connection's.
    pub fn id(&self) -> ConnectionId {
        self.about.id
    }

    /// This end.
    pub fn local_addr(&self) -> SocketAddr {
        self.about.local
    }

    /// The other end.
    pub fn peer_addr(&self) -> SocketAddr {
        self.about.remote
    }

    /// It was begun at the other node, which is gone.
    pub fn is_resumed(&self) -> bool {
        self.about.resumed
    }

    /// The program's state when the stream was accepted: what its last transaction there said, and
    /// nothing for a new connection.
    pub fn state(&self) -> &Bytes {
        &self.about.state
    }

    /// Where in the other end's stream the first byte stood that was there to be read when the stream
    /// was accepted: zero for a new connection.
    pub fn position(&self) -> u64 {
        self.about.position
    }

    /// How many bytes the program had sent when the stream was accepted.
    pub fn written(&self) -> u64 {
        self.about.written
    }

    /// The next bytes, `max` at most; `None` at the end of the stream. They are not acknowledged by
    /// being read: the other end keeps them until [`acknowledge`](Self::acknowledge) or
    /// [`commit`](Self::commit). Reading on without that works up to
    /// [`withheld_limit`](crate::TcpConfig::withheld_limit); then the other end has no window left.
    pub async fn read(&mut self, max: usize) -> Result<Option<Data>, StreamError> {
        poll_fn(|context| self.poll_read_data(context, max)).await
    }

    pub(crate) fn poll_read_data(
        &mut self,
        context: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Data>, StreamError>> {
        let mut core = self.shared.use_stack()?;
        let chunk = core.stack.read(self.shared.clock.now(), self.about.id, max.max(1))?;
        let data = match chunk {
            Chunk::Data { position, bytes } => Some(Data { position, bytes }),
            Chunk::End { .. } => None,
            Chunk::Blocked => {
                core.wait_at(self.about.id, For::Data, context);
                return Poll::Pending;
            }
        };
        drop(core);
        // There may be a window to show.
        self.shared.wake_loop();
        Poll::Ready(Ok(data))
    }

    /// Lets the next `count` bytes that were read be acknowledged: the sender may forget them. With a
    /// standby it is sent when that knows; to wait for it, [`flush`](Self::flush).
    pub fn acknowledge(&mut self, count: usize) -> Result<(), StreamError> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.begin(Transaction::new().acknowledge(count))
    }

    /// Bytes that were read and are not acknowledged.
    pub fn outstanding(&self) -> Result<u64, StreamError> {
        Ok(self.shared.use_stack()?.stack.outstanding(self.about.id)?)
    }

    /// Sends `data`, when there is room for all of it.
    pub async fn write_all(&mut self, data: impl Into<Bytes>) -> Result<(), StreamError> {
        let mut data = data.into();
        while !data.is_empty() {
            let count = poll_fn(|context| self.poll_write_some(context, &data)).await?;
            data = data.slice(count..);
        }
        Ok(())
    }

    /// Sends as much of `data` as there is room for, at least a byte, and gives how much that was.
    pub async fn write(&mut self, data: &[u8]) -> Result<usize, StreamError> {
        if data.is_empty() {
            return Ok(0);
        }
        let room = poll_fn(|context| self.poll_room(context)).await?;
        let count = data.len().min(room);
        self.begin(Transaction::new().write(Bytes::copy_from_slice(&data[..count])))?;
        Ok(count)
    }

    fn poll_write_some(
        &mut self,
        context: &mut Context<'_>,
        data: &Bytes,
    ) -> Poll<Result<usize, StreamError>> {
        let room = ready!(self.poll_room(context))?;
        let count = data.len().min(room);
        Poll::Ready(self.begin(Transaction::new().write(data.slice(..count))).map(|()| count))
    }

    pub(crate) fn poll_room(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<usize, StreamError>> {
        let mut core = self.shared.use_stack()?;
        match core.stack.room(self.about.id)? {
            0 => {
                core.wait_at(self.about.id, For::Room, context);
                Poll::Pending
            }
            room => Poll::Ready(Ok(room)),
        }
    }

    /// Does all of `transaction`, and waits until it has its effects: with a standby, until that holds it.
    /// If the node dies before, either nothing of it has happened, or the standby goes on behind it.
    ///
    /// Waits until there is room for everything it writes. Cancelled then, it has not begun.
    pub async fn commit(&mut self, transaction: Transaction) -> Result<(), StreamError> {
        poll_fn(|context| self.poll_begin(context, &transaction)).await?;
        self.flush().await
    }

    fn poll_begin(
        &mut self,
        context: &mut Context<'_>,
        transaction: &Transaction,
    ) -> Poll<Result<(), StreamError>> {
        let mut core = self.shared.use_stack()?;
        let now = self.shared.clock.now();
        match core.stack.commit(now, self.about.id, transaction.clone()) {
            Err(CommitError::NoRoom) => {
                core.wait_at(self.about.id, For::Room, context);
                return Poll::Pending;
            }
            number => self.last = number?,
        }
        drop(core);
        self.shared.wake_loop();
        Poll::Ready(Ok(()))
    }

    /// Waits until everything that was acknowledged, written and committed so far has its effects.
    pub async fn flush(&mut self) -> Result<(), StreamError> {
        poll_fn(|context| self.poll_committed(context)).await
    }

    /// Begins a transaction without waiting for anything. If there is no room for what it writes,
    /// [`CommitError::NoRoom`] says so.
    pub fn begin(&mut self, transaction: Transaction) -> Result<(), StreamError> {
        let now = self.shared.clock.now();
        let number = self.core()?.stack.commit(now, self.about.id, transaction)?;
        self.last = number;
        self.shared.wake_loop();
        Ok(())
    }

    pub(crate) fn poll_committed(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), StreamError>> {
        let mut core = self.shared.use_stack()?;
        if core.stack.is_committed(self.about.id, self.last)? {
            return Poll::Ready(Ok(()));
        }
        core.wait_at(self.about.id, For::Commit, context);
        Poll::Pending
    }

    /// Ends the stream to the other end, behind what was written (a half close).
    pub fn shutdown(&mut self) -> Result<(), StreamError> {
        self.begin(Transaction::new().end())
    }

    /// The end of an exchange in good order: the end of the other end's stream, which was read, is
    /// acknowledged, and the own stream ends.
    pub async fn finish(mut self) -> Result<(), StreamError> {
        self.commit(Transaction::new().acknowledge_end().end()).await
    }

    /// Resets the connection. What was committed and has no effect yet never will.
    pub fn abort(self) {
        if let Ok(mut core) = self.shared.use_stack() {
            core.stack.abort(self.shared.clock.now(), self.about.id);
        }
    }

    /// For programs that do not care: what they read is acknowledged by being read. Implements
    /// [`AsyncRead`](tokio::io::AsyncRead) and [`AsyncWrite`](tokio::io::AsyncWrite).
    pub fn acknowledging(self) -> Acknowledging {
        Acknowledging::new(self)
    }

    fn core(&self) -> Result<MutexGuard<'_, Core>, HostEnded> {
        self.shared.use_stack()
    }

    /// Why the connection is over, if it is.
    pub fn closed(&self) -> Option<Closed> {
        self.shared.lock().stack.is_committed(self.about.id, u64::MAX).err()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Ok(mut core) = self.shared.use_stack() {
            core.forget_stream(self.about.id);
            core.stack.close(self.shared.clock.now(), self.about.id);
            drop(core);
            self.shared.wake_loop();
        }
    }
}
