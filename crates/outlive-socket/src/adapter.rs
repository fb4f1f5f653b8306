//! Streams as tokio's traits have them.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use outlive_stack::{CommitError, Transaction};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{error::StreamError, stream::Stream};

/// Reads without acknowledging: [`Stream::acknowledge`] is still to be called.
impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let data = ready!(self.poll_read_data(context, buffer.remaining()))?;
        data.iter().for_each(|data| buffer.put_slice(&data.bytes));
        Poll::Ready(Ok(()))
    }
}

/// Flushing waits for the standby, not for the other end.
impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let count = ready!(self.poll_room(context))?.min(data.len());
        self.begin(Transaction::new().write(Bytes::copy_from_slice(&data[..count])))?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(ready!(self.poll_committed(context))?))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Stream::shutdown(&mut self) {
            Ok(()) | Err(StreamError::Refused(CommitError::Ended)) => {}
            Err(error) => return Poll::Ready(Err(error.into())),
        }
        self.poll_flush(context)
    }
}

/// A [`Stream`] that acknowledges what is read, as other TCPs do: for programs that lose nothing by it.
pub struct Acknowledging {
    stream: Stream,
    end: bool,
}

impl Acknowledging {
    pub(crate) fn new(stream: Stream) -> Self {
        Acknowledging { stream, end: false }
    }

    /// The stream, to ask it about itself.
    pub fn get_ref(&self) -> &Stream {
        &self.stream
    }

    /// The stream, which acknowledges nothing by itself any more.
    pub fn into_inner(self) -> Stream {
        self.stream
    }
}

impl AsyncRead for Acknowledging {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let wanted = buffer.remaining() > 0;
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let count = buffer.filled().len() - before;
        if count > 0 {
            self.stream.acknowledge(count)?;
        } else if wanted && !self.end {
            self.end = true;
            self.stream.begin(Transaction::new().acknowledge_end())?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Acknowledging {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
