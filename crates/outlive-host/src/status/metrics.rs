//! The numbers in Prometheus' text format. Their names are documented in `docs/host.md`, which a test compares.

use std::fmt::Write;

use super::Status;

/// A family: its name, its type, what it is, and its samples with their labels.
type Family = (&'static str, &'static str, &'static str, Vec<(String, u64)>);

pub(super) fn text(status: &Status) -> String {
    let mut out = String::new();
    for (name, kind, help, samples) in families(status) {
        // Writing to a string does not fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(out, "{name}{labels} {value}");
        }
    }
    out
}

fn families(status: &Status) -> Vec<Family> {
    let Status { nodes, committed, waiting, mapped, handing_over, target, channels, packets } =
        *status;
    let by = |label: &str, values: &[(&str, u64)]| -> Vec<(String, u64)> {
        values.iter().map(|(value, n)| (format!("{{{label}=\"{value}\"}}"), *n)).collect()
    };
    vec![
        (
            "outlive_host_node_connected",
            "gauge",
            "Whether that node of the pair is connected.",
            by("node", &[("a", nodes[0].into()), ("b", nodes[1].into())]),
        ),
        (
            "outlive_host_connections",
            "gauge",
            "Connections by state.",
            by(
                "state",
                &[
                    ("committed", committed as u64),
                    ("waiting", waiting as u64),
                    ("mapped", mapped as u64),
                    ("handing_over", handing_over as u64),
                ],
            ),
        ),
        (
            "outlive_host_migrations_total",
            "counter",
            "What became of migrations.",
            by(
                "result",
                &[
                    ("prepared", target.prepared),
                    ("committed", target.committed),
                    ("aborted", target.aborted),
                    ("expired", target.expired),
                    ("refused", target.refused),
                    ("stale", target.stale),
                    ("ended", target.ended),
                ],
            ),
        ),
        (
            "outlive_host_blob_bytes_total",
            "counter",
            "Bytes of the states of connections that came to be infused.",
            vec![(String::new(), target.blob_bytes)],
        ),
        (
            "outlive_host_messages_total",
            "counter",
            "Messages exchanged with the nodes.",
            by(
                "direction",
                &[
                    ("received", channels.received),
                    ("sent", channels.sent),
                    ("unsent", channels.unsent),
                ],
            ),
        ),
        (
            "outlive_host_channel_refused_total",
            "counter",
            "Connections to the channel's port that came to nothing.",
            by("reason", &[("stranger", channels.strangers), ("failure", channels.failures)]),
        ),
        (
            "outlive_host_packets_total",
            "counter",
            "Packets that were led on.",
            by(
                "direction",
                &[
                    ("from_tunnel", packets.from_tunnel),
                    ("to_clients", packets.to_clients),
                    ("errors", packets.errors),
                    ("probes", packets.probes),
                ],
            ),
        ),
        (
            "outlive_host_bytes_total",
            "counter",
            "Bytes of packets that were led on.",
            by(
                "direction",
                &[
                    ("from_tunnel", packets.from_tunnel_bytes),
                    ("to_clients", packets.to_clients_bytes),
                ],
            ),
        ),
        (
            "outlive_host_dropped_total",
            "counter",
            "Packets that were dropped.",
            by(
                "reason",
                &[
                    ("stranger", packets.strangers),
                    ("unknown_flow", packets.unknown_flows),
                    ("mute", packets.mute),
                    ("unknown_server", packets.unknown_servers),
                    ("other", packets.other),
                    ("write_failure", packets.write_failures),
                ],
            ),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_documented() {
        let document = include_str!("../../../../docs/host.md");
        for (name, _, _, samples) in families(&Status::default()) {
            assert!(document.contains(&format!("`{name}`")), "{name}");
            for (labels, _) in samples {
                let value = labels.split('"').nth(1);
                let told = |value| document.contains(&format!("`{value}`"));
                assert!(value.is_none_or(told), "{name}{labels}");
            }
        }
    }

    #[test]
    fn the_text_is_what_a_scraper_reads() {
        let text = text(&Status { committed: 7, ..Status::default() });
        assert!(text.contains("# TYPE outlive_host_connections gauge\n"));
        assert!(text.contains("outlive_host_connections{state=\"committed\"} 7\n"));
    }
}
