//! Where a scenario with many connections plays: traffic processes, each on a host of its own, at both
//! sides of a cluster.

use std::sync::Arc;
use std::time::Duration;

use super::course::Course;
use super::{Contender, Settings};
use crate::crowd::{Crowd, CrowdOptions};
use crate::error::LabError;
use crate::host::Host;
use crate::link::LinkKind;
use crate::subject::Cluster;
use crate::subject::keepalived::{self, KeepalivedPair};
use crate::subject::outlive::Pair;
use crate::topology::Lab;
use crate::traffic::{Book, Group, Plan};

/// Where all servers listen.
const PORT: u16 = 7000;

/// Processes at each side, at least.
const FEWEST_PROCESSES: u64 = 6;

/// Connections of a process, at most: it may have 20,000 descriptors on the machines that this was
/// made for.
const MOST_CONNECTIONS: u64 = 16_000;

/// The numbers of the first client host and of the first server host, and how many there is room for.
const FIRST_CLIENT: u8 = 110;
const FIRST_SERVER: u8 = 180;
const MOST_HOSTS: u64 = 70;

/// A cluster between two crowds.
pub(super) struct Stage {
    pub(super) cluster: Box<dyn Cluster>,
    pub(super) clients: Crowd,
    pub(super) servers: Crowd,
    pub(super) book: Arc<Book>,
    ipv6: Vec<bool>,
    _hosts: [Vec<Host>; 2],
    pub(super) lab: Lab,
}

impl Stage {
    /// Builds it for as many connections as the settings say, which belong to groups of these labels.
    pub(super) fn new(settings: &Settings, labels: &[&str]) -> Result<Self, LabError> {
        let most = match settings.contender {
            Contender::Outlive => MOST_HOSTS * MOST_CONNECTIONS,
            Contender::Haproxy => keepalived::MOST_CONNECTIONS,
        };
        if settings.connections > most {
            return Err(LabError::TooMany { most });
        }
        let lab = Lab::new(settings.seed)?;
        let processes = settings.connections.div_ceil(MOST_CONNECTIONS).max(FEWEST_PROCESSES);
        let hosts = |name: &str, first: u8| -> Result<Vec<Host>, LabError> {
            let numbers = (first..).take(processes as usize);
            let host =
                |number| lab.host(&format!("{name}-{}", number - first), number, LinkKind::Plain);
            numbers.map(host).collect()
        };
        let (client_hosts, server_hosts) =
            (hosts("client", FIRST_CLIENT)?, hosts("server", FIRST_SERVER)?);
        let nodes =
            (lab.host("node-a", 2, LinkKind::Plain)?, lab.host("node-b", 3, LinkKind::Plain)?);
        let book = Arc::default();
        let (program, seed) = (&settings.worker, settings.seed);
        let options = CrowdOptions { program, book: &book, labels, seed };
        let servers = Crowd::servers(&server_hosts, &options, &[PORT])?;
        let behind: Vec<&Host> = server_hosts.iter().collect();
        let cluster: Box<dyn Cluster> = match settings.contender {
            Contender::Outlive => {
                let options = settings.pair_options(&[PORT]);
                Box::new(Pair::start(settings.program()?, nodes, &behind, &options)?)
            }
            Contender::Haproxy => Box::new(KeepalivedPair::start(nodes, &behind, &[PORT])?),
        };
        let clients = Crowd::clients(&client_hosts, &options)?;
        let (ipv6, _hosts) = (settings.ipv6.clone(), [client_hosts, server_hosts]);
        Ok(Self { cluster, clients, servers, book, ipv6, _hosts, lab })
    }

    /// Opens `count` connections, evenly over the IP versions.
    pub(super) fn open(&mut self, label: &str, count: u64, plan: &Plan) -> Arc<Group> {
        let versions = self.ipv6.len() as u64;
        for (nth, &ipv6) in (0..).zip(&self.ipv6) {
            let share = count / versions + u64::from(nth < count % versions);
            self.clients.open(label, share, self.cluster.address(ipv6, PORT), plan);
        }
        self.book.group(label)
    }

    /// Lets all traffic come to its end, at most for `limit`, and puts what became of it into the
    /// book.
    pub(super) fn close(
        &mut self,
        course: &mut Course<'_>,
        limit: Duration,
    ) -> Result<(), LabError> {
        self.clients.wind_up();
        course.wait_over(&self.book.groups(), limit);
        self.clients.finish(Duration::ZERO)?;
        self.servers.finish(limit.min(Duration::from_secs(10)))?;
        course.event("all connections are closed");
        Ok(())
    }
}
