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
/// # Back-pressure
///
/// A client that sends faster than the program reads and acknowledges is slowed down by its window: what
/// has come and is not acknowledged is at most [`TcpConfig::withheld_limit`](crate::TcpConfig::withheld_limit)
/// bytes, what has come and is not read at most `receive_buffer`. A program that writes faster than the
/// client reads waits in [`write`](Self::write), [`write_all`](Self::write_all) and [`commit`](Self::commit)
/// when `send_buffer` bytes are not acknowledged; [`begin`](Self::begin) does not wait, and says
/// [`CommitError::NoRoom`].
///
/// # Cancellation
///
/// A future of a stream that is dropped (in `select!`, or by a timeout) leaves the stream in good order:
///
/// | dropped | what has happened |
/// |---|---|
/// | [`read`](Self::read) | nothing: the bytes are there for the next read |
/// | [`write`](Self::write) | nothing was written |
/// | [`write_all`](Self::write_all) | some of it may be written, and how much is not told: it is the exception |
/// | [`commit`](Self::commit) | nothing if there was no room yet; otherwise all of it takes effect, and [`flush`](Self::flush) waits for that |
/// | [`flush`](Self::flush) | what it waited for goes on |
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
    ///
    /// A program that writes it down beside its records, with [`Data::position`], can tell what it was given
    /// twice. It can be read again from what [`Display`](std::fmt::Display) makes of it:
    ///
    /// ```
    /// use outlive_socket::ConnectionId;
    ///
    /// let id: ConnectionId = "0000000000c0ffee-17".parse()?;
    /// assert_eq!(id.serial, 17);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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

    /// Where in the own stream the first byte stands that the program writes now: zero for a new
    /// connection. What comes before it is not to be written again.
    pub fn written(&self) -> u64 {
        self.about.written
    }

    /// The program has said of this connection that it [computes its output
    /// again](Self::regenerate_output): it does so now, from [`written`](Self::written) on.
    pub fn regenerates_output(&self) -> bool {
        self.about.regenerates_output
    }

    /// Says that everything the program sends on this connection can be computed again from its state.
    ///
    /// Without it the standby holds what was written and is not acknowledged by the other end. With it,
    /// the standby holds nothing of that, and nothing waits for it: a download costs no more than without
    /// a standby. In return, after a takeover the program writes again what the other end has not
    /// acknowledged, from [`written`](Self::written) on, and before its first transaction that
    /// acknowledges something or changes the state. (To repeat what was decided before is no change.) What
    /// the other end has already is not sent.
    ///
    /// If the other end has more than was written until then, or the stream ends elsewhere than
    /// before, it is another output. The connection is reset rather than one output spliced to the other:
    /// [`Closed::OutputDiverged`]. Different bytes of the same length cannot be told; that is for the
    /// program to see to.
    ///
    /// To be said once, at a new stream. What was decided before is not affected.
    ///
    /// ```no_run
    /// # use outlive_socket::{Stream, StreamError};
    /// /// Sends a file that is the same on both nodes.
    /// async fn send(mut stream: Stream, file: &[u8]) -> Result<(), StreamError> {
    ///     stream.regenerate_output()?;
    ///     stream.write_all(file[stream.written() as usize..].to_vec()).await?;
    ///     stream.shutdown()
    /// }
    /// ```
    pub fn regenerate_output(&mut self) -> Result<(), StreamError> {
        let now = self.shared.clock.now();
        self.core()?.stack.regenerate_output(now, self.about.id)?;
        self.about.regenerates_output = true;
        self.shared.wake_loop();
        Ok(())
    }

    /// Up to where the other end has acknowledged what was written. What a program needs to
    /// [compute its output again](Self::regenerate_output) from before that, it may drop from its state.
    pub fn delivered(&self) -> Result<u64, StreamError> {
        Ok(self.shared.use_stack()?.stack.delivered(self.about.id)?)
    }

    /// The next bytes, `max` at most; `None` at the end of the stream. They are not acknowledged by
    /// being read: the other end keeps them until [`acknowledge`](Self::acknowledge) or
    /// [`commit`](Self::commit). Reading on without that works up to
    /// [`withheld_limit`](crate::TcpConfig::withheld_limit); then the other end has no window left.
    ///
    /// ```no_run
    /// # use outlive_socket::{Stream, StreamError};
    /// # async fn example(stream: &mut Stream) -> Result<(), StreamError> {
    /// while let Some(data) = stream.read(4096).await? {
    ///     println!("{} bytes at {}", data.bytes.len(), data.position);
    ///     stream.acknowledge(data.bytes.len())?;
    /// }
    /// # Ok(()) }
    /// ```
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
    ///
    /// # Errors
    /// [`CommitError::BeyondRead`] if so many were not read: then nothing is acknowledged.
    ///
    /// ```no_run
    /// # use outlive_socket::{CommitError, Stream, StreamError};
    /// # fn example(mut stream: Stream) {
    /// // Nothing was read yet.
    /// let error = stream.acknowledge(1).unwrap_err();
    /// let beyond = CommitError::BeyondRead { wanted: 1, outstanding: 0 };
    /// assert_eq!(error, StreamError::Refused(beyond));
    /// # }
    /// ```
    pub fn acknowledge(&mut self, count: usize) -> Result<(), StreamError> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.begin(Transaction::new().acknowledge(count))
    }

    /// Bytes that were read and are not acknowledged.
    pub fn outstanding(&self) -> Result<u64, StreamError> {
        Ok(self.shared.use_stack()?.stack.outstanding(self.about.id)?)
    }

    /// Sends `data`, piece by piece as there is room. With a standby each piece leaves when that holds it.
    ///
    /// To send and to acknowledge or change the state in one, [`commit`](Self::commit).
    ///
    /// ```no_run
    /// # use outlive_socket::{Stream, StreamError};
    /// # async fn example(stream: &mut Stream) -> Result<(), StreamError> {
    /// stream.write_all("220 ready\r\n").await?;
    /// # Ok(()) }
    /// ```
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
    ///
    /// ```no_run
    /// # use outlive_socket::{Stream, StreamError, Transaction};
    /// /// An order of 64 bytes was read.
    /// async fn book(stream: &mut Stream, number: u32) -> Result<(), StreamError> {
    ///     let booked = Transaction::new()
    ///         .acknowledge(64)
    ///         .write(format!("booked as {number}\n"))
    ///         .state(number.to_be_bytes().to_vec());
    ///     stream.commit(booked).await
    /// }
    /// ```
    ///
    /// # Errors
    /// [`StreamError::Refused`]: it cannot be, and nothing of it was done. If the connection ended while
    /// the standby was asked ([`CommitError::Closed`]), the standby may know of it or not.
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

    /// Waits until everything that was acknowledged, written and committed so far has its effects: with a
    /// standby, until that knows. It does not wait for the other end.
    ///
    /// ```no_run
    /// # use outlive_socket::{Stream, StreamError};
    /// # async fn example(stream: &mut Stream) -> Result<(), StreamError> {
    /// stream.acknowledge(10)?;
    /// stream.write_all("done\n").await?;
    /// stream.flush().await?; // From here on the standby would go on behind both.
    /// # Ok(()) }
    /// ```
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
    ///
    /// # Errors
    /// [`CommitError::NotAtEnd`] if the end was not read, or bytes before it are not acknowledged.
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
    ///
    /// ```no_run
    /// # use outlive_socket::Stream;
    /// /// Sends back what comes.
    /// async fn echo(stream: Stream) -> std::io::Result<()> {
    ///     let (mut from, mut to) = tokio::io::split(stream.acknowledging());
    ///     tokio::io::copy(&mut from, &mut to).await?;
    ///     Ok(())
    /// }
    /// ```
    pub fn acknowledging(self) -> Acknowledging {
        Acknowledging::new(self)
    }

    fn core(&self) -> Result<MutexGuard<'_, Core>, HostEnded> {
        self.shared.use_stack()
    }

    /// Why the connection is over, if it is. What came before can still be read.
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
