//! Waiting for connections.

use std::{future::poll_fn, net::SocketAddr, sync::Arc, task::Poll};

use outlive_stack::Accepted;

use crate::{error::HostEnded, shared::Shared, stream::Stream};

/// Gives the connections to one address: new ones, and those that go on here after a takeover.
///
/// On a standby there is nothing to accept until it takes over. Dropping the listener resets the
/// connections that nobody has accepted.
pub struct Listener {
    shared: Arc<Shared>,
    local: SocketAddr,
}

impl Listener {
    pub(crate) fn new(shared: Arc<Shared>, local: SocketAddr) -> Self {
        Listener { shared, local }
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The next connection. Cancelling it loses none.
    ///
    /// A stream that [goes on here](Stream::is_resumed) begins at its last transaction: with the
    /// [state](Stream::state) that was said then, and at the [position](Stream::position) up to which the
    /// other end's stream is acknowledged.
    ///
    /// ```no_run
    /// # use outlive_socket::{HostEnded, Listener};
    /// # async fn example(listener: Listener) -> Result<(), HostEnded> {
    /// loop {
    ///     let stream = listener.accept().await?;
    ///     let verb = if stream.is_resumed() { "goes on" } else { "is new" };
    ///     println!("{} from {} {verb}", stream.id(), stream.peer_addr());
    /// #   drop(stream);
    /// }
    /// # }
    /// ```
    pub async fn accept(&self) -> Result<Stream, HostEnded> {
        let local = self.local.into();
        let accepted = poll_fn(|context| {
            let mut core = self.shared.use_stack()?;
            match core.stack.accept(self.shared.clock.now(), local) {
                Some(accepted) => Poll::Ready(Ok(accepted)),
                None => {
                    core.wait_for_connection(local, context);
                    Poll::Pending
                }
            }
        })
        .await?;
        Ok(self.stream(accepted))
    }

    /// The next connection if there is one now.
    ///
    /// After a takeover all connections that go on here are there at once: a program whose connections
    /// have to do with each other can take all of them before it lets one go on.
    ///
    /// ```no_run
    /// # use outlive_socket::{HostEnded, Listener};
    /// # async fn example(listener: Listener) -> Result<(), HostEnded> {
    /// let mut streams = vec![listener.accept().await?];
    /// while let Some(stream) = listener.try_accept()? {
    ///     streams.push(stream);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn try_accept(&self) -> Result<Option<Stream>, HostEnded> {
        let now = self.shared.clock.now();
        let accepted = self.shared.use_stack()?.stack.accept(now, self.local.into());
        Ok(accepted.map(|accepted| self.stream(accepted)))
    }

    fn stream(&self, accepted: Accepted) -> Stream {
        self.shared.wake_loop();
        Stream::new(self.shared.clone(), accepted)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Ok(mut core) = self.shared.use_stack() {
            core.forget_listener(self.local.into());
            core.stack.unlisten(self.shared.clock.now(), self.local.into());
            drop(core);
            self.shared.wake_loop();
        }
    }
}
