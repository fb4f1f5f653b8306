//! Many connections from many processes through a cluster, and one fault: what do they see of it?
//!
//! Half of the connections are idle. Of the busy half, some are *streams*, which have data on the way
//! at every moment, so that the gap that a fault tears into each of them can be measured; the others
//! ask and are answered, as often as the machine allows.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::course::{Course, Nobody};
use super::ordeal::Ordeal;
use super::senders::Watch;
use super::stage::Stage;
use super::summary::Distribution;
use super::{Contender, Settings, synthetic};
use crate::error::LabError;
use crate::report::{Report, milliseconds};
use crate::traffic::{Group, Plan, Transfer};

const IDLE: &str = "idle";
const REQUESTS: &str = "requests";
const UPLOADS: &str = "uploads";
const DOWNLOADS: &str = "downloads";
const LABELS: [&str; 4] = [IDLE, REQUESTS, UPLOADS, DOWNLOADS];

/// Of the busy connections, at most so many are streams: more of them would fill the machine, and
/// the measurement would be of that.
const MOST_STREAMS: u64 = 64;

/// Bytes per second of a stream: a portion of 16 KiB every 10 ms.
const PACE: u64 = 1_600_000;

/// How long a stream lasts undisturbed.
const STREAM_SECONDS: u64 = 8;

/// Requests per second, all together.
const REQUESTS_PER_SECOND: u64 = 10_000;

/// How long everything runs undisturbed before the fault, and before it is made good.
const STEADY: Duration = Duration::from_secs(1);

/// How the connections are divided.
#[derive(Debug, Clone, Copy, Serialize)]
struct Shares {
    idle: u64,
    streams: u64,
    requesters: u64,
    /// Milliseconds between two requests of a requester.
    request_every_ms: u64,
}

impl Shares {
    fn of(connections: u64) -> Self {
        let busy = connections / 2;
        let streams = busy.min(MOST_STREAMS);
        let requesters = busy - streams;
        let request_every_ms = (requesters * 1000 / REQUESTS_PER_SECOND).max(20);
        Self { idle: connections - busy, streams, requesters, request_every_ms }
    }
}

pub(super) fn run(settings: &Settings) -> Result<Report, LabError> {
    if settings.synthetic {
        return synthetic::run(settings);
    }
    let observer = &mut Nobody;
    let mut stage = Stage::new(settings, &LABELS)?;
    let mut course = Course::with_book(&stage.lab, &stage.book, observer);
    course.event("the cluster is formed");
    let shares = Shares::of(settings.connections);
    let streams = open(&mut stage, &mut course, shares)?;
    let patience = patience(settings);
    course.wait("the cluster to be whole", patience, || stage.cluster.is_whole())?;
    course.wait_progress(&streams, PACE / 32, Duration::from_secs(60))?;
    course.run_for(STEADY);
    let in_mid_transfer = streams.iter().all(|group| group.open() > 0);

    let before = stage.cluster.describe()?;

    let mut watch = Watch::new(stage.lab.clock());
    let ordeal = Ordeal::begin(settings.fault, &mut *stage.cluster, &mut course, || {
        watch.note([stage.clients.senders(), stage.servers.senders()]);
    })?;
    course.run_for(STEADY);
    let (fault_at, took_over_at) = (ordeal.fault_at, ordeal.took_over_at);
    ordeal.end(&mut course, patience)?;
    // Where connections are lost, some ends are never told: waiting longer would not help them.
    let slack = Duration::from_secs(match settings.contender {
        Contender::Outlive => 60,
        Contender::Haproxy => 5,
    });
    course.wait_over(&streams, slack + Duration::from_secs(STREAM_SECONDS));
    course.event("the streams are over");
    stage.close(&mut course, slack)?;

    let mut report = match settings.contender {
        Contender::Outlive => course.report("failover", &stage.lab),
        // What it loses is what is to be found out.
        Contender::Haproxy => course.findings("failover", &stage.lab),
    };
    report.require(in_mid_transfer, || "a stream was over before the fault".to_owned());
    report.measure("subject", stage.cluster.name());
    report.measure("fault", settings.fault);
    report.measure("processes", [stage.clients.processes(), stage.servers.processes()]);
    report.measure("shares", shares);
    report.measure("detection_ms", milliseconds(took_over_at - fault_at));
    let until = took_over_at + STEADY;
    let stalls = course.stalls_around(fault_at, until, &[UPLOADS, DOWNLOADS]);
    report.measure("stall_ms", Distribution::of(stalls.values().copied()));
    let answers = course.stalls_around(fault_at, until, &[REQUESTS]);
    report.measure("answer_ms", Distribution::of(answers.values().copied()));
    report.measure("senders", watch.verdict(took_over_at - fault_at, took_over_at, &stalls));
    report.measure("failures", course.book().totals().failures());
    report.measure("cluster", [before, stage.cluster.describe()?]);
    report.add_logs(&mut *stage.cluster);
    settings.save(&course.picture("failover: throughput"))?;
    Ok(report)
}

/// Everything but the streams first: they do not last for ever.
fn open(
    stage: &mut Stage,
    course: &mut Course<'_>,
    shares: Shares,
) -> Result<Vec<Arc<Group>>, LabError> {
    let limit = Duration::from_secs(60) + Duration::from_millis(shares.idle + shares.requesters);
    stage.open(IDLE, shares.idle, &Plan::Idle);
    let every = Duration::from_millis(shares.request_every_ms);
    stage.open(
        REQUESTS,
        shares.requesters,
        &Plan::Requests { every, request: 200, response: 1000 },
    );
    course.wait_established(limit)?;
    course.event("idle connections and requesters are established");
    let bytes = PACE * STREAM_SECONDS;
    let up = Transfer { up: bytes, up_pace: Some(PACE), ..Transfer::default() };
    let down = Transfer { down: bytes, down_pace: Some(PACE), ..Transfer::default() };
    let streams = vec![
        stage.open(UPLOADS, shares.streams / 2, &Plan::Transfer(up)),
        stage.open(DOWNLOADS, shares.streams - shares.streams / 2, &Plan::Transfer(down)),
    ];
    course.wait_established(limit)?;
    course.event("all connections are established");
    Ok(streams)
}

/// The more sessions there are, the longer a synchronisation may take.
fn patience(settings: &Settings) -> Duration {
    Duration::from_secs(20) + Duration::from_millis(settings.connections)
}
