//! The client of a lab: opens connections from its host and carries their plans out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::{io, thread};

use super::book::{Book, Failure, Group, Side};
use super::conversation::{Conversation, Io, Next, Outbox};
use super::echo::Typist;
use super::engine::{Command, Connect, ConversationMaker, Engine, Remote};
use super::plan::Plan;
use super::protocol::{Opening, http_preamble};
use super::requests::RequestClient;
use super::transfer::TransferEnd;
use crate::clock::{Clock, wait_until};
use crate::error::LabError;
use crate::host::Host;

/// A thread on a host that opens connections. Dropping it ends all of them.
pub struct Client {
    remote: Arc<Remote>,
    book: Arc<Book>,
    seed: u64,
    host_name: Option<String>,
}

impl Client {
    /// Starts a client on `host`; `seed` decides the patterns of its connections.
    pub fn start(host: &Host, book: &Arc<Book>, seed: u64) -> Result<Self, LabError> {
        let (engine, remote) = engine(book, host.clock())
            .map_err(|error| LabError::Traffic("starting a client", error))?;
        let remote = host.run_engine("client", engine, remote)?;
        Ok(Self { remote, book: book.clone(), seed, host_name: None })
    }

    /// Starts a client where the calling process is.
    pub(crate) fn start_here(book: &Arc<Book>, clock: Clock, seed: u64) -> io::Result<Self> {
        let (engine, remote) = engine(book, clock)?;
        thread::Builder::new().name("client".to_owned()).spawn(move || engine.run())?;
        Ok(Self { remote: Arc::new(remote), book: book.clone(), seed, host_name: None })
    }

    /// What commands the thread.
    pub(crate) fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Lets every further connection begin with an HTTP request head that names `host`, for
    /// listeners that route by it.
    pub fn name_host(&mut self, host: &str) {
        self.host_name = Some(host.to_owned());
    }

    /// Opens `count` connections to `to`, each of which follows `plan`; they are counted in the
    /// book's group `label`.
    pub fn open(&self, label: &str, count: u64, to: SocketAddr, plan: &Plan) -> Arc<Group> {
        let group = self.book.group(label);
        for _ in 0..count {
            let id = self.book.fresh_id();
            let seed = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ id;
            let opening = Opening { id, group: group.number, seed, plan: plan.clone() };
            let mut outbox = Outbox::default();
            if let Some(host) = &self.host_name {
                outbox.push(&http_preamble(host));
            }
            outbox.push(&opening.encode());
            group.opened.fetch_add(1, Relaxed);
            let conversation = conversation(seed, plan.clone());
            let group = group.clone();
            let connect = Connect { id, to, group, opening: outbox, conversation };
            self.remote.send(Command::Connect(Box::new(connect)));
        }
        group
    }

    /// Brings everything endless to its end: the last answers are awaited, idle connections prove
    /// that they live, all are closed.
    pub fn wind_up(&self) {
        self.remote.send(Command::WindUp);
    }

    /// Waits until all connections of the book are over, at most for `limit`; whether they are.
    pub fn wait(&self, limit: Duration) -> bool {
        wait_until(limit, || self.book.groups().iter().all(|group| group.open() == 0))
    }

    /// Ends whatever is still open, as not finished.
    pub fn stop(&self) {
        self.remote.send(Command::Stop);
    }

    /// Winds up, waits at most `limit` for the end, and stops.
    pub fn finish(&self, limit: Duration) {
        self.wind_up();
        self.wait(limit);
        self.remote.stop(Duration::from_secs(5));
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop();
    }
}

fn engine(book: &Arc<Book>, clock: Clock) -> io::Result<(Engine, Remote)> {
    let never = || -> Box<dyn Conversation> { Box::new(Nobody) };
    Engine::new(Vec::new(), never, Side::Client, book.clone(), clock)
}

fn conversation(seed: u64, plan: Plan) -> ConversationMaker {
    Box::new(move |now| match plan {
        Plan::Transfer(transfer) => Box::new(TransferEnd::new(Side::Client, transfer, seed, now)),
        Plan::Requests { every, request, response } => {
            Box::new(RequestClient::new(seed, every, request, response, now))
        }
        Plan::Interactive { every } => Box::new(Typist::new(seed, Some(every), now)),
        Plan::Idle => Box::new(Typist::new(seed, None, now)),
    })
}

/// Nobody connects to a client.
struct Nobody;

impl Conversation for Nobody {
    fn advance(&mut self, _: &mut Io<'_>) -> Result<Next, Failure> {
        Ok(Next::Done)
    }
}
