//! Clients reach servers through a routing kernel, no proxy: the lab itself must lose nothing.

use std::sync::Arc;
use std::time::Duration;

use super::{Settings, mix, summary};
use crate::error::LabError;
use crate::impairment::Impairment;
use crate::link::LinkKind;
use crate::report::Report;
use crate::subject::Subject;
use crate::subject::routing::Router;
use crate::topology::Lab;
use crate::traffic::{Book, Client, Server};

const PORT: u16 = 7000;

/// Over plain links.
pub(super) fn run(settings: &Settings) -> Result<Report, LabError> {
    through_router("routing", settings, &LinkKind::Plain, 256 << 20)
}

/// Over links that lose, double, delay and reorder.
pub(super) fn run_over_bad_links(settings: &Settings) -> Result<Report, LabError> {
    let kind = LinkKind::impaired(Impairment::bad());
    through_router("routing-bad", settings, &kind, 2 << 20)
}

fn through_router(
    name: &str,
    settings: &Settings,
    links: &LinkKind,
    bulk: u64,
) -> Result<Report, LabError> {
    let lab = Lab::new(settings.seed)?;
    let client_host = lab.host("client", 10, links.clone())?;
    let server_host = lab.host("server", 20, links.clone())?;
    let node = lab.host("node-a", 2, links.clone())?;
    let router = Router::between(&node, &[&client_host], &server_host)?;

    let book = Arc::new(Book::default());
    let server = Server::start(&server_host, &book, &[PORT])?;
    let client = Client::start(&client_host, &book, settings.seed)?;
    let mut transfers = Vec::new();
    for ipv6 in [false, true] {
        let to = router.address(ipv6, PORT);
        mix::endless(&client, to);
        transfers.extend(mix::transfers(&client, to, bulk));
    }
    mix::wait_for(&transfers, Duration::from_secs(60));
    client.finish(Duration::from_secs(30));
    server.finish(Duration::from_secs(10));

    let mut report = Report::new(name, &lab);
    report.add_book(&book);
    report.measure("groups", summary::groups(&book));
    let forwarded = node.counter("ForwDatagrams")?.unwrap_or(0);
    report.measure("packets_forwarded", forwarded);
    report.require(forwarded > 0, || "nothing went through the router".to_owned());
    Ok(report)
}
