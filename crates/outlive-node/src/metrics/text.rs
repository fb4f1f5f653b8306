//! A report as Prometheus reads it: the text exposition format, version 0.0.4.

use std::fmt::{Display, Write as _};

use outlive_proxy::counters::Counter;

use crate::admin::{DetectorReport, PathReport, PeerReport, Report, ServerReport};

/// All metrics of a node. `docs/metrics.md` tells what each is good for.
pub fn render(report: &Report) -> String {
    let mut out = Text(String::with_capacity(16_384));
    node(&mut out, report);
    if let Some(peer) = &report.peer {
        pair(&mut out, report, peer);
        paths(&mut out, &peer.paths);
    }
    if let Some(detector) = &report.detector {
        detectors(&mut out, detector);
    }
    sessions(&mut out, report);
    servers(&mut out, &report.core.servers);
    targets(&mut out, report);
    counters(&mut out, report);
    device(&mut out, report);
    out.0
}

fn node(out: &mut Text, report: &Report) {
    let labels = [("version", report.version.as_str()), ("node", report.node.as_str())];
    out.family(
        "outlive_info",
        GAUGE,
        "Version of the program and name of the node; always 1.",
        [(&labels[..], 1)],
    );
    out.gauge(
        "outlive_uptime_seconds",
        "For how long the process has been running.",
        seconds(report.uptime_ms),
    );
    let roles = ["joining", "standby", "active"].map(|role| [("role", role)]);
    let is = |role: &[(&str, &str)]| u8::from(role[0].1 == report.role);
    out.family(
        "outlive_role",
        GAUGE,
        "What the node is: 1 for that role, 0 for the others.",
        roles.iter().map(|role| (&role[..], is(&role[..]))),
    );
    // The letter behind the number names the node that began it.
    out.gauge(
        "outlive_epoch",
        "Number of the epoch: each takeover and each pairing raises it.",
        report.epoch.trim_end_matches(char::is_alphabetic),
    );
    out.gauge(
        "outlive_survivable",
        "Whether a failure of the active node now would be survived.",
        u8::from(report.survival.survives),
    );
    out.gauge(
        "outlive_unsure",
        "Whether the node stood still, and asks its peer before it goes on.",
        u8::from(report.unsure),
    );
}

fn pair(out: &mut Text, report: &Report, peer: &PeerReport) {
    out.gauge(
        "outlive_peer_alive",
        "Whether the peer was heard within the detection timeout.",
        u8::from(peer.alive),
    );
    out.gauge(
        "outlive_state_connected",
        "Whether the state connection is open.",
        u8::from(peer.connected),
    );
    out.gauge(
        "outlive_synchronised",
        "Whether the standby holds every session.",
        u8::from(peer.synchronised),
    );
    if let Some(same) = report.same_configuration {
        out.gauge(
            "outlive_same_configuration",
            "Whether both nodes obey the same configuration.",
            u8::from(same),
        );
    }
    let core = &report.core;
    out.gauge(
        "outlive_replication_backlog_bytes",
        "Changes that wait to be sent to the standby.",
        core.backlog_bytes,
    );
    out.gauge(
        "outlive_unconfirmed_sessions",
        "Sessions that wait for the standby's confirmation.",
        core.unconfirmed,
    );
    out.gauge(
        "outlive_replication_lag_seconds",
        "How long the first of them has been waiting; 0 if none is.",
        seconds(core.waiting_ms.unwrap_or(0)),
    );
}

fn paths(out: &mut Text, paths: &[PathReport]) {
    let labels: Vec<[(&str, &str); 2]> =
        paths.iter().map(|path| [("local", &*path.local), ("peer", &*path.peer)]).collect();
    let mut family = |name, kind, help, value: fn(&PathReport) -> String| {
        let samples = labels.iter().zip(paths).map(|(labels, path)| (&labels[..], value(path)));
        out.family(name, kind, help, samples);
    };
    family(
        "outlive_heartbeat_path_alive",
        GAUGE,
        "Whether the peer was heard on this path.",
        |p| u8::from(p.alive).to_string(),
    );
    family(
        "outlive_heartbeat_silence_seconds",
        GAUGE,
        "Since the peer was last heard on this path; NaN if never.",
        |p| p.heard_ms_ago.map_or("NaN".to_owned(), seconds),
    );
    family("outlive_heartbeats_sent_total", COUNTER, "Heartbeats sent.", |p| p.sent.to_string());
    family(
        "outlive_heartbeat_send_failures_total",
        COUNTER,
        "Heartbeats that could not be sent.",
        |p| p.send_failures.to_string(),
    );
    family("outlive_heartbeats_received_total", COUNTER, "Heartbeats of the peer.", |p| {
        p.received.to_string()
    });
    family(
        "outlive_heartbeats_refused_total",
        COUNTER,
        "Datagrams that were not the peer's heartbeats.",
        |p| p.refused.to_string(),
    );
    family("outlive_heartbeats_replayed_total", COUNTER, "Heartbeats that were no news.", |p| {
        p.replayed.to_string()
    });
}

fn detectors(out: &mut Text, detector: &DetectorReport) {
    out.gauge(
        "outlive_detector_silence_seconds",
        "Since an external detector was last heard; NaN if never.",
        detector.heard_ms_ago.map_or("NaN".to_owned(), seconds),
    );
    out.counter(
        "outlive_detector_questions_total",
        "Questions of external detectors that were answered.",
        detector.questions,
    );
    out.counter(
        "outlive_detector_orders_total",
        "Orders of external detectors to take over.",
        detector.orders,
    );
    out.counter(
        "outlive_detector_refused_total",
        "Datagrams to the detector's port that were not understood, or not authentic.",
        detector.refused,
    );
}

fn sessions(out: &mut Text, report: &Report) {
    let core = &report.core;
    let states = [
        ([("state", "establishing")], core.establishing),
        ([("state", "open")], core.open),
        ([("state", "over")], core.over),
    ];
    out.family(
        "outlive_sessions",
        GAUGE,
        "Sessions in the table, by state.",
        states.iter().map(|(labels, count)| (&labels[..], count)),
    );
    out.gauge("outlive_openings", "Connections that are being opened.", core.openings);
    let labels: Vec<[(&str, &str); 2]> = (core.listeners.iter())
        .map(|listener| [("listener", &*listener.name), ("address", &*listener.address)])
        .collect();
    let listeners = || labels.iter().map(|labels| &labels[..]).zip(&core.listeners);
    out.family(
        "outlive_listener_sessions",
        GAUGE,
        "Sessions of the listener that are not over.",
        listeners().map(|(labels, listener)| (labels, listener.sessions)),
    );
    out.family(
        "outlive_listener_sessions_opened_total",
        COUNTER,
        "Sessions of the listener established by this node.",
        listeners().map(|(labels, listener)| (labels, listener.opened)),
    );
}

fn servers(out: &mut Text, servers: &[ServerReport]) {
    let labels: Vec<[(&str, &str); 1]> =
        servers.iter().map(|server| [("server", &*server.address)]).collect();
    let mut family = |name, kind, help, value: fn(&ServerReport) -> u64| {
        let samples = labels.iter().zip(servers).map(|(labels, s)| (&labels[..], value(s)));
        out.family(name, kind, help, samples);
    };
    family("outlive_server_up", GAUGE, "Whether the server has not failed lately.", |server| {
        u64::from(server.up)
    });
    family(
        "outlive_server_draining",
        GAUGE,
        "Whether an operator keeps new sessions from it.",
        |server| u64::from(server.draining),
    );
    family("outlive_server_sessions", GAUGE, "Sessions with the server that are not over.", |s| {
        s.sessions
    });
    family(
        "outlive_server_connections_total",
        COUNTER,
        "Connections that the server accepted from this node.",
        |server| server.answered,
    );
    family(
        "outlive_server_failures_total",
        COUNTER,
        "Connections that the server refused, or did not answer.",
        |server| server.failed,
    );
}

fn targets(out: &mut Text, report: &Report) {
    out.gauge(
        "outlive_migrated_connections",
        "Connections that live at targets, or are about to.",
        report.migrated,
    );
    let labels: Vec<[(&str, &str); 1]> =
        report.targets.iter().map(|target| [("target", &*target.name)]).collect();
    out.family(
        "outlive_target_ready",
        GAUGE,
        "Whether connections can be migrated to the target.",
        labels.iter().zip(&report.targets).map(|(l, target)| (&l[..], u8::from(target.ready))),
    );
}

/// Everything that the core counts. What it drops is one metric, by reason.
fn counters(out: &mut Text, report: &Report) {
    let value = |counter: &Counter| report.core.counters.get(counter.name()).copied();
    let mut drops = Vec::new();
    for counter in Counter::ALL {
        match counter.name().strip_prefix("drop_") {
            Some(reason) => drops.push(([("reason", reason)], value(counter).unwrap_or(0))),
            None => {
                let name = format!("outlive_{}_total", counter.name());
                out.counter(&name, counter.help(), value(counter).unwrap_or(0));
            }
        }
    }
    out.family(
        "outlive_dropped_packets_total",
        COUNTER,
        "Packets that were dropped, by reason.",
        drops.iter().map(|(labels, count)| (&labels[..], count)),
    );
}

fn device(out: &mut Text, report: &Report) {
    let path = &report.fast_path;
    out.gauge(
        "outlive_fast_path_available",
        "Whether sessions may be left to the kernel.",
        u8::from(path.unavailable_because.is_none()),
    );
    out.gauge(
        "outlive_fast_path_sessions",
        "Open sessions whose packets the kernel translates.",
        path.sessions,
    );
    out.counter(
        "outlive_fast_path_packets_total",
        "Packets that the kernel translated; a super-segment is one.",
        path.packets,
    );
    out.counter(
        "outlive_fast_path_bytes_total",
        "Payload in the packets that the kernel translated.",
        path.bytes,
    );
    let packets = &report.packets;
    for (name, help, value) in [
        ("read_packets", "Packets read from the device; a super-segment is one.", packets.read),
        ("read_bytes", "Bytes read from the device.", packets.read_bytes),
        ("written_packets", "Packets written to the device.", packets.written),
        ("written_bytes", "Bytes written to the device.", packets.written_bytes),
        ("write_failures", "Packets that the kernel did not take.", packets.write_failures),
        ("read_failures", "Reads that failed.", packets.read_failures),
    ] {
        out.counter(&format!("outlive_device_{name}_total"), help, value);
    }
}

const GAUGE: &str = "gauge";
const COUNTER: &str = "counter";

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1_000, ms % 1_000)
}

/// The text as it grows. Writing to it cannot fail.
struct Text(String);

impl Text {
    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, GAUGE, help, [(&[][..], value)]);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, COUNTER, help, [(&[][..], value)]);
    }

    /// A metric with all its samples: labels and value of each.
    fn family<'l, V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = (&'l [(&'l str, &'l str)], V)>,
    ) {
        let help = help.replace('\\', "\\\\").replace('\n', " ");
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            self.0.push_str(name);
            for (nth, (label, is)) in labels.iter().enumerate() {
                let begin = if nth == 0 { '{' } else { ',' };
                let is = is.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                let _ = write!(self.0, "{begin}{label}=\"{is}\"");
            }
            let end = if labels.is_empty() { "" } else { "}" };
            let _ = writeln!(self.0, "{end} {value}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;
    use crate::admin::report::tests::example;

    fn full() -> Report {
        let detector = DetectorReport {
            decides: true,
            heard_ms_ago: None,
            questions: 3,
            orders: 1,
            refused: 2,
        };
        Report { detector: Some(detector), ..example() }
    }

    #[test]
    fn what_is_told_is_what_is() {
        let text = render(&full());
        for line in [
            "outlive_role{role=\"active\"} 1",
            "outlive_role{role=\"standby\"} 0",
            "outlive_epoch 3",
            "outlive_uptime_seconds 11100.000",
            "outlive_replication_lag_seconds 0.003",
            "outlive_heartbeat_silence_seconds{local=\"10.0.0.1:7401\",peer=\"10.0.0.2:7401\"} 0.012",
            "outlive_detector_silence_seconds NaN",
            "outlive_sessions{state=\"open\"} 11",
            "outlive_listener_sessions_opened_total{listener=\"web\",address=\"10.0.0.100:443\"} 20",
            "outlive_server_up{server=\"10.0.0.22:443\"} 0",
            "outlive_takeovers_total 1",
            "outlive_dropped_packets_total{reason=\"malformed\"} 0",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is missing in:\n{text}");
        }
    }

    #[test]
    fn the_format_is_kept() {
        let mut report = full();
        report.core.listeners[0].name = "a \"strange\\ name\n".to_owned();
        let text = render(&report);
        assert!(text.contains(r#"listener="a \"strange\\ name\n""#));
        let mut family = "";
        let mut seen = BTreeSet::new();
        for line in text.lines() {
            let (word, rest) = line.split_once(' ').unwrap();
            if word == "#" {
                let mut words = rest.split(' ');
                if words.next() == Some("TYPE") {
                    assert_eq!(words.next(), Some(family));
                } else {
                    family = words.next().unwrap();
                    assert!(seen.insert(family), "{family} comes twice");
                }
                continue;
            }
            let name = line.split(['{', ' ']).next().unwrap();
            assert_eq!(name, family, "samples of a metric stand together");
            let value = line.rsplit(' ').next().unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }

    #[test]
    fn every_metric_is_documented() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
        let document = fs::read_to_string(path).unwrap();
        let text = render(&full());
        let names: BTreeSet<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        let unknown: Vec<_> =
            names.iter().filter(|name| !document.contains(&format!("`{name}`"))).collect();
        assert!(unknown.is_empty(), "docs/metrics.md does not tell of {unknown:?}");
        let told = document.split('`').filter(|word| word.starts_with("outlive_"));
        let gone: Vec<_> = told.filter(|name| !names.contains(name)).collect();
        assert!(gone.is_empty(), "docs/metrics.md tells of {gone:?}");
        for counter in Counter::ALL {
            if let Some(reason) = counter.name().strip_prefix("drop_") {
                assert!(document.contains(&format!("`{reason}`")), "{reason} is not documented");
            }
        }
    }
}
