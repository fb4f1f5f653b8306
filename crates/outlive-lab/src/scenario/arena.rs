//! A lab for measuring how fast something is: one subject between two clients and a server.
//!
//! One of the clients is near, the other far away. Owns: the servers, and how each kind of load is
//! measured. Does not own: what is compared with what.

use std::time::Duration;

use crate::error::LabError;
use crate::host::Host;
use crate::impairment::Impairment;
use crate::link::LinkKind;
use crate::load::{BulkServer, Direction, HttpLoad, HttpServer, Window, measure_bulk};
use crate::report::Report;
use crate::subject::Subject;
use crate::topology::Lab;

const HTTP_PORT: u16 = 8000;
const BULK_PORT: u16 = 8001;

/// Where the server listens.
pub(super) const PORTS: [u16; 2] = [HTTP_PORT, BULK_PORT];

/// One way to the far client and back: 100 ms together.
const FAR: Duration = Duration::from_millis(50);

/// What the far client can send.
const FAR_UPLOAD_BITS: u64 = 200_000_000;

/// Bytes that wait for their turn there: more than the 2.5 MB that fit on the way, so that the
/// rate is the limit and not the recovery from the first overflow.
const FAR_QUEUE: usize = 4 << 20;

/// Something to measure.
pub(super) struct Workload {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) load: Load,
}

/// What is done for it.
pub(super) enum Load {
    Bulk { far: bool, direction: Direction },
    Http(HttpLoad),
}

pub(super) const fn bulk(
    name: &'static str,
    unit: &'static str,
    far: bool,
    direction: Direction,
) -> Workload {
    Workload { name, unit, load: Load::Bulk { far, direction } }
}

pub(super) const fn http(name: &'static str, unit: &'static str, close: bool) -> Workload {
    Workload { name, unit, load: Load::Http(HttpLoad { connections: 64, close }) }
}

/// Where a subject is built.
pub(super) struct Site<'a> {
    pub(super) nodes: (Host, Host),
    pub(super) clients: [&'a Host; 2],
    pub(super) server: &'a Host,
}

/// A lab with one subject in it.
pub(super) struct Arena<S: ?Sized> {
    pub(super) subject: Box<S>,
    pub(super) bulk: BulkServer,
    _http: HttpServer,
    _nodes: Vec<Host>,
    client: Host,
    far: Host,
    _server: Host,
    pub(super) lab: Lab,
}

impl<S: Subject + ?Sized> Arena<S> {
    /// Builds the lab, and in it what `build` makes; the hosts that it gives back are kept.
    pub(super) fn new(
        seed: u64,
        build: impl FnOnce(Site<'_>) -> Result<(Box<S>, Vec<Host>), LabError>,
    ) -> Result<Self, LabError> {
        let lab = Lab::new(seed)?;
        let client = lab.host("client", 10, LinkKind::Plain)?;
        let far_link = LinkKind::Impaired {
            out: Impairment {
                rate: Some(FAR_UPLOAD_BITS),
                queue: FAR_QUEUE,
                ..Impairment::delayed(FAR)
            },
            back: Impairment::delayed(FAR),
        };
        let far = lab.host("far", 11, far_link)?;
        let server = lab.host("server", 20, LinkKind::Plain)?;
        let nodes =
            (lab.host("node-a", 2, LinkKind::Plain)?, lab.host("node-b", 3, LinkKind::Plain)?);
        let http = HttpServer::start(&server, HTTP_PORT)?;
        let bulk = BulkServer::start(&server, BULK_PORT)?;
        let clients = [&client, &far];
        let (subject, _nodes) = build(Site { nodes, clients, server: &server })?;
        let (_http, _server) = (http, server);
        Ok(Self { subject, bulk, _http, _nodes, client, far, _server, lab })
    }

    /// Measures one workload for that long, and counts in the report what went wrong with it.
    pub(super) fn measure(
        &self,
        workload: &Workload,
        length: Duration,
        report: &mut Report,
    ) -> Result<f64, LabError> {
        match workload.load {
            Load::Bulk { far, direction } => {
                // A far sender needs many round trips until it knows what it may send.
                let (host, warm_up) = if far { (&self.far, 3000) } else { (&self.client, 300) };
                let window = Window { warm_up: Duration::from_millis(warm_up), length };
                let to = self.subject.address(false, BULK_PORT);
                let bits = measure_bulk(host, &self.bulk, to, direction, window)?;
                report.connections += 1;
                report.require(bits > 0.0, || {
                    format!("{}: {} moved nothing", workload.name, self.subject.name())
                });
                Ok(bits * 1e-9)
            }
            Load::Http(load) => {
                let window = Window { warm_up: Duration::from_millis(300), length };
                let to = self.subject.address(false, HTTP_PORT);
                let result = load.run(&self.client, to, window)?;
                report.connections += result.connections;
                report.connections_lost += result.failed;
                report.bytes_verified += result.bytes;
                report.bytes_wrong += result.wrong;
                report.require(result.failed + result.wrong == 0, || {
                    let (name, subject) = (workload.name, self.subject.name());
                    format!("{name}: {subject} broke {} connections", result.failed)
                });
                Ok(result.per_second)
            }
        }
    }
}

/// The middle value, or the mean of the two middle ones; 0 of nothing.
pub(super) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        len if len % 2 == 1 => sorted[len / 2],
        len => f64::midpoint(sorted[len / 2 - 1], sorted[len / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }
}
