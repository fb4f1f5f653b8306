//! Where most scenarios play: one client and two servers around a pair.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::course::Course;
use crate::error::LabError;
use crate::host::Host;
use crate::link::LinkKind;
use crate::subject::Subject;
use crate::subject::outlive::{Pair, PairOptions};
use crate::topology::Lab;
use crate::traffic::{Book, Client, Server};

/// Where the servers listen.
pub(super) const PORT: u16 = 7000;

/// A pair with somebody on both sides. Dropped in this order.
pub(super) struct Rig {
    pub(super) pair: Pair,
    pub(super) client: Client,
    servers: Vec<Server>,
    pub(super) book: Arc<Book>,
    /// The client's, then the servers'.
    pub(super) hosts: Vec<Host>,
    pub(super) lab: Lab,
}

impl Rig {
    /// Builds it with such cables at all hosts.
    pub(super) fn new(
        program: &Path,
        seed: u64,
        links: &LinkKind,
        options: &PairOptions,
    ) -> Result<Self, LabError> {
        let lab = Lab::new(seed)?;
        let host = |name, number| lab.host(name, number, links.clone());
        let hosts = vec![host("client", 10)?, host("server-1", 20)?, host("server-2", 21)?];
        let nodes = (host("node-a", 2)?, host("node-b", 3)?);
        let book = Arc::default();
        let behind: Vec<&Host> = hosts[1..].iter().collect();
        let start = |host: &&Host| Server::start(host, &book, &[PORT]);
        let servers = behind.iter().map(start).collect::<Result<_, _>>()?;
        let pair = Pair::start(program, nodes, &behind, options)?;
        let client = Client::start(&hosts[0], &book, seed)?;
        Ok(Self { pair, client, servers, book, hosts, lab })
    }

    /// Where a client finds the service, over either IP version.
    pub(super) fn service(&self, ipv6: bool) -> std::net::SocketAddr {
        self.pair.address(ipv6, PORT)
    }

    /// Lets all traffic come to its end, at most for `limit`.
    pub(super) fn close(&self, course: &mut Course<'_>, limit: Duration) {
        self.client.finish(limit);
        self.servers.iter().for_each(|server| server.finish(Duration::from_secs(10)));
        course.event("all connections are closed");
    }

    /// Resident memory of both nodes in kB; 0 of one that does not run.
    pub(super) fn memory_kb(&self) -> [u64; 2] {
        [&self.pair.a, &self.pair.b].map(|node| node.memory_kb().unwrap_or(0))
    }
}
