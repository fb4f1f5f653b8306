//! A busy machine is not a dead one: all processors are fully loaded, and nobody harms anybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::course::{Course, Nobody};
use super::rig::{PORT, Rig};
use super::{Settings, mix};
use crate::error::LabError;
use crate::link::LinkKind;
use crate::report::Report;
use crate::subject::outlive::PairOptions;

/// What is tried in turn, each for half of the time.
const TIMEOUTS_MS: [u64; 2] = [100, 20];

/// Heartbeats in the time of one timeout.
const HEARTBEATS: u64 = 5;

/// The largest of the transfers that are always under way, in bytes.
const BULK: u64 = 64 << 20;

/// What a timeout led to.
#[derive(Debug, Serialize)]
struct Alarms {
    detection_timeout_ms: u64,
    takeovers: u64,
    connections: u64,
    connections_lost: u64,
    bytes_wrong: u64,
}

pub(super) fn run(settings: &Settings) -> Result<Report, LabError> {
    let length = settings.time() / TIMEOUTS_MS.len() as u32;
    let mut reports = Vec::new();
    let mut rows = Vec::new();
    for timeout_ms in TIMEOUTS_MS {
        let (report, takeovers) = try_timeout(settings, timeout_ms, length)?;
        rows.push(Alarms {
            detection_timeout_ms: timeout_ms,
            takeovers,
            connections: report.connections,
            connections_lost: report.connections_lost,
            bytes_wrong: report.bytes_wrong,
        });
        reports.push(report);
    }
    let mut report = Report::sum("false-alarms", reports);
    report.measure("minutes", settings.minutes);
    report.measure("busy_threads", processors());
    report.measure("alarms", rows);
    Ok(report)
}

/// What came of it, and how often a node took over.
fn try_timeout(
    settings: &Settings,
    timeout_ms: u64,
    length: Duration,
) -> Result<(Report, u64), LabError> {
    let peer_lines = format!(
        "detection_timeout = \"{timeout_ms}ms\"\nheartbeat_interval = \"{}ms\"\n",
        timeout_ms / HEARTBEATS
    );
    let options = PairOptions { peer_lines, ..settings.pair_options(&[PORT]) };
    let mut rig = Rig::new(settings.program()?, settings.seed, &LinkKind::Plain, &options)?;
    let observer = &mut Nobody;
    let mut course = Course::with_book(&rig.lab, &rig.book, observer);
    let busy = Busy::start();
    for ipv6 in [false, true] {
        mix::endless(&rig.client, rig.service(ipv6));
    }
    course.wait_established(Duration::from_secs(60))?;
    let end = rig.lab.clock().now() + length;
    while rig.lab.clock().now() < end {
        let transfers = mix::transfers(&rig.client, rig.service(false), BULK);
        course.wait_over(&transfers, Duration::from_secs(120));
    }
    let mut takeovers = 0;
    for node in [&rig.pair.a, &rig.pair.b] {
        takeovers += node.status()?.counter("takeovers");
    }
    drop(busy);
    course.wait("the pair to be whole", Duration::from_secs(30), || rig.pair.is_whole())?;
    rig.close(&mut course, Duration::from_secs(60));
    let mut report = course.report("false-alarms", &rig.lab);
    report.add_logs(&mut rig.pair);
    Ok((report, takeovers))
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// A thread for each processor that never rests. Dropping it ends them.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        for _ in 0..processors() {
            let stop = stop.clone();
            thread::spawn(move || {
                while !stop.load(Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(stop)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
