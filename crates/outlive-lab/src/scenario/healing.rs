//! A cut that heals, without any proxy: proves that the lab sees every stall.

use std::time::Duration;

use super::course::{Course, Nobody, Stalls};
use super::{Settings, mix};
use crate::error::LabError;
use crate::link::{Cut, LinkKind};
use crate::report::{Report, milliseconds};
use crate::subject::Subject;
use crate::subject::routing::Router;
use crate::topology::Lab;
use crate::traffic::{Client, Server};

const PORT: u16 = 7000;
const CUT: &str = "the router's cable is cut";
const SECONDS: u64 = 4;
const PACE: u64 = 2 << 20;

/// The router's cable is cut until every stream must have noticed.
const CUT_FOR: Duration = Duration::from_millis(300);

pub(super) fn run(settings: &Settings) -> Result<Report, LabError> {
    let lab = Lab::new(settings.seed)?;
    let client_host = lab.host("client", 10, LinkKind::Plain)?;
    let server_host = lab.host("server", 20, LinkKind::Plain)?;
    let node = lab.host("node-a", 2, LinkKind::Plain)?;
    let router = Router::between(&node, &[&client_host], &server_host)?;
    let observer = &mut Nobody;
    let mut course = Course::new(&lab, observer);
    let server = Server::start(&server_host, course.book(), &[PORT])?;
    let client = Client::start(&client_host, course.book(), settings.seed)?;
    let streams = mix::lasting(&client, router.address(false, PORT), SECONDS * PACE, PACE);
    course.wait_established(Duration::from_secs(10))?;
    course.event("all connections are established");
    course.wait_progress(&streams, 1 << 20, Duration::from_secs(10))?;
    course.fault(CUT, || node.link().cut(Cut::Both))?;
    course.run_for(CUT_FOR);
    node.link().restore()?;
    course.event("the router's cable is whole again");
    course.wait_over(&streams, Duration::from_secs(60));
    client.finish(Duration::from_secs(10));
    server.finish(Duration::from_secs(10));

    let mut report = course.report("healing", &lab);
    let after_the_cut = |stall: &Stalls| stall.after == CUT;
    for stall in course.stalls().into_iter().filter(after_the_cut) {
        report.require(stall.median_ms >= milliseconds(CUT_FOR) * 0.9, || {
            format!("{} waited {} ms only during the cut", stall.group, stall.median_ms)
        });
    }
    settings.save(&course.picture("a cut that heals: throughput"))?;
    Ok(report)
}
