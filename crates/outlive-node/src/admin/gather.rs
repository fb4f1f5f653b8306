//! A report, put together from everybody who knows something.

use std::net::SocketAddr;

use outlive_proxy::{
    HandoverProgress,
    config::{Detector, NodeId},
    pair::heartbeat::Role,
    status::Status,
};
use outlive_tcp::time::Time;

use super::{
    CoreReport, DetectorReport, FastPathReport, PacketReport, PathReport, PeerReport, Report,
    Survival, TargetReport, report::millis,
};
use crate::{
    detector::Responder,
    fast_path::KernelPath,
    heartbeat::Heartbeats,
    packets::PacketPath,
    settings::Settings,
    state::{Failure, StateEndpoint},
    targets::TargetLinks,
};

/// Who knows something besides the core.
pub(crate) struct Sources<'a> {
    pub(crate) state: Option<&'a StateEndpoint>,
    pub(crate) targets: &'a TargetLinks,
    pub(crate) heartbeats: Option<&'a Heartbeats>,
    pub(crate) detector: Option<&'a Responder>,
    pub(crate) fast_path: Result<&'a KernelPath, &'a String>,
    pub(crate) packets: &'a PacketPath,
}

/// How the node is, with what its core says of itself.
pub(crate) fn gather(
    now: Time,
    status: &Status,
    settings: &Settings,
    sources: &Sources<'_>,
) -> Report {
    let counters = sources.heartbeats.map(Heartbeats::counters).unwrap_or_default();
    let timeout = settings.proxy.pair.detection_timeout;
    let peer = settings.peer.as_ref().map(|peer| {
        let paths: Vec<PathReport> = (peer.heartbeat.iter().zip(counters))
            .map(|(path, counters)| {
                let silence = counters.last_heard.map(|at| now.since(at));
                PathReport {
                    local: path.local.value.to_string(),
                    peer: path.peer.to_string(),
                    alive: silence.is_some_and(|silence| silence < timeout),
                    heard_ms_ago: silence.map(millis),
                    sent: counters.sent,
                    send_failures: counters.send_failures,
                    received: counters.received,
                    refused: counters.refused,
                    replayed: counters.replayed,
                }
            })
            .collect();
        let failure = sources.state.and_then(StateEndpoint::last_failure);
        PeerReport {
            alive: status.peer.is_some(),
            heard_ms_ago: paths.iter().filter_map(|path| path.heard_ms_ago).min(),
            connected: status.state_connected,
            not_connected_because: failure
                .filter(|_| !status.state_connected)
                .map(|failure| failure.to_string()),
            synchronised: status.synchronised,
            paths,
        }
    });
    let external = settings.proxy.pair.detector == Detector::External;
    let detector = sources.detector.map(Responder::counters).map(|counters| DetectorReport {
        decides: external,
        heard_ms_ago: counters.last_heard.map(|at| millis(now.since(at))),
        questions: counters.questions,
        orders: counters.orders,
        refused: counters.refused,
    });
    let passed = sources.packets.counters();
    let kernel = sources.fast_path.map(KernelPath::passed).unwrap_or_default();
    Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: if status.node == NodeId::A { "a" } else { "b" }.to_owned(),
        uptime_ms: now.as_millis(),
        role: match status.role {
            Role::Joining => "joining",
            Role::Standby => "standby",
            Role::Active => "active",
        }
        .to_owned(),
        epoch: status.epoch.to_string(),
        unsure: status.unsure,
        handover: match status.handover {
            HandoverProgress::None => "none",
            HandoverProgress::UnderWay => "under-way",
            HandoverProgress::Relaying => "relaying",
        }
        .to_owned(),
        same_configuration: status.peer_configuration.map(|peer| peer == status.configuration),
        survival: Survival::of(status, peer.as_ref(), detector.as_ref()),
        peer,
        detector,
        core: CoreReport::of(status),
        packets: PacketReport {
            read: passed.read,
            read_bytes: passed.read_bytes,
            written: passed.written,
            written_bytes: passed.written_bytes,
            write_failures: passed.write_failures,
            read_failures: passed.read_failures,
        },
        fast_path: FastPathReport {
            sessions: status.delegated as u64,
            packets: kernel.packets,
            bytes: kernel.bytes,
            unavailable_because: sources.fast_path.err().cloned(),
        },
        migrated: status.migrated as u64,
        targets: targets(status, sources.targets),
    }
}

/// The targets, as the core and the links to them know them.
fn targets(status: &Status, links: &TargetLinks) -> Vec<TargetReport> {
    let report = |(name, control, state): (&str, SocketAddr, Result<(), Option<Failure>>)| {
        let failure = state.err().flatten();
        TargetReport {
            name: name.to_owned(),
            agent: control.to_string(),
            connected: state.is_ok(),
            not_connected_because: failure.map(|failure| failure.to_string()),
            ready: status.ready_agents.contains(&control.into()),
        }
    };
    links.states().map(report).collect()
}
