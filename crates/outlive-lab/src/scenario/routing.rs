//! Clients reach servers through a routing kernel, no proxy: the lab itself must lose nothing.

use std::sync::Arc;
use std::time::Duration;

use super::Settings;
use crate::error::LabError;
use crate::link::LinkKind;
use crate::report::Report;
use crate::subject::routing::Router;
use crate::topology::Lab;
use crate::traffic::{Book, Client, Plan, Reader, Server, Transfer};

const PORT: u16 = 7000;
const BULK: u64 = 256 << 20;

pub(super) fn run(settings: &Settings) -> Result<Report, LabError> {
    let lab = Lab::new(settings.seed)?;
    let client_host = lab.host("client", 10, LinkKind::Plain)?;
    let server_host = lab.host("server", 20, LinkKind::Plain)?;
    let node = lab.host("node-a", 2, LinkKind::Plain)?;
    let router = Router::between(&node, &client_host, &server_host)?;

    let book = Arc::new(Book::default());
    let server = Server::start(&server_host, &book, &[PORT])?;
    let client = Client::start(&client_host, &book, settings.seed)?;
    for ipv6 in [false, true] {
        let to = router.server(ipv6, PORT);
        client.open("upload", 1, to, &Plan::upload(BULK));
        client.open("download", 1, to, &Plan::download(BULK));
        client.open("both", 2, to, &Plan::both(BULK / 8));
        client.open("half-closed", 10, to, &Plan::half_closed(1 << 20, 2 << 20));
        client.open(
            "requests",
            50,
            to,
            &Plan::Requests { every: Duration::from_millis(20), request: 200, response: 1000 },
        );
        client.open("interactive", 10, to, &Plan::Interactive { every: Duration::from_millis(20) });
        client.open("idle", 200, to, &Plan::Idle);
        let stopped =
            Reader { stop_after: 64 << 10, stop_for: Duration::from_millis(300), pace: None };
        let stopping = Transfer {
            up: 8 << 20,
            down: 8 << 20,
            reader: stopped,
            server_reader: stopped,
            ..Transfer::default()
        };
        client.open("stopped-reader", 4, to, &Plan::Transfer(stopping));
        let server_first = Transfer {
            up: 1 << 20,
            up_pace: Some(2 << 20),
            down: 1 << 20,
            server_closes_first: true,
            ..Transfer::default()
        };
        client.open("server-closes", 10, to, &Plan::Transfer(server_first));
    }
    let bulk = ["upload", "download", "both", "half-closed", "stopped-reader", "server-closes"];
    let bulk = bulk.map(|label| book.group(label));
    crate::clock::wait_until(Duration::from_secs(60), || {
        bulk.iter().all(|group| group.open() == 0)
    });
    client.finish(Duration::from_secs(10));
    server.finish(Duration::from_secs(5));

    let mut report = Report::new("routing", &lab);
    report.add_book(&book);
    report.measure("groups", super::summary::groups(&book));
    let forwarded = router.forwarded()?;
    report.measure("packets_forwarded", forwarded);
    report.require(forwarded > 0, || "nothing went through the router".to_owned());
    Ok(report)
}
